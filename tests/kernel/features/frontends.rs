//! Where a Service is reached, and where it is not.

use super::objects::{balanced, put, rig, slices, target, who};
use crate::golden_rig::{FAMILIES, From, GoldenRig, To, by_cluster_cidr};
use crate::lab::{run, trial};
use ipvsd::desired::{NetfilterSettings, NodePortAddresses, Settings};
use ipvsd::model::{Family, Protocol};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("features::one_port_number_serves_each_protocol_for_itself", same_port),
        trial("features::node_ports_are_on_the_addresses_that_node_port_addresses_choose", node_port_addresses),
        trial("features::a_load_balancer_without_node_ports_is_served_at_its_address", without_node_ports),
        trial("features::of_a_load_balancers_ingress_only_addresses_for_packets_are_served", ingress_kinds),
        trial("features::a_service_of_ipv6_alone_is_served_on_a_node_of_ipv6_alone", ipv6_alone),
        trial("features::both_families_of_a_dual_stack_service_are_served_each_for_itself", dual_stack),
        trial("features::ports_that_a_vip_has_not_are_refused", undefined_ports),
        trial("features::an_external_ip_that_is_the_nodes_own_is_served", own_external_ip),
        trial("features::a_new_port_is_served_and_a_removed_one_refused", changed_ports),
    ]
}

const EVERYBODY: [From; 3] = [From::Pod, From::Node, From::External];
const ALL_WAYS: [To; 4] = [To::ClusterIp, To::NodePort, To::LoadBalancer, To::ExternalIp];

/// TCP goes to the first backend, UDP to the second, SCTP to the third.
fn same_port() {
    let mut rig = rig();
    let slices = FAMILIES.map(|family| ["TCP", "UDP", "SCTP"].map(|protocol| slice_of(&rig, family, protocol)));
    put(&mut rig, [vec![balanced(1, &json!({}))], slices.concat()].concat());
    for (number, protocol) in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().enumerate() {
        for (family, to) in FAMILIES.into_iter().flat_map(|family| ALL_WAYS.map(|to| (family, to))) {
            let name = rig.ask(From::External, protocol, target(&rig, 1, to, family)).unwrap().name;
            assert_eq!(name, format!("backend-{}", number + 1), "{protocol} {family} {to:?}");
        }
    }
}

/// With the port of one protocol, and the endpoint for it.
fn slice_of(rig: &GoldenRig, family: Family, protocol: &str) -> Value {
    let (number, word) = match protocol {
        "TCP" => (0, "1:local"),
        "UDP" => (1, "2"),
        _ => (2, "3:local"),
    };
    let mut slice = super::objects::slice(rig, (1, &protocol.to_lowercase()), family, word);
    slice["ports"] = json!([slice["ports"][number]]);
    slice
}

/// The node's addresses are those of its ends of the cables, of which one is the client's.
fn node_port_addresses() {
    let [client, pod] = ["192.0.2.1", "10.244.3.1"];
    let within =
        |ranges: &[&str]| NodePortAddresses::Within(ranges.iter().map(|range| range.parse().unwrap()).collect());
    let everywhere = [client, pod, "fd00:2::1", "fd00:244:3::1"];
    for (chosen, wanted) in [
        (within(&["192.0.2.0/24"]), &[client, "fd00:2::1", "fd00:244:3::1"][..]),
        (within(&["10.244.3.1/32", "fd00:2::/64"]), &[pod, "fd00:2::1"]),
        // Never on a VIP, whatever they say.
        (within(&["10.96.0.0/16", "fd00:96::/32"]), &[]),
        (NodePortAddresses::Primary, &[client, "fd00:2::1"]),
    ] {
        let netfilter = NetfilterSettings { detect_local: by_cluster_cidr(), ..NetfilterSettings::default() };
        let settings = Settings { node_ports: chosen.clone(), netfilter: Some(netfilter), ..Settings::default() };
        let mut rig = GoldenRig::with(settings);
        let news = slices(&rig, 1, "1:local 2");
        put(&mut rig, [vec![balanced(1, &json!({}))], news].concat());
        for place in everywhere {
            let node_port = SocketAddr::new(place.parse().unwrap(), 30_001);
            let is_wanted = if wanted.contains(&place) { "1 2" } else { "refused" };
            for from in EVERYBODY {
                assert_eq!(who(&rig, from, node_port), is_wanted, "{chosen:?} {place} {from:?}");
            }
        }
        // Other ways in do not depend on it, and no VIP has node ports.
        for family in FAMILIES {
            let vip = target(&rig, 1, To::ClusterIp, family);
            assert_eq!(who(&rig, From::External, vip), "1 2", "{chosen:?}");
            assert_eq!(who(&rig, From::External, (vip.ip(), 30_001).into()), "refused", "{chosen:?}");
        }
    }
}

/// `allocateLoadBalancerNodePorts: false`.
fn without_node_ports() {
    let mut rig = rig();
    let port = |name, protocol| json!({"name": name, "port": 80, "protocol": protocol});
    let ports = json!([port("tcp", "TCP"), port("udp", "UDP")]);
    let local = json!({"allocateLoadBalancerNodePorts": false, "ports": ports, "externalTrafficPolicy": "Local"});
    let cluster = json!({"allocateLoadBalancerNodePorts": false, "ports": ports});
    let news = [slices(&rig, 1, "1:local 2"), slices(&rig, 2, "1:local 2")].concat();
    put(&mut rig, [vec![balanced(1, &cluster), balanced(2, &local)], news].concat());
    for family in FAMILIES {
        assert_eq!(who(&rig, From::External, target(&rig, 1, To::LoadBalancer, family)), "1 2");
        assert_eq!(who(&rig, From::External, target(&rig, 2, To::LoadBalancer, family)), "1");
        assert_eq!(who(&rig, From::Pod, target(&rig, 2, To::LoadBalancer, family)), "1 2");
        assert_eq!(who(&rig, From::External, target(&rig, 1, To::NodePort, family)), "refused");
    }
}

/// Those of mode `Proxy` are for packets that come by a proxy, from anywhere but the node too; a name is no address.
fn ingress_kinds() {
    let mut rig = rig();
    let with_ingress = |ingress: Value| {
        let mut service = balanced(1, &json!({"externalIPs": []}));
        service["status"]["loadBalancer"]["ingress"] = ingress;
        service
    };
    let news = slices(&rig, 1, "1:local 2");
    put(&mut rig, news);
    let [four, six] = ["203.0.113.81", "fd00:113::81"];
    let served = |rig: &GoldenRig| {
        let local = run_on_node(rig, "ip route show table local; ip -6 route show table local");
        [four, six].map(|address| local.contains(&format!("local {address} ")))
    };
    for (ingress, wanted) in [
        (json!([{"ip": four, "ipMode": "VIP"}, {"ip": six}]), [true, true]),
        (json!([{"ip": four, "ipMode": "Proxy"}, {"ip": six, "ipMode": "VIP"}]), [false, true]),
        (json!([{"hostname": "balancer.example", "ip": four}]), [true, false]),
        (json!([{"hostname": "balancer.example"}]), [false, false]),
    ] {
        put(&mut rig, [with_ingress(ingress.clone())]);
        assert_eq!(served(&rig), wanted, "{ingress}");
        for (address, is_served) in [four, six].into_iter().zip(wanted) {
            let answer = who(&rig, From::External, SocketAddr::new(address.parse().unwrap(), 80));
            assert_eq!(answer == "1 2", is_served, "{ingress} {address} {answer}");
        }
        // The rest of the Service is as it was.
        for (family, to) in [(Family::Ipv4, To::ClusterIp), (Family::Ipv6, To::NodePort)] {
            assert_eq!(who(&rig, From::External, target(&rig, 1, to, family)), "1 2", "{ingress} {to:?}");
        }
    }
}

fn run_on_node(rig: &GoldenRig, commands: &str) -> String {
    rig.network.node.run(|| Ok(run("bash", &["-ec", commands]))).unwrap()
}

/// Nobody has an IPv4 address, and IPv6 goes every way all the same.
fn ipv6_alone() {
    let mut rig = rig();
    let hosts = rig.network.backends.iter().chain([&rig.network.client]).map(|host| &host.namespace);
    for namespace in hosts.chain([&rig.network.node]) {
        let flush = || Ok(run("ip", &["-4", "address", "flush", "scope", "global"]));
        namespace.run(flush).unwrap();
    }
    let mut service = balanced(1, &json!({"ipFamilies": ["IPv6"], "ipFamilyPolicy": "SingleStack"}));
    service["spec"]["clusterIPs"] = json!([service["spec"]["clusterIPs"][1]]);
    service["spec"]["clusterIP"] = service["spec"]["clusterIPs"][0].clone();
    let slice = super::objects::slice(&rig, (1, "a"), Family::Ipv6, "1:local 2");
    put(&mut rig, [service, slice]);
    for (from, to) in EVERYBODY.into_iter().flat_map(|from| ALL_WAYS.map(|to| (from, to))) {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let answer = rig.ask(from, protocol, target(&rig, 1, to, Family::Ipv6));
            assert!(answer.is_ok(), "{protocol} {from:?} {to:?}: {answer:?}");
        }
    }
}

/// The families have their own endpoints, and a Service of one family is none in the other.
fn dual_stack() {
    let mut rig = rig();
    let [four, six] = FAMILIES.map(|family| {
        let words = if family == Family::Ipv4 { "1:local" } else { "2" };
        super::objects::slice(&rig, (1, "a"), family, words)
    });
    put(&mut rig, [balanced(1, &json!({})), four.clone(), six]);
    for (from, to) in EVERYBODY.into_iter().flat_map(|from| ALL_WAYS.map(|to| (from, to))) {
        let answers = FAMILIES.map(|family| who(&rig, from, target(&rig, 1, to, family)));
        assert_eq!(answers, ["1", "2"], "{from:?} {to:?}");
    }
    let mut single = balanced(1, &json!({"ipFamilies": ["IPv4"]}));
    single["spec"]["clusterIPs"] = json!([single["spec"]["clusterIP"]]);
    put(&mut rig, [single]);
    assert_eq!(who(&rig, From::External, target(&rig, 1, To::LoadBalancer, Family::Ipv4)), "1");
    for to in [To::ClusterIp, To::LoadBalancer, To::NodePort] {
        assert_ne!(who(&rig, From::External, target(&rig, 1, to, Family::Ipv6)), "2", "{to:?}");
    }
}

/// Whether or not a program of the node has that port.
fn undefined_ports() {
    let mut rig = rig();
    let news = slices(&rig, 1, "1:local 2");
    put(&mut rig, [vec![balanced(1, &json!({}))], news].concat());
    for (from, family) in EVERYBODY.into_iter().flat_map(|from| FAMILIES.map(|family| (from, family))) {
        for to in [To::ClusterIp, To::LoadBalancer, To::ExternalIp] {
            let vip = target(&rig, 1, to, family).ip();
            assert_eq!(who(&rig, from, (vip, 81).into()), "refused", "{from:?} {vip}");
        }
    }
    for family in FAMILIES {
        let vip = target(&rig, 1, To::ClusterIp, family).ip();
        let refused = rig.ask(From::External, Protocol::Tcp, (vip, 81).into()).unwrap_err().kind();
        assert_eq!(refused, std::io::ErrorKind::ConnectionRefused, "{vip}");
    }
}

/// As where a load balancer hands packets to a node by the node's address.
fn own_external_ip() {
    let mut rig = rig();
    let own: Vec<IpAddr> = FAMILIES.map(|family| rig.own_address(From::Node, family)).into();
    let news = slices(&rig, 1, "1:local 2");
    put(&mut rig, [vec![balanced(1, &json!({"externalIPs": own}))], news].concat());
    for address in &own {
        for from in EVERYBODY {
            assert_eq!(who(&rig, from, (*address, 80).into()), "1 2", "{address} {from:?}");
        }
    }
    // It was the node's before, and stays so.
    put(&mut rig, [balanced(1, &json!({"externalIPs": []}))]);
    let addresses = run_on_node(&rig, "ip address show dev client");
    for address in own {
        assert!(addresses.contains(&format!("{address}/")), "{addresses}");
        assert_eq!(who(&rig, From::External, (address, 80).into()), "refused");
    }
}

/// Ports are added, removed, renamed and renumbered while the Service stays.
fn changed_ports() {
    let mut rig = rig();
    let ports = |ports: &[(&str, u16)]| {
        let port = |(name, port): &(&str, u16)| json!({"name": name, "port": port, "protocol": "UDP"});
        balanced(1, &json!({"ports": ports.iter().map(port).collect::<Vec<_>>()}))
    };
    let news = slices(&rig, 1, "1:local 2");
    put(&mut rig, news);
    for (named, served) in [
        (&[("udp", 80)][..], &[80][..]),
        (&[("udp", 80), ("other", 81)], &[80]),
        (&[("udp", 81)], &[81]),
        (&[("udp", 80)], &[80]),
        (&[("other", 80)], &[]),
    ] {
        put(&mut rig, [ports(named)]);
        let vip = target(&rig, 1, To::ClusterIp, Family::Ipv4).ip();
        let found: BTreeSet<_> =
            [80, 81].into_iter().filter(|port| who(&rig, From::Pod, (vip, *port).into()) == "1 2").collect();
        assert_eq!(found, served.iter().copied().collect(), "{named:?}");
    }
}
