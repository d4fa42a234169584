//! The names of virtual servers, as the daemon that runs here knows them; without one there are none.

use super::explain::ask_daemon;
use crate::inspect::Owner;
use crate::kernel::ipvs::Identity;
use crate::model::VirtualServerKey;
use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long it is not asked again for names that it did not know.
const PATIENCE: Duration = Duration::from_secs(5);

/// The names that are known.
#[derive(Debug, Default)]
pub struct Names(RefCell<Known>);

#[derive(Debug, Default)]
struct Known {
    names: HashMap<VirtualServerKey, String>,
    /// When the daemon was last asked.
    asked: Option<Instant>,
}

impl Names {
    /// The Service of a virtual server. Whoever is not known is asked for, now and then.
    pub fn of(&self, identity: &Identity) -> Option<String> {
        let key = identity.key()?;
        let mut known = self.0.borrow_mut();
        if !known.names.contains_key(&key) && known.asked.is_none_or(|asked| asked.elapsed() >= PATIENCE) {
            // Without a daemon the names of before have to do.
            if let Ok(owners) = ask_daemon::<Vec<Owner>>("/v1/owners") {
                known.names = owners.into_iter().map(|owner| (owner.server.into(), owner.service)).collect();
            }
            known.asked = Some(Instant::now());
        }
        known.names.get(&key).cloned()
    }
}
