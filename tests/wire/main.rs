//! Bytes, both ways: what was recorded from Linux and ipvsadm (fixtures/netlink.txt, written by kernel/record.rs) is
//! understood and is what we send; what we write we can read; and no bytes at all make a decoder panic.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod flows;
mod round_trips;

use ipvsd::kernel::ipvs::encode::Encoder;
use ipvsd::kernel::ipvs::{self, DestinationEntry, Identity, Info, Timeouts, Tunnel, VirtualServerEntry};
use ipvsd::kernel::netlink::decode::{Attribute, Received, attributes, messages, status};
use ipvsd::kernel::netlink::{Batch, Message};
use ipvsd::kernel::{device, route};
use ipvsd::model::{
    DestinationKey, DestinationSpec, Family, Forwarding, Op, Persistence, Protocol, RouteSpec, SchedulerFlags,
    VirtualServerKey, VirtualServerSpec,
};
use netlink_packet_core::{NLMSG_DONE, NLMSG_ERROR};
use std::net::IpAddr;

const FIXTURES: &str = include_str!("../fixtures/netlink.txt");

/// The number that the recorded kernel gave to IPVS.
const ENCODER: Encoder = Encoder { family: 0x1c };

/// The datagrams recorded under a name.
fn recorded(name: &str) -> Vec<Vec<u8>> {
    let lines = FIXTURES.lines().filter_map(|line| line.split_once(" = "));
    let found: Vec<_> = lines.filter(|(of, _)| *of == name).map(|(_, hex)| bytes(hex)).collect();
    assert!(!found.is_empty(), "nothing is recorded as {name}");
    found
}

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |digits: &[u8]| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap();
    hex.as_bytes().chunks(2).map(byte).collect()
}

/// The payloads of a recorded answer without its closing message.
fn payloads(datagrams: &[Vec<u8>]) -> Vec<&[u8]> {
    let all = datagrams.iter().flat_map(|datagram| messages(datagram)).map(Result::unwrap);
    all.filter(|message| ![NLMSG_ERROR, NLMSG_DONE].contains(&message.kind)).map(|message| message.payload).collect()
}

fn only(bytes: &[u8]) -> Received<'_> {
    let mut all = messages(bytes).map(Result::unwrap);
    let only = all.next().unwrap();
    assert_eq!(all.next(), None);
    only
}

fn attributes_of(bytes: &[u8]) -> Vec<Attribute<'_>> {
    attributes(bytes).map(Result::unwrap).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn tcp(address: &str, port: u16) -> VirtualServerKey {
    VirtualServerKey::new(ip(address), port, Protocol::Tcp)
}

fn scheduled(name: &str) -> VirtualServerSpec {
    VirtualServerSpec { scheduler: name.parse().unwrap(), flags: SchedulerFlags::default(), persistence: None }
}

fn destination(address: &str, port: u16) -> DestinationKey {
    DestinationKey { address: ip(address), port }
}

fn forwarded(forwarding: Forwarding, weight: u32) -> DestinationSpec {
    DestinationSpec { forwarding, ..DestinationSpec::masquerading(weight) }
}

/// ipvsadm's arguments, and the operation that does the same.
fn same_as_ipvsadm() -> Vec<(&'static str, Op)> {
    let sticky = |timeout, prefix| Some(Persistence { timeout, prefix });
    let flags = SchedulerFlags::PORT.with(SchedulerFlags::FALLBACK);
    let limited = DestinationSpec { upper_threshold: 100, lower_threshold: 50, ..DestinationSpec::masquerading(5) };
    let key = |text, port, protocol| VirtualServerKey::new(ip(text), port, protocol);
    let mark = |mark, family| VirtualServerKey::Mark { mark, family };
    let (four, six, nine) = (tcp("10.0.0.1", 80), tcp("fd00::1", 80), tcp("10.0.0.9", 80));
    let real = destination("10.1.0.1", 80);
    vec![
        (
            "-A -t 10.0.0.1:80 -s sh -b sh-fallback,sh-port -p 10800 -M 255.255.255.0",
            Op::AddVirtualServer(four, VirtualServerSpec { flags, persistence: sticky(10_800, 24), ..scheduled("sh") }),
        ),
        ("-A -t 10.96.0.1:80 -s wrr", Op::AddVirtualServer(tcp("10.96.0.1", 80), scheduled("wrr"))),
        (
            "-A -t [fd00::1]:80 -s wrr -p 60 -M 64",
            Op::AddVirtualServer(six, VirtualServerSpec { persistence: sticky(60, 64), ..scheduled("wrr") }),
        ),
        (
            "-A -u 10.0.0.1:53 -s rr -o",
            Op::AddVirtualServer(
                key("10.0.0.1", 53, Protocol::Udp),
                VirtualServerSpec { flags: SchedulerFlags::ONE_PACKET, ..scheduled("rr") },
            ),
        ),
        (
            "-A --sctp-service 10.0.0.1:9999 -s mh -b mh-port",
            Op::AddVirtualServer(
                key("10.0.0.1", 9999, Protocol::Sctp),
                VirtualServerSpec { flags: SchedulerFlags::PORT, ..scheduled("mh") },
            ),
        ),
        ("-A -f 7 -s lc", Op::AddVirtualServer(mark(7, Family::Ipv4), scheduled("lc"))),
        ("-A -f 8 -6 -s rr", Op::AddVirtualServer(mark(8, Family::Ipv6), scheduled("rr"))),
        ("-E -t 10.0.0.9:80 -s rr", Op::UpdateVirtualServer(nine, scheduled("rr"))),
        ("-D -t 10.0.0.9:80", Op::RemoveVirtualServer(nine)),
        (
            "-a -t 10.0.0.1:80 -r 10.1.0.1:8080 -m -w 5 -x 100 -y 50",
            Op::AddDestination(four, destination("10.1.0.1", 8080), limited),
        ),
        (
            "-a -t 10.0.0.1:80 -r 10.1.0.2:80 -i -w 0",
            Op::AddDestination(four, destination("10.1.0.2", 80), forwarded(Forwarding::Tunnel, 0)),
        ),
        (
            // ipvsadm gives a destination by direct routing its service's port.
            "-a -t [fd00::1]:80 -r [fd00::2]:81 -g -w 1",
            Op::AddDestination(six, destination("fd00::2", 80), forwarded(Forwarding::DirectRouting, 1)),
        ),
        (
            "-a -f 8 -6 -r [fd00::3]:0 -m -w 2",
            Op::AddDestination(mark(8, Family::Ipv6), destination("fd00::3", 0), DestinationSpec::masquerading(2)),
        ),
        (
            "-e -t 10.0.0.9:80 -r 10.1.0.1:80 -m -w 7",
            Op::UpdateDestination(nine, real, DestinationSpec::masquerading(7)),
        ),
        ("-d -t 10.0.0.9:80 -r 10.1.0.1:80", Op::RemoveDestination(nine, real)),
    ]
}

/// Attributes of ipvsadm's that the kernel does not read: a service's settings in requests that are not to set them
/// (6 to 9), a destination's settings when it goes (3 to 6), and the kind of tunnel where ours is the usual (13 to 15).
fn is_surplus(op: &Op, of_destination: bool, kind: u16) -> bool {
    match (op, of_destination) {
        (Op::AddVirtualServer(..) | Op::UpdateVirtualServer(..), _) => false,
        (_, false) => (6..=9).contains(&kind),
        (Op::RemoveDestination(..), true) => (3..=6).contains(&kind) || (13..=15).contains(&kind),
        (_, true) => (13..=15).contains(&kind),
    }
}

/// An attribute of a service or a destination, by its kind, with the owner's tag taken out of a service's flags.
fn without_tag(of_destination: bool, attribute: Attribute<'_>) -> (bool, u16, Vec<u8>) {
    let mut value = attribute.value.to_vec();
    if !of_destination && attribute.kind == 7 {
        value[2..4].fill(0);
    }
    (of_destination, attribute.kind, value)
}

#[test]
fn requests_say_what_ipvsadm_says_but_for_the_owners_tag() {
    for (arguments, op) in same_as_ipvsadm() {
        let theirs = recorded(&format!("ipvsadm {arguments}")).remove(0);
        let mut batch = Batch::new(1);
        ENCODER.operation(&mut batch, &op);
        batch.acknowledge_last();
        let (theirs, ours) = (only(&theirs), only(batch.bytes()));
        assert_eq!((ours.kind, ours.flags, &ours.payload[..4]), (theirs.kind, theirs.flags, &theirs.payload[..4]));
        let flat = |payload: &[u8], ours: bool| -> Vec<_> {
            let objects = attributes_of(&payload[4..]);
            let all = objects.iter().flat_map(|object| {
                let of_destination = object.kind == 2;
                attributes_of(object.value).into_iter().map(move |one| (of_destination, one))
            });
            all.filter(|(of_destination, one)| ours || !is_surplus(&op, *of_destination, one.kind))
                .map(|(of_destination, one)| without_tag(of_destination, one))
                .collect()
        };
        assert_eq!(flat(ours.payload, true), flat(theirs.payload, false), "ipvsadm {arguments}");
    }
}

#[test]
fn a_new_service_is_the_bytes_of_ipvsadm_with_the_tag() {
    let mut theirs = recorded("ipvsadm -A -t 10.96.0.1:80 -s wrr").remove(0);
    let mut batch = Batch::new(u32::from_ne_bytes(*theirs[8..].first_chunk().unwrap()));
    ENCODER.operation(&mut batch, &Op::AddVirtualServer(tcp("10.96.0.1", 80), scheduled("wrr")));
    batch.acknowledge_last();
    // The sender's port, which the kernel knows without being told.
    theirs[12..16].fill(0);
    let differing: Vec<_> = theirs.iter().zip(batch.bytes()).enumerate().filter(|(_, (a, b))| a != b).collect();
    assert_eq!(theirs.len(), batch.bytes().len());
    assert_eq!(
        differing.iter().map(|(_, (theirs, ours))| (**theirs, **ours)).collect::<Vec<_>>(),
        [(0, 0x50), (0, 0x49)]
    );
}

/// The services that the recorder made, all of them: ours, and others' that ipvsd never would make.
#[test]
fn a_dump_of_services_is_understood_whole() {
    let datagrams = recorded("services");
    let services: Vec<VirtualServerEntry> =
        payloads(&datagrams).into_iter().map(|payload| ipvs::decode::service(payload).unwrap()).collect();
    let mut lines: Vec<String> = services.iter().map(line).collect();
    lines.sort();
    assert_eq!(
        lines,
        [
            "10.0.0.1:53/17 rr flags 0x6 timeout 0 netmask 0xffffffff",
            "10.0.0.1:80/6 sh flags 0x1b timeout 10800 netmask 0xffffff00",
            "10.0.0.1:9999/132 mh flags 0x12 timeout 0 netmask 0xffffffff",
            "10.96.0.1:80/6 wrr flags 0x2 timeout 0 netmask 0xffffffff",
            "10.96.0.2:80/6 rr flags 0x49500002 timeout 0 netmask 0xffffffff",
            "fd00::1:80/6 wrr flags 0x3 timeout 60 netmask 0x40",
            "mark 7 Ipv4 lc flags 0x2 timeout 0 netmask 0xffffffff",
            "mark 8 Ipv6 rr flags 0x2 timeout 0 netmask 0x80",
        ]
    );
    let ours: Vec<_> = services.iter().filter(|service| service.is_ours()).collect();
    assert!(matches!(ours[..], [service] if service.identity.key() == Some(tcp("10.96.0.2", 80))));
    assert_eq!(ours[0].spec(), Ok(scheduled("rr")));
    assert_eq!((ours[0].stats.connections, ours[0].stats.packets_in, ours[0].stats.packets_out), (2, 4, 2));
    assert_eq!((ours[0].stats.bytes_in, ours[0].stats.bytes_out), (224, 120));
    let sticky = services.iter().find(|service| service.identity.family() == Family::Ipv6 && service.timeout == 60);
    assert_eq!(sticky.unwrap().persistence(), Some(Persistence { timeout: 60, prefix: 64 }));
}

fn line(service: &VirtualServerEntry) -> String {
    let identity = match service.identity {
        Identity::Address { address, port, protocol } => format!("{address}:{port}/{protocol}"),
        Identity::Mark { mark, family } => format!("mark {mark} {family:?}"),
    };
    let VirtualServerEntry { scheduler, flags, timeout, netmask, .. } = service;
    format!("{identity} {scheduler} flags {flags:#x} timeout {timeout} netmask {netmask:#x}")
}

fn destinations(of: &str, family: Family) -> Vec<DestinationEntry> {
    let datagrams = recorded(&format!("destinations of {of}"));
    let decode = |payload| ipvs::decode::destination(payload, family).unwrap();
    payloads(&datagrams).into_iter().map(decode).collect()
}

#[test]
fn a_dump_of_destinations_is_understood_whole() {
    let mut found = destinations("10.0.0.1:80", Family::Ipv4);
    found.sort_by_key(|destination| destination.key);
    let limited = DestinationSpec { upper_threshold: 100, lower_threshold: 50, ..DestinationSpec::masquerading(5) };
    assert_eq!((found[0].key, found[0].spec()), (destination("10.1.0.1", 8080), Ok(limited)));
    let tunnel = forwarded(Forwarding::Tunnel, 0);
    assert_eq!((found[1].key, found[1].spec()), (destination("10.1.0.2", 80), Ok(tunnel)));
    assert_eq!((found.len(), found[1].tunnel), (2, Tunnel::default()));

    let six = &destinations("[fd00::1]:80", Family::Ipv6)[0];
    assert_eq!((six.key, six.spec()), (destination("fd00::2", 80), Ok(forwarded(Forwarding::DirectRouting, 1))));
    assert_eq!(destinations("mark 8", Family::Ipv6)[0].key, destination("fd00::3", 0));
    assert_eq!(destinations("nothing", Family::Ipv4), []);

    let busy = &destinations("10.96.0.2:80", Family::Ipv4)[0];
    assert_eq!((busy.active, busy.inactive, busy.persistent, busy.connections()), (2, 0, 0, 2));
    assert_eq!((busy.stats.connections, busy.stats.packets_in, busy.stats.bytes_in), (2, 4, 224));
}

/// Kernels since Linux 4.1 tell each counter twice: with 32 bits, which run over, and with 64 bits.
#[test]
fn counters_beyond_32_bits_are_read_whole() {
    // IPVS_STATS_ATTR_*, of which 4 and 5, the bytes, have always been wide.
    let narrow = |message: &mut Message<'_>| {
        (1..=10_u16).for_each(|kind| match kind {
            4 | 5 => message.attribute(kind, &u64::from(kind).to_ne_bytes()),
            _ => message.attribute(kind, &u32::from(kind).to_ne_bytes()),
        });
    };
    let wide = |message: &mut Message<'_>| {
        (1..=10_u16).for_each(|kind| message.attribute(kind, &((u64::from(kind) << 32) + 7).to_ne_bytes()));
    };
    let mut batch = Batch::new(1);
    // IPVS_CMD_ATTR_SERVICE with AF, FWMARK, STATS and STATS64; IPVS_CMD_ATTR_DEST with ADDR, STATS and STATS64.
    batch.push(0, 0, |message| {
        message.raw(&[0; 4]);
        message.nested(1, |service| {
            service.attribute(1, &2_u16.to_ne_bytes());
            service.attribute(5, &7_u32.to_ne_bytes());
            service.nested(10, narrow);
            service.nested(12, wide);
        });
        message.nested(2, |destination| {
            destination.attribute(1, &[10, 1, 0, 1]);
            destination.nested(10, narrow);
            destination.nested(12, wide);
        });
    });
    let payload = only(batch.bytes()).payload;
    let stats = ipvs::decode::service(payload).unwrap().stats;
    let totals = [stats.connections, stats.packets_in, stats.packets_out, stats.bytes_in, stats.bytes_out];
    assert_eq!(totals, [1, 2, 3, 4, 5].map(|count| (count << 32) + 7));
    let rates = [stats.connection_rate, stats.packet_rate_in, stats.packet_rate_out, stats.byte_rate_in];
    assert_eq!((rates, stats.byte_rate_out), ([6, 7, 8, 9].map(|count| (count << 32) + 7), (10 << 32) + 7));
    assert_eq!(ipvs::decode::destination(payload, Family::Ipv4).unwrap().stats, stats);
}

#[test]
fn answers_to_single_requests_are_understood() {
    let info = recorded("info");
    let info = ipvs::decode::info(payloads(&info)[0]);
    assert_eq!(info, Ok(Info { version: 0x01_02_01, connection_table_size: 4096 }));
    let service = recorded("service 10.0.0.1:80");
    assert_eq!(ipvs::decode::service(payloads(&service)[0]).unwrap().scheduler, "sh");
    let accepted = only(&service[1]);
    assert_eq!((accepted.kind, status(accepted.payload)), (NLMSG_ERROR, Ok(0)));
    let refused = &recorded("refused")[0];
    assert_eq!((only(refused).kind, status(only(refused).payload)), (NLMSG_ERROR, Ok(-libc::ESRCH)));
}

#[test]
fn timeouts_are_set_as_ipvsadm_sets_them_and_read_back() {
    let wanted = Timeouts { tcp: 901, tcp_fin: 121, udp: 301 };
    let theirs = recorded("ipvsadm --set 901 121 301").remove(0);
    let mut batch = Batch::new(1);
    ENCODER.set_timeouts(&mut batch, wanted);
    batch.acknowledge_last();
    assert_eq!(only(batch.bytes()).payload, only(&theirs).payload);
    let answer = recorded("timeouts");
    assert_eq!(ipvs::decode::timeouts(payloads(&answer)[0]), Ok(wanted));
}

#[test]
fn kube_proxys_device_is_understood() {
    let link = recorded("kube-proxy's device");
    assert_eq!(device::decode_link(payloads(&link)[0]), Ok(Some(7)));
    for (family, name, address) in [(Family::Ipv4, "IPv4", "10.96.0.2"), (Family::Ipv6, "IPv6", "fd00:96::2")] {
        let datagrams = recorded(&format!("{name} addresses on it"));
        let read = |payload| device::decode_address(payload, (family, 7)).unwrap();
        let found: Vec<_> = payloads(&datagrams).into_iter().filter_map(read).collect();
        assert_eq!(found, [ip(address)]);
    }
}

#[test]
fn only_our_routes_are_read_from_a_dump() {
    let found = |family, name: &str| -> Vec<_> {
        let datagrams = recorded(name);
        let all = payloads(&datagrams);
        assert!(all.len() > 1, "the kernel's own are among them");
        all.into_iter().filter_map(|payload| route::decode(payload, family).unwrap()).collect()
    };
    let source = RouteSpec { preferred_source: Some(ip("192.168.7.1")) };
    assert_eq!(found(Family::Ipv4, "routes of IPv4"), [(ip("10.96.0.2"), source)]);
    assert_eq!(found(Family::Ipv6, "routes of IPv6"), [(ip("fd00:96::1"), RouteSpec::default())]);
    assert_eq!(found(Family::Ipv6, "routes of IPv4"), [], "a kernel without IPv6 may answer so");
}
