//! A kernel in memory that refuses what Linux refuses, counts what it costs and prints its state.

use super::iptables::{Blame, Failed};
use super::{Cause, Errno, Failure, FlowsError, Forgotten, Kernel, Observation, ObserveError, Scope};
use crate::model::netfilter::{SetKey, SetKind};
use crate::model::op::Refusal;
use crate::model::{DestinationKey, Family, Flow, Kept, Model, Op, Protocol, SchedulerName, VirtualServerKey};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// The fake. Tests set its fields to make a situation, and read them to see what came of it.
#[derive(Clone, Debug)]
pub struct FakeKernel {
    /// What it holds of ours, and kube-proxy's device.
    pub model: Model,
    /// Virtual servers of somebody else. Adding one of these keys is refused, nothing else can reach them: what
    /// kube-proxy made, and is to be taken over, belongs into `untagged`.
    pub foreign: BTreeSet<VirtualServerKey>,
    /// Those of the virtual servers in `model` that lack the tag, because of an `ipvsadm -E` or because kube-proxy made
    /// them; an update restores or gives it.
    pub untagged: BTreeSet<VirtualServerKey>,
    /// Connections per destination.
    pub connections: BTreeMap<(VirtualServerKey, DestinationKey), u32>,
    /// Schedulers it can load.
    pub schedulers: BTreeSet<SchedulerName>,
    /// Operations it fails on, whatever they are.
    pub refuses: fn(&Op) -> Option<Errno>,
    /// What connection tracking remembers.
    pub flows: BTreeSet<Flow>,
    /// Whether it refuses to forget any of them.
    pub keeps_flows: bool,
    /// Readings to fail before the next good one.
    pub unreadable: usize,
    /// What was asked of it.
    pub cost: Cost,
}

/// What a kernel was asked to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Readings of everything.
    pub full_readings: usize,
    /// Readings of everything but destinations.
    pub outlines: usize,
    /// Virtual servers read one by one.
    pub scoped_readings: usize,
    /// Calls of `apply` with at least one operation.
    pub applications: usize,
    /// Operations in all of them.
    pub operations: usize,
    /// Times that it looked for flows to forget.
    pub flow_searches: usize,
}

impl Default for FakeKernel {
    fn default() -> Self {
        let names = ["rr", "wrr", "lc", "wlc", "sh", "dh", "sed", "nq", "mh", "lblc", "lblcr", "fo", "ovf"];
        Self {
            model: Model::default(),
            foreign: BTreeSet::new(),
            untagged: BTreeSet::new(),
            connections: BTreeMap::new(),
            schedulers: names.iter().filter_map(|name| name.parse().ok()).collect(),
            refuses: |_| None,
            flows: BTreeSet::new(),
            keeps_flows: false,
            unreadable: 0,
            cost: Cost::default(),
        }
    }
}

impl Kernel for FakeKernel {
    fn observe(&mut self, scope: Scope<'_>) -> Result<Observation, ObserveError> {
        if self.unreadable > 0 {
            self.unreadable -= 1;
            return Err(ObserveError::Refused { what: "virtual servers", errno: Errno::ENOBUFS });
        }
        let mut seen = Observation::default();
        match scope {
            Scope::All | Scope::Outline => {
                seen.model = self.model.clone();
                seen.foreign = &self.foreign | &self.untagged;
                seen.model.virtual_servers.retain(|key, _| !self.untagged.contains(key));
                if matches!(scope, Scope::All) {
                    self.cost.full_readings += 1;
                    seen.connections = self.connections.clone();
                } else {
                    self.cost.outlines += 1;
                    seen.model.virtual_servers.values_mut().for_each(|server| server.destinations.clear());
                }
            }
            Scope::VirtualServers(keys) => {
                self.cost.scoped_readings += keys.len();
                for key in keys {
                    let found = self.model.virtual_servers.get(key);
                    seen.model.virtual_servers.extend(found.map(|found| (*key, found.clone())));
                    if self.untagged.contains(key)
                        && let Some(found) = seen.model.virtual_servers.get_mut(key)
                    {
                        found.spec.flags.0 |= 0x8000_0000;
                    }
                    let counted = self.connections.iter().filter(|((of, _), _)| of == key);
                    seen.connections.extend(counted.map(|(which, count)| (*which, *count)));
                }
            }
        }
        seen.connections.retain(|(key, destination), count| {
            let found = seen.model.virtual_servers.get(key);
            *count > 0 && found.is_some_and(|found| found.destinations.contains_key(destination))
        });
        Ok(seen)
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<Failure> {
        debug_assert!(ops.is_sorted_by_key(Op::phase), "operations come in the order of their phases");
        self.cost.applications += usize::from(!ops.is_empty());
        self.cost.operations += ops.len();
        let attempts = ops.iter().enumerate().map(|(index, op)| (index, self.attempt(op)));
        attempts.filter_map(|(index, result)| result.err().map(|cause| Failure { index, cause })).collect()
    }

    fn forget_flows(&mut self, family: Family, kept: &Kept) -> Forgotten {
        debug_assert!(!kept.is_empty(), "it costs something to look");
        for frontend in kept.keys() {
            debug_assert_eq!(Family::of(frontend.address), family);
            debug_assert_ne!(frontend.protocol, Protocol::Tcp);
        }
        self.cost.flow_searches += 1;
        let before = self.flows.len();
        if self.keeps_flows && self.flows.iter().any(|flow| flow.is_stale(kept)) {
            let failure = Some(FlowsError::Unforgotten(Errno::EBUSY));
            return Forgotten { failure, ..Forgotten::default() };
        }
        self.flows.retain(|flow| !flow.is_stale(kept));
        Forgotten { flows: before - self.flows.len(), took: Duration::ZERO, failure: None }
    }
}

impl FakeKernel {
    fn attempt(&mut self, op: &Op) -> Result<(), Cause> {
        if let Some(errno) = (self.refuses)(op) {
            return Err(Cause::Refused(errno));
        }
        if let Op::AddVirtualServer(_, spec) | Op::UpdateVirtualServer(_, spec) = op
            && !self.schedulers.contains(&spec.scheduler)
        {
            return Err(Cause::SchedulerMissing);
        }
        if let Op::AddVirtualServer(key, _) = op
            && self.foreign.contains(key)
        {
            return Err(Cause::OutOfDate(Errno::EEXIST));
        }
        if let Op::UpdateVirtualServer(key, _) | Op::RemoveVirtualServer(key) = op {
            self.untagged.remove(key);
        }
        self.refuse_netfilter(op)?;
        self.model.apply(op).map_err(|refusal| match refusal {
            Refusal::Exists => Cause::OutOfDate(Errno::EEXIST),
            Refusal::Missing => Cause::OutOfDate(Errno::ENOENT),
            Refusal::Full => Cause::SetFull,
        })
    }
}

impl FakeKernel {
    /// Rules refer to sets: they cannot be made without them, and the sets cannot go before the rules.
    fn refuse_netfilter(&self, op: &Op) -> Result<(), Cause> {
        match op {
            Op::SetRules(family, _) if !SetKind::ALL.iter().all(|kind| self.has_set(*kind, *family)) => {
                let reason = "a rule refers to a set that does not exist".into();
                Err(Cause::Rules(Failed { program: "iptables-restore".into(), reason, blame: Blame::Missing }))
            }
            Op::DestroySet(key) if self.model.sets.contains_key(key) && self.model.rules.contains_key(&key.family) => {
                Err(Cause::Refused(Errno::EBUSY))
            }
            _ => Ok(()),
        }
    }

    fn has_set(&self, kind: SetKind, family: Family) -> bool {
        self.model.sets.contains_key(&SetKey { kind, family })
    }
}

impl fmt::Display for FakeKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.model.fmt(f)
    }
}
