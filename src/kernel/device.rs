//! kube-proxy's device as rtnetlink messages: whether it is there, the addresses on it, and its removal.
//!
//! The whole device goes at once, never an address: the kernel walks all routes for each IPv6 address that is deleted.

use super::netlink::decode::{attributes, text_of, u32_of};
use super::netlink::{Batch, Malformed, address_family};
use crate::model::{Family, KUBE_PROXY_DEVICE};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `RTM_DELLINK`, `RTM_GETLINK`, `RTM_GETADDR` (linux/rtnetlink.h).
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const GET_ADDRESS: u16 = 22;

/// `sizeof(struct ifinfomsg)` (linux/rtnetlink.h), whose index is at byte 4.
const LINK_HEADER: usize = 16;
/// `sizeof(struct ifaddrmsg)` (linux/if_addr.h), whose index is at byte 4.
const ADDRESS_HEADER: usize = 8;
/// In both.
const INDEX: usize = 4;

/// `IFLA_IFNAME`, `IFLA_LINKINFO` (linux/if_link.h) and within the latter `IFLA_INFO_KIND`.
const NAME: u16 = 3;
const LINK_INFO: u16 = 18;
const KIND: u16 = 1;

/// `IFA_ADDRESS` (linux/if_addr.h). A dummy device has no peer, whose address this would be.
const ADDRESS: u16 = 1;

/// Adds a request for the device.
pub fn link(batch: &mut Batch) {
    named(batch, GET_LINK);
}

/// Adds the request that removes the device.
pub fn removal(batch: &mut Batch) {
    named(batch, DELETE_LINK);
}

/// Adds a request for all addresses of a family on a device; `flags` make it a dump. Before Linux 4.20 the kernel
/// does not filter by device.
pub fn addresses(batch: &mut Batch, flags: u16, (family, device): (Family, u32)) {
    batch.push(GET_ADDRESS, flags, |message| {
        let [a, b, c, d] = device.to_ne_bytes();
        message.raw(&[address_family::number(family), 0, 0, 0, a, b, c, d]);
    });
}

/// Reads the device's number out of the payload of an answer; none if it is no dummy device, and so not kube-proxy's.
///
/// # Errors
/// It cannot be understood.
pub fn decode_link(payload: &[u8]) -> Result<Option<u32>, Malformed> {
    let mut is_dummy = false;
    for attribute in attributes(payload.get(LINK_HEADER..).unwrap_or_default()) {
        let attribute = attribute?;
        if attribute.kind == LINK_INFO {
            is_dummy = kind_of(attribute.value)? == Some("dummy");
        }
    }
    let index = u32_of(payload.get(INDEX..).unwrap_or_default())?;
    Ok(is_dummy.then_some(index))
}

/// Reads an address of a family on a device out of the payload of an answer; none if it is of another.
///
/// # Errors
/// It cannot be understood.
pub fn decode_address(payload: &[u8], (family, device): (Family, u32)) -> Result<Option<IpAddr>, Malformed> {
    let index = u32_of(payload.get(INDEX..).unwrap_or_default())?;
    // A kernel without IPv6 answers a question for IPv6 with the addresses of every family.
    if index != device || payload.first() != Some(&address_family::number(family)) {
        return Ok(None);
    }
    for attribute in attributes(payload.get(ADDRESS_HEADER..).unwrap_or_default()) {
        let attribute = attribute?;
        if attribute.kind == ADDRESS {
            return ip(attribute.value).map(Some);
        }
    }
    Err(Malformed::new("an address without an address"))
}

fn named(batch: &mut Batch, kind: u16) {
    let zero_terminated = [KUBE_PROXY_DEVICE.as_bytes(), &[0]].concat();
    batch.push(kind, 0, |message| {
        message.raw(&[0; LINK_HEADER]);
        message.attribute(NAME, &zero_terminated);
    });
}

fn kind_of(link_info: &[u8]) -> Result<Option<&str>, Malformed> {
    for attribute in attributes(link_info) {
        let attribute = attribute?;
        if attribute.kind == KIND {
            return text_of(attribute.value).map(Some);
        }
    }
    Ok(None)
}

fn ip(bytes: &[u8]) -> Result<IpAddr, Malformed> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Ok(Ipv4Addr::from(octets).into());
    }
    let octets = <[u8; 16]>::try_from(bytes).map_err(|_| Malformed::new("an address of impossible length"))?;
    Ok(Ipv6Addr::from(octets).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message about device 7.
    fn answer(header: [u8; 4], length: usize, write: impl FnOnce(&mut super::super::netlink::Message<'_>)) -> Vec<u8> {
        let mut bytes = header.to_vec();
        bytes.extend(7_u32.to_ne_bytes());
        bytes.resize(length, 0);
        let mut batch = Batch::new(0);
        batch.push(0, 0, |message| {
            message.raw(&bytes);
            write(message);
        });
        batch.bytes()[16..].to_vec()
    }

    #[test]
    fn only_a_dummy_device_is_kube_proxys() {
        let of_kind = |kind: &[u8]| {
            answer([0; 4], LINK_HEADER, |message| {
                message.attribute(NAME, b"kube-ipvs0\0");
                message.nested(LINK_INFO, |message| message.attribute(KIND, kind));
            })
        };
        assert_eq!(decode_link(&of_kind(b"dummy\0")), Ok(Some(7)));
        assert_eq!(decode_link(&of_kind(b"veth\0")), Ok(None));
        assert_eq!(decode_link(&answer([0; 4], LINK_HEADER, |_| ())), Ok(None));
        assert!(decode_link(&[0; 5]).is_err());
    }

    #[test]
    fn addresses_are_those_of_the_family_and_device_that_were_asked_for() {
        let four = answer([2, 32, 0, 0], ADDRESS_HEADER, |message| message.attribute(ADDRESS, &[10, 96, 0, 1]));
        let six = answer([10, 128, 0, 0], ADDRESS_HEADER, |message| message.attribute(ADDRESS, &[0xfd; 16]));
        let decoded = |payload: &[u8], asked| decode_address(payload, asked).unwrap().map(|ip| ip.to_string());
        assert_eq!(decoded(&four, (Family::Ipv4, 7)).as_deref(), Some("10.96.0.1"));
        assert_eq!(decoded(&six, (Family::Ipv6, 7)).as_deref(), Some("fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd"));
        assert_eq!([decoded(&four, (Family::Ipv4, 8)), decoded(&four, (Family::Ipv6, 7))], [None, None]);
        let bad = answer([2, 32, 0, 0], ADDRESS_HEADER, |message| message.attribute(ADDRESS, &[10, 96]));
        assert!(decode_address(&bad, (Family::Ipv4, 7)).is_err());
        assert!(decode_address(&answer([2, 32, 0, 0], ADDRESS_HEADER, |_| ()), (Family::Ipv4, 7)).is_err());
    }
}
