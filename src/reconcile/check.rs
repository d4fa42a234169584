//! The regular check of the kernel, in parts, so that changes do not wait for all of it.
//!
//! First an outline is read: everything but destinations, which are taken to be as they were last seen. Then the
//! virtual servers' turn comes, some at a time, and between two times whatever changed is programmed.

use crate::kernel::{Kernel, ObserveError, Scope};
use crate::model::{Model, VirtualServerKey};
use std::collections::BTreeSet;

/// The virtual servers whose destinations are still to be read.
#[derive(Debug, Default)]
pub struct Check {
    /// In reverse order, so that the next ones are at the end.
    left: Vec<VirtualServerKey>,
}

impl Check {
    /// How many virtual servers are read at a time: 5 ms worth where a system call takes 25 microseconds.
    const PART: usize = 32;

    /// A check of these virtual servers.
    pub fn of<'k>(keys: impl DoubleEndedIterator<Item = &'k VirtualServerKey>) -> Self {
        Self { left: keys.rev().copied().collect() }
    }

    /// Whether something is left.
    pub fn is_under_way(&self) -> bool {
        !self.left.is_empty()
    }

    /// Takes out whose turn it is.
    pub fn take(&mut self) -> BTreeSet<VirtualServerKey> {
        self.left.split_off(self.left.len().saturating_sub(Self::PART)).into_iter().collect()
    }
}

/// Gives the virtual servers of an outline the destinations that they had in `known`. Those that are not in there are read.
///
/// # Errors
/// When the kernel cannot be read; `known` is as it was then.
pub fn complete(kernel: &mut impl Kernel, outline: &mut Model, known: &mut Model) -> Result<(), ObserveError> {
    let is_unknown = |key: &&VirtualServerKey| !known.virtual_servers.contains_key(key);
    let unknown: Vec<_> = outline.virtual_servers.keys().filter(is_unknown).copied().collect();
    if !unknown.is_empty() {
        let mut seen = kernel.observe(Scope::VirtualServers(&unknown))?.model.virtual_servers;
        // Also those that are gone by now.
        outline.virtual_servers.retain(|key, _| known.virtual_servers.contains_key(key));
        outline.virtual_servers.append(&mut seen);
    }
    for (key, server) in &mut outline.virtual_servers {
        if let Some(found) = known.virtual_servers.get_mut(key) {
            server.destinations = std::mem::take(&mut found.destinations);
        }
    }
    Ok(())
}
