//! Connection tracking's table in a namespace: which entries are deleted and which stay, at size, and what it costs. The
//! entries are made over netlink, so that no packet is needed, and read back by the kernel's own text.

use crate::lab::{is_set, run, trial};
use ipvsd::kernel::FlowsError;
use ipvsd::kernel::conntrack::Conntrack;
use ipvsd::kernel::netlink::socket::RECEIVE_BUFFER;
use ipvsd::kernel::netlink::{Batch, Message, Socket};
use ipvsd::model::netfilter::AddressPort;
use ipvsd::model::{DestinationKey, Family, Flow, Kept, Protocol};
use libtest_mimic::Trial;
use neli::consts::socket::NlFamily;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("flow_table::exactly_the_stale_ones_are_forgotten", exactly_the_stale_ones),
        trial("flow_table::so_it_is_with_many_frontends", so_it_is_with_many_frontends),
        trial("flow_table::thousands_are_forgotten_in_a_few_sends", thousands_in_a_few_sends),
        trial("flow_table::without_any_entry_nothing_is_forgotten", without_any_entry),
        trial("flow_table::a_kernel_without_the_module_says_so_until_it_is_there", without_the_module),
    ]
}

/// An entry to insert.
#[derive(Clone, Copy, Debug)]
pub struct Inserted {
    pub flow: Flow,
    /// Where the answers go: the client's own address, or the node's where it masquerades.
    pub answered_to: SocketAddr,
}

/// The entry of a flow that passed before its frontend was there.
pub fn untranslated(client: SocketAddr, frontend: AddressPort) -> Inserted {
    let destination = DestinationKey { address: frontend.address, port: frontend.port };
    Inserted { flow: Flow { client, frontend, destination }, answered_to: client }
}

/// Makes the kernel of this namespace remember flows, for an hour.
///
/// # Panics
/// If it does not.
pub fn insert(entries: &[Inserted]) {
    let mut socket = Socket::open(NlFamily::Netfilter, RECEIVE_BUFFER).unwrap();
    socket.exchange(entries, create, |entry, answer| panic!("{entry:?}: {answer:?}"));
}

fn create(batch: &mut Batch, Inserted { flow, answered_to }: &Inserted) {
    let AddressPort { address, protocol, port } = flow.frontend;
    let frontend = SocketAddr::from((address, port));
    let answers_from = SocketAddr::from((flow.destination.address, flow.destination.port));
    // IPCTNL_MSG_CT_NEW of NFNL_SUBSYS_CTNETLINK
    batch.push(1 << 8, NLM_F_CREATE | NLM_F_EXCL, |message| {
        message.raw(&[if address.is_ipv4() { 2 } else { 10 }, 0, 0, 0]);
        // CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_TIMEOUT
        message.nested(1, |message| put_tuple(message, protocol, (flow.client, frontend)));
        message.nested(2, |message| put_tuple(message, protocol, (answers_from, *answered_to)));
        message.attribute(7, &3600_u32.to_be_bytes());
    });
}

/// `CTA_TUPLE_IP` and `CTA_TUPLE_PROTO`.
fn put_tuple(message: &mut Message<'_>, protocol: Protocol, (source, destination): (SocketAddr, SocketAddr)) {
    message.nested(1, |message| {
        for (kind, address) in [(1, source.ip()), (2, destination.ip())] {
            match address {
                IpAddr::V4(address) => message.attribute(kind, &address.octets()),
                IpAddr::V6(address) => message.attribute(kind + 2, &address.octets()),
            }
        }
    });
    message.nested(2, |message| {
        message.attribute(1, &[protocol.number()]);
        message.attribute(2, &source.port().to_be_bytes());
        message.attribute(3, &destination.port().to_be_bytes());
    });
}

/// The ports of the clients that the kernel remembers.
fn remembered() -> BTreeSet<u16> {
    let table = std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap();
    let port = |line: &str| line.split_once(" sport=")?.1.split(' ').next()?.parse().ok();
    table.lines().map(|line| port(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// For each family, its VIP, another VIP, an endpoint, one that is gone, and a client.
const ADDRESSES: [(Family, [&str; 5]); 2] = [
    (Family::Ipv4, ["10.96.0.1", "10.96.0.2", "10.1.0.1", "10.1.0.2", "10.244.0.1"]),
    (Family::Ipv6, ["fd00:96::1", "fd00:96::2", "fd00:1::1", "fd00:1::2", "fd00:244::1"]),
];

/// Flows as words, and whether they stay: protocol, VIP (`vip` or `other`), port, where it leads (`live`, `gone`, `vip`) and
/// its port, and perhaps how it is special.
const TABLE: &[(&str, bool)] = &[
    ("udp vip 53 live 5353", true),
    ("udp vip 53 live 5353 masqueraded", true),
    ("udp vip 53 gone 5353", false),
    ("udp vip 53 gone 5353 masqueraded", false),
    ("udp vip 53 live 5354", false),
    ("udp vip 53 vip 53", false),
    ("udp vip 54 gone 5353", true),
    ("udp vip 54 vip 54", true),
    ("udp other 53 gone 5353", true),
    ("udp live 53 gone 5353", true),
    ("tcp vip 53 gone 5353", true),
    ("tcp vip 53 vip 53", true),
    ("sctp vip 53 gone 5353", true),
    ("sctp vip 99 live 5399", true),
    ("sctp vip 99 gone 5399", false),
    ("sctp vip 99 vip 99", false),
    ("sctp vip 98 vip 98", true),
    // Of this frontend no destination is left.
    ("udp vip 55 live 5353", false),
    ("udp vip 55 vip 55", false),
];

fn exactly_the_stale_ones() {
    judge(0);
}

fn so_it_is_with_many_frontends() {
    judge(100);
}

/// Judges the table, with so many more frontends.
fn judge(more: u16) {
    for (family, addresses) in ADDRESSES {
        let at = |protocol, port| AddressPort { address: ip(addresses[0]), protocol, port };
        let to = |port| BTreeSet::from([DestinationKey { address: ip(addresses[2]), port }]);
        let mut kept = Kept::from([
            (at(Protocol::Udp, 53), to(5353)),
            (at(Protocol::Udp, 55), BTreeSet::new()),
            (at(Protocol::Sctp, 99), to(5399)),
            (at(Protocol::Sctp, 100), BTreeSet::new()),
        ]);
        kept.extend((0..more).map(|number| (at(Protocol::Udp, 1000 + number), BTreeSet::new())));
        let before = remembered();
        let ports = if family == Family::Ipv4 { 1.. } else { 101.. };
        let entries = TABLE.iter().zip(ports.clone()).map(|((words, _), port)| entry(words, addresses, port));
        insert(&entries.collect::<Vec<_>>());
        let forgotten = Conntrack::open().forget(family, &kept);
        assert!(forgotten.failure.is_none(), "{forgotten:?}");
        let left = remembered();
        for ((words, stays), port) in TABLE.iter().zip(ports) {
            assert_eq!(left.contains(&port), *stays, "{family:?} {words}");
        }
        assert_eq!(forgotten.flows, TABLE.iter().filter(|(_, stays)| !stays).count());
        assert!(left.is_superset(&before), "those of the other family are not touched");
    }
}

/// The entry of a line of the table, with a client's port.
fn entry(words: &str, addresses: [&str; 5], port: u16) -> Inserted {
    let words: Vec<&str> = words.split(' ').collect();
    let address = |word| ip(addresses[["vip", "other", "live", "gone"].iter().position(|one| *one == word).unwrap()]);
    let protocol = Protocol::from_name(&words[0].to_uppercase()).unwrap();
    let frontend = AddressPort { address: address(words[1]), protocol, port: words[2].parse().unwrap() };
    let destination = DestinationKey { address: address(words[3]), port: words[4].parse().unwrap() };
    let client = SocketAddr::from((ip(addresses[4]), port));
    let is_masqueraded = words.get(5) == Some(&"masqueraded");
    let answered_to = if is_masqueraded { (address("other"), port).into() } else { client };
    Inserted { flow: Flow { client, frontend, destination }, answered_to }
}

fn thousands_in_a_few_sends() {
    for (count, dumps) in [(5, 5), (20, 1)] {
        let frontends = (0..count).map(|number| {
            let port = 1000 + number;
            AddressPort { address: ip("10.96.0.1"), protocol: Protocol::Udp, port }
        });
        let to = |last: u16| DestinationKey { address: ip(&format!("10.1.0.{last}")), port: 53 };
        let entries = (1..=10_000).zip(frontends.clone().cycle()).map(|(port, frontend)| {
            let client = SocketAddr::from((ip("10.244.0.1"), port));
            Inserted { flow: Flow { client, frontend, destination: to(port % 2) }, answered_to: client }
        });
        insert(&entries.collect::<Vec<_>>());
        let kept = |destinations: &BTreeSet<_>| frontends.clone().map(|of| (of, destinations.clone())).collect();
        let mut conntrack = Conntrack::open();
        let forgotten = conntrack.forget(Family::Ipv4, &kept(&[to(0)].into()));
        let sends = conntrack.counters().sends;
        println!("    {count} frontends: 5,000 of 10,000 flows in {:?}, {sends} sends", forgotten.took);
        assert_eq!((forgotten.flows, forgotten.failure.is_none()), (5_000, true));
        assert!(remembered().iter().all(|port| port % 2 == 0));
        assert!(sends <= dumps + 20, "{sends}");
        assert_eq!(conntrack.forget(Family::Ipv4, &kept(&BTreeSet::new())).flows, 5_000);
    }
}

fn without_any_entry() {
    let frontend = AddressPort { address: ip("10.96.0.1"), protocol: Protocol::Udp, port: 53 };
    let forgotten = Conntrack::open().forget(Family::Ipv4, &Kept::from([(frontend, BTreeSet::new())]));
    assert_eq!((forgotten.flows, forgotten.failure.is_none()), (0, true));
}

/// Only in the lab: it takes a module away from the whole kernel.
fn without_the_module() {
    if !is_set("IPVSD_IN_LAB") {
        return;
    }
    let loader = "/proc/sys/kernel/modprobe";
    let usual = std::fs::read_to_string(loader).unwrap();
    std::fs::write(loader, "/bin/false").unwrap();
    run("rmmod", &["nf_conntrack_netlink"]);
    let frontend = AddressPort { address: ip("10.96.0.1"), protocol: Protocol::Udp, port: 53 };
    let kept = Kept::from([(frontend, BTreeSet::new())]);
    let mut conntrack = Conntrack::open();
    let without = conntrack.forget(Family::Ipv4, &kept).failure;
    std::fs::write(loader, usual.trim()).unwrap();
    run("modprobe", &["nf_conntrack_netlink"]);
    assert!(matches!(without, Some(FlowsError::Unavailable)), "{without:?}");
    assert!(conntrack.forget(Family::Ipv4, &kept).failure.is_none(), "it is there again");
}
