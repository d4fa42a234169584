//! The flows of this thread's network namespace: looks for those that are stale, and has them forgotten.

use super::search::{Dump, Search};
use super::{Entry, decode, encode};
use crate::kernel::netlink::socket::RECEIVE_BUFFER;
use crate::kernel::netlink::{Answer, Counters, Socket};
use crate::kernel::{Errno, FlowsError, Forgotten, ObserveError};
use crate::model::{Family, Kept};
use neli::consts::socket::NlFamily;
use std::time::Instant;

const FLOWS: &str = "flows";

/// A socket for flows. It stays in the network namespace of the thread that opened it.
pub struct Conntrack {
    /// None where the kernel has no nfnetlink.
    socket: Option<Socket>,
    search: Search,
}

impl Conntrack {
    /// Opens the socket; the kernel loads what it needs with the first request.
    pub fn open() -> Self {
        Self { socket: Socket::open(NlFamily::Netfilter, RECEIVE_BUFFER).ok(), search: Search::default() }
    }

    /// What the socket has cost so far.
    pub fn counters(&self) -> Counters {
        self.socket.as_ref().map(Socket::counters).unwrap_or_default()
    }

    /// Has the stale ones of these frontends' flows forgotten. The frontends are all of this family.
    pub fn forget(&mut self, family: Family, kept: &Kept) -> Forgotten {
        let start = Instant::now();
        let Self { socket, search } = self;
        let Some(socket) = socket else {
            return Forgotten { failure: Some(FlowsError::Unavailable), ..Forgotten::default() };
        };
        let (flows, failure) = match search.stale(kept, |dump| read(socket, family, dump)) {
            Ok(stale) => delete(socket, &stale),
            Err(error) => (0, Some(error)),
        };
        Forgotten { flows, took: start.elapsed(), failure }
    }
}

/// Reads the entries of a family that the kernel sends for a filter, and of those the ones that are asked for.
fn read(socket: &mut Socket, family: Family, dump: Dump<'_>) -> Result<Vec<Entry>, ObserveError> {
    let Dump { filter, is_asked_for } = dump;
    socket.dump(
        FLOWS,
        |batch, flags| encode::list(batch, flags, (family, filter)),
        |payload| Ok(decode::entry(payload)?.filter(|entry| is_asked_for(&entry.flow))),
    )
}

/// Deletes entries; returns how many were there, and the first failure.
fn delete(socket: &mut Socket, entries: &[Entry]) -> (usize, Option<FlowsError>) {
    let (mut gone, mut failure) = (entries.len(), None);
    socket.exchange(entries.iter().copied(), encode::delete, |_, answer| match answer {
        Answer::Data(_) => {}
        // It ended meanwhile.
        Answer::Refused(Errno::ENOENT) => gone -= 1,
        Answer::Refused(errno) | Answer::Lost(errno) => {
            gone -= 1;
            failure.get_or_insert(FlowsError::Unforgotten(errno));
        }
    });
    (gone, failure)
}
