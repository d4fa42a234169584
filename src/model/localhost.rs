//! The way from 127.0.0.1 to IPVS: names and addresses of a veth pair of our own, both ends of which are on the node.
//!
//! ```text
//! client 127.0.0.1 -> 127.0.0.1:30080                 the near end              the far end
//!   nat OUTPUT: to FAR:30080, POSTROUTING: from NEAR -> ipvsd-lo0 ------------- ipvsd-lo1 -> IPVS, as of NEAR
//!   client <- 127.0.0.1:30080, by netfilter          <- ipvsd-lo0 ------------- ipvsd-lo1 <- FAR:30080, by IPVS
//! ```
//! IPVS sends nothing from a loopback address to another host (`__ip_vs_get_out_rt`), and netfilter can change a source
//! only when a packet leaves (POSTROUTING), where IPVS looks no more. So the packet leaves, with a source that can be
//! answered, and comes in again as one that netfilter has not seen.

use std::net::Ipv4Addr;

/// The end that packets to node ports leave by, and their answers come in by. It alone takes packets for loopback
/// addresses (`route_localnet`).
pub const NEAR_DEVICE: &str = "ipvsd-lo0";

/// The end that they come in by, and their answers leave by.
pub const FAR_DEVICE: &str = "ipvsd-lo1";

/// What stands for the client on the way. No device has it. RFC 3927 (2.1) keeps the last 256 link-local addresses from
/// hosts that choose one by themselves; metadata services and caches of DNS have others.
pub const NEAR_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 255, 118);

/// What stands for 127.0.0.1 on the way. No device has it, and no virtual server: IPVS would take the packet before it
/// left. It differs from [`NEAR_ADDRESS`] in the last bit.
pub const FAR_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 255, 119);

/// How much of the way was found: devices, their settings, routes, and the rules that lead to the routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LocalhostPath {
    /// All of it.
    Whole,
    /// Something is missing or is not as it should be. Never wanted.
    Broken,
}
