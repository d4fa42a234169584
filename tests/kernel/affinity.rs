//! Session affinity as real packets: one client has one endpoint, by whichever way of a port it comes.

use crate::lab::{run, trial};
use crate::traffic_rig::{Rig, VIPS, request, service, slices};
use ipvsd::demo::client::Request;
use ipvsd::model::Protocol;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("affinity::one_client_has_one_endpoint_by_all_ways", one_client_has_one_endpoint_by_all_ways),
        trial("affinity::it_is_shared_whatever_was_added_when", it_is_shared_whatever_was_added_when),
    ]
}

const NODE_PORT: u16 = 30_080;
const EXTERNAL: [&str; 2] = ["198.51.100.100", "2001:db8::100"];
const LOAD_BALANCER: [&str; 2] = ["203.0.113.20", "2001:db8::20"];
/// The node's.
const NODE: [&str; 2] = ["192.0.2.1", "fd00:2::1"];

/// With each kind of address, and these of load balancers.
fn web(load_balancer: &[&str]) -> Value {
    let ports = json!([{ "name": "http", "port": 80, "nodePort": NODE_PORT }]);
    let spec =
        json!({ "type": "LoadBalancer", "externalIPs": EXTERNAL, "ports": ports, "sessionAffinity": "ClientIP" });
    let mut service = service("web", spec);
    service["status"]["loadBalancer"]["ingress"] =
        load_balancer.iter().map(|address| json!({ "ip": address })).collect();
    service
}

/// Every way to the port in the family of a client.
fn ways(load_balancer: &[&str]) -> Vec<Request> {
    let at_port = [&VIPS[..], &EXTERNAL, load_balancer].concat().into_iter().map(|address| (address, 80));
    let all = at_port.chain(NODE.map(|address| (address, NODE_PORT)));
    all.map(|(address, port)| request(Protocol::Tcp, address, port)).collect()
}

/// Twenty clients of each family that were never seen before.
fn clients(rig: &Rig, round: u8) -> Vec<IpAddr> {
    let numbers = (0..20).map(|number| 10 + round * 20 + number);
    let each = |host: u8| {
        [Ipv4Addr::new(192, 0, 2, host).into(), Ipv6Addr::from([0xfd00, 2, 0, 0, 0, 0, 1, host.into()]).into()]
    };
    let clients: Vec<IpAddr> = numbers.flat_map(each).collect();
    rig.in_client(|| {
        for client in &clients {
            let prefix = if client.is_ipv4() { 24 } else { 64 };
            let nodad = if client.is_ipv4() { &[][..] } else { &["nodad"] };
            run("ip", &[&["address", "add", &format!("{client}/{prefix}"), "dev", "eth0"], nodad].concat());
        }
    });
    clients
}

/// Each client comes by another way first.
fn assert_shared(rig: &Rig, round: u8, load_balancer: &[&str]) {
    let ways = ways(load_balancer);
    let mut chosen = BTreeSet::new();
    for (index, client) in clients(rig, round).into_iter().enumerate() {
        let mut own: Vec<_> = ways.iter().filter(|way| way.target.is_ipv4() == client.is_ipv4()).collect();
        let count = own.len();
        own.rotate_left(index % count);
        let ask = |way: &Request| rig.send(Request { source: Some((client, 0).into()), ..*way }).unwrap().name;
        let names: BTreeSet<_> = own.into_iter().map(ask).collect();
        assert_eq!(names.len(), 1, "{client} goes to {names:?}");
        chosen.extend(names);
    }
    assert!(chosen.len() > 1, "all clients go to {chosen:?}");
}

/// Where affinity is shared.
fn rig(flags: &[&'static str], load_balancer: &[&str]) -> Rig {
    let (_, own) = tempfile::NamedTempFile::new().unwrap().keep().unwrap();
    std::fs::write(&own, "sharedAffinity: true").unwrap();
    // For the rest of the test program, as flags are.
    let own: &'static str = Box::leak(own.to_str().unwrap().to_owned().into_boxed_str());
    let mut rig = Rig::new(&[flags, &["--ipvsd-config", own]].concat(), |hosts| {
        [vec![web(load_balancer)], slices("web", hosts)].concat()
    });
    rig.wait_for(&ways(load_balancer));
    rig
}

fn one_client_has_one_endpoint_by_all_ways() {
    let rig = rig(&[], &LOAD_BALANCER);
    assert_shared(&rig, 0, &LOAD_BALANCER);
}

fn it_is_shared_whatever_was_added_when() {
    let mut rig = rig(&["--drain-timeout", "0"], &[]);
    let hosts = rig.network.backends.iter().map(|host| host.addresses).collect::<Vec<_>>();
    let has_destinations = |rig: &Rig, vip: &str, wanted: &[usize]| {
        let rules = rig.rules();
        let has = |index: &usize| rules.contains(&format!("-a -t {vip}:80 -r {}:8080 -m -w 1", hosts[*index].ipv4));
        (0..hosts.len()).all(|index| has(&index) == wanted.contains(&index))
    };
    // The first comes last at the old addresses, and first at the new ones.
    rig.put_slices("web", &rig.network.backends[1..]);
    rig.wait_until("one is gone", |rig| has_destinations(rig, VIPS[0], &[1, 2]));
    rig.put_slices("web", &rig.network.backends);
    rig.wait_until("it is back", |rig| has_destinations(rig, VIPS[0], &[0, 1, 2]));
    rig.put(&web(&LOAD_BALANCER));
    rig.wait_until("there are new addresses", |rig| has_destinations(rig, LOAD_BALANCER[0], &[0, 1, 2]));
    rig.wait_for(&ways(&LOAD_BALANCER));
    assert_shared(&rig, 1, &LOAD_BALANCER);
    rig.crash_daemon();
    rig.start_daemon();
    rig.put_slices("web", &rig.network.backends[..2]);
    rig.wait_until("another is gone", |rig| has_destinations(rig, LOAD_BALANCER[0], &[0, 1]));
    assert_shared(&rig, 2, &LOAD_BALANCER);
}
