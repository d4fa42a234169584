//! The whole that the Services make together, kept up to date Service by Service.
//!
//! Two Services may ask for the same address, port and protocol. The one that has it keeps it, so that a new
//! object costs an old one nothing; when nobody has it yet (at start), the first by namespace and name gets it.
//! The other one is told, and gets it when it is free.

use super::Settings;
use super::frontends::Frontend;
use super::local::{LocalPart, Locals};
use super::netfilter::NetfilterPlan;
use super::part::{Part, problem};
use crate::model::{Protocol, VirtualServer, VirtualServerKey};
use crate::state::{ObjectName, Problem, Service, State, TrafficPolicy};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// For the 4,096th port in a cluster with an external policy of `Local`.
const NO_MARK: &str = "all firewall marks are in use: clients on this node reach the endpoints of this node only";

/// For the 3,073rd node port in a cluster.
const NO_MARK_FOR_LOCALHOST: &str = "all firewall marks for it are in use: the port is not on 127.0.0.1";

/// Every wanted virtual server, with the Service that has it.
#[derive(Debug, Default)]
pub struct Plan {
    /// What is wanted, by key. An entry belongs to exactly one Service.
    held: BTreeMap<VirtualServerKey, Held>,
    /// The keys each Service has in `held`, sorted; no entry is empty.
    keys_of: HashMap<ObjectName, Box<[VirtualServerKey]>>,
    /// The Services that want a key another one has; no entry is empty.
    waiting: BTreeMap<VirtualServerKey, BTreeSet<ObjectName>>,
    /// How long departing destinations may take where the Service says so that has the key, or had it last. Written when
    /// a Service is put in; [`Plan::forget_drain_timeout`] ends it.
    drain_timeouts: BTreeMap<VirtualServerKey, Duration>,
    /// What is wrong with each Service beyond what its source could see; no entry is empty.
    problems: BTreeMap<ObjectName, Vec<Problem>>,
    /// What the endpoints on this node mean to others.
    locals: Locals,
    /// What is asked of netfilter.
    netfilter: NetfilterPlan,
}

/// A virtual server and whose it is.
#[derive(Debug)]
struct Held {
    owner: ObjectName,
    /// The name and protocol of the Service's port.
    port: (Arc<str>, Protocol),
    server: VirtualServer,
}

impl Plan {
    /// The wanted virtual server for a key.
    pub fn virtual_server(&self, key: &VirtualServerKey) -> Option<&VirtualServer> {
        self.held.get(key).map(|held| &held.server)
    }

    /// The Service that a virtual server belongs to.
    pub fn owner(&self, key: &VirtualServerKey) -> Option<&ObjectName> {
        self.held.get(key).map(|held| &held.owner)
    }

    /// The name and protocol of the Service's port that a virtual server is for.
    pub fn port(&self, key: &VirtualServerKey) -> Option<(&str, Protocol)> {
        self.held.get(key).map(|held| (&*held.port.0, held.port.1))
    }

    /// How long departing destinations of a virtual server may take, if the Service said so that has it, or had it last.
    pub fn drain_timeout(&self, key: &VirtualServerKey) -> Option<Duration> {
        self.drain_timeouts.get(key).copied()
    }

    /// Forgets what was said of a virtual server, unless it is wanted: nothing of it drains any more.
    pub fn forget_drain_timeout(&mut self, key: &VirtualServerKey) {
        if !self.held.contains_key(key) {
            self.drain_timeouts.remove(key);
        }
    }

    /// The keys of a Service's virtual servers, in order.
    pub fn keys_of(&self, service: &ObjectName) -> &[VirtualServerKey] {
        self.keys_of.get(service).map_or(&[], |keys| keys)
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = VirtualServerKey> {
        self.held.keys().copied()
    }

    /// All virtual servers, in the order of their keys.
    pub fn virtual_servers(&self) -> impl ExactSizeIterator<Item = &VirtualServer> {
        self.held.values().map(|held| &held.server)
    }

    /// The keys that match an address, each with the Service that has it.
    pub fn of_address(&self, address: IpAddr) -> impl Iterator<Item = (VirtualServerKey, &ObjectName)> {
        let all = VirtualServerKey::first_of(address)..=VirtualServerKey::last_of(address);
        self.held.range(all).map(|(key, held)| (*key, &held.owner))
    }

    /// Whether any virtual server is wanted on one of these addresses. Costs the same however many virtual servers and
    /// addresses there are.
    pub fn serves(&self, addresses: RangeInclusive<IpAddr>) -> bool {
        let first = VirtualServerKey::first_of(*addresses.start());
        let last = VirtualServerKey::last_of(*addresses.end());
        self.held.range(first..=last).next().is_some()
    }

    /// What load balancers are told, and which Services want for endpoints on this node.
    pub fn locals(&self) -> &Locals {
        &self.locals
    }

    /// What is asked of netfilter.
    pub fn netfilter(&self) -> &NetfilterPlan {
        &self.netfilter
    }

    /// What is asked of netfilter, to note what was found or to take what was touched.
    pub fn netfilter_mut(&mut self) -> &mut NetfilterPlan {
        &mut self.netfilter
    }

    /// What is wrong with which Service.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }

    /// Decides afresh for the Services named, and for those that waited for what they give up. Returns the keys
    /// whose virtual servers may be different now.
    pub fn update(
        &mut self,
        state: &State,
        settings: &Settings,
        dirty: BTreeSet<ObjectName>,
    ) -> BTreeSet<VirtualServerKey> {
        let mut touched = BTreeSet::new();
        let mut queue = dirty;
        while let Some(name) = queue.pop_first() {
            let changed = match state.service(&name) {
                Some(service) => self.put(service, Part::of(service, state, settings)),
                None => self.remove(&name),
            };
            for key in &changed {
                queue.extend(
                    self.waiting.get(key).filter(|_| !self.held.contains_key(key)).into_iter().flatten().cloned(),
                );
            }
            touched.extend(changed);
        }
        touched
    }

    /// Replaces a Service's part. Returns the keys that changed.
    fn put(&mut self, service: &Service, mut part: Part) -> Vec<VirtualServerKey> {
        let name = &service.name;
        let held_before = self.forget(name);
        let mut changed = Vec::new();
        self.locals.put(name, part.local);
        let (mut short_circuits, members, without) = self.netfilter.give_marks(name, &mut part.netfilter);
        part.virtual_servers.append(&mut short_circuits);
        let mut problems = part.problems;
        problems.extend(without.iter().map(|frontend| without_mark(service, frontend)));
        let mut keys = Vec::with_capacity(part.virtual_servers.len());
        for (key, (frontend, server)) in part.virtual_servers {
            let port = service.ports.get(frontend.port);
            let port = port.map_or(("".into(), Protocol::Tcp), |port| (Arc::clone(&port.name), port.protocol));
            match self.held.get_mut(&key) {
                Some(held) if held.owner != *name => {
                    let message = format!("{key} belongs to Service {}, which had it first", held.owner);
                    problems.push(problem(service, frontend.field.to_string(), message));
                    self.waiting.entry(key).or_default().insert(name.clone());
                    continue;
                }
                Some(held) if held.server == server => held.port = port,
                _ => {
                    self.held.insert(key, Held { owner: name.clone(), port, server });
                    changed.push(key);
                }
            }
            keys.push(key);
        }
        self.note_drain_timeout(service, held_before.iter().chain(&keys));
        changed.extend(self.free(held_before.iter().filter(|key| keys.binary_search(key).is_err())));
        self.netfilter.claim(name, (part.netfilter, members), |key| keys.binary_search(key).is_ok());
        if !keys.is_empty() {
            self.keys_of.insert(name.clone(), keys.into());
        }
        if !problems.is_empty() {
            self.problems.insert(name.clone(), problems);
        }
        changed
    }

    /// Of what it has, and of what it gives up now.
    fn note_drain_timeout<'k>(&mut self, service: &Service, keys: impl Iterator<Item = &'k VirtualServerKey>) {
        for key in keys {
            match service.drain_timeout {
                Some(timeout) => drop(self.drain_timeouts.insert(*key, timeout)),
                None => drop(self.drain_timeouts.remove(key)),
            }
        }
    }

    /// Takes a Service out. Returns the keys that changed.
    fn remove(&mut self, name: &ObjectName) -> Vec<VirtualServerKey> {
        let keys = self.forget(name);
        self.locals.put(name, LocalPart::default());
        self.netfilter.remove(name);
        self.free(&keys).collect()
    }

    /// Drops all that is noted of a Service except what it holds, whose keys it returns.
    fn forget(&mut self, name: &ObjectName) -> Box<[VirtualServerKey]> {
        self.problems.remove(name);
        self.waiting.retain(|_, names| {
            names.remove(name);
            !names.is_empty()
        });
        self.keys_of.remove(name).unwrap_or_default()
    }

    fn free<'k>(
        &mut self,
        keys: impl IntoIterator<Item = &'k VirtualServerKey>,
    ) -> impl Iterator<Item = VirtualServerKey> {
        keys.into_iter().copied().inspect(|key| drop(self.held.remove(key)))
    }
}

fn without_mark(service: &Service, frontend: &Frontend) -> Problem {
    let message = match frontend.policy {
        TrafficPolicy::Local => NO_MARK,
        TrafficPolicy::Cluster => NO_MARK_FOR_LOCALHOST,
    };
    problem(service, frontend.field.to_string(), message.into())
}
