//! The table as JSON, for programs: the fields and their order are those of the structs here. docs/operations.md has them
//! for people. Fields are only ever added.

use crate::kernel::ipvs::{self, DestinationEntry, VirtualServerEntry};
use crate::kernel::linux::Table;
use crate::model::{self, Forwarding, SchedulerFlags};
use serde::Serialize;
use std::io::{self, Write};
use std::net::IpAddr;

/// Prints everything, indented, with a line feed at the end.
pub fn print(out: &mut impl Write, table: &Table) -> io::Result<()> {
    let listing = Listing {
        connection_table_size: table.info.connection_table_size,
        virtual_servers: table.virtual_servers.iter().map(VirtualServer::of).collect(),
    };
    serde_json::to_writer_pretty(&mut *out, &listing)?;
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
    scheduler: &'a str,
    fallback: bool,
    hash_port: bool,
    one_packet: bool,
    persistence: Option<Persistence>,
    persistence_engine: Option<&'a str>,
    /// Whether ipvsd made it.
    managed: bool,
    stats: Stats,
    destinations: Vec<Destination>,
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
struct Destination {
    address: IpAddr,
    port: u16,
    /// None for a method that ipvsd does not know.
    forwarding: Option<&'static str>,
    weight: u32,
    upper_threshold: u32,
    lower_threshold: u32,
    active_connections: u32,
    inactive_connections: u32,
    persistent_connections: u32,
    stats: Stats,
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
    fn of((server, destinations): &'a (VirtualServerEntry, Vec<DestinationEntry>)) -> Self {
        let flags = server.scheduler_flags();
        Self {
            identity: Identity::of(server.identity),
            scheduler: &server.scheduler,
            fallback: flags.contains(SchedulerFlags::FALLBACK),
            hash_port: flags.contains(SchedulerFlags::PORT),
            one_packet: flags.contains(SchedulerFlags::ONE_PACKET),
            persistence: server.persistence().map(|p| Persistence { timeout_seconds: p.timeout, prefix: p.prefix }),
            persistence_engine: server.persistence_engine.as_deref(),
            managed: server.is_ours(),
            stats: Stats::of(&server.stats),
            destinations: destinations.iter().map(Destination::of).collect(),
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

impl Destination {
    fn of(entry: &DestinationEntry) -> Self {
        Self {
            address: entry.key.address,
            port: entry.key.port,
            forwarding: entry.forwarding.map(forwarding_name),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::ipvs::{Info, Tunnel};
    use crate::kernel::ownership;
    use crate::model::{DestinationKey, Family};

    fn server(identity: ipvs::Identity, flags: u32) -> VirtualServerEntry {
        let stats = ipvs::Stats { connections: 3, byte_rate_out: 9, ..ipvs::Stats::default() };
        VirtualServerEntry {
            identity,
            scheduler: "mh".into(),
            persistence_engine: None,
            flags,
            timeout: 60,
            netmask: 0xffff_ff00,
            stats,
        }
    }

    fn destination(forwarding: Option<Forwarding>) -> DestinationEntry {
        DestinationEntry {
            key: DestinationKey { address: [10, 1, 0, 1].into(), port: 8080 },
            forwarding,
            weight: 1,
            upper_threshold: 20,
            lower_threshold: 10,
            active: 4,
            inactive: 5,
            persistent: 6,
            stats: ipvs::Stats::default(),
            tunnel: Tunnel::default(),
        }
    }

    fn printed(virtual_servers: Vec<(VirtualServerEntry, Vec<DestinationEntry>)>) -> String {
        let table = Table { info: Info { version: 0x01_02_01, connection_table_size: 4096 }, virtual_servers };
        let mut text = Vec::new();
        print(&mut text, &table).unwrap();
        String::from_utf8(text).unwrap()
    }

    /// The names of the fields in the order of the text, one a line as they are printed.
    fn names(text: &str) -> Vec<&str> {
        text.lines().filter_map(|line| Some(line.trim().strip_prefix('"')?.split_once("\": ")?.0)).collect()
    }

    #[test]
    fn identity_comes_first_and_destinations_last() {
        let identity = ipvs::Identity::Address { address: [10, 0, 0, 1].into(), port: 80, protocol: 6 };
        let text = printed(vec![(server(identity, ownership::tagged(0x11)), vec![destination(None)])]);
        let stats = "stats connections packetsIn packetsOut bytesIn bytesOut connectionsPerSecond packetsInPerSecond \
                     packetsOutPerSecond bytesInPerSecond bytesOutPerSecond";
        let expected = format!(
            "connectionTableSize virtualServers protocol address port scheduler fallback hashPort onePacket persistence \
             timeoutSeconds prefix persistenceEngine managed {stats} destinations address port forwarding weight \
             upperThreshold lowerThreshold activeConnections inactiveConnections persistentConnections {stats}"
        );
        assert_eq!(names(&text).join(" "), expected);
    }

    #[test]
    fn values_are_words_numbers_and_nulls() {
        let identity = ipvs::Identity::Address { address: [10, 0, 0, 1].into(), port: 80, protocol: 6 };
        let destinations = [Some(Forwarding::DirectRouting), None].map(destination).into();
        let text = printed(vec![(server(identity, ownership::tagged(0x11)), destinations)]);
        let listing: serde_json::Value = serde_json::from_str(&text).unwrap();
        let first = &listing["virtualServers"][0];
        assert_eq!(listing["connectionTableSize"], 4096);
        assert_eq!((&first["protocol"], &first["address"]), (&"TCP".into(), &"10.0.0.1".into()));
        assert_eq!(
            (&first["managed"], &first["hashPort"], &first["fallback"]),
            (&true.into(), &true.into(), &false.into())
        );
        assert_eq!(first["persistence"], serde_json::json!({"timeoutSeconds": 60, "prefix": 24}));
        assert_eq!((&first["stats"]["connections"], &first["stats"]["bytesOutPerSecond"]), (&3.into(), &9.into()));
        let forwarding = ["route".into(), serde_json::Value::Null];
        assert_eq!([0, 1].map(|index| first["destinations"][index]["forwarding"].clone()), forwarding);
    }

    #[test]
    fn marks_and_other_protocols_are_shown_too() {
        let mark = ipvs::Identity::Mark { mark: 7, family: Family::Ipv6 };
        let unbalanced = ipvs::Identity::Address { address: [10, 0, 0, 1].into(), port: 0, protocol: 47 };
        let text = printed(vec![(server(mark, 0), vec![]), (server(unbalanced, 0), vec![])]);
        let listing: serde_json::Value = serde_json::from_str(&text).unwrap();
        let [mark, unbalanced] = [0, 1].map(|index| &listing["virtualServers"][index]);
        assert_eq!((&mark["mark"], &mark["family"], mark.get("address")), (&7.into(), &"IPv6".into(), None));
        assert_eq!((&unbalanced["protocol"], unbalanced.get("mark")), (&47.into(), None));
        assert_eq!((&mark["persistence"], &mark["managed"]), (&serde_json::Value::Null, &false.into()));
    }
}
