//! The socket by which a daemon is asked why: HTTP on a Unix socket with an abstract name, for root alone.
//!
//! An abstract name belongs to a network namespace, as virtual servers do: who asks in a namespace finds the daemon of
//! that namespace, from the host as from a container in the host's network, without a file system that both can write. It
//! is free again when its daemon is gone, however that went, and cannot be taken from a living one. It has no mode, so
//! each client is asked who it is (`SO_PEERCRED`).

use super::answer::error;
use super::http::{ACCEPT_PAUSE, Connections, Handler, Limits, at_once, converse};
use http::StatusCode;
use nix::unistd::geteuid;
use std::convert::Infallible;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as Bound};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The socket's abstract name; `ss -xl` shows it with an at sign.
pub const NAME: &str = "ipvsd/inspection";

/// Heads of requests come at once; whoever reads the largest answer slowly gets half a minute. So many scripts may ask at
/// one time without cutting each other off.
const LIMITS: Limits = Limits {
    connections: 32,
    head: Duration::from_secs(5),
    body: Duration::from_secs(5),
    life: Duration::from_secs(30),
};

/// Strangers take no place from those who may ask.
const STRANGERS: Limits = Limits { connections: 8, ..LIMITS };

/// Has an abstract name, so that whoever asks there waits in line until [`serve`] answers. The kernel gives it to one
/// process alone; it is free when what is returned is dropped, or the process gone.
///
/// # Errors
/// Somebody has the name (`AddrInUse`), or there can be no socket.
pub fn bind(name: &str) -> io::Result<Bound> {
    let listener = Bound::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Whether a user may ask, and be believed: root, and whoever this process runs as.
pub fn is_trusted(user: u32) -> bool {
    user == 0 || user == geteuid().as_raw()
}

/// Serves until the future is dropped, from when on the name can be had.
///
/// # Errors
/// The runtime cannot wait for this socket.
pub async fn serve(listener: Bound, handler: Handler) -> io::Result<Infallible> {
    let listener = UnixListener::from_std(listener)?;
    let trusted = (handler, Connections::within(LIMITS));
    // An answer that comes before its request is none to many clients, so they are heard too.
    let refusal = at_once(|_| error(StatusCode::FORBIDDEN, "only root may ask"));
    let strangers = (refusal, Connections::within(STRANGERS));
    let mut tasks = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                while tasks.try_join_next().is_some() {}
                let (handler, connections) = if is_trusted_peer(&stream) { &trusted } else { &strangers };
                connections.add(tasks.spawn(converse(stream, Arc::clone(handler), connections.limits())));
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

fn is_trusted_peer(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| is_trusted(peer.uid()))
}
