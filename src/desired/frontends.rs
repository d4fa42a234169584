//! Where a Service port's traffic comes in: cluster, external and load-balancer addresses, and node ports.

use crate::model::VirtualServerKey;
use crate::state::{Node, Service, ServicePort};
use std::fmt;

/// A way in, and the field of the Service that asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// The virtual server that serves it.
    pub key: VirtualServerKey,
    /// For messages.
    pub field: Field,
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

/// The frontends of the Service's `index`-th port. An address that is listed twice gives two equal keys.
pub fn of_port<'a>(
    service: &'a Service,
    (index, port): (usize, &'a ServicePort),
    node: &'a Node,
) -> impl Iterator<Item = Frontend> + 'a {
    let key = |address, port: u16, protocol| VirtualServerKey::new(address, port, protocol);
    let listed = [
        (&service.cluster_ips, Field::ClusterIp as fn(usize) -> Field),
        (&service.external_ips, Field::ExternalIp),
        (&service.load_balancer_ips, Field::LoadBalancerIp),
    ];
    let vips = listed.into_iter().flat_map(move |(addresses, field)| {
        let frontend =
            move |(i, address): (usize, &_)| Frontend { key: key(*address, port.port, port.protocol), field: field(i) };
        addresses.iter().enumerate().map(frontend)
    });
    let node_ports = port.node_port.into_iter().flat_map(move |node_port| {
        let frontend =
            move |address: &_| Frontend { key: key(*address, node_port, port.protocol), field: Field::NodePort(index) };
        node.addresses.iter().map(frontend)
    });
    vips.chain(node_ports)
}
