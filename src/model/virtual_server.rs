//! Virtual servers and destinations as values: their keys and their settings.

use super::netfilter::Mark;
use litemap::LiteMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A virtual server: its settings and its destinations (real servers).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualServer {
    /// Settings that can be changed in place.
    pub spec: VirtualServerSpec,
    /// Destinations by identity.
    pub destinations: Destinations,
}

/// The destinations of a virtual server, sorted in one allocation: most have a few, and a node of a tree would cost
/// ten times their size.
pub type Destinations = LiteMap<DestinationKey, DestinationSpec>;

/// What makes a virtual server this one and no other. Ordered by address first, so that all virtual servers of
/// one VIP are neighbours in a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VirtualServerKey {
    /// Matches packets to an address, port and protocol.
    Address {
        /// The VIP or node address.
        address: IpAddr,
        /// Host byte order; 0 means every port, which only foreign virtual servers use.
        port: u16,
        /// The transport protocol.
        protocol: Protocol,
    },
    /// Matches packets that netfilter gave a mark.
    Mark {
        /// The whole mark, never 0.
        mark: u32,
        /// The address family of the packets.
        family: Family,
    },
}

impl VirtualServerKey {
    /// The key of a virtual server that matches an address, port and protocol.
    pub fn new(address: IpAddr, port: u16, protocol: Protocol) -> Self {
        Self::Address { address, port, protocol }
    }

    /// The address it matches, if it matches one.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address { address, .. } => Some(*address),
            Self::Mark { .. } => None,
        }
    }

    /// The protocol it matches, if it is known to match one. Of marks, those of ours tell that the packets are UDP.
    pub fn protocol(&self) -> Option<Protocol> {
        match self {
            Self::Address { protocol, .. } => Some(*protocol),
            Self::Mark { mark, .. } => Mark::from_bits(*mark).filter(|mark| mark.is_udp()).map(|_| Protocol::Udp),
        }
    }

    /// The family of the packets it matches.
    pub fn family(&self) -> Family {
        match self {
            Self::Address { address, .. } => Family::of(*address),
            Self::Mark { family, .. } => *family,
        }
    }

    /// The smallest key that matches `address`, for range look-ups of a VIP's virtual servers.
    pub fn first_of(address: IpAddr) -> Self {
        Self::new(address, 0, Protocol::Tcp)
    }

    /// The largest key that matches `address`.
    pub fn last_of(address: IpAddr) -> Self {
        Self::new(address, u16::MAX, Protocol::Sctp)
    }
}

/// The settings of a virtual server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtualServerSpec {
    /// Chooses the destination of a new connection.
    pub scheduler: SchedulerName,
    /// Behaviour switches; only those that ipvsd compares and sets.
    pub flags: SchedulerFlags,
    /// Set when a client keeps its destination from one connection to the next.
    pub persistence: Option<Persistence>,
}

impl VirtualServerSpec {
    /// The same settings in a virtual server that has the owner's tag.
    pub fn as_ours(self) -> Self {
        Self { flags: self.flags.settings(), ..self }
    }
}

/// How long, and for which group of clients, a destination is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// Seconds since the client's last connection.
    pub timeout: u32,
    /// Clients whose addresses agree in so many leading bits share a destination: 32 (IPv4) or 128 (IPv6) means
    /// each client for itself.
    pub prefix: u8,
}

/// Bits of `IP_VS_SVC_F_*` (linux/ip_vs.h) that are settings: all but `PERSISTENT` (0x1), which
/// [`VirtualServerSpec::persistence`] says, `HASHED` (0x2), which is the kernel's, and the owner's tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SchedulerFlags(pub u32);

impl SchedulerFlags {
    /// `IP_VS_SVC_F_ONEPACKET`: each UDP packet is scheduled alone.
    pub const ONE_PACKET: Self = Self(0x04);
    /// `IP_VS_SVC_F_SCHED1`, for `sh` and `mh`: look further when the hashed destination has no weight.
    pub const FALLBACK: Self = Self(0x08);
    /// `IP_VS_SVC_F_SCHED2`, for `sh` and `mh`: hash the client's port too.
    pub const PORT: Self = Self(0x10);

    /// The bits that can be settings. Those above tell of a virtual server that lacks the owner's tag.
    pub fn settings(self) -> Self {
        Self(self.0 & 0xffff)
    }

    /// Both sets of bits.
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every bit of `other` is set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What makes a destination this one within its virtual server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationKey {
    /// The real server's address.
    pub address: IpAddr,
    /// Host byte order.
    pub port: u16,
}

/// The settings of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DestinationSpec {
    /// Share of new connections for weighted schedulers; 0 takes no new ones and keeps the old (draining).
    pub weight: u32,
    /// How packets get there.
    pub forwarding: Forwarding,
    /// No new connections at or above this many; 0 means no limit.
    pub upper_threshold: u32,
    /// Below this many, new connections again; 0 means three quarters of the upper threshold.
    pub lower_threshold: u32,
}

impl DestinationSpec {
    /// Masquerading without limits: what ipvsd programs.
    pub fn masquerading(weight: u32) -> Self {
        Self { weight, forwarding: Forwarding::Masquerade, upper_threshold: 0, lower_threshold: 0 }
    }

    /// The same destination, taking no new connections.
    pub fn drained(self) -> Self {
        Self { weight: 0, ..self }
    }
}

/// `IP_VS_CONN_F_FWD_MASK` (linux/ip_vs.h): the ways a packet reaches its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forwarding {
    /// Address translation, replies come back through this node.
    Masquerade,
    /// Delivered on this node.
    Local,
    /// IP-in-IP, GUE or GRE.
    Tunnel,
    /// Same link, destination address untouched.
    DirectRouting,
    /// Past IPVS altogether (`IP_VS_CONN_F_BYPASS`); never configured, shown if found.
    Bypass,
}

/// Transport protocols that IPVS balances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// IP protocol 6.
    Tcp,
    /// IP protocol 17.
    Udp,
    /// IP protocol 132.
    Sctp,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The IP protocol number (IANA).
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol of an IP protocol number, if IPVS balances it.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| u16::from(protocol.number()) == number)
    }

    /// The name as Kubernetes and ipvsadm write it: `TCP`, `UDP`, `SCTP`. Our own text form has it in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// The protocol of a name in upper case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }
}

/// Address families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `AF_INET`.
    Ipv4,
    /// `AF_INET6`.
    Ipv6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }

    /// The name as Kubernetes and ipvsadm write it: `IPv4`, `IPv6`. Our own text form has it in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }

    /// Bits in an address of this family.
    pub fn bits(self) -> u8 {
        match self {
            Self::Ipv4 => 32,
            Self::Ipv6 => 128,
        }
    }

    /// All addresses of this family.
    pub fn addresses(self) -> RangeInclusive<IpAddr> {
        match self {
            Self::Ipv4 => Ipv4Addr::UNSPECIFIED.into()..=Ipv4Addr::BROADCAST.into(),
            Self::Ipv6 => Ipv6Addr::UNSPECIFIED.into()..=Ipv6Addr::from_bits(u128::MAX).into(),
        }
    }
}

/// A scheduler's name as the kernel knows it: open, because the kernel loads `ip_vs_NAME` whatever the name is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchedulerName([u8; Self::MAX]);

/// A text that cannot be a scheduler's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a scheduler name: 1 to 15 characters of a-z, 0-9, _ and - are")]
pub struct InvalidScheduler(pub String);

impl SchedulerName {
    /// `IP_VS_SCHEDNAME_MAXLEN` (linux/ip_vs.h) is 16 with the closing zero.
    const MAX: usize = 15;
    /// Round robin, the default.
    pub const RR: Self = Self::literal(b"rr");
    /// Maglev hashing.
    pub const MH: Self = Self::literal(b"mh");
    /// Source hashing.
    pub const SH: Self = Self::literal(b"sh");
    /// No scheduler of IPVS: a destination by chance and weight, as netfilter's rules choose.
    pub const RANDOM: Self = Self::literal(b"random");

    #[expect(clippy::indexing_slicing, reason = "a const fn can only index; every caller's name is 15 bytes at most")]
    const fn literal(name: &[u8]) -> Self {
        let mut bytes = [0; Self::MAX];
        let mut i = 0;
        while i < name.len() {
            bytes[i] = name[i];
            i += 1;
        }
        Self(bytes)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(Self::MAX);
        // Only ASCII gets in, so the default is never needed.
        self.0.get(..end).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default()
    }

    /// Whether the scheduler hashes, and so knows the `port` and `fallback` flags.
    pub fn takes_hash_flags(&self) -> bool {
        matches!(*self, Self::SH | Self::MH)
    }
}

impl FromStr for SchedulerName {
    type Err = InvalidScheduler;

    fn from_str(text: &str) -> Result<Self, InvalidScheduler> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if text.is_empty() || text.len() > Self::MAX || !text.bytes().all(allowed) {
            return Err(InvalidScheduler(text.to_owned()));
        }
        Ok(Self::literal(text.as_bytes()))
    }
}

impl fmt::Display for SchedulerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SchedulerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheduler_names_are_what_the_kernel_can_hold() {
        for good in ["rr", "wrr", "lblcr", "fifteen_letters"] {
            assert_eq!(good.parse::<SchedulerName>().unwrap().as_str(), good);
        }
        for bad in ["", "sixteen__letters", "RR", "r r", "rr\0", "é"] {
            assert_eq!(bad.parse::<SchedulerName>(), Err(InvalidScheduler(bad.into())));
        }
    }

    #[test]
    fn of_marks_only_ours_for_udp_tell_their_protocol() {
        let key = |mark| VirtualServerKey::Mark { mark, family: Family::Ipv4 };
        let ours = |protocol| key(Mark::new(1, protocol).unwrap().bits()).protocol();
        assert_eq!([ours(Protocol::Udp), ours(Protocol::Tcp), ours(Protocol::Sctp)], [Some(Protocol::Udp), None, None]);
        assert_eq!(key(7).protocol(), None);
    }

    #[test]
    fn every_address_is_of_its_family_alone() {
        for text in ["0.0.0.0", "10.0.0.1", "255.255.255.255", "::", "::ffff:10.0.0.1", "ffff:ffff::", "::1"] {
            let address: IpAddr = text.parse().unwrap();
            for family in [Family::Ipv4, Family::Ipv6] {
                assert_eq!(family.addresses().contains(&address), family == Family::of(address), "{text} {family:?}");
            }
        }
    }

    #[test]
    fn the_virtual_servers_of_a_vip_are_neighbours() {
        let vip: IpAddr = "10.0.0.1".parse().unwrap();
        let range = VirtualServerKey::first_of(vip)..=VirtualServerKey::last_of(vip);
        for (port, protocol) in [(0, Protocol::Tcp), (80, Protocol::Udp), (65535, Protocol::Sctp)] {
            assert!(range.contains(&VirtualServerKey::new(vip, port, protocol)));
        }
        assert!(!range.contains(&VirtualServerKey::new("10.0.0.2".parse().unwrap(), 80, Protocol::Tcp)));
        assert!(!range.contains(&VirtualServerKey::Mark { mark: 1, family: Family::Ipv4 }));
    }
}
