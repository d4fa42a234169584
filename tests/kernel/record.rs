//! Records what Linux and ipvsadm really send, for tests/wire. No test, so it is in the list only when asked for:
//!
//! `IPVSD_RECORD=1 ./dev test record` writes tests/fixtures/netlink.txt anew, one datagram a line: a name, ` = `, its
//! bytes.

use crate::contract::{apply, destination, ip, scheduled, tcp};
use crate::flow_table::{Inserted, insert};
use crate::lab::{is_set, run, trial};
use ipvsd::kernel::conntrack::{self, Filter};
use ipvsd::kernel::ipvs::encode::Encoder;
use ipvsd::kernel::linux::Linux;
use ipvsd::kernel::netlink::socket::RECEIVE_BUFFER;
use ipvsd::kernel::netlink::{Batch, Socket, decode, family};
use ipvsd::kernel::{device, route};
use ipvsd::model::netfilter::AddressPort;
use ipvsd::model::{DestinationSpec, Family, Flow, Op, Protocol, RouteSpec, VirtualServerKey};
use libtest_mimic::Trial;
use neli::consts::socket::{Msg, NlFamily};
use neli::socket::NlSocket;
use neli::utils::Groups;
use netlink_packet_core::{NLM_F_DUMP, NLMSG_DONE, NLMSG_ERROR};
use std::fmt::Write;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/netlink.txt");

/// What is run, recorded, and left in the table for the dumps.
const IPVSADM: &str = "\
-A -t 10.0.0.1:80 -s sh -b sh-fallback,sh-port -p 10800 -M 255.255.255.0
-a -t 10.0.0.1:80 -r 10.1.0.1:8080 -m -w 5 -x 100 -y 50
-a -t 10.0.0.1:80 -r 10.1.0.2:80 -i -w 0
-A -t 10.96.0.1:80 -s wrr
-A -t [fd00::1]:80 -s wrr -p 60 -M 64
-a -t [fd00::1]:80 -r [fd00::2]:81 -g -w 1
-A -t 10.0.0.9:80 -s wlc
-E -t 10.0.0.9:80 -s rr
-a -t 10.0.0.9:80 -r 10.1.0.1:80 -m -w 1
-e -t 10.0.0.9:80 -r 10.1.0.1:80 -m -w 7
-d -t 10.0.0.9:80 -r 10.1.0.1:80
-D -t 10.0.0.9:80
-A -u 10.0.0.1:53 -s rr -o
-A --sctp-service 10.0.0.1:9999 -s mh -b mh-port
-A -f 7 -s lc
-A -f 8 -6 -s rr
-a -f 8 -6 -r [fd00::3]:0 -m -w 2
--set 901 121 301
";

pub fn trials() -> Vec<Trial> {
    if !is_set("IPVSD_RECORD") {
        return Vec::new();
    }
    vec![trial("record", || std::fs::write(FILE, record()).unwrap())]
}

fn record() -> String {
    let mut lines = String::new();
    for line in IPVSADM.lines() {
        writeln!(lines, "ipvsadm {line} = {}", hex(&request_of_ipvsadm(line))).unwrap();
    }
    let _connections = make_connections();
    let mut socket = Socket::open(NlFamily::Generic, RECEIVE_BUFFER).unwrap();
    let ipvs = Encoder { family: family::look_up(&mut socket, "IPVS").unwrap() };
    let mut add = |name: &str, family: NlFamily, encode: &dyn Fn(&mut Batch)| {
        for datagram in answers(family, encode) {
            writeln!(lines, "{name} = {}", hex(&datagram)).unwrap();
        }
    };
    let of = |batch: &mut Batch, key: VirtualServerKey| ipvs.destinations(batch, NLM_F_DUMP, key.into());
    let mark = VirtualServerKey::Mark { mark: 8, family: Family::Ipv6 };
    let gone = Op::RemoveVirtualServer(tcp("10.0.0.9", 80));
    add("info", NlFamily::Generic, &|batch| ipvs.info(batch));
    add("services", NlFamily::Generic, &|batch| ipvs.services(batch, NLM_F_DUMP));
    add("destinations of 10.0.0.1:80", NlFamily::Generic, &|batch| of(batch, tcp("10.0.0.1", 80)));
    add("destinations of [fd00::1]:80", NlFamily::Generic, &|batch| of(batch, tcp("fd00::1", 80)));
    add("destinations of mark 8", NlFamily::Generic, &|batch| of(batch, mark));
    add("destinations of 10.96.0.2:80", NlFamily::Generic, &|batch| of(batch, tcp("10.96.0.2", 80)));
    add("destinations of nothing", NlFamily::Generic, &|batch| of(batch, tcp("10.0.0.99", 80)));
    add("service 10.0.0.1:80", NlFamily::Generic, &|batch| ipvs.service(batch, tcp("10.0.0.1", 80)));
    add("refused", NlFamily::Generic, &|batch| ipvs.operation(batch, &gone));
    add("routes of IPv4", NlFamily::Route, &|batch| route::routes(batch, NLM_F_DUMP, Family::Ipv4));
    add("routes of IPv6", NlFamily::Route, &|batch| route::routes(batch, NLM_F_DUMP, Family::Ipv6));
    add("timeouts", NlFamily::Generic, &|batch| ipvs.timeouts(batch));
    let device = make_device();
    add("kube-proxy's device", NlFamily::Route, &device::link);
    for (name, family) in [("IPv4", Family::Ipv4), ("IPv6", Family::Ipv6)] {
        let addresses = |batch: &mut Batch| device::addresses(batch, NLM_F_DUMP, (family, device));
        add(&format!("{name} addresses on it"), NlFamily::Route, &addresses);
    }
    make_flows();
    let dns = AddressPort { address: ip("10.96.0.2"), protocol: Protocol::Udp, port: 53 };
    for (name, asked) in [
        ("flows of IPv4", (Family::Ipv4, Filter::Nothing)),
        ("flows of IPv6", (Family::Ipv6, Filter::Nothing)),
        ("flows of SCTP", (Family::Ipv4, Filter::Protocol(Protocol::Sctp))),
        ("flows to 10.96.0.2:53", (Family::Ipv4, Filter::Frontend(dns))),
    ] {
        add(name, NlFamily::Netfilter, &|batch| conntrack::encode::list(batch, NLM_F_DUMP, asked));
    }
    lines
}

/// kube-proxy's device with an address of each family; returns its number.
fn make_device() -> u32 {
    run("ip", &["link", "add", "kube-ipvs0", "index", "7", "type", "dummy"]);
    run("ip", &["address", "add", "10.96.0.2/32", "dev", "kube-ipvs0"]);
    run("ip", &["address", "add", "fd00:96::2/128", "dev", "kube-ipvs0", "nodad"]);
    7
}

/// Flows to two ports of UDP and to one of SCTP, in both families.
fn make_flows() {
    let of = |(protocol, port, client): (_, u16, u16), [vip, real, from]: [&str; 3]| {
        let flow = Flow {
            client: (ip(from), client).into(),
            frontend: AddressPort { address: ip(vip), protocol, port },
            destination: destination(real, port + 1),
        };
        Inserted { flow, answered_to: flow.client }
    };
    for addresses in [["10.96.0.2", "10.1.0.1", "10.244.0.1"], ["fd00:96::2", "fd00:1::1", "fd00:244::1"]] {
        let flows = [(Protocol::Udp, 53, 4000), (Protocol::Udp, 54, 4001), (Protocol::Sctp, 99, 4002)];
        insert(&flows.map(|flow| of(flow, addresses)));
    }
}

/// The request that ipvsadm sends for its arguments: the last buffer that it sends.
fn request_of_ipvsadm(arguments: &str) -> Vec<u8> {
    let strace = ["-e", "trace=sendmsg", "-e", "write=all", "-o", "/run/strace", "ipvsadm"];
    run("strace", &strace.into_iter().chain(arguments.split(' ')).collect::<Vec<_>>());
    let mut bytes = Vec::new();
    for line in std::fs::read_to_string("/run/strace").unwrap().lines() {
        // ` | 00010  01 01 00 00 54 00 01 80  06 00 01 00 02 00 00 00  ....T........... |`
        let Some(dump) = line.strip_prefix(" | ") else { continue };
        if dump.starts_with("00000 ") {
            bytes.clear();
        }
        let numbers = dump.get(5..55).unwrap().split_whitespace();
        bytes.extend(numbers.map(|number| u8::from_str_radix(number, 16).unwrap()));
    }
    bytes
}

/// A virtual server and routes of ours, two connections through it, and the time that the kernel needs to count them.
fn make_connections() -> (TcpListener, [TcpStream; 2]) {
    run("ip", &["address", "add", "192.168.7.1/32", "dev", "lo"]);
    let key = tcp("10.96.0.2", 80);
    let source = RouteSpec { preferred_source: Some(ip("192.168.7.1")) };
    apply(
        &mut Linux::open().unwrap(),
        &[
            Op::AddVirtualServer(key, scheduled("rr")),
            Op::AddDestination(key, destination("192.168.7.1", 8080), DestinationSpec::masquerading(1)),
            Op::AddRoute(ip("10.96.0.2"), source),
            Op::AddRoute(ip("fd00:96::1"), RouteSpec::default()),
        ],
    );
    let backend = TcpListener::bind("192.168.7.1:8080").unwrap();
    let clients = [(); 2].map(|()| TcpStream::connect("10.96.0.2:80").unwrap());
    std::thread::sleep(Duration::from_secs(5));
    (backend, clients)
}

/// The datagrams that answer a request.
fn answers(family: NlFamily, encode: &dyn Fn(&mut Batch)) -> Vec<Vec<u8>> {
    let socket = NlSocket::connect(family, None, Groups::empty()).unwrap();
    let mut batch = Batch::new(1);
    encode(&mut batch);
    if decode::messages(batch.bytes()).all(|message| message.unwrap().flags & NLM_F_DUMP == 0) {
        batch.acknowledge_last();
    }
    socket.send(batch.bytes(), Msg::empty()).unwrap();
    let mut datagrams = Vec::new();
    loop {
        let mut buffer = vec![0; 65_536];
        let (length, _) = socket.recv(&mut buffer, Msg::empty()).unwrap();
        buffer.truncate(length);
        let ends = |kind| kind == NLMSG_DONE || kind == NLMSG_ERROR;
        let last = decode::messages(&buffer).any(|message| ends(message.unwrap().kind));
        datagrams.push(buffer);
        if last {
            return datagrams;
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
