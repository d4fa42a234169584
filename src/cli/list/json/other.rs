//! What there is besides virtual servers, as JSON: connections, timeouts, sync daemons.

use super::print_value;
use crate::kernel::connections::{Connection, ConnectionsError};
use crate::kernel::ipvs::Timeouts;
use crate::kernel::ipvs::sync::{SyncDaemon, SyncRole};
use serde::Serialize;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

/// Prints connections as they come, one a line: there may be more than can be held in memory.
pub fn print_connections(
    out: &mut impl Write,
    connections: impl IntoIterator<Item = Result<Connection, ConnectionsError>>,
) -> anyhow::Result<()> {
    write!(out, "{{\n  \"connections\": [")?;
    let mut separator = "\n";
    for connection in connections {
        write!(out, "{separator}    ")?;
        serde_json::to_writer(&mut *out, &ConnectionJson::of(&connection?)).map_err(io::Error::from)?;
        separator = ",\n";
    }
    writeln!(out, "\n  ]\n}}")?;
    Ok(())
}

/// Prints when connections are forgotten.
pub fn print_timeouts(out: &mut impl Write, timeouts: Timeouts) -> io::Result<()> {
    let Timeouts { tcp, tcp_fin, udp } = timeouts;
    let timeouts = TimeoutsJson { tcp_seconds: tcp, tcp_fin_seconds: tcp_fin, udp_seconds: udp };
    print_value(out, &TimeoutsListing { timeouts })
}

/// Prints the sync daemons.
pub fn print_sync_daemons(out: &mut impl Write, daemons: &[SyncDaemon]) -> io::Result<()> {
    print_value(out, &SyncDaemonsListing { sync_daemons: daemons.iter().map(SyncDaemonJson::of).collect() })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConnectionJson<'a> {
    protocol: &'a str,
    client: Endpoint,
    #[serde(rename = "virtual")]
    virtual_address: Endpoint,
    destination: Endpoint,
    state: &'a str,
    expires_seconds: u64,
    persistence_engine: Option<&'a str>,
    persistence_data: Option<&'a str>,
}

#[derive(Serialize)]
struct Endpoint {
    address: IpAddr,
    port: u16,
}

#[derive(Serialize)]
struct TimeoutsListing {
    timeouts: TimeoutsJson,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TimeoutsJson {
    tcp_seconds: u32,
    tcp_fin_seconds: u32,
    udp_seconds: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SyncDaemonsListing<'a> {
    sync_daemons: Vec<SyncDaemonJson<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SyncDaemonJson<'a> {
    role: &'static str,
    interface: &'a str,
    sync_id: u32,
    max_length: u16,
    /// None from a kernel that does not tell it.
    group: Option<IpAddr>,
    port: u16,
    ttl: u8,
}

impl<'a> ConnectionJson<'a> {
    fn of(connection: &'a Connection) -> Self {
        let engine = connection.persistence_engine.as_ref();
        Self {
            protocol: &connection.protocol,
            client: connection.client.into(),
            virtual_address: connection.virtual_address.into(),
            destination: connection.destination.into(),
            state: &connection.state,
            expires_seconds: connection.expires,
            persistence_engine: engine.map(|(name, _)| name.as_str()),
            persistence_data: engine.map(|(_, data)| data.as_str()),
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(at: SocketAddr) -> Self {
        Self { address: at.ip(), port: at.port() }
    }
}

impl<'a> SyncDaemonJson<'a> {
    fn of(daemon: &'a SyncDaemon) -> Self {
        Self {
            role: match daemon.role {
                SyncRole::Master => "master",
                SyncRole::Backup => "backup",
            },
            interface: &daemon.interface,
            sync_id: daemon.sync_id,
            max_length: daemon.max_length,
            group: daemon.group,
            port: daemon.port,
            ttl: daemon.ttl,
        }
    }
}
