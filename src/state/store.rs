//! The store: applies changes, finds a Service's slices, and remembers what is dirty.

use super::{EndpointSlice, Node, ObjectName, Service};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::sync::Arc;

/// One change of the input. A source that starts or lists again sends what differs, never a smaller world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A Service is new or different.
    Service(Arc<Service>),
    /// A Service is gone, or no longer ours to proxy.
    ServiceGone(ObjectName),
    /// An EndpointSlice is new or different.
    EndpointSlice(Arc<EndpointSlice>),
    /// An EndpointSlice is gone, or no longer ours to use.
    EndpointSliceGone(ObjectName),
    /// The node's facts, whole.
    Node(Node),
}

/// Everything known about the cluster and this node.
#[derive(Debug, Default)]
pub struct State {
    /// Services by name, each with the number of its arrival. Written by [`State::apply`].
    services: BTreeMap<ObjectName, (u64, Arc<Service>)>,
    /// Slices by their own names.
    slices: HashMap<ObjectName, Arc<EndpointSlice>>,
    /// Names of the slices of each Service; no entry is empty. Sorted, so that merging is repeatable.
    slices_of: HashMap<ObjectName, BTreeSet<ObjectName>>,
    /// This node's facts as last told.
    node: Node,
    /// Services to look at again; emptied by [`State::take_dirty`].
    dirty: BTreeSet<ObjectName>,
    /// The number that the next new Service gets; only grows.
    arrivals: u64,
}

impl State {
    /// Takes in one change. What is equal to what was known makes nothing dirty.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Service(service) => self.put_service(service),
            Change::ServiceGone(name) => {
                if self.services.remove(&name).is_some() {
                    self.dirty.insert(name);
                }
            }
            Change::EndpointSlice(slice) => self.put_slice(slice),
            Change::EndpointSliceGone(name) => self.remove_slice(&name),
            Change::Node(node) => self.put_node(node),
        }
    }

    /// A Service and the number of its arrival: of two that want the same address and port, the earlier has it.
    pub fn service(&self, name: &ObjectName) -> Option<(u64, &Service)> {
        self.services.get(name).map(|(arrival, service)| (*arrival, &**service))
    }

    /// The slices of a Service, ordered by name.
    pub fn slices(&self, service: &ObjectName) -> impl Iterator<Item = &EndpointSlice> {
        self.slices_of.get(service).into_iter().flatten().filter_map(|name| self.slices.get(name)).map(|s| &**s)
    }

    /// The node's facts.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// How many Services and EndpointSlices there are.
    pub fn sizes(&self) -> (usize, usize) {
        (self.services.len(), self.slices.len())
    }

    /// The Services that changed since the last call, by themselves or through their slices or the node.
    pub fn take_dirty(&mut self) -> BTreeSet<ObjectName> {
        mem::take(&mut self.dirty)
    }

    fn put_service(&mut self, service: Arc<Service>) {
        let name = service.name.clone();
        match self.services.get_mut(&name) {
            Some((_, known)) if *known == service => return,
            Some((_, known)) => *known = service,
            None => {
                self.services.insert(name.clone(), (self.arrivals, service));
                self.arrivals += 1;
            }
        }
        self.dirty.insert(name);
    }

    fn put_slice(&mut self, slice: Arc<EndpointSlice>) {
        if self.slices.get(&slice.name).is_some_and(|known| *known == slice) {
            return;
        }
        self.remove_slice(&slice.name);
        self.slices_of.entry(slice.service.clone()).or_default().insert(slice.name.clone());
        self.dirty.insert(slice.service.clone());
        self.slices.insert(slice.name.clone(), slice);
    }

    fn remove_slice(&mut self, name: &ObjectName) {
        let Some(slice) = self.slices.remove(name) else { return };
        if let Some(names) = self.slices_of.get_mut(&slice.service) {
            names.remove(name);
            if names.is_empty() {
                self.slices_of.remove(&slice.service);
            }
        }
        self.dirty.insert(slice.service.clone());
    }

    /// Every Service depends on the node: through node ports, and through which VIPs are addresses already.
    fn put_node(&mut self, node: Node) {
        if self.node != node {
            self.node = node;
            self.dirty.extend(self.services.keys().cloned());
        }
    }
}
