//! The table as JSON: one object with `virtualServers`, each with its `destinations`. Fields are only ever added.

use crate::kernel::ipvs::{DestinationEntry, Identity, ServiceEntry, Stats};
use crate::kernel::linux::Table;
use crate::model::{Family, Forwarding, SchedulerFlags};
use serde_json::{Map, Value, json};
use std::io::{self, Write};

/// Prints everything, one virtual server after the other.
pub fn print(out: &mut impl Write, table: &Table) -> io::Result<()> {
    let virtual_servers: Vec<_> = table.services.iter().map(virtual_server).collect();
    let size = table.info.connection_table_size;
    serde_json::to_writer_pretty(&mut *out, &json!({"connectionTableSize": size, "virtualServers": virtual_servers}))?;
    writeln!(out)
}

fn virtual_server((service, destinations): &(ServiceEntry, Vec<DestinationEntry>)) -> Value {
    let mut object = match service.identity {
        Identity::Address { address, port, protocol } => {
            members(json!({"protocol": protocol_name(protocol), "address": address, "port": port}))
        }
        Identity::Mark { mark, family } => {
            members(json!({"mark": mark, "family": if family == Family::Ipv4 { "IPv4" } else { "IPv6" }}))
        }
    };
    let persistence = service.persistence().map(|p| json!({"timeoutSeconds": p.timeout, "prefix": p.prefix}));
    let flags = service.scheduler_flags();
    object.append(&mut members(json!({
        "scheduler": service.scheduler,
        "fallback": flags.contains(SchedulerFlags::FALLBACK),
        "hashPort": flags.contains(SchedulerFlags::PORT),
        "onePacket": flags.contains(SchedulerFlags::ONE_PACKET),
        "persistence": persistence,
        "persistenceEngine": service.persistence_engine,
        "managed": service.is_ours(),
        "stats": stats(&service.stats),
        "destinations": destinations.iter().map(destination).collect::<Vec<_>>(),
    })));
    Value::Object(object)
}

fn destination(entry: &DestinationEntry) -> Value {
    json!({
        "address": entry.key.address,
        "port": entry.key.port,
        "forwarding": entry.forwarding.map(forwarding_name),
        "weight": entry.weight,
        "upperThreshold": entry.upper_threshold,
        "lowerThreshold": entry.lower_threshold,
        "activeConnections": entry.active,
        "inactiveConnections": entry.inactive,
        "persistentConnections": entry.persistent,
        "stats": stats(&entry.stats),
    })
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

fn protocol_name(number: u16) -> Value {
    match number {
        6 => "TCP".into(),
        17 => "UDP".into(),
        132 => "SCTP".into(),
        other => other.into(),
    }
}

fn stats(stats: &Stats) -> Value {
    json!({
        "connections": stats.connections,
        "packetsIn": stats.packets_in,
        "packetsOut": stats.packets_out,
        "bytesIn": stats.bytes_in,
        "bytesOut": stats.bytes_out,
        "connectionsPerSecond": stats.connection_rate,
        "packetsInPerSecond": stats.packet_rate_in,
        "packetsOutPerSecond": stats.packet_rate_out,
        "bytesInPerSecond": stats.byte_rate_in,
        "bytesOutPerSecond": stats.byte_rate_out,
    })
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
