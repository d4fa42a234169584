//! This node's addresses, read from a real kernel in a namespace whose links and addresses the tests make.

use crate::lab::{run, trial};
use ipvsd::source::node::NodeWatch;
use ipvsd::state::Node;
use libtest_mimic::Trial;
use std::future::Future;
use std::time::Duration;
use tokio::time::timeout;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("node::a_node_without_addresses_has_no_facts", a_node_without_addresses_has_no_facts),
        trial("node::facts_are_read_from_links_addresses_and_routes", facts_are_read_from_links_addresses_and_routes),
        trial("node::an_address_that_comes_later_does_not_become_primary", a_later_address_is_not_primary),
        trial("node::thousands_of_local_routes_wake_nobody", thousands_of_local_routes_wake_nobody),
        trial("node::a_new_address_is_a_change_even_if_the_wait_is_dropped", a_new_address_is_a_change),
        trial("node::lost_notices_are_a_change", lost_notices_are_a_change),
    ]
}

fn in_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn ip(arguments: &str) {
    run("ip", &arguments.split(' ').collect::<Vec<_>>());
}

fn make_device(name: &str) {
    ip(&format!("link add {name} type dummy"));
    ip(&format!("link set {name} up"));
}

fn facts() -> Node {
    in_runtime(async { NodeWatch::open().await.unwrap().read().await.unwrap() })
}

fn a_node_without_addresses_has_no_facts() {
    assert_eq!(facts(), Node::default());
}

/// keepalived gives the node another address, without a prefix and so without being secondary to any.
fn a_later_address_is_not_primary() {
    make_device("eth0");
    for (first, later) in [("192.0.2.1/24", "203.0.113.9/32"), ("fd00:5::1/64", "fd00::9/128")] {
        ip(&format!("address add {first} dev eth0{}", if first.contains(':') { " nodad" } else { "" }));
        let before = facts();
        ip(&format!("address add {later} dev eth0{}", if later.contains(':') { " nodad" } else { "" }));
        let after = facts();
        assert_eq!(after.addresses.len(), before.addresses.len() + 1);
        assert_eq!((after.primary_ipv4, after.primary_ipv6), (before.primary_ipv4, before.primary_ipv6));
    }
}

fn facts_are_read_from_links_addresses_and_routes() {
    make_device("eth0");
    make_device("eth1");
    make_device("kube-ipvs0");
    ip("address add 192.0.2.1/24 dev eth0");
    ip("address add 192.0.2.2/24 dev eth0");
    ip("address add 198.51.100.1/24 dev eth1");
    ip("address add fd00::1/64 dev eth0 nodad");
    ip("address add fd00:1::1/64 dev eth1 nodad");
    ip("address add 10.96.0.1/32 dev kube-ipvs0");
    ip("address add 10.255.0.1/32 dev lo");
    ip("route add default via 192.0.2.254 dev eth0 src 192.0.2.2 metric 200");
    ip("route add default via 198.51.100.254 dev eth1 metric 300");
    ip("-6 route add default via fd00:1::254 dev eth1");
    // Not the main table's.
    ip("route add default via 198.51.100.254 dev eth1 table 100");
    ip("route add local 203.0.113.10 dev lo table local src 192.0.2.1");
    let node = facts();
    let addresses: Vec<_> = node.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.255.0.1", "192.0.2.1", "192.0.2.2", "198.51.100.1", "fd00::1", "fd00:1::1"]);
    assert_eq!(node.primary_ipv4, Some("192.0.2.2".parse().unwrap()));
    assert_eq!(node.primary_ipv6, Some("fd00:1::1".parse().unwrap()));
}

fn thousands_of_local_routes_wake_nobody() {
    make_device("eth0");
    ip("address add 192.0.2.1/24 dev eth0");
    let routes: String =
        (0..2000).map(|i| format!("route add local 10.96.{}.{} dev lo table local\n", i / 250, 1 + i % 250)).collect();
    let batch = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(batch.path(), routes).unwrap();
    in_runtime(async {
        let mut watch = NodeWatch::open().await.unwrap();
        let before = watch.read().await.unwrap();
        ip(&format!("-batch {}", batch.path().display()));
        assert!(timeout(Duration::from_millis(300), watch.changed()).await.is_err());
        assert_eq!(watch.read().await.unwrap(), before);
    });
}

fn a_new_address_is_a_change() {
    make_device("eth0");
    in_runtime(async {
        let mut watch = NodeWatch::open().await.unwrap();
        let before = watch.read().await.unwrap();
        ip("address add 192.0.2.1/24 dev eth0");
        // As `select!` does when something else happens meanwhile.
        assert!(timeout(Duration::from_millis(5), watch.changed()).await.is_err());
        timeout(Duration::from_secs(1), watch.changed()).await.unwrap();
        let after = watch.read().await.unwrap();
        assert_ne!(before, after);
        assert_eq!(after.primary_ipv4, Some("192.0.2.1".parse().unwrap()));
    });
}

fn lost_notices_are_a_change() {
    make_device("eth0");
    let batch = tempfile::NamedTempFile::new().unwrap();
    let addresses: String =
        (0..2000).map(|i| format!("address add 10.0.{}.{}/32 dev eth0\n", i / 250, 1 + i % 250)).collect();
    std::fs::write(batch.path(), addresses).unwrap();
    in_runtime(async {
        let mut watch = NodeWatch::open().await.unwrap();
        ip(&format!("-batch {}", batch.path().display()));
        timeout(Duration::from_secs(1), watch.changed()).await.unwrap();
        assert_eq!(watch.read().await.unwrap().addresses.len(), 2000);
        assert!(timeout(Duration::from_millis(300), watch.changed()).await.is_err(), "one change was told twice");
    });
}
