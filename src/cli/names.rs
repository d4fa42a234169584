//! What the daemon that runs here knows of virtual servers and the kernel does not; without a daemon nothing is known.

use super::explain::ask_daemon;
use crate::inspect::Owner;
use crate::kernel::ipvs::Identity;
use crate::model::VirtualServerKey;
use nix::sys::signal::SigSet;
use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// Between two questions.
const PAUSE: Duration = Duration::from_secs(5);

/// What is known of a virtual server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// `NAMESPACE/NAME` of its Service.
    pub service: String,
    /// Whether something is wrong with it.
    pub in_trouble: bool,
}

/// What is known, as it was last told.
#[derive(Debug)]
pub struct Names {
    known: HashMap<VirtualServerKey, Known>,
    told: Receiver<Option<Vec<Owner>>>,
}

impl Names {
    /// Asks the daemon from now on, on a thread of its own: it answers after its pass, which may be long.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn follow() -> io::Result<Self> {
        let (tell, told) = sync_channel(1);
        thread::Builder::new().name("names".into()).spawn(move || ask_again_and_again(&tell))?;
        Ok(Self { known: HashMap::new(), told })
    }

    /// Takes in what was told meanwhile, for which it may be waited so long. False if there is nothing new.
    pub fn update(&mut self, patience: Duration) -> bool {
        // A daemon that is busy, or gone for a moment, takes no names away.
        let Ok(Some(owners)) = self.told.recv_timeout(patience) else { return false };
        let known =
            |owner: Owner| (owner.server.into(), Known { service: owner.service, in_trouble: owner.in_trouble });
        let before = std::mem::replace(&mut self.known, owners.into_iter().map(known).collect());
        before != self.known
    }

    /// What is known of a virtual server.
    pub fn of(&self, identity: &Identity) -> Option<Known> {
        self.known.get(&identity.key()?).cloned()
    }
}

fn ask_again_and_again(tell: &SyncSender<Option<Vec<Owner>>>) {
    // Signals are for the thread that puts the terminal right. Whoever started this one blocks them already, if it cares.
    _ = SigSet::all().thread_block();
    while tell.send(ask_daemon("/v1/owners").ok()).is_ok() {
        thread::sleep(PAUSE);
    }
}
