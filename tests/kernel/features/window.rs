//! A server that sends packets out of the window of its connection, as hosts behind lossy networks do: connection
//! tracking calls them invalid and translates none, and yet no connection may end by them.

use super::objects::{balanced, put, rig, slice, target};
use crate::golden_rig::{FAMILIES, From, GoldenRig, To};
use crate::lab::{run, trial};
use ipvsd::demo::client::Conversation;
use ipvsd::model::Family;
use libtest_mimic::Trial;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, sendto, socket,
};
use serde_json::json;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("features::a_connection_survives_packets_out_of_its_window", survives),
        trial("features::a_masqueraded_one_survives_them_where_conntrack_is_liberal", survives_masqueraded),
    ]
}

/// Where the server is that does it.
const PORT: u16 = 9100;

/// Without masquerading it is IPVS alone that turns packets back, and it asks connection tracking for nothing.
fn survives() {
    let rig = serving();
    let ways =
        [(1, From::Pod, To::ClusterIp), (2, From::External, To::LoadBalancer), (2, From::External, To::NodePort)];
    for (family, (number, from, to)) in FAMILIES.into_iter().flat_map(|family| ways.map(|way| (family, way))) {
        let Outcome { goes_on, invalid, resets } = disturb(&rig, family, from, target(&rig, number, to, family));
        assert!(goes_on && resets == 0, "{family} {from:?} {to:?} {resets}");
        assert_eq!(invalid, 2, "{family} {from:?} {to:?}: nothing was tried");
    }
}

/// What is masqueraded comes back to the node, which knows no such connection unless connection tracking translates it.
/// So it is in kube-proxy's iptables mode too, and `conntrack.tcpBeLiberal` is for it.
fn survives_masqueraded() {
    let rig = serving();
    let ways =
        [(1, From::External, To::LoadBalancer), (1, From::External, To::NodePort), (1, From::Node, To::ClusterIp)];
    for liberal in ["0", "1"] {
        rig.network.node.set(&[("net/netfilter/nf_conntrack_tcp_be_liberal", liberal)]).unwrap();
        for (family, (number, from, to)) in FAMILIES.into_iter().flat_map(|family| ways.map(|way| (family, way))) {
            let Outcome { goes_on, .. } = disturb(&rig, family, from, target(&rig, number, to, family));
            assert_eq!(goes_on, liberal == "1", "{family} {from:?} {to:?}");
        }
    }
}

/// The first Service with both policies `Cluster`, the second with an external one of `Local`.
fn serving() -> GoldenRig {
    let mut rig = rig();
    let of = |number, family| {
        let mut slice = slice(&rig, (number, "a"), family, "1:local");
        slice["ports"][0]["port"] = PORT.into();
        slice
    };
    rig.network.node.run(|| Ok(run("bash", &["-ec", COUNTING]))).unwrap();
    let slices: Vec<_> = FAMILIES.into_iter().flat_map(|family| [of(1, family), of(2, family)]).collect();
    let local = json!({"externalTrafficPolicy": "Local"});
    put(&mut rig, [vec![balanced(1, &json!({})), balanced(2, &local)], slices].concat());
    rig
}

/// What came of such packets.
struct Outcome {
    goes_on: bool,
    /// How many packets connection tracking took for invalid.
    invalid: u64,
    /// How many resets there were.
    resets: u64,
}

/// Has the server send such packets on a connection that is to go on.
fn disturb(rig: &GoldenRig, family: Family, from: From, target: SocketAddr) -> Outcome {
    let server = &rig.network.backends[0].namespace;
    let (listener, raw) = server.run(|| Ok((TcpListener::bind(("::", PORT))?, raw_socket(family)))).unwrap();
    let (invalid, resets) = counted(rig, family);
    let mut client = rig.namespace(from).run(|| Ok(Conversation::start(target)?)).unwrap();
    let (stream, _) = listener.accept().unwrap();
    assert_eq!(echo(&mut client, &stream).unwrap(), "server");
    let (own, peer) = (canonical(stream.local_addr().unwrap()), canonical(stream.peer_addr().unwrap()));
    let now = numbers_now(&raw, family);
    // Ahead of the window. What is behind it, newer kernels take for a late copy and let pass.
    for sequence in [1 << 29, 1 << 30].map(|ahead| now.sequence.wrapping_add(ahead)) {
        let segment = segment(own, peer, Numbers { sequence, ..now });
        // The port of a raw socket's address must be none.
        let to = SockaddrStorage::from(SocketAddr::new(peer.ip(), 0));
        sendto(raw.as_raw_fd(), &segment, &to, MsgFlags::empty()).unwrap();
    }
    let goes_on = (0..2).all(|_| echo(&mut client, &stream).is_ok());
    let (invalid_now, resets_now) = counted(rig, family);
    Outcome { goes_on, invalid: invalid_now - invalid, resets: resets_now - resets }
}

/// The client says a line, and the server answers.
fn echo(client: &mut Conversation, stream: &TcpStream) -> io::Result<String> {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut line = String::new();
            let _length = BufReader::new(stream).read_line(&mut line)?;
            let mut stream = stream;
            stream.write_all(format!("server {line}").as_bytes())
        });
        client.say("hello")
    })
}

/// Rules of the test's own, which let everything pass and count.
const COUNTING: &str = "for program in iptables ip6tables; do
    for chain in PREROUTING OUTPUT; do $program -t raw -A $chain -p tcp --tcp-flags RST RST; done
    for chain in INPUT FORWARD; do $program -t mangle -A $chain -p tcp -m conntrack --ctstate INVALID; done
done";

/// How many packets of each kind there were so far.
fn counted(rig: &GoldenRig, family: Family) -> (u64, u64) {
    let program = if family == Family::Ipv4 { "iptables-save" } else { "ip6tables-save" };
    let saved = rig.network.node.run(|| Ok(run(program, &["-c"]))).unwrap();
    let sum = |end: &str| {
        let lines = saved.lines().filter(|line| line.ends_with(end));
        lines.map(|line| line[1..].split(':').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    (sum("--ctstate INVALID"), sum("--tcp-flags RST RST"))
}

/// Where a connection is, as its server sends it.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    sequence: u32,
    acknowledgement: u32,
}

/// Sends segments of the test's making, and hears all that come.
fn raw_socket(family: Family) -> OwnedFd {
    let family = if family == Family::Ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    socket(family, SockType::Raw, SockFlag::SOCK_NONBLOCK, SockProtocol::Tcp).unwrap()
}

/// From the last segment that the client sent.
fn numbers_now(raw: &OwnedFd, family: Family) -> Numbers {
    let mut last = None;
    let mut packet = [0; 2000];
    while let Ok(length) = recv(raw.as_raw_fd(), &mut packet, MsgFlags::empty()) {
        // IPv4 comes with its header, IPv6 without (raw(7), ipv6(7)).
        let header = if family == Family::Ipv4 { usize::from(packet[0] & 0xf) * 4 } else { 0 };
        let segment = &packet[header..length];
        if segment[2..4] == PORT.to_be_bytes() {
            let number = |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().unwrap());
            let payload = segment.len() - usize::from(segment[12] >> 4) * 4;
            let acknowledgement = number(4).wrapping_add(u32::try_from(payload).unwrap());
            last = Some(Numbers { sequence: number(8), acknowledgement });
        }
    }
    last.unwrap()
}

/// A TCP segment of one byte (RFC 9293, section 3.1).
fn segment(own: SocketAddr, peer: SocketAddr, Numbers { sequence, acknowledgement }: Numbers) -> Vec<u8> {
    const ACK_PSH: u8 = 0x18;
    let with_checksum = |sum: u16| {
        let mut segment = [own.port().to_be_bytes(), peer.port().to_be_bytes()].concat();
        segment.extend([sequence.to_be_bytes(), acknowledgement.to_be_bytes()].concat());
        // Twenty bytes of header, a window, the checksum, nothing urgent.
        segment.extend([5 << 4, ACK_PSH, 2, 0]);
        segment.extend(sum.to_be_bytes());
        segment.extend([0, 0, b'x']);
        segment
    };
    let unsummed = with_checksum(0);
    let length = u8::try_from(unsummed.len()).unwrap();
    with_checksum(checksum(&[octets(own.ip()), octets(peer.ip()), vec![0, 6, 0, length], unsummed].concat()))
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let sum: u32 = words.sum();
    let folded = (sum >> 16) + (sum & 0xffff);
    !u16::try_from((folded >> 16) + (folded & 0xffff)).unwrap()
}
