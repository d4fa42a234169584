//! Sockets as the demo's two ends need them: of three protocols, dual-stack to listen, with timeouts to connect.
//!
//! Std has no SCTP and cannot choose a connection's source port. SCTP's one-to-one style (RFC 6458, section 4) has the
//! system calls of TCP, so std's TCP types serve both once the socket exists.

use crate::model::Protocol;
use nix::sys::socket::sockopt::{Ipv6V6Only, ReceiveTimeout, ReuseAddr, SendTimeout};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, listen, setsockopt,
    socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

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

/// A socket connected to `target`, from `source` if given (port 0: any). Connecting, sending and receiving each take
/// `patience` at most.
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
    if let Some(source) = source {
        setsockopt(&socket, ReuseAddr, &true)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(source))?;
    }
    connect(socket.as_raw_fd(), &SockaddrStorage::from(target))?;
    Ok(socket)
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
