//! Reads what ipset's protocol tells of a set: its type and limits, and its members.

use super::{UNSPECIFIED, WITH_MARKS, address, family_number, field, subject, type_name};
use crate::kernel::netlink::Malformed;
use crate::kernel::netlink::address_family::IPV6;
use crate::kernel::netlink::decode::{Attribute, attributes, text_of, u8_of};
use crate::model::Protocol;
use crate::model::netfilter::{AddressPort, Capacity, Mark, Member, SetKey, SetType};
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;

/// One message of the listing of a set. The members may be spread over many; the first has the header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// What kind of set it is; none in messages that only go on with the members.
    pub header: Option<Header>,
    /// Members with their marks. Those that ipvsd never adds, of other protocols for instance, are left out.
    pub members: Vec<(Member, Option<Mark>)>,
}

/// What kind of set it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// `hash:ip,port` and the like.
    pub type_name: String,
    /// `NFPROTO_IPV4`, `NFPROTO_IPV6`, or `NFPROTO_UNSPEC` where it has no addresses.
    pub family: u8,
    /// `maxelem`; none for a set of ports, which has room for all.
    pub capacity: Option<Capacity>,
    /// Whether members map to marks.
    pub has_marks: bool,
}

impl Header {
    /// What a set should be.
    pub fn wanted(key: SetKey) -> Self {
        let (type_name, family) = (type_name(key.kind.set_type()).0.to_owned(), family_number(key));
        Self { type_name, family, capacity: None, has_marks: key.kind.has_marks() }
    }

    /// Whether it is what a set should be; of which capacity can be changed.
    pub fn is_of(&self, key: SetKey) -> bool {
        let wanted = Self::wanted(key);
        let of_family = wanted.family == UNSPECIFIED || self.family == wanted.family;
        self.type_name == wanted.type_name && of_family && self.has_marks == wanted.has_marks
    }
}

impl fmt::Display for Header {
    /// The type with what belongs to it, as `ipset create` has it behind the name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.family == IPV6 { " family inet6" } else { "" };
        let marks = if self.has_marks { " skbinfo" } else { "" };
        write!(f, "{}{family}{marks}", self.type_name)
    }
}

/// Reads the payload of one message of the listing of a set of this type.
///
/// # Errors
/// It cannot be understood.
pub fn listing(payload: &[u8], set_type: SetType) -> Result<Listing, Malformed> {
    let mut listing = Listing::default();
    let (mut name, mut family) = (None, UNSPECIFIED);
    // Behind struct nfgenmsg.
    for attribute in attributes(payload.get(4..).unwrap_or_default()) {
        let Attribute { kind, value } = attribute?;
        match kind {
            subject::TYPE_NAME => name = Some(text_of(value)?),
            subject::FAMILY => family = u8_of(value)?,
            subject::DATA => listing.header = name.map(|name| header((name, family), value)).transpose()?,
            subject::MEMBERS => {
                for member in attributes(value) {
                    listing.members.extend(self::member(member?.value, set_type)?);
                }
            }
            _ => {}
        }
    }
    Ok(listing)
}

fn header((type_name, family): (&str, u8), data: &[u8]) -> Result<Header, Malformed> {
    let mut header = Header { type_name: type_name.to_owned(), family, capacity: None, has_marks: false };
    for attribute in attributes(data) {
        let Attribute { kind, value } = attribute?;
        match kind {
            field::MOST_MEMBERS => header.capacity = Some(Capacity(u32::from_be_bytes(exact(value)?))),
            field::FLAGS => header.has_marks = u32::from_be_bytes(exact(value)?) & WITH_MARKS != 0,
            _ => {}
        }
    }
    Ok(header)
}

/// The attributes of a member.
#[derive(Default)]
struct Fields {
    address: Option<IpAddr>,
    port: Option<u16>,
    protocol: Option<u8>,
    second: Option<IpAddr>,
    prefix: Option<u8>,
    mark: Option<Mark>,
}

impl Fields {
    fn of(data: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Self::default();
        for attribute in attributes(data) {
            let Attribute { kind, value } = attribute?;
            match kind {
                field::ADDRESS => fields.address = Some(ip(value)?),
                field::PORT => fields.port = Some(u16::from_be_bytes(exact(value)?)),
                field::PROTOCOL => fields.protocol = Some(u8_of(value)?),
                field::SECOND_ADDRESS => fields.second = Some(ip(value)?),
                field::SECOND_PREFIX => fields.prefix = Some(u8_of(value)?),
                field::MARK => fields.mark = mark(u64::from_be_bytes(exact(value)?)),
                _ => {}
            }
        }
        Ok(fields)
    }

    fn address_port(&self) -> Option<AddressPort> {
        let protocol = Protocol::from_number(self.protocol?.into())?;
        Some(AddressPort { address: self.address?, protocol, port: self.port? })
    }

    fn member(&self, set_type: SetType) -> Option<Member> {
        match set_type {
            SetType::Address => self.address.map(Member::Address),
            SetType::Port => self.port.map(Member::Port),
            SetType::AddressPort => self.address_port().map(Member::AddressPort),
            SetType::AddressPortAddress => Some(Member::AddressPortAddress(self.address_port()?, self.second?)),
            SetType::AddressPortNet => {
                // Without a prefix length it is a single address.
                let second = self.second?;
                let clients = self.prefix.map_or(Ok(IpNet::from(second)), |prefix| IpNet::new(second, prefix)).ok()?;
                Some(Member::AddressPortNet(self.address_port()?, clients.trunc()))
            }
        }
    }
}

fn member(data: &[u8], set_type: SetType) -> Result<Option<(Member, Option<Mark>)>, Malformed> {
    let fields = Fields::of(data)?;
    Ok(fields.member(set_type).map(|member| (member, fields.mark)))
}

/// The mark, if it is one of ours and all of it is set.
fn mark(value: u64) -> Option<Mark> {
    let [mark, mask] = [value >> 32, value & u64::from(u32::MAX)].map(|half| u32::try_from(half).unwrap_or_default());
    Mark::from_bits(mark).filter(|_| mask == u32::MAX)
}

fn ip(value: &[u8]) -> Result<IpAddr, Malformed> {
    let Some(Attribute { kind, value }) = attributes(value).next().transpose()? else {
        return Err(Malformed::new("an address without a value"));
    };
    match kind {
        address::IPV4 => Ok(IpAddr::from(exact::<4>(value)?)),
        address::IPV6 => Ok(IpAddr::from(exact::<16>(value)?)),
        _ => Err(Malformed::new("an address of an unknown family")),
    }
}

/// All of `value` as a field of this many bytes.
fn exact<const N: usize>(value: &[u8]) -> Result<[u8; N], Malformed> {
    value.try_into().map_err(|_| Malformed(format!("a field of {} bytes that should have {N}", value.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::ipset::encode;
    use crate::kernel::netlink::Batch;
    use crate::kernel::netlink::address_family::IPV4;
    use crate::kernel::netlink::decode::messages;
    use crate::model::Family;
    use crate::model::netfilter::SetKind;

    /// What a request says of a member, a listing says in the same attributes, one level deeper.
    #[test]
    fn members_come_back_as_they_were_sent() {
        let mark = Mark::new(7, Protocol::Udp);
        let of = |address: &str| AddressPort { address: address.parse().unwrap(), protocol: Protocol::Udp, port: 53 };
        let members = [
            (SetType::Address, Member::Address("10.0.0.1".parse().unwrap()), None),
            (SetType::Port, Member::Port(30_000), None),
            (SetType::AddressPort, Member::AddressPort(of("fd00::1")), mark),
            (SetType::AddressPortAddress, Member::AddressPortAddress(of("10.0.0.1"), [10, 1, 0, 1].into()), None),
            (SetType::AddressPortNet, Member::AddressPortNet(of("fd00::1"), "fd00:1::/64".parse().unwrap()), None),
            (SetType::AddressPortNet, Member::AddressPortNet(of("10.0.0.1"), "10.1.0.1/32".parse().unwrap()), None),
        ];
        for (set_type, member, mark) in members {
            let mut batch = Batch::new(1);
            encode::add(&mut batch, ("NAME", 0), member, mark);
            let sent = messages(batch.bytes()).next().unwrap().unwrap().payload;
            let data = attributes(&sent[4..]).map(Result::unwrap).find(|attribute| attribute.kind == subject::DATA);
            assert_eq!(self::member(data.unwrap().value, set_type), Ok(Some((member, mark))));
        }
    }

    #[test]
    fn a_set_of_another_type_or_family_or_without_marks_is_told_from_ours() {
        let key = |kind, family| SetKey { kind, family };
        let marked = Header::wanted(key(SetKind::ShortCircuit, Family::Ipv6));
        assert_eq!(marked.to_string(), "hash:ip,port family inet6 skbinfo");
        for other in [
            Header { has_marks: false, ..marked.clone() },
            Header { family: IPV4, ..marked.clone() },
            Header { type_name: "hash:net,port".into(), ..marked.clone() },
        ] {
            assert!(!other.is_of(key(SetKind::ShortCircuit, Family::Ipv6)), "{other}");
        }
        let large = Header { capacity: Some(Capacity(1 << 20)), ..marked };
        assert!(large.is_of(key(SetKind::ShortCircuit, Family::Ipv6)));
        // Whatever family it says, it has no addresses.
        let ports = Header { type_name: "bitmap:port".into(), family: IPV4, capacity: None, has_marks: false };
        assert!(ports.is_of(key(SetKind::NodePortTcp, Family::Ipv6)));
    }

    #[test]
    fn nonsense_is_an_error_and_no_panic() {
        let key = SetKey { kind: SetKind::ShortCircuit, family: Family::Ipv4 };
        let mut batch = Batch::new(1);
        encode::create(&mut batch, "NAME", key, Capacity::LEAST);
        let whole = messages(batch.bytes()).next().unwrap().unwrap().payload.to_vec();
        assert!(listing(&whole, SetType::AddressPort).unwrap().header.unwrap().is_of(key));
        for end in 0..whole.len() {
            let _either = listing(&whole[..end], SetType::AddressPort);
        }
        for at in 4..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 0xff;
            let _either = listing(&broken, SetType::AddressPort);
        }
    }
}
