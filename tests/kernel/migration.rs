//! From kube-proxy's iptables mode to ipvsd and back, with the commands of docs/migration.md: no connection ends on the
//! way there, and none that is new fails on the way back.

use crate::contract::ip;
use crate::lab::{run, trial};
use crate::program::{ipvsd, stdout};
use crate::traffic_rig::{PROTOCOLS, Rig, VIPS, request, requests, service, slices};
use ipvsd::demo::client::Conversation;
use ipvsd::model::Protocol;
use libtest_mimic::Trial;
use serde_json::json;
use std::process::Command;

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("migration::from_iptables_mode_no_connection_ends", from_iptables_mode),
        trial("migration::back_to_iptables_mode_new_connections_go_on", back_to_iptables_mode),
    ]
}

/// Where kube-proxy's rules send everything.
const ONLY: &str = "10.244.1.2";

/// How kube-proxy leads into its chains, and what it has in them for one endpoint, reduced to what packets notice.
const RULES: &[&str] = &[
    "-t nat -N KUBE-SERVICES",
    "-t nat -N KUBE-SVC-WEB",
    "-t nat -A PREROUTING -j KUBE-SERVICES",
    "-t nat -A OUTPUT -j KUBE-SERVICES",
    "-t nat -A KUBE-SERVICES -d 10.96.0.10 -j KUBE-SVC-WEB",
    "-t nat -A KUBE-SVC-WEB -p tcp --dport 80 -j DNAT --to-destination 10.244.1.2:8080",
    "-t nat -A KUBE-SVC-WEB -p udp --dport 80 -j DNAT --to-destination 10.244.1.2:8080",
    "-t nat -A KUBE-SVC-WEB -p sctp --dport 80 -j DNAT --to-destination 10.244.1.2:8080",
    "-t nat -A KUBE-SVC-WEB -p tcp --dport 90 -j DNAT --to-destination 10.244.1.2:9090",
    "-t filter -N KUBE-SERVICES",
    "-t filter -A INPUT -j KUBE-SERVICES",
    // Of a Service that had no endpoint when kube-proxy stopped.
    "-t filter -A KUBE-SERVICES -d 10.96.0.20 -j REJECT",
];
/// What every node of a cluster has in some form, from its network plugin for instance: the kernel tracks connections
/// only where a rule needs it, and one that it did not track is at the mercy of rules that come later.
const TRACKING: &str = "-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT";
/// The Service without an endpoint.
const EMPTY: &str = "10.96.0.20";

fn from_iptables_mode() {
    let mut rig = rig_of_kube_proxy();
    let mut conversation = rig.in_client(|| Conversation::start((ip(VIPS[0]), 90).into()).unwrap());
    let mut talk = |rig: &Rig, line: &str| rig.in_client(|| conversation.say(line).unwrap());
    let name = talk(&rig, "before");
    rig.with_netfilter();
    rig.start_daemon();
    rig.wait_until("everything is programmed", |rig| rig.rules().lines().count() == programmed());
    assert_eq!(talk(&rig, "beside"), name);
    for protocol in PROTOCOLS {
        assert_eq!(rig.spread(request(protocol, VIPS[0], 80), 6), [2, 2, 2], "the chain that translates is ours now");
    }
    assert!(rig.send(request(Protocol::Tcp, EMPTY, 80)).is_err(), "the one that refuses is not");

    let commands = commands_with("KUBE-NODEPORTS");
    rig.on_node(|| Command::new("bash").args(["-c", &commands]).output()).unwrap();
    assert_eq!(talk(&rig, "after"), name);
    for request in requests(&[VIPS[0], EMPTY]) {
        assert_eq!(rig.spread(request, 12), [4, 4, 4], "{request:?}");
    }
}

fn back_to_iptables_mode() {
    let mut rig = rig_of_kube_proxy();
    rig.on_node(|| RULES.iter().rev().for_each(|rule| undo(rule)));
    rig.start_daemon();
    rig.wait_for(&requests(&VIPS[..1]));
    let mut conversation = rig.in_client(|| Conversation::start((ip(VIPS[0]), 90).into()).unwrap());
    rig.stop_daemon();
    rig.on_node(|| RULES.iter().for_each(|rule| drop(iptables(rule))));
    let new_ones = |rig: &Rig| PROTOCOLS.map(|protocol| rig.spread(request(protocol, VIPS[0], 80), 3));
    assert_eq!(new_ones(&rig), [[3, 0, 0]; 3]);
    assert!(rig.in_client(|| conversation.say("before the cleanup")).is_ok());
    cleanup(&rig);
    assert_eq!(rig.rules(), "");
    assert_eq!(new_ones(&rig), [[3, 0, 0]; 3]);
}

/// The node as kube-proxy leaves it, with three endpoints where its rules know of one and of none.
fn rig_of_kube_proxy() -> Rig {
    let mut rig = Rig::new(&[], |hosts| {
        let late = json!({ "clusterIP": EMPTY, "clusterIPs": [EMPTY] });
        let services = vec![service("web", json!({})), service("late", late)];
        [services, slices("web", hosts), slices("late", hosts)].concat()
    });
    rig.wait_for(&requests(&VIPS));
    assert_eq!(rig.network.backends[0].addresses.ipv4.to_string(), ONLY);
    rig.stop_daemon();
    cleanup(&rig);
    rig.on_node(|| [TRACKING].iter().chain(RULES).for_each(|rule| drop(iptables(rule))));
    rig
}

/// Lines of `ipvsadm -S`: four ports at three addresses, with three destinations each.
fn programmed() -> usize {
    4 * 3 * (1 + 3)
}

fn cleanup(rig: &Rig) {
    stdout(&rig.on_node(|| ipvsd(&["cleanup"])), 0);
}

fn iptables(rule: &str) -> String {
    run("iptables", &["-w"].into_iter().chain(rule.split(' ')).collect::<Vec<_>>())
}

fn undo(rule: &str) {
    iptables(&rule.replacen(" -A ", " -D ", 1).replacen(" -N ", " -X ", 1));
}

/// The commands of the document that have `word` in them.
fn commands_with(word: &str) -> String {
    let document = include_str!("../../docs/migration.md");
    let blocks = document.split("```sh\n").skip(1).filter_map(|rest| rest.split_once("```"));
    let mut with = blocks.map(|(block, _)| block).filter(|block| block.contains(word));
    let commands = with.next().expect("the document has them");
    assert!(with.next().is_none(), "once");
    commands.to_owned()
}
