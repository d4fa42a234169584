//! A look at the node as it is, for those who explain it: what the kernel holds, and the node's addresses. Needs no daemon.

use super::runtime;
use crate::kernel::linux::{Linux, OpenError};
use crate::kernel::{Kernel, Observation, Scope};
use crate::model::VirtualServerKey;
use crate::source::node::NodeWatch;
use crate::state::Node;
use anyhow::Context;
use std::collections::BTreeSet;

/// kube-proxy's name of the mode in which IPVS balances.
pub const IPVS: &str = "ipvs";

/// kube-proxy's name of the mode in which netfilter's rules balance.
pub const IPTABLES: &str = "iptables";

/// The node as it is.
pub struct Look {
    /// What the kernel holds of ours, netfilter included, and which virtual servers are others'.
    pub kernel: Observation,
    /// The node's addresses.
    pub node: Node,
    /// For more questions.
    pub linux: Linux,
}

/// Reads the kernel and the node.
///
/// # Errors
/// When one of them cannot be read.
pub fn look() -> anyhow::Result<Look> {
    let mut linux = Linux::open_as_found()?.with_netfilter()?;
    let kernel = linux.observe(Scope::All)?;
    let node = runtime()?.block_on(async { NodeWatch::open().await?.read().await });
    Ok(Look { kernel, node: node.context("cannot read this node's addresses")?, linux })
}

/// Reads the kernel where a daemon says which mode balances, with those virtual servers that it knows to be its own even if
/// they lost what tells it.
///
/// # Errors
/// When it cannot be read.
pub fn look_for(mode: &str, ours: &BTreeSet<VirtualServerKey>) -> anyhow::Result<Observation> {
    let mut linux = open(mode)?;
    let mut seen = linux.observe(Scope::All)?;
    let edited: Vec<_> = seen.foreign.intersection(ours).copied().collect();
    if !edited.is_empty() {
        let mut again = linux.observe(Scope::VirtualServers(&edited))?;
        seen.foreign.retain(|key| !again.model.virtual_servers.contains_key(key));
        seen.model.virtual_servers.append(&mut again.model.virtual_servers);
        seen.connections.append(&mut again.connections);
    }
    Ok(seen)
}

/// Opens what balances in a mode, without loading anything.
///
/// # Errors
/// It cannot be opened.
pub fn open(mode: &str) -> Result<Linux, OpenError> {
    if mode == IPTABLES { Linux::open_nat() } else { Linux::open_as_is()?.with_netfilter() }
}
