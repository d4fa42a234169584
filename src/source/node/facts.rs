//! What the kernel's lists of links, addresses and routes say about the node: pure.

use crate::model::{Family, KUBE_PROXY_DEVICE};
use crate::state::Node;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use std::net::IpAddr;

/// The kernel's lists, whole.
#[derive(Debug, Default)]
pub struct Dumps {
    /// Every link.
    pub links: Vec<LinkMessage>,
    /// Every address of both families, in the kernel's order.
    pub addresses: Vec<AddressMessage>,
    /// Routes of the main table.
    pub routes_ipv4: Vec<RouteMessage>,
    /// Routes of the main table.
    pub routes_ipv6: Vec<RouteMessage>,
}

/// An address that can be used.
#[derive(Clone, Copy, Debug)]
struct Own {
    address: IpAddr,
    /// Its device.
    device: u32,
    /// Reachable from elsewhere, and meant for new connections: neither secondary (IPv6: temporary) nor deprecated.
    preferred: bool,
}

/// A default route.
#[derive(Clone, Copy, Debug)]
struct DefaultRoute {
    metric: u32,
    source: Option<IpAddr>,
    device: Option<u32>,
}

/// The node's facts.
pub fn of(dumps: &Dumps) -> Node {
    let own = own_addresses(dumps);
    Node {
        addresses: own.iter().map(|own| own.address).collect(),
        primary_ipv4: primary(&own, &dumps.routes_ipv4, Family::Ipv4),
        primary_ipv6: primary(&own, &dumps.routes_ipv6, Family::Ipv6),
    }
}

fn own_addresses(dumps: &Dumps) -> Vec<Own> {
    // What is on kube-proxy's device are VIPs.
    let others = dumps.links.iter().find(|link| is_named(link, KUBE_PROXY_DEVICE)).map(|link| link.header.index);
    let ours = dumps.addresses.iter().filter(|message| Some(message.header.index) != others);
    ours.filter_map(own_address).collect()
}

fn is_named(link: &LinkMessage, name: &str) -> bool {
    link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::IfName(found) if found == name))
}

fn own_address(message: &AddressMessage) -> Option<Own> {
    let address = local_address(message)?;
    let flags = flags(message);
    let unusable = flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed);
    if unusable || address.is_loopback() || is_link_local_ipv6(address) {
        return None;
    }
    let second_choice = flags.intersects(AddressFlags::Secondary | AddressFlags::Deprecated);
    let global = matches!(message.header.scope, AddressScope::Universe | AddressScope::Site);
    Some(Own { address, device: message.header.index, preferred: global && !second_choice })
}

/// `IFA_LOCAL` where there is one: on a point-to-point link `IFA_ADDRESS` is the other end's.
fn local_address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

/// The attribute has all the flags, the header only those below 0x100.
fn flags(message: &AddressMessage) -> AddressFlags {
    let whole = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    whole.unwrap_or(AddressFlags::from_bits_retain(message.header.flags.bits().into()))
}

fn is_link_local_ipv6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// The source of the best default route; else an address of its device; else one of the lowest device that has any.
/// Among equals the oldest, so that an address that comes later, keepalived's say, does not take over. The kernel lists
/// IPv4 addresses oldest first, and IPv6 addresses newest first (`ipv6_link_dev_addr`).
fn primary(own: &[Own], routes: &[RouteMessage], family: Family) -> Option<IpAddr> {
    let mut own: Vec<_> = own.iter().copied().filter(|own| Family::of(own.address) == family).collect();
    if family == Family::Ipv6 {
        own.reverse();
    }
    let route = routes.iter().filter_map(default_route).min_by_key(|route| route.metric);
    let source = route.and_then(|route| route.source).filter(|source| own.iter().any(|own| own.address == *source));
    let device = route.and_then(|route| route.device);
    source.or_else(|| first(own.iter().filter(|own| Some(own.device) == device))).or_else(|| first(own.iter()))
}

/// A preferred address before others, then the lowest device, then the order given.
fn first<'a>(own: impl Iterator<Item = &'a Own>) -> Option<IpAddr> {
    own.min_by_key(|own| (!own.preferred, own.device)).map(|own| own.address)
}

fn default_route(message: &RouteMessage) -> Option<DefaultRoute> {
    let header = &message.header;
    if header.destination_prefix_length != 0 || header.kind != RouteType::Unicast || table(message) != MAIN {
        return None;
    }
    let mut route = DefaultRoute { metric: 0, source: None, device: None };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::PrefSource(RouteAddress::Inet(source)) => route.source = Some((*source).into()),
            RouteAttribute::PrefSource(RouteAddress::Inet6(source)) => route.source = Some((*source).into()),
            RouteAttribute::Oif(device) => route.device = Some(*device),
            RouteAttribute::MultiPath(hops) => route.device = hops.first().map(|hop| hop.interface_index),
            _ => {}
        }
    }
    Some(route)
}

const MAIN: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// The attribute has the whole number, the header its low byte.
fn table(message: &RouteMessage) -> u32 {
    let whole = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    whole.unwrap_or(message.header.table.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::AddressFamily;
    use netlink_packet_route::address::AddressHeaderFlags;
    use netlink_packet_route::route::RouteNextHop;

    fn link(index: u32, name: &str) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        link
    }

    fn address(device: u32, address: &str) -> AddressMessage {
        let address: IpAddr = address.parse().unwrap();
        let mut message = AddressMessage::default();
        message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.index = device;
        message.attributes.push(AddressAttribute::Address(address));
        message
    }

    fn flagged(device: u32, text: &str, flags: AddressFlags) -> AddressMessage {
        let mut message = address(device, text);
        message.attributes.push(AddressAttribute::Flags(flags));
        message
    }

    fn default_via(device: u32, metric: u32, source: Option<&str>) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.kind = RouteType::Unicast;
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.attributes = vec![RouteAttribute::Oif(device), RouteAttribute::Priority(metric)];
        route.attributes.extend(source.map(|source| match source.parse().unwrap() {
            IpAddr::V4(source) => RouteAttribute::PrefSource(RouteAddress::Inet(source)),
            IpAddr::V6(source) => RouteAttribute::PrefSource(RouteAddress::Inet6(source)),
        }));
        route
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn addresses(of: Vec<AddressMessage>) -> Vec<String> {
        let dumps = Dumps { links: vec![link(1, "lo"), link(7, "kube-ipvs0")], addresses: of, ..Dumps::default() };
        super::of(&dumps).addresses.iter().map(ToString::to_string).collect()
    }

    fn primary_ipv4(of: Vec<AddressMessage>, routes_ipv4: Vec<RouteMessage>) -> Option<IpAddr> {
        super::of(&Dumps { addresses: of, routes_ipv4, ..Dumps::default() }).primary_ipv4
    }

    #[test]
    fn addresses_are_those_that_others_can_use() {
        let dumped = vec![
            address(1, "127.0.0.1"),
            address(1, "127.8.8.8"),
            address(1, "::1"),
            address(1, "10.255.0.1"),
            address(2, "192.0.2.1"),
            address(2, "169.254.1.1"),
            address(2, "fd00::1"),
            address(2, "fe80::1"),
            flagged(2, "fd00::2", AddressFlags::Tentative),
            flagged(2, "fd00::3", AddressFlags::Dadfailed | AddressFlags::Permanent),
            flagged(2, "fd00::4", AddressFlags::Deprecated),
            address(7, "10.96.0.1"),
        ];
        assert_eq!(addresses(dumped), ["10.255.0.1", "169.254.1.1", "192.0.2.1", "fd00::1", "fd00::4"]);
    }

    #[test]
    fn flags_of_the_header_count_where_there_is_no_attribute() {
        let mut tentative = address(2, "fd00::1");
        tentative.header.flags = AddressHeaderFlags::Tentative;
        assert!(addresses(vec![tentative]).is_empty());
    }

    #[test]
    fn a_point_to_point_address_is_ours_and_not_the_peers() {
        let mut tunnel = address(2, "192.0.2.254");
        tunnel.attributes.push(AddressAttribute::Local(ip("192.0.2.1")));
        assert_eq!(addresses(vec![tunnel]), ["192.0.2.1"]);
    }

    #[test]
    fn the_primary_address_is_the_source_of_the_default_route() {
        let dumped = vec![address(2, "192.0.2.1"), address(3, "198.51.100.1")];
        assert_eq!(primary_ipv4(dumped, vec![default_via(2, 0, Some("198.51.100.1"))]), Some(ip("198.51.100.1")));
    }

    #[test]
    fn a_source_that_is_no_address_of_ours_is_not_believed() {
        let dumped = vec![address(2, "192.0.2.1")];
        assert_eq!(primary_ipv4(dumped, vec![default_via(2, 0, Some("203.0.113.1"))]), Some(ip("192.0.2.1")));
    }

    #[test]
    fn without_a_source_it_is_an_address_of_the_default_routes_device_by_lowest_metric() {
        let dumped = vec![address(2, "192.0.2.1"), address(3, "198.51.100.1")];
        let routes = vec![default_via(2, 600, None), default_via(3, 100, None)];
        assert_eq!(primary_ipv4(dumped, routes), Some(ip("198.51.100.1")));
    }

    #[test]
    fn a_route_with_several_next_hops_counts_with_its_first() {
        let dumped = vec![address(2, "192.0.2.1"), address(3, "198.51.100.1")];
        let mut route = default_via(2, 0, None);
        let mut hop = RouteNextHop::default();
        hop.interface_index = 3;
        route.attributes = vec![RouteAttribute::MultiPath(vec![hop])];
        assert_eq!(primary_ipv4(dumped, vec![route]), Some(ip("198.51.100.1")));
    }

    #[test]
    fn routes_that_are_no_default_route_of_the_main_table_do_not_count() {
        let dumped = || vec![address(2, "192.0.2.1"), address(3, "198.51.100.1")];
        let mut subnet = default_via(3, 0, None);
        subnet.header.destination_prefix_length = 24;
        let mut unreachable = default_via(3, 0, None);
        unreachable.header.kind = RouteType::Unreachable;
        let mut elsewhere = default_via(3, 0, None);
        elsewhere.attributes.push(RouteAttribute::Table(1000));
        for route in [subnet, unreachable, elsewhere] {
            assert_eq!(primary_ipv4(dumped(), vec![route]), Some(ip("192.0.2.1")));
        }
    }

    #[test]
    fn without_a_default_route_it_is_the_lowest_devices_first_preferred_address() {
        let mut host_only = address(1, "10.255.0.1");
        host_only.header.scope = AddressScope::Host;
        let dumped = vec![
            host_only,
            address(3, "198.51.100.1"),
            flagged(2, "192.0.2.9", AddressFlags::Secondary),
            address(2, "192.0.2.1"),
            address(2, "192.0.2.2"),
        ];
        assert_eq!(primary_ipv4(dumped, vec![]), Some(ip("192.0.2.1")));
    }

    #[test]
    fn of_equal_ipv6_addresses_the_oldest_which_the_kernel_lists_last_is_primary() {
        let addresses = vec![address(2, "fd00::9"), address(2, "fd00::1"), address(3, "fd00::3")];
        assert_eq!(of(&Dumps { addresses, ..Dumps::default() }).primary_ipv6, Some(ip("fd00::1")));
    }

    #[test]
    fn the_families_are_apart_and_a_node_may_lack_one() {
        let dumps = Dumps {
            addresses: vec![address(2, "192.0.2.1"), address(3, "fd00::1")],
            routes_ipv4: vec![default_via(3, 0, None)],
            ..Dumps::default()
        };
        let node = of(&dumps);
        assert_eq!((node.primary_ipv4, node.primary_ipv6), (Some(ip("192.0.2.1")), Some(ip("fd00::1"))));
        assert_eq!(of(&Dumps::default()), Node::default());
    }
}
