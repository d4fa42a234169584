//! A netlink socket: sends a batch in one system call, tells whose answer is whose, and reads whole dumps.
//!
//! neli makes the socket and lends its raw send and receive. Its own message types are for one message at a time,
//! one allocation for each attribute; 15,000 operations of IPVS took 490 ms with them and take 16 ms with batches.

use super::decode::{self, Malformed};
use super::dump::Dump;
use super::encode::{Batch, MAX_MESSAGES};
use crate::kernel::{Errno, ObserveError};
use neli::consts::socket::{Msg, NlFamily};
use neli::socket::NlSocket;
use neli::utils::Groups;
use netlink_packet_core::{NLM_F_DUMP, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use nix::{setsockopt_impl, sockopt_impl};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Netlink datagrams of a dump are 32 KiB at most (`NLMSG_GOODSIZE` and `netlink_dump` in the kernel).
const RECEIVE_BYTES: usize = 64 * 1024;

/// The receive buffer asked for. Each answer costs 768 bytes of it, so that the default of 208 KiB ends after 277.
pub const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// The kernel answers within the system call that asks; this is for the case that an answer was lost.
const RECEIVE_TIMEOUT_SECONDS: i64 = 5;

/// How often a dump is repeated when the table changes meanwhile.
const DUMP_ATTEMPTS: usize = 8;

sockopt_impl!(
    /// `NETLINK_CAP_ACK` (linux/netlink.h): an error answer does not echo the request.
    CapAck, SetOnly, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, bool
);

/// What a socket has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// System calls that sent.
    pub sends: u64,
    /// System calls that received.
    pub receives: u64,
    /// Requests, of which a send carries many.
    pub messages: u64,
}

impl std::ops::Add for Counters {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            sends: self.sends + other.sends,
            receives: self.receives + other.receives,
            messages: self.messages + other.messages,
        }
    }
}

/// What the kernel answered to one message of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// A message of its own: the payload.
    Data(&'a [u8]),
    /// It failed.
    Refused(Errno),
    /// The answer, if there was one, did not arrive.
    Lost(Errno),
}

/// A socket of one netlink family, in the network namespace of the thread that opened it.
pub struct Socket {
    socket: NlSocket,
    family: NlFamily,
    receive_buffer: usize,
    /// The number of the next request.
    sequence: u32,
    /// For what is sent; its memory is used again.
    batch: Batch,
    /// For what is received.
    buffer: Box<[u8]>,
    counters: Counters,
}

impl Socket {
    /// Opens a socket whose receive buffer has room for `receive_buffer` bytes ([`RECEIVE_BUFFER`]).
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(family: NlFamily, receive_buffer: usize) -> io::Result<Self> {
        Ok(Self {
            socket: connect(family, receive_buffer)?,
            family,
            receive_buffer,
            sequence: 1,
            batch: Batch::default(),
            buffer: vec![0; RECEIVE_BYTES].into(),
            counters: Counters::default(),
        })
    }

    /// What this socket has cost so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Sends one message for each item, as many at once as a batch holds, and reports the answers.
    ///
    /// `encode` adds exactly one message. An item without an answer is done.
    pub fn exchange<T: Copy>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        encode: impl Fn(&mut Batch, T),
        mut answer: impl FnMut(T, Answer<'_>),
    ) {
        let mut batch = std::mem::take(&mut self.batch);
        batch.restart(self.sequence);
        let mut pending = Vec::with_capacity(MAX_MESSAGES);
        for item in items {
            encode(&mut batch, item);
            pending.push(item);
            if batch.is_full() {
                self.flush(&mut batch, &pending, &mut answer);
                pending.clear();
            }
        }
        if !batch.is_empty() {
            self.flush(&mut batch, &pending, &mut answer);
        }
        self.batch = batch;
    }

    /// Sends messages that the kernel takes as one transaction, of which one asks for an acknowledgement.
    ///
    /// # Errors
    /// Why the transaction did not come about, or that the answer was lost.
    pub fn transact(&mut self, encode: impl FnOnce(&mut Batch)) -> Result<(), Errno> {
        let mut batch = Batch::new(self.sequence);
        encode(&mut batch);
        self.send(&batch)?;
        loop {
            let bytes = self.receive(Msg::empty())?;
            for message in decode::messages(bytes) {
                let message = message.map_err(|_| Errno::EBADMSG)?;
                if message.kind == NLMSG_ERROR && batch.position(message.sequence).is_some() {
                    let status = decode::status(message.payload).map_err(|_| Errno::EBADMSG)?;
                    return if status == 0 { Ok(()) } else { Err(decode::errno(status)) };
                }
            }
        }
    }

    /// Sends the batch, reports the answers to its items, and empties it.
    fn flush<T: Copy>(&mut self, batch: &mut Batch, items: &[T], answer: &mut impl FnMut(T, Answer<'_>)) {
        batch.acknowledge_last();
        let mut answered = vec![false; items.len()];
        let outcome = self.send(batch).and_then(|()| {
            self.collect(batch, |position, what| {
                if let (Some(item), Some(seen)) = (items.get(position), answered.get_mut(position)) {
                    *seen = true;
                    answer(*item, what);
                }
            })
        });
        if let Err(errno) = outcome {
            let silent = items.iter().zip(answered).filter(|(_, answered)| !answered);
            silent.for_each(|(item, _)| answer(*item, Answer::Lost(errno)));
        }
        batch.restart(self.sequence);
    }

    /// Receives until the last message of the batch is acknowledged or refused.
    fn collect(&mut self, batch: &Batch, mut answer: impl FnMut(usize, Answer<'_>)) -> Result<(), Errno> {
        let mut lost = None;
        loop {
            let flags = if lost.is_some() { Msg::DONTWAIT } else { Msg::empty() };
            let bytes = match self.receive(flags) {
                Ok(bytes) => bytes,
                // The kernel had no room for an answer and dropped it, and all after it. What it kept is still there.
                Err(Errno::ENOBUFS) => {
                    lost = Some(Errno::ENOBUFS);
                    continue;
                }
                Err(errno) => return Err(lost.unwrap_or(errno)),
            };
            if sort(bytes, batch, &mut answer).map_err(|_| Errno::EBADMSG)? {
                return lost.map_or(Ok(()), Err);
            }
        }
    }

    /// Asks for a dump and decodes its messages, leaving out those that `decode` has no value for.
    ///
    /// # Errors
    /// Whatever keeps the answer from being whole.
    pub fn dump<T>(
        &mut self,
        what: &'static str,
        encode: impl Fn(&mut Batch, u16),
        mut decode: impl FnMut(&[u8]) -> Result<Option<T>, Malformed>,
    ) -> Result<Vec<T>, ObserveError> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut batch = Batch::new(self.sequence);
            encode(&mut batch, NLM_F_DUMP);
            let mut dump = Dump::new(what);
            if let Err(errno) = self.send(&batch).and_then(|()| self.read_dump(&batch, &mut dump, &mut decode)) {
                // The rest of the dump would make the kernel refuse the next one on this socket (EBUSY).
                self.socket =
                    connect(self.family, self.receive_buffer).map_err(|source| ObserveError::Io { what, source })?;
                return Err(ObserveError::Io { what, source: errno.into() });
            }
            match (dump.error, dump.interrupted) {
                (_, true) => {}
                (Some(error), false) => return Err(error),
                (None, false) => return Ok(dump.found),
            }
        }
        Err(ObserveError::Inconsistent { what })
    }

    /// Receives to the end of the dump, even when something in it is wrong.
    fn read_dump<T>(
        &mut self,
        batch: &Batch,
        dump: &mut Dump<T>,
        decode: &mut impl FnMut(&[u8]) -> Result<Option<T>, Malformed>,
    ) -> Result<(), Errno> {
        loop {
            let bytes = self.receive(Msg::empty())?;
            for message in decode::messages(bytes) {
                let message = message.map_err(|_| Errno::EBADMSG)?;
                if batch.position(message.sequence).is_some() && dump.take(message, decode) {
                    return Ok(());
                }
            }
        }
    }

    fn send(&mut self, batch: &Batch) -> Result<(), Errno> {
        let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        self.sequence = self.sequence.wrapping_add(count);
        self.counters.sends += 1;
        self.counters.messages += u64::from(count);
        self.socket.send(batch.bytes(), Msg::empty()).map(|_| ()).map_err(|error| errno(&error))
    }

    fn receive(&mut self, flags: Msg) -> Result<&[u8], Errno> {
        let length = loop {
            self.counters.receives += 1;
            match self.socket.recv(&mut self.buffer, flags | Msg::TRUNC) {
                Ok((length, _)) => break length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Errno::ETIMEDOUT),
                Err(error) => return Err(errno(&error)),
            }
        };
        // With MSG_TRUNC the length is that of the datagram, which may be more than there was room for.
        self.buffer.get(..length).ok_or(Errno::EMSGSIZE)
    }
}

/// Hands each answer in `bytes` to the message it is about; says whether the last message is among them.
/// Answers to earlier batches are passed over.
fn sort(bytes: &[u8], batch: &Batch, answer: &mut impl FnMut(usize, Answer<'_>)) -> Result<bool, Malformed> {
    let mut finished = false;
    for message in decode::messages(bytes) {
        let message = message?;
        let Some(position) = batch.position(message.sequence) else { continue };
        match message.kind {
            NLMSG_NOOP | NLMSG_OVERRUN | NLMSG_DONE => {}
            NLMSG_ERROR => {
                finished |= position + 1 == batch.len();
                match decode::status(message.payload)? {
                    0 => {}
                    status => answer(position, Answer::Refused(decode::errno(status))),
                }
            }
            _ => answer(position, Answer::Data(message.payload)),
        }
    }
    Ok(finished)
}

fn connect(family: NlFamily, receive_buffer: usize) -> io::Result<NlSocket> {
    let socket = NlSocket::connect(family, None, Groups::empty())?;
    socket.enable_ext_ack(true)?;
    // SAFETY: `socket` owns the descriptor and outlives the borrow, which ends with this function.
    let descriptor = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    setsockopt(&descriptor, CapAck, &true)?;
    setsockopt(&descriptor, sockopt::ReceiveTimeout, &TimeVal::new(RECEIVE_TIMEOUT_SECONDS, 0))?;
    // Beyond rmem_max only with CAP_NET_ADMIN; who lacks it can at least list, with what there is.
    if setsockopt(&descriptor, sockopt::RcvBufForce, &receive_buffer).is_err() {
        setsockopt(&descriptor, sockopt::RcvBuf, &receive_buffer)?;
    }
    if matches!(family, NlFamily::Route) {
        // Lets the kernel filter dumps. Before Linux 4.20 it cannot, and we filter alone.
        let _ = socket.enable_strict_checking(true);
    }
    Ok(socket)
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_find_their_messages_and_stale_ones_none() {
        let mut answers = Batch::new(9);
        let enoent = [(-libc::ENOENT).to_ne_bytes(), [0; 4]].concat();
        answers.push(NLMSG_ERROR, 0, |message| message.raw(&enoent));
        answers.push(99, 0, |message| message.raw(b"data"));
        answers.push(NLMSG_ERROR, 0, |message| message.raw(&[0; 20]));
        let mut requests = Batch::new(10);
        (0..2).for_each(|_| requests.push(0, 0, |_| ()));
        let mut seen = Vec::new();
        let finished =
            sort(answers.bytes(), &requests, &mut |position, answer| seen.push((position, format!("{answer:?}"))));
        assert_eq!((finished, seen), (Ok(true), vec![(0, "Data([100, 97, 116, 97])".to_owned())]));

        let mut requests = Batch::new(9);
        (0..4).for_each(|_| requests.push(0, 0, |_| ()));
        let mut seen = Vec::new();
        let finished = sort(answers.bytes(), &requests, &mut |position, _| seen.push(position));
        assert_eq!((finished, seen), (Ok(false), vec![0, 1]));
    }
}
