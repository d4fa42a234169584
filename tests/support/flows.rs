//! Flows as connection tracking would have them, and who may say that they lead somewhere: a second opinion, by the kernel's
//! own state.

use ipvsd::model::netfilter::{AddressPort, Member, SetKey, SetKind};
use ipvsd::model::{DestinationKey, Family, Flow, Model, Op, Protocol, VirtualServer, VirtualServerKey};
use std::net::{IpAddr, SocketAddr};

/// The port of clients that [`of_others`] are of.
pub const OTHERS: u16 = 9;

/// A flow to each destination of each frontend, by whichever virtual server.
pub fn through(model: &Model) -> impl Iterator<Item = Flow> {
    frontends(model).flat_map(|frontend| {
        let destinations = servers(frontend, model).flat_map(|server| server.destinations.keys());
        destinations.map(move |destination| flow(1, frontend, *destination))
    })
}

/// A flow to each frontend that is `wanted` and not there, from before its virtual server: it leads to the VIP itself.
pub fn past(wanted: &Model, there: &Model) -> impl Iterator<Item = Flow> {
    let missing = frontends(wanted).filter(|of| !there.virtual_servers.contains_key(&key(*of)));
    missing.map(|of| flow(2, of, DestinationKey { address: of.address, port: of.port }))
}

/// Flows that lead nowhere and are nothing to ipvsd: to other ports of the VIPs, and of TCP.
pub fn of_others(model: &Model) -> impl Iterator<Item = Flow> {
    frontends(model).map(|of| {
        let nowhere = DestinationKey { address: of.address, port: 1 };
        let port = if of.protocol == Protocol::Tcp { of.port } else { 9_999 };
        flow(OTHERS, AddressPort { port, ..of }, nowhere)
    })
}

/// Whether the frontend is one whose flows are looked at.
pub fn is_served(flow: &Flow, model: &Model) -> bool {
    flow.frontend.protocol != Protocol::Tcp && model.virtual_servers.contains_key(&key(flow.frontend))
}

/// Whether the kernel has the flow's destination at its frontend.
pub fn stands(flow: &Flow, model: &Model) -> bool {
    servers(flow.frontend, model).any(|server| server.destinations.contains_key(&flow.destination))
}

/// Whether an operation is one after which flows may lead nowhere.
pub fn may_leave_some(op: &Op) -> bool {
    match op {
        Op::AddMember(set, ..) | Op::UpdateMember(set, ..) | Op::RemoveMember(set, _) | Op::DestroySet(set) => {
            set.kind == SetKind::ShortCircuit
        }
        _ => op
            .virtual_server()
            .is_some_and(|key| !matches!(key, VirtualServerKey::Address { protocol: Protocol::Tcp, .. })),
    }
}

fn frontends(model: &Model) -> impl Iterator<Item = AddressPort> {
    model.virtual_servers.keys().filter_map(|key| match *key {
        VirtualServerKey::Address { address, port, protocol } => Some(AddressPort { address, protocol, port }),
        VirtualServerKey::Mark { .. } => None,
    })
}

/// The frontend's virtual servers by address and by mark.
fn servers(of: AddressPort, model: &Model) -> impl Iterator<Item = &VirtualServer> {
    let family = Family::of(of.address);
    let set = model.sets.get(&SetKey { kind: SetKind::ShortCircuit, family });
    let mark = set.and_then(|set| *set.members.get(&Member::AddressPort(of))?);
    let by_mark = mark.map(|mark| VirtualServerKey::Mark { mark: mark.bits(), family });
    [Some(key(of)), by_mark].into_iter().flatten().filter_map(|key| model.virtual_servers.get(&key))
}

fn key(AddressPort { address, protocol, port }: AddressPort) -> VirtualServerKey {
    VirtualServerKey::new(address, port, protocol)
}

fn flow(client: u16, frontend: AddressPort, destination: DestinationKey) -> Flow {
    let address =
        if frontend.address.is_ipv4() { IpAddr::from([10, 244, 0, 1]) } else { "fd00:244::1".parse().unwrap() };
    Flow { client: SocketAddr::from((address, client)), frontend, destination }
}
