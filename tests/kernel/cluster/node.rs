//! What the Node object and the node's own links say is followed without a restart.

use super::rig::{IPVS, Rig};
use super::table::table;
use crate::contract::ip;
use crate::lab::{run, trial};
use crate::objects::{node, service, slice, with};
use libtest_mimic::Trial;
use serde_json::{Value, json};

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("cluster::a_node_that_moves_to_another_zone_gets_its_endpoints", zone),
        trial("cluster::node_ports_follow_the_primary_address_of_the_node", primary),
        trial("cluster::a_new_address_of_the_node_gets_node_ports", new_address),
        trial("cluster::networks_of_the_nodes_pods_may_come_late_and_change", pod_networks),
    ]
}

fn zone() {
    let hinted = |last: u8| {
        json!({
            "addresses": [format!("10.1.0.{last}")],
            "conditions": {"ready": true},
            "hints": {"forZones": [{"name": if last == 1 { "a" } else { "b" }}]},
        })
    };
    let slice = with(slice("web", &[]), "/endpoints", json!([hinted(1), hinted(2), hinted(3)]));
    let mut rig = Rig::new(&[IPVS]);
    [node("a"), service("web", 1), slice].into_iter().for_each(|object| rig.server.put(object));
    rig.start();
    for (zone, endpoints) in [("a", 1), ("b", 2), ("elsewhere", 3)] {
        rig.server.put(node(zone));
        rig.node.zone = Some(zone.to_owned());
        rig.until_true();
        assert_eq!(table().into_values().next().unwrap().destinations.len(), endpoints, "{zone}");
    }
}

fn with_node_port() -> Vec<Value> {
    let service = with(service("web", 1), "/spec/type", json!("NodePort"));
    vec![with(service, "/spec/ports/0/nodePort", json!(30080)), slice("web", &[1, 2])]
}

fn primary() {
    let mut rig = Rig::new(&[IPVS, ("nodePortAddresses: null", "nodePortAddresses: [primary]")]);
    run("ip", &["address", "add", "192.0.2.9/24", "dev", "node0"]);
    [vec![node("a")], with_node_port()].concat().into_iter().for_each(|object| rig.server.put(object));
    rig.start();
    for address in ["192.0.2.1", "192.0.2.9"] {
        let addresses = json!([{"type": "InternalIP", "address": address}]);
        rig.server.put(with(node("a"), "/status/addresses", addresses));
        rig.node.addresses = vec![ip(address)];
        rig.until_true();
    }
}

fn new_address() {
    let mut rig = Rig::settled(&[IPVS], [vec![node("a")], with_node_port()].concat());
    run("ip", &["address", "add", "192.0.2.77/24", "dev", "node0"]);
    rig.node.addresses.push(ip("192.0.2.77"));
    rig.until_true();
    run("ip", &["link", "add", "node1", "type", "dummy"]);
    run("ip", &["link", "set", "node1", "up"]);
    run("ip", &["address", "add", "198.51.100.7/24", "dev", "node1"]);
    rig.node.addresses.push(ip("198.51.100.7"));
    rig.until_true();
    run("ip", &["link", "delete", "node1"]);
    rig.node.addresses.pop();
    rig.until_true();
}

/// What the rules say of who is a pod of this node, in each family.
fn told_pods() -> [Option<String>; 2] {
    ["iptables-save", "ip6tables-save"].map(|save| {
        let rules = run(save, &["-t", "mangle"]);
        let comment = rules.lines().find_map(|line| line.strip_prefix("-A IPVSD-PREROUTING -m comment --comment \""));
        Some(comment?.split('"').next()?.split_once(", pods ").map_or("", |(_, pods)| pods).to_owned())
    })
}

fn pod_networks() {
    let untold = "its IPv4 pods cannot be told from others";
    let said = |text: &str| text.matches(untold).count();
    let mut rig = Rig::new(&[IPVS, ("detectLocalMode: \"\"", "detectLocalMode: NodeCIDR")]);
    [service("web", 1), slice("web", &[1, 2])].into_iter().for_each(|object| rig.server.put(object));
    rig.server.put(with(node("a"), "/spec", json!({})));
    rig.start();
    rig.until_true();
    rig.until("no pod is told", |_| told_pods() == [Some(String::new()), Some(String::new())]);
    rig.until_said(&["spec.podCIDRs", "has nothing", untold]);
    for (networks, four, six) in [
        (json!(["10.1.0.0/24"]), "from 10.1.0.0/24", ""),
        (json!(["10.1.7.0/24", "fd00:7::/64"]), "from 10.1.7.0/24", "from fd00:7::/64"),
        (json!(["fd00:7::/64"]), "", "from fd00:7::/64"),
        (json!(["10.1.0.0/24"]), "from 10.1.0.0/24", ""),
    ] {
        rig.server.put(with(node("a"), "/spec", json!({ "podCIDRs": networks })));
        let wanted = [four, six].map(|pods| Some(pods.to_owned()));
        rig.until(&format!("pods are told as {wanted:?}"), |_| told_pods() == wanted);
    }
    rig.until_said(&["problem", "has fd00:7::/64", untold]);
    rig.until("it is over twice", |rig| said(&rig.log()) == 4);
}
