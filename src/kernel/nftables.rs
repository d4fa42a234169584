//! Tables of nftables over nfnetlink (linux/netfilter/nf_tables.h): whether one is there, and its removal with all that is
//! in it. The program nft is never run.

use super::Errno;
use super::netlink::socket::RECEIVE_BUFFER;
use super::netlink::{Answer, Batch, Counters, Socket, address_family};
use crate::model::Family;
use neli::consts::socket::NlFamily;
use netlink_packet_core::NLM_F_ACK;
use std::io;

/// `NFNL_SUBSYS_NFTABLES` (linux/netfilter/nfnetlink.h), in the high half of a message's type.
const SUBSYSTEM: u8 = 10;
/// `NFT_MSG_GETTABLE`, `NFT_MSG_DELTABLE`.
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
/// `NFTA_TABLE_NAME`.
const NAME: u16 = 1;

/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`: what changes tables comes between them, and is done as a whole or not at
/// all.
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;

/// A socket for tables. It stays in the network namespace of the thread that opened it.
pub struct Tables {
    socket: Socket,
}

impl Tables {
    /// Opens the socket.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: Socket::open(NlFamily::Netfilter, RECEIVE_BUFFER)? })
    }

    /// What the socket has cost so far.
    pub fn counters(&self) -> Counters {
        self.socket.counters()
    }

    /// The families that have a table of this name; none where the kernel has no tables, or does not tell.
    pub fn families_with(&mut self, name: &str) -> Vec<Family> {
        let mut found = Vec::new();
        self.socket.exchange(
            [Family::Ipv4, Family::Ipv6],
            |batch, family| request(batch, (GET_TABLE, 0), (name, family)),
            |family, answer| found.extend(matches!(answer, Answer::Data(_)).then_some(family)),
        );
        found
    }

    /// Removes a table with all that is in it. One that is not there is removed already.
    ///
    /// # Errors
    /// The kernel's, everything being as it was then.
    pub fn remove(&mut self, name: &str, family: Family) -> Result<(), Errno> {
        let removed = self.socket.transact(|batch| {
            boundary(batch, BEGIN);
            // The end of a transaction has an answer since Linux 6.10 only.
            request(batch, (DELETE_TABLE, NLM_F_ACK), (name, family));
            boundary(batch, END);
        });
        match removed {
            Err(Errno::ENOENT) => Ok(()),
            removed => removed,
        }
    }
}

fn request(batch: &mut Batch, (command, flags): (u16, u16), (name, family): (&str, Family)) {
    let kind = u16::from_be_bytes([SUBSYSTEM, 0]) | command;
    let zero_terminated = [name.as_bytes(), &[0]].concat();
    batch.push(kind, flags, |message| {
        message.raw(&header(address_family::number(family), 0));
        message.attribute(NAME, &zero_terminated);
    });
}

fn boundary(batch: &mut Batch, kind: u16) {
    batch.push(kind, 0, |message| message.raw(&header(0, SUBSYSTEM)));
}

/// `struct nfgenmsg` (linux/netfilter/nfnetlink.h): family, version, and in network order what a transaction is for.
fn header(family: u8, resource: u8) -> [u8; 4] {
    [family, 0, 0, resource]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netlink::decode::{attributes, messages};

    #[test]
    fn a_request_names_subsystem_family_and_table() {
        let mut batch = Batch::new(1);
        boundary(&mut batch, BEGIN);
        request(&mut batch, (DELETE_TABLE, NLM_F_ACK), ("kube-proxy", Family::Ipv6));
        boundary(&mut batch, END);
        let found: Vec<_> = messages(batch.bytes()).map(Result::unwrap).collect();
        let kinds: Vec<_> = found.iter().map(|message| (message.kind, &message.payload[..4])).collect();
        assert_eq!(kinds, [(0x10, &[0, 0, 0, 10][..]), (0x0a02, &[10, 0, 0, 0]), (0x11, &[0, 0, 0, 10])]);
        let name = attributes(&found[1].payload[4..]).next().unwrap().unwrap();
        assert_eq!((name.kind, name.value), (1, &b"kube-proxy\0"[..]));
        assert_eq!(found.iter().map(|message| message.flags & NLM_F_ACK).collect::<Vec<_>>(), [0, NLM_F_ACK, 0]);
    }
}
