//! What an earlier process programmed and this one cannot judge, because part of its input cannot be read.
//!
//! An object that becomes bad keeps what was programmed for it. A process that was there knows the object's last good
//! version; one that starts, or runs once, knows only the kernel. So while something in the input may be an object that
//! cannot be read, a virtual server of ours that nobody asks for stays as it was found at the start, and one that would
//! have no destinations keeps those it had. A Service that can be read and has endpoints is not touched by this.

use crate::model::{Model, VirtualServer, VirtualServerKey};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The virtual servers found at the start, as long as the input is in doubt.
#[derive(Debug, Default)]
pub struct Inherited {
    servers: BTreeMap<VirtualServerKey, VirtualServer>,
}

impl Inherited {
    /// Everything that was found.
    pub fn from(found: &Model) -> Self {
        Self { servers: found.virtual_servers.clone() }
    }

    /// What should stand for `key`, where `wanted` is what can be read.
    pub fn complete<'a>(
        &'a self,
        key: &VirtualServerKey,
        wanted: Option<&'a VirtualServer>,
    ) -> Option<Cow<'a, VirtualServer>> {
        match (wanted, self.servers.get(key)) {
            (None, inherited) => inherited.map(Cow::Borrowed),
            (Some(wanted), Some(inherited)) if wanted.destinations.is_empty() => {
                Some(Cow::Owned(VirtualServer { spec: wanted.spec, destinations: inherited.destinations.clone() }))
            }
            (Some(wanted), _) => Some(Cow::Borrowed(wanted)),
        }
    }

    /// The virtual servers it has.
    pub fn keys(&self) -> impl Iterator<Item = VirtualServerKey> {
        self.servers.keys().copied()
    }
}
