//! What netfilter should hold: rules that depend on the operator's settings only, and sets of frontends and endpoints.
//!
//! [`members`] says where frontends and endpoints must be known, [`part`] puts that together for one Service, [`claims`]
//! adds the Services up, [`marks`] gives numbers to those Service ports that have two sets of endpoints.

pub mod claims;
pub mod marks;
pub mod members;
pub mod part;

use super::Settings;
use crate::model::Family;
use crate::model::netfilter::{Balancing, DeviceName, LocalPods, MasqueradeBit, RuleSettings};
use crate::state::{Families, NodeObject, Origin, Problem, State};
use ipnet::IpNet;
use std::collections::BTreeMap;

pub use claims::Claims;
pub use marks::Marks;
pub use part::{NetfilterPart, NetfilterPlan};

/// What the operator decides about masquerading and the rules around VIPs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetfilterSettings {
    /// The families that have sets and rules: those that the kernel has.
    pub families: Families,
    /// The bit of packets' marks that says that they are to be masqueraded; kube-proxy's `iptables.masqueradeBit`.
    pub masquerade_bit: MasqueradeBit,
    /// Whether all traffic to cluster IPs is masqueraded; kube-proxy's `iptables.masqueradeAll`.
    pub masquerade_all: bool,
    /// Whether node ports are on 127.0.0.1 too, where that is among the addresses chosen for them; kube-proxy's
    /// `iptables.localhostNodePorts`.
    pub localhost_node_ports: bool,
    /// How traffic of this node's pods is known.
    pub detect_local: DetectLocal,
    /// Whether IPVS balances or netfilter's rules do.
    pub balancing: Balancing,
}

/// How traffic of this node's pods is known: kube-proxy's `detectLocalMode` with what belongs to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DetectLocal {
    /// It is not: the rules that would need to know are left out.
    #[default]
    Unknown,
    /// By a source address in the first of these of the family (`ClusterCIDR`).
    ClusterCidr(Vec<IpNet>),
    /// The same with the networks that the cluster gave to this node (`NodeCIDR`).
    NodeCidr,
    /// By the device it comes in on (`BridgeInterface`).
    Bridge(DeviceName),
    /// By how the name of that device begins (`InterfaceNamePrefix`).
    DevicePrefix(DeviceName),
}

impl Default for NetfilterSettings {
    fn default() -> Self {
        Self {
            families: Families::BOTH,
            masquerade_bit: MasqueradeBit::default(),
            masquerade_all: false,
            localhost_node_ports: true,
            detect_local: DetectLocal::default(),
            balancing: Balancing::Ipvs,
        }
    }
}

/// The rules that each family should have; none without settings. `localhost` says whether node ports are on 127.0.0.1.
pub fn rules(settings: Option<&NetfilterSettings>, state: &State, localhost: bool) -> BTreeMap<Family, RuleSettings> {
    let of_family = |settings: &NetfilterSettings, family| RuleSettings {
        masquerade_bit: settings.masquerade_bit,
        masquerade_all: settings.masquerade_all,
        localhost: localhost && family == Family::Ipv4,
        local_pods: local_pods(&settings.detect_local, family, state),
        balancing: settings.balancing,
    };
    let families = settings.into_iter().flat_map(|settings| settings.families.iter().map(move |f| (settings, f)));
    families.map(|(settings, family)| (family, of_family(settings, family))).collect()
}

fn local_pods(detect_local: &DetectLocal, family: Family, state: &State) -> LocalPods {
    let first = |networks: &[IpNet]| {
        let network = networks.iter().find(|network| Family::of(network.addr()) == family);
        network.map_or(LocalPods::Unknown, |network| LocalPods::From(network.trunc()))
    };
    match detect_local {
        DetectLocal::Unknown => LocalPods::Unknown,
        DetectLocal::ClusterCidr(networks) => first(networks),
        DetectLocal::NodeCidr => first(&state.node_object().pod_cidrs),
        DetectLocal::Bridge(name) => LocalPods::Device(*name),
        DetectLocal::DevicePrefix(name) => LocalPods::DevicePrefix(*name),
    }
}

/// Why the networks that the cluster gave to this node tell none of its pods of the primary family. kube-proxy ends then;
/// here they may still come, or change.
pub fn untold_pods(settings: &Settings, state: &State) -> Option<Problem> {
    let mode = settings.netfilter.as_ref().map(|netfilter| &netfilter.detect_local);
    let node = state.node_object();
    if mode != Some(&DetectLocal::NodeCidr) || *node == NodeObject::default() {
        return None;
    }
    let primary = settings.bind_address.or_else(|| node.addresses.first().copied()).map_or(Family::Ipv4, Family::of);
    if node.pod_cidrs.iter().any(|network| Family::of(network.addr()) == primary) {
        return None;
    }
    let networks: Vec<_> = node.pod_cidrs.iter().map(IpNet::to_string).collect();
    let networks = if networks.is_empty() { "nothing".to_owned() } else { networks.join(", ") };
    let family = primary.name();
    let message =
        format!("the Node is {family}-primary and has {networks}: its {family} pods cannot be told from others");
    Some(Problem { origin: Origin::Api, object: None, field: "spec.podCIDRs".into(), message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Change;

    #[test]
    fn each_family_has_its_own_way_to_know_pods() {
        let list = |text: &str| text.split(' ').map(|word| word.parse().unwrap()).collect::<Vec<IpNet>>();
        let mut state = State::default();
        let pod_cidrs = list("10.244.7.0/24 fd00:7::/64");
        state.apply(Change::NodeObject(NodeObject { pod_cidrs, ..NodeObject::default() }));
        let cni = "cni0".parse().unwrap();
        for (detect_local, four, six) in [
            (DetectLocal::Unknown, "", ""),
            (DetectLocal::ClusterCidr(vec![]), "", ""),
            (DetectLocal::ClusterCidr(list("10.0.0.1/8 10.1.0.0/16")), ", pods from 10.0.0.0/8", ""),
            (
                DetectLocal::ClusterCidr(list("fd00::/16 10.1.0.0/16")),
                ", pods from 10.1.0.0/16",
                ", pods from fd00::/16",
            ),
            (DetectLocal::NodeCidr, ", pods from 10.244.7.0/24", ", pods from fd00:7::/64"),
            (DetectLocal::Bridge(cni), ", pods on cni0", ", pods on cni0"),
            (DetectLocal::DevicePrefix(cni), ", pods on cni0+", ", pods on cni0+"),
        ] {
            let settings = NetfilterSettings { detect_local, ..NetfilterSettings::default() };
            let texts: Vec<_> = rules(Some(&settings), &state, false).values().map(RuleSettings::to_string).collect();
            assert_eq!(texts, [four, six].map(|pods| format!("masquerade 0x4000{pods}")));
        }
        let localhost = rules(Some(&NetfilterSettings::default()), &state, true);
        assert_eq!(localhost.values().map(|rules| rules.localhost).collect::<Vec<_>>(), [true, false], "of IPv4 alone");
        assert_eq!(rules(None, &state, true), BTreeMap::new());
    }

    #[test]
    fn networks_of_the_wrong_family_are_told_once_the_node_is_known() {
        let list = |text: &str| text.split_whitespace().map(|word| word.parse().unwrap()).collect::<Vec<_>>();
        let told = "the Node is IPv4-primary and has fd00:7::/64: its IPv4 pods cannot be told from others";
        let none = "the Node is IPv4-primary and has nothing: its IPv4 pods cannot be told from others";
        let six = "the Node is IPv6-primary and has 10.1.0.0/24: its IPv6 pods cannot be told from others";
        for (bind_address, address, pod_cidrs, wanted) in [
            (None, "192.0.2.1", "10.1.0.0/24", None),
            (None, "192.0.2.1", "fd00:7::/64 10.1.0.0/24", None),
            (None, "192.0.2.1", "fd00:7::/64", Some(told)),
            (None, "192.0.2.1", "", Some(none)),
            (None, "fd00::1", "10.1.0.0/24", Some(six)),
            (Some("fd00::1"), "192.0.2.1", "10.1.0.0/24", Some(six)),
        ] {
            let mut state = State::default();
            let netfilter = NetfilterSettings { detect_local: DetectLocal::NodeCidr, ..NetfilterSettings::default() };
            let bind_address = bind_address.map(|address| address.parse().unwrap());
            let settings = Settings { netfilter: Some(netfilter), bind_address, ..Settings::default() };
            assert_eq!(untold_pods(&settings, &state), None, "nothing is known yet");
            let addresses = vec![address.parse().unwrap()];
            let pod_cidrs = list(pod_cidrs);
            state.apply(Change::NodeObject(NodeObject { addresses, pod_cidrs, ..NodeObject::default() }));
            assert_eq!(untold_pods(&settings, &state).map(|problem| problem.message).as_deref(), wanted);
            assert_eq!(untold_pods(&Settings { netfilter: None, ..settings }, &state), None);
        }
    }
}
