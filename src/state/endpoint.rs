//! EndpointSlices: where a Service's connections may go.

use super::{ObjectName, Origin};
use crate::model::{Family, Protocol};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// A discovery.k8s.io/v1 EndpointSlice of IPv4 or IPv6 addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub name: ObjectName,
    /// Where it was read, for messages.
    pub origin: Origin,
    /// The Service it belongs to: the label `kubernetes.io/service-name`, same namespace.
    pub service: ObjectName,
    /// `addressType`.
    pub family: Family,
    /// Whether its endpoints are pods and hosts that the cluster knows: some name their node, or they are the API servers.
    /// Those that somebody wrote down by hand may be anything, another Service's address too.
    pub is_of_nodes: bool,
    /// `ports`; a Service's port is matched by name and protocol.
    pub ports: Vec<SlicePort>,
    /// `endpoints`.
    pub endpoints: Vec<Endpoint>,
    /// What the endpoints are called.
    pub names: EndpointNames,
}

impl EndpointSlice {
    /// One of the API's for pods, that has none yet.
    pub fn new(name: ObjectName, service: ObjectName, family: Family) -> Self {
        Self {
            name,
            origin: Origin::Api,
            service,
            family,
            is_of_nodes: true,
            ports: vec![],
            endpoints: vec![],
            names: EndpointNames::default(),
        }
    }
}

/// The `targetRef.name` of a slice's endpoints, in their order: of pods, as a rule. Nothing is decided by them.
///
/// They are one text with a line for each, as 100,000 texts of their own would cost twice as much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointNames(Option<Box<str>>);

impl EndpointNames {
    /// These names; an empty one stands for none. One that has a line feed in it is no name.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let lines = names.into_iter().map(|name| if name.contains('\n') { "" } else { name });
        let text = lines.collect::<Vec<_>>().join("\n");
        Self((!text.trim_end_matches('\n').is_empty()).then(|| text.into()))
    }

    /// The name of the endpoint with an index.
    pub fn name(&self, index: usize) -> Option<&str> {
        self.0.as_deref()?.split('\n').nth(index).filter(|name| !name.is_empty())
    }
}

/// One entry of a slice's `ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// The Service port's name, empty for the only one.
    pub name: Arc<str>,
    /// TCP unless said otherwise.
    pub protocol: Protocol,
    /// The target port, 1 to 65535.
    pub port: u16,
}

/// One entry of a slice's `endpoints`. A large cluster has 100,000, so its size counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The first of `addresses`; the others are the same pod's and are not used, as in kube-proxy.
    pub address: IpAddr,
    /// Share for weighted schedulers: annotation `ipvsd.io/weights`, else 1.
    pub weight: u16,
    /// `conditions.ready`, true where unset.
    pub ready: bool,
    /// `conditions.serving`, true where unset.
    pub serving: bool,
    /// `conditions.terminating`, false where unset.
    pub terminating: bool,
    /// What `nodeName` says. A process has one node name for life, so this is told apart when the slice is read.
    pub node: Whereabouts,
    /// What `hints.forNodes` says of this node.
    pub node_hint: NodeHint,
    /// `hints.forZones`, none where it is empty; a node's zone can change, so the names are kept.
    pub zones: Option<Arc<Zones>>,
}

impl Endpoint {
    /// One on another node that is ready and meant for everybody.
    pub fn new(address: IpAddr) -> Self {
        Self {
            address,
            weight: 1,
            ready: true,
            serving: true,
            terminating: false,
            node: Whereabouts::Elsewhere,
            node_hint: NodeHint::None,
            zones: None,
        }
    }

    /// Whether it is on this node.
    pub fn is_local(&self) -> bool {
        self.node == Whereabouts::Here
    }

    /// Whether it may get traffic where no endpoint is ready: on its way out, but still serving (KEP-1669).
    pub fn is_last_resort(&self) -> bool {
        self.serving && self.terminating
    }
}

/// Where an endpoint is, as far as this node can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// On this node.
    Here,
    /// On another node.
    Elsewhere,
    /// Nobody says, as in slices written by hand, or this node has no name.
    Unsaid,
}

/// For which nodes' clients an endpoint is meant, as far as this node can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeHint {
    /// No node is named.
    #[default]
    None,
    /// This node is named.
    Here,
    /// Only other nodes are named.
    Elsewhere,
}

/// Names of zones, at least one; equal sets are equal whatever their order was.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Zones(Box<[Box<str>]>);

impl Zones {
    /// The set of these names; none if there are none.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let names: BTreeSet<&str> = names.into_iter().collect();
        (!names.is_empty()).then(|| Self(names.into_iter().map(Box::from).collect()))
    }

    /// Whether a zone is one of them.
    pub fn contains(&self, zone: &str) -> bool {
        self.0.iter().any(|name| **name == *zone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_32_bytes() {
        assert!(size_of::<Endpoint>() <= 32, "{}", size_of::<Endpoint>());
    }

    #[test]
    fn each_endpoint_has_its_own_name_or_none() {
        let names = EndpointNames::new(["web-1", "", "a\nb", "web-2"]);
        assert_eq!([0, 1, 2, 3, 4].map(|index| names.name(index)), [Some("web-1"), None, None, Some("web-2"), None]);
        for nobody in [vec![], vec![""], vec!["", "", "\n"]] {
            assert_eq!(EndpointNames::new(nobody), EndpointNames::default());
        }
    }

    #[test]
    fn zones_are_a_set() {
        assert_eq!(Zones::new([]), None);
        assert_eq!(Zones::new(["b", "a", "b"]), Zones::new(["a", "b"]));
        let zones = Zones::new(["a", "b"]).unwrap();
        assert_eq!(["a", "b", "c", ""].map(|zone| zones.contains(zone)), [true, true, false, false]);
    }
}
