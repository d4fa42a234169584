//! The vocabulary for what a kernel holds: one [`Model`] type for both what is wanted and what is found.
//!
//! Identity (`…Key`) is apart from settings (`…Spec`), so equality is derived and an in-place change shows.
//! Plain values only: no clocks, no I/O, no netlink. The operations that lead from one model to another are in
//! [`op`]; the text form that scenarios, `ipvsd diff` and logs share is in [`text`], that of durations in [`duration`].

pub mod address;
pub mod duration;
mod flow;
mod leftover;
pub mod localhost;
pub mod netfilter;
pub mod op;
pub mod text;
mod virtual_server;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub use flow::{Flow, Kept};
pub use leftover::Leftover;
pub use localhost::LocalhostPath;
use netfilter::{RuleSettings, Set, SetKey, SetKind};
pub use op::{Op, Phase};
pub use virtual_server::{
    DestinationKey, DestinationSpec, Destinations, Family, Forwarding, InvalidScheduler, Persistence, Protocol,
    SchedulerFlags, SchedulerName, VirtualServer, VirtualServerKey, VirtualServerSpec,
};

/// The dummy device on which kube-proxy's ipvs mode keeps the VIPs of all Services (`kube-proxy/.../ipvs/proxier.go`).
pub const KUBE_PROXY_DEVICE: &str = "kube-ipvs0";

/// Everything ipvsd owns in a kernel.
///
/// `desired` builds one from the cluster's state, `kernel` reads one, `diff` compares the two. Nothing that
/// belongs to somebody else (keepalived, `ipvsadm` by hand) ever gets into a `Model`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// Virtual servers by identity, each with its destinations.
    pub virtual_servers: BTreeMap<VirtualServerKey, VirtualServer>,
    /// VIPs that are local addresses of this node by a route of type `local`, rather than by an address on a device.
    pub routes: BTreeMap<IpAddr, RouteSpec>,
    /// The addresses on [`KUBE_PROXY_DEVICE`], if there is such a device and what is kube-proxy's is ours to take over.
    /// Never made by ipvsd.
    pub kube_proxy_device: Option<BTreeSet<IpAddr>>,
    /// What kube-proxy's other modes left that is ours to take away. Never made by ipvsd.
    pub kube_proxy_leftovers: BTreeSet<Leftover>,
    /// Sets of frontends and endpoints that netfilter's rules look into.
    pub sets: BTreeMap<SetKey, Set>,
    /// Netfilter's rules of each family that has them whole.
    pub rules: BTreeMap<Family, RuleSettings>,
    /// The way by which node ports are on 127.0.0.1, if there is any of it.
    pub localhost_path: Option<LocalhostPath>,
}

impl Model {
    /// Whether kube-proxy made this address local.
    pub fn is_on_kube_proxy_device(&self, address: IpAddr) -> bool {
        self.kube_proxy_device.as_ref().is_some_and(|addresses| addresses.contains(&address))
    }

    /// Whether the sets of a family are ours, and not kube-proxy's, which has none for short circuits.
    pub fn has_sets_of_ours(&self, family: Family) -> bool {
        self.sets.contains_key(&SetKey { kind: SetKind::ShortCircuit, family })
    }
}

/// The settings of a VIP's local route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RouteSpec {
    /// The address that the node's own traffic to the VIP carries as its source. Without it the kernel would
    /// choose the VIP itself, and a destination elsewhere could not answer.
    pub preferred_source: Option<IpAddr>,
}
