//! Reads what connection tracking tells of an entry: whom its client addressed, and where the answers come from.

use super::{Entry, address, protocol, subject, tuple};
use crate::kernel::netlink::Malformed;
use crate::kernel::netlink::decode::{Attribute, attributes, u8_of};
use crate::model::netfilter::AddressPort;
use crate::model::{DestinationKey, Flow, Protocol};
use std::net::{IpAddr, SocketAddr};

/// Reads the payload of one entry.
///
/// None for an entry that is nothing to ipvsd: of a protocol that IPVS does not balance, or in a zone of somebody's own.
///
/// # Errors
/// It cannot be understood.
pub fn entry(payload: &[u8]) -> Result<Option<Entry>, Malformed> {
    let (mut original, mut reply, mut id) = (None, None, None);
    // Behind struct nfgenmsg.
    for attribute in attributes(payload.get(4..).unwrap_or_default()) {
        let Attribute { kind, value } = attribute?;
        match kind {
            subject::ORIGINAL => original = Tuple::of(value)?,
            subject::REPLY => reply = Tuple::of(value)?,
            subject::ID => id = Some(exact(value)?),
            subject::ZONE if u16::from_be_bytes(exact(value)?) != 0 => return Ok(None),
            _ => {}
        }
    }
    let (Some(original), Some(reply), Some(id)) = (original, reply, id) else { return Ok(None) };
    let Tuple { source, destination, protocol } = original;
    let flow = Flow {
        client: source,
        frontend: AddressPort { address: destination.ip(), protocol, port: destination.port() },
        destination: DestinationKey { address: reply.source.ip(), port: reply.source.port() },
    };
    Ok(Some(Entry { flow, id }))
}

/// One direction of an entry.
struct Tuple {
    source: SocketAddr,
    destination: SocketAddr,
    protocol: Protocol,
}

impl Tuple {
    fn of(value: &[u8]) -> Result<Option<Self>, Malformed> {
        let (mut addresses, mut ports) = (None, None);
        for attribute in attributes(value) {
            let Attribute { kind, value } = attribute?;
            match kind {
                tuple::ADDRESSES => addresses = self::addresses(value)?,
                tuple::PROTOCOL => ports = self::ports(value)?,
                tuple::ZONE if u16::from_be_bytes(exact(value)?) != 0 => return Ok(None),
                _ => {}
            }
        }
        let (Some((source, destination)), Some((protocol, from, to))) = (addresses, ports) else { return Ok(None) };
        Ok(Some(Self { source: (source, from).into(), destination: (destination, to).into(), protocol }))
    }
}

fn addresses(value: &[u8]) -> Result<Option<(IpAddr, IpAddr)>, Malformed> {
    let (mut source, mut destination) = (None, None);
    for attribute in attributes(value) {
        let Attribute { kind, value } = attribute?;
        match kind {
            address::IPV4_SOURCE => source = Some(exact::<4>(value)?.into()),
            address::IPV4_DESTINATION => destination = Some(exact::<4>(value)?.into()),
            address::IPV6_SOURCE => source = Some(exact::<16>(value)?.into()),
            address::IPV6_DESTINATION => destination = Some(exact::<16>(value)?.into()),
            _ => {}
        }
    }
    Ok(source.zip(destination))
}

/// The protocol with its two ports.
fn ports(value: &[u8]) -> Result<Option<(Protocol, u16, u16)>, Malformed> {
    let (mut protocol, mut source, mut destination) = (None, None, None);
    for attribute in attributes(value) {
        let Attribute { kind, value } = attribute?;
        match kind {
            protocol::NUMBER => protocol = Protocol::from_number(u8_of(value)?.into()),
            protocol::SOURCE_PORT => source = Some(u16::from_be_bytes(exact(value)?)),
            protocol::DESTINATION_PORT => destination = Some(u16::from_be_bytes(exact(value)?)),
            _ => {}
        }
    }
    let ports = source.zip(destination);
    Ok(protocol.zip(ports).map(|(protocol, (source, destination))| (protocol, source, destination)))
}

/// All of `value` as a field of this many bytes.
fn exact<const N: usize>(value: &[u8]) -> Result<[u8; N], Malformed> {
    value.try_into().map_err(|_| Malformed(format!("a field of {} bytes that should have {N}", value.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netlink::decode::messages;
    use crate::kernel::netlink::{Batch, Message};

    const FRONTEND: AddressPort =
        AddressPort { address: IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 1)), protocol: Protocol::Udp, port: 53 };

    /// One direction of an entry, with what `more` adds to it.
    fn put(message: &mut Message<'_>, (kind, number): (u16, u8), more: impl FnOnce(&mut Message<'_>)) {
        let ends = [([10, 244, 0, 7], 4000_u16), ([10, 96, 0, 1], 53), ([10, 1, 0, 1], 5353), ([10, 244, 0, 7], 4000)];
        let at = if kind == subject::ORIGINAL { 0 } else { 2 };
        let (source, destination) = (ends[at], ends[at + 1]);
        message.nested(kind, |message| {
            message.nested(tuple::ADDRESSES, |message| {
                message.attribute(address::IPV4_SOURCE, &source.0);
                message.attribute(address::IPV4_DESTINATION, &destination.0);
            });
            message.nested(tuple::PROTOCOL, |message| {
                message.attribute(protocol::NUMBER, &[number]);
                message.attribute(protocol::SOURCE_PORT, &source.1.to_be_bytes());
                message.attribute(protocol::DESTINATION_PORT, &destination.1.to_be_bytes());
            });
            more(message);
        });
    }

    /// An entry of this protocol and zone; with `in_tuple` the zone is of one direction only.
    fn payload(number: u8, zone: Option<u16>, in_tuple: bool) -> Vec<u8> {
        let put_zone = |message: &mut Message<'_>, kind, wanted: bool| {
            let zone = zone.filter(|_| wanted);
            zone.into_iter().for_each(|zone| message.attribute(kind, &zone.to_be_bytes()));
        };
        let mut batch = Batch::new(1);
        batch.push(0, 0, |message| {
            message.raw(&[2, 0, 0, 0]);
            put(message, (subject::ORIGINAL, number), |message| put_zone(message, tuple::ZONE, in_tuple));
            put(message, (subject::REPLY, number), |_| ());
            message.attribute(subject::ID, &[1, 2, 3, 4]);
            put_zone(message, subject::ZONE, !in_tuple);
        });
        messages(batch.bytes()).next().unwrap().unwrap().payload.to_vec()
    }

    #[test]
    fn an_entry_tells_whom_the_client_addressed_and_who_answers() {
        let flow = Flow {
            client: ([10, 244, 0, 7], 4000).into(),
            frontend: FRONTEND,
            destination: DestinationKey { address: [10, 1, 0, 1].into(), port: 5353 },
        };
        assert_eq!(entry(&payload(17, None, false)), Ok(Some(Entry { flow, id: [1, 2, 3, 4] })));
        let sctp = AddressPort { protocol: Protocol::Sctp, ..FRONTEND };
        assert_eq!(entry(&payload(132, None, false)).unwrap().unwrap().flow.frontend, sctp);
        assert_eq!(entry(&payload(1, None, false)), Ok(None), "ICMP");
    }

    #[test]
    fn what_is_in_a_zone_is_somebody_elses() {
        for in_tuple in [false, true] {
            assert_eq!(entry(&payload(17, Some(7), in_tuple)), Ok(None));
            assert!(entry(&payload(17, Some(0), in_tuple)).unwrap().is_some());
        }
    }

    #[test]
    fn nonsense_is_an_error_or_nothing_and_no_panic() {
        let whole = payload(17, Some(0), true);
        for end in 0..whole.len() {
            assert!(!matches!(entry(&whole[..end]), Ok(Some(_))) || end + 8 >= whole.len(), "{end}");
        }
        for at in 4..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 0xff;
            let _either = entry(&broken);
        }
    }
}
