//! What the iptables mode leaves, in either back end.

use crate::feed;
use crate::lab::{run, trial};
use ipvsd::kernel::linux::Linux;
use ipvsd::kernel::{Kernel, Observation, Scope};
use ipvsd::model::netfilter::{Capacity, RuleSettings, SetKey};
use ipvsd::model::{Family, Leftover, Op};
use libtest_mimic::Trial;
use std::fs;
use std::process::Command;

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("leftovers::rules_go_from_nft_where_it_is_used", || all_goes(NFT, NFT)),
        trial("leftovers::rules_go_from_legacy_where_it_is_used", || all_goes(LEGACY, LEGACY)),
        trial("leftovers::rules_go_from_nft_where_legacy_is_used", || all_goes(LEGACY, NFT)),
        trial("leftovers::rules_go_from_legacy_where_nft_is_used", || all_goes(NFT, LEGACY)),
        trial("leftovers::rules_go_from_both_at_once", both_at_once),
        trial("leftovers::a_chain_that_others_lead_into_is_emptied_and_told_of", others_lead_into),
        trial("leftovers::a_look_makes_no_table", a_look_makes_no_table),
        trial("leftovers::thousands_of_chains_go_at_once", thousands_of_chains),
    ]
}

pub const NFT: &str = "nft";
pub const LEGACY: &str = "legacy";

pub const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

/// What kube-proxy leaves of a family.
pub fn kube_proxys(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => include_str!("../fixtures/kube-proxy/iptables.ipv4.txt"),
        Family::Ipv6 => include_str!("../fixtures/kube-proxy/iptables.ipv6.txt"),
    }
}

/// Kubelet's chains, by which the back end in use is known.
const KUBELETS: &str = "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n\
    *nat\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n*filter\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n";

/// Rules of others, some with names like kube-proxy's.
const OTHERS: &str = "*nat\n:KUBE-SVC-TOOSHORT - [0:0]\n:KUBE-HP-IV37GLCFH35ADVUP - [0:0]\n:CNI-HOSTPORT-DNAT - [0:0]\n\
    -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT\n\
    -A CNI-HOSTPORT-DNAT -p tcp -m tcp --dport 1 -j KUBE-SVC-TOOSHORT\n\
    -A KUBE-SVC-TOOSHORT -j RETURN\nCOMMIT\n\
    *filter\n:SOMEBODYS - [0:0]\n\
    -A FORWARD -m comment --comment \"kubernetes service portals\" -j SOMEBODYS\n\
    -A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A SOMEBODYS -j RETURN\nCOMMIT\n";

pub fn program(backend: &str, family: Family, verb: &str) -> String {
    let name = if family == Family::Ipv4 { "iptables" } else { "ip6tables" };
    format!("{name}-{backend}-{verb}")
}

pub fn restore(backend: &str, family: Family, text: &str) {
    feed(&program(backend, family, "restore"), &["--noflush"], text);
}

/// Rules, and chains that somebody made, in an order of our own.
pub fn saved(backend: &str, family: Family) -> Vec<String> {
    let mut lines = Vec::new();
    let mut table = String::new();
    for line in run(&program(backend, family, "save"), &[]).lines() {
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
        } else if line.starts_with("-A") || (line.starts_with(':') && line.contains(" - ")) {
            lines.push(format!("{table} {}", line.split(" - [").next().unwrap()));
        }
    }
    lines.sort();
    lines
}

pub fn open() -> Linux {
    Linux::open_nat().unwrap()
}

pub fn look(kernel: &mut Linux) -> Observation {
    kernel.observe(Scope::All).unwrap()
}

pub fn apply(kernel: &mut Linux, ops: &[Op]) {
    assert_eq!(kernel.apply(ops), []);
}

pub fn removals(seen: &Observation) -> Vec<Op> {
    seen.model.kube_proxy_leftovers.iter().copied().map(Op::RemoveLeftover).collect()
}

/// Our sets and rules.
fn take_over(kernel: &mut Linux) {
    let sets: Vec<_> = SetKey::all().map(|key| Op::CreateSet(key, Capacity::LEAST)).collect();
    apply(kernel, &sets);
    apply(kernel, &FAMILIES.map(|family| Op::SetRules(family, RuleSettings::default())));
}

/// A node that uses a back end, with kube-proxy's rules in another or the same. Returns what is to be left at the end in
/// both back ends of both families: all but kube-proxy's, and of that the chain that kubelet has too.
fn node(used: &str, left: &[&str]) -> Vec<Vec<String>> {
    for family in FAMILIES {
        restore(used, family, KUBELETS);
        for backend in [NFT, LEGACY] {
            restore(backend, family, OTHERS);
            let firewall = |line: &&str| line.starts_with('*') || line.contains("KUBE-FIREWALL") || *line == "COMMIT";
            if left.contains(&backend) {
                let lines: Vec<_> = kube_proxys(family).lines().filter(firewall).collect();
                restore(backend, family, &(lines.join("\n") + "\n"));
            }
        }
    }
    let wanted = everything();
    for (backend, family) in left.iter().flat_map(|backend| FAMILIES.map(|family| (*backend, family))) {
        // The jumps are there.
        let lines = kube_proxys(family).lines().filter(|line| !line.ends_with("-j KUBE-FIREWALL"));
        let text: String = lines.flat_map(|line| [line, "\n"]).collect();
        restore(backend, family, &text);
    }
    wanted
}

fn everything() -> Vec<Vec<String>> {
    let places = [NFT, LEGACY].into_iter().flat_map(|backend| FAMILIES.map(|family| (backend, family)));
    places.map(|(backend, family)| saved(backend, family)).collect()
}

fn all_goes(used: &str, left: &str) {
    let wanted = node(used, &[left]);
    let mut kernel = open();
    let seen = look(&mut kernel);
    let place = if used == left { Leftover::Rules } else { Leftover::OtherRules };
    assert_eq!(seen.model.kube_proxy_leftovers, FAMILIES.map(place).into());
    goes(&mut kernel, &wanted);
}

fn both_at_once() {
    let wanted = node(NFT, &[NFT, LEGACY]);
    let mut kernel = open();
    let seen = look(&mut kernel);
    let all = [FAMILIES.map(Leftover::Rules), FAMILIES.map(Leftover::OtherRules)];
    assert_eq!(seen.model.kube_proxy_leftovers, all.into_iter().flatten().collect());
    goes(&mut kernel, &wanted);
}

/// Puts ours in the place of what is there, and without ours there is then what is wanted.
fn goes(kernel: &mut Linux, wanted: &[Vec<String>]) {
    take_over(kernel);
    let seen = look(kernel);
    apply(kernel, &removals(&seen));
    let seen = look(kernel);
    assert_eq!(seen.model.kube_proxy_leftovers, [].into());
    assert_eq!(seen.held, [].into());
    assert_eq!(seen.model.rules.len(), 2, "ours stay whole");
    apply(kernel, &FAMILIES.map(Op::RemoveRules));
    assert_eq!(everything(), wanted);
}

fn others_lead_into() {
    for backend in [NFT, LEGACY] {
        restore(backend, Family::Ipv4, kube_proxys(Family::Ipv4));
        let leads = "*filter\n-A OUTPUT -j KUBE-SERVICES\nCOMMIT\n*nat\n:CNI - [0:0]\n-A CNI -j KUBE-SVC-CDGGSHYLG3RE2FKL\nCOMMIT\n";
        restore(backend, Family::Ipv4, leads);
    }
    restore(NFT, Family::Ipv4, KUBELETS);
    let mut kernel = open();
    take_over(&mut kernel);
    let seen = look(&mut kernel);
    assert_eq!(seen.held, [].into(), "nothing of it is final yet");
    apply(&mut kernel, &removals(&seen));
    let seen = look(&mut kernel);
    assert_eq!(seen.model.kube_proxy_leftovers, [].into());
    let told: Vec<_> = seen.held.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].ends_with("for a rule leads into it: -A OUTPUT -j KUBE-SERVICES"), "{told:?}");
    for backend in [NFT, LEGACY] {
        let left = saved(backend, Family::Ipv4);
        let has = |line: &str| left.iter().any(|found| found == line);
        assert!(has("filter :KUBE-SERVICES") && has("filter -A OUTPUT -j KUBE-SERVICES"), "{backend}: {left:#?}");
        assert!(has("nat :KUBE-SVC-CDGGSHYLG3RE2FKL") && !has("nat :KUBE-SVC-OORGQSBIFXI7NHIM"), "{backend}");
        assert!(!left.iter().any(|line| line.starts_with("filter -A KUBE-SERVICES")), "{backend}: {left:#?}");
    }
}

fn a_look_makes_no_table() {
    let tables = || {
        let names = ["ip", "ip6"].map(|family| format!("/proc/thread-self/net/{family}_tables_names"));
        names.map(|path| fs::read_to_string(path).unwrap()).concat() + &run("nft", &["list", "tables"])
    };
    assert_eq!(tables(), "");
    let mut kernel = open();
    assert_eq!(look(&mut kernel), Observation::default());
    assert_eq!(look(&mut kernel), Observation::default());
    assert_eq!(tables(), "");
}

/// As in a cluster with 5,000 ports of Services.
fn thousands_of_chains() {
    let hash = |number: u32| {
        let digit = |shift: u32| char::from(b'A' + u8::try_from(number >> shift & 15).unwrap());
        let digits: String = [12, 8, 4, 0].into_iter().map(digit).collect();
        digits.repeat(4)
    };
    let mut text = String::from("*nat\n:KUBE-SERVICES - [0:0]\n");
    for number in 0..5000 {
        let hash = hash(number);
        text += &format!(":KUBE-SVC-{hash} - [0:0]\n:KUBE-SEP-{hash} - [0:0]\n-A KUBE-SERVICES -j KUBE-SVC-{hash}\n");
        text += &format!("-A KUBE-SVC-{hash} -j KUBE-SEP-{hash}\n-A KUBE-SEP-{hash} -j RETURN\n");
    }
    text += "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\nCOMMIT\n";
    for backend in [NFT, LEGACY] {
        restore(backend, Family::Ipv4, &text);
    }
    let mut kernel = open();
    let seen = look(&mut kernel);
    assert_eq!(removals(&seen).len(), 2);
    for op in removals(&seen) {
        let start = std::time::Instant::now();
        apply(&mut kernel, &[op]);
        println!("    {op}: {:?}", start.elapsed());
    }
    assert_eq!(everything().concat(), [""; 0]);
    assert!(Command::new("nft").args(["list", "tables"]).output().unwrap().status.success());
}
