//! What one Service asks of the sets: where its frontends and endpoints must be known to the rules.

use super::claims::Place;
use crate::desired::frontends::{Field, Frontend};
use crate::model::netfilter::{AddressPort, Member, SetKey, SetKind};
use crate::model::{DestinationKey, Family, Protocol, VirtualServerKey};
use crate::state::{Service, TrafficPolicy};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};

/// What there is to know about a frontend besides itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Circumstances {
    /// Whether there are endpoints, though none on this node.
    pub is_elsewhere: bool,
    /// The node's primary address of the family.
    pub node: Option<IpAddr>,
}

/// The members for a frontend.
pub fn of_frontend(service: &Service, frontend: &Frontend, known: Circumstances) -> Vec<Place> {
    let VirtualServerKey::Address { address, port, protocol } = frontend.key else { return Vec::new() };
    let at = AddressPort { address, protocol, port };
    let is_local = frontend.policy == TrafficPolicy::Local;
    let mut kinds = Vec::new();
    let mut members = match frontend.field {
        Field::ClusterIp(_) => {
            kinds.push(SetKind::ClusterIp);
            Vec::new()
        }
        Field::ExternalIp(_) => {
            kinds.push(if is_local { SetKind::ExternalIpLocal } else { SetKind::ExternalIp });
            Vec::new()
        }
        Field::LoadBalancerIp(_) => {
            kinds.push(SetKind::LoadBalancer);
            kinds.extend(is_local.then_some(SetKind::LoadBalancerLocal));
            source_ranges(service, at, known.node)
        }
        Field::NodePort(_) => node_port(at, is_local),
    };
    let is_external_local = frontend.field.is_external() && is_local;
    kinds.extend((is_external_local && known.is_elsewhere).then_some(SetKind::NoLocal));
    members.extend(kinds.into_iter().map(|kind| (kind, Member::AddressPort(at))));
    let family = Family::of(address);
    members.into_iter().map(|(kind, member)| (SetKey { kind, family }, member)).collect()
}

/// The member that lets a pod reach itself through a Service.
pub fn of_endpoint(endpoint: DestinationKey, protocol: Protocol) -> Place {
    let DestinationKey { address, port } = endpoint;
    let member = Member::AddressPortAddress(AddressPort { address, protocol, port }, address);
    (SetKey { kind: SetKind::LoopBack, family: Family::of(address) }, member)
}

/// The member by which a node port on loopback addresses is known, where `at` is its place on the way from there.
pub fn of_localhost(at: AddressPort) -> Place {
    // A set that has addresses is asked with the client's.
    let client = AddressPort { address: Ipv4Addr::LOCALHOST.into(), ..at };
    let (kind, member) = match at.protocol {
        Protocol::Tcp => (SetKind::LocalhostTcp, Member::Port(at.port)),
        Protocol::Udp => (SetKind::LocalhostUdp, Member::Port(at.port)),
        Protocol::Sctp => (SetKind::LocalhostSctp, Member::AddressPort(client)),
    };
    (SetKey { kind, family: Family::Ipv4 }, member)
}

/// The members for the port where load balancers ask.
pub fn of_health_check(service: &Service) -> impl Iterator<Item = Place> {
    let place = |(family, port)| (SetKey { kind: SetKind::HealthCheckNodePort, family }, Member::Port(port));
    let families = service.families.iter().filter_map(|family| Some((family, service.health_check_node_port?)));
    families.map(place)
}

/// Where the source ranges name nobody of a family, everybody of it may come. A node that is in one may also come with the
/// VIP as its source, which is what the kernel chooses where nothing else is said.
fn source_ranges(service: &Service, at: AddressPort, node: Option<IpAddr>) -> Vec<(SetKind, Member)> {
    let of_family = |range: &&IpNet| Family::of(range.addr()) == Family::of(at.address);
    let ranges: Vec<_> = service.source_ranges.iter().filter(of_family).collect();
    if ranges.is_empty() {
        return Vec::new();
    }
    let mut members = vec![(SetKind::LoadBalancerFirewall, Member::AddressPort(at))];
    let allowed = |range: &&IpNet| (SetKind::LoadBalancerSourceCidr, Member::AddressPortNet(at, range.trunc()));
    members.extend(ranges.iter().map(allowed));
    let may_node = node.is_some_and(|node| ranges.iter().any(|range| range.contains(&node)));
    let itself = || (SetKind::LoadBalancerSourceIp, Member::AddressPortAddress(at, at.address));
    members.extend(may_node.then(itself));
    members
}

/// Sets of ports alone match TCP and UDP, whatever the address; SCTP's have the addresses too.
fn node_port(at: AddressPort, is_local: bool) -> Vec<(SetKind, Member)> {
    let port = Member::Port(at.port);
    let (all, local, member) = match at.protocol {
        Protocol::Tcp => (SetKind::NodePortTcp, SetKind::NodePortLocalTcp, port),
        Protocol::Udp => (SetKind::NodePortUdp, SetKind::NodePortLocalUdp, port),
        Protocol::Sctp => (SetKind::NodePortSctp, SetKind::NodePortLocalSctp, Member::AddressPort(at)),
    };
    let mut members = vec![(all, member)];
    members.extend(is_local.then_some((local, member)));
    members
}

#[cfg(test)]
mod tests;
