//! The table as `ipvsadm -L -n` prints it, to the character: scripts read it by columns.

use crate::kernel::ipvs::{DestinationEntry, Identity, VirtualServerEntry};
use crate::kernel::linux::Table;
use crate::model::{DestinationKey, Family, Forwarding, Persistence, Protocol, SchedulerFlags};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::SocketAddr;

/// Prints everything.
pub fn print(out: &mut impl Write, table: &Table) -> io::Result<()> {
    let [_, major, minor, patch] = table.info.version.to_be_bytes();
    writeln!(out, "IP Virtual Server version {major}.{minor}.{patch} (size={})", table.info.connection_table_size)?;
    writeln!(out, "Prot LocalAddress:Port Scheduler Flags")?;
    writeln!(out, "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn")?;
    for (server, destinations) in &table.virtual_servers {
        writeln!(out, "{}", virtual_server_line(server))?;
        for destination in destinations {
            writeln!(out, "{}", destination_line(destination))?;
        }
    }
    Ok(())
}

fn virtual_server_line(server: &VirtualServerEntry) -> String {
    let mut line = match server.identity {
        Identity::Address { address, port, protocol } => {
            format!("{:<4} {}", protocol_name(protocol), SocketAddr::new(address, port))
        }
        Identity::Mark { mark, family: Family::Ipv4 } => format!("FWM  {mark}"),
        Identity::Mark { mark, family: Family::Ipv6 } => format!("FWM  {mark} IPv6"),
    };
    line += " ";
    line += &server.scheduler;
    let flags = scheduler_flags(server);
    if !flags.is_empty() {
        line += &format!(" ({flags})");
    }
    if let Some(Persistence { timeout, prefix }) = server.persistence() {
        line += &format!(" persistent {timeout}");
        if prefix != server.identity.family().bits() {
            line += &format!(" mask {}", mask(server));
        }
    }
    if let Some(engine) = &server.persistence_engine {
        line += &format!(" pe {engine}");
    }
    if server.scheduler_flags().contains(SchedulerFlags::ONE_PACKET) {
        line += " ops";
    }
    line
}

/// The name of a protocol that IPVS balances, the number of any other.
fn protocol_name(number: u16) -> String {
    Protocol::from_number(number).map_or_else(|| number.to_string(), |protocol| protocol.name().to_owned())
}

/// IPv4 masks are written as addresses, IPv6 ones as lengths.
fn mask(server: &VirtualServerEntry) -> String {
    match server.identity.family() {
        Family::Ipv4 => std::net::Ipv4Addr::from(server.netmask).to_string(),
        Family::Ipv6 => server.netmask.to_string(),
    }
}

/// `sh-fallback,sh-port` and the like; bits without a name of their scheduler are `flag-1` to `flag-3`.
fn scheduler_flags(server: &VirtualServerEntry) -> String {
    let mut text = String::new();
    for (number, flag, name) in
        [(1, SchedulerFlags::FALLBACK, "fallback"), (2, SchedulerFlags::PORT, "port"), (3, SchedulerFlags(0x20), "")]
    {
        if !server.scheduler_flags().contains(flag) {
            continue;
        }
        if !text.is_empty() {
            text.push(',');
        }
        let hashes = matches!(server.scheduler.as_str(), "sh" | "mh") && !name.is_empty();
        let _infallible =
            if hashes { write!(text, "{}-{name}", server.scheduler) } else { write!(text, "flag-{number}") };
    }
    text
}

fn destination_line(destination: &DestinationEntry) -> String {
    let DestinationKey { address, port } = destination.key;
    let forwarding = match destination.forwarding {
        Some(Forwarding::Masquerade) => "Masq",
        Some(Forwarding::Local) => "Local",
        Some(Forwarding::Tunnel) => "Tunnel",
        Some(Forwarding::DirectRouting) => "Route",
        Some(Forwarding::Bypass) => "Bypass",
        None => "?",
    };
    format!(
        "  -> {:<28} {forwarding:<7} {:<6} {:<10} {:<10}",
        SocketAddr::new(address, port).to_string(),
        destination.weight,
        destination.active,
        destination.inactive
    )
}
