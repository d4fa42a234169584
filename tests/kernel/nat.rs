//! Virtual servers as netfilter's rules, on a real kernel: what is written is read back, what is refused costs only itself,
//! and traffic and connections go on through changes.

use crate::contract::{apply, observe};
use crate::lab::run;
use crate::mode::{self, Mode, Test};
use crate::traffic_rig::{Rig, VIPS, request, requests, service, slices};
use ipvsd::demo::client::Request;
use ipvsd::kernel::{Cause, Kernel, Scope};
use ipvsd::model::{
    DestinationKey, DestinationSpec, Family, Model, Op, Persistence, Protocol, SchedulerFlags, SchedulerName,
    VirtualServer, VirtualServerKey, VirtualServerSpec,
};
use libtest_mimic::Trial;
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

/// The tests where `mode` balances, by rules of one kind or the other.
pub fn trials(mode: Mode) -> Vec<Trial> {
    let tests: &[Test] = &[
        ("every_virtual_server_is_read_back", every_virtual_server_is_read_back),
        ("changes_are_read_back", changes_are_read_back),
        ("what_is_refused_costs_only_itself", what_is_refused_costs_only_itself),
        ("a_thousand_virtual_servers_are_in_a_fixed_number_of_chains", a_thousand_are_in_a_fixed_number_of_chains),
        ("clients_are_spread_and_kept", clients_are_spread_and_kept),
        ("affinity_ends_with_its_timeout", affinity_ends_with_its_timeout),
        ("connections_outlive_their_endpoint_and_their_service", connections_outlive_their_endpoint_and_their_service),
        ("a_restart_changes_nothing", a_restart_changes_nothing),
        ("the_program_does_all_it_does_otherwise", the_program_does_all_it_does_otherwise),
    ];
    mode::trials("nat", mode, tests)
}

fn spec(persistence: Option<u32>, family: Family) -> VirtualServerSpec {
    let persistence = persistence.map(|timeout| Persistence { timeout, prefix: family.bits() });
    VirtualServerSpec { scheduler: SchedulerName::RANDOM, flags: SchedulerFlags::default(), persistence }
}

fn key(address: &str, port: u16, protocol: Protocol) -> VirtualServerKey {
    VirtualServerKey::new(address.parse().unwrap(), port, protocol)
}

fn destination(family: Family, number: u16) -> DestinationKey {
    let address = if family == Family::Ipv4 { format!("10.244.0.{number}") } else { format!("fd00:244::{number}") };
    DestinationKey { address: address.parse().unwrap(), port: 8000 + number }
}

/// Virtual servers of every kind: with persistence and without, weights of all sorts, and nobody at all.
fn everything() -> Vec<Op> {
    let mark = |mark, family| VirtualServerKey::Mark { mark, family };
    let keys = [
        key("10.96.0.1", 80, Protocol::Tcp),
        key("10.96.0.1", 80, Protocol::Udp),
        key("10.96.1.1", 80, Protocol::Sctp),
        key("192.0.2.1", 30_080, Protocol::Tcp),
        key("fd00:96::1", 443, Protocol::Tcp),
        key("fd00:2::1", 32_767, Protocol::Udp),
        mark(0x0010_1040, Family::Ipv4),
        mark(0x0020_1060, Family::Ipv6),
    ];
    let weights: [&[u32]; 5] = [&[1, 1, 1], &[], &[3, 0, 1], &[0], &[7]];
    let mut ops = Vec::new();
    for (number, key) in (0..).zip(keys) {
        for (more, weights) in (0..).zip(weights) {
            let key = match key {
                VirtualServerKey::Address { address, port, protocol } => {
                    VirtualServerKey::new(address, port - 8 * more, protocol)
                }
                VirtualServerKey::Mark { mark, family } => {
                    VirtualServerKey::Mark { mark: mark + (u32::from(more) << 24), family }
                }
            };
            let persistence = ((number + more) % 2 == 1).then_some(10_800);
            ops.push(Op::AddVirtualServer(key, spec(persistence, key.family())));
            ops.extend((1..).zip(weights.iter()).map(|(n, weight)| {
                Op::AddDestination(key, destination(key.family(), n), DestinationSpec::masquerading(*weight))
            }));
        }
    }
    ops.sort_by_key(Op::phase);
    ops
}

fn model_of(ops: &[Op]) -> Model {
    let mut model = Model::default();
    ops.iter().for_each(|op| model.apply(op).unwrap());
    model
}

fn every_virtual_server_is_read_back(mode: Mode) {
    let ops = everything();
    let mut kernel = mode.kernel();
    observe(&mut kernel);
    apply(&mut kernel, &ops);
    let found = observe(&mut mode.kernel());
    assert_eq!(found.model.virtual_servers, model_of(&ops).virtual_servers, "{}", mode.state());
    let keys: Vec<_> = found.model.virtual_servers.keys().copied().collect();
    let again = kernel.observe(Scope::VirtualServers(&keys)).unwrap();
    assert_eq!(again.model.virtual_servers, found.model.virtual_servers);
}

fn changes_are_read_back(mode: Mode) {
    let ops = everything();
    let mut kernel = mode.kernel();
    observe(&mut kernel);
    apply(&mut kernel, &ops);
    let mut model = model_of(&ops);
    let keys: Vec<_> = model.virtual_servers.iter().map(|(key, server)| (*key, server.clone())).collect();
    let changes = keys.iter().enumerate().filter_map(|(number, (key, server))| change(number, key, server));
    let mut changes: Vec<_> = changes.collect();
    changes.sort_by_key(Op::phase);
    changes.iter().for_each(|op| model.apply(op).unwrap());
    apply(&mut kernel, &changes);
    assert_eq!(observe(&mut mode.kernel()).model.virtual_servers, model.virtual_servers, "{}", mode.state());
    let removal: Vec<_> = model.virtual_servers.keys().map(|key| Op::RemoveVirtualServer(*key)).collect();
    apply(&mut kernel, &removal);
    assert_eq!(observe(&mut mode.kernel()).model, Model::default());
    let left = mode.rules();
    let left: Vec<_> = left.lines().filter(|line| line.starts_with("-A") || line.contains("IPVSD-ADDRESS-")).collect();
    assert_eq!(left, [""; 0]);
}

/// One of several kinds of change.
fn change(number: usize, key: &VirtualServerKey, server: &VirtualServer) -> Option<Op> {
    let first = server.destinations.keys().next().copied();
    match (number % 4, first) {
        (0, _) => Some(Op::UpdateVirtualServer(*key, spec(Some(77), key.family()))),
        (1, Some(first)) => Some(Op::RemoveDestination(*key, first)),
        (2, Some(first)) => Some(Op::UpdateDestination(*key, first, DestinationSpec::masquerading(9))),
        (3, _) => Some(Op::AddDestination(*key, destination(key.family(), 99), DestinationSpec::masquerading(1))),
        _ => None,
    }
}

/// A persistence of no seconds is what the kernel does not take.
fn what_is_refused_costs_only_itself(mode: Mode) {
    let mut kernel = mode.kernel();
    observe(&mut kernel);
    let vip = |number: u8| VirtualServerKey::new([10, 96, 0, number].into(), 80, Protocol::Tcp);
    let persistence = |number| if number == 33 { Some(0) } else { Some(60) };
    let mut ops: Vec<_> =
        (0..100).map(|number| Op::AddVirtualServer(vip(number), spec(persistence(number), Family::Ipv4))).collect();
    ops.extend(
        (0..100).map(|number| {
            Op::AddDestination(vip(number), destination(Family::Ipv4, 1), DestinationSpec::masquerading(1))
        }),
    );
    let failures = kernel.apply(&ops);
    assert_eq!(failures.iter().map(|failure| failure.index).collect::<Vec<_>>(), [33, 133]);
    let Cause::Rules(failed) = &failures[0].cause else { panic!("{failures:?}") };
    assert!(failed.reason.contains("-A IPVSD-ADDRESS-21 -d 10.96.0.33/32"), "it names the rule: {failed}");
    let found = observe(&mut mode.kernel()).model.virtual_servers;
    assert_eq!(found.len(), 99);
    assert!(!found.contains_key(&vip(33)));
}

fn a_thousand_are_in_a_fixed_number_of_chains(mode: Mode) {
    let mut kernel = mode.kernel();
    observe(&mut kernel);
    let vip = |number: u16| {
        let [high, low] = number.to_be_bytes();
        let node_port = VirtualServerKey::new([192, 0, 2, high].into(), 30_000 + number, Protocol::Tcp);
        [VirtualServerKey::new([10, 96, high, low].into(), 80, Protocol::Tcp), node_port]
    };
    let add = |number| {
        let both = |key| {
            let first = (destination(Family::Ipv4, 1), DestinationSpec::masquerading(1));
            [Op::AddVirtualServer(key, spec(None, Family::Ipv4)), Op::AddDestination(key, first.0, first.1)]
        };
        vip(number).map(both).concat()
    };
    let mut ops: Vec<_> = (0..1000).flat_map(add).collect();
    ops.sort_by_key(Op::phase);
    apply(&mut kernel, &ops);
    let rules = mode.rules();
    let chains: Vec<_> = rules.lines().filter(|line| line.starts_with(":IPVSD-")).collect();
    // 256 by address with 16 that lead there, 21 ranges of ports with 3; three of which two are in use, and that which refuses.
    assert!(chains.len() <= 256 + 16 + 21 + 3 + 3, "{}", chains.len());
    let of = |chain: &str| rules.lines().filter(|line| line.starts_with(&format!("-A {chain} "))).count();
    assert_eq!((of("IPVSD-ADDRESS-07"), of("IPVSD-PORT-00")), (4, 48));
    assert!(of("IPVSD-ADDRESS") <= 16 && of("IPVSD-ADDRESS-0") <= 16 && of("IPVSD-PORT") <= 16);
}

fn rig(mode: Mode, spec: serde_json::Value) -> Rig {
    let mut rig = Rig::of(mode, &[], |hosts| [vec![service("web", spec)], slices("web", hosts)].concat());
    rig.wait_for(&requests(&VIPS));
    rig
}

/// Each of three gets some of 60 by a chance that fails once in ten thousand million times.
fn clients_are_spread_and_kept(mode: Mode) {
    let spread = rig(mode, json!({}));
    for request in requests(&VIPS) {
        let counts = spread.spread(request, 60);
        assert!(counts.iter().all(|count| *count > 0), "{request:?} {counts:?}");
    }
    drop(spread);
    let kept = rig(mode, json!({ "sessionAffinity": "ClientIP" }));
    for request in requests(&VIPS) {
        let busy = kept.spread(request, 12).into_iter().filter(|count| *count > 0).count();
        assert_eq!(busy, 1, "{request:?}");
    }
}

/// How long a client is kept that asks no more.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Connections that are over stay in connection tracking for two minutes, and keep nobody. That all of 20 clients get the
/// one of three that they had by chance, comes to pass once in three thousand million times.
fn affinity_ends_with_its_timeout(mode: Mode) {
    let config = json!({"clientIP": {"timeoutSeconds": TIMEOUT.as_secs()}});
    let rig = rig(mode, json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config}));
    let clients: Vec<_> = (101..121).map(|last| Ipv4Addr::new(192, 0, 2, last)).collect();
    let add = |client: &Ipv4Addr| run("ip", &["address", "add", &format!("{client}/24"), "dev", "eth0"]);
    rig.in_client(|| clients.iter().map(add).for_each(drop));
    let ask = |client: &Ipv4Addr| {
        let source = Some(SocketAddr::from((*client, 0)));
        rig.send(Request { source, ..request(Protocol::Tcp, VIPS[0], 80) }).unwrap().name
    };
    let ask_all = || clients.iter().map(ask).collect::<Vec<_>>();
    let first = ask_all();
    // Each time counts anew, so that together it is longer than the timeout.
    for _ in 0..2 {
        sleep(TIMEOUT * 2 / 3);
        assert_eq!(ask_all(), first);
    }
    sleep(TIMEOUT + Duration::from_secs(1));
    assert_ne!(ask_all(), first);
}

fn connections_outlive_their_endpoint_and_their_service(mode: Mode) {
    let mut rig = rig(mode, json!({}));
    for vip in VIPS {
        let conversation = rig.converse(vip);
        let others = rig.network.backends.iter().enumerate().filter(|(index, _)| *index != conversation.1);
        rig.put_slices("web", others.map(|(_, host)| host));
        let gone = |rig: &Rig| rig.spread(request(Protocol::Tcp, vip, 80), 30)[conversation.1] == 0;
        rig.wait_until("the endpoint gets no new connections", gone);
        rig.still_there(&conversation);
        rig.put_slices("web", &rig.network.backends);
    }
    let conversations = VIPS.map(|vip| rig.converse(vip));
    rig.put(&service("web", json!({ "clusterIP": "10.96.0.99", "clusterIPs": ["10.96.0.99", "fd00:96::99"] })));
    let refused = |rig: &Rig| VIPS.iter().all(|vip| rig.send(request(Protocol::Tcp, vip, 80)).is_err());
    rig.wait_until("the addresses are nobody's", refused);
    conversations.iter().for_each(|conversation| rig.still_there(conversation));
}

fn a_restart_changes_nothing(mode: Mode) {
    let mut rig = rig(mode, json!({ "sessionAffinity": "ClientIP" }));
    let conversation = rig.converse(VIPS[0]);
    let without_counters = |rig: &Rig| -> Vec<String> {
        let rules = rig.rules();
        rules.lines().filter(|line| line.starts_with("-A")).map(str::to_owned).collect()
    };
    let before = without_counters(&rig);
    let kept = rig.spread(request(Protocol::Tcp, VIPS[0], 80), 3);
    rig.crash_daemon();
    assert_eq!(without_counters(&rig), before);
    let new = ["10.96.0.98", "fd00:96::98"];
    rig.put(&service("new", json!({ "clusterIP": new[0], "clusterIPs": new })));
    rig.put_slices("new", &rig.network.backends);
    rig.start_daemon();
    rig.wait_for(&requests(&new));
    let after = without_counters(&rig);
    assert!(before.iter().all(|rule| after.contains(rule)), "{before:#?}\nbecame\n{after:#?}");
    assert_eq!(rig.spread(request(Protocol::Tcp, VIPS[0], 80), 3), kept, "the same one answers");
    rig.still_there(&conversation);
}

/// What else it has for its user.
fn the_program_does_all_it_does_otherwise(mode: Mode) {
    let mut rig = rig(mode, json!({}));
    rig.stop_daemon();
    let diff = rig.ipvsd("diff");
    assert!(
        diff.status.success(),
        "{}{}",
        String::from_utf8_lossy(&diff.stdout),
        String::from_utf8_lossy(&diff.stderr)
    );
    let list = String::from_utf8_lossy(&rig.ipvsd("list").stdout).into_owned();
    assert!(list.contains("TCP  10.96.0.10:80 random\n  -> 10.244.1.2:8080"), "{list}");
    rig.put_slices("web", &rig.network.backends[..1]);
    let differs = String::from_utf8_lossy(&rig.ipvsd("diff").stdout).into_owned();
    assert_eq!(differs.lines().filter(|line| line.starts_with("- tcp")).count(), 8, "{differs}");
    let cleanup = rig.ipvsd("cleanup");
    assert!(cleanup.status.success(), "{}", String::from_utf8_lossy(&cleanup.stderr));
    let left = rig.rules();
    assert!(!left.contains("IPVSD-") && !left.contains("KUBE-SERVICES"), "{left}");
    rig.start_daemon();
    rig.wait_for(&requests(&VIPS));
}
