//! The table as `ipvsadm -L -n` prints it, to the character: scripts read it by columns. Where ipvsadm is wrong it is
//! not followed; docs/inspection.md says where.

use super::names::Names;
use super::words::{self, Checksum};
use crate::kernel::ipvs::{DestinationEntry, Info, Stats, VirtualServerEntry};
use crate::kernel::linux::Table;
use crate::model::{DestinationKey, Forwarding, Persistence, SchedulerFlags};
use crate::state::OneLine;
use std::io::{self, Write};
use std::net::SocketAddr;

/// Which columns there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// Forwarding, weight and connections.
    #[default]
    Usual,
    /// Totals.
    Stats,
    /// What goes through each second.
    Rate,
    /// Limits of connections.
    Thresholds,
    /// Persistence templates.
    PersistentConnections,
    /// How packets are wrapped.
    Tunnels,
}

/// How the table looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Which columns there are.
    pub layout: Layout,
    /// Whether large counters are written out.
    pub exact: bool,
}

/// Prints the line about IPVS itself, which comes before the whole table and not before a part of it.
pub fn print_head(out: &mut impl Write, info: Info) -> io::Result<()> {
    let [_, major, minor, patch] = info.version.to_be_bytes();
    writeln!(out, "IP Virtual Server version {major}.{minor}.{patch} (size={})", info.connection_table_size)
}

/// Prints virtual servers and destinations under the names of their columns.
///
/// Behind a line stands the name of what it is about, after `#`, for each that `names` has.
pub fn print(out: &mut impl Write, table: &Table, style: Style, names: &Names) -> io::Result<()> {
    writeln!(out, "{}", title(style.layout))?;
    for (server, destinations) in &table.virtual_servers {
        let name = names.service_port(server.identity.key());
        print_line(out, &virtual_server_line(server, style), name.as_deref())?;
        for destination in destinations {
            print_line(out, &destination_line(destination, style), names.pod(destination.key))?;
        }
    }
    Ok(())
}

fn print_line(out: &mut impl Write, line: &str, name: Option<&str>) -> io::Result<()> {
    match name {
        None => writeln!(out, "{line}"),
        Some(name) => writeln!(out, "{line} # {}", OneLine(name)),
    }
}

fn title(layout: Layout) -> &'static str {
    match layout {
        Layout::Usual => {
            "Prot LocalAddress:Port Scheduler Flags\n  \
             -> RemoteAddress:Port           Forward Weight ActiveConn InActConn"
        }
        Layout::Stats => {
            "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n  \
             -> RemoteAddress:Port"
        }
        Layout::Rate => {
            "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS\n  \
             -> RemoteAddress:Port"
        }
        Layout::Thresholds => {
            "Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn \n  \
             -> RemoteAddress:Port"
        }
        Layout::PersistentConnections => {
            "Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn \n  \
             -> RemoteAddress:Port"
        }
        Layout::Tunnels => {
            "Prot LocalAddress:Port Scheduler Flags\n  \
             -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn"
        }
    }
}

fn virtual_server_line(server: &VirtualServerEntry, style: Style) -> String {
    let name = words::virtual_server(server.identity);
    match counted(&server.stats, style.layout) {
        Some(counters) => format!("{name:<33}{}", counter_columns(counters, style.exact)),
        None => name + &settings(server),
    }
}

/// The totals or rates that a layout shows; none if it shows other things.
fn counted(stats: &Stats, layout: Layout) -> Option<[u64; 5]> {
    match layout {
        Layout::Stats => {
            Some([stats.connections, stats.packets_in, stats.packets_out, stats.bytes_in, stats.bytes_out])
        }
        Layout::Rate => Some([
            stats.connection_rate,
            stats.packet_rate_in,
            stats.packet_rate_out,
            stats.byte_rate_in,
            stats.byte_rate_out,
        ]),
        _ => None,
    }
}

fn counter_columns(counters: [u64; 5], exact: bool) -> String {
    counters.map(|count| counter(count, exact)).concat()
}

/// A number in a column of nine, or in as many as it needs with a space before it.
fn counter(count: u64, exact: bool) -> String {
    const UNITS: [(u64, u64, &str); 4] = [
        (100_000_000_000_000, 1_000_000_000_000, "T"),
        (100_000_000_000, 1_000_000_000, "G"),
        (1_000_000_000, 1_000_000, "M"),
        (100_000_000, 1000, "K"),
    ];
    match UNITS.iter().find(|(from, ..)| !exact && count >= *from) {
        Some((_, size, unit)) => format!("{:>8}{unit}", count / size),
        None => format!(" {count:>8}"),
    }
}

/// The scheduler and all that is set of a virtual server, with a space before each.
fn settings(server: &VirtualServerEntry) -> String {
    let mut text = format!(" {}", server.scheduler);
    let flags = words::scheduler_flags(server);
    if !flags.is_empty() {
        text += &format!(" ({})", flags.join(","));
    }
    if let Some(Persistence { timeout, .. }) = server.persistence() {
        text += &format!(" persistent {timeout}");
    }
    if let Some(mask) = words::mask(server) {
        text += &format!(" mask {mask}");
    }
    if let Some(engine) = &server.persistence_engine {
        text += &format!(" pe {engine}");
    }
    if server.scheduler_flags().contains(SchedulerFlags::ONE_PACKET) {
        text += " ops";
    }
    text
}

fn destination_line(destination: &DestinationEntry, style: Style) -> String {
    let DestinationKey { address, port } = destination.key;
    let name = SocketAddr::new(address, port).to_string();
    let DestinationEntry { weight, active, inactive, persistent, upper_threshold, lower_threshold, .. } = destination;
    let forwarding = words::forwarding(destination);
    if let Some(counters) = counted(&destination.stats, style.layout) {
        return format!("  -> {name:<28}{}", counter_columns(counters, style.exact));
    }
    let columns = match style.layout {
        Layout::Thresholds => format!("{upper_threshold:<10} {lower_threshold:<10}"),
        Layout::PersistentConnections => format!("{weight:<9} {persistent:<11}"),
        Layout::Tunnels => format!("{forwarding:<7} {:<13} {weight:<6}", tunnel(destination)),
        Layout::Usual | Layout::Stats | Layout::Rate => format!("{forwarding:<7} {weight:<6}"),
    };
    format!("  -> {name:<28} {columns} {active:<10} {inactive:<10}")
}

/// `ipip`, `gue:6080:+c`, `gre:-c`; `n/a` for what is no tunnel.
fn tunnel(destination: &DestinationEntry) -> String {
    if destination.forwarding != Some(Forwarding::Tunnel) {
        return "n/a".into();
    }
    let checksum = match words::checksum(destination.tunnel) {
        Some(Checksum::None) => "-c",
        Some(Checksum::Full) => "+c",
        Some(Checksum::Remote) => "r+c",
        None => "?",
    };
    match words::tunnel_kind(destination.tunnel) {
        Some("gue") => format!("gue:{}:{checksum}", destination.tunnel.port),
        Some("gre") => format!("gre:{checksum}"),
        kind => kind.unwrap_or("?").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_counters_are_rounded_down_as_by_ipvsadm() {
        for (count, usual, exact) in [
            (0, "        0", "        0"),
            (99_999_999, " 99999999", " 99999999"),
            (100_000_000, "  100000K", " 100000000"),
            (999_999_999, "  999999K", " 999999999"),
            (1_000_000_000, "    1000M", " 1000000000"),
            (u64::from(u32::MAX) + 1, "    4294M", " 4294967296"),
            (99_999_999_999, "   99999M", " 99999999999"),
            (100_000_000_000, "     100G", " 100000000000"),
            (99_999_999_999_999, "   99999G", " 99999999999999"),
            (100_000_000_000_000, "     100T", " 100000000000000"),
            (u64::MAX, "18446744T", " 18446744073709551615"),
        ] {
            assert_eq!((counter(count, false).as_str(), counter(count, true).as_str()), (usual, exact));
        }
    }
}
