//! Writes IPVS requests straight into a batch, with no allocation for each.

use super::{Identity, PERSISTENT, Timeouts, command, destination, forwarding_number, service, subject};
use crate::kernel::netlink::{Batch, Message, address_family};
use crate::kernel::ownership;
use crate::model::{DestinationKey, DestinationSpec, Family, Op, Persistence, VirtualServerKey, VirtualServerSpec};
use std::net::IpAddr;

/// `IPVS_GENL_VERSION` (linux/ip_vs.h).
const VERSION: u8 = 1;

/// IPVS requests for the family number that this kernel gave to IPVS.
#[derive(Clone, Copy, Debug)]
pub struct Encoder {
    /// `nlmsg_type` of all IPVS messages.
    pub family: u16,
}

impl Encoder {
    /// Adds the request for an operation on a virtual server or a destination; for others it adds nothing.
    pub fn operation(&self, batch: &mut Batch, op: &Op) {
        match op {
            Op::AddVirtualServer(key, spec) => {
                self.request(batch, command::NEW_SERVICE, |message| put_service(message, *key, Some(spec)));
            }
            Op::UpdateVirtualServer(key, spec) => {
                self.request(batch, command::SET_SERVICE, |message| put_service(message, *key, Some(spec)));
            }
            Op::RemoveVirtualServer(key) => {
                self.request(batch, command::DEL_SERVICE, |message| put_service(message, *key, None));
            }
            Op::AddDestination(key, destination, spec) => self.request(batch, command::NEW_DEST, |message| {
                put_service(message, *key, None);
                put_destination(message, *destination, Some(spec));
            }),
            Op::UpdateDestination(key, destination, spec) => self.request(batch, command::SET_DEST, |message| {
                put_service(message, *key, None);
                put_destination(message, *destination, Some(spec));
            }),
            Op::RemoveDestination(key, destination) => self.request(batch, command::DEL_DEST, |message| {
                put_service(message, *key, None);
                put_destination(message, *destination, None);
            }),
            _ => {}
        }
    }

    /// Adds a request for the version and the size of the connection table.
    pub fn info(&self, batch: &mut Batch) {
        self.request(batch, command::GET_INFO, |_| ());
    }

    /// Adds a request for the timeouts.
    pub fn timeouts(&self, batch: &mut Batch) {
        self.request(batch, command::GET_CONFIG, |_| ());
    }

    /// Adds the request that sets the timeouts.
    pub fn set_timeouts(&self, batch: &mut Batch, timeouts: Timeouts) {
        self.request(batch, command::SET_CONFIG, |message| {
            message.attribute(subject::TIMEOUT_TCP, &timeouts.tcp.to_ne_bytes());
            message.attribute(subject::TIMEOUT_TCP_FIN, &timeouts.tcp_fin.to_ne_bytes());
            message.attribute(subject::TIMEOUT_UDP, &timeouts.udp.to_ne_bytes());
        });
    }

    /// Adds a request for one service.
    pub fn service(&self, batch: &mut Batch, key: VirtualServerKey) {
        self.request(batch, command::GET_SERVICE, |message| put_service(message, key, None));
    }

    /// Adds a request for all services; `flags` make it a dump.
    pub fn services(&self, batch: &mut Batch, flags: u16) {
        batch.push(self.family, flags, |message| message.raw(&Self::header(command::GET_SERVICE)));
    }

    /// Adds a request for all destinations of a service; `flags` make it a dump.
    pub fn destinations(&self, batch: &mut Batch, flags: u16, of: Identity) {
        batch.push(self.family, flags, |message| {
            message.raw(&Self::header(command::GET_DEST));
            message.nested(subject::SERVICE, |message| put_identity(message, of));
        });
    }

    /// `struct genlmsghdr` (linux/genetlink.h).
    pub(super) fn header(command: u8) -> [u8; 4] {
        [command, VERSION, 0, 0]
    }

    fn request(&self, batch: &mut Batch, command: u8, write: impl FnOnce(&mut Message<'_>)) {
        batch.push(self.family, 0, |message| {
            message.raw(&Self::header(command));
            write(message);
        });
    }
}

/// A service's identity, and its settings if the request is to set them.
fn put_service(message: &mut Message<'_>, key: VirtualServerKey, spec: Option<&VirtualServerSpec>) {
    message.nested(subject::SERVICE, |message| {
        put_identity(message, key.into());
        let Some(spec) = spec else { return };
        put_text(message, service::SCHED_NAME, spec.scheduler.as_str());
        put_flags(message, spec);
        let persistence = spec.persistence.unwrap_or(Persistence { timeout: 0, prefix: key.family().bits() });
        message.attribute(service::TIMEOUT, &persistence.timeout.to_ne_bytes());
        message.attribute(service::NETMASK, &netmask(key.family(), persistence.prefix));
    });
}

fn put_identity(message: &mut Message<'_>, identity: Identity) {
    message.attribute(service::AF, &family_field(identity.family()));
    match identity {
        Identity::Mark { mark, .. } => message.attribute(service::FWMARK, &mark.to_ne_bytes()),
        Identity::Address { address, port, protocol } => {
            message.attribute(service::PROTOCOL, &protocol.to_ne_bytes());
            message.attribute(service::ADDR, &address_field(address));
            message.attribute(service::PORT, &port.to_be_bytes());
        }
    }
}

/// `struct ip_vs_flags`: the flags, and which of them are to be set. All are, or an update would leave the tag and
/// the scheduler's flags as they were.
fn put_flags(message: &mut Message<'_>, spec: &VirtualServerSpec) {
    let persistent = if spec.persistence.is_some() { PERSISTENT } else { 0 };
    let mut value = [0; 8];
    let (flags, mask) = value.split_at_mut(4);
    flags.copy_from_slice(&ownership::tagged(spec.flags.0 | persistent).to_ne_bytes());
    mask.copy_from_slice(&u32::MAX.to_ne_bytes());
    message.attribute(service::FLAGS, &value);
}

/// A destination's identity, and its settings if the request is to set them.
fn put_destination(message: &mut Message<'_>, key: DestinationKey, spec: Option<&DestinationSpec>) {
    message.nested(subject::DEST, |message| {
        message.attribute(destination::ADDR_FAMILY, &family_field(Family::of(key.address)));
        message.attribute(destination::ADDR, &address_field(key.address));
        message.attribute(destination::PORT, &key.port.to_be_bytes());
        let Some(spec) = spec else { return };
        message.attribute(destination::FWD_METHOD, &forwarding_number(spec.forwarding).to_ne_bytes());
        message.attribute(destination::WEIGHT, &spec.weight.to_ne_bytes());
        message.attribute(destination::U_THRESH, &spec.upper_threshold.to_ne_bytes());
        message.attribute(destination::L_THRESH, &spec.lower_threshold.to_ne_bytes());
    });
}

/// A text with its closing zero.
fn put_text(message: &mut Message<'_>, kind: u16, text: &str) {
    let mut value = [0; 16];
    let length = text.len().min(value.len() - 1);
    if let (Some(to), Some(from)) = (value.get_mut(..length), text.as_bytes().get(..length)) {
        to.copy_from_slice(from);
    }
    message.attribute(kind, value.get(..=length).unwrap_or(&value));
}

/// A family's number in 16 bits.
fn family_field(family: Family) -> [u8; 2] {
    u16::from(address_family::number(family)).to_ne_bytes()
}

/// `union nf_inet_addr`: sixteen bytes, of which IPv4 takes the first four.
fn address_field(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
    }
}

/// IPv4: the mask in network byte order. IPv6: the prefix length as a number.
fn netmask(family: Family, prefix: u8) -> [u8; 4] {
    match family {
        Family::Ipv4 => u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0).to_be_bytes(),
        Family::Ipv6 => u32::from(prefix).to_ne_bytes(),
    }
}
