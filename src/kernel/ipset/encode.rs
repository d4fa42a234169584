//! Writes the requests of ipset's protocol. Numbers are in network byte order, and each says so of itself.

use super::{PROTOCOL, SUBSYSTEM, WITH_MARKS, address, command, family_number, field, subject, type_name};
use crate::kernel::netlink::address_family::IPV4;
use crate::kernel::netlink::{Batch, Message};
use crate::model::Op;
use crate::model::netfilter::{AddressPort, Capacity, Mark, Member, SetKey, SetKind, SetType};
use netlink_packet_core::NLM_F_EXCL;
use std::net::IpAddr;

/// `NLA_F_NET_BYTEORDER` (linux/netlink.h).
const NETWORK_ORDER: u16 = 0x4000;

/// Adds the request for an operation on a set that takes one request; for others it adds nothing.
pub fn operation(batch: &mut Batch, op: &Op) {
    match op {
        Op::CreateSet(key, capacity) => create(batch, &key.name(), *key, *capacity),
        Op::DestroySet(key) => destroy(batch, &key.name()),
        Op::AddMember(key, member, mark) => add(batch, (&key.name(), NLM_F_EXCL), *member, *mark),
        // Without the flag, what is there gets the new mark.
        Op::UpdateMember(key, member, mark) => add(batch, (&key.name(), 0), *member, *mark),
        Op::RemoveMember(key, member) => request(batch, (command::DELETE, NLM_F_EXCL), &key.name(), |message| {
            message.nested(subject::DATA, |message| put_member(message, *member));
        }),
        _ => {}
    }
}

/// Adds a request to create a set like `key`'s under a name.
pub fn create(batch: &mut Batch, name: &str, key: SetKey, capacity: Capacity) {
    let set_type = key.kind.set_type();
    let (kernel_type, revision) = type_name(set_type);
    request(batch, (command::CREATE, NLM_F_EXCL), name, |message| {
        put_text(message, subject::TYPE_NAME, kernel_type);
        message.attribute(subject::REVISION, &[revision]);
        message.attribute(subject::FAMILY, &[family_number(key)]);
        message.nested(subject::DATA, |message| put_settings(message, key.kind, capacity));
    });
}

/// Adds a request to destroy a set. Without the flag, one that is not there would be no error.
pub fn destroy(batch: &mut Batch, name: &str) {
    request(batch, (command::DESTROY, NLM_F_EXCL), name, |_| ());
}

/// Adds a request to give two sets of one type each other's name, for all rules at once.
pub fn swap(batch: &mut Batch, name: &str, other: &str) {
    request(batch, (command::SWAP, 0), name, |message| put_text(message, subject::OTHER_SET_NAME, other));
}

/// Adds a request to add a member; `NLM_F_EXCL` among the flags refuses one that is there.
pub fn add(batch: &mut Batch, (name, flags): (&str, u16), member: Member, mark: Option<Mark>) {
    request(batch, (command::ADD, flags), name, |message| {
        message.nested(subject::DATA, |message| {
            put_member(message, member);
            if let Some(mark) = mark {
                // The mark, and which of its bits are set: all, because IPVS compares all.
                let value = u64::from(mark.bits()) << 32 | u64::from(u32::MAX);
                message.attribute(field::MARK | NETWORK_ORDER, &value.to_be_bytes());
            }
        });
    });
}

/// Adds a request for a set and its members; `flags` make it a dump.
pub fn list(batch: &mut Batch, flags: u16, name: &str) {
    request(batch, (command::LIST, flags), name, |_| ());
}

fn request(batch: &mut Batch, (command, flags): (u16, u16), name: &str, write: impl FnOnce(&mut Message<'_>)) {
    batch.push(SUBSYSTEM | command, flags, |message| {
        // struct nfgenmsg (linux/netfilter/nfnetlink.h): family, version, resource
        message.raw(&[IPV4, 0, 0, 0]);
        message.attribute(subject::PROTOCOL, &[PROTOCOL]);
        put_text(message, subject::SET_NAME, name);
        write(message);
    });
}

fn put_settings(message: &mut Message<'_>, kind: SetKind, capacity: Capacity) {
    if kind.set_type() == SetType::Port {
        message.attribute(field::PORT | NETWORK_ORDER, &0_u16.to_be_bytes());
        message.attribute(field::LAST_PORT | NETWORK_ORDER, &u16::MAX.to_be_bytes());
    } else {
        message.attribute(field::MOST_MEMBERS | NETWORK_ORDER, &capacity.0.to_be_bytes());
    }
    if kind.has_marks() {
        message.attribute(field::FLAGS | NETWORK_ORDER, &WITH_MARKS.to_be_bytes());
    }
}

fn put_member(message: &mut Message<'_>, member: Member) {
    match member {
        Member::Address(address) => put_address(message, field::ADDRESS, address),
        Member::Port(port) => message.attribute(field::PORT | NETWORK_ORDER, &port.to_be_bytes()),
        Member::AddressPort(frontend) => put_address_port(message, frontend),
        Member::AddressPortAddress(frontend, client) => {
            put_address_port(message, frontend);
            put_address(message, field::SECOND_ADDRESS, client);
        }
        Member::AddressPortNet(frontend, clients) => {
            put_address_port(message, frontend);
            put_address(message, field::SECOND_ADDRESS, clients.network());
            message.attribute(field::SECOND_PREFIX, &[clients.prefix_len()]);
        }
    }
}

fn put_address_port(message: &mut Message<'_>, AddressPort { address, protocol, port }: AddressPort) {
    put_address(message, field::ADDRESS, address);
    message.attribute(field::PORT | NETWORK_ORDER, &port.to_be_bytes());
    message.attribute(field::PROTOCOL, &[protocol.number()]);
}

fn put_address(message: &mut Message<'_>, kind: u16, value: IpAddr) {
    message.nested(kind, |message| match value {
        IpAddr::V4(value) => message.attribute(address::IPV4 | NETWORK_ORDER, &value.octets()),
        IpAddr::V6(value) => message.attribute(address::IPV6 | NETWORK_ORDER, &value.octets()),
    });
}

/// A text with its closing zero.
fn put_text(message: &mut Message<'_>, kind: u16, text: &str) {
    message.attribute(kind, &[text.as_bytes(), &[0]].concat());
}
