//! What the nftables mode leaves.

use crate::feed;
use crate::lab::{run, trial};
use crate::rules::{FAMILIES, apply, look, open, removals};
use ipvsd::demo::backend::{Backend, Port};
use ipvsd::demo::client::Conversation;
use ipvsd::demo::network::{Host, Network};
use ipvsd::model::netfilter::{Capacity, RuleSettings, SetKey};
use ipvsd::model::{Family, Leftover, Op};
use libtest_mimic::Trial;
use std::net::SocketAddr;

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("leftovers::tables_go_and_those_of_others_stay", tables_go),
        trial("leftovers::connections_that_a_table_translated_go_on_without_it", connections_go_on),
    ]
}

pub fn load() {
    feed("nft", &["-f", "-"], include_str!("../fixtures/kube-proxy/nftables.ipv4.txt"));
    feed("nft", &["-f", "-"], include_str!("../fixtures/kube-proxy/nftables.ipv6.txt"));
}

fn tables() -> Vec<String> {
    run("nft", &["list", "tables"]).lines().map(str::to_owned).collect()
}

fn tables_go() {
    let others = ["table ip somebodys", "table inet kube-proxy", "table ip6 kube-proxy-2"];
    for table in others {
        feed("nft", &["-f", "-"], &format!("{table} {{\nchain input {{\ntype filter hook input priority 0;\n}}\n}}\n"));
    }
    let mut kernel = open();
    assert_eq!(removals(&look(&mut kernel)), []);
    load();
    let seen = look(&mut kernel);
    assert_eq!(seen.model.kube_proxy_leftovers, FAMILIES.map(Leftover::Table).into());
    apply(&mut kernel, &[Op::RemoveLeftover(Leftover::Table(Family::Ipv6))]);
    assert_eq!(look(&mut kernel).model.kube_proxy_leftovers, [Leftover::Table(Family::Ipv4)].into());
    apply(&mut kernel, &removals(&seen));
    assert_eq!(removals(&look(&mut kernel)), []);
    let mut left = tables();
    left.sort();
    assert_eq!(left, ["table inet kube-proxy", "table ip somebodys", "table ip6 kube-proxy-2"]);
}

fn connections_go_on() {
    let network = Network::build(3).unwrap();
    let start = |host: &Host| Backend::start(&host.name, &host.namespace, &[Port::Lines(9090)]).unwrap();
    let _backends: Vec<_> = network.backends.iter().map(start).collect();
    let on_node = |work: fn()| {
        let done = network.node.run(|| {
            work();
            Ok(())
        });
        done.unwrap();
    };
    on_node(load);
    let talk_to = |vip: &str| -> SocketAddr { vip.parse().unwrap() };
    let mut conversations: Vec<_> = ["10.96.0.10:90", "[fd00:96::10]:90"]
        .map(|vip| network.client.namespace.run(|| Ok(Conversation::start(talk_to(vip)).unwrap())).unwrap())
        .into();
    let names: Vec<_> = conversations.iter_mut().map(|one| one.say("before").unwrap()).collect();
    on_node(|| {
        let mut kernel = open();
        let sets: Vec<_> = SetKey::all().map(|key| Op::CreateSet(key, Capacity::LEAST)).collect();
        apply(&mut kernel, &sets);
        apply(&mut kernel, &FAMILIES.map(|family| Op::SetRules(family, RuleSettings::default())));
        let seen = look(&mut kernel);
        apply(&mut kernel, &removals(&seen));
        assert!(!tables().iter().any(|table| table.contains("kube-proxy")));
    });
    for (conversation, name) in conversations.iter_mut().zip(names) {
        assert_eq!(conversation.say("after").unwrap(), name);
    }
}
