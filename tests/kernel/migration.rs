//! From kube-proxy's iptables mode to ipvsd and back: no connection ends and no new one fails on the way there, and none
//! that is new fails on the way back; where rules of ipvsd's balance, none ends there either.

use crate::contract::ip;
use crate::lab::run;
use crate::meanwhile::repeat_while;
use crate::mode::{self, Mode, Test};
use crate::program::{ipvsd, stdout};
use crate::traffic_rig::{PROTOCOLS, Rig, VIPS, request, requests, service, slices, while_answering};
use ipvsd::demo::client::Conversation;
use ipvsd::demo::namespace::Namespace;
use ipvsd::model::Protocol;
use libtest_mimic::Trial;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// This subject's tests where `mode` balances.
pub fn trials(mode: Mode) -> Vec<Trial> {
    let tests: &[Test] = &[
        ("from_iptables_mode_no_connection_ends_or_fails", from_iptables_mode),
        ("a_kube_proxy_that_writes_again_is_told_of", writes_again),
    ];
    let back: Test = match mode {
        Mode::Ipvs => ("back_to_iptables_mode_new_connections_go_on", back_to_iptables_mode),
        Mode::Legacy | Mode::Nft => ("back_to_iptables_mode_no_connection_ends_or_fails", back_from_rules),
    };
    mode::trials("migration", mode, &[tests, &[back]].concat())
}

/// What kube-proxy 1.36 leaves for the Services `web` and `late`, the latter without endpoints, and two that are gone.
const LEFT: [(&str, &str); 2] = [
    ("iptables", include_str!("../fixtures/kube-proxy/iptables.ipv4.txt")),
    ("ip6tables", include_str!("../fixtures/kube-proxy/iptables.ipv6.txt")),
];
/// Kubelet's, and somebody's.
const BESIDE: &str = "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n\
    *nat\n:CNI-HOSTPORT-DNAT - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT\n\
    -A CNI-HOSTPORT-DNAT -p tcp -m tcp --dport 1 -j ACCEPT\nCOMMIT\n";
/// Somebody's who leads into a chain of kube-proxy's.
const LEADS: &str = "*nat\n-A CNI-HOSTPORT-DNAT -p tcp -m tcp --dport 2 -j KUBE-SVC-CDGGSHYLG3RE2FKL\nCOMMIT\n";

/// Where the rules below send everything.
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
];
/// What every node of a cluster has in some form, from its network plugin for instance: the kernel tracks connections
/// only where a rule needs it, and one that it did not track is at the mercy of rules that come later.
const TRACKING: &str = "-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT";
/// The Service that had no endpoint when kube-proxy stopped.
const EMPTY: &str = "10.96.0.20";

fn from_iptables_mode(mode: Mode) {
    let mut rig = rig_without_rules(mode);
    rig.on_node(|| LEFT.iter().for_each(|(family, _)| restore(mode, family, BESIDE)));
    let before = rig.on_node(|| saved(mode));
    rig.on_node(|| kube_proxy_writes(mode));
    let start = |vip: &str| Mutex::new(Conversation::start((ip(vip), 90).into()).unwrap());
    let mut conversations: Vec<_> = rig.in_client(|| VIPS.map(start)).into();
    conversations.extend(rig.on_node(|| VIPS.map(start)));
    let names: Vec<_> = conversations.iter().map(|one| one.lock().unwrap().say("before").unwrap()).collect();
    assert!(rig.send(request(Protocol::Tcp, EMPTY, 80)).is_err());

    with_netfilter(&mut rig, mode);
    let client = rig.in_client(|| Namespace::here().unwrap());
    while_no_datagram_is_lost(&client, || {
        while_answering(&mut rig, &conversations, |rig| {
            rig.start_daemon();
            rig.wait_until("kube-proxy's rules are gone", has_none_of_kube_proxy);
        });
    });
    for (conversation, name) in conversations.iter().zip(&names) {
        assert_eq!(&conversation.lock().unwrap().say("after").unwrap(), name);
    }
    // Not of UDP at the other address: the kernel remembers where kube-proxy's rules sent what came from a port before.
    let balanced = [requests(&[EMPTY]), vec![request(Protocol::Tcp, VIPS[0], 80), request(Protocol::Tcp, VIPS[1], 80)]];
    for request in balanced.concat() {
        match mode {
            Mode::Ipvs => assert_eq!(rig.spread(request, 6), [2, 2, 2], "{request:?}"),
            // One of three gets none by a chance of one in ten thousand million.
            Mode::Legacy | Mode::Nft => assert!(!rig.spread(request, 60).contains(&0), "{request:?}"),
        }
    }
    rig.stop_daemon();
    cleanup(&rig);
    let but_kubelets = |line: &String| !line.contains("KUBE-FIREWALL");
    assert_eq!(rig.on_node(|| saved(mode)).into_iter().filter(but_kubelets).collect::<Vec<_>>(), before);
}

/// Where others say it once more when it is lost, UDP does not: one request after the other, each from a port of its own.
fn while_no_datagram_is_lost(client: &Namespace, work: impl FnOnce()) {
    let ask = || drop(request(Protocol::Udp, VIPS[0], 80).send().unwrap());
    repeat_while(client, ask, work);
}

fn writes_again(mode: Mode) {
    let mut rig = rig_without_rules(mode);
    rig.on_node(|| {
        kube_proxy_writes(mode);
        restore(mode, "iptables", BESIDE);
        restore(mode, "iptables", LEADS);
    });
    let iptables = mode.command("iptables");
    with_netfilter(&mut rig, mode);
    rig.start_daemon();
    rig.wait_until("kube-proxy's rules are gone", has_none_of_kube_proxy);
    let chain = rig.on_node(|| run(&iptables, &["-t", "nat", "-S", "KUBE-SVC-CDGGSHYLG3RE2FKL"]));
    assert_eq!(chain, "-N KUBE-SVC-CDGGSHYLG3RE2FKL\n", "it is empty, and there for whom it serves");
    rig.on_node(|| kube_proxy_writes(mode));
    rig.wait_until("they are gone again", has_none_of_kube_proxy);
    for told in [
        "this node: kube-proxy's rules ipv4 came back after they were removed: a kube-proxy still runs on this node",
        "this node: kube-proxy's chain KUBE-SVC-CDGGSHYLG3RE2FKL (nat, ipv4) is empty and stays",
    ] {
        rig.wait_until(&format!("it says {told:?}"), |rig| rig.log().contains(told));
    }
    assert_eq!(rig.on_node(|| run(&iptables, &["-t", "nat", "-S", "CNI-HOSTPORT-DNAT"])).lines().count(), 3);
}

fn back_to_iptables_mode(mode: Mode) {
    let mut rig = rig_without_rules(mode);
    rig.start_daemon();
    rig.wait_for(&requests(&VIPS[..1]));
    let mut conversation = rig.in_client(|| Conversation::start((ip(VIPS[0]), 90).into()).unwrap());
    rig.stop_daemon();
    rig.on_node(|| RULES.iter().for_each(|rule| iptables(mode, rule)));
    let new_ones = |rig: &Rig| PROTOCOLS.map(|protocol| rig.spread(request(protocol, VIPS[0], 80), 3));
    assert_eq!(new_ones(&rig), [[3, 0, 0]; 3]);
    assert!(rig.in_client(|| conversation.say("before the cleanup")).is_ok());
    cleanup(&rig);
    assert_eq!(rig.rules(), "");
    assert_eq!(new_ones(&rig), [[3, 0, 0]; 3]);
}

/// A node with two Services that have three endpoints each, and nothing that would serve them.
fn rig_without_rules(mode: Mode) -> Rig {
    let periods = [
        ["--ipvs-sync-period", "1s"],
        ["--ipvs-min-sync-period", "100ms"],
        ["--iptables-sync-period", "1s"],
        ["--iptables-min-sync-period", "100ms"],
    ];
    let mut rig = Rig::of(mode, periods.as_flattened(), |hosts| {
        let late = json!({ "clusterIP": EMPTY, "clusterIPs": [EMPTY] });
        let services = vec![service("web", json!({})), service("late", late)];
        [services, slices("web", hosts), slices("late", hosts)].concat()
    });
    rig.wait_for(&requests(&VIPS));
    assert_eq!(rig.network.backends[0].addresses.ipv4.to_string(), ONLY);
    rig.stop_daemon();
    cleanup(&rig);
    rig.on_node(|| {
        iptables(mode, TRACKING);
        // As every node has one: without ipvsd's routes a VIP leads nowhere before its address is translated.
        run("ip", &["route", "add", "default", "via", "192.0.2.2"]);
        run("ip", &["-6", "route", "add", "default", "via", "fd00:2::2"]);
    });
    rig
}

/// Rules that balance come with it in any case.
fn with_netfilter(rig: &mut Rig, mode: Mode) {
    if mode == Mode::Ipvs {
        rig.with_netfilter();
    }
}

fn cleanup(rig: &Rig) {
    stdout(&rig.on_node(|| ipvsd(&["cleanup"])), 0);
}

fn kube_proxy_writes(mode: Mode) {
    LEFT.iter().for_each(|(family, text)| restore(mode, family, text));
}

/// The same where rules are already: it puts its jumps where there is none of the same text.
pub fn kube_proxy_comes_back(mode: Mode, written: [(&str, &str); 2]) {
    for (family, text) in written {
        let there = run(&mode.program(family, "save"), &[]);
        let is_missing = |line: &&str| !there.lines().any(|other| other == *line);
        let jumps = ["-A PREROUTING", "-A INPUT", "-A FORWARD", "-A OUTPUT", "-A POSTROUTING"];
        let is_jump = |line: &str| jumps.iter().any(|jump| line.starts_with(jump));
        let lines = text.lines().filter(|line| !is_jump(line) || is_missing(line));
        let lines = lines.map(|line| if is_jump(line) { line.replacen("-A", "-I", 1) } else { line.to_owned() });
        restore(mode, family, &(lines.collect::<Vec<_>>().join("\n") + "\n"));
    }
}

fn back_from_rules(mode: Mode) {
    let mut rig = rig_without_rules(mode);
    rig.on_node(|| kube_proxy_writes(mode));
    let kube_proxys = |rig: &Rig| -> BTreeSet<String> { rig.on_node(|| saved(mode)).into_iter().collect() };
    let before = kube_proxys(&rig);
    rig.start_daemon();
    rig.wait_until("kube-proxy's rules are gone", has_none_of_kube_proxy);
    let start = |vip: &str| Mutex::new(Conversation::start((ip(vip), 90).into()).unwrap());
    let mut conversations: Vec<_> = rig.in_client(|| VIPS.map(start)).into();
    conversations.extend(rig.on_node(|| VIPS.map(start)));
    let names: Vec<_> = conversations.iter().map(|one| one.lock().unwrap().say("before").unwrap()).collect();
    while_answering(&mut rig, &conversations, |rig| {
        rig.stop_daemon();
        rig.on_node(|| kube_proxy_comes_back(mode, LEFT));
        cleanup(rig);
    });
    for (conversation, name) in conversations.iter().zip(&names) {
        assert_eq!(&conversation.lock().unwrap().say("after").unwrap(), name);
    }
    assert_eq!(kube_proxys(&rig), before, "kube-proxy's is whole, and nothing of ipvsd's is left");
}

/// Whether there is nothing left of what kube-proxy has and neither ipvsd nor kubelet, but for what a chain is kept for.
fn has_none_of_kube_proxy(rig: &Rig) -> bool {
    let chains =
        ["KUBE-SVL-", "KUBE-SEP-", "KUBE-EXT-", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-PROXY-CANARY"];
    let is_kube_proxys = |line: &str| chains.iter().any(|chain| line.contains(chain));
    !rig.on_node(|| saved(rig.mode())).iter().any(|line| is_kube_proxys(line))
}

/// Rules and the chains that somebody made, of both families.
pub fn saved(mode: Mode) -> Vec<String> {
    let all = ["iptables", "ip6tables"].map(|name| run(&mode.program(name, "save"), &[])).concat();
    let lines = all.lines().filter(|line| line.starts_with("-A") || line.contains(" - ["));
    lines.map(|line| line.split(" [").next().unwrap().to_owned()).collect()
}

fn restore(mode: Mode, family: &str, text: &str) {
    let mut command = Command::new(mode.program(family, "restore"));
    let mut child = command.args(["--noflush", "-w", "10"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{family}");
}

fn iptables(mode: Mode, rule: &str) {
    run(&mode.command("iptables"), &["-w"].into_iter().chain(rule.split(' ')).collect::<Vec<_>>());
}
