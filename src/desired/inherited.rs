//! What an earlier process programmed and this one cannot judge, because part of its input cannot be read.
//!
//! An object that becomes bad keeps what was programmed for it. A process that was there knows the object's last good
//! version; one that starts, or runs once, knows only the kernel. So while something in the input may be an object that
//! cannot be read, a virtual server of ours that nobody asks for stays as it was found at the start, and one that would
//! have no destinations keeps those it had. What a Service that can be read asked for once goes with that Service.

use crate::model::{Model, VirtualServer, VirtualServerKey};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The virtual servers found at the start, as long as the input is in doubt and no Service has answered for them.
#[derive(Debug, Default)]
pub struct Inherited {
    servers: BTreeMap<VirtualServerKey, Heirloom>,
}

/// A virtual server that was found.
#[derive(Debug)]
struct Heirloom {
    server: VirtualServer,
    /// Whether a Service that can be read asked for it: then it is known whose it is, and it goes with that Service.
    is_claimed: bool,
}

impl Inherited {
    /// Everything that was found.
    pub fn from(found: &Model) -> Self {
        let heirloom = |VirtualServer { spec, destinations }: &VirtualServer| Heirloom {
            server: VirtualServer { spec: spec.as_ours(), destinations: destinations.clone() },
            is_claimed: false,
        };
        Self { servers: found.virtual_servers.iter().map(|(key, server)| (*key, heirloom(server))).collect() }
    }

    /// What should stand for `key`, where `wanted` is what can be read.
    pub fn complete<'a>(
        &'a mut self,
        key: &VirtualServerKey,
        wanted: Option<&'a VirtualServer>,
    ) -> Option<Cow<'a, VirtualServer>> {
        match wanted {
            Some(wanted) if wanted.destinations.is_empty() => Some(self.endow(key, wanted)),
            Some(wanted) => {
                self.servers.remove(key);
                Some(Cow::Borrowed(wanted))
            }
            None => {
                self.servers.get(key).filter(|heirloom| !heirloom.is_claimed).map(|kept| Cow::Borrowed(&kept.server))
            }
        }
    }

    /// What stands for `key`, as [`Inherited::complete`] would say it.
    pub fn standing<'a>(
        &'a self,
        key: &VirtualServerKey,
        wanted: Option<&'a VirtualServer>,
    ) -> Option<Cow<'a, VirtualServer>> {
        let heirloom = self.servers.get(key);
        match wanted {
            Some(wanted) if wanted.destinations.is_empty() => {
                let found = |heirloom: &Heirloom| heirloom.server.destinations.clone();
                let endowed =
                    heirloom.map(|heirloom| VirtualServer { spec: wanted.spec, destinations: found(heirloom) });
                Some(endowed.map_or(Cow::Borrowed(wanted), Cow::Owned))
            }
            Some(wanted) => Some(Cow::Borrowed(wanted)),
            None => heirloom.filter(|heirloom| !heirloom.is_claimed).map(|kept| Cow::Borrowed(&kept.server)),
        }
    }

    /// The virtual servers that are kept.
    pub fn keys(&self) -> impl Iterator<Item = VirtualServerKey> {
        self.servers.keys().copied()
    }

    /// A virtual server without destinations gets those that were found.
    fn endow<'a>(&mut self, key: &VirtualServerKey, wanted: &'a VirtualServer) -> Cow<'a, VirtualServer> {
        let Some(heirloom) = self.servers.get_mut(key) else { return Cow::Borrowed(wanted) };
        heirloom.is_claimed = true;
        Cow::Owned(VirtualServer { spec: wanted.spec, destinations: heirloom.server.destinations.clone() })
    }

    /// How many virtual servers stand that nobody asks for.
    pub fn len(&self) -> usize {
        self.servers.values().filter(|heirloom| !heirloom.is_claimed).count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
