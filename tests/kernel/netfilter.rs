//! What only Linux can be asked of sets and rules: that `ipset` and `iptables` see what was meant, and that what others
//! did is noticed, repaired or left alone.

use crate::contract::{apply, observe};
use crate::contract_netfilter::{CASES, additions, creations, frontend};
use crate::lab::{in_namespace, run, trial};
use ipvsd::kernel::linux::Linux;
use ipvsd::kernel::{Cause, Kernel};
use ipvsd::model::netfilter::{Capacity, Mark, Member, RuleSettings, SetKey, SetKind};
use ipvsd::model::{Family, Op, Protocol};
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    let contract = CASES.iter().map(|(name, case)| {
        Trial::test(format!("contract::{name}"), move || {
            in_namespace(|| case(&mut open()));
            Ok(())
        })
    });
    let own = [
        trial("netfilter::ipset_sees_what_was_added", ipset_sees_what_was_added),
        trial("netfilter::sets_that_ipset_made_are_read_and_kept", sets_that_ipset_made_are_read_and_kept),
        trial("netfilter::a_set_of_another_type_is_replaced_unless_rules_refer_to_it", other_type_is_replaced),
        trial("netfilter::changed_rules_are_noticed_and_repaired", changed_rules_are_noticed_and_repaired),
        trial("netfilter::others_rules_are_left_alone", others_rules_are_left_alone),
        trial("netfilter::ten_thousand_members_take_dozens_of_calls", ten_thousand_members_take_dozens_of_calls),
    ];
    contract.chain(own).collect()
}

fn open() -> Linux {
    Linux::open().unwrap().with_netfilter().unwrap()
}

/// Lines of `ipset save` without what is each set's own: the seed of its hash, and how its buckets are made.
fn saved() -> Vec<String> {
    let all = run("ipset", &["save", "-sorted"]);
    let strip = |line: &str| line.split(" bucketsize").next().unwrap().trim().to_owned();
    all.lines().map(strip).collect()
}

fn ipset_sees_what_was_added() {
    let mut linux = open();
    apply(&mut linux, &creations());
    apply(&mut linux, &additions());
    let saved = saved();
    for line in [
        "create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 1024 maxelem 65536",
        "create IPVSD-6-SHORT-CIRCUIT hash:ip,port family inet6 hashsize 1024 maxelem 65536 skbinfo",
        "create KUBE-NODE-PORT-TCP bitmap:port range 0-65535",
        "create KUBE-6-IPVS-IPS hash:ip family inet6 hashsize 1024 maxelem 65536",
        "add KUBE-CLUSTER-IP 10.96.0.1,sctp:80",
        "add KUBE-6-LOOP-BACK fd00:96::1,sctp:80,fd00:96::1",
        "add KUBE-LOAD-BALANCER-SOURCE-CIDR 10.96.0.1,tcp:80,10.0.0.0/9",
        "add KUBE-LOAD-BALANCER-SOURCE-CIDR 10.96.0.1,tcp:80,192.0.2.2",
        "add KUBE-NODE-PORT-TCP 30080",
        "add IPVSD-SHORT-CIRCUIT 10.96.0.1,udp:80 skbmark 0xabc01060",
    ] {
        assert!(saved.iter().any(|found| found == line), "{line} is not in\n{}", saved.join("\n"));
    }
}

/// As they are when kube-proxy has run.
fn sets_that_ipset_made_are_read_and_kept() {
    for (name, arguments) in [
        ("KUBE-CLUSTER-IP", "hash:ip,port family inet hashsize 1024 maxelem 65536"),
        ("KUBE-6-LOAD-BALANCER-SOURCE-CID", "hash:ip,port,net family inet6 hashsize 1024 maxelem 65536"),
        ("KUBE-NODE-PORT-UDP", "bitmap:port range 0-65535"),
        ("KUBE-IPVS-IPS", "hash:ip family inet hashsize 1024 maxelem 65536"),
        ("SOMEBODYS", "hash:net"),
    ] {
        run("ipset", &[&["create", name], &arguments.split(' ').collect::<Vec<_>>()[..]].concat());
    }
    for (name, member) in [
        ("KUBE-CLUSTER-IP", "10.96.0.1,tcp:80"),
        ("KUBE-CLUSTER-IP", "10.96.0.1,icmp:8/0"),
        ("KUBE-6-LOAD-BALANCER-SOURCE-CID", "fd00:96::1,udp:80,fd00::/16"),
        ("KUBE-6-LOAD-BALANCER-SOURCE-CID", "fd00:96::1,udp:80,fd00::1"),
        ("KUBE-NODE-PORT-UDP", "30053"),
        ("KUBE-IPVS-IPS", "10.96.0.1"),
    ] {
        run("ipset", &["add", name, member]);
    }
    let mut linux = open();
    let found = "\
set KUBE-CLUSTER-IP 65536
  10.96.0.1,tcp:80
set KUBE-6-LOAD-BALANCER-SOURCE-CID 65536
  fd00:96::1,udp:80,fd00::/16
  fd00:96::1,udp:80,fd00::1/128
set KUBE-NODE-PORT-UDP 65536
  30053
set KUBE-IPVS-IPS 65536
  10.96.0.1
";
    assert_eq!(observe(&mut linux).model.to_string(), found);
}

fn other_type_is_replaced() {
    run("ipset", &["create", "KUBE-CLUSTER-IP", "hash:ip"]);
    run("ipset", &["create", "IPVSD-SHORT-CIRCUIT", "hash:ip,port"]);
    run("iptables", &["-A", "INPUT", "-m", "set", "--match-set", "KUBE-CLUSTER-IP", "src"]);
    let mut linux = open();
    assert_eq!(observe(&mut linux).model.sets.len(), 0);
    let key = |kind| SetKey { kind, family: Family::Ipv4 };
    let create = |kind| Op::CreateSet(key(kind), Capacity::LEAST);
    let member = Member::AddressPort(frontend(Family::Ipv4, Protocol::Tcp, 80));
    let add = |kind| Op::AddMember(key(kind), member, None);
    let (used, free) = (SetKind::ClusterIp, SetKind::ShortCircuit);
    let failures = linux.apply(&[create(used), create(free), add(used), add(free)]);
    assert_eq!(failures.iter().map(|failure| failure.index).collect::<Vec<_>>(), [0, 2]);
    let cause = Cause::SetOfOtherType { found: "hash:ip".into(), wanted: "hash:ip,port".into() };
    assert!(failures.iter().all(|failure| failure.cause == cause), "{failures:?}");
    let sets = observe(&mut linux).model.sets;
    assert!(sets.keys().eq([&key(free)]) && sets[&key(free)].members.contains_key(&member), "{sets:?}");
    run("iptables", &["-F", "INPUT"]);
    apply(&mut linux, &[create(used), add(used)]);
    assert_eq!(observe(&mut linux).model.sets.len(), 2);
}

fn changed_rules_are_noticed_and_repaired() {
    let mut linux = open();
    let settings: RuleSettings = "masquerade 0x4000, pods from 10.244.0.0/16".parse().unwrap();
    apply(&mut linux, &creations());
    apply(&mut linux, &[Op::SetRules(Family::Ipv4, settings)]);
    let whole = run("iptables", &["-S"]) + &run("iptables", &["-t", "nat", "-S"]);
    for mess in [
        "-t nat -F",
        "-t filter -F",
        "-t mangle -F IPVSD-POSTROUTING",
        "-D INPUT -m comment --comment kube-proxy\\ firewall\\ rules -j KUBE-PROXY-FIREWALL",
        "-I KUBE-IPVS-FILTER -j ACCEPT",
        "-t nat -I OUTPUT -m comment --comment kubernetes\\ service\\ portals -j KUBE-SERVICES",
        "-t nat -D KUBE-POSTROUTING 1",
    ] {
        let words: Vec<_> = mess.split(' ').map(|word| word.replace('\\', " ")).collect();
        let words = join_quoted(&words);
        run("iptables", &words.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(observe(&mut linux).model.rules.len(), 0, "{mess}");
        apply(&mut linux, &[Op::SetRules(Family::Ipv4, settings)]);
        assert_eq!(observe(&mut linux).model.rules[&Family::Ipv4], settings, "{mess}");
        let now = run("iptables", &["-S"]) + &run("iptables", &["-t", "nat", "-S"]);
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&now), sorted(&whole), "{mess}");
    }
    // Another process knows them by what they say of themselves.
    assert_eq!(observe(&mut open()).model.rules[&Family::Ipv4], settings);
}

/// Words that end with a space belong to the next one.
fn join_quoted(words: &[String]) -> Vec<String> {
    let mut joined: Vec<String> = Vec::new();
    for word in words {
        match joined.last_mut() {
            Some(last) if last.ends_with(' ') => last.push_str(word),
            _ => joined.push(word.clone()),
        }
    }
    joined
}

fn others_rules_are_left_alone() {
    run("iptables", &["-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "1", "-j", "ACCEPT"]);
    run("iptables", &["-t", "nat", "-N", "SOMEBODYS"]);
    run("iptables", &["-P", "FORWARD", "DROP"]);
    let rules = || run("iptables", &["-S"]) + &run("iptables", &["-t", "nat", "-S"]);
    let before = rules();
    let mut linux = open();
    apply(&mut linux, &creations());
    apply(&mut linux, &[Op::SetRules(Family::Ipv4, RuleSettings::default())]);
    assert!(before.lines().all(|line| rules().lines().any(|other| other == line)));
    let first = rules().lines().find(|line| line.starts_with("-A PREROUTING")).unwrap().to_owned();
    assert!(first.ends_with("-j KUBE-SERVICES"), "{first}");
    apply(&mut linux, &[Op::RemoveRules(Family::Ipv4)]);
    assert_eq!(rules(), before);
}

fn ten_thousand_members_take_dozens_of_calls() {
    let mut linux = open();
    let key = SetKey { kind: SetKind::ShortCircuit, family: Family::Ipv6 };
    let member = |port| Member::AddressPort(frontend(Family::Ipv6, Protocol::Tcp, port));
    let mark = Mark::new(1, Protocol::Tcp);
    let mut ops = vec![Op::CreateSet(key, Capacity::LEAST)];
    ops.extend((0..10_000).map(|port| Op::AddMember(key, member(port), mark)));
    let before = linux.counters();
    apply(&mut linux, &ops);
    let after = linux.counters();
    assert_eq!(after.messages - before.messages, 10_001);
    assert!(after.sends - before.sends <= 45, "{}", after.sends - before.sends);
    assert_eq!(observe(&mut linux).model.sets[&key].members.len(), 10_000);
}
