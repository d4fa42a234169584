//! Which Services something is wrong with, and of which virtual servers something could not be done.

use super::Subject;
use super::status::LastPass;
use crate::model::VirtualServerKey;
use crate::state::{ObjectName, ObjectRef, Service, State};
use std::collections::BTreeSet;

/// Whatever is in trouble.
#[derive(Clone, Debug, Default)]
pub struct Troubles<'a> {
    services: BTreeSet<&'a ObjectName>,
    /// EndpointSlices by their own names.
    slices: BTreeSet<&'a ObjectName>,
    /// What the last pass could not program; none before the first.
    failing: BTreeSet<VirtualServerKey>,
}

impl<'a> Troubles<'a> {
    /// What is in trouble now.
    pub fn of(subject: &Subject<'a>) -> Self {
        let failing = subject.last_pass.map(LastPass::failing).unwrap_or_default();
        let mut troubles = Self { failing, ..Self::default() };
        for object in subject.problems.iter().filter_map(|problem| problem.object.as_ref()) {
            match object {
                ObjectRef::Service(name) => troubles.services.insert(name),
                ObjectRef::EndpointSlice(name) => troubles.slices.insert(name),
            };
        }
        troubles
    }

    /// Whether something is wrong with a Service or with one of its slices.
    pub fn has(&self, service: &Service, state: &State) -> bool {
        let is_in_slice = || state.slices(&service.name).any(|slice| self.slices.contains(&slice.name));
        self.services.contains(&service.name) || !self.slices.is_empty() && is_in_slice()
    }

    /// Whether something of a virtual server could not be done.
    pub fn is_failing(&self, key: &VirtualServerKey) -> bool {
        self.failing.contains(key)
    }
}
