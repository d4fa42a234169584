//! Writes the requests to connection tracking. Addresses and ports are in network byte order, the filter's flags in this
//! machine's.

use super::{Entry, Filter, SUBSYSTEM, address, command, filter, protocol, subject, tuple};
use crate::kernel::netlink::{Batch, Message, address_family};
use crate::model::netfilter::AddressPort;
use crate::model::{Family, Flow, Protocol};
use std::net::IpAddr;

/// Adds a request for the entries of a family; `flags` make it a dump.
pub fn list(batch: &mut Batch, flags: u16, (family, filter): (Family, Filter)) {
    request(batch, (command::GET, flags), family, |message| match filter {
        Filter::Nothing => {}
        Filter::Protocol(protocol) => {
            message.nested(subject::ORIGINAL, |tuple| {
                tuple.nested(tuple::PROTOCOL, |message| message.attribute(protocol::NUMBER, &[protocol.number()]));
            });
            put_filter(message, filter::PROTOCOL);
        }
        Filter::Frontend(AddressPort { address, protocol, port }) => {
            message.nested(subject::ORIGINAL, |tuple| {
                tuple.nested(tuple::ADDRESSES, |message| put_destination(message, address));
                tuple.nested(tuple::PROTOCOL, |message| {
                    message.attribute(protocol::NUMBER, &[protocol.number()]);
                    message.attribute(protocol::DESTINATION_PORT, &port.to_be_bytes());
                });
            });
            put_filter(message, filter::DESTINATION | filter::PROTOCOL | filter::DESTINATION_PORT);
        }
    });
}

/// Adds a request to delete this entry and no other. Without the tuple the kernel would delete them all.
pub fn delete(batch: &mut Batch, Entry { flow: Flow { client, frontend, .. }, id }: Entry) {
    let AddressPort { address, protocol, port } = frontend;
    request(batch, (command::DELETE, 0), Family::of(address), |message| {
        message.nested(subject::ORIGINAL, |tuple| {
            tuple.nested(tuple::ADDRESSES, |message| {
                put_source(message, client.ip());
                put_destination(message, address);
            });
            tuple.nested(tuple::PROTOCOL, |message| put_ports(message, protocol, (client.port(), port)));
        });
        message.attribute(subject::ID, &id);
    });
}

fn request(batch: &mut Batch, (command, flags): (u16, u16), family: Family, write: impl FnOnce(&mut Message<'_>)) {
    batch.push(SUBSYSTEM | command, flags, |message| {
        // struct nfgenmsg (linux/netfilter/nfnetlink.h): family, version, resource
        message.raw(&[address_family::number(family), 0, 0, 0]);
        write(message);
    });
}

fn put_source(message: &mut Message<'_>, source: IpAddr) {
    match source {
        IpAddr::V4(source) => message.attribute(address::IPV4_SOURCE, &source.octets()),
        IpAddr::V6(source) => message.attribute(address::IPV6_SOURCE, &source.octets()),
    }
}

fn put_destination(message: &mut Message<'_>, destination: IpAddr) {
    match destination {
        IpAddr::V4(destination) => message.attribute(address::IPV4_DESTINATION, &destination.octets()),
        IpAddr::V6(destination) => message.attribute(address::IPV6_DESTINATION, &destination.octets()),
    }
}

fn put_ports(message: &mut Message<'_>, protocol: Protocol, (source, destination): (u16, u16)) {
    message.attribute(protocol::NUMBER, &[protocol.number()]);
    message.attribute(protocol::SOURCE_PORT, &source.to_be_bytes());
    message.attribute(protocol::DESTINATION_PORT, &destination.to_be_bytes());
}

fn put_filter(message: &mut Message<'_>, flags: u32) {
    message.nested(subject::FILTER, |message| message.attribute(filter::ORIGINAL_FLAGS, &flags.to_ne_bytes()));
}
