//! Opens listening sockets, with the choices that Go's `net.Listen` makes for kube-proxy.

use nix::errno::Errno;
use nix::sys::socket::sockopt::{Ipv6V6Only, ReuseAddr};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
};
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use tokio::net::TcpListener;

/// Listens at `address`; an unspecified address, of either family, means every address of both families, as far as
/// the machine has them.
///
/// # Errors
/// What the kernel says.
pub fn everywhere_or_at(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_unspecified() {
        return at(address);
    }
    let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port()));
    match open(everywhere, false) {
        // Switched off with the kernel's parameter `ipv6.disable=1`.
        Err(Errno::EAFNOSUPPORT) => at(SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, address.port()))),
        opened => Ok(opened?),
    }
}

/// Listens at `address`, in its family only.
///
/// # Errors
/// What the kernel says.
pub fn at(address: SocketAddr) -> io::Result<TcpListener> {
    Ok(open(address, true)?)
}

fn open(address: SocketAddr, one_family: bool) -> Result<TcpListener, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, SockProtocol::Tcp)?;
    if address.is_ipv6() {
        setsockopt(&socket, Ipv6V6Only, &one_family)?;
    }
    // Connections of a process before this one may still be closing.
    setsockopt(&socket, ReuseAddr, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&socket, Backlog::MAXCONN)?;
    let listener = TcpListener::from_std(std::net::TcpListener::from(socket));
    listener.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))
}
