//! What is decided about the node's own network: node ports, masquerading, and which pods are this node's.

use super::address;
use super::checks::Checks;
use super::kube_proxy::v1alpha1::KubeProxyConfiguration;
use crate::desired::{self, NetfilterSettings, NodePortAddresses};
use crate::model::Family;
use crate::model::netfilter::{Balancing, DeviceName, MasqueradeBit};
use crate::state::Families;
use ipnet::IpNet;
use std::net::IpAddr;

/// The word that stands for the node's primary addresses.
const PRIMARY: &str = "primary";

/// How traffic of this node's pods is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetectLocal {
    /// By its source: the addresses of all pods, at most one CIDR of each family. None tells nothing.
    ClusterCidr(Vec<IpNet>),
    /// By its source: `spec.podCIDRs` of the Node object.
    NodeCidr,
    /// By the bridge it comes from.
    BridgeInterface(String),
    /// By what the name of the device begins with that it comes from.
    InterfaceNamePrefix(String),
}

/// Which traffic leaves with the node's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// All traffic to cluster IPs.
    pub all: bool,
    /// The bit of the packet mark that asks for it, 0 to 31.
    pub bit: u8,
    /// Whether node ports answer on 127.0.0.1.
    pub localhost_node_ports: bool,
}

/// Which of the node's addresses have node ports.
pub(super) fn node_ports(config: &KubeProxyConfiguration, checks: &mut Checks) -> NodePortAddresses {
    let wanted = config.node_port_addresses.as_deref().unwrap_or_default();
    if wanted.is_empty() {
        return NodePortAddresses::Any;
    }
    let words = wanted.iter().position(|word| word == PRIMARY);
    if words.is_some() && wanted.len() == 1 {
        return NodePortAddresses::Primary;
    }
    if let Some(index) = words {
        checks.refuse(&format!("nodePortAddresses[{index}]"), PRIMARY, "must stand alone, without CIDRs");
    }
    let cidrs = wanted.iter().enumerate().filter(|(_, word)| *word != PRIMARY);
    let cidrs = cidrs.filter_map(|(i, text)| checks.cidr(&format!("nodePortAddresses[{i}]"), text));
    NodePortAddresses::Within(cidrs.collect())
}

impl DetectLocal {
    pub(super) fn of(config: &KubeProxyConfiguration, checks: &mut Checks) -> Self {
        let local = &config.detect_local;
        match config.detect_local_mode.as_str() {
            "NodeCIDR" => Self::NodeCidr,
            "BridgeInterface" => {
                device_name("detectLocal.bridgeInterface", &local.bridge_interface, checks);
                Self::BridgeInterface(local.bridge_interface.clone())
            }
            "InterfaceNamePrefix" => {
                device_name("detectLocal.interfaceNamePrefix", &local.interface_name_prefix, checks);
                Self::InterfaceNamePrefix(local.interface_name_prefix.clone())
            }
            mode => {
                if mode != "ClusterCIDR" {
                    let modes = "must be ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix";
                    checks.refuse("detectLocalMode", mode, modes);
                }
                Self::ClusterCidr(cluster_cidrs(&config.cluster_cidr, checks))
            }
        }
    }
}

/// Where it cannot be the name of a device, no rule could match it.
fn device_name(field: &str, name: &str, checks: &mut Checks) {
    checks.not_empty(field, name);
    if !name.is_empty() && name.parse::<DeviceName>().is_err() {
        checks.refuse(field, name, "must be the name of a network device, or its beginning");
    }
}

/// One, or two of different families.
fn cluster_cidrs(text: &str, checks: &mut Checks) -> Vec<IpNet> {
    let parts: Vec<_> = if text.is_empty() { Vec::new() } else { text.split(',').collect() };
    let cidrs: Vec<_> = parts.iter().filter_map(|part| checks.cidr("clusterCIDR", part)).collect();
    let families: Vec<_> = cidrs.iter().map(|cidr| Family::of(cidr.addr())).collect();
    if parts.len() > 2 || matches!(families[..], [one, other] if one == other) {
        checks.refuse("clusterCIDR", text, "must be one CIDR, or two of different families with a comma");
    }
    cidrs
}

impl Masquerade {
    pub(super) fn of(config: &KubeProxyConfiguration, checks: &mut Checks) -> Self {
        // In the ipvs mode too the bit is the one of the iptables section, and it is checked in every mode.
        let bit = config.iptables.masquerade_bit.unwrap_or_default();
        Self {
            all: config.masquerade_all(),
            bit: checks.within("iptables.masqueradeBit", bit, 0..=31).unwrap_or_default(),
            localhost_node_ports: config.iptables.localhost_node_ports.unwrap_or(true),
        }
    }
}

/// What netfilter's sets and rules depend on.
pub(super) fn netfilter(detect_local: &DetectLocal, masquerade: Masquerade) -> NetfilterSettings {
    // What is no name was refused.
    let device = |name: &str, detect: fn(DeviceName) -> desired::DetectLocal| {
        name.parse().map_or(desired::DetectLocal::Unknown, detect)
    };
    NetfilterSettings {
        families: Families::BOTH,
        masquerade_bit: MasqueradeBit::new(masquerade.bit).unwrap_or_default(),
        masquerade_all: masquerade.all,
        localhost_node_ports: masquerade.localhost_node_ports,
        detect_local: match detect_local {
            DetectLocal::ClusterCidr(cidrs) => desired::DetectLocal::ClusterCidr(cidrs.clone()),
            DetectLocal::NodeCidr => desired::DetectLocal::NodeCidr,
            DetectLocal::BridgeInterface(name) => device(name, desired::DetectLocal::Bridge),
            DetectLocal::InterfaceNamePrefix(prefix) => device(prefix, desired::DetectLocal::DevicePrefix),
        },
        // What the node can do is known at the start.
        balancing: Balancing::Ipvs,
    }
}

/// The node's primary address of its family, if the bind address says one.
pub(super) fn bind_address(config: &KubeProxyConfiguration, checks: &mut Checks) -> Option<IpAddr> {
    let address = address::ip(&config.bind_address);
    if address.is_none() {
        checks.refuse("bindAddress", &config.bind_address, "must be an IP address");
    }
    address.filter(|address| !address.is_unspecified())
}
