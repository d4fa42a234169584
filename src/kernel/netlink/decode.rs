//! Reads netlink messages and their attributes out of a buffer. Nothing in the buffer can make it panic.

use super::encode::HEADER;
use crate::kernel::Errno;
use netlink_packet_core::NLA_TYPE_MASK;

/// Bytes that make no sense, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

impl Malformed {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// A message as it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`: the number of the request that this answers.
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// An attribute as it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// `nla_type` without the flag bits.
    pub kind: u16,
    /// Its value without padding.
    pub value: &'a [u8],
}

/// The messages in what one receive returned. Ends after the first that is malformed.
pub fn messages(bytes: &[u8]) -> impl Iterator<Item = Result<Received<'_>, Malformed>> {
    split(bytes, |rest| {
        let length = u32_of(rest).ok().and_then(|length| usize::try_from(length).ok());
        let (message, rest) =
            cut(rest, length, HEADER).ok_or_else(|| Malformed::new("a message of impossible length"))?;
        let (header, payload) = message.split_at_checked(HEADER).unwrap_or_default();
        let kind = u16_of(header.get(4..).unwrap_or_default())?;
        let flags = u16_of(header.get(6..).unwrap_or_default())?;
        let sequence = u32_of(header.get(8..).unwrap_or_default())?;
        Ok((Received { kind, flags, sequence, payload }, rest))
    })
}

/// The attributes in `bytes`. Ends after the first that is malformed.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = Result<Attribute<'_>, Malformed>> {
    split(bytes, |rest| {
        let length = u16_of(rest).ok().map(usize::from);
        let (attribute, rest) =
            cut(rest, length, 4).ok_or_else(|| Malformed::new("an attribute of impossible length"))?;
        let kind = u16_of(attribute.get(2..).unwrap_or_default())? & NLA_TYPE_MASK;
        Ok((Attribute { kind, value: attribute.get(4..).unwrap_or_default() }, rest))
    })
}

/// The attributes of a message of generic netlink, behind its header: `struct genlmsghdr` (linux/genetlink.h), four
/// bytes.
pub fn generic_attributes(payload: &[u8]) -> impl Iterator<Item = Result<Attribute<'_>, Malformed>> {
    attributes(payload.get(4..).unwrap_or_default())
}

/// Applies `next` to what is left of `bytes` until nothing is left or it fails.
fn split<'a, T>(
    bytes: &'a [u8],
    next: impl Fn(&'a [u8]) -> Result<(T, &'a [u8]), Malformed>,
) -> impl Iterator<Item = Result<T, Malformed>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match next(rest) {
            Ok((item, left)) => {
                rest = left;
                Some(Ok(item))
            }
            Err(malformed) => {
                rest = &[];
                Some(Err(malformed))
            }
        }
    })
}

/// The first `length` bytes (at least `minimum`), and what follows them and their padding to four.
fn cut(bytes: &[u8], length: Option<usize>, minimum: usize) -> Option<(&[u8], &[u8])> {
    let length = length.filter(|length| *length >= minimum)?;
    let item = bytes.get(..length)?;
    Some((item, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The result of a request from the payload of an `NLMSG_ERROR` or `NLMSG_DONE`: a negative errno, or 0 for success.
///
/// # Errors
/// Fewer than four bytes.
pub fn status(payload: &[u8]) -> Result<i32, Malformed> {
    u32_of(payload).map(u32::cast_signed)
}

/// The error in a status of less than 0.
///
/// ipset has numbers of its own (`enum ipset_errno`, linux/netfilter/ipset/ip_set.h), all above those of the system.
/// Those that something can be done about become what the system would say, any other `EPROTO`.
pub fn errno(status: i32) -> Errno {
    match status.wrapping_neg() {
        // IPSET_ERR_BUSY, IPSET_ERR_REFERENCED: a rule refers to the set.
        4100 | 4108 => Errno::EBUSY,
        // IPSET_ERR_EXIST_SETNAME2, IPSET_ERR_EXIST: also said of a member to delete that is not there.
        4101 | 4103 => Errno::EEXIST,
        // IPSET_ERR_HASH_FULL
        4352 => Errno::ENOSPC,
        4096.. => Errno::EPROTO,
        errno => Errno::from_raw(errno),
    }
}

macro_rules! reader {
    ($name:ident, $type:ty) => {
        /// The number that `bytes` begin with, in the byte order of this machine, at any alignment.
        ///
        /// # Errors
        /// Too few bytes.
        pub fn $name(bytes: &[u8]) -> Result<$type, Malformed> {
            match bytes.first_chunk() {
                Some(chunk) => Ok(<$type>::from_ne_bytes(*chunk)),
                None => Err(Malformed::new(concat!("too few bytes for a ", stringify!($type)))),
            }
        }
    };
}

reader!(u8_of, u8);
reader!(u16_of, u16);
reader!(u32_of, u32);
reader!(u64_of, u64);

/// The text up to the first zero byte, if there is one.
///
/// # Errors
/// It is not UTF-8.
pub fn text_of(bytes: &[u8]) -> Result<&str, Malformed> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    std::str::from_utf8(bytes.get(..end).unwrap_or(bytes)).map_err(|_| Malformed::new("a text that is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_lengths_end_the_reading_with_one_error() {
        for bytes in [&[0; 3][..], &[0; 16], &[15, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], &[255; 40]] {
            let found: Vec<_> = messages(bytes).collect();
            assert!(matches!(found[..], [Err(_)]), "{bytes:?} gave {found:?}");
        }
        let found: Vec<_> = attributes(&[4, 0, 1, 0, 9, 0, 2, 0]).collect();
        assert!(matches!(found[..], [Ok(Attribute { kind: 1, value: [] }), Err(_)]), "{found:?}");
    }

    #[test]
    fn the_last_attribute_may_lack_its_padding() {
        let found: Vec<_> = attributes(&[5, 0, 1, 0x80, 7]).map(Result::unwrap).collect();
        assert_eq!(found, [Attribute { kind: 1, value: &[7] }]);
    }

    #[test]
    fn numbers_and_texts_say_when_they_are_cut_off() {
        assert_eq!(status(&(-2i32).to_ne_bytes()), Ok(-2));
        assert!(u64_of(&[0; 7]).is_err() && u16_of(&[0]).is_err() && u8_of(&[]).is_err());
        assert_eq!([text_of(b"rr\0junk"), text_of(b"wrr")], [Ok("rr"), Ok("wrr")]);
        assert!(text_of(&[0xff]).is_err());
    }
}
