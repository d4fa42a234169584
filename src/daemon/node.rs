//! This node at the start: what it is called, which families it has, and whether its kernel can balance.

use super::probe;
use crate::config::families::Families;
use crate::config::{self, Config};
use crate::desired::{NetfilterSettings, Settings};
use crate::kernel::linux::{Linux, OpenError};
use crate::kernel::node_setup;
use crate::model::Family;
use crate::source::node::host_name;
use crate::state::Node;
use anyhow::Context;
use std::fs;
use tracing::{info, warn};

/// The node's name: the operator's, else the machine's.
///
/// # Errors
/// When there is neither.
pub fn name(config: &Config) -> anyhow::Result<String> {
    match &config.node_name {
        Some(name) => Ok(name.clone()),
        None => {
            let name = host_name().context("cannot read this machine's name")?;
            anyhow::ensure!(!name.is_empty(), "this machine has no name: give one with --hostname-override");
            Ok(name)
        }
    }
}

/// The families this node serves: IPv6 where its kernel has it and it is not switched off, as kube-proxy sees it.
pub fn families() -> Vec<Family> {
    let is_off = fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6").is_ok_and(|text| text.trim() == "1");
    let has_ipv6 = fs::exists("/proc/net/if_inet6").unwrap_or(false) && !is_off;
    [Some(Family::Ipv4), has_ipv6.then_some(Family::Ipv6)].into_iter().flatten().collect()
}

/// Logs what the configuration says of families that this node does not have.
///
/// # Errors
/// If so nothing could tell the node's own pods.
pub fn check_families(config: &Config, node: &Node) -> anyhow::Result<()> {
    let primary = match (config.settings.bind_address, node.primary_ipv4, node.primary_ipv6) {
        (Some(address), _, _) | (None, None, Some(address)) => Family::of(address),
        _ => Family::Ipv4,
    };
    let found = config::families::check(config, &Families { primary, both: families().len() > 1 })?;
    found.iter().for_each(|sentence| warn!("configuration: {sentence}"));
    Ok(())
}

/// What the deciding depends on, with the families of netfilter's sets and rules that this node has.
pub fn settings(config: &Config) -> Settings {
    let has = families();
    let of_node = |netfilter: NetfilterSettings| NetfilterSettings {
        families: netfilter.families.iter().filter(|family| has.contains(family)).collect(),
        ..netfilter
    };
    Settings { netfilter: config.settings.netfilter.clone().map(of_node), ..config.settings.clone() }
}

/// Opens the kernel, with netfilter if that is to be programmed.
///
/// # Errors
/// When it cannot be opened.
pub fn kernel(config: &Config) -> Result<Linux, OpenError> {
    let kernel = Linux::open()?;
    if config.settings.netfilter.is_some() { kernel.with_netfilter() } else { Ok(kernel) }
}

/// Opens the kernel, sets what balancing needs and what the operator wants, and proves that it can balance.
///
/// # Errors
/// When it cannot.
pub fn prepared_kernel(config: &Config) -> anyhow::Result<Linux> {
    let mut kernel = kernel(config)?;
    let prepared = node_setup::prepare(&config.node, &mut kernel)?;
    for setting in prepared.set {
        info!("set {setting}");
    }
    for unset in prepared.unset {
        warn!("{unset}: {}", unset.source);
    }
    let scheduler = config.settings.scheduling.scheduler;
    probe::probe(&mut kernel, scheduler).with_context(|| {
        format!(
            "this kernel cannot balance with the scheduler {scheduler}; load its module (`modprobe ip_vs_{scheduler}`) \
             or choose another one"
        )
    })?;
    Ok(kernel)
}
