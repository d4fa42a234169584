//! The two ends as rtnetlink messages.

use super::End;
use crate::kernel::netlink::decode::{attributes, text_of, u32_of};
use crate::kernel::netlink::{Batch, Malformed, Message};
use crate::model::localhost::{FAR_DEVICE, NEAR_DEVICE};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};

/// `RTM_NEWLINK`, `RTM_DELLINK`, `RTM_GETLINK`, `RTM_SETLINK` (linux/rtnetlink.h).
const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;

/// `sizeof(struct ifinfomsg)` (linux/rtnetlink.h), whose index, flags and change of flags are at these bytes.
const HEADER: usize = 16;
const INDEX: usize = 4;
const FLAGS: usize = 8;

/// `IFF_UP` and `IFF_NOARP` (linux/if.h).
const UP_WITHOUT_ARP: u32 = 0x81;

/// `IFLA_ADDRESS`, `IFLA_IFNAME`, `IFLA_MTU`, `IFLA_LINK`, `IFLA_LINKINFO`, `IFLA_AF_SPEC` (linux/if_link.h).
const ADDRESS: u16 = 1;
const NAME: u16 = 3;
const MTU: u16 = 4;
const PEER: u16 = 5;
const LINK_INFO: u16 = 18;
const AF_SPEC: u16 = 26;

/// `IFLA_INFO_KIND`, `IFLA_INFO_DATA` (linux/if_link.h), and of a veth's data `VETH_INFO_PEER` (linux/veth.h).
const KIND: u16 = 1;
const DATA: u16 = 2;
const VETH_PEER: u16 = 1;

/// In `IFLA_AF_SPEC`: `AF_INET` with `IFLA_INET_CONF`, `AF_INET6` with `IFLA_INET6_ADDR_GEN_MODE` and of that
/// `IN6_ADDR_GEN_MODE_NONE` (linux/if_link.h).
const INET: u16 = 2;
const INET_SETTINGS: u16 = 1;
const INET6: u16 = 10;
const ADDRESS_GENERATION: u16 = 8;
const NO_ADDRESS: u8 = 1;

/// `IPV4_DEVCONF_ROUTE_LOCALNET` (linux/ip.h). What is told is an array of all settings, that begins with number 1.
const ROUTE_LOCALNET: u16 = 26;

/// The hardware address of both ends: locally administered, and `ipvsd` after that.
const HARDWARE_ADDRESS: [u8; 6] = [0x02, b'i', b'p', b'v', b's', b'd'];

/// That of most networks. A client sends as if to `lo`, however long; what its socket allows to be split is split here,
/// by its own kernel. Behind here IPVS would drop it, and what it said of that would not arrive.
const LENGTH: u32 = 1500;

/// One end as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The device's number.
    pub index: u32,
    /// That of the other end.
    peer: u32,
    /// Whether it is an end of such a pair at all.
    pub is_veth: bool,
    /// Whether it is up, asks for no neighbours, and takes what the other end sends.
    is_passable: bool,
    /// Whether packets with loopback addresses may come in and go out.
    routes_localnet: bool,
}

impl Link {
    /// Whether two devices are the two ends, and as they should be.
    pub fn are_whole(near: &Self, far: &Self) -> bool {
        let are_a_pair = near.is_veth && far.is_veth && (near.peer, far.peer) == (far.index, near.index);
        are_a_pair && near.is_passable && far.is_passable && near.routes_localnet && !far.routes_localnet
    }
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Near => NEAR_DEVICE,
            Self::Far => FAR_DEVICE,
        }
    }
}

/// Adds a request for an end.
pub fn question(batch: &mut Batch, end: End) {
    batch.push(GET_LINK, 0, |message| named(message, end));
}

/// Adds the request that removes an end, and the other one with it.
pub fn deletion(batch: &mut Batch, end: End) {
    batch.push(DELETE_LINK, 0, |message| named(message, end));
}

/// Adds the request that makes the pair.
pub fn creation(batch: &mut Batch) {
    batch.push(NEW_LINK, NLM_F_CREATE | NLM_F_EXCL, |message| {
        device(message, End::Near);
        message.nested(LINK_INFO, |message| {
            message.attribute(KIND, b"veth\0");
            message.nested(DATA, |message| message.nested(VETH_PEER, |message| device(message, End::Far)));
        });
    });
}

/// Adds the request that keeps an end from giving itself an IPv6 address, which it would do as it comes up.
pub fn without_ipv6(batch: &mut Batch, end: End) {
    batch.push(SET_LINK, 0, |message| {
        named(message, end);
        message.nested(AF_SPEC, |message| {
            message.nested(INET6, |message| message.attribute(ADDRESS_GENERATION, &[NO_ADDRESS]));
        });
    });
}

/// Adds the request that brings an end up.
pub fn bring_up(batch: &mut Batch, end: End) {
    batch.push(SET_LINK, 0, |message| {
        let flags = UP_WITHOUT_ARP.to_ne_bytes();
        message.raw(&[[0; FLAGS].as_slice(), &flags, &flags].concat());
        name(message, end);
        if end == End::Near {
            let on = 1_u32.to_ne_bytes();
            message.nested(AF_SPEC, |message| {
                message.nested(INET, |message| {
                    message.nested(INET_SETTINGS, |message| message.attribute(ROUTE_LOCALNET, &on));
                });
            });
        }
    });
}

/// Reads an end out of the payload of an answer.
///
/// # Errors
/// It cannot be understood.
pub fn decode(payload: &[u8]) -> Result<Link, Malformed> {
    let index = u32_of(payload.get(INDEX..).unwrap_or_default())?;
    let flags = u32_of(payload.get(FLAGS..).unwrap_or_default())?;
    let (mut peer, mut mtu, mut address) = (0, 0, &[][..]);
    let (mut is_veth, mut routes_localnet) = (false, false);
    for attribute in attributes(payload.get(HEADER..).unwrap_or_default()) {
        let attribute = attribute?;
        match attribute.kind {
            ADDRESS => address = attribute.value,
            MTU => mtu = u32_of(attribute.value)?,
            PEER => peer = u32_of(attribute.value)?,
            LINK_INFO => is_veth = within(attribute.value, &[KIND])?.map(text_of).transpose()? == Some("veth"),
            AF_SPEC => routes_localnet = has_route_localnet(attribute.value)?,
            _ => {}
        }
    }
    let is_up = flags & UP_WITHOUT_ARP == UP_WITHOUT_ARP;
    let is_passable = is_up && mtu == LENGTH && address == HARDWARE_ADDRESS;
    Ok(Link { index, peer, is_veth, is_passable, routes_localnet })
}

fn has_route_localnet(families: &[u8]) -> Result<bool, Malformed> {
    let settings = within(families, &[INET, INET_SETTINGS])?.unwrap_or_default();
    let value = settings.chunks_exact(size_of::<u32>()).nth(usize::from(ROUTE_LOCALNET - 1));
    Ok(value.map(u32_of).transpose()?.is_some_and(|value| value != 0))
}

/// The value of the attribute that is found by going into one after another.
fn within<'a>(bytes: &'a [u8], path: &[u16]) -> Result<Option<&'a [u8]>, Malformed> {
    let Some((first, rest)) = path.split_first() else { return Ok(Some(bytes)) };
    for attribute in attributes(bytes) {
        let attribute = attribute?;
        if attribute.kind == *first {
            return within(attribute.value, rest);
        }
    }
    Ok(None)
}

fn named(message: &mut Message<'_>, end: End) {
    message.raw(&[0; HEADER]);
    name(message, end);
}

fn name(message: &mut Message<'_>, end: End) {
    message.attribute(NAME, &[end.name().as_bytes(), &[0]].concat());
}

fn device(message: &mut Message<'_>, end: End) {
    named(message, end);
    message.attribute(ADDRESS, &HARDWARE_ADDRESS);
    message.attribute(MTU, &LENGTH.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer about device 7 whose peer is 8.
    fn answer(flags: u32, mtu: u32, kind: &[u8], localnet: u32) -> Vec<u8> {
        let mut batch = Batch::new(0);
        batch.push(0, 0, |message| {
            message.raw(&[[0; 4], 7_u32.to_ne_bytes(), flags.to_ne_bytes(), [0; 4]].concat());
            message.attribute(NAME, b"ipvsd-lo0\0");
            message.attribute(MTU, &mtu.to_ne_bytes());
            message.attribute(ADDRESS, &HARDWARE_ADDRESS);
            message.attribute(PEER, &8_u32.to_ne_bytes());
            message.nested(LINK_INFO, |message| message.attribute(KIND, kind));
            let mut settings = [0_u32; 33].map(u32::to_ne_bytes);
            settings[25] = localnet.to_ne_bytes();
            message.nested(AF_SPEC, |message| {
                message.nested(INET6, |message| message.attribute(1, &[0; 4]));
                message.nested(INET, |message| message.attribute(INET_SETTINGS, &settings.concat()));
            });
        });
        batch.bytes()[16..].to_vec()
    }

    #[test]
    fn a_pair_is_whole_when_each_end_is_as_it_should_be() {
        let near = decode(&answer(0x1_1081, LENGTH, b"veth\0", 1)).unwrap();
        let far = Link { index: 8, peer: 7, routes_localnet: false, ..near };
        assert_eq!((near.index, near.peer), (7, 8));
        assert!(Link::are_whole(&near, &far));
        for (broken, why) in [
            (answer(0x80, LENGTH, b"veth\0", 1), "down"),
            (answer(0x1, LENGTH, b"veth\0", 1), "it asks for neighbours"),
            (answer(0x81, 65_535, b"veth\0", 1), "nothing is split"),
            (answer(0x81, LENGTH, b"dummy\0", 1), "no pair"),
            (answer(0x81, LENGTH, b"veth\0", 0), "loopback addresses are martian"),
        ] {
            assert!(!Link::are_whole(&decode(&broken).unwrap(), &far), "{why}");
        }
        assert!(!Link::are_whole(&near, &Link { peer: 9, ..far }), "the peer of another");
        assert!(!Link::are_whole(&near, &Link { routes_localnet: true, ..far }));
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let whole = answer(0x81, LENGTH, b"veth\0", 1);
        for length in [0, 7, 11, 18, whole.len() - 1] {
            assert!(decode(&whole[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn only_the_near_end_is_given_route_localnet() {
        let bytes = |end| {
            let mut batch = Batch::new(0);
            bring_up(&mut batch, end);
            batch.bytes()[16..].to_vec()
        };
        let spec = |bytes: &[u8]| {
            within(&bytes[HEADER..], &[AF_SPEC, INET, INET_SETTINGS, ROUTE_LOCALNET]).unwrap().map(<[u8]>::to_vec)
        };
        assert_eq!(spec(&bytes(End::Near)), Some(1_u32.to_ne_bytes().to_vec()));
        assert_eq!(spec(&bytes(End::Far)), None);
    }
}
