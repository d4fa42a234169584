//! The text form of models and operations, read by people in `ipvsd diff`, logs and scenario tests.
//!
//! ```text
//! tcp 10.0.0.1:80 wrr persistent 10800
//!   10.1.0.1:8080 weight 1
//! route 10.0.0.1 src 192.0.2.1
//! device kube-ipvs0 10.0.0.1
//! set KUBE-CLUSTER-IP 65536
//!   10.0.0.1,tcp:80
//! rules ipv4 masquerade 0x4000, pods from 10.244.0.0/16
//! kube-proxy's rules ipv4
//! localhost by ipvsd-lo0
//! ```
//! An operation is the same line behind `+` (comes), `~` (changes to) or `-` (goes); a destination's line then
//! names its virtual server first, and a member's its set.

use super::localhost::{LocalhostPath, NEAR_DEVICE};
use super::netfilter::{AddressPort, Mark, Member, RuleSettings, Set, SetKey};
use super::{
    DestinationKey, DestinationSpec, Family, Forwarding, KUBE_PROXY_DEVICE, Model, Op, Persistence, Protocol,
    RouteSpec, SchedulerFlags, VirtualServer, VirtualServerKey, VirtualServerSpec,
};
use std::fmt::{self, Display, Formatter};
use std::net::{IpAddr, SocketAddr};

impl Display for Protocol {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name().to_ascii_lowercase())
    }
}

impl Display for Family {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name().to_ascii_lowercase())
    }
}

impl Display for VirtualServerKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { address, port, protocol } => write!(f, "{protocol} {}", SocketAddr::new(*address, *port)),
            Self::Mark { mark, family } => write!(f, "mark {mark} {family}"),
        }
    }
}

impl Display for VirtualServerSpec {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.scheduler)?;
        if self.flags != SchedulerFlags::default() {
            write!(f, " flags {}", self.flags)?;
        }
        match self.persistence {
            Some(Persistence { timeout, prefix }) if prefix == 32 || prefix == 128 => {
                write!(f, " persistent {timeout}")
            }
            Some(Persistence { timeout, prefix }) => write!(f, " persistent {timeout} prefix {prefix}"),
            None => Ok(()),
        }
    }
}

impl Display for SchedulerFlags {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let named = [(Self::ONE_PACKET, "one-packet"), (Self::FALLBACK, "fallback"), (Self::PORT, "port")];
        let mut left = self.0;
        let mut separator = "";
        for (flag, name) in named {
            if self.contains(flag) {
                write!(f, "{separator}{name}")?;
                separator = ",";
                left &= !flag.0;
            }
        }
        if left != 0 {
            write!(f, "{separator}{left:#x}")?;
        }
        Ok(())
    }
}

impl Display for DestinationKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", SocketAddr::new(self.address, self.port))
    }
}

impl Display for DestinationSpec {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "weight {}", self.weight)?;
        match self.forwarding {
            Forwarding::Masquerade => {}
            Forwarding::Local => f.write_str(" local")?,
            Forwarding::Tunnel => f.write_str(" tunnel")?,
            Forwarding::DirectRouting => f.write_str(" route")?,
            Forwarding::Bypass => f.write_str(" bypass")?,
        }
        if (self.upper_threshold, self.lower_threshold) != (0, 0) {
            write!(f, " thresholds {} {}", self.upper_threshold, self.lower_threshold)?;
        }
        Ok(())
    }
}

/// `route VIP src ADDRESS`.
struct Route(IpAddr, RouteSpec);

impl Display for Route {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "route {}", self.0)?;
        match self.1.preferred_source {
            Some(source) => write!(f, " src {source}"),
            None => Ok(()),
        }
    }
}

impl Display for SetKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Display for AddressPort {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}:{}", self.address, self.protocol, self.port)
    }
}

/// As ipset writes it.
impl Display for Member {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Port(port) => port.fmt(f),
            Self::AddressPort(frontend) => frontend.fmt(f),
            Self::AddressPortAddress(frontend, client) => write!(f, "{frontend},{client}"),
            Self::AddressPortNet(frontend, clients) => write!(f, "{frontend},{clients}"),
        }
    }
}

/// A member with its mark.
struct Marked(Member, Option<Mark>);

impl Display for Marked {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        match self.1 {
            Some(mark) => write!(f, " mark {:#x}", mark.bits()),
            None => Ok(()),
        }
    }
}

/// `rules FAMILY SETTINGS`.
struct Rules(Family, RuleSettings);

impl Display for Rules {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "rules {} {}", self.0, self.1)
    }
}

impl Display for Model {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (key, VirtualServer { spec, destinations }) in &self.virtual_servers {
            writeln!(f, "{key} {spec}")?;
            for (destination, spec) in destinations {
                writeln!(f, "  {destination} {spec}")?;
            }
        }
        self.routes.iter().try_for_each(|(vip, spec)| writeln!(f, "{}", Route(*vip, *spec)))?;
        for (key, Set { capacity, members }) in &self.sets {
            writeln!(f, "set {key} {}", capacity.0)?;
            members.iter().try_for_each(|(member, mark)| writeln!(f, "  {}", Marked(*member, *mark)))?;
        }
        self.rules.iter().try_for_each(|(family, settings)| writeln!(f, "{}", Rules(*family, *settings)))?;
        self.kube_proxy_leftovers.iter().try_for_each(|leftover| writeln!(f, "{leftover}"))?;
        match self.localhost_path {
            Some(LocalhostPath::Whole) => writeln!(f, "localhost by {NEAR_DEVICE}")?,
            Some(LocalhostPath::Broken) => writeln!(f, "localhost by {NEAR_DEVICE}, not whole")?,
            None => {}
        }
        let Some(addresses) = &self.kube_proxy_device else { return Ok(()) };
        write!(f, "device {KUBE_PROXY_DEVICE}")?;
        addresses.iter().try_for_each(|address| write!(f, " {address}"))?;
        writeln!(f)
    }
}

impl Display for Op {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddVirtualServer(key, spec) => write!(f, "+ {key} {spec}"),
            Self::UpdateVirtualServer(key, spec) => write!(f, "~ {key} {spec}"),
            Self::RemoveVirtualServer(key) => write!(f, "- {key}"),
            Self::AddDestination(key, destination, spec) => write!(f, "+ {key} -> {destination} {spec}"),
            Self::UpdateDestination(key, destination, spec) => write!(f, "~ {key} -> {destination} {spec}"),
            Self::RemoveDestination(key, destination) => write!(f, "- {key} -> {destination}"),
            Self::AddRoute(vip, spec) => write!(f, "+ {}", Route(*vip, *spec)),
            Self::UpdateRoute(vip, spec) => write!(f, "~ {}", Route(*vip, *spec)),
            Self::RemoveRoute(vip) => write!(f, "- route {vip}"),
            Self::RemoveKubeProxyDevice => write!(f, "- device {KUBE_PROXY_DEVICE}"),
            Self::CreateSet(key, capacity) => write!(f, "+ set {key} {}", capacity.0),
            Self::ResizeSet(key, capacity) => write!(f, "~ set {key} {}", capacity.0),
            Self::DestroySet(key) => write!(f, "- set {key}"),
            Self::AddMember(key, member, mark) => write!(f, "+ {key} {}", Marked(*member, *mark)),
            Self::UpdateMember(key, member, mark) => write!(f, "~ {key} {}", Marked(*member, *mark)),
            Self::RemoveMember(key, member) => write!(f, "- {key} {member}"),
            Self::SetRules(family, settings) => write!(f, "~ {}", Rules(*family, *settings)),
            Self::RemoveRules(family) => write!(f, "- rules {family}"),
            Self::RemoveLeftover(leftover) => write!(f, "- {leftover}"),
            Self::MakeLocalhostPath => write!(f, "+ localhost by {NEAR_DEVICE}"),
            Self::RemoveLocalhostPath => write!(f, "- localhost by {NEAR_DEVICE}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Leftover;

    #[test]
    fn kube_proxys_device_is_a_line_of_the_model() {
        let device = |addresses: &[&str]| {
            let kube_proxy_device = Some(addresses.iter().map(|address| address.parse().unwrap()).collect());
            Model { kube_proxy_device, ..Model::default() }.to_string()
        };
        assert_eq!(device(&["10.0.0.1", "fd00::1"]), "device kube-ipvs0 10.0.0.1 fd00::1\n");
        assert_eq!(device(&[]), "device kube-ipvs0\n");
    }

    #[test]
    fn the_way_from_localhost_is_a_line_of_the_model() {
        let path = |localhost_path| Model { localhost_path, ..Model::default() }.to_string();
        assert_eq!(path(Some(LocalhostPath::Whole)), "localhost by ipvsd-lo0\n");
        assert_eq!(path(Some(LocalhostPath::Broken)), "localhost by ipvsd-lo0, not whole\n");
    }

    #[test]
    fn operations_read_like_the_lines_of_a_model() {
        let key = VirtualServerKey::new("fd00::1".parse().unwrap(), 53, Protocol::Udp);
        let spec = VirtualServerSpec {
            scheduler: "mh".parse().unwrap(),
            flags: SchedulerFlags::PORT.with(SchedulerFlags(0x20)),
            persistence: Some(Persistence { timeout: 300, prefix: 128 }),
        };
        let destination = DestinationKey { address: "fd00::2".parse().unwrap(), port: 5353 };
        let ops = [
            (Op::RemoveKubeProxyDevice, "- device kube-ipvs0"),
            (Op::MakeLocalhostPath, "+ localhost by ipvsd-lo0"),
            (Op::RemoveLocalhostPath, "- localhost by ipvsd-lo0"),
            (Op::AddVirtualServer(key, spec), "+ udp [fd00::1]:53 mh flags port,0x20 persistent 300"),
            (
                Op::UpdateDestination(key, destination, DestinationSpec::masquerading(3).drained()),
                "~ udp [fd00::1]:53 -> [fd00::2]:5353 weight 0",
            ),
            (Op::AddRoute("fd00::1".parse().unwrap(), RouteSpec::default()), "+ route fd00::1"),
            (Op::RemoveVirtualServer(VirtualServerKey::Mark { mark: 7, family: Family::Ipv4 }), "- mark 7 ipv4"),
            (Op::RemoveLeftover(Leftover::Rules(Family::Ipv6)), "- kube-proxy's rules ipv6"),
            (Op::RemoveLeftover(Leftover::OtherRules(Family::Ipv4)), "- kube-proxy's rules ipv4 in the other iptables"),
            (Op::RemoveLeftover(Leftover::Table(Family::Ipv4)), "- kube-proxy's table ipv4"),
        ];
        for (op, text) in ops {
            assert_eq!(op.to_string(), text);
        }
    }
}
