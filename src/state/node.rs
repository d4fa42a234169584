//! This node: the addresses it has, and what the cluster says of it.

use crate::model::Family;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// Facts about the node, read from its links and renewed whenever they change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Every address on a device that is up for others to reach: no loopback, no IPv6 link-local ones.
    pub addresses: BTreeSet<IpAddr>,
    /// The IPv4 address that the node's own traffic carries: source of the default route, else the first one.
    pub primary_ipv4: Option<IpAddr>,
    /// The same for IPv6.
    pub primary_ipv6: Option<IpAddr>,
}

impl Node {
    /// The primary address of a family.
    pub fn primary(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::Ipv4 => self.primary_ipv4,
            Family::Ipv6 => self.primary_ipv6,
        }
    }
}

/// What the cluster says of this node: its Node object. Without a cluster nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeObject {
    /// The label `topology.kubernetes.io/zone`.
    pub zone: Option<Arc<str>>,
    /// `status.addresses` of type `InternalIP`, then those of type `ExternalIP`, each in the order given.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`, or `spec.podCIDR` alone.
    pub pod_cidrs: Vec<IpNet>,
    /// It has no deletion timestamp and no taint `ToBeDeletedByClusterAutoscaler`: load balancers may send to it.
    pub is_eligible: bool,
}
