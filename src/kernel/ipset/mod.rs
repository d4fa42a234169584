//! Sets over nfnetlink (linux/netfilter/ipset/ip_set.h): their protocol's numbers, and the handle that reads and
//! changes them. The program ipset is never run.
//!
//! [`encode`] writes requests, [`decode`] reads answers; both are pure. [`Sets`] sends and receives.

pub mod decode;
pub mod encode;
mod sets;

use crate::kernel::netlink::address_family;
use crate::model::netfilter::{SetKey, SetType};
pub use decode::Header;
pub use sets::Sets;

/// `NFNL_SUBSYS_IPSET` (linux/netfilter/nfnetlink.h), in the high half of a message's type.
const SUBSYSTEM: u16 = 6 << 8;

/// The oldest version of the protocol that kernels still speak (`IPSET_PROTOCOL_MIN`); nothing newer is used.
const PROTOCOL: u8 = 6;

/// `IPSET_CMD_*`, those that are used.
mod command {
    pub const CREATE: u16 = 2;
    pub const DESTROY: u16 = 3;
    pub const SWAP: u16 = 6;
    pub const LIST: u16 = 7;
    pub const ADD: u16 = 9;
    pub const DELETE: u16 = 10;
}

/// `IPSET_ATTR_*` of commands.
mod subject {
    pub const PROTOCOL: u16 = 1;
    pub const SET_NAME: u16 = 2;
    pub const TYPE_NAME: u16 = 3;
    /// With `SWAP`.
    pub const OTHER_SET_NAME: u16 = 3;
    pub const REVISION: u16 = 4;
    pub const FAMILY: u16 = 5;
    pub const DATA: u16 = 7;
    pub const MEMBERS: u16 = 8;
}

/// `IPSET_ATTR_*` of a set's settings and of members.
mod field {
    pub const ADDRESS: u16 = 1;
    pub const PORT: u16 = 4;
    pub const LAST_PORT: u16 = 5;
    pub const PROTOCOL: u16 = 7;
    pub const FLAGS: u16 = 8;
    pub const MOST_MEMBERS: u16 = 19;
    pub const SECOND_ADDRESS: u16 = 20;
    pub const SECOND_PREFIX: u16 = 21;
    pub const MARK: u16 = 27;
}

/// `IPSET_ATTR_IPADDR_IPV4` and `_IPV6`.
mod address {
    pub const IPV4: u16 = 1;
    pub const IPV6: u16 = 2;
}

/// `IPSET_FLAG_WITH_SKBINFO`: members map to marks.
const WITH_MARKS: u32 = 1 << 6;

/// `NFPROTO_UNSPEC` (linux/netfilter.h).
const UNSPECIFIED: u8 = 0;

/// The family that a set is of. One of ports is of none, as ipset makes it.
fn family_number(key: SetKey) -> u8 {
    match (key.kind.set_type(), key.family) {
        (SetType::Port, _) => UNSPECIFIED,
        (_, family) => address_family::number(family),
    }
}

/// What the kernel calls a type, and the revision of it that is asked for: the one that brought marks (Linux 3.18).
fn type_name(set_type: SetType) -> (&'static str, u8) {
    match set_type {
        SetType::Address => ("hash:ip", 4),
        SetType::Port => ("bitmap:port", 3),
        SetType::AddressPort => ("hash:ip,port", 5),
        SetType::AddressPortAddress => ("hash:ip,port,ip", 5),
        SetType::AddressPortNet => ("hash:ip,port,net", 7),
    }
}
