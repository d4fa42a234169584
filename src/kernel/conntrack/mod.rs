//! Netfilter's connection tracking over nfnetlink (linux/netfilter/nfnetlink_conntrack.h): its protocol's numbers, and the
//! handle that looks for stale flows and has them forgotten. The program conntrack is never run.
//!
//! [`encode`] writes requests, [`decode`] reads answers; both are pure. [`Conntrack`] sends and receives.

pub mod decode;
pub mod encode;
mod flows;
mod search;

pub use flows::Conntrack;

use crate::model::netfilter::AddressPort;
use crate::model::{Flow, Protocol};

/// `NFNL_SUBSYS_CTNETLINK` (linux/netfilter/nfnetlink.h), in the high half of a message's type.
const SUBSYSTEM: u16 = 1 << 8;

/// `IPCTNL_MSG_CT_*`, those that are used.
mod command {
    pub const GET: u16 = 1;
    pub const DELETE: u16 = 2;
}

/// `CTA_*` of an entry.
mod subject {
    pub const ORIGINAL: u16 = 1;
    pub const REPLY: u16 = 2;
    pub const ID: u16 = 12;
    pub const ZONE: u16 = 18;
    pub const FILTER: u16 = 25;
}

/// `CTA_TUPLE_*`: one direction of an entry.
mod tuple {
    pub const ADDRESSES: u16 = 1;
    pub const PROTOCOL: u16 = 2;
    pub const ZONE: u16 = 3;
}

/// `CTA_IP_*`
mod address {
    pub const IPV4_SOURCE: u16 = 1;
    pub const IPV4_DESTINATION: u16 = 2;
    pub const IPV6_SOURCE: u16 = 3;
    pub const IPV6_DESTINATION: u16 = 4;
}

/// `CTA_PROTO_*`
mod protocol {
    pub const NUMBER: u16 = 1;
    pub const SOURCE_PORT: u16 = 2;
    pub const DESTINATION_PORT: u16 = 3;
}

/// `CTA_FILTER_ORIG_FLAGS`, and the flags in it: what of [`subject::ORIGINAL`] an entry must agree with
/// (`CTA_FILTER_F_CTA_*` in the kernel's nf_internals.h).
mod filter {
    pub const ORIGINAL_FLAGS: u16 = 1;
    pub const DESTINATION: u32 = 1 << 1;
    pub const PROTOCOL: u32 = 1 << 3;
    pub const DESTINATION_PORT: u32 = 1 << 5;
}

/// An entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it remembers.
    pub flow: Flow,
    /// The kernel's number for this entry, by which it is told from one with the same addresses that came after it.
    pub id: [u8; 4],
}

/// Which entries are asked for. Kernels before 5.8 do not filter, and newer ones do not look at the port of SCTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// All entries.
    Nothing,
    /// Those of a protocol.
    Protocol(Protocol),
    /// Those whose client addressed this.
    Frontend(AddressPort),
}

impl Filter {
    /// Whether a kernel that filters leaves this flow out.
    fn excludes(&self, flow: &Flow) -> bool {
        match self {
            Self::Nothing => false,
            Self::Protocol(protocol) => *protocol != flow.frontend.protocol,
            Self::Frontend(AddressPort { address, protocol, .. }) => {
                (*address, *protocol) != (flow.frontend.address, flow.frontend.protocol)
            }
        }
    }
}
