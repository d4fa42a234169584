//! How packets are masqueraded: by which bit, by which ports, and how pods are told from others.

use super::objects::{balanced, put, rig, slice, slices, target};
use crate::golden_rig::{FAMILIES, From, GoldenRig, To, by_cluster_cidr};
use crate::lab::trial;
use ipvsd::desired::{DetectLocal, NetfilterSettings};
use ipvsd::model::netfilter::MasqueradeBit;
use ipvsd::model::{Family, Protocol};
use ipvsd::state::{Change, NodeObject};
use libtest_mimic::Trial;
use serde_json::json;
use std::net::UdpSocket;
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("features::any_bit_may_say_who_is_masqueraded", any_bit),
        trial("features::masqueraded_connections_get_ports_by_chance", ports_by_chance),
        trial("features::pods_are_known_by_the_networks_of_their_node", networks_of_the_node),
    ]
}

fn serve(rig: &mut GoldenRig) {
    let news = slices(rig, 1, "1:local 2");
    put(rig, [vec![balanced(1, &json!({}))], news].concat());
}

fn is_masqueraded(rig: &GoldenRig, from: From, to: To) -> [bool; 2] {
    FAMILIES.map(|family| {
        let answer = rig.ask(from, Protocol::Udp, target(rig, 1, to, family)).unwrap();
        answer.source != rig.own_address(from, family)
    })
}

fn any_bit() {
    for bit in [0, 14, 31] {
        let masquerade_bit = MasqueradeBit::new(bit).unwrap();
        let detect_local = by_cluster_cidr();
        let mut rig =
            GoldenRig::new(NetfilterSettings { masquerade_bit, detect_local, ..NetfilterSettings::default() });
        serve(&mut rig);
        for (from, to, wanted) in [
            (From::External, To::ClusterIp, true),
            (From::External, To::NodePort, true),
            (From::Pod, To::LoadBalancer, true),
            (From::Pod, To::ClusterIp, false),
        ] {
            assert_eq!(is_masqueraded(&rig, from, to), [wanted; 2], "{bit} {from:?} {to:?}");
        }
    }
}

/// The client's own port would be free each time, and is what the kernel takes unless it is told to choose by chance.
fn ports_by_chance() {
    let mut rig = rig();
    let mut slice = slice(&rig, (1, "a"), Family::Ipv4, "3");
    slice["ports"][1]["port"] = 9000.into();
    put(&mut rig, [balanced(1, &json!({})), slice]);
    let server = rig.network.backends[2].namespace.run(|| Ok(UdpSocket::bind("0.0.0.0:9000")?)).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let vip = target(&rig, 1, To::ClusterIp, Family::Ipv4);
    let seen_port = |own: u16| {
        let send = || Ok(UdpSocket::bind(("0.0.0.0", own))?.send_to(b"hello", vip)?);
        rig.namespace(From::External).run(send).unwrap();
        server.recv_from(&mut [0; 10]).unwrap().1.port()
    };
    let kept = (40_000..40_010).filter(|own| seen_port(*own) == *own).count();
    assert!(kept < 5, "{kept} of 10 connections kept their port");
}

/// `detectLocalMode: NodeCIDR`: before the Node has said them, pods are not known.
fn networks_of_the_node() {
    let mut rig =
        GoldenRig::new(NetfilterSettings { detect_local: DetectLocal::NodeCidr, ..NetfilterSettings::default() });
    serve(&mut rig);
    assert_eq!(is_masqueraded(&rig, From::External, To::ClusterIp), [false; 2]);
    let pod_cidrs = ["10.244.3.0/24", "fd00:244:3::/64"].map(|network| network.parse().unwrap()).into();
    rig.program([Change::NodeObject(NodeObject { pod_cidrs, ..NodeObject::default() })]);
    for (from, wanted) in [(From::Pod, false), (From::External, true), (From::Node, true)] {
        assert_eq!(is_masqueraded(&rig, from, To::ClusterIp), [wanted; 2], "{from:?}");
    }
}
