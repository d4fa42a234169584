//! IPVS's generic netlink protocol (linux/ip_vs.h): its numbers, and what a dump holds.
//!
//! [`encode`] writes requests, [`decode`] reads answers, [`sync`] does both for sync daemons. All are pure;
//! [`handle`] sends and receives.
//!
//! What is a virtual server everywhere else is a *service* to the kernel: constants, attributes and requests have the
//! kernel's word here, the values that leave this module have ours.

pub mod decode;
pub mod encode;
pub mod handle;
pub mod sync;

use crate::kernel::netlink::Malformed;
use crate::kernel::ownership;
use crate::model::{
    DestinationKey, DestinationSpec, Family, Forwarding, Persistence, Protocol, SchedulerFlags, VirtualServerKey,
    VirtualServerSpec,
};
use std::fmt;
use std::net::IpAddr;

/// `IPVS_GENL_NAME` (linux/ip_vs.h): the name to ask the family's number for.
pub const FAMILY_NAME: &str = "IPVS";

/// `IPVS_CMD_*` (linux/ip_vs.h), those that are used.
mod command {
    pub const NEW_SERVICE: u8 = 1;
    pub const SET_SERVICE: u8 = 2;
    pub const DEL_SERVICE: u8 = 3;
    pub const GET_SERVICE: u8 = 4;
    pub const NEW_DEST: u8 = 5;
    pub const SET_DEST: u8 = 6;
    pub const DEL_DEST: u8 = 7;
    pub const GET_DEST: u8 = 8;
    pub const GET_DAEMON: u8 = 11;
    pub const SET_CONFIG: u8 = 12;
    pub const GET_CONFIG: u8 = 13;
    pub const GET_INFO: u8 = 15;
}

/// `IPVS_CMD_ATTR_*` (linux/ip_vs.h): what a message is about.
mod subject {
    pub const SERVICE: u16 = 1;
    pub const DEST: u16 = 2;
    pub const DAEMON: u16 = 3;
    pub const TIMEOUT_TCP: u16 = 4;
    pub const TIMEOUT_TCP_FIN: u16 = 5;
    pub const TIMEOUT_UDP: u16 = 6;
}

/// `IPVS_SVC_ATTR_*` (linux/ip_vs.h).
mod service {
    pub const AF: u16 = 1;
    pub const PROTOCOL: u16 = 2;
    pub const ADDR: u16 = 3;
    pub const PORT: u16 = 4;
    pub const FWMARK: u16 = 5;
    pub const SCHED_NAME: u16 = 6;
    pub const FLAGS: u16 = 7;
    pub const TIMEOUT: u16 = 8;
    pub const NETMASK: u16 = 9;
    pub const STATS: u16 = 10;
    pub const PE_NAME: u16 = 11;
    pub const STATS64: u16 = 12;
}

/// `IPVS_DEST_ATTR_*` (linux/ip_vs.h).
mod destination {
    pub const ADDR: u16 = 1;
    pub const PORT: u16 = 2;
    pub const FWD_METHOD: u16 = 3;
    pub const WEIGHT: u16 = 4;
    pub const U_THRESH: u16 = 5;
    pub const L_THRESH: u16 = 6;
    pub const ACTIVE_CONNS: u16 = 7;
    pub const INACT_CONNS: u16 = 8;
    pub const PERSIST_CONNS: u16 = 9;
    pub const STATS: u16 = 10;
    pub const ADDR_FAMILY: u16 = 11;
    pub const STATS64: u16 = 12;
    pub const TUN_TYPE: u16 = 13;
    pub const TUN_PORT: u16 = 14;
    pub const TUN_FLAGS: u16 = 15;
}

/// `IP_VS_SVC_F_PERSISTENT` (linux/ip_vs.h).
const PERSISTENT: u32 = 0x1;

/// `IP_VS_SVC_F_HASHED` (linux/ip_vs.h). The kernel sets it; a new service that comes with it is taken for one that
/// is in the hash table already, and never gets there.
const HASHED: u32 = 0x2;

/// `IPVS_INFO_ATTR_*`: what IPVS says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// `IP_VS_VERSION_CODE`: major, minor and patch, a byte each.
    pub version: u32,
    /// Buckets of the connection table.
    pub connection_table_size: u32,
}

/// When IPVS forgets a connection that is idle, in seconds. To set one to 0 leaves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Of an established TCP connection.
    pub tcp: u32,
    /// Of a TCP connection that one side has closed.
    pub tcp_fin: u32,
    /// Of a flow of UDP packets.
    pub udp: u32,
}

/// What packets a virtual server takes, as the kernel tells it: also such as [`VirtualServerKey`] cannot express.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// By address, port and protocol.
    Address {
        /// The virtual address.
        address: IpAddr,
        /// Host byte order; 0 for every port.
        port: u16,
        /// IP protocol number.
        protocol: u16,
    },
    /// By netfilter's mark.
    Mark {
        /// Never 0.
        mark: u32,
        /// Of the packets.
        family: Family,
    },
}

/// A virtual server as the kernel tells it, ours or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualServerEntry {
    /// What it matches.
    pub identity: Identity,
    /// The scheduler's name, or `none`.
    pub scheduler: String,
    /// The persistence engine's name (`sip`), if it has one.
    pub persistence_engine: Option<String>,
    /// `IP_VS_SVC_F_*`, all 32 bits, with the owner's tag.
    pub flags: u32,
    /// Seconds; has a meaning only with the persistent flag.
    pub timeout: u32,
    /// IPv4: the mask, 0xffffff00 for /24. IPv6: the prefix length. Has a meaning only with the persistent flag.
    pub netmask: u32,
    /// What went through it.
    pub stats: Stats,
}

/// A destination as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationEntry {
    /// Which one.
    pub key: DestinationKey,
    /// `IP_VS_CONN_F_FWD_MASK`; none if the kernel has a method that we do not know.
    pub forwarding: Option<Forwarding>,
    /// Its weight.
    pub weight: u32,
    /// No new connections at or above this many; 0 for no limit.
    pub upper_threshold: u32,
    /// New connections again below this many.
    pub lower_threshold: u32,
    /// Connections in the protocol's established state.
    pub active: u32,
    /// Connections in any other state.
    pub inactive: u32,
    /// Persistence templates.
    pub persistent: u32,
    /// What went through it.
    pub stats: Stats,
    /// How packets are wrapped, if `forwarding` is a tunnel.
    pub tunnel: Tunnel,
}

/// `IPVS_DEST_ATTR_TUN_*`: the kind of a tunnel (since Linux 5.3; an older kernel has only IP-in-IP, all zero).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tunnel {
    /// `IP_VS_CONN_F_TUNNEL_TYPE_*`: 0 IP-in-IP, 1 GUE, 2 GRE.
    pub kind: u8,
    /// GUE's UDP port in host byte order.
    pub port: u16,
    /// `IP_VS_TUNNEL_ENCAP_FLAG_*`: checksum options.
    pub flags: u16,
}

/// `IPVS_STATS_ATTR_*`: totals since creation or zeroing, and the kernel's rates of the last seconds. The kernel
/// brings them up to date every two seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients (0 for direct routing and tunnels, whose replies take another way).
    pub packets_out: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Connections per second.
    pub connection_rate: u64,
    /// Packets per second from clients.
    pub packet_rate_in: u64,
    /// Packets per second to clients.
    pub packet_rate_out: u64,
    /// Bytes per second from clients.
    pub byte_rate_in: u64,
    /// Bytes per second to clients.
    pub byte_rate_out: u64,
}

impl fmt::Display for Timeouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tcp {} s, tcpfin {} s, udp {} s", self.tcp, self.tcp_fin, self.udp)
    }
}

impl Identity {
    /// The same as a key; none if IPVS does not balance the protocol, which nobody can use then.
    pub fn key(&self) -> Option<VirtualServerKey> {
        match *self {
            Self::Address { address, port, protocol } => {
                Protocol::from_number(protocol).map(|protocol| VirtualServerKey::new(address, port, protocol))
            }
            Self::Mark { mark, family } => Some(VirtualServerKey::Mark { mark, family }),
        }
    }

    /// The family of the packets.
    pub fn family(&self) -> Family {
        match self {
            Self::Address { address, .. } => Family::of(*address),
            Self::Mark { family, .. } => *family,
        }
    }
}

impl From<VirtualServerKey> for Identity {
    fn from(key: VirtualServerKey) -> Self {
        match key {
            VirtualServerKey::Address { address, port, protocol } => {
                Self::Address { address, port, protocol: protocol.number().into() }
            }
            VirtualServerKey::Mark { mark, family } => Self::Mark { mark, family },
        }
    }
}

impl VirtualServerEntry {
    /// The flags of one that is ours and has no settings but, perhaps, persistence.
    pub fn flags_of_ours(is_persistent: bool) -> u32 {
        ownership::tagged(if is_persistent { PERSISTENT } else { 0 })
    }

    /// Whether ipvsd made it.
    pub fn is_ours(&self) -> bool {
        ownership::virtual_server_is_ours(self.flags)
    }

    /// The flags that are settings: without the owner's tag, persistence, and what the kernel keeps for itself.
    /// Where the tag is missing, bits of the high half say so.
    pub fn scheduler_flags(&self) -> SchedulerFlags {
        SchedulerFlags(ownership::compared_with_tag(self.flags) & !(PERSISTENT | HASHED))
    }

    /// Its persistence, if it is persistent.
    pub fn persistence(&self) -> Option<Persistence> {
        let prefix = match self.identity.family() {
            Family::Ipv4 => self.netmask.leading_ones(),
            Family::Ipv6 => self.netmask,
        };
        let prefix = u8::try_from(prefix).unwrap_or(u8::MAX);
        (self.flags & PERSISTENT != 0).then_some(Persistence { timeout: self.timeout, prefix })
    }

    /// Its settings.
    ///
    /// # Errors
    /// The scheduler's name is not one that ipvsd could have set.
    pub fn spec(&self) -> Result<VirtualServerSpec, Malformed> {
        let scheduler = self.scheduler.parse().map_err(|invalid| Malformed(format!("{invalid}")))?;
        Ok(VirtualServerSpec { scheduler, flags: self.scheduler_flags(), persistence: self.persistence() })
    }
}

impl DestinationEntry {
    /// Its settings.
    ///
    /// # Errors
    /// The forwarding method is unknown.
    pub fn spec(&self) -> Result<DestinationSpec, Malformed> {
        Ok(DestinationSpec {
            weight: self.weight,
            forwarding: self.forwarding.ok_or_else(|| Malformed::new("an unknown forwarding method"))?,
            upper_threshold: self.upper_threshold,
            lower_threshold: self.lower_threshold,
        })
    }

    /// Its connections, active or not.
    pub fn connections(&self) -> u32 {
        self.active.saturating_add(self.inactive)
    }
}

/// The number of a forwarding method (`IP_VS_CONN_F_MASQ` and so on, linux/ip_vs.h).
fn forwarding_number(forwarding: Forwarding) -> u32 {
    match forwarding {
        Forwarding::Masquerade => 0,
        Forwarding::Local => 1,
        Forwarding::Tunnel => 2,
        Forwarding::DirectRouting => 3,
        Forwarding::Bypass => 4,
    }
}

/// The forwarding method of `IP_VS_CONN_F_*` flags.
fn forwarding_of(flags: u32) -> Option<Forwarding> {
    // IP_VS_CONN_F_FWD_MASK
    match flags & 0x7 {
        0 => Some(Forwarding::Masquerade),
        1 => Some(Forwarding::Local),
        2 => Some(Forwarding::Tunnel),
        3 => Some(Forwarding::DirectRouting),
        4 => Some(Forwarding::Bypass),
        _ => None,
    }
}
