//! Reads IPVS's answers. Attributes that are not known are passed over, as a newer kernel may send more.

use super::{
    DestinationEntry, Identity, Info, Stats, Timeouts, Tunnel, VirtualServerEntry, destination, forwarding_of, service,
    subject,
};
use crate::kernel::netlink::decode::{attributes, generic_attributes, text_of, u8_of, u16_of, u32_of, u64_of};
use crate::kernel::netlink::{Malformed, address_family};
use crate::model::{DestinationKey, Family};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Reads a service out of the payload of an answer to `IPVS_CMD_GET_SERVICE`.
///
/// # Errors
/// An attribute that every service has is missing, or one is too short.
pub fn service(payload: &[u8]) -> Result<VirtualServerEntry, Malformed> {
    let mut raw = RawIdentity::default();
    let mut entry = VirtualServerEntry {
        identity: Identity::Mark { mark: 0, family: Family::Ipv4 },
        scheduler: String::new(),
        persistence_engine: None,
        flags: 0,
        timeout: 0,
        netmask: 0,
        stats: Stats::default(),
    };
    let mut netmask = [0; 4];
    for attribute in attributes(body(payload, subject::SERVICE)?) {
        let attribute = attribute?;
        let value = attribute.value;
        match attribute.kind {
            service::SCHED_NAME => entry.scheduler = text_of(value)?.to_owned(),
            service::PE_NAME => entry.persistence_engine = Some(text_of(value)?.to_owned()),
            service::FLAGS => entry.flags = u32_of(value)?,
            service::TIMEOUT => entry.timeout = u32_of(value)?,
            service::NETMASK => netmask = array(value)?,
            service::STATS | service::STATS64 => entry.stats.read(value, attribute.kind == service::STATS64)?,
            kind => raw.read(kind, value)?,
        }
    }
    entry.identity = raw.identity()?;
    entry.netmask = match entry.identity.family() {
        Family::Ipv4 => u32::from_be_bytes(netmask),
        Family::Ipv6 => u32::from_ne_bytes(netmask),
    };
    Ok(entry)
}

/// Reads a destination of a service of `family` out of the payload of an answer to `IPVS_CMD_GET_DEST`.
///
/// # Errors
/// An attribute that every destination has is missing, or one is too short.
pub fn destination(payload: &[u8], family: Family) -> Result<DestinationEntry, Malformed> {
    let mut entry = DestinationEntry {
        key: DestinationKey { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), port: 0 },
        forwarding: None,
        weight: 0,
        upper_threshold: 0,
        lower_threshold: 0,
        active: 0,
        inactive: 0,
        persistent: 0,
        stats: Stats::default(),
        tunnel: Tunnel::default(),
    };
    // Since Linux 3.18 destinations may be of another family than their service (by tunnel), and say which.
    let mut family = family;
    let mut address = None;
    for attribute in attributes(body(payload, subject::DEST)?) {
        let attribute = attribute?;
        match attribute.kind {
            destination::ADDR_FAMILY => family = family_of(u16_of(attribute.value)?)?,
            destination::ADDR => address = Some(attribute.value),
            destination::STATS => entry.stats.read(attribute.value, false)?,
            destination::STATS64 => entry.stats.read(attribute.value, true)?,
            kind => read_setting(&mut entry, kind, attribute.value)?,
        }
    }
    entry.key.address = address_of(family, address.ok_or_else(|| missing("a destination's address"))?)?;
    Ok(entry)
}

/// Reads the payload of the answer to `IPVS_CMD_GET_INFO`.
///
/// # Errors
/// A number is too short.
pub fn info(payload: &[u8]) -> Result<Info, Malformed> {
    let mut info = Info { version: 0, connection_table_size: 0 };
    for attribute in generic_attributes(payload) {
        let attribute = attribute?;
        match attribute.kind {
            // IPVS_INFO_ATTR_VERSION and IPVS_INFO_ATTR_CONN_TAB_SIZE (linux/ip_vs.h)
            1 => info.version = u32_of(attribute.value)?,
            2 => info.connection_table_size = u32_of(attribute.value)?,
            _ => {}
        }
    }
    Ok(info)
}

/// Reads the payload of the answer to `IPVS_CMD_GET_CONFIG`.
///
/// # Errors
/// A number is too short.
pub fn timeouts(payload: &[u8]) -> Result<Timeouts, Malformed> {
    let mut timeouts = Timeouts::default();
    for attribute in generic_attributes(payload) {
        let attribute = attribute?;
        match attribute.kind {
            subject::TIMEOUT_TCP => timeouts.tcp = u32_of(attribute.value)?,
            subject::TIMEOUT_TCP_FIN => timeouts.tcp_fin = u32_of(attribute.value)?,
            subject::TIMEOUT_UDP => timeouts.udp = u32_of(attribute.value)?,
            _ => {}
        }
    }
    Ok(timeouts)
}

/// The attributes of the object that a message is about.
pub(super) fn body(payload: &[u8], subject: u16) -> Result<&[u8], Malformed> {
    for attribute in generic_attributes(payload) {
        let attribute = attribute?;
        if attribute.kind == subject {
            return Ok(attribute.value);
        }
    }
    Err(missing("the object that a message is about"))
}

fn read_setting(entry: &mut DestinationEntry, kind: u16, value: &[u8]) -> Result<(), Malformed> {
    match kind {
        destination::PORT => entry.key.port = u16::from_be(u16_of(value)?),
        destination::FWD_METHOD => entry.forwarding = forwarding_of(u32_of(value)?),
        destination::WEIGHT => entry.weight = u32_of(value)?,
        destination::U_THRESH => entry.upper_threshold = u32_of(value)?,
        destination::L_THRESH => entry.lower_threshold = u32_of(value)?,
        destination::ACTIVE_CONNS => entry.active = u32_of(value)?,
        destination::INACT_CONNS => entry.inactive = u32_of(value)?,
        destination::PERSIST_CONNS => entry.persistent = u32_of(value)?,
        destination::TUN_TYPE => entry.tunnel.kind = u8_of(value)?,
        destination::TUN_PORT => entry.tunnel.port = u16::from_be(u16_of(value)?),
        destination::TUN_FLAGS => entry.tunnel.flags = u16_of(value)?,
        _ => {}
    }
    Ok(())
}

/// The attributes that make an [`Identity`], in whatever order they come.
#[derive(Default)]
struct RawIdentity<'a> {
    family: Option<u16>,
    protocol: Option<u16>,
    address: Option<&'a [u8]>,
    port: Option<u16>,
    mark: Option<u32>,
}

impl<'a> RawIdentity<'a> {
    fn read(&mut self, kind: u16, value: &'a [u8]) -> Result<(), Malformed> {
        match kind {
            service::AF => self.family = Some(u16_of(value)?),
            service::PROTOCOL => self.protocol = Some(u16_of(value)?),
            service::ADDR => self.address = Some(value),
            service::PORT => self.port = Some(u16::from_be(u16_of(value)?)),
            service::FWMARK => self.mark = Some(u32_of(value)?),
            _ => {}
        }
        Ok(())
    }

    fn identity(self) -> Result<Identity, Malformed> {
        let family = family_of(self.family.ok_or_else(|| missing("a service's family"))?)?;
        match (self.mark, self.address, self.port, self.protocol) {
            (Some(mark), ..) if mark != 0 => Ok(Identity::Mark { mark, family }),
            (_, Some(address), Some(port), Some(protocol)) => {
                Ok(Identity::Address { address: address_of(family, address)?, port, protocol })
            }
            _ => Err(missing("a service's address, port or protocol")),
        }
    }
}

impl Stats {
    /// Reads `IPVS_STATS_ATTR_*`; `wide` if all numbers have 64 bits. A kernel that sends both kinds sends the narrow
    /// one first.
    fn read(&mut self, bytes: &[u8], wide: bool) -> Result<(), Malformed> {
        for attribute in attributes(bytes) {
            let attribute = attribute?;
            let Some(field) = self.field(attribute.kind) else { continue };
            // In the narrow kind the byte totals (4 and 5) are wide nevertheless.
            *field = match wide || matches!(attribute.kind, 4 | 5) {
                true => u64_of(attribute.value)?,
                false => u32_of(attribute.value)?.into(),
            };
        }
        Ok(())
    }

    /// Where attribute `kind` belongs; nowhere for padding (11), which stands between wide numbers.
    fn field(&mut self, kind: u16) -> Option<&mut u64> {
        Some(match kind {
            1 => &mut self.connections,
            2 => &mut self.packets_in,
            3 => &mut self.packets_out,
            4 => &mut self.bytes_in,
            5 => &mut self.bytes_out,
            6 => &mut self.connection_rate,
            7 => &mut self.packet_rate_in,
            8 => &mut self.packet_rate_out,
            9 => &mut self.byte_rate_in,
            10 => &mut self.byte_rate_out,
            _ => return None,
        })
    }
}

fn family_of(number: u16) -> Result<Family, Malformed> {
    let family = u8::try_from(number).ok().and_then(address_family::from_number);
    family.ok_or_else(|| Malformed(format!("address family {number}")))
}

/// An address out of a field of sixteen bytes, of which IPv4 takes the first four.
fn address_of(family: Family, field: &[u8]) -> Result<IpAddr, Malformed> {
    match family {
        Family::Ipv4 => array(field).map(|octets: [u8; 4]| Ipv4Addr::from(octets).into()),
        Family::Ipv6 => array(field).map(|octets: [u8; 16]| Ipv6Addr::from(octets).into()),
    }
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Malformed> {
    bytes.first_chunk().copied().ok_or_else(|| Malformed(format!("{} bytes where {N} belong", bytes.len())))
}

fn missing(what: &str) -> Malformed {
    Malformed(format!("{what} is missing"))
}
