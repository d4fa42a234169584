//! The beginning of a pass: reads what is due, and puts it in the place of the picture.

use super::check::{self, Check};
use super::pace::Due;
use super::{Reconciler, is_spread_by};
use crate::desired::drain::Connections;
use crate::desired::{Inherited, Moment};
use crate::kernel::{Kernel, Observation, ObserveError, Scope};
use crate::model::VirtualServerKey;
use std::collections::BTreeSet;

/// What a pass has read before it decides.
pub enum Reading {
    /// Nothing: the picture is as it was.
    Nothing,
    /// Everything.
    All,
    /// Everything but destinations and connections.
    Outline,
    /// These virtual servers, with the connections of their destinations.
    Some(BTreeSet<VirtualServerKey>, Connections),
}

impl Reading {
    /// Whether everything is to be compared.
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::All | Self::Outline)
    }

    /// The connections of a virtual server's destinations, if they were read, of which `all` has those of everything.
    pub fn counted<'a>(&'a self, key: &VirtualServerKey, all: &'a Connections) -> Option<&'a Connections> {
        match self {
            Self::All => Some(all),
            Self::Some(keys, connections) if keys.contains(key) => Some(connections),
            Self::Nothing | Self::Outline | Self::Some(..) => None,
        }
    }
}

impl<K: Kernel> Reconciler<K> {
    pub(super) fn read(&mut self, now: Moment) -> Result<Reading, ObserveError> {
        match self.pace.due(now) {
            Due::Nothing => Ok(Reading::Nothing),
            Due::DrainCheck => self.read_virtual_servers(self.drains.virtual_servers()),
            Due::Check => {
                self.read_whole(Scope::Outline, now)?;
                self.check = Check::of(self.found.model.virtual_servers.keys());
                Ok(Reading::Outline)
            }
            Due::Reading => {
                self.read_whole(Scope::All, now)?;
                self.check = Check::default();
                Ok(Reading::All)
            }
        }
    }

    fn read_whole(&mut self, scope: Scope<'_>, now: Moment) -> Result<(), ObserveError> {
        let seen = self.kernel.observe(scope)?;
        self.plan.netfilter_mut().note_marks(&seen.model);
        // What is wanted says what was kube-proxy's.
        self.update_plan();
        let seen = self.with_all_of_ours(seen)?;
        self.take_reading(scope, seen)?;
        self.clearing.note_found(&self.found.model);
        if !self.state.is_in_doubt() {
            self.inherited = Some(Inherited::default());
        }
        self.inherited.get_or_insert_with(|| Inherited::from(&self.found.model));
        if self.schedulers_again <= now && !self.settings.unavailable.is_empty() {
            let again = std::mem::take(&mut self.settings.unavailable);
            self.state.touch(|service| is_spread_by(service, &again));
        }
        Ok(())
    }

    pub(super) fn read_virtual_servers(&mut self, keys: BTreeSet<VirtualServerKey>) -> Result<Reading, ObserveError> {
        let in_order: Vec<_> = keys.iter().copied().collect();
        let mut seen = self.kernel.observe(Scope::VirtualServers(&in_order))?;
        let known = &mut self.found.model.virtual_servers;
        let before = keys.iter().filter_map(|key| known.remove_entry(key)).collect();
        self.suspects.note_virtual_servers(&before, &seen.model.virtual_servers);
        self.found.model.virtual_servers.append(&mut seen.model.virtual_servers);
        Ok(Reading::Some(keys, seen.connections))
    }

    /// Completes a reading of everything. What was ours when last seen and is foreign now was edited by hand: it is ours
    /// to repair. So is what kube-proxy left.
    pub(super) fn with_all_of_ours(&mut self, mut seen: Observation) -> Result<Observation, ObserveError> {
        let Self { found, options, plan, .. } = self;
        options.takeover.limit(&mut seen);
        let is_ours = |key: &&VirtualServerKey| {
            let is_wanted = plan.virtual_server(key).is_some();
            found.model.virtual_servers.contains_key(key) || options.takeover.takes(key, &seen.model, is_wanted)
        };
        let untagged: Vec<_> = seen.foreign.iter().filter(is_ours).copied().collect();
        if !untagged.is_empty() {
            let mut again = self.kernel.observe(Scope::VirtualServers(&untagged))?;
            seen.foreign.retain(|key| !again.model.virtual_servers.contains_key(key));
            seen.model.virtual_servers.append(&mut again.model.virtual_servers);
            seen.connections.append(&mut again.connections);
        }
        Ok(seen)
    }

    /// Puts a reading of everything in the place of the picture, which gives an outline its destinations.
    pub(super) fn take_reading(&mut self, scope: Scope<'_>, mut seen: Observation) -> Result<(), ObserveError> {
        let Self { kernel, found: Observation { model: known, .. }, suspects, .. } = self;
        suspects.note_outline(known, &seen.model);
        if matches!(scope, Scope::Outline) {
            check::complete(kernel, &mut seen.model, known)?;
        } else {
            suspects.note_virtual_servers(&known.virtual_servers, &seen.model.virtual_servers);
        }
        self.found = seen;
        Ok(())
    }
}
