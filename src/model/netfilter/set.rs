//! Sets (ipset) and their members. The names, types and contents are those of kube-proxy's ipvs mode, so that its sets
//! can be taken over as they are; five are our own.

use super::Mark;
use crate::model::{Family, Protocol};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A set: what it may hold, and what it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// `maxelem`: the kernel refuses more members.
    pub capacity: Capacity,
    /// Members, each with the mark it maps to in sets that have marks.
    pub members: BTreeMap<Member, Option<Mark>>,
}

impl Set {
    /// A set with room for its members and more.
    pub fn with(kind: SetKind, members: BTreeMap<Member, Option<Mark>>) -> Self {
        Self { capacity: Capacity::for_members(kind, members.len()), members }
    }

    /// The same with at least the room of the one that is there: to make that smaller would be to replace it.
    pub fn no_smaller_than(mut self, found: Option<&Self>) -> Self {
        self.capacity = self.capacity.max(found.map_or(self.capacity, |found| found.capacity));
        self
    }

    /// Whether the kernel would refuse another member. A set of ports has room for all.
    pub fn is_full(&self, kind: SetKind) -> bool {
        kind.set_type() != SetType::Port && self.members.len() >= usize::try_from(self.capacity.0).unwrap_or(usize::MAX)
    }
}

/// How many members a set may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capacity(pub u32);

impl Default for Capacity {
    fn default() -> Self {
        Self::LEAST
    }
}

impl Capacity {
    /// `maxelem` where nobody says another (`IPSET_DEFAULT_MAXELEM`), which all of kube-proxy's sets have.
    pub const LEAST: Self = Self(65_536);

    /// No set gets larger. Each member takes some 60 bytes of the kernel's memory.
    pub const MOST: Self = Self(1 << 22);

    /// What a set needs for so many members and those that come until it is resized. A set of ports has room for all.
    pub fn for_members(kind: SetKind, count: usize) -> Self {
        if kind.set_type() == SetType::Port {
            return Self::LEAST;
        }
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let roomy = count.saturating_add(count / 2).checked_next_power_of_two().unwrap_or(u32::MAX);
        Self(roomy).clamp(Self::LEAST, Self::MOST)
    }
}

/// Which set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetKey {
    /// What it is for.
    pub kind: SetKind,
    /// Of the addresses in it, or of the packets that ports in it are of.
    pub family: Family,
}

/// What a set is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetKind {
    /// Endpoints, each with its own address as the client: who reaches itself through a Service is masqueraded.
    LoopBack,
    /// Cluster IPs.
    ClusterIp,
    /// External IPs with traffic policy `Cluster`.
    ExternalIp,
    /// External IPs with traffic policy `Local`.
    ExternalIpLocal,
    /// Load-balancer IPs.
    LoadBalancer,
    /// Those with source ranges.
    LoadBalancerFirewall,
    /// Those with traffic policy `Local`.
    LoadBalancerLocal,
    /// Those whose source ranges allow this node, each with itself as the client.
    LoadBalancerSourceIp,
    /// Those with source ranges, each with each range.
    LoadBalancerSourceCidr,
    /// TCP node ports.
    NodePortTcp,
    /// Those with traffic policy `Local`.
    NodePortLocalTcp,
    /// UDP node ports.
    NodePortUdp,
    /// Those with traffic policy `Local`.
    NodePortLocalUdp,
    /// SCTP node ports on each address, as sets of ports alone do not match SCTP.
    NodePortSctp,
    /// Those with traffic policy `Local`.
    NodePortLocalSctp,
    /// Health check node ports.
    HealthCheckNodePort,
    /// VIPs that are local by a route of ours.
    Vips,
    /// Frontends with external traffic policy `Local`, each with the mark of the virtual server that has the endpoints of
    /// the whole cluster, for those clients that may use them: the node and its pods. Also node ports, where they come
    /// from loopback addresses. Our own.
    ShortCircuit,
    /// Frontends with external traffic policy `Local` and endpoints on other nodes only. Our own.
    NoLocal,
    /// TCP node ports that are on loopback addresses of the node and have endpoints. Our own.
    LocalhostTcp,
    /// The same of UDP. Our own.
    LocalhostUdp,
    /// The same of SCTP, each with the address that clients have. Our own.
    LocalhostSctp,
}

/// What the members of a set are made of: its type in ipset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetType {
    /// `hash:ip`
    Address,
    /// `bitmap:port`
    Port,
    /// `hash:ip,port`
    AddressPort,
    /// `hash:ip,port,ip`
    AddressPortAddress,
    /// `hash:ip,port,net`
    AddressPortNet,
}

/// A member of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// Of [`SetType::Address`].
    Address(IpAddr),
    /// Of [`SetType::Port`]; host byte order.
    Port(u16),
    /// Of [`SetType::AddressPort`].
    AddressPort(AddressPort),
    /// Of [`SetType::AddressPortAddress`].
    AddressPortAddress(AddressPort, IpAddr),
    /// Of [`SetType::AddressPortNet`]; the network has no bits beyond its prefix.
    AddressPortNet(AddressPort, IpNet),
}

/// An address, protocol and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressPort {
    /// Of a frontend or endpoint.
    pub address: IpAddr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// Host byte order.
    pub port: u16,
}

impl SetKey {
    /// All sets there can be.
    pub fn all() -> impl Iterator<Item = Self> {
        let families = [Family::Ipv4, Family::Ipv6];
        families.into_iter().flat_map(|family| SetKind::ALL.map(|kind| Self { kind, family }))
    }

    /// The set's name. For IPv6 `6-` follows the first word, and what is longer than the kernel allows is cut off
    /// (`IPSET_MAXNAMELEN` is 32 with the closing zero), as in kube-proxy.
    pub fn name(&self) -> String {
        let name = self.kind.name();
        match self.family {
            Family::Ipv4 => name.to_owned(),
            Family::Ipv6 => name.replacen('-', "-6-", 1).chars().take(31).collect(),
        }
    }
}

impl SetKind {
    /// Every kind.
    pub const ALL: [Self; 22] = [
        Self::LoopBack,
        Self::ClusterIp,
        Self::ExternalIp,
        Self::ExternalIpLocal,
        Self::LoadBalancer,
        Self::LoadBalancerFirewall,
        Self::LoadBalancerLocal,
        Self::LoadBalancerSourceIp,
        Self::LoadBalancerSourceCidr,
        Self::NodePortTcp,
        Self::NodePortLocalTcp,
        Self::NodePortUdp,
        Self::NodePortLocalUdp,
        Self::NodePortSctp,
        Self::NodePortLocalSctp,
        Self::HealthCheckNodePort,
        Self::Vips,
        Self::ShortCircuit,
        Self::NoLocal,
        Self::LocalhostTcp,
        Self::LocalhostUdp,
        Self::LocalhostSctp,
    ];

    /// Whether its members are what is not masqueraded though another set has it: frontends with traffic policy `Local`,
    /// whose destinations are all on this node.
    pub fn ends_masquerading(self) -> bool {
        matches!(
            self,
            Self::LoadBalancerLocal | Self::NodePortLocalTcp | Self::NodePortLocalUdp | Self::NodePortLocalSctp
        )
    }

    /// What its members are made of.
    pub fn set_type(self) -> SetType {
        match self {
            Self::Vips => SetType::Address,
            Self::NodePortTcp
            | Self::NodePortLocalTcp
            | Self::NodePortUdp
            | Self::NodePortLocalUdp
            | Self::LocalhostTcp
            | Self::LocalhostUdp
            | Self::HealthCheckNodePort => SetType::Port,
            Self::LoopBack | Self::LoadBalancerSourceIp => SetType::AddressPortAddress,
            Self::LoadBalancerSourceCidr => SetType::AddressPortNet,
            Self::ClusterIp
            | Self::ExternalIp
            | Self::ExternalIpLocal
            | Self::LoadBalancer
            | Self::LoadBalancerFirewall
            | Self::LoadBalancerLocal
            | Self::NodePortSctp
            | Self::NodePortLocalSctp
            | Self::LocalhostSctp
            | Self::ShortCircuit
            | Self::NoLocal => SetType::AddressPort,
        }
    }

    /// Whether its members map to marks.
    pub fn has_marks(self) -> bool {
        self == Self::ShortCircuit
    }

    /// Whether kube-proxy's ipvs mode has the set too.
    pub fn is_kube_proxys_too(self) -> bool {
        self.name().starts_with("KUBE-")
    }

    /// The name of the set for IPv4.
    fn name(self) -> &'static str {
        match self {
            Self::LoopBack => "KUBE-LOOP-BACK",
            Self::ClusterIp => "KUBE-CLUSTER-IP",
            Self::ExternalIp => "KUBE-EXTERNAL-IP",
            Self::ExternalIpLocal => "KUBE-EXTERNAL-IP-LOCAL",
            Self::LoadBalancer => "KUBE-LOAD-BALANCER",
            Self::LoadBalancerFirewall => "KUBE-LOAD-BALANCER-FW",
            Self::LoadBalancerLocal => "KUBE-LOAD-BALANCER-LOCAL",
            Self::LoadBalancerSourceIp => "KUBE-LOAD-BALANCER-SOURCE-IP",
            Self::LoadBalancerSourceCidr => "KUBE-LOAD-BALANCER-SOURCE-CIDR",
            Self::NodePortTcp => "KUBE-NODE-PORT-TCP",
            Self::NodePortLocalTcp => "KUBE-NODE-PORT-LOCAL-TCP",
            Self::NodePortUdp => "KUBE-NODE-PORT-UDP",
            Self::NodePortLocalUdp => "KUBE-NODE-PORT-LOCAL-UDP",
            Self::NodePortSctp => "KUBE-NODE-PORT-SCTP-HASH",
            Self::NodePortLocalSctp => "KUBE-NODE-PORT-LOCAL-SCTP-HASH",
            Self::HealthCheckNodePort => "KUBE-HEALTH-CHECK-NODE-PORT",
            Self::Vips => "KUBE-IPVS-IPS",
            Self::ShortCircuit => "IPVSD-SHORT-CIRCUIT",
            Self::NoLocal => "IPVSD-NO-LOCAL",
            Self::LocalhostTcp => "IPVSD-LOCALHOST-TCP",
            Self::LocalhostUdp => "IPVSD-LOCALHOST-UDP",
            Self::LocalhostSctp => "IPVSD-LOCALHOST-SCTP",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_set_has_a_name_of_its_own_that_the_kernel_can_hold() {
        let names: BTreeSet<_> = SetKey::all().map(|key| key.name()).collect();
        assert_eq!(names.len(), 2 * SetKind::ALL.len());
        assert!(names.iter().all(|name| name.len() <= 31));
    }

    #[test]
    fn the_names_for_ipv6_are_cut_off_as_kube_proxy_does() {
        let name = |kind| SetKey { kind, family: Family::Ipv6 }.name();
        assert_eq!(name(SetKind::LoadBalancerSourceCidr), "KUBE-6-LOAD-BALANCER-SOURCE-CID");
        assert_eq!(name(SetKind::NodePortLocalSctp), "KUBE-6-NODE-PORT-LOCAL-SCTP-HAS");
        assert_eq!(name(SetKind::ShortCircuit), "IPVSD-6-SHORT-CIRCUIT");
    }

    #[test]
    fn a_set_grows_long_before_it_is_full() {
        assert_eq!(Capacity::for_members(SetKind::NodePortTcp, 65_535), Capacity::LEAST);
        for (members, capacity) in [
            (0, 65_536),
            (43_691, 65_536),
            (43_692, 131_072),
            (65_536, 131_072),
            (1_000_000, 2_097_152),
            (usize::MAX, 4_194_304),
        ] {
            assert_eq!(Capacity::for_members(SetKind::ClusterIp, members), Capacity(capacity), "{members}");
        }
    }
}
