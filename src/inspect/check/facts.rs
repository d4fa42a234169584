//! What there is to know of a node before it can be said whether it is fit. Who reads it is the caller.

use crate::inspect::Status;
use crate::kernel::Observation;
use crate::kernel::node_setup::Difference;
use crate::state::Node;

/// What there is to know of a node.
#[derive(Debug)]
pub struct Facts {
    /// Whether this process may program the network.
    pub may_program: bool,
    /// What balances.
    pub mode: Mode,
    /// Modules that balancing needs, each with whether it is there.
    pub modules: Vec<(String, Module)>,
    /// What should be set and is not; a sentence where that cannot be known.
    pub settings: Result<Vec<Difference>, String>,
    /// What the kernel holds; a sentence where it cannot be read.
    pub kernel: Result<Observation, String>,
    /// The node's addresses.
    pub node: Node,
    /// Whether IPv6 is forwarded.
    pub forwards_ipv6: bool,
    /// Devices that drop what comes by another way than answers would go (`rp_filter` 1).
    pub strict_devices: Vec<String>,
    /// Rules in each back end of iptables that is in use: its name, how many, and whether kube-proxy's iptables mode made
    /// some of them; none where they cannot be read.
    pub iptables: Vec<(&'static str, Option<(usize, bool)>)>,
    /// Processes called kube-proxy in this network namespace that are not the daemon which answers.
    pub kube_proxies: Vec<u32>,
    /// Connections that netfilter tracks, and how many it may.
    pub connections: Option<(u64, u64)>,
    /// What the daemon says; a sentence where it does not.
    pub daemon: Result<Daemon, Silence>,
}

/// What balances on a node, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// IPVS.
    Ipvs,
    /// Netfilter's rules, as asked.
    Iptables,
    /// Netfilter's rules in place of IPVS; why.
    Fallback(String),
    /// Nothing, as there is no IPVS and rules are not allowed in its place; why.
    Nothing(String),
}

/// Whether a module is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    /// It is.
    Loaded,
    /// It is not, and can be.
    Loadable,
    /// It is not, and modprobe does not find it; it may be a part of the kernel.
    Missing,
}

/// A daemon says nothing.
#[derive(Clone, Debug)]
pub struct Silence {
    /// Whether one is there, and hangs.
    pub hangs: bool,
    /// A sentence.
    pub why: String,
}

/// What is known of a daemon.
#[derive(Debug)]
pub struct Daemon {
    /// As it says.
    pub status: Status,
    /// How many operations would bring the kernel to what it wants; none if that cannot be known.
    pub differences: Option<usize>,
}
