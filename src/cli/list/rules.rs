//! The table as `ipvsadm -S -n` prints it: the rules that `ipvsadm -R` makes the same table from.
//!
//! ipvsadm's own rules lose thresholds, and spoil marks of 32 bits; these do not.

use super::words::{self, Checksum};
use crate::kernel::ipvs::{DestinationEntry, Identity, Tunnel, VirtualServerEntry};
use crate::kernel::linux::Table;
use crate::model::{DestinationKey, Family, Forwarding, Persistence, Protocol, SchedulerFlags};
use std::io::{self, Write};
use std::net::SocketAddr;

/// Prints the rules; returns a sentence for each thing that is left out, because ipvsadm has no option for it.
pub fn print(out: &mut impl Write, table: &Table) -> io::Result<Vec<String>> {
    let mut missing = Vec::new();
    for (server, destinations) in &table.virtual_servers {
        let Some(name) = virtual_server(server.identity) else {
            missing.push(format!("no rule can restore {}", words::virtual_server(server.identity)));
            continue;
        };
        writeln!(out, "-A {name}{}", settings(server))?;
        for destination in destinations {
            let DestinationKey { address, port } = destination.key;
            let key = SocketAddr::new(address, port);
            match destination_settings(destination, server.identity) {
                Some(settings) => writeln!(out, "-a {name} -r {key}{settings}")?,
                None => {
                    missing.push(format!("no rule can restore {} -> {key}", words::virtual_server(server.identity)))
                }
            }
        }
    }
    Ok(missing)
}

fn virtual_server(identity: Identity) -> Option<String> {
    match identity {
        Identity::Address { address, port, protocol } => {
            let option = match Protocol::from_number(protocol)? {
                Protocol::Tcp => "-t",
                Protocol::Udp => "-u",
                Protocol::Sctp => "--sctp-service",
            };
            Some(format!("{option} {}", SocketAddr::new(address, port)))
        }
        Identity::Mark { mark, family: Family::Ipv4 } => Some(format!("-f {mark}")),
        Identity::Mark { mark, family: Family::Ipv6 } => Some(format!("-f {mark} -6")),
    }
}

/// The scheduler and all that is set of a virtual server, with a space before each option.
fn settings(server: &VirtualServerEntry) -> String {
    let mut text = format!(" -s {}", server.scheduler);
    if let Some(Persistence { timeout, .. }) = server.persistence() {
        text += &format!(" -p {timeout}");
    }
    if let Some(mask) = words::mask(server) {
        text += &format!(" -M {mask}");
    }
    if let Some(engine) = &server.persistence_engine {
        text += &format!(" --pe {engine}");
    }
    if server.scheduler_flags().contains(SchedulerFlags::ONE_PACKET) {
        text += " -o";
    }
    let flags = words::scheduler_flags(server);
    if !flags.is_empty() {
        text += &format!(" -b {}", flags.join(","));
    }
    text
}

fn destination_settings(destination: &DestinationEntry, of: Identity) -> Option<String> {
    let DestinationEntry { key, weight, upper_threshold, lower_threshold, .. } = destination;
    let (forwarding, tunnel) = match destination.forwarding? {
        Forwarding::Masquerade => ("-m", String::new()),
        // The kernel finds out by itself that it is local, and ipvsadm gives what it adds with -g the virtual server's
        // port.
        Forwarding::Local if matches!(of, Identity::Address { port, .. } if port != key.port) => ("-m", String::new()),
        Forwarding::Local | Forwarding::DirectRouting => ("-g", String::new()),
        Forwarding::Tunnel => ("-i", tunnel(destination.tunnel)?),
        Forwarding::Bypass => return None,
    };
    let mut text = format!(" {forwarding} -w {weight}{tunnel}");
    for (option, threshold) in [("-x", upper_threshold), ("-y", lower_threshold)] {
        if *threshold != 0 {
            text += &format!(" {option} {threshold}");
        }
    }
    Some(text)
}

fn tunnel(tunnel: Tunnel) -> Option<String> {
    let kind = words::tunnel_kind(tunnel)?;
    let checksum = match words::checksum(tunnel)? {
        Checksum::None => "--tun-nocsum",
        Checksum::Full => "--tun-csum",
        Checksum::Remote => "--tun-remcsum",
    };
    Some(match kind {
        "gue" => format!(" --tun-type gue --tun-port {} {checksum}", tunnel.port),
        "gre" => format!(" --tun-type gre {checksum}"),
        kind => format!(" --tun-type {kind}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_that_ipvsadm_cannot_make_have_no_rule() {
        for (kind, port, flags, rule) in [
            (0, 0, 0, Some(" --tun-type ipip")),
            (1, 6080, 0, Some(" --tun-type gue --tun-port 6080 --tun-nocsum")),
            (1, 6080, 2, Some(" --tun-type gue --tun-port 6080 --tun-remcsum")),
            (2, 0, 1, Some(" --tun-type gre --tun-csum")),
            (1, 6080, 3, None),
            (3, 0, 0, None),
        ] {
            assert_eq!(tunnel(Tunnel { kind, port, flags }).as_deref(), rule, "{kind} {port} {flags}");
        }
    }

    #[test]
    fn protocols_that_ipvs_does_not_balance_have_no_rule() {
        for (protocol, name) in [
            (6, Some("-t 10.0.0.1:80")),
            (17, Some("-u 10.0.0.1:80")),
            (132, Some("--sctp-service 10.0.0.1:80")),
            (47, None),
        ] {
            let identity = Identity::Address { address: [10, 0, 0, 1].into(), port: 80, protocol };
            assert_eq!(virtual_server(identity).as_deref(), name);
        }
    }
}
