//! kube-proxy's ipvs mode gives way to ipvsd on a real kernel: no connection notices, and the way back is open.

use crate::contract::{ip, observe};
use crate::lab::{run, trial};
use crate::migration::{kube_proxy_comes_back, saved};
use crate::mode::Mode;
use crate::program::{IPVSD, eventually, rules, stdout};
use crate::traffic_rig::{Rig, VIPS, request, requests, service, slices, while_answering};
use ipvsd::daemon;
use ipvsd::demo::client::Conversation;
use ipvsd::kernel::linux::Linux;
use ipvsd::kernel::{Kernel, Scope};
use ipvsd::model::{Op, Protocol};
use ipvsd::reconcile::Takeover;
use libtest_mimic::Trial;
use serde_json::json;
use std::collections::BTreeSet;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("takeover::no_connection_notices_that_kube_proxy_gave_way", no_connection_notices),
        trial("takeover::no_connection_notices_that_rules_balance_from_now_on", rules_from_now_on),
        trial("takeover::killed_on_the_way_the_next_start_finishes_the_work", killed_on_the_way),
        trial("takeover::kube_proxy_can_come_back", kube_proxy_can_come_back),
        trial("takeover::no_connection_notices_that_kube_proxy_and_its_rules_came_back", || {
            rules_come_back(Mode::Ipvs)
        }),
        trial("takeover::no_connection_notices_that_they_came_back_where_rules_balanced", || {
            rules_come_back(Mode::Legacy)
        }),
        trial("takeover::an_empty_device_goes_and_one_of_another_kind_stays", empty_device),
        trial("takeover::what_is_excluded_stays_with_its_address", excluded),
        trial("takeover::thousands_of_addresses_go_with_the_device", thousands_of_addresses),
    ]
}

/// On kube-proxy's device, and no Service asks for them: one has a connection and one has none.
const BUSY: &str = "10.96.0.77";
const IDLE: &str = "10.96.0.78";
const NODE_PORT: &str = "192.0.2.1:30090";
/// Neither on the device nor asked for.
const STRANGERS: [&str; 4] = [
    "-A -t 198.51.100.77:80 -s lc",
    "-a -t 198.51.100.77:80 -r 198.51.100.78:80 -g -w 3",
    "-A -t 192.0.2.1:31999 -s rr",
    "-A -f 7 -s rr",
];

/// The node as kube-proxy leaves it: virtual servers that it made, its device, and what strangers made.
fn rig_of_kube_proxy() -> Rig {
    let spec = json!({ "type": "NodePort", "ports": [
        { "name": "http", "port": 80, "protocol": "TCP" },
        { "name": "udp", "port": 80, "protocol": "UDP" },
        { "name": "sctp", "port": 80, "protocol": "SCTP" },
        { "name": "lines", "port": 90, "protocol": "TCP", "nodePort": 30090 },
    ]});
    let mut rig = Rig::new(&[], |hosts| [vec![service("web", spec)], slices("web", hosts)].concat());
    rig.wait_for(&requests(&VIPS));
    rig.stop_daemon();
    let rules = rig.rules();
    stdout(&rig.ipvsd("cleanup"), 0);
    rig.on_node(|| {
        restore(&rules);
        make_device(&[VIPS[0], VIPS[1], BUSY, IDLE]);
        for vip in [BUSY, IDLE] {
            ipvsadm(&format!("-A -t {vip}:90 -s rr"));
            ipvsadm(&format!("-a -t {vip}:90 -r 10.244.1.2:9090 -m -w 1"));
        }
        STRANGERS.iter().for_each(|rule| drop(ipvsadm(rule)));
    });
    rig
}

fn restore(rules: &str) {
    let mut ipvsadm = Command::new("ipvsadm").arg("-R").stdin(Stdio::piped()).spawn().unwrap();
    ipvsadm.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(ipvsadm.wait().unwrap().success());
}

fn ipvsadm(rule: &str) -> String {
    run("ipvsadm", &rule.split(' ').collect::<Vec<_>>())
}

fn iproute(arguments: &str) -> String {
    run("ip", &arguments.split(' ').collect::<Vec<_>>())
}

/// kube-proxy never sets it up.
fn make_device(addresses: &[&str]) {
    iproute("link add kube-ipvs0 type dummy");
    for address in addresses {
        let prefix = if address.contains(':') { "128 nodad" } else { "32" };
        let (prefix, nodad) = prefix.split_once(' ').unwrap_or((prefix, ""));
        iproute(format!("address add {address}/{prefix} dev kube-ipvs0 {nodad}").trim_end());
    }
}

fn has_device() -> bool {
    iproute("-o link").contains("kube-ipvs0")
}

fn lines(rules: &str) -> BTreeSet<String> {
    rules.lines().map(|line| line.trim_end().to_owned()).collect()
}

fn no_connection_notices() {
    let mut rig = rig_of_kube_proxy();
    let before = lines(&rig.rules());
    let start = |target: &str| Mutex::new(Conversation::start(target.parse().unwrap()).unwrap());
    let targets = [&format!("{}:90", VIPS[0]), &format!("[{}]:90", VIPS[1]), NODE_PORT, &format!("{BUSY}:90")];
    let mut conversations: Vec<_> = rig.in_client(|| targets.iter().map(|target| start(target)).collect());
    // From the node itself it carries the VIP as its source, which must stay the node's own.
    conversations.extend(rig.on_node(|| VIPS.map(|vip| start(&SocketAddr::from((ip(vip), 90)).to_string()))));
    let sockets = rig.on_node(|| run("ss", &["-tn", "state", "established"]));
    assert!(VIPS.iter().all(|vip| sockets.matches(vip).count() == 2), "the VIP is the source too: {sockets}");
    let names: Vec<_> = conversations.iter().map(|one| one.lock().unwrap().say("before").unwrap()).collect();
    // What kube-proxy was about: a destination that it let drain, and one that should not be there any more.
    rig.on_node(|| {
        ipvsadm(&format!("-e -t {}:80 -r 10.244.2.2:8080 -m -w 0", VIPS[0]));
        ipvsadm(&format!("-a -t {}:80 -r 10.244.9.9:8080 -m -w 1", VIPS[0]));
        ipvsadm(&format!("-e -t {}:80 -r 10.244.9.9:8080 -m -w 0", VIPS[0]));
    });

    while_answering(&mut rig, &conversations, |rig| {
        rig.start_daemon();
        rig.wait_until("the device is gone", |rig| rig.on_node(|| !has_device()));
    });

    let gone = |rig: &Rig| !rig.rules().contains(IDLE) && !rig.rules().contains("10.244.9.9");
    rig.wait_until("what nobody uses is gone", gone);
    assert_eq!(differences(&before, &rig), leftovers());
    for request in requests(&VIPS) {
        assert_eq!(rig.spread(request, 12), [4, 4, 4], "{request:?}");
    }
    for (conversation, name) in conversations.iter().zip(&names) {
        assert_eq!(&conversation.lock().unwrap().say("after").unwrap(), name);
    }
    let routes =
        rig.on_node(|| iproute("route show table local proto 118") + &iproute("-6 route show table local proto 118"));
    assert!(VIPS.iter().chain([&BUSY]).all(|vip| routes.contains(&format!("local {vip} dev lo"))), "{routes}");
    assert!(!routes.contains(IDLE), "{routes}");

    rig.stop_daemon();
    assert_eq!(stdout(&rig.ipvsd("diff"), 0), "", "the second start finds nothing to do");
    stdout(&rig.ipvsd("cleanup"), 0);
    assert_eq!(lines(&rig.rules()), lines(&STRANGERS.join("\n")), "all but the strangers' was known to be ours");
}

fn differences(before: &BTreeSet<String>, rig: &Rig) -> Vec<String> {
    before.symmetric_difference(&lines(&rig.rules())).cloned().collect()
}

/// How the rules differ when all is done: the idle one is gone and the busy one drains.
fn leftovers() -> Vec<String> {
    let mut rules = [
        format!("-A -t {IDLE}:90 -s rr"),
        format!("-a -t {IDLE}:90 -r 10.244.1.2:9090 -m -w 1"),
        format!("-a -t {BUSY}:90 -r 10.244.1.2:9090 -m -w 1"),
        format!("-a -t {BUSY}:90 -r 10.244.1.2:9090 -m -w 0"),
    ];
    rules.sort();
    rules.into()
}

/// As on a node whose operator says `mode: iptables` in the same step.
fn rules_from_now_on() {
    let mut rig = rig_of_kube_proxy();
    // As kube-proxy's rules do, which have the kernel track connections.
    rig.on_node(|| run("iptables", &["-A", "FORWARD", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT"]));
    let start = |target: &str| Mutex::new(Conversation::start(target.parse().unwrap()).unwrap());
    let targets = [&format!("{}:90", VIPS[0]), &format!("[{}]:90", VIPS[1]), NODE_PORT, &format!("{BUSY}:90")];
    let mut conversations: Vec<_> = rig.in_client(|| targets.iter().map(|target| start(target)).collect());
    conversations.extend(rig.on_node(|| VIPS.map(|vip| start(&SocketAddr::from((ip(vip), 90)).to_string()))));
    let names: Vec<_> = conversations.iter().map(|one| one.lock().unwrap().say("before").unwrap()).collect();
    let in_ipvs = |rig: &Rig| lines(&rig.on_node(|| run("ipvsadm", &["-Sn"])));
    let strangers = lines(&STRANGERS.join("\n"));

    rig.change_mode(Mode::Legacy);
    rig.add_flags(&["--iptables-sync-period", "1s", "--drain-timeout", "10s"]);
    while_answering(&mut rig, &conversations, |rig| {
        rig.start_daemon();
        let takes = |line: &String| line.ends_with("-w 1") && !strangers.contains(line);
        rig.wait_until("IPVS takes nothing new", |rig| !in_ipvs(rig).iter().any(takes));
    });

    for (conversation, name) in conversations.iter().zip(&names) {
        assert_eq!(&conversation.lock().unwrap().say("after").unwrap(), name);
    }
    drop(conversations);
    rig.wait_until("nothing but strangers' is left in IPVS", |rig| in_ipvs(rig) == strangers);
    rig.wait_until("the device is gone", |rig| rig.on_node(|| !has_device()));
    rig.wait_for(&requests(&VIPS));
}

/// Some 25 sends read what is there, and then comes one for each phase.
fn killed_on_the_way() {
    let mut rig = rig_of_kube_proxy();
    let before = lines(&rig.rules());
    let start = |vip| Mutex::new(Conversation::start((ip(vip), 90).into()).unwrap());
    let conversations = rig.in_client(|| [VIPS[0], VIPS[1], BUSY].map(start));
    let mut devices = Vec::new();
    for send in [26, 27, 28, 29] {
        while_answering(&mut rig, &conversations, |rig| rig.start_daemon_killed_at(send));
        devices.push(rig.on_node(has_device));
    }
    assert_eq!(devices.first(), Some(&true), "the first kill came too late to mean anything");
    rig.start_daemon();
    rig.wait_until("all is done", |rig| rig.on_node(|| !has_device()) && !rig.rules().contains(IDLE));
    assert_eq!(differences(&before, &rig), leftovers());
}

/// It makes its virtual servers anew in place, which takes our tag off, and its device.
fn kube_proxy_can_come_back() {
    let mut rig = rig_of_kube_proxy();
    rig.start_daemon();
    rig.wait_until("the device is gone", |rig| rig.on_node(|| !has_device()));
    rig.stop_daemon();
    let rules = rig.rules();
    rig.on_node(|| {
        for rule in rules.lines().filter(|rule| rule.starts_with("-A") && !rule.contains("-f 7")) {
            ipvsadm(rule.replacen("-A", "-E", 1).trim_end());
        }
        make_device(&VIPS);
    });
    let conversation = rig.in_client(|| Conversation::start((ip(VIPS[0]), 90).into()).unwrap());
    let conversation = Mutex::new(conversation);
    let routes = stdout(&rig.ipvsd("cleanup"), 0);
    assert!(routes.starts_with("remove route: ") && !routes.contains(','), "{routes}");
    assert_eq!(rig.rules(), rules);
    assert!(rig.on_node(has_device));
    assert!(rig.in_client(|| conversation.lock().unwrap().say("still here")).is_ok());
    for request in requests(&VIPS) {
        rig.send(request).unwrap_or_else(|error| panic!("{request:?}: {error}"));
    }
}

/// What kube-proxy 1.36 writes in ipvs mode.
const WRITTEN: [(&str, &str); 2] = [
    ("iptables", include_str!("../fixtures/kube-proxy/ipvs.ipv4.txt")),
    ("ip6tables", include_str!("../fixtures/kube-proxy/ipvs.ipv6.txt")),
];

/// Its chains and sets are those that ipvsd had, and the cleanup leaves them whole.
fn rules_come_back(mode: Mode) {
    let mut rig = rig_of_kube_proxy();
    let servers = rig.rules();
    rig.with_netfilter();
    rig.change_mode(mode);
    rig.add_flags(&["--iptables-sync-period", "1s"]);
    rig.on_node(|| mode.prepare());
    rig.start_daemon();
    rig.wait_until("the device is gone", |rig| rig.on_node(|| !has_device()));
    rig.wait_for(&requests(&VIPS));
    let start = |vip: &str| Mutex::new(Conversation::start((ip(vip), 90).into()).unwrap());
    let mut conversations: Vec<_> = rig.in_client(|| VIPS.map(start)).into();
    conversations.extend(rig.on_node(|| VIPS.map(start)));
    let names: Vec<_> = conversations.iter().map(|one| one.lock().unwrap().say("before").unwrap()).collect();
    let everything = || (saved(mode), lines(&run("ipset", &["save"])));
    let mut before = None;

    while_answering(&mut rig, &conversations, |rig| {
        rig.stop_daemon();
        rig.on_node(|| {
            write_servers(&servers);
            make_device(&VIPS);
            kube_proxy_comes_back(mode, WRITTEN);
        });
        before = Some(rig.on_node(everything));
        stdout(&rig.ipvsd("cleanup"), 0);
    });

    let (rules, sets) = rig.on_node(everything);
    for (_, text) in WRITTEN {
        let mut of_chains = text.lines().filter(|line| line.starts_with("-A KUBE-"));
        assert!(of_chains.all(|line| rules.iter().any(|rule| rule == line)), "kube-proxy's is whole: {rules:#?}");
    }
    let (mut kept_rules, mut kept_sets) = before.unwrap();
    kept_rules.retain(|rule| !rule.contains("IPVSD-"));
    kept_sets.retain(|set| !set.contains(" IPVSD-"));
    assert_eq!(rules, kept_rules, "nothing but ipvsd's is gone");
    assert_eq!(sets, kept_sets);
    for (conversation, name) in conversations.iter().zip(&names) {
        assert_eq!(&conversation.lock().unwrap().say("after").unwrap(), name);
    }
    let answer = rig.send(request(Protocol::Tcp, VIPS[0], 80)).unwrap();
    assert_ne!(answer.source, IpAddr::V4(rig.network.client.addresses.ipv4), "it is masqueraded");
    assert_eq!(stdout(&rig.ipvsd("cleanup"), 0), "nothing to change\n");
}

/// As kube-proxy does: those that are there in place, which takes our tag off.
fn write_servers(rules: &str) {
    let there = lines(&run("ipvsadm", &["-Sn"]));
    let name = |rule: &str| rule.split(' ').skip(1).take(2).collect::<Vec<_>>().join(" ");
    let is_there = |rule: &str| there.iter().any(|one| one.starts_with("-A") && name(one) == name(rule));
    let (servers, destinations): (Vec<_>, Vec<_>) = rules.lines().partition(|rule| rule.starts_with("-A"));
    let written = |rule: &&str| if is_there(rule) { rule.replacen("-A", "-E", 1) } else { (*rule).to_owned() };
    let strange = |rule: &&str| rule.contains("-f 7") || rule.contains(IDLE) || rule.contains(BUSY);
    servers.iter().filter(|rule| !strange(rule)).map(written).for_each(|rule| drop(ipvsadm(rule.trim_end())));
    for rule in destinations.into_iter().map(str::trim_end).filter(|rule| !strange(rule) && !there.contains(*rule)) {
        ipvsadm(rule);
    }
}

fn empty_device() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    make_device(&[]);
    let once = || Command::new(IPVSD).args(["run", "--once", "--manifests", path]).output().unwrap();
    stdout(&once(), 0);
    assert!(!has_device());
    iproute("link add kube-ipvs0 type veth peer name other");
    stdout(&once(), 0);
    assert!(has_device());
}

/// Shown in cleaning up, which recognises what is kube-proxy's as `run` does.
fn excluded() {
    make_device(&["10.96.0.1"]);
    for rule in ["-A -t 10.97.0.1:80 -s rr", "-A -t 10.96.0.1:80 -s rr"] {
        ipvsadm(rule);
    }
    let excluding = |network: &str| {
        let report = daemon::cleanup(Takeover::AllBut(vec![network.parse().unwrap()])).unwrap();
        assert!(report.is_good(), "{report}");
    };
    excluding("10.96.0.0/16");
    assert_eq!(rules(), ["-A -t 10.96.0.1:80 -s rr", "-A -t 10.97.0.1:80 -s rr"]);
    assert!(has_device());
    excluding("10.97.0.0/16");
    assert_eq!(rules(), ["-A -t 10.97.0.1:80 -s rr"]);
    assert!(!has_device());
    ipvsadm("-A -t 10.96.0.1:80 -s rr");
    excluding("10.99.0.0/16");
    assert_eq!(rules().len(), 2, "without the device nothing is kube-proxy's");
}

/// As in a large cluster, with some IPv6.
fn thousands_of_addresses() {
    make_device(&[]);
    let address = |number: u16| {
        let [high, low] = number.to_be_bytes();
        format!("10.96.{high}.{low}")
    };
    let mut batch: String =
        (1..=5000).map(|number| format!("address add {}/32 dev kube-ipvs0\n", address(number))).collect();
    batch.extend((1..=500).map(|number| format!("address add fd00:96::{number:x}/128 dev kube-ipvs0 nodad\n")));
    let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    ip.stdin.take().unwrap().write_all(batch.as_bytes()).unwrap();
    assert!(ip.wait().unwrap().success());
    let mut linux = Linux::open().unwrap();
    let device = observe(&mut linux).model.kube_proxy_device.unwrap();
    assert_eq!(device.len(), 5500);
    assert_eq!(linux.apply(&[Op::RemoveKubeProxyDevice]), []);
    assert!(!has_device());
    assert_eq!(linux.observe(Scope::All).unwrap().model.kube_proxy_device, None);
    eventually("the addresses are gone", || !iproute("route show table local").contains("kube-ipvs0"));
}
