//! This node at the start: what it is called, and which families it has.

use crate::config::families::Families;
use crate::config::{self, Config};
use crate::desired::{NetfilterSettings, Settings};
use crate::model::Family;
use crate::source::node::host_name;
use crate::state::Node;
use anyhow::Context;
use std::fs;
use tracing::warn;

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
    Settings { netfilter: config.settings.netfilter.clone().map(of_families), ..config.settings.clone() }
}

/// The same settings for the families that this node has.
pub fn of_families(netfilter: NetfilterSettings) -> NetfilterSettings {
    let has = families();
    NetfilterSettings {
        families: netfilter.families.iter().filter(|family| has.contains(family)).collect(),
        ..netfilter
    }
}
