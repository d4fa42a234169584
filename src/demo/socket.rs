//! Sockets as the demo's two ends need them: of three protocols, dual-stack to listen, with timeouts to connect.
//!
//! Std has no SCTP and cannot choose a connection's source port. SCTP's one-to-one style (RFC 6458, section 4) has the
//! system calls of TCP, so std's TCP types serve both once the socket exists.

use crate::model::Protocol;
use nix::errno::Errno;
use nix::sys::socket::sockopt::{Ipv6V6Only, ReceiveTimeout, ReuseAddr, SendTimeout};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, listen, setsockopt,
    socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// Ports to ask from: below node ports and those that the kernel chooses, above those of daemons. A power of two, so
/// that a count that overflows goes on in turn.
const FRESH_PORTS: Range<u16> = 12_000..12_000 + 16_384;

/// A socket on this port of all addresses of both families, not blocking; it listens unless it is UDP.
///
/// # Errors
/// What the kernel says.
pub fn serve(protocol: Protocol, port: u16) -> io::Result<OwnedFd> {
    let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let socket = new(protocol, everywhere, SockFlag::SOCK_NONBLOCK)?;
    setsockopt(&socket, Ipv6V6Only, &false)?;
    setsockopt(&socket, ReuseAddr, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(everywhere))?;
    if protocol != Protocol::Udp {
        listen(&socket, Backlog::MAXCONN)?;
    }
    Ok(socket)
}

/// A socket connected to `target`, from `source` if given. Without one, or with port 0, it has a port that no earlier
/// one of this process had. Connecting, sending and receiving each take `patience` at most.
///
/// # Errors
/// What the kernel says: `ConnectionRefused` at once where nobody listens, `EINPROGRESS` when connecting took too long.
pub fn connected(
    protocol: Protocol,
    target: SocketAddr,
    source: Option<SocketAddr>,
    patience: Duration,
) -> io::Result<OwnedFd> {
    let socket = new(protocol, target, SockFlag::empty())?;
    let patience = TimeVal::milliseconds(i64::try_from(patience.as_millis()).unwrap_or(i64::MAX));
    setsockopt(&socket, SendTimeout, &patience)?;
    setsockopt(&socket, ReceiveTimeout, &patience)?;
    setsockopt(&socket, ReuseAddr, &true)?;
    match source {
        Some(source) if source.port() != 0 => bind(socket.as_raw_fd(), &SockaddrStorage::from(source))?,
        _ => bind_afresh(&socket, source.map_or_else(|| everywhere_like(target), |source| source.ip()))?,
    }
    connect(socket.as_raw_fd(), &SockaddrStorage::from(target))?;
    Ok(socket)
}

/// Binds to this address and the next port that nobody has.
///
/// The kernel's choice is by chance. A port that had a connection minutes ago leads a new one astray: IPVS and conntrack
/// keep a UDP flow where it was, lose the first packet of an SCTP association (`conn_reuse_mode`), and a TCP backend may
/// remember the port from a connection to another frontend. So a scheduler's turns would not come out even.
fn bind_afresh(socket: &OwnedFd, address: IpAddr) -> io::Result<()> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in FRESH_PORTS {
        let port = FRESH_PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % (FRESH_PORTS.end - FRESH_PORTS.start);
        match bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from((address, port)))) {
            Err(Errno::EADDRINUSE) => {}
            bound => return Ok(bound?),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

fn everywhere_like(target: SocketAddr) -> IpAddr {
    if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn new(protocol: Protocol, address: SocketAddr, flags: SockFlag) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let (kind, protocol) = match protocol {
        Protocol::Tcp => (SockType::Stream, SockProtocol::Tcp),
        Protocol::Udp => (SockType::Datagram, SockProtocol::Udp),
        Protocol::Sctp => (SockType::Stream, SockProtocol::Sctp),
    };
    Ok(socket(family, kind, SockFlag::SOCK_CLOEXEC | flags, protocol)?)
}
