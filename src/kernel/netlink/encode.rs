//! Writes netlink messages: many of them, one after another, in one buffer that is used again and again.

use netlink_packet_core::{NLA_F_NESTED, NLM_F_ACK, NLM_F_REQUEST};

/// The messages of one send. IPVS takes up to 140 microseconds for each of them when many destinations were deleted
/// shortly before, and holds the locks of generic netlink meanwhile; more than 256 also gain nothing.
pub const MAX_MESSAGES: usize = 256;

/// The bytes of one send. A send above the socket's send buffer (208 KiB by default) is refused as a whole.
const MAX_BYTES: usize = 128 * 1024;

/// No message of ours is longer: what may still be added when a batch is not full.
const LONGEST_MESSAGE: usize = 1024;

/// `sizeof(struct nlmsghdr)` (linux/netlink.h).
pub const HEADER: usize = 16;

/// Messages that are sent together, numbered one by one so that each answer finds its message.
#[derive(Debug, Default)]
pub struct Batch {
    /// The messages, each padded to four bytes.
    bytes: Vec<u8>,
    /// Messages in `bytes`.
    count: usize,
    /// Where the last one starts.
    last: usize,
    /// The sequence number of the first.
    first: u32,
}

impl Batch {
    /// An empty batch, whose messages will be numbered from `first` on.
    pub fn new(first: u32) -> Self {
        Self { first, ..Self::default() }
    }

    /// Empties the batch, keeping its memory.
    pub fn restart(&mut self, first: u32) {
        self.bytes.clear();
        (self.count, self.last, self.first) = (0, 0, first);
    }

    /// Adds a message of type `kind` (`nlmsg_type`) with `flags` besides `NLM_F_REQUEST`; `write` fills in the rest.
    pub fn push(&mut self, kind: u16, flags: u16, write: impl FnOnce(&mut Message<'_>)) {
        self.last = self.bytes.len();
        let sequence = self.first.wrapping_add(u32::try_from(self.count).unwrap_or(u32::MAX));
        self.count += 1;
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        write(&mut Message { bytes: &mut self.bytes });
        let length = u32::try_from(self.bytes.len() - self.last).unwrap_or(u32::MAX);
        overwrite(&mut self.bytes, self.last, &length.to_ne_bytes());
    }

    /// Asks for an acknowledgement of the last message. The kernel works through a send in order and reports every
    /// failure in any case, so this one acknowledgement says that all answers have come. One for each message would
    /// be one receive for each message.
    pub fn acknowledge_last(&mut self) {
        let at = self.last + 6;
        let flags =
            self.bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |flags| u16::from_ne_bytes(*flags));
        overwrite(&mut self.bytes, at, &(flags | NLM_F_ACK).to_ne_bytes());
    }

    /// Whether it should be sent before another message is added.
    pub fn is_full(&self) -> bool {
        self.count >= MAX_MESSAGES || self.bytes.len() + LONGEST_MESSAGE > MAX_BYTES
    }

    /// Messages in it.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no message in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bytes to send.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Which message an answer is about; none if it is about no message of this batch.
    pub fn position(&self, sequence: u32) -> Option<usize> {
        usize::try_from(sequence.wrapping_sub(self.first)).ok().filter(|position| *position < self.count)
    }
}

/// The message that is being written.
#[derive(Debug)]
pub struct Message<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Message<'_> {
    /// Adds plain bytes, a family's header for instance, padded to four.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    /// Adds `length` zeroes, padded to four, for `write` to fill.
    pub fn space(&mut self, length: usize, write: impl FnOnce(&mut [u8])) {
        let start = self.bytes.len();
        self.bytes.resize(start + length, 0);
        if let Some(space) = self.bytes.get_mut(start..) {
            write(space);
        }
        self.pad();
    }

    /// Adds an attribute (`struct nlattr`).
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        let start = self.open(kind);
        self.bytes.extend_from_slice(value);
        self.close(start);
    }

    /// Adds an attribute that consists of the attributes that `write` adds.
    pub fn nested(&mut self, kind: u16, write: impl FnOnce(&mut Message<'_>)) {
        let start = self.open(kind | NLA_F_NESTED);
        write(&mut Message { bytes: self.bytes });
        self.close(start);
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    /// The length is without the padding.
    fn close(&mut self, start: usize) {
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        overwrite(self.bytes, start, &length.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

fn overwrite(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netlink::decode::{attributes, messages};

    #[test]
    fn messages_are_numbered_padded_and_only_the_last_is_acknowledged() {
        let mut batch = Batch::new(u32::MAX);
        batch.push(7, 0x400, |message| message.attribute(1, b"abcde"));
        batch.push(8, 0, |message| message.nested(2, |inner| inner.attribute(3, &[1, 2])));
        batch.acknowledge_last();
        let found: Vec<_> = messages(batch.bytes()).map(Result::unwrap).collect();
        assert_eq!([found[0].sequence, found[1].sequence], [u32::MAX, 0]);
        assert_eq!([found[0].flags, found[1].flags], [0x401, NLM_F_REQUEST | NLM_F_ACK]);
        assert_eq!(found[0].payload, b"\x09\0\x01\0abcde\0\0\0");
        let nested = attributes(found[1].payload).next().unwrap().unwrap();
        assert_eq!((nested.kind, attributes(nested.value).next().unwrap().unwrap().value), (2, &[1, 2][..]));
        assert_eq!([batch.position(u32::MAX), batch.position(0), batch.position(1)], [Some(0), Some(1), None]);
    }

    #[test]
    fn a_batch_is_full_by_messages_or_by_bytes() {
        let mut many = Batch::new(0);
        (0..MAX_MESSAGES).for_each(|_| many.push(0, 0, |_| ()));
        assert!(many.is_full());
        let mut long = Batch::new(0);
        while !long.is_full() {
            long.push(0, 0, |message| message.raw(&[0; LONGEST_MESSAGE - HEADER]));
        }
        assert!(long.len() < MAX_MESSAGES && long.bytes().len() <= MAX_BYTES);
    }
}
