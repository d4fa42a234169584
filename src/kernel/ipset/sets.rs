//! The sets of this thread's network namespace: what is asked of them, and in which order.

use super::decode::{Header, Listing};
use super::{decode, encode};
use crate::kernel::netlink::socket::RECEIVE_BUFFER;
use crate::kernel::netlink::{Answer, Batch, Counters, Socket};
use crate::kernel::{Errno, ObserveError};
use crate::model::netfilter::{Capacity, Set, SetKey};
use crate::model::{Family, Op};
use neli::consts::socket::NlFamily;
use netlink_packet_core::NLM_F_EXCL;
use std::collections::BTreeMap;
use std::io;

const SETS: &str = "sets";

/// A socket for sets. It stays in the network namespace of the thread that opened it.
pub struct Sets {
    socket: Socket,
    /// Sets of our names that are not what these should be, as last read. Written by readings and by replacements.
    others: BTreeMap<SetKey, Header>,
}

impl Sets {
    /// Opens the socket; the kernel loads what it needs with the first request.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: Socket::open(NlFamily::Netfilter, RECEIVE_BUFFER)?, others: BTreeMap::new() })
    }

    /// What the socket has cost so far.
    pub fn counters(&self) -> Counters {
        self.socket.counters()
    }

    /// Reads a set. The kernel sends this one only.
    ///
    /// None if there is no such set, or one of that name that cannot be ours because it is of another type
    /// ([`Sets::other`]).
    ///
    /// # Errors
    /// Any failure to read all of it.
    pub fn read(&mut self, key: SetKey) -> Result<Option<Set>, ObserveError> {
        let (name, set_type) = (key.name(), key.kind.set_type());
        let listed = self.socket.dump(
            SETS,
            |batch, flags| encode::list(batch, flags, &name),
            |payload| decode::listing(payload, set_type).map(Some),
        );
        self.others.remove(&key);
        match listed {
            // The second where the kernel has no sets at all (nfnetlink_rcv_msg).
            Err(ObserveError::Refused { errno: Errno::ENOENT | Errno::EINVAL, .. }) => Ok(None),
            listed => {
                let (set, other) = assemble(key, listed?);
                self.others.extend(other.map(|other| (key, other)));
                Ok(set)
            }
        }
    }

    /// What there is of a set's name that cannot be ours because it is of another type.
    pub fn other(&self, key: SetKey) -> Option<&Header> {
        self.others.get(&key)
    }

    /// Destroys what is of the name of a set that is to be created, and of another type. What rules refer to the kernel
    /// keeps, and then it is still an [`Sets::other`].
    pub fn make_room(&mut self, key: SetKey) {
        if self.others.contains_key(&key)
            && let Ok(()) | Err(Errno::ENOENT) = self.single(|batch| encode::destroy(batch, &key.name()))
        {
            self.others.remove(&key);
        }
    }

    /// Applies operations on sets, and reports the answers to those that failed.
    pub fn apply<'o, I: Copy>(
        &mut self,
        ops: impl IntoIterator<Item = (I, &'o Op)>,
        mut report: impl FnMut((I, &'o Op), Answer<'_>),
    ) {
        let mut ops = ops.into_iter().peekable();
        while ops.peek().is_some() {
            let mut resize = None;
            let plain = std::iter::from_fn(|| match ops.next()? {
                (index, op @ Op::ResizeSet(key, capacity)) => {
                    resize = Some(((index, op), (*key, *capacity)));
                    None
                }
                other => Some(other),
            });
            self.socket.exchange(plain, |batch, (_, op)| encode::operation(batch, op), &mut report);
            if let Some((item, (key, capacity))) = resize
                && let Err(errno) = self.resize(key, capacity)
            {
                report(item, Answer::Refused(errno));
            }
        }
    }

    /// Puts a set of another capacity, with the same members, in the place of one. Whoever looks meanwhile finds the old or the new.
    fn resize(&mut self, key: SetKey, capacity: Capacity) -> Result<(), Errno> {
        let set = match self.read(key) {
            Ok(set) => set.ok_or(Errno::ENOENT)?,
            Err(ObserveError::Refused { errno, .. }) => return Err(errno),
            Err(_) => return Err(Errno::EIO),
        };
        let (name, other) = (key.name(), temporary_name(key.family));
        // A crash may have left one.
        let _there_was_none = self.single(|batch| encode::destroy(batch, other));
        self.single(|batch| encode::create(batch, other, key, capacity))?;
        let copied = self.copy(&set, other);
        let swapped = copied.and_then(|()| self.single(|batch| encode::swap(batch, other, &name)));
        self.single(|batch| encode::destroy(batch, other)).and(swapped)
    }

    fn copy(&mut self, set: &Set, to: &str) -> Result<(), Errno> {
        let mut outcome = Ok(());
        self.socket.exchange(
            &set.members,
            |batch, (member, mark)| encode::add(batch, (to, NLM_F_EXCL), *member, *mark),
            |_, answer| outcome = outcome.and(result(answer)),
        );
        outcome
    }

    fn single(&mut self, encode: impl Fn(&mut Batch)) -> Result<(), Errno> {
        let mut outcome = Ok(());
        self.socket.exchange([()], |batch, ()| encode(batch), |(), answer| outcome = result(answer));
        outcome
    }
}

/// The set that was listed, or what it is if it is of another type.
fn assemble(key: SetKey, listed: Vec<Listing>) -> (Option<Set>, Option<Header>) {
    let mut set = None;
    for Listing { header, members } in listed {
        match header {
            Some(header) if !header.is_of(key) => return (None, Some(header)),
            Some(header) => set = Some(Set { capacity: header.capacity.unwrap_or_default(), ..Set::default() }),
            None => {}
        }
        if let Some(set) = &mut set {
            set.members.extend(members);
        }
    }
    (set, None)
}

/// The name of the set that is being filled to replace another.
fn temporary_name(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPVSD-OTHER",
        Family::Ipv6 => "IPVSD-6-OTHER",
    }
}

fn result(answer: Answer<'_>) -> Result<(), Errno> {
    match answer {
        Answer::Data(_) => Ok(()),
        Answer::Refused(errno) | Answer::Lost(errno) => Err(errno),
    }
}
