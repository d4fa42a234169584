//! Connections through changes: endpoints that go, and a daemon that crashes and comes back.

use crate::lab::{run, trial};
use crate::program as many;
use crate::traffic_rig::{Rig, VIPS, request, requests, service, slices};
use ipvsd::demo::client::{Conversation, Request};
use ipvsd::demo::network::Host;
use ipvsd::model::Protocol;
use libtest_mimic::Trial;
use serde_json::json;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("traffic_changes::a_removed_endpoint_keeps_its_connections", a_removed_endpoint_keeps_its_connections),
        trial("traffic_changes::draining_ends_at_its_deadline", draining_ends_at_its_deadline),
        trial(
            "traffic_changes::a_returning_endpoint_gets_connections_again",
            a_returning_endpoint_gets_connections_again,
        ),
        trial("traffic_changes::a_udp_flow_leaves_a_removed_endpoint_at_once", a_udp_flow_leaves_a_removed_endpoint),
        trial("traffic_changes::connections_and_counters_survive_a_crash", connections_and_counters_survive_a_crash),
        trial(
            "traffic_changes::connections_survive_a_kill_in_the_middle_of_programming",
            connections_survive_a_kill_in_the_middle_of_programming,
        ),
        trial("traffic_changes::traffic_goes_on_after_a_stop", traffic_goes_on_after_a_stop),
        trial("traffic_changes::draining_goes_on_after_a_crash", draining_goes_on_after_a_crash),
    ]
}

fn rig(flags: &[&'static str]) -> Rig {
    let mut rig = Rig::new(flags, |hosts| [vec![service("web", json!({}))], slices("web", hosts)].concat());
    rig.wait_for(&requests(&VIPS));
    rig
}

fn say(conversation: &Mutex<Conversation>) -> std::io::Result<String> {
    conversation.lock().unwrap().say("still here")
}

fn others(rig: &Rig, without: usize) -> Vec<&Host> {
    rig.network.backends.iter().enumerate().filter(|(index, _)| *index != without).map(|(_, host)| host).collect()
}

/// Takes an endpoint out, and waits until it gets no new connections by any protocol and family.
fn remove_endpoint(rig: &mut Rig, index: usize) {
    rig.put_slices("web", others(rig, index));
    let gone = |rig: &Rig| requests(&VIPS).into_iter().all(|request| rig.spread(request, 3)[index] == 0);
    rig.wait_until("the removed endpoint gets no new connections", gone);
}

fn a_removed_endpoint_keeps_its_connections() {
    let mut rig = rig(&[]);
    let conversations = VIPS.map(|vip| rig.converse(vip));
    for (conversation, index) in &conversations {
        rig.put_slices("web", &rig.network.backends);
        remove_endpoint(&mut rig, *index);
        for request in requests(&VIPS) {
            let mut expected = [6, 6, 6];
            expected[*index] = 0;
            assert_eq!(rig.spread(request, 12), expected, "{request:?}");
        }
        assert_eq!(say(conversation).unwrap(), rig.network.backends[*index].name);
    }
}

fn draining_ends_at_its_deadline() {
    let mut rig = rig(&["--drain-timeout", "3s"]);
    let (conversation, index) = rig.converse(VIPS[0]);
    let start = Instant::now();
    remove_endpoint(&mut rig, index);
    if start.elapsed() < Duration::from_secs(2) {
        assert_eq!(say(&conversation).unwrap(), rig.network.backends[index].name);
    }
    let address = rig.network.backends[index].addresses.ipv4.to_string();
    rig.wait_until("the destination is removed", |rig| !rig.rules().contains(&address));
    assert!(start.elapsed() >= Duration::from_secs(3), "removed after {:?}", start.elapsed());
    rig.wait_until("the connection is cut", |_| say(&conversation).is_err());
}

fn a_returning_endpoint_gets_connections_again() {
    let mut rig = rig(&[]);
    let (conversation, index) = rig.converse(VIPS[0]);
    remove_endpoint(&mut rig, index);
    rig.put_slices("web", &rig.network.backends);
    let http = request(Protocol::Tcp, VIPS[0], 80);
    rig.wait_until("the endpoint is back", |rig| rig.spread(http, 12) == [4, 4, 4]);
    assert_eq!(say(&conversation).unwrap(), rig.network.backends[index].name);
}

fn a_udp_flow_leaves_a_removed_endpoint() {
    let mut rig = rig(&[]);
    let client = rig.network.client.addresses;
    for (vip, source) in [(VIPS[0], IpAddr::from(client.ipv4)), (VIPS[1], client.ipv6.into())] {
        let flow = Request { source: Some((source, 40_000).into()), ..request(Protocol::Udp, vip, 80) };
        let name = rig.send(flow).unwrap().name;
        assert_eq!(rig.send(flow).unwrap().name, name, "one flow, one backend");
        let index = rig.network.backends.iter().position(|host| host.name == name).unwrap();
        rig.put_slices("web", others(&rig, index));
        rig.wait_until("the flow has moved", |rig| rig.send(flow).is_ok_and(|answer| answer.name != name));
        rig.put_slices("web", &rig.network.backends);
    }
}

/// Connections that the virtual server of TCP port 80 has had. The kernel adds up what its processors counted every
/// two seconds.
fn connections(rig: &Rig) -> u64 {
    let table = rig.on_node(|| run("ipvsadm", &["-L", "-n", "--stats", "--exact"]));
    let line =
        table.lines().find(|line| line.starts_with("TCP") && line.contains(&format!("{}:80 ", VIPS[0]))).unwrap();
    line.split_whitespace().nth(2).unwrap().parse().unwrap()
}

/// Starts the daemon after a crash, and waits until it has done all there is to do: also a Service that is new.
fn come_back(rig: &mut Rig) {
    let new = ["10.96.0.99", "fd00:96::99"];
    rig.put(&service("new", json!({ "clusterIP": new[0], "clusterIPs": new })));
    rig.put_slices("new", &rig.network.backends);
    rig.start_daemon();
    rig.wait_for(&requests(&new));
}

fn connections_and_counters_survive_a_crash() {
    let mut rig = rig(&[]);
    let conversations = VIPS.map(|vip| rig.converse(vip));
    let http = request(Protocol::Tcp, VIPS[0], 80);
    // One has been made while waiting.
    rig.spread(http, 11);
    rig.wait_until("12 connections are counted", |rig| connections(rig) == 12);
    let rules = rig.rules();
    rig.crash_daemon();
    assert_eq!(rig.rules(), rules);
    assert_eq!(rig.spread(http, 3), [1, 1, 1], "the kernel balances alone");
    come_back(&mut rig);
    for (conversation, index) in &conversations {
        assert_eq!(say(conversation).unwrap(), rig.network.backends[*index].name);
    }
    rig.wait_until("15 connections are counted", |rig| connections(rig) == 15);
    assert!(rules.lines().all(|rule| rig.rules().contains(rule)), "{rules}\nbecame\n{}", rig.rules());
}

fn connections_survive_a_kill_in_the_middle_of_programming() {
    const FOREIGN: &str = "-A -t 9.9.9.9:99 -s lc";
    let mut rig = rig(&[]);
    let conversations = VIPS.map(|vip| rig.converse(vip));
    rig.on_node(|| run("ipvsadm", &FOREIGN.split(' ').collect::<Vec<_>>()));
    let before = rig.rules();
    rig.crash_daemon();
    rig.put_text("many.yaml", &(0..2000).map(|number| many::service(number, &[1, 2])).collect::<String>());
    // Some 10 sends read what is there; then come 8 for virtual servers, 16 for destinations, 8 for routes.
    rig.start_daemon_killed_at(24);
    let half = rig.rules().lines().count() - before.lines().count();
    assert!((100..6000).contains(&half), "{half} of 6,000 rules were made when it was killed");
    for (conversation, index) in &conversations {
        assert_eq!(say(conversation).unwrap(), rig.network.backends[*index].name);
    }
    rig.start_daemon();
    rig.wait_until("all is programmed", |rig| rig.rules().lines().count() == before.lines().count() + 6000);
    let after = rig.rules();
    assert!(before.lines().all(|rule| after.contains(rule)), "of these a rule is gone:\n{before}");
    for (conversation, index) in &conversations {
        assert_eq!(say(conversation).unwrap(), rig.network.backends[*index].name);
    }
}

fn traffic_goes_on_after_a_stop() {
    let mut rig = rig(&[]);
    let (conversation, index) = rig.converse(VIPS[1]);
    let rules = rig.rules();
    rig.stop_daemon();
    assert_eq!(rig.rules(), rules);
    for request in requests(&VIPS) {
        assert_eq!(rig.spread(request, 12), [4, 4, 4], "{request:?}");
    }
    assert_eq!(say(&conversation).unwrap(), rig.network.backends[index].name);
}

fn draining_goes_on_after_a_crash() {
    let mut rig = rig(&["--drain-timeout", "4s"]);
    let (conversation, index) = rig.converse(VIPS[0]);
    remove_endpoint(&mut rig, index);
    rig.crash_daemon();
    come_back(&mut rig);
    assert_eq!(say(&conversation).unwrap(), rig.network.backends[index].name);
    let rule = format!("-t {}:90 -r {}", VIPS[0], rig.network.backends[index].addresses.ipv4);
    assert!(rig.rules().contains(&rule));
    rig.wait_until("the destination is removed", |rig| !rig.rules().contains(&rule));
}
