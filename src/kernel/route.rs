//! VIP routes as rtnetlink messages: `local VIP dev lo table local proto OURS metric OURS src NODE`.
//!
//! Such a route makes a VIP a local address without an address on a device: 10,000 of them take a fifteenth of the
//! time, and the preferred source keeps the node's own traffic from carrying the VIP as its source. It is on `lo`,
//! because IPv6 needs a device that is up.

use super::netlink::{Batch, Malformed};
use super::ownership::{ROUTE_METRIC, ROUTE_PROTOCOL, route_is_ours};
use crate::model::{Family, Op, RouteSpec};
use netlink_packet_core::{Emitable, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use std::net::IpAddr;

/// `RTM_NEWROUTE`, `RTM_DELROUTE`, `RTM_GETROUTE` (linux/rtnetlink.h).
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;

/// `RT_TABLE_LOCAL` (linux/rtnetlink.h): the table that is looked up first.
const TABLE_LOCAL: u8 = 255;

/// `LOOPBACK_IFINDEX` (include/net/flow.h of the kernel): `lo` is the first device of every network namespace.
const LOOPBACK: u32 = 1;

/// Adds the request for an operation on a route; for others it adds nothing.
pub fn operation(batch: &mut Batch, op: &Op) {
    match op {
        Op::AddRoute(vip, spec) => push(batch, (NEW_ROUTE, NLM_F_CREATE | NLM_F_EXCL), &message(*vip, spec)),
        // Replaces the route of the same destination and metric, and fails without one.
        Op::UpdateRoute(vip, spec) => push(batch, (NEW_ROUTE, NLM_F_REPLACE), &message(*vip, spec)),
        Op::RemoveRoute(vip) => push(batch, (DELETE_ROUTE, 0), &message(*vip, &RouteSpec::default())),
        _ => {}
    }
}

/// Adds a request for all of our routes of a family; `flags` make it a dump. The kernel filters by what is set here,
/// if it can (`NETLINK_GET_STRICT_CHK`, since Linux 4.20), and refuses a scope.
pub fn routes(batch: &mut Batch, flags: u16, family: Family) {
    let mut request = RouteMessage::default();
    request.header = RouteHeader { destination_prefix_length: 0, scope: RouteScope::Universe, ..header(family) };
    push(batch, (GET_ROUTE, flags), &request);
}

/// Reads one of our routes of a family out of the payload of an answer; none if it is somebody else's.
///
/// # Errors
/// It cannot be understood, or is ours and has no destination.
pub fn decode(payload: &[u8], family: Family) -> Result<Option<(IpAddr, RouteSpec)>, Malformed> {
    let RouteHeader { destination_prefix_length, table, protocol, kind, address_family, .. } =
        RouteHeader::parse(payload).map_err(|error| Malformed(error.to_string()))?;
    // A kernel without IPv6 answers a question for IPv6 with the routes of every family.
    let wanted = (address_family, destination_prefix_length, table, kind);
    if wanted != (address_family_of(family), family.bits(), TABLE_LOCAL, RouteType::Local) {
        return Ok(None);
    }
    let message = RouteMessage::parse(payload).map_err(|error| Malformed(error.to_string()))?;
    let found = Found::of(&message.attributes);
    if !route_is_ours(protocol.into(), found.metric) || found.device != LOOPBACK {
        return Ok(None);
    }
    let vip = found.vip.ok_or_else(|| Malformed::new("a route of ours without a destination"))?;
    Ok(Some((vip, RouteSpec { preferred_source: found.preferred_source })))
}

/// Adds a request for the way that packets to an address take.
pub fn towards(batch: &mut Batch, address: IpAddr) {
    let family = Family::of(address);
    let mut request = RouteMessage::default();
    // Without what would be asked of a route that is made: the kernel refuses it in a question.
    request.header.address_family = address_family_of(family);
    request.header.destination_prefix_length = family.bits();
    request.attributes = vec![RouteAttribute::Destination(address.into())];
    push(batch, (GET_ROUTE, 0), &request);
}

/// Reads the number of the device out of the answer to [`towards`].
///
/// # Errors
/// It cannot be understood.
pub fn decode_device(payload: &[u8]) -> Result<u32, Malformed> {
    let message = RouteMessage::parse(payload).map_err(|error| Malformed(error.to_string()))?;
    Ok(Found::of(&message.attributes).device)
}

/// The attributes of a route that matter here.
#[derive(Default)]
struct Found {
    vip: Option<IpAddr>,
    preferred_source: Option<IpAddr>,
    metric: u32,
    device: u32,
}

impl Found {
    fn of(attributes: &[RouteAttribute]) -> Self {
        let mut found = Self::default();
        for attribute in attributes {
            match attribute {
                RouteAttribute::Destination(address) => found.vip = ip(address),
                RouteAttribute::PrefSource(address) => found.preferred_source = ip(address),
                RouteAttribute::Priority(metric) => found.metric = *metric,
                RouteAttribute::Oif(device) => found.device = *device,
                _ => {}
            }
        }
        found
    }
}

fn message(vip: IpAddr, spec: &RouteSpec) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = header(Family::of(vip));
    message.attributes = vec![
        RouteAttribute::Destination(vip.into()),
        RouteAttribute::Oif(LOOPBACK),
        RouteAttribute::Priority(ROUTE_METRIC),
    ];
    message.attributes.extend(spec.preferred_source.map(|source| RouteAttribute::PrefSource(source.into())));
    message
}

fn header(family: Family) -> RouteHeader {
    RouteHeader {
        address_family: address_family_of(family),
        destination_prefix_length: family.bits(),
        table: TABLE_LOCAL,
        protocol: RouteProtocol::from(ROUTE_PROTOCOL),
        scope: RouteScope::Host,
        kind: RouteType::Local,
        ..RouteHeader::default()
    }
}

fn push(batch: &mut Batch, (kind, flags): (u16, u16), route: &RouteMessage) {
    batch.push(kind, flags, |message| message.space(route.buffer_len(), |space| route.emit(space)));
}

fn address_family_of(family: Family) -> AddressFamily {
    match family {
        Family::Ipv4 => AddressFamily::Inet,
        Family::Ipv6 => AddressFamily::Inet6,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
