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
