//! Where a Service port's traffic comes in: cluster, external and load-balancer addresses, and node ports.

use super::{Settings, node_ports};
use crate::model::localhost::FAR_ADDRESS;
use crate::model::{Family, Protocol, VirtualServerKey};
use crate::state::{ObjectName, Service, ServicePort, State, TrafficPolicy};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// The namespace of the cluster's own parts: of the API servers too, where they are pods.
const OF_THE_CLUSTER: &str = "kube-system";
/// Namespace and name of the API servers' own Service.
const API: (&str, &str) = ("default", "kubernetes");

/// A way in, and the field of the Service that asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// The virtual server that serves it.
    pub key: VirtualServerKey,
    /// For messages, and to tell what kind it is.
    pub field: Field,
    /// Whose endpoints it may lead to.
    pub policy: TrafficPolicy,
    /// The index of the Service's port.
    pub port: usize,
}

/// The field that asks for a frontend, printed as its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `spec.clusterIPs[i]`.
    ClusterIp(usize),
    /// `spec.externalIPs[i]`.
    ExternalIp(usize),
    /// The i-th VIP of `status.loadBalancer.ingress`.
    LoadBalancerIp(usize),
    /// `spec.ports[i].nodePort`.
    NodePort(usize),
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClusterIp(i) => write!(f, "spec.clusterIPs[{i}]"),
            Self::ExternalIp(i) => write!(f, "spec.externalIPs[{i}]"),
            Self::LoadBalancerIp(i) => write!(f, "status.loadBalancer.ingress[{i}].ip"),
            Self::NodePort(i) => write!(f, "spec.ports[{i}].nodePort"),
        }
    }
}

impl Field {
    /// Whether it is a way in for clients outside the cluster, which the external traffic policy is for.
    pub fn is_external(self) -> bool {
        !matches!(self, Self::ClusterIp(_))
    }
}

/// The frontends of the Service's port at an index that are served. An address that is listed twice gives equal keys.
pub fn of_port<'a>(
    service: &'a Service,
    port: (usize, &'a ServicePort),
    state: &'a State,
    settings: &'a Settings,
) -> impl Iterator<Item = Frontend> + 'a {
    asked_for(service, port, state, settings).filter(|one| !takes_api_server(service, one, state))
}

/// Whether a Service that is not the cluster's own would take this node's way to an API server, for good: a virtual
/// server takes what the node itself sends, and who cannot read the cluster does not hear that the Service is gone.
pub fn takes_api_server(service: &Service, frontend: &Frontend, state: &State) -> bool {
    let is_open_to_all = matches!(frontend.field, Field::ExternalIp(_) | Field::LoadBalancerIp(_));
    let VirtualServerKey::Address { address, port, protocol: Protocol::Tcp } = frontend.key else { return false };
    is_open_to_all && state.has_api_server(SocketAddr::new(address, port)) && !is_the_clusters(&service.name)
}

fn is_the_clusters(name: &ObjectName) -> bool {
    &*name.namespace == OF_THE_CLUSTER || (&*name.namespace, &*name.name) == API
}

/// The frontends that the Service's port at an index asks for, served or not.
pub fn asked_for<'a>(
    service: &'a Service,
    (index, port): (usize, &'a ServicePort),
    state: &'a State,
    settings: &'a Settings,
) -> impl Iterator<Item = Frontend> + 'a {
    let frontend = move |address, number, field: Field| Frontend {
        key: VirtualServerKey::new(address, number, port.protocol),
        field,
        policy: if field.is_external() { service.external_policy } else { service.internal_policy },
        port: index,
    };
    let vips = vips(service, settings).map(move |(address, field)| frontend(address, port.port, field));
    let node_ports = port.node_port.into_iter().flat_map(move |number| {
        let mine = move |address: &IpAddr| service.families.contains(Family::of(*address));
        let addresses = node_ports::addresses(settings, state).filter(mine);
        addresses.map(move |address| frontend(address, number, Field::NodePort(index)))
    });
    vips.chain(node_ports)
}

/// The way in from the node's loopback addresses to the Service's `index`-th port. It has no virtual server by its address,
/// and leads to all endpoints, as everything does that comes from the node.
pub fn on_localhost(service: &Service, (index, port): (usize, &ServicePort), settings: &Settings) -> Option<Frontend> {
    let number = port.node_port.filter(|_| node_ports::are_on_localhost(settings))?;
    service.families.contains(Family::Ipv4).then(|| Frontend {
        key: VirtualServerKey::new(FAR_ADDRESS.into(), number, port.protocol),
        field: Field::NodePort(index),
        policy: TrafficPolicy::Cluster,
        port: index,
    })
}

/// The Service's addresses that are used, and where they stand.
pub fn vips<'a>(service: &'a Service, settings: &Settings) -> impl Iterator<Item = (IpAddr, Field)> + 'a {
    let external_ips = if settings.external_ips_allowed { service.external_ips.as_slice() } else { &[] };
    let listed = [
        (service.cluster_ips.as_slice(), Field::ClusterIp as fn(usize) -> Field),
        (external_ips, Field::ExternalIp),
        (&service.load_balancer_ips, Field::LoadBalancerIp),
    ];
    listed.into_iter().flat_map(|(addresses, field)| {
        addresses.iter().enumerate().map(move |(index, address)| (*address, field(index)))
    })
}
