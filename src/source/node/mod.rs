//! This node's addresses: reads them from the kernel, and waits until they may have changed.
//!
//! What the messages mean is decided in [`facts`], which is pure. Route changes are not subscribed to: every VIP of
//! ours is a route, and at start thousands of notices would wake us for nothing. A new default route nearly always
//! comes with an address, and is otherwise seen at the next look, half a minute later at most.

pub mod facts;
mod name;

pub use name::host_name;

use crate::state::Node;
use facts::Dumps;
use futures_util::StreamExt;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::{RouteHeader, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use rtnetlink::{Handle, MulticastGroup};
use std::time::Duration;
use std::{fmt, io};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Changes come in bursts (a link comes up, then its addresses): one reading for all of a burst.
const SETTLE: Duration = Duration::from_millis(50);
/// Without any notice, the facts are looked at again this often, for the sake of default routes.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// A dump takes milliseconds, but rtnetlink waits for ever for an answer that was lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// Readings that something else changed meanwhile, before we give up until later.
const ATTEMPTS: usize = 10;

/// Why the node's facts could not be read.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The socket could not be opened or read.
    #[error("the netlink socket failed")]
    Io(#[from] io::Error),
    /// The kernel refused a request.
    #[error("the kernel refused to list its {what}: {errno}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        errno: Errno,
    },
    /// The answer did not come, or not to its end.
    #[error("the kernel did not finish listing its {what}")]
    Unfinished {
        /// What was asked for.
        what: &'static str,
    },
    /// The table changed during every attempt to read it (`NLM_F_DUMP_INTR`).
    #[error("the kernel's {what} kept changing while they were read")]
    Inconsistent {
        /// What was asked for.
        what: &'static str,
    },
}

/// The node's facts and the wait for their change, in the network namespace of the thread that opened it.
pub struct NodeWatch {
    /// Subscribed to links and addresses. What a notice says is ignored, that there is one counts.
    notices: TokioSocket,
    /// A notice has been received that no call of [`NodeWatch::changed`] has reported; such a call may be dropped
    /// half way.
    unreported: bool,
    /// When the facts are looked at again without a notice.
    look_again: Instant,
}

impl NodeWatch {
    /// Subscribes, so that a change after the first reading is not missed. Async, as it needs a tokio runtime with I/O
    /// and time.
    ///
    /// # Errors
    /// If the kernel gives no netlink socket.
    pub async fn open() -> Result<Self, NodeError> {
        let mut notices = TokioSocket::new(NETLINK_ROUTE)?;
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let mask = groups.into_iter().fold(0, |mask, group| mask | 1 << (group as u32 - 1));
        notices.socket_mut().bind(&SocketAddr::new(0, mask))?;
        Ok(Self { notices, unreported: false, look_again: Instant::now() + LOOK_AGAIN })
    }

    /// Reads the facts.
    ///
    /// # Errors
    /// Any failure to read all of them: half a reading would be a node without addresses.
    pub async fn read(&self) -> Result<Node, NodeError> {
        // Opened anew each time: a handle that once missed an answer would hang for ever.
        let (mut connection, handle, _unsolicited) = rtnetlink::new_connection_with_strict_check()?;
        connection.set_forward_done(true);
        let connection = tokio::spawn(connection);
        let dumps = dump_all(&handle).await;
        connection.abort();
        Ok(facts::of(&dumps?))
    }

    /// Returns when the facts may have changed since the last return. It may be dropped and called again at any time.
    pub async fn changed(&mut self) {
        if !self.unreported {
            // At the latest without a notice.
            let _noticed = timeout_at(self.look_again, notice(&self.notices)).await;
            self.unreported = true;
        }
        sleep(SETTLE).await;
        while timeout(Duration::ZERO, notice(&self.notices)).await.is_ok() {}
        self.unreported = false;
        self.look_again = Instant::now() + LOOK_AGAIN;
    }
}

impl fmt::Debug for NodeWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeWatch").field("unreported", &self.unreported).finish_non_exhaustive()
    }
}

/// Takes one datagram off the socket, without a look at it: one that is longer than the buffer is as good, and so is
/// the news that some were lost. Of a socket that fails nothing more is heard.
async fn notice(notices: &TokioSocket) {
    let mut start = [0_u8; 64];
    match notices.recv(&mut &mut start[..]).await {
        Err(error) if error.raw_os_error() != Some(Errno::ENOBUFS as i32) => std::future::pending().await,
        _ => {}
    }
}

async fn dump_all(handle: &Handle) -> Result<Dumps, NodeError> {
    Ok(Dumps {
        links: dump(handle, "links", RouteNetlinkMessage::GetLink(LinkMessage::default()), link).await?,
        addresses: dump(handle, "addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default()), address)
            .await?,
        routes_ipv4: routes(handle, "IPv4 routes", AddressFamily::Inet).await?,
        routes_ipv6: routes(handle, "IPv6 routes", AddressFamily::Inet6).await?,
    })
}

/// The main table only: the kernel leaves out the local table, where thousands of VIPs are.
async fn routes(handle: &Handle, what: &'static str, family: AddressFamily) -> Result<Vec<RouteMessage>, NodeError> {
    let mut request = RouteMessage::default();
    request.header.address_family = family;
    request.header.table = RouteHeader::RT_TABLE_MAIN;
    match dump(handle, what, RouteNetlinkMessage::GetRoute(request), route).await {
        // The table of a family comes with its first route, and IPv6 may be switched off.
        Err(NodeError::Refused { errno: Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT, .. }) => Ok(vec![]),
        outcome => outcome,
    }
}

fn link(message: RouteNetlinkMessage) -> Option<LinkMessage> {
    if let RouteNetlinkMessage::NewLink(link) = message { Some(link) } else { None }
}

fn address(message: RouteNetlinkMessage) -> Option<AddressMessage> {
    if let RouteNetlinkMessage::NewAddress(address) = message { Some(address) } else { None }
}

fn route(message: RouteNetlinkMessage) -> Option<RouteMessage> {
    if let RouteNetlinkMessage::NewRoute(route) = message { Some(route) } else { None }
}

/// One table, read again if it changed meanwhile.
async fn dump<T>(
    handle: &Handle,
    what: &'static str,
    request: RouteNetlinkMessage,
    pick: fn(RouteNetlinkMessage) -> Option<T>,
) -> Result<Vec<T>, NodeError> {
    for _ in 0..ATTEMPTS {
        let answer = timeout(PATIENCE, dump_once(handle.clone(), what, request.clone())).await;
        if let Some(messages) = answer.map_err(|_| NodeError::Unfinished { what })?? {
            return Ok(messages.into_iter().filter_map(pick).collect());
        }
    }
    Err(NodeError::Inconsistent { what })
}

/// One table, or nothing if it changed while it was read.
async fn dump_once(
    mut handle: Handle,
    what: &'static str,
    request: RouteNetlinkMessage,
) -> Result<Option<Vec<RouteNetlinkMessage>>, NodeError> {
    let mut request = NetlinkMessage::from(request);
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut answers = handle.request(request).map_err(|_| NodeError::Unfinished { what })?;
    let mut interrupted = false;
    let mut messages = Vec::new();
    while let Some(answer) = answers.next().await {
        interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => messages.push(message),
            NetlinkPayload::Done(done) if done.code == 0 => return Ok((!interrupted).then_some(messages)),
            NetlinkPayload::Done(done) => return Err(NodeError::Refused { what, errno: errno(done.code) }),
            NetlinkPayload::Error(error) => return Err(NodeError::Refused { what, errno: errno(error.raw_code()) }),
            _ => break,
        }
    }
    Err(NodeError::Unfinished { what })
}

/// Netlink gives error numbers negated.
fn errno(code: i32) -> Errno {
    Errno::from_raw(code.saturating_neg())
}
