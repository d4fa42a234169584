//! Rules that balance beside what others do to them: what the kernel refuses because of somebody else's rules costs only
//! itself and is tried again, and what somebody flushes is put back.

use crate::lab::run;
use crate::mode::{self, Mode, Test};
use crate::traffic_rig::{Rig, VIPS, request, requests, service, slices};
use ipvsd::demo::client::Conversation;
use ipvsd::model::Protocol;
use libtest_mimic::Trial;
use serde_json::json;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};

/// The tests where `mode` balances, by rules of one kind or the other.
pub fn trials(mode: Mode) -> Vec<Trial> {
    let tests: &[Test] = &[
        ("what_the_kernel_refuses_costs_only_its_service_until_it_takes_it", refused_until_it_is_taken),
        ("a_chain_that_somebody_leads_into_is_in_nobodys_way", a_chain_that_is_led_into),
        ("whatever_is_flushed_is_put_back", whatever_is_flushed_is_put_back),
    ];
    mode::trials("nat_others", mode, tests)
}

/// Two Services, each in a chain of its own, of which there is only the first yet.
const LATE: [&str; 2] = ["10.96.0.63", "fd00:96::3f"];
const LATES_CHAIN: &str = "IPVSD-ADDRESS-3F";
const METRICS: &str = "127.0.0.1:10249";

fn rig(mode: Mode) -> Rig {
    let flags = ["--iptables-sync-period", "1s", "--metrics-bind-address", METRICS];
    let mut rig = Rig::of(mode, &flags, |hosts| [vec![service("web", json!({}))], slices("web", hosts)].concat());
    rig.wait_for(&requests(&VIPS));
    rig
}

fn put_late(rig: &Rig) {
    rig.put(&service("late", json!({ "clusterIP": LATE[0], "clusterIPs": LATE })));
    rig.put_slices("late", &rig.network.backends);
}

/// Has somebody lead packets into a chain of ours that is not there yet. From POSTROUTING there is no DNAT (`xt_nat_target_reg`
/// in xt_nat.c), and the kernel takes none there.
fn lead_into(rig: &Rig, from: &str) {
    let rule = format!("*nat\n:{LATES_CHAIN} - [0:0]\n-A {from} -d 203.0.113.99 -j {LATES_CHAIN}\nCOMMIT\n");
    rig.on_node(|| load(&rig.mode().program("iptables", "restore"), &["--noflush", "-w", "10"], &rule));
}

/// How many operations of a kind the kernel has refused, by the metrics.
fn failures(rig: &Rig, kind: &str) -> f64 {
    let page = rig.on_node(|| {
        let mut stream = TcpStream::connect(METRICS).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page
    });
    let is_asked = |line: &&str| line.starts_with("ipvsd_operation_failures_total{") && line.contains(kind);
    page.lines().filter(is_asked).map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

fn refused_until_it_is_taken(mode: Mode) {
    let mut rig = rig(mode);
    lead_into(&rig, "POSTROUTING");
    put_late(&rig);
    // The same pass has others, which are served: of the other family, and one that comes after it.
    rig.wait_for(&requests(&LATE[1..]));
    rig.put(&service("more", json!({ "clusterIP": "10.96.0.64", "clusterIPs": ["10.96.0.64", "fd00:96::40"] })));
    rig.put_slices("more", &rig.network.backends);
    rig.wait_for(&requests(&["10.96.0.64", "fd00:96::40", VIPS[0], VIPS[1]]));
    assert!(rig.send(request(Protocol::Tcp, LATE[0], 80)).is_err());
    let told = format!("failed, will be tried again: Service default/late: + tcp {}:80 ", LATE[0]);
    rig.wait_until("it names the Service", |rig| rig.log().contains(&told));
    let rule = format!("-A {LATES_CHAIN} -d {}/32 -p tcp -m tcp --dport 80", LATE[0]);
    let line = rig.log().lines().find(|line| line.contains(&told)).unwrap().to_owned();
    assert!(line.contains(": line ") && line.contains(&rule), "it names the line: {line}");
    let before = failures(&rig, "add virtual server");
    assert!(before > 0.0);
    rig.wait_until("it is tried again", |rig| failures(rig, "add virtual server") > before);
    assert!(!rig.log().contains("no longer failing"), "{}", rig.log());
    let check = String::from_utf8_lossy(&rig.ipvsd("check").stdout).into_owned();
    let told = format!("bad      daemon       + tcp {}:80 ", LATE[0]);
    assert!(check.lines().any(|line| line.starts_with(&told)), "{check}");
    let rule = ["-w", "-t", "nat", "-D", "POSTROUTING", "-d", "203.0.113.99", "-j", LATES_CHAIN];
    rig.on_node(|| run(&mode.command("iptables"), &rule));
    rig.wait_for(&requests(&LATE));
    rig.wait_until("it is well", |rig| rig.log().contains("no longer failing: Service default/late: + tcp"));
}

/// The kernel does not remove it, and that must not be in the way of all else.
fn a_chain_that_is_led_into(mode: Mode) {
    let mut rig = rig(mode);
    lead_into(&rig, "OUTPUT");
    put_late(&rig);
    rig.wait_for(&requests(&LATE));
    rig.remove("Service", "late");
    rig.wait_until("it is withdrawn", |rig| rig.send(request(Protocol::Tcp, LATE[0], 80)).is_err());
    rig.put(&service("more", json!({ "clusterIP": "10.96.0.64", "clusterIPs": ["10.96.0.64", "fd00:96::40"] })));
    rig.put_slices("more", &rig.network.backends);
    rig.wait_for(&requests(&["10.96.0.64", "fd00:96::40"]));
    rig.stop_daemon();
    rig.start_daemon();
    rig.wait_for(&requests(&VIPS));
    rig.wait_until("the chain is empty", |rig| !rig.rules().contains(&format!("-A {LATES_CHAIN}")));
    assert!(!rig.log().contains("failed"), "{}", rig.log());
}

fn converse(rig: &Rig, vip: &str) -> (Conversation, String) {
    let target = SocketAddr::from((vip.parse::<IpAddr>().unwrap(), 90));
    let mut conversation = rig.in_client(|| Conversation::start(target)).unwrap();
    let name = conversation.say("hello").unwrap();
    (conversation, name)
}

/// Without what counts packets, in the order of the text.
fn rules(rig: &Rig) -> Vec<String> {
    let all =
        rig.on_node(|| ["iptables", "ip6tables"].map(|name| run(&rig.mode().program(name, "save"), &[])).concat());
    let lines = all.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(" [").next().unwrap().to_owned()).collect()
}

/// What people and firewalls do, for each of the programs.
const FLUSHES: [&[&str]; 5] = [
    &["-t nat -F"],
    &["-F"],
    &["-t mangle -F"],
    &["-t nat -F", "-t nat -X"],
    &["-F", "-X", "-t nat -F", "-t nat -X", "-t mangle -F", "-t mangle -X"],
];

fn whatever_is_flushed_is_put_back(mode: Mode) {
    let mut rig = rig(mode);
    // It is told by that chain which kind is in use, so the kind goes on with others' rules.
    let hints = ["iptables", "ip6tables"].map(|name| mode.program(name, "restore"));
    let before = rules(&rig);
    let mut conversations = VIPS.map(|vip| converse(&rig, vip));
    for flush in FLUSHES {
        rig.on_node(|| ["iptables", "ip6tables"].iter().for_each(|name| empty(&mode.command(name), flush)));
        assert_ne!(rules(&rig), before, "{flush:?} did nothing");
        put_back(&mut rig, &before, &mut conversations);
    }
    // As a firewall that is loaded anew: everything at once.
    rig.on_node(|| {
        hints.iter().for_each(|program| load(program, &[], "*mangle\nCOMMIT\n*nat\nCOMMIT\n*filter\nCOMMIT\n"))
    });
    put_back(&mut rig, &before, &mut conversations);
}

/// Again where ipvsd was quicker: what it put back in between keeps chains from being deleted.
fn empty(program: &str, flush: &[&str]) {
    let succeeds = |line: &&str| Command::new(program).arg("-w").args(line.split(' ')).status().unwrap().success();
    assert!((0..10).any(|_| flush.iter().all(succeeds)), "{flush:?}");
}

fn put_back(rig: &mut Rig, before: &[String], conversations: &mut [(Conversation, String)]) {
    let hint = |line: &&String| !line.contains("KUBE-IPTABLES-HINT");
    let wanted: Vec<_> = before.iter().filter(hint).cloned().collect();
    rig.wait_until("all is as before", |rig| rules(rig).iter().filter(hint).cloned().collect::<Vec<_>>() == wanted);
    rig.wait_for(&requests(&VIPS));
    for (conversation, name) in conversations {
        assert_eq!(conversation.say("still here").unwrap(), *name);
    }
}

fn load(program: &str, arguments: &[&str], text: &str) {
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{program}");
}
