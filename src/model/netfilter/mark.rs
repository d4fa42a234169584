//! The firewall marks that lead a packet to another virtual server than its address does.
//!
//! IPVS looks for a virtual server by the packet's whole mark first, and by address and port if there is none. So the
//! marks are ours alone: whatever mark the packet had is replaced, and taken off before the packet leaves the node.
//!
//! ```text
//!   31   20 19      12 11      6 5   4    0
//!   number  0000 0001  0000 01   U   0 0000     U: the packets are UDP
//! ```
//! Free are the bits that others commonly give a meaning: 0x4000 and 0x8000 (Kubernetes), 0x2000 (the portmap plugin),
//! 0x0f00 (Cilium), 0x80 (AWS VPC CNI) and 0xf0000 (Calico). That two bits are always set keeps a packet with nothing but a masquerade bit on it, which
//! can be any, from being taken for one of ours.

use crate::model::Protocol;

/// The mark of the packets of one Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(u32);

/// What all our marks have in [`MASK`].
pub const TAG: u32 = 0x1040;

/// The bits that are the same in all our marks.
pub const MASK: u32 = 0x000f_ffdf;

/// Set where the packets are UDP, so that who finds only the mark's virtual server knows how to drain it.
const UDP: u32 = 0x20;

/// Where the number begins.
const SHIFT: u32 = 20;

/// The largest number; they begin at 1.
pub const LAST: u16 = 0xfff;

/// The largest number of a port that needs a mark for loopback addresses alone. The usual range has 2,768 node ports.
pub const LAST_FOR_LOCALHOST: u16 = 0xc00;

impl Mark {
    /// The mark with a number from 1 to [`LAST`]; none for others.
    pub fn new(number: u16, protocol: Protocol) -> Option<Self> {
        let udp = if protocol == Protocol::Udp { UDP } else { 0 };
        (1..=LAST).contains(&number).then_some(Self(u32::from(number) << SHIFT | TAG | udp))
    }

    /// The mark in a packet or virtual server, if it is one of ours.
    pub fn from_bits(bits: u32) -> Option<Self> {
        (bits & MASK == TAG && bits >> SHIFT != 0).then_some(Self(bits))
    }

    /// As packets carry it.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Its number.
    pub fn number(self) -> u16 {
        u16::try_from(self.0 >> SHIFT).unwrap_or(LAST)
    }

    /// Whether the packets are UDP.
    pub fn is_udp(self) -> bool {
        self.0 & UDP != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_tells_its_number_and_whether_it_is_udp() {
        for number in [1, 2, LAST] {
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                let mark = Mark::new(number, protocol).unwrap();
                assert_eq!(Mark::from_bits(mark.bits()), Some(mark));
                assert_eq!((mark.number(), mark.is_udp()), (number, protocol == Protocol::Udp));
            }
        }
        assert_eq!(Mark::new(1, Protocol::Tcp).unwrap().bits(), 0x0010_1040);
        assert_eq!([0, LAST + 1].map(|number| Mark::new(number, Protocol::Tcp)), [None; 2]);
    }

    #[test]
    fn nothing_with_one_bit_or_none_is_a_mark_of_ours() {
        assert!((0..32).all(|bit| Mark::from_bits(1 << bit).is_none()));
        for strange in [0, TAG, 0x0010_5040, 0x0010_10c0, u32::MAX] {
            assert_eq!(Mark::from_bits(strange), None, "{strange:#x}");
        }
    }
}
