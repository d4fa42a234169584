//! What the kernel holds that does not do what is meant: virtual servers without a way on, of others, or on this node's own
//! addresses.

use super::{Facts, Finding};
use crate::kernel::Observation;
use crate::model::netfilter::{Member, SetKey, SetKind};
use crate::model::{Family, VirtualServerKey};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Of virtual servers and their addresses.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let kernel = match &facts.kernel {
        Ok(kernel) => kernel,
        Err(error) => return vec![Finding::bad("kernel", error, "see mode and rights")],
    };
    let mut found = virtual_servers(facts, kernel);
    found.extend(addresses(facts, kernel));
    found
}

fn virtual_servers(facts: &Facts, kernel: &Observation) -> Vec<Finding> {
    let ours = &kernel.model.virtual_servers;
    let refusing = ours.values().filter(|server| server.destinations.values().all(|spec| spec.weight == 0)).count();
    let message =
        format!("{} virtual servers of ipvsd, of which {refusing} have nowhere to send connections", ours.len());
    let mut found = vec![Finding::ok("kernel", message)];
    if !kernel.foreign.is_empty() {
        let names: Vec<_> = kernel.foreign.iter().take(5).map(VirtualServerKey::to_string).collect();
        let message = format!("{} virtual servers that ipvsd did not make: {}", kernel.foreign.len(), names.join(", "));
        found.push(Finding::warning(
            "foreign",
            message,
            "they are left alone; `ipvsd list --json` shows whose is whose",
        ));
    }
    if ours.keys().any(|key| key.family() == Family::Ipv6) && !facts.forwards_ipv6 {
        let message = "IPv6 virtual servers reach no other node: net.ipv6.conf.all.forwarding is not 1";
        found.push(Finding::bad("forwarding", message, "set it, after reading docs/decisions.md on IPv6 forwarding"));
    }
    found
}

/// VIPs that are on a device of the node too: ports of the node are taken away, or the VIP is answered for twice.
fn addresses(facts: &Facts, kernel: &Observation) -> Vec<Finding> {
    let on_device = |kind: SetKind| -> BTreeSet<IpAddr> {
        let sets = [Family::Ipv4, Family::Ipv6].map(|family| SetKey { kind, family });
        let members = sets.into_iter().filter_map(|key| kernel.model.sets.get(&key)).flat_map(|set| set.members.keys());
        let address = |member: &Member| if let Member::AddressPort(at) = member { Some(at.address) } else { None };
        members.filter_map(address).filter(|address| facts.node.addresses.contains(address)).collect()
    };
    let cluster_ip = |address: &IpAddr| {
        let message = format!("the cluster IP {address} is also on a device of this node");
        Finding::bad("addresses", message, "take it off the device: the network of Services must be nobody's")
    };
    let external = |address: &IpAddr| {
        let message = format!("{address} is an address of this node and an external or load-balancer IP of a Service");
        let advice = "at that Service's ports nothing else of the node can be reached; is that what was meant?";
        Finding::warning("addresses", message, advice)
    };
    let outside = [SetKind::ExternalIp, SetKind::ExternalIpLocal, SetKind::LoadBalancer];
    let outside: BTreeSet<IpAddr> = outside.into_iter().flat_map(on_device).collect();
    on_device(SetKind::ClusterIp).iter().map(cluster_ip).chain(outside.iter().map(external)).collect()
}
