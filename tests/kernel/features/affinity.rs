//! Session affinity: how many clients it is kept for, when it begins, and when it ends.

use super::objects::{balanced, put, rig, slices, target};
use crate::golden_rig::{FAMILIES, From, GoldenRig, To};
use crate::lab::{run, trial};
use crate::program::eventually;
use ipvsd::demo::client::Request;
use ipvsd::model::{Family, Protocol};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("features::affinity_is_kept_for_more_clients_than_a_list_of_iptables_holds", many_clients),
        trial("features::affinity_is_switched_on_and_off_while_a_service_is_used", switched),
        trial("features::affinity_ends_with_its_timeout_unless_connections_that_are_over_linger", ends),
    ]
}

fn serve(rig: &mut GoldenRig, spec: &Value) {
    let news = slices(rig, 1, "1:local 2");
    put(rig, [vec![balanced(1, spec)], news].concat());
}

fn with_affinity(seconds: u32) -> Value {
    json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}})
}

/// `xt_recent`, which kube-proxy's iptables mode uses, forgets the oldest of more than a hundred (`ip_list_tot`).
fn many_clients() {
    let mut rig = rig();
    serve(&mut rig, &with_affinity(600));
    let clients: Vec<IpAddr> = (100..220).map(|last| Ipv4Addr::new(192, 0, 2, last).into()).collect();
    let batch: String = clients.iter().map(|ip| format!("address add {ip}/24 dev eth0\n")).collect();
    let script = format!("ip -batch - <<end\n{batch}end");
    let vip = target(&rig, 1, To::ClusterIp, Family::Ipv4);
    let ask = |client: &IpAddr| {
        let source = Some(SocketAddr::new(*client, 0));
        Request { source, ..Request::new(Protocol::Udp, vip) }.send().unwrap().name
    };
    let both_times = || {
        run("bash", &["-ec", &script]);
        Ok([(); 2].map(|()| clients.iter().map(ask).collect::<Vec<_>>()))
    };
    let [first, second] = rig.namespace(From::External).run(both_times).unwrap();
    assert_eq!(first, second);
    assert_eq!(first.into_iter().collect::<BTreeSet<_>>().len(), 2, "they are spread");
}

fn switched() {
    let mut rig = rig();
    let off = json!({"sessionAffinity": "None"});
    for (spec, endpoints) in [(&off, 2), (&with_affinity(600), 1), (&off, 2), (&with_affinity(300), 1)] {
        serve(&mut rig, spec);
        for (family, to) in FAMILIES.into_iter().flat_map(|f| [To::ClusterIp, To::NodePort].map(|to| (f, to))) {
            for protocol in [Protocol::Tcp, Protocol::Sctp] {
                let ask = |_| rig.ask(From::External, protocol, target(&rig, 1, to, family)).unwrap().name;
                let names: BTreeSet<_> = (0..4).map(ask).collect();
                assert_eq!(names.len(), endpoints, "{spec} {protocol} {family} {to:?}");
            }
        }
    }
}

/// A template, which is IPVS's memory of a client, outlives its timeout while a connection that it made is remembered,
/// and is looked at again a minute later (`ip_vs_conn_expire`). A TCP connection is remembered for two minutes after its
/// end, which nothing shortens. Then the client gets another
/// endpoint, as they have their turns.
fn ends() {
    let mut rig = rig();
    let service = balanced(1, &with_affinity(2));
    let news = slices(&rig, 1, "1:local 2");
    put(&mut rig, [vec![service], news].concat());
    rig.network.node.run(|| Ok(run("ipvsadm", &["--set", "0", "0", "1"]))).unwrap();
    let vip = target(&rig, 1, To::ClusterIp, Family::Ipv4);
    let ask = |protocol| rig.ask(From::External, protocol, vip).unwrap().name;

    let first = ask(Protocol::Udp);
    assert_eq!(ask(Protocol::Udp), first);
    eventually("the template of UDP ends", || template(&rig, "UDP").is_none());
    assert_ne!(ask(Protocol::Udp), first, "round robin goes on");

    let first = ask(Protocol::Tcp);
    eventually("the template of TCP begins another minute", || template(&rig, "TCP").is_some_and(|left| left > 30));
    assert_eq!(ask(Protocol::Tcp), first);
}

/// For how many seconds IPVS will remember the client, by ipvsadm's word.
fn template(rig: &GoldenRig, protocol: &str) -> Option<u32> {
    let connections = rig.network.node.run(|| Ok(run("ipvsadm", &["-Lnc"]))).unwrap();
    let mut lines = connections.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line =
        lines.find(|words| words.first() == Some(&protocol) && words.get(3).is_some_and(|ip| ip.ends_with(":0")))?;
    let (minutes, seconds) = line[1].split_once(':').unwrap();
    Some(minutes.parse::<u32>().unwrap() * 60 + seconds.parse::<u32>().unwrap())
}
