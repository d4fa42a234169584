//! From IPVS to netfilter's rules and back, under traffic: no connection ends, no request fails, nothing is left over.

use crate::lab::{run, trial};
use crate::meanwhile::repeat_while;
use crate::mode::Mode;
use crate::traffic_rig::{Rig, VIPS, request, requests, service, slices};
use ipvsd::demo::client::Conversation;
use ipvsd::demo::namespace::Namespace;
use ipvsd::model::Protocol;
use libtest_mimic::Trial;
use serde_json::json;
use std::net::{IpAddr, SocketAddr};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("mode_changes::connections_and_requests_go_on_over_both", connections_and_requests_go_on_over_both),
        trial("mode_changes::nothing_of_the_other_mode_is_left", nothing_of_the_other_mode_is_left),
    ]
}

fn rig(flags: &[&'static str]) -> Rig {
    let mut rig = Rig::new(flags, |hosts| [vec![service("web", json!({}))], slices("web", hosts)].concat());
    rig.wait_for(&requests(&VIPS));
    // With netfilter from the beginning, as in a cluster.
    rig.stop_daemon();
    rig.with_netfilter();
    rig.start_daemon();
    // The table that is written last.
    rig.wait_until("rules stand", |rig| {
        rig.on_node(|| run("ip6tables-save", &["-t", "filter"]).contains("-j KUBE-IPVS-FILTER"))
    });
    rig
}

fn change(rig: &mut Rig, mode: Mode) {
    rig.stop_daemon();
    rig.change_mode(mode);
    rig.start_daemon();
    rig.wait_until("the other mode's rules stand", |rig| balances_by_rules(rig) == (mode != Mode::Ipvs));
}

fn balances_by_rules(rig: &Rig) -> bool {
    rig.on_node(|| run("iptables-save", &["-t", "nat"])).contains("-j IPVSD-DISPATCH")
}

fn converse(rig: &Rig, vip: &str) -> (Conversation, String) {
    let target = SocketAddr::from((vip.parse::<IpAddr>().unwrap(), 90));
    let mut conversation = rig.in_client(|| Conversation::start(target)).unwrap();
    let name = conversation.say("hello").unwrap();
    (conversation, name)
}

fn still_there((conversation, name): &mut (Conversation, String)) {
    assert_eq!(conversation.say("still here").unwrap(), *name);
}

/// Sends requests while `work` goes on; none may fail.
fn under_requests(rig: &mut Rig, work: impl FnOnce(&mut Rig)) {
    let client = rig.network.client.namespace.run(Namespace::here).unwrap();
    let mut answered = 0;
    let ask = || {
        for vip in VIPS {
            let answer = request(Protocol::Tcp, vip, 80).send();
            assert!(answer.is_ok(), "after {answered} requests: {answer:?}");
            answered += 1;
        }
    };
    repeat_while(&client, ask, || work(rig));
    assert!(answered > 10);
}

fn connections_and_requests_go_on_over_both() {
    let mut rig = rig(&[]);
    let mut by_ipvs = VIPS.map(|vip| converse(&rig, vip));
    under_requests(&mut rig, |rig| {
        change(rig, Mode::Legacy);
        by_ipvs.iter_mut().for_each(still_there);
        let drains = |rig: &Rig| !rig.on_node(|| run("ipvsadm", &["-Sn"])).contains("-w 1");
        rig.wait_until("IPVS takes nothing new", drains);
        by_ipvs.iter_mut().for_each(still_there);
        let mut by_rules = VIPS.map(|vip| converse(rig, vip));
        change(rig, Mode::Ipvs);
        by_rules.iter_mut().chain(&mut by_ipvs).for_each(still_there);
    });
}

fn nothing_of_the_other_mode_is_left() {
    let mut rig = rig(&["--drain-timeout", "1s"]);
    let state = |rig: &Rig| {
        let lines = rig.on_node(|| run("ipvsadm", &["-Sn"]) + &run("iptables-save", &[]) + &run("ip6tables-save", &[]));
        let mut lines: Vec<_> = lines
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split(" [").next().unwrap().to_owned())
            .collect();
        lines.sort();
        lines
    };
    let before = state(&rig);
    change(&mut rig, Mode::Legacy);
    rig.wait_until("IPVS is empty", |rig| rig.on_node(|| run("ipvsadm", &["-Sn"])).is_empty());
    change(&mut rig, Mode::Ipvs);
    rig.wait_until("all is as it was", |rig| state(rig) == before);
    assert!(rig.ipvsd("diff").status.success());
}
