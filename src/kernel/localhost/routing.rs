//! The rules and routes of the way as rtnetlink messages.

use super::End;
use crate::kernel::netlink::address_family::IPV4;
use crate::kernel::netlink::decode::{attributes, text_of, u32_of};
use crate::kernel::netlink::{Batch, Malformed};
use crate::kernel::ownership::ROUTE_PROTOCOL;
use crate::model::localhost::{FAR_ADDRESS, FAR_DEVICE, NEAR_ADDRESS};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use std::net::Ipv4Addr;

/// `RTM_NEWROUTE`, `RTM_GETROUTE`, `RTM_NEWRULE`, `RTM_DELRULE`, `RTM_GETRULE` (linux/rtnetlink.h).
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
const NEW_RULE: u16 = 32;
const DELETE_RULE: u16 = 33;
const GET_RULE: u16 = 34;

/// `sizeof(struct rtmsg)` (linux/rtnetlink.h) and `sizeof(struct fib_rule_hdr)` (linux/fib_rules.h). In both the family
/// is at byte 0 and the length of the destination's prefix at byte 1; a route's kind and a rule's action are at byte 7.
const HEADER: usize = 12;

/// `RTA_DST`, `RTA_OIF`, `RTA_TABLE` (linux/rtnetlink.h).
const ROUTE_DESTINATION: u16 = 1;
const ROUTE_DEVICE: u16 = 4;
const ROUTE_TABLE: u16 = 15;

/// `FRA_DST`, `FRA_IIFNAME`, `FRA_PRIORITY`, `FRA_TABLE`, `FRA_PROTOCOL` (linux/fib_rules.h; the last since Linux 4.17).
const RULE_DESTINATION: u16 = 1;
const RULE_DEVICE: u16 = 3;
const RULE_PRIORITY: u16 = 6;
const RULE_TABLE: u16 = 15;
const RULE_PROTOCOL: u16 = 21;

/// `FR_ACT_TO_TBL` (linux/fib_rules.h).
const TO_TABLE: u8 = 1;

/// `RTN_UNICAST`, `RTN_LOCAL`; `RT_SCOPE_LINK`, `RT_SCOPE_HOST` (linux/rtnetlink.h).
const UNICAST: u8 = 1;
const LOCAL: u8 = 2;
const SCOPE_LINK: u8 = 253;
const SCOPE_HOST: u8 = 254;

/// Where the far address is local, and where the ways out are. Like the metric of our other routes, they are numbers
/// that nobody comes upon by chance.
pub const TABLES: [u32; 2] = [AT_FAR_END, WAYS_OUT];
const AT_FAR_END: u32 = 0x4950;
const WAYS_OUT: u32 = 0x4951;

/// A rule. Each is about packets of our own alone, so that it may come before all others but the kernel's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// What comes in by the far end.
    FromFarEnd,
    /// What is for one of the two addresses; 31 bits of which they share.
    ToAddresses,
}

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// Makes the far address local for what comes in by the far end.
    AtFarEnd,
    /// From the client to the far address.
    Out,
    /// Of answers to the near address.
    Back,
}

impl Rule {
    /// Both.
    pub const ALL: [Self; 2] = [Self::FromFarEnd, Self::ToAddresses];

    fn priority(self) -> u32 {
        match self {
            Self::FromFarEnd => 117,
            Self::ToAddresses => 118,
        }
    }

    fn table(self) -> u32 {
        match self {
            Self::FromFarEnd => AT_FAR_END,
            Self::ToAddresses => WAYS_OUT,
        }
    }
}

impl Route {
    /// All three.
    pub const ALL: [Self; 3] = [Self::AtFarEnd, Self::Out, Self::Back];

    /// The end it leads to.
    pub fn end(self) -> End {
        match self {
            Self::Out => End::Near,
            Self::AtFarEnd | Self::Back => End::Far,
        }
    }

    fn table(self) -> u32 {
        match self {
            Self::AtFarEnd => AT_FAR_END,
            Self::Out | Self::Back => WAYS_OUT,
        }
    }

    fn destination(self) -> Ipv4Addr {
        match self {
            Self::AtFarEnd | Self::Out => FAR_ADDRESS,
            Self::Back => NEAR_ADDRESS,
        }
    }

    fn kind_and_scope(self) -> (u8, u8) {
        match self {
            Self::AtFarEnd => (LOCAL, SCOPE_HOST),
            Self::Out | Self::Back => (UNICAST, SCOPE_LINK),
        }
    }
}

/// Adds a request for all rules of IPv4; `flags` make it a dump.
pub fn rules(batch: &mut Batch, flags: u16) {
    batch.push(GET_RULE, flags, |message| message.raw(&[IPV4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
}

/// Adds a request for all routes of a table; `flags` make it a dump. The kernel filters by table if it can
/// (`NETLINK_GET_STRICT_CHK`, since Linux 4.20).
pub fn routes(batch: &mut Batch, flags: u16, table: u32) {
    batch.push(GET_ROUTE, flags, |message| {
        message.raw(&[IPV4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        message.attribute(ROUTE_TABLE, &table.to_ne_bytes());
    });
}

/// Adds the request that makes a rule.
pub fn add_rule(batch: &mut Batch, rule: Rule) {
    write_rule(batch, (NEW_RULE, NLM_F_CREATE | NLM_F_EXCL), rule);
}

/// Adds the request that removes a rule.
pub fn delete_rule(batch: &mut Batch, rule: Rule) {
    write_rule(batch, (DELETE_RULE, 0), rule);
}

/// Adds the request that makes a route by the device with this number.
pub fn add_route(batch: &mut Batch, route: Route, device: u32) {
    let (kind, scope) = route.kind_and_scope();
    batch.push(NEW_ROUTE, NLM_F_CREATE | NLM_F_REPLACE, |message| {
        message.raw(&[IPV4, 32, 0, 0, 0, ROUTE_PROTOCOL, scope, kind, 0, 0, 0, 0]);
        message.attribute(ROUTE_TABLE, &route.table().to_ne_bytes());
        message.attribute(ROUTE_DESTINATION, &route.destination().octets());
        message.attribute(ROUTE_DEVICE, &device.to_ne_bytes());
    });
}

fn write_rule(batch: &mut Batch, (kind, flags): (u16, u16), rule: Rule) {
    let prefix = if rule == Rule::ToAddresses { 31 } else { 0 };
    batch.push(kind, flags, |message| {
        message.raw(&[IPV4, prefix, 0, 0, 0, 0, 0, TO_TABLE, 0, 0, 0, 0]);
        match rule {
            Rule::FromFarEnd => message.attribute(RULE_DEVICE, &[FAR_DEVICE.as_bytes(), &[0]].concat()),
            Rule::ToAddresses => message.attribute(RULE_DESTINATION, &NEAR_ADDRESS.octets()),
        }
        message.attribute(RULE_PRIORITY, &rule.priority().to_ne_bytes());
        message.attribute(RULE_TABLE, &rule.table().to_ne_bytes());
        message.attribute(RULE_PROTOCOL, &[ROUTE_PROTOCOL]);
    });
}

/// Reads one of our rules out of the payload of an answer; none if it is another.
///
/// # Errors
/// It cannot be understood.
pub fn decode_rule(payload: &[u8]) -> Result<Option<Rule>, Malformed> {
    let (mut priority, mut table, mut device, mut destination) = (None, None, None, None);
    for attribute in attributes(payload.get(HEADER..).unwrap_or_default()) {
        let attribute = attribute?;
        match attribute.kind {
            RULE_PRIORITY => priority = Some(u32_of(attribute.value)?),
            RULE_TABLE => table = Some(u32_of(attribute.value)?),
            RULE_DEVICE => device = Some(text_of(attribute.value)?),
            RULE_DESTINATION => destination = Some(attribute.value),
            _ => {}
        }
    }
    let header = (payload.first(), payload.get(1), payload.get(7));
    let is_ours = |rule: &Rule| {
        let selects = match rule {
            Rule::FromFarEnd => device == Some(FAR_DEVICE) && destination.is_none() && header.1 == Some(&0),
            Rule::ToAddresses => {
                device.is_none() && destination == Some(&NEAR_ADDRESS.octets()) && header.1 == Some(&31)
            }
        };
        selects && (priority, table) == (Some(rule.priority()), Some(rule.table()))
    };
    let leads = header.0 == Some(&IPV4) && header.2 == Some(&TO_TABLE);
    Ok(Rule::ALL.into_iter().find(is_ours).filter(|_| leads))
}

/// Reads one of our routes out of the payload of an answer, where the ends have these numbers; none if it is another.
///
/// # Errors
/// It cannot be understood.
pub fn decode_route(payload: &[u8], [near, far]: [u32; 2]) -> Result<Option<Route>, Malformed> {
    let (mut table, mut device, mut destination) = (None, None, None);
    for attribute in attributes(payload.get(HEADER..).unwrap_or_default()) {
        let attribute = attribute?;
        match attribute.kind {
            ROUTE_TABLE => table = Some(u32_of(attribute.value)?),
            ROUTE_DEVICE => device = Some(u32_of(attribute.value)?),
            ROUTE_DESTINATION => destination = Some(attribute.value),
            _ => {}
        }
    }
    let is_ours = |route: &Route| {
        let index = if route.end() == End::Near { near } else { far };
        let (kind, _) = route.kind_and_scope();
        (table, device) == (Some(route.table()), Some(index))
            && destination == Some(&route.destination().octets())
            && (payload.first(), payload.get(1), payload.get(7)) == (Some(&IPV4), Some(&32), Some(&kind))
    };
    Ok(Route::ALL.into_iter().find(is_ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(write: impl Fn(&mut Batch)) -> Vec<u8> {
        let mut batch = Batch::new(0);
        write(&mut batch);
        batch.bytes()[16..].to_vec()
    }

    #[test]
    fn a_rule_is_known_again_and_no_other_is_taken_for_it() {
        for rule in Rule::ALL {
            let whole = payload(|batch| add_rule(batch, rule));
            assert_eq!(decode_rule(&whole), Ok(Some(rule)));
            // The family, the prefix, the action.
            for byte in [0, 1, 7] {
                let mut other = whole.clone();
                other[byte] ^= 8;
                assert_eq!(decode_rule(&other), Ok(None), "{rule:?} {byte}");
            }
            assert!(decode_rule(&whole[..whole.len() - 6]).is_err());
        }
        assert_eq!(decode_rule(&[0; HEADER]), Ok(None));
    }

    #[test]
    fn a_route_is_known_again_by_the_device_of_its_end() {
        for route in Route::ALL {
            let (right, wrong) = if route.end() == End::Near { (7, 8) } else { (8, 7) };
            let by = |device| payload(|batch| add_route(batch, route, device));
            assert_eq!(decode_route(&by(right), [7, 8]), Ok(Some(route)));
            assert_eq!(decode_route(&by(wrong), [7, 8]), Ok(None));
            let mut other = by(right);
            other[7] ^= 3;
            assert_eq!(decode_route(&other, [7, 8]), Ok(None), "of another kind");
            assert!(decode_route(&by(right)[..HEADER + 3], [7, 8]).is_err());
        }
    }

    #[test]
    fn one_rule_is_for_both_addresses() {
        assert_eq!(NEAR_ADDRESS.to_bits() ^ FAR_ADDRESS.to_bits(), 1);
        assert_eq!(NEAR_ADDRESS.to_bits() & 1, 0);
    }
}
