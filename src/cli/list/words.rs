//! ipvsadm's words, which are the same wherever they are printed.

use crate::kernel::ipvs::{DestinationEntry, Identity, Tunnel, VirtualServerEntry};
use crate::model::{Family, Forwarding, Persistence, Protocol, SchedulerFlags};
use std::net::{Ipv4Addr, SocketAddr};

/// `TCP  10.0.0.1:80`, `FWM  7`, `FWM  8 IPv6`: what a virtual server matches.
pub fn virtual_server(identity: Identity) -> String {
    match identity {
        Identity::Address { address, port, protocol } => {
            format!("{:<4} {}", protocol_name(protocol), SocketAddr::new(address, port))
        }
        Identity::Mark { mark, family: Family::Ipv4 } => format!("FWM  {mark}"),
        Identity::Mark { mark, family: Family::Ipv6 } => format!("FWM  {mark} IPv6"),
    }
}

/// The name of a protocol that IPVS balances, the number of any other.
fn protocol_name(number: u16) -> String {
    Protocol::from_number(number).map_or_else(|| number.to_string(), |protocol| protocol.name().to_owned())
}

/// `sh-fallback`, `sh-port` and the like; bits without a name of their scheduler are `flag-1` to `flag-3`.
pub fn scheduler_flags(server: &VirtualServerEntry) -> Vec<String> {
    let hashes = matches!(server.scheduler.as_str(), "sh" | "mh");
    [(1, SchedulerFlags::FALLBACK, "fallback"), (2, SchedulerFlags::PORT, "port"), (3, SchedulerFlags(0x20), "")]
        .into_iter()
        .filter(|(_, flag, _)| server.scheduler_flags().contains(*flag))
        .map(|(number, _, name)| match hashes && !name.is_empty() {
            true => format!("{}-{name}", server.scheduler),
            false => format!("flag-{number}"),
        })
        .collect()
}

/// Which clients of a persistent virtual server go together, if it is not each for itself. IPv4 masks are written as
/// addresses, IPv6 ones as lengths.
pub fn mask(server: &VirtualServerEntry) -> Option<String> {
    let Persistence { prefix, .. } = server.persistence()?;
    let family = server.identity.family();
    (prefix != family.bits()).then(|| match family {
        Family::Ipv4 => Ipv4Addr::from(server.netmask).to_string(),
        Family::Ipv6 => server.netmask.to_string(),
    })
}

/// How packets get to a destination.
pub fn forwarding(destination: &DestinationEntry) -> &'static str {
    match destination.forwarding {
        Some(Forwarding::Masquerade) => "Masq",
        Some(Forwarding::Local) => "Local",
        Some(Forwarding::Tunnel) => "Tunnel",
        Some(Forwarding::DirectRouting) => "Route",
        Some(Forwarding::Bypass) => "Bypass",
        None => "?",
    }
}

/// `IP_VS_CONN_F_TUNNEL_TYPE_*` by ipvsadm's names for them; none for a kind that came later.
pub fn tunnel_kind(tunnel: Tunnel) -> Option<&'static str> {
    match tunnel.kind {
        0 => Some("ipip"),
        1 => Some("gue"),
        2 => Some("gre"),
        _ => None,
    }
}

/// What a tunnel does about checksums: `IP_VS_TUNNEL_ENCAP_FLAG_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// None are sent.
    None,
    /// They are sent.
    Full,
    /// The receiver makes up those of the inner packet.
    Remote,
}

/// What a tunnel does about checksums; none if the flags say more than one thing, or one that is not known.
pub fn checksum(tunnel: Tunnel) -> Option<Checksum> {
    match tunnel.flags {
        0 => Some(Checksum::None),
        1 => Some(Checksum::Full),
        2 => Some(Checksum::Remote),
        _ => None,
    }
}
