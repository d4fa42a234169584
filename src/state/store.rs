//! The store: applies changes, finds a Service's slices, and remembers what is dirty.

use super::external::{ExternalAddresses, Turn};
use super::{EndpointSlice, Node, NodeObject, ObjectName, Service};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::mem;
use std::net::{IpAddr, SocketAddr};
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
    /// These Services are all there are: others are gone. Ends a complete list.
    OnlyServices(HashSet<ObjectName>),
    /// These EndpointSlices are all there are: others are gone. Ends a complete list.
    OnlyEndpointSlices(HashSet<ObjectName>),
    /// The node's facts, whole.
    Node(Node),
    /// What the cluster says of the node, whole.
    NodeObject(NodeObject),
    /// Where the API servers are that the input comes from, whole.
    ApiServers(BTreeSet<SocketAddr>),
    /// Whether the input may hold objects that cannot be read and of which no good version is known.
    Doubt(bool),
}

/// Everything known about the cluster and this node.
#[derive(Debug, Default)]
pub struct State {
    /// Services by name. Written by [`State::apply`], like everything here.
    services: BTreeMap<ObjectName, Arc<Service>>,
    /// Slices by their own names.
    slices: HashMap<ObjectName, Arc<EndpointSlice>>,
    /// Names of the slices of each Service; no entry is empty. Sorted, so that merging is repeatable.
    slices_of: HashMap<ObjectName, Vec<ObjectName>>,
    /// This node's facts as last told.
    node: Node,
    /// What the cluster says of it, as last told.
    node_object: NodeObject,
    /// Whether there may be objects that nobody knows, as last told.
    in_doubt: bool,
    /// Which external addresses are endpoints' or API servers'.
    external: ExternalAddresses,
    /// Services to look at again; emptied by [`State::take_dirty`].
    dirty: BTreeSet<ObjectName>,
}

impl State {
    /// Takes in one change. What is equal to what was known makes nothing dirty.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Service(service) => self.put_service(service),
            Change::ServiceGone(name) => {
                if let Some(service) = self.services.remove(&name) {
                    self.external.replace(Some(&service), None);
                    self.dirty.insert(name);
                }
            }
            Change::EndpointSlice(slice) => self.put_slice(slice),
            Change::EndpointSliceGone(name) => self.remove_slice(&name),
            Change::OnlyServices(names) => self.keep_services(&names),
            Change::OnlyEndpointSlices(names) => self.keep_slices(&names),
            Change::Node(node) => self.put_node(node),
            Change::NodeObject(node) => self.put_node_object(node),
            Change::ApiServers(servers) => self.dirty.append(&mut self.external.set_api_servers(servers)),
            Change::Doubt(in_doubt) => self.in_doubt = in_doubt,
        }
    }

    /// A Service by name.
    pub fn service(&self, name: &ObjectName) -> Option<&Service> {
        self.services.get(name).map(|service| &**service)
    }

    /// All Services, ordered by name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values().map(|service| &**service)
    }

    /// How many Services and how many EndpointSlices there are.
    pub fn counts(&self) -> (usize, usize) {
        (self.services.len(), self.slices.len())
    }

    /// The slices of a Service, ordered by name.
    pub fn slices(&self, service: &ObjectName) -> impl Iterator<Item = &EndpointSlice> {
        self.slices_of.get(service).into_iter().flatten().filter_map(|name| self.slices.get(name)).map(|s| &**s)
    }

    /// The node's facts.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// What the cluster says of the node.
    pub fn node_object(&self) -> &NodeObject {
        &self.node_object
    }

    /// Whether there may be Services or EndpointSlices that are not here because they could never be read.
    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Makes every Service dirty that `affected` picks, because something outside the store changed for them.
    pub fn touch(&mut self, affected: impl Fn(&Service) -> bool) {
        let touched = self.services.values().filter(|service| affected(service)).map(|service| service.name.clone());
        self.dirty.extend(touched);
    }

    /// The Services that changed since the last call, by themselves or through their slices or the node.
    pub fn take_dirty(&mut self) -> BTreeSet<ObjectName> {
        let concerned = self.external.look_through(self.slices.values().map(|slice| &**slice));
        self.dirty.extend(concerned);
        mem::take(&mut self.dirty)
    }

    /// Whether an address that a Service asks for as an external or load-balancer IP is an endpoint's or an API server's;
    /// as of the last [`State::take_dirty`].
    pub fn is_elsewhere(&self, address: IpAddr) -> bool {
        self.external.is_elsewhere(address)
    }

    /// Whether an address is that of an API server.
    pub fn is_api_servers(&self, address: IpAddr) -> bool {
        self.external.is_api_servers(address)
    }

    /// Whether an API server is at an address and TCP port.
    pub fn has_api_server(&self, at: SocketAddr) -> bool {
        self.external.has_api_server(at)
    }

    /// The addresses of which [`State::is_elsewhere`] may say something else than at the last call of this.
    pub fn take_moved(&mut self) -> BTreeSet<IpAddr> {
        self.external.take_moved()
    }

    /// Whether any Service changed since the last [`State::take_dirty`].
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    fn keep_services(&mut self, names: &HashSet<ObjectName>) {
        for (name, service) in self.services.extract_if(.., |name, _| !names.contains(name)) {
            self.external.replace(Some(&service), None);
            self.dirty.insert(name);
        }
    }

    fn keep_slices(&mut self, names: &HashSet<ObjectName>) {
        let gone: Vec<_> = self.slices.keys().filter(|name| !names.contains(*name)).cloned().collect();
        gone.iter().for_each(|name| self.remove_slice(name));
    }

    fn put_service(&mut self, service: Arc<Service>) {
        let name = service.name.clone();
        let before = self.services.get(&name);
        if before != Some(&service) {
            self.external.replace(before.map(|service| &**service), Some(&service));
            self.services.insert(name.clone(), service);
            self.dirty.insert(name);
        }
    }

    fn put_slice(&mut self, slice: Arc<EndpointSlice>) {
        if self.slices.get(&slice.name).is_some_and(|known| *known == slice) {
            return;
        }
        self.remove_slice(&slice.name);
        let names = self.slices_of.entry(slice.service.clone()).or_insert_with(|| Vec::with_capacity(1));
        if let Err(place) = names.binary_search(&slice.name) {
            names.insert(place, slice.name.clone());
        }
        self.dirty.insert(slice.service.clone());
        self.dirty.append(&mut self.external.count(&slice, Turn::Comes));
        self.slices.insert(slice.name.clone(), slice);
    }

    fn remove_slice(&mut self, name: &ObjectName) {
        let Some(slice) = self.slices.remove(name) else { return };
        if let Some(names) = self.slices_of.get_mut(&slice.service) {
            names.retain(|other| other != name);
            if names.is_empty() {
                self.slices_of.remove(&slice.service);
            }
        }
        self.dirty.append(&mut self.external.count(&slice, Turn::Goes));
        self.dirty.insert(slice.service.clone());
    }

    /// Node ports follow the node's addresses, and a VIP that is one of them is told of. (VIPs' routes follow too; they
    /// are decided afresh in every whole pass.)
    fn put_node(&mut self, node: Node) {
        if self.node != node {
            let before = mem::replace(&mut self.node, node);
            let moved = &before.addresses ^ &self.node.addresses;
            let has_moved = |vips: &[IpAddr]| vips.iter().any(|vip| moved.contains(vip));
            self.touch(|service| {
                follows_node(service) || has_moved(&service.external_ips) || has_moved(&service.load_balancer_ips)
            });
        }
    }

    /// The node's zone decides where endpoints are meant for zones, its addresses which are primary.
    fn put_node_object(&mut self, node: NodeObject) {
        let before = mem::replace(&mut self.node_object, node);
        if before.zone != self.node_object.zone {
            let is_zoned = |slice: &&Arc<EndpointSlice>| slice.endpoints.iter().any(|one| one.zones.is_some());
            self.dirty.extend(self.slices.values().filter(is_zoned).map(|slice| slice.service.clone()));
        }
        if before.addresses != self.node_object.addresses {
            self.touch(follows_node);
        }
    }
}

/// Whether it matters to a Service which addresses the node has: for its node ports, and for whether the node is within
/// its source ranges.
fn follows_node(service: &Service) -> bool {
    !service.source_ranges.is_empty() || service.ports.iter().any(|port| port.node_port.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Family, Protocol};
    use crate::state::{Endpoint, ServicePort, Zones};

    fn service(name: &str) -> Arc<Service> {
        Service::new(ObjectName::new("default", name)).into()
    }

    fn slice(name: &str, service: &str) -> Arc<EndpointSlice> {
        let [name, service] = [name, service].map(|name| ObjectName::new("default", name));
        EndpointSlice::new(name, service, Family::Ipv4).into()
    }

    fn dirty(state: &mut State) -> Vec<String> {
        state.take_dirty().iter().map(|name| name.name.to_string()).collect()
    }

    #[test]
    fn what_is_told_twice_is_dirty_once() {
        let mut state = State::default();
        for expected in [vec!["web"], vec![]] {
            state.apply(Change::Service(service("web")));
            state.apply(Change::EndpointSlice(slice("web-1", "web")));
            assert_eq!(dirty(&mut state), expected);
        }
    }

    #[test]
    fn a_slice_that_moves_dirties_both_services() {
        let mut state = State::default();
        state.apply(Change::EndpointSlice(slice("a", "old")));
        state.take_dirty();
        state.apply(Change::EndpointSlice(slice("a", "new")));
        assert_eq!(dirty(&mut state), ["new", "old"]);
        assert_eq!(state.slices(&ObjectName::new("default", "old")).count(), 0);
        assert_eq!(state.slices(&ObjectName::new("default", "new")).count(), 1);
    }

    #[test]
    fn what_is_gone_twice_is_dirty_once() {
        let mut state = State::default();
        state.apply(Change::Service(service("web")));
        state.take_dirty();
        for expected in [vec!["web"], vec![]] {
            state.apply(Change::ServiceGone(ObjectName::new("default", "web")));
            state.apply(Change::EndpointSliceGone(ObjectName::new("default", "never")));
            assert_eq!(dirty(&mut state), expected);
        }
    }

    /// A Service that each kind of fact about the node matters to, and one that none does.
    fn state_of_a_node() -> State {
        let port = ServicePort { name: "".into(), protocol: Protocol::Tcp, port: 80, node_port: Some(30_080) };
        let zones = Zones::new(["a"]).map(Arc::new);
        let endpoint = Endpoint { zones, ..Endpoint::new([10, 1, 0, 1].into()) };
        let mut state = State::default();
        for changed in [
            Service { ports: vec![port], ..Service::clone(&service("node-port")) },
            Service { external_ips: vec![[192, 0, 2, 7].into()], ..Service::clone(&service("vip")) },
            Service { load_balancer_ips: vec![[192, 0, 2, 8].into()], ..Service::clone(&service("balanced")) },
            Service { source_ranges: vec!["192.0.2.0/24".parse().unwrap()], ..Service::clone(&service("ranges")) },
            Service::clone(&service("zoned")),
            Service::clone(&service("plain")),
        ] {
            state.apply(Change::Service(changed.into()));
        }
        let zoned = EndpointSlice { endpoints: vec![endpoint], ..EndpointSlice::clone(&slice("zoned-1", "zoned")) };
        state.apply(Change::EndpointSlice(zoned.into()));
        state.take_dirty();
        state
    }

    #[test]
    fn what_changes_about_the_node_dirties_the_services_that_depend_on_it() {
        let mut state = state_of_a_node();
        let node = |last: u8| Node { addresses: [[192, 0, 2, last].into()].into(), ..Node::default() };
        let object = |zone: &str, last: u8| NodeObject {
            zone: Some(zone.into()),
            addresses: vec![[192, 0, 2, last].into()],
            ..NodeObject::default()
        };
        for (change, wanted) in [
            (Change::Node(node(7)), &["node-port", "ranges", "vip"][..]),
            (Change::Node(node(7)), &[]),
            (Change::Node(node(8)), &["balanced", "node-port", "ranges", "vip"]),
            (Change::NodeObject(object("a", 1)), &["node-port", "ranges", "zoned"]),
            (Change::NodeObject(object("a", 1)), &[]),
            (Change::NodeObject(object("a", 2)), &["node-port", "ranges"]),
            (Change::NodeObject(object("b", 2)), &["zoned"]),
            (Change::NodeObject(NodeObject { is_eligible: true, ..object("b", 2) }), &[]),
        ] {
            let text = format!("{change:?}");
            state.apply(change);
            assert_eq!(dirty(&mut state), wanted, "{text}");
        }
    }
}
