//! Whatever happens between the daemon and the API server, nothing that should stand is ever withdrawn from the kernel,
//! and in the end the kernel equals the truth.

use super::rig::{IPVS, Rig};
use super::table::{table, ways};
use super::watcher::Watcher;
use crate::api_server::{Answer, ApiServer, Fault, Kick, Streams, Verb};
use crate::lab::{run, trial};
use crate::objects::{node, service, slice, with};
use crate::program::add_addresses;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::time::Duration;

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("cluster::an_api_server_that_was_away_withdraws_nothing_and_all_that_changed_is_made_up", away),
        trial("cluster::whatever_happens_to_a_watch_withdraws_nothing_from_the_kernel", kicks),
        trial("cluster::whatever_is_answered_withdraws_nothing_from_the_kernel", answers),
        trial("cluster::an_api_server_that_hangs_withdraws_nothing", hangs),
        trial("cluster::the_rest_of_a_list_that_expired_withdraws_nothing", expired),
        trial("cluster::an_object_that_cannot_be_costs_only_itself", bad_objects),
        trial("cluster::killed_and_started_without_an_api_server_it_withdraws_nothing", killed),
        trial("cluster::a_service_at_the_api_servers_address_and_port_does_not_take_it", || greedy(&[IPVS])),
        trial("cluster::a_service_at_the_api_servers_address_and_port_does_not_take_it_by_rules", || greedy(&[])),
    ]
}

const SERVICES: usize = 6;

/// Services `stays-N` that no test changes, and `turns-N` that tests do.
fn objects() -> Vec<Value> {
    let pairs = (0..SERVICES).flat_map(|last| {
        let name = format!("{}-{last}", if last % 2 == 0 { "stays" } else { "turns" });
        [service(&name, last), slice(&name, &[1, 2])]
    });
    [node("a")].into_iter().chain(pairs).collect()
}

/// A settled cluster, and a watcher of what stays.
fn watched() -> (Rig, Watcher) {
    let rig = Rig::settled(&[IPVS], objects());
    // A list is followed by a watch, and only that one can be kicked.
    rig.server.wait_for_watches(3);
    let watcher = Watcher::start(rig.ways("stays"));
    (rig, watcher)
}

/// Changes something of everything that turns.
fn change(rig: &Rig, round: usize) {
    let last = 100 + round;
    rig.server.put(service(&format!("new-{round}"), last));
    rig.server.put(slice(&format!("new-{round}"), &[7]));
    rig.server.put(slice("turns-1", &[1, 20 + u8::try_from(round).unwrap()]));
    rig.server.put(with(service("turns-3", 3), "/spec/ports/0/port", json!(1000 + round)));
    rig.server.delete("Service", "default", &format!("new-{}", round.wrapping_sub(1)));
}

/// Ends the watch, and checks by the daemon's own word too that only so many virtual servers were removed.
fn finish(rig: &mut Rig, watcher: Watcher, removed: usize) {
    rig.until_true();
    watcher.finish();
    assert_eq!(rig.operations("remove virtual server"), f64::from(u32::try_from(removed).unwrap()));
}

fn away() {
    let (mut rig, watcher) = watched();
    rig.server.stop();
    rig.until_said(&["Services cannot be read", "cannot be reached"]);
    change(&rig, 0);
    rig.server.delete("Service", "default", "turns-5");
    rig.server.compact();
    assert_ne!(table(), rig.truth());
    rig.server.resume();
    // The former port of turns-3, and turns-5.
    finish(&mut rig, watcher, 2);
}

fn kicks() {
    let (mut rig, watcher) = watched();
    // Each failure doubles the wait for the next try, so `tests/api` has the others.
    let kicks = [Kick::Error(410), Kick::CutWithinLine, Kick::Cut, Kick::Garbage];
    for (round, kick) in kicks.into_iter().enumerate() {
        rig.server.kick(kick);
        change(&rig, round);
        rig.until_true();
        rig.server.wait_for_watches(3);
    }
    // Each round removes a former port of turns-3, and all but the first a Service.
    finish(&mut rig, watcher, 2 * kicks.len() - 1);
}

fn answers() {
    let (mut rig, watcher) = watched();
    let answers =
        [Answer::Status(410, None), Answer::Status(429, Some(1)), Answer::Status(503, None), Answer::CutAfter(150)];
    for (round, answer) in answers.into_iter().enumerate() {
        // To the watch that is taken up again, and to a list that may be needed then.
        let resource = if round % 4 < 2 { "services" } else { "endpointslices" };
        rig.server.fault(Fault::once(answer).verb(Verb::Watch).resource(resource));
        rig.server.fault(Fault::once(answer).verb(Verb::List).resource(resource));
        rig.server.kick(if round % 2 == 0 { Kick::Cut } else { Kick::Error(410) });
        change(&rig, round);
        rig.until_true();
        rig.server.heal();
        rig.server.wait_for_watches(3);
    }
    finish(&mut rig, watcher, 2 * answers.len() - 1);
}

/// The daemon waits for 30 s, which is too long for a test: here the connections are cut after a second of silence.
fn hangs() {
    let (mut rig, watcher) = watched();
    rig.server.fault(Fault::once(Answer::Hang).times(3));
    rig.server.kick(Kick::Cut);
    rig.until("all three watches hang", |rig| rig.server.is_healed());
    change(&rig, 0);
    std::thread::sleep(Duration::from_secs(1));
    assert_ne!(table(), rig.truth());
    rig.server.stop();
    rig.server.resume();
    finish(&mut rig, watcher, 1);
}

fn expired() {
    let mut rig = Rig::new(&[IPVS]);
    rig.server.set_streams(Streams::Refused);
    // More than a page of them.
    let many = (0..500).map(|last| service(&format!("empty-{last}"), 1000 + last));
    objects().into_iter().chain(many).for_each(|object| rig.server.put(object));
    rig.start();
    rig.until_true();
    rig.server.wait_for_watches(3);
    let watcher = Watcher::start(rig.ways("stays"));
    rig.server.fault(Fault { only_next_pages: true, ..Fault::once(Answer::Status(410, None)).times(2) });
    rig.server.kick(Kick::Error(410));
    rig.until("the fault was met", |rig| rig.server.is_healed());
    change(&rig, 0);
    finish(&mut rig, watcher, 1);
}

/// In a list and in a watch; each is counted, and named in the log.
fn bad_objects() {
    let bad = |name: &str, last| with(service(name, last), "/spec/ports/0/port", json!("eighty"));
    let mut rig = Rig::new(&[IPVS]);
    objects().into_iter().for_each(|object| rig.server.put(object));
    rig.server.put(bad("in-the-list", 50));
    rig.start();
    let stays = rig.ways("stays");
    rig.until("the others are programmed", |rig| stays.is_subset(&ways(&table())) && rig.is_rejected(1.0));
    rig.until_said(&["Service default/in-the-list", "spec.ports[0].port", "eighty"]);
    let watcher = Watcher::start([rig.ways("stays"), rig.ways("turns-1")].into_iter().flatten().collect());

    rig.server.put(bad("turns-1", 1));
    rig.server.put(with(slice("turns-3", &[1]), "/endpoints", json!("all")));
    rig.server.put(slice("turns-5", &[9]));
    rig.until("both are counted", |rig| rig.is_rejected(3.0));
    rig.until_said(&["Service default/turns-1", "eighty"]);
    rig.until_said(&["EndpointSlice default/turns-3-1", "endpoints"]);
    let good = rig.ways("turns-5");
    rig.until("the good one is programmed", |_| good.is_subset(&ways(&table())));

    rig.server.delete("Service", "default", "in-the-list");
    rig.server.put(service("turns-1", 1));
    rig.server.put(slice("turns-3", &[1]));
    rig.until("nothing is wrong any more", |rig| rig.is_rejected(0.0));
    assert_eq!(rig.metric("ipvsd_objects_rejected_total"), Some(3.0));
    finish(&mut rig, watcher, 0);
}

fn killed() {
    let (mut rig, watcher) = watched();
    change(&rig, 0);
    rig.until_true();
    rig.crash();
    change(&rig, 1);
    rig.server.stop();
    let before = table();
    rig.start();
    rig.until_said(&["Services cannot be read", "cannot be reached"]);
    assert_eq!(table(), before, "without the cluster's word nothing changes");
    rig.server.resume();
    finish(&mut rig, watcher, 2);
}

impl Rig {
    /// Whether so many objects are rejected now.
    fn is_rejected(&self, count: f64) -> bool {
        self.metric("ipvsd_objects_rejected") == Some(count)
    }
}

/// The address is this node's own: what the node sends there would meet a virtual server, or rules, on its way.
fn greedy(changes: &[(&str, &str)]) {
    add_addresses(&["192.0.2.1/24", "fd00:2::1/64"]);
    let server = ApiServer::start_at(([192, 0, 2, 1], 6443).into());
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = server.kubeconfig(directory.path());
    let mut rig = Rig::on(server, directory, (&kubeconfig, changes));
    let service_at = |name, last, address: &str| {
        let external = with(service(name, last), "/spec/externalIPs", json!([address]));
        with(external, "/spec/ports/0/port", json!(6443))
    };
    let greedy = service_at("greedy", 1, "192.0.2.1");
    [node("a"), greedy, slice("greedy", &[1])].into_iter().for_each(|object| rig.server.put(object));
    rig.start();
    rig.until_said(&["problem", "default/greedy", "spec.externalIPs[0]", "tcp 192.0.2.1:6443", "the API server's"]);
    // Until then a connection of before goes on.
    rig.crash();
    rig.start();
    rig.server.put(service_at("late", 2, "203.0.113.9"));
    let is_routed = |_: &Rig| run("ip", &["route", "show", "table", "local"]).contains("203.0.113.9");
    rig.until("what comes after a restart is heard of", is_routed);
}
