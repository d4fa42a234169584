//! The numbers of address families in messages.

use crate::model::Family;

/// `AF_INET` (linux/socket.h), which netfilter calls `NFPROTO_IPV4`.
pub const IPV4: u8 = 2;

/// `AF_INET6`, or `NFPROTO_IPV6`.
pub const IPV6: u8 = 10;

/// The number of a family.
pub fn number(family: Family) -> u8 {
    match family {
        Family::Ipv4 => IPV4,
        Family::Ipv6 => IPV6,
    }
}

/// The family that has a number, if it is one of ours.
pub fn from_number(number: u8) -> Option<Family> {
    [Family::Ipv4, Family::Ipv6].into_iter().find(|family| self::number(*family) == number)
}
