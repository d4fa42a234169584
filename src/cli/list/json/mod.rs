//! The table as JSON, for programs: the fields and their order are those of the structs here. docs/inspection.md has
//! them for people, and a test here holds it to them. Fields are only ever added.

mod other;
#[cfg(test)]
mod tests;

use super::names::Names;
use super::words::{self, Checksum};
use crate::kernel::ipvs::{self, DestinationEntry, VirtualServerEntry};
use crate::kernel::linux::Table;
use crate::model::{self, Forwarding, SchedulerFlags};
use serde::Serialize;
use std::io::{self, Write};
use std::net::IpAddr;

pub use other::{print_connections, print_sync_daemons, print_timeouts};

/// Prints the table, indented, with a line feed at the end.
pub fn print(out: &mut impl Write, table: &Table, names: &Names) -> io::Result<()> {
    let virtual_servers = table.virtual_servers.iter();
    let virtual_servers =
        virtual_servers.map(|(server, destinations)| VirtualServer::of(server, destinations, names)).collect();
    let listing = Listing { connection_table_size: table.info.connection_table_size, virtual_servers };
    print_value(out, &listing)
}

fn print_value(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listing<'a> {
    /// Buckets.
    connection_table_size: u32,
    virtual_servers: Vec<VirtualServer<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VirtualServer<'a> {
    #[serde(flatten)]
    identity: Identity,
    /// Only where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    scheduler: &'a str,
    /// ipvsadm's names.
    scheduler_flags: Vec<String>,
    fallback: bool,
    hash_port: bool,
    one_packet: bool,
    persistence: Option<Persistence>,
    persistence_engine: Option<&'a str>,
    /// Whether ipvsd made it.
    managed: bool,
    stats: Stats,
    destinations: Vec<Destination<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Identity {
    Address { protocol: Protocol, address: IpAddr, port: u16 },
    Mark { mark: u32, family: &'static str },
}

/// The number is for protocols that IPVS does not balance.
#[derive(Serialize)]
#[serde(untagged)]
enum Protocol {
    Name(&'static str),
    Number(u16),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Persistence {
    timeout_seconds: u32,
    prefix: u8,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Destination<'a> {
    address: IpAddr,
    port: u16,
    /// Only where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a str>,
    /// None for a method that ipvsd does not know.
    forwarding: Option<&'static str>,
    /// None for a destination that is not behind one.
    tunnel: Option<Tunnel>,
    weight: u32,
    upper_threshold: u32,
    lower_threshold: u32,
    active_connections: u32,
    inactive_connections: u32,
    persistent_connections: u32,
    stats: Stats,
}

#[derive(Serialize)]
struct Tunnel {
    /// None for a kind that ipvsd does not know.
    kind: Option<&'static str>,
    /// Of GUE.
    port: Option<u16>,
    /// None for what ipvsd does not know.
    checksum: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    connections: u64,
    packets_in: u64,
    packets_out: u64,
    bytes_in: u64,
    bytes_out: u64,
    connections_per_second: u64,
    packets_in_per_second: u64,
    packets_out_per_second: u64,
    bytes_in_per_second: u64,
    bytes_out_per_second: u64,
}

impl<'a> VirtualServer<'a> {
    fn of(server: &'a VirtualServerEntry, destinations: &[DestinationEntry], names: &'a Names) -> Self {
        let flags = server.scheduler_flags();
        Self {
            identity: Identity::of(server.identity),
            service: names.service(server.identity.key()),
            scheduler: &server.scheduler,
            scheduler_flags: words::scheduler_flags(server),
            fallback: flags.contains(SchedulerFlags::FALLBACK),
            hash_port: flags.contains(SchedulerFlags::PORT),
            one_packet: flags.contains(SchedulerFlags::ONE_PACKET),
            persistence: server.persistence().map(|p| Persistence { timeout_seconds: p.timeout, prefix: p.prefix }),
            persistence_engine: server.persistence_engine.as_deref(),
            managed: server.is_ours(),
            stats: Stats::of(&server.stats),
            destinations: destinations.iter().map(|destination| Destination::of(destination, names)).collect(),
        }
    }
}

impl Identity {
    fn of(identity: ipvs::Identity) -> Self {
        match identity {
            ipvs::Identity::Address { address, port, protocol } => {
                let name = model::Protocol::from_number(protocol).map(|protocol| Protocol::Name(protocol.name()));
                Self::Address { protocol: name.unwrap_or(Protocol::Number(protocol)), address, port }
            }
            ipvs::Identity::Mark { mark, family } => Self::Mark { mark, family: family.name() },
        }
    }
}

impl<'a> Destination<'a> {
    fn of(entry: &DestinationEntry, names: &'a Names) -> Self {
        Self {
            address: entry.key.address,
            port: entry.key.port,
            pod: names.pod(entry.key),
            forwarding: entry.forwarding.map(forwarding_name),
            tunnel: (entry.forwarding == Some(Forwarding::Tunnel)).then(|| Tunnel::of(entry.tunnel)),
            weight: entry.weight,
            upper_threshold: entry.upper_threshold,
            lower_threshold: entry.lower_threshold,
            active_connections: entry.active,
            inactive_connections: entry.inactive,
            persistent_connections: entry.persistent,
            stats: Stats::of(&entry.stats),
        }
    }
}

fn forwarding_name(forwarding: Forwarding) -> &'static str {
    match forwarding {
        Forwarding::Masquerade => "masquerade",
        Forwarding::Local => "local",
        Forwarding::Tunnel => "tunnel",
        Forwarding::DirectRouting => "route",
        Forwarding::Bypass => "bypass",
    }
}

impl Tunnel {
    fn of(tunnel: ipvs::Tunnel) -> Self {
        let kind = words::tunnel_kind(tunnel);
        let checksum = words::checksum(tunnel).map(|checksum| match checksum {
            Checksum::None => "none",
            Checksum::Full => "full",
            Checksum::Remote => "remote",
        });
        Self { kind, port: (kind == Some("gue")).then_some(tunnel.port), checksum }
    }
}

impl Stats {
    fn of(stats: &ipvs::Stats) -> Self {
        Self {
            connections: stats.connections,
            packets_in: stats.packets_in,
            packets_out: stats.packets_out,
            bytes_in: stats.bytes_in,
            bytes_out: stats.bytes_out,
            connections_per_second: stats.connection_rate,
            packets_in_per_second: stats.packet_rate_in,
            packets_out_per_second: stats.packet_rate_out,
            bytes_in_per_second: stats.byte_rate_in,
            bytes_out_per_second: stats.byte_rate_out,
        }
    }
}
