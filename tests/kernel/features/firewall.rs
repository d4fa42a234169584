//! Who may come, and what other rules of the node let through because of ours.

use super::objects::{balanced, put, rig, slices, target, who};
use crate::golden_rig::{FAMILIES, From, GoldenRig, To};
use crate::lab::{run, trial};
use ipvsd::demo::backend::{Backend, Port};
use ipvsd::demo::client::Request;
use ipvsd::model::Protocol;
use libtest_mimic::Trial;
use serde_json::json;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("features::source_ranges_hold_for_udp_and_sctp", source_ranges_of_other_protocols),
        trial("features::the_node_may_use_a_load_balancer_ip_from_that_ip_if_it_may_use_it_at_all", from_the_vip),
        trial("features::source_ranges_hold_where_the_policy_is_local", source_ranges_of_the_policy_local),
        trial("features::health_checks_pass_an_input_chain_that_drops", health_checks_pass),
        trial("features::services_pass_a_forward_chain_that_drops", services_pass),
    ]
}

/// Short, since most of what is asked here is dropped.
fn is_answered(rig: &GoldenRig, from: From, target: SocketAddr) -> bool {
    let connect = || Ok(TcpStream::connect_timeout(&target, Duration::from_millis(250)).is_ok());
    rig.namespace(from).run(connect).unwrap()
}

fn on_node(rig: &GoldenRig, commands: &str) {
    rig.network.node.run(|| Ok(run("bash", &["-ec", commands]))).unwrap();
}

fn source_ranges_of_other_protocols() {
    let mut rig = rig();
    let ranges = json!({"loadBalancerSourceRanges": ["192.0.2.2/32", "fd00:2::2/128"]});
    let news = slices(&rig, 1, "1:local 2");
    put(&mut rig, [vec![balanced(1, &ranges)], news].concat());
    for family in FAMILIES {
        let vip = target(&rig, 1, To::LoadBalancer, family);
        assert_eq!([From::External, From::Pod].map(|from| who(&rig, from, vip)), ["1 2", "silence"]);
        // The node's own datagram is dropped before it leaves, and its sender hears of it.
        assert_eq!(who(&rig, From::Node, vip), "refused");
        assert!(rig.ask(From::External, Protocol::Sctp, vip).is_ok());
    }
    let vip = target(&rig, 1, To::LoadBalancer, FAMILIES[0]);
    assert!(rig.ask(From::Pod, Protocol::Sctp, vip).is_err());
    // A port without ranges is none of theirs.
    assert_eq!(who(&rig, From::Pod, target(&rig, 1, To::NodePort, FAMILIES[0])), "1 2");
}

/// Programs that bind to the address, and kube-proxy's ipvs mode for all, have it as the source of the node's packets.
fn from_the_vip() {
    let mut rig = rig();
    // IPv4 takes the VIP's route for a right to its address, IPv6 wants the address.
    on_node(&rig, "ip address add fd00:51::1/128 dev client nodad");
    for (ranges, policy, may) in [
        (["192.0.2.1/32", "fd00:2::1/128"], "Cluster", true),
        (["192.0.2.1/32", "fd00:2::1/128"], "Local", true),
        (["192.0.2.2/32", "fd00:2::2/128"], "Cluster", false),
        (["192.0.2.2/32", "fd00:2::2/128"], "Local", false),
    ] {
        let spec = json!({"loadBalancerSourceRanges": ranges, "externalTrafficPolicy": policy});
        let news = slices(&rig, 1, "1:local 2");
        put(&mut rig, [vec![balanced(1, &spec)], news].concat());
        for family in FAMILIES {
            let vip = target(&rig, 1, To::LoadBalancer, family);
            let request = Request { source: Some((vip.ip(), 0).into()), ..Request::new(Protocol::Udp, vip) };
            let answer = rig.network.node.run(|| Ok(request.send())).unwrap();
            assert_eq!(answer.is_ok(), may, "{ranges:?} {policy} {family}: {answer:?}");
        }
    }
}

/// Clients outside by the virtual server of the address, those on the node by the mark's.
fn source_ranges_of_the_policy_local() {
    let mut rig = rig();
    for (ranges, allowed) in [
        (["192.0.2.2/32", "fd00:2::2/128"], [true, false, false]),
        (["10.244.0.0/16", "fd00:244::/32"], [false, true, false]),
        (["192.0.2.1/32", "fd00:2::1/128"], [false, false, true]),
    ] {
        let spec = json!({"loadBalancerSourceRanges": ranges, "externalTrafficPolicy": "Local"});
        let news = slices(&rig, 1, "1:local 2");
        put(&mut rig, [vec![balanced(1, &spec)], news].concat());
        for family in FAMILIES {
            let vip = target(&rig, 1, To::LoadBalancer, family);
            let found = [From::External, From::Pod, From::Node].map(|from| is_answered(&rig, from, vip));
            assert_eq!(found, allowed, "{ranges:?} {family}");
        }
    }
}

/// The ports are open to load balancers, by the node's addresses, and nothing else is.
fn health_checks_pass() {
    let mut rig = rig();
    let spec = json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 30_999});
    let news = slices(&rig, 1, "1:local");
    put(&mut rig, [vec![balanced(1, &spec)], news].concat());
    let _servers = Backend::start("node", &rig.network.node, &[Port::Http(30_999), Port::Http(22)]).unwrap();
    // But for neighbours, which IPv6 asks by ICMP.
    on_node(&rig, "iptables -P INPUT DROP; ip6tables -P INPUT DROP; ip6tables -A INPUT -p icmpv6 -j ACCEPT");
    let open = |rig: &GoldenRig| {
        FAMILIES.map(|family| {
            let own = rig.own_address(From::Node, family);
            [30_999, 22].map(|port| is_answered(rig, From::External, (own, port).into()))
        })
    };
    assert_eq!(open(&rig), [[true, false]; 2]);
    put(&mut rig, [balanced(1, &json!({}))]);
    assert_eq!(open(&rig), [[false, false]; 2]);
}

/// As Docker leaves it. Both ways of a connection are let through, whoever is masqueraded.
fn services_pass() {
    let mut rig = rig();
    on_node(&rig, "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP");
    let local = json!({"externalTrafficPolicy": "Local"});
    let news = [slices(&rig, 1, "1:local 2"), slices(&rig, 2, "1:local 2")].concat();
    put(&mut rig, [vec![balanced(1, &json!({})), balanced(2, &local)], news].concat());
    for family in FAMILIES {
        let pod = super::objects::address(&rig, 0, family);
        assert_eq!(who(&rig, From::External, (pod, 8080).into()), "silence", "what is no Service's is dropped");
        for (from, to) in [From::Pod, From::Node, From::External]
            .into_iter()
            .flat_map(|from| [To::ClusterIp, To::NodePort, To::LoadBalancer, To::ExternalIp].map(|to| (from, to)))
        {
            let here = if from == From::External && to != To::ClusterIp { "1" } else { "1 2" };
            assert_eq!(who(&rig, from, target(&rig, 1, to, family)), "1 2", "{family} {from:?} {to:?}");
            assert_eq!(who(&rig, from, target(&rig, 2, to, family)), here, "{family} {from:?} {to:?}");
        }
        let associated = rig.ask(From::Pod, Protocol::Sctp, target(&rig, 1, To::ClusterIp, family));
        assert!(associated.is_ok(), "{associated:?}");
    }
}
