//! Netfilter's named counters of packets, over nfnetlink (linux/netfilter/nfnetlink_acct.h): the two that kube-proxy's
//! iptables mode has, by its names, so that what it counted goes on being counted.
//!
//! Rules count in them by the match `nfacct`. As long as one refers to a counter the kernel does not remove it; it belongs
//! to the network namespace and to no family.

use super::Errno;
use super::netlink::decode::attributes;
use super::netlink::{Answer, Batch, Malformed, Socket};
use neli::consts::socket::NlFamily;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use std::collections::BTreeMap;

/// Packets that were dropped because connection tracking calls them invalid.
pub const INVALID: &str = "ct_state_invalid_dropped_pkts";
/// First packets of connections to node ports at loopback addresses.
pub const LOCALHOST: &str = "localhost_nps_accepted_pkts";

const ALL: [&str; 2] = [INVALID, LOCALHOST];

/// `NFNL_SUBSYS_ACCT` (linux/netfilter/nfnetlink.h), in the high half of a message's type.
const SUBSYSTEM: u16 = 7 << 8;

/// `NFNL_MSG_ACCT_*`, those that are used.
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 3;

/// `NFACCT_NAME`, which ends with a zero, and `NFACCT_PKTS`, a number of 64 bits in network byte order.
const NAME: u16 = 1;
const PACKETS: u16 = 2;

/// `sizeof(struct nfgenmsg)` (linux/netfilter/nfnetlink.h): family, version, resource.
const HEADER: usize = 4;

/// Two answers are small.
const RECEIVE_BUFFER: usize = 32 * 1024;

/// How many packets each counter has seen; those that are not there are not here.
pub type Packets = BTreeMap<&'static str, u64>;

/// Whether this kernel has such counters, and lets us have them. It loads what it needs for that.
pub fn are_there() -> bool {
    let mut are_there = false;
    exchange((GET, 0), |_, answer| are_there |= !matches!(answer, Answer::Refused(errno) if errno != Errno::ENOENT));
    are_there
}

/// Makes those that are missing. Where that fails the program that sets the rules says what is missing.
pub fn make() {
    exchange((NEW, NLM_F_CREATE | NLM_F_EXCL), |_, _| {});
}

/// Removes those that no rule refers to, whosever.
pub fn remove_unused() {
    exchange((DELETE, 0), |_, _| {});
}

/// Reads them.
pub fn packets() -> Packets {
    let mut found = Packets::new();
    exchange((GET, 0), |name, answer| {
        if let Answer::Data(payload) = answer {
            found.extend(decode(payload).ok().flatten().map(|packets| (name, packets)));
        }
    });
    found
}

/// Sends one request for each of them. Without a socket there is no answer.
fn exchange(request: (u16, u16), answer: impl FnMut(&'static str, Answer<'_>)) {
    if let Ok(mut socket) = Socket::open(NlFamily::Netfilter, RECEIVE_BUFFER) {
        socket.exchange(ALL, |batch, name| encode(batch, request, name), answer);
    }
}

fn encode(batch: &mut Batch, (kind, flags): (u16, u16), name: &str) {
    batch.push(kind, flags, |message| {
        message.raw(&[0; HEADER]);
        message.attribute(NAME, &[name.as_bytes(), &[0]].concat());
    });
}

fn decode(payload: &[u8]) -> Result<Option<u64>, Malformed> {
    for attribute in attributes(payload.get(HEADER..).unwrap_or_default()) {
        let attribute = attribute?;
        if attribute.kind == PACKETS {
            return Ok(attribute.value.first_chunk().copied().map(u64::from_be_bytes));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, packets, bytes and rules that refer to it, as `nfnl_acct_fill_info` in the kernel writes them.
    const ANSWER: &[u8] = b"\x00\x00\x00\x00\x22\x00\x01\x00ct_state_invalid_dropped_pkts\x00\x00\x00\
        \x0c\x00\x02\x00\x00\x00\x00\x00\x00\x00\x01\x02\x0c\x00\x03\x00\x00\x00\x00\x00\x00\x00\x03\x04\
        \x08\x00\x04\x00\x00\x00\x00\x01";

    #[test]
    fn packets_are_read_and_not_bytes_or_users() {
        assert_eq!(decode(ANSWER), Ok(Some(258)));
    }

    #[test]
    fn an_answer_that_is_cut_off_has_no_number() {
        for length in 0..ANSWER.len() {
            let cut = decode(&ANSWER[..length]);
            assert!(length >= 52 || !matches!(cut, Ok(Some(_))), "{length} {cut:?}");
        }
    }

    #[test]
    fn a_request_names_the_counter_as_c_does() {
        let mut batch = Batch::new(1);
        encode(&mut batch, (GET, 0), LOCALHOST);
        let bytes = batch.bytes();
        assert_eq!(&bytes[4..6], &0x0701_u16.to_ne_bytes());
        assert_eq!(&bytes[16..24], b"\0\0\0\0\x20\0\x01\0");
        assert_eq!(&bytes[24..], b"localhost_nps_accepted_pkts\0");
    }
}
