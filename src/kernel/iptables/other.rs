//! The back end of iptables that ipvsd does not use, and that an earlier kube-proxy may have used.
//!
//! It is looked at once: nobody should write there any more, and each look is a program. A look changes nothing: the legacy
//! program asks the kernel which tables there are before it reads any, the other one reads a list.

use super::leftovers::{Leftovers, Shared};
use super::{Backend, Failed, Look};
use crate::model::{Family, Leftover};
use std::collections::BTreeMap;

/// The back end, and what was seen there.
#[derive(Debug)]
pub struct Other {
    /// None if it is not known which that is.
    backend: Option<Backend>,
    /// What the look at a family showed; none before it, and after a removal.
    seen: BTreeMap<Family, Look>,
}

impl Other {
    /// The other one than this.
    pub fn than(backend: Backend) -> Self {
        Self { backend: backend.other(), seen: BTreeMap::new() }
    }

    /// What kube-proxy left there. Nothing where it cannot be read, as where its programs or its part of the kernel are
    /// missing.
    pub fn look(&mut self, family: Family) -> Look {
        let Some(backend) = self.backend else { return Look::default() };
        let look = || {
            let mut look = Look::default();
            if let Ok(saved) = backend.save(family) {
                look.note(Leftover::OtherRules(family), Leftovers::find(&saved, family, Shared::KubeProxys));
            }
            look
        };
        self.seen.entry(family).or_insert_with(look).clone()
    }

    /// Removes what kube-proxy left there.
    ///
    /// # Errors
    /// A program cannot be run or fails; each table is then as it was, or as it should be.
    pub fn clear(&mut self, family: Family) -> Result<(), Failed> {
        let Some(backend) = self.backend else { return Ok(()) };
        self.seen.remove(&family);
        backend.clear(family, |_| Shared::KubeProxys)
    }
}
