//! What every `Kernel` must do, the fake and Linux alike: the same assertions run on both, so that what is tested on
//! the fake holds on Linux. Each case begins with a kernel that holds nothing of ours.

use ipvsd::kernel::{Cause, Failure, Kernel, Observation, Scope};
use ipvsd::model::netfilter::AddressPort;
use ipvsd::model::{
    DestinationKey, DestinationSpec, Family, Forwarding, Model, Op, Persistence, Protocol, RouteSpec, SchedulerFlags,
    VirtualServerKey, VirtualServerSpec,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Panics if the kernel does not do what is asserted.
pub type Case = fn(&mut dyn Kernel);

/// The cases by name.
pub const CASES: &[(&str, Case)] = &[
    ("what_is_added_is_observed", what_is_added_is_observed),
    ("updates_change_in_place", updates_change_in_place),
    ("removals_take_away_that_and_no_more", removals_take_away_that_and_no_more),
    ("what_is_there_cannot_be_added_again", what_is_there_cannot_be_added_again),
    ("what_is_not_there_cannot_be_changed_or_removed", what_is_not_there_cannot_be_changed_or_removed),
    ("failures_are_told_by_index_and_stop_nothing", failures_are_told_by_index_and_stop_nothing),
    ("hundreds_of_failures_in_one_application_are_all_told", hundreds_of_failures_in_one_application_are_all_told),
    ("a_missing_scheduler_fails_its_virtual_server_alone", a_missing_scheduler_fails_its_virtual_server_alone),
    ("a_scoped_reading_has_what_was_asked_for", a_scoped_reading_has_what_was_asked_for),
    ("an_outline_has_everything_but_destinations", an_outline_has_everything_but_destinations),
    ("random_operations_do_what_they_do_to_a_model", random_operations_do_what_they_do_to_a_model),
    ("looking_for_flows_changes_nothing_else", looking_for_flows_changes_nothing_else),
];

/// Everything the kernel holds of ours.
pub fn observe(kernel: &mut dyn Kernel) -> Observation {
    kernel.observe(Scope::All).unwrap()
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn tcp(address: &str, port: u16) -> VirtualServerKey {
    VirtualServerKey::new(ip(address), port, Protocol::Tcp)
}

pub fn scheduled(name: &str) -> VirtualServerSpec {
    VirtualServerSpec { scheduler: name.parse().unwrap(), flags: SchedulerFlags::default(), persistence: None }
}

pub fn destination(address: &str, port: u16) -> DestinationKey {
    DestinationKey { address: ip(address), port }
}

/// Applies all of `ops`, none of which may fail.
pub fn apply(kernel: &mut dyn Kernel, ops: &[Op]) {
    assert_eq!(kernel.apply(ops), []);
}

/// What `ops` make of an empty model.
fn model_of(ops: &[Op]) -> Model {
    let mut model = Model::default();
    ops.iter().for_each(|op| model.apply(op).unwrap());
    model
}

/// One of everything that ipvsd can express, in order of phases.
fn everything() -> Vec<Op> {
    let hashing = SchedulerFlags::PORT.with(SchedulerFlags::FALLBACK);
    let sticky = |timeout, prefix| Some(Persistence { timeout, prefix });
    let six = VirtualServerKey::new(ip("fd00:96::1"), 53, Protocol::Udp);
    let sctp = VirtualServerKey::new(ip("10.96.0.1"), 9999, Protocol::Sctp);
    let [mark_four, mark_six] = [Family::Ipv4, Family::Ipv6].map(|family| VirtualServerKey::Mark { mark: 7, family });
    let limited = DestinationSpec { upper_threshold: 100, lower_threshold: 50, ..DestinationSpec::masquerading(3) };
    let forwarded = |forwarding| DestinationSpec { forwarding, ..DestinationSpec::masquerading(1) };
    vec![
        Op::AddVirtualServer(tcp("10.96.0.1", 80), scheduled("rr")),
        Op::AddVirtualServer(six, VirtualServerSpec { flags: hashing, ..scheduled("sh") }),
        Op::AddVirtualServer(sctp, VirtualServerSpec { persistence: sticky(10_800, 24), ..scheduled("wlc") }),
        Op::AddVirtualServer(mark_four, VirtualServerSpec { persistence: sticky(1, 0), ..scheduled("lc") }),
        Op::AddVirtualServer(mark_six, VirtualServerSpec { persistence: sticky(300, 64), ..scheduled("mh") }),
        Op::AddVirtualServer(
            VirtualServerKey::new(ip("10.96.0.1"), 80, Protocol::Udp),
            VirtualServerSpec { flags: SchedulerFlags::ONE_PACKET.with(SchedulerFlags(0x20)), ..scheduled("wrr") },
        ),
        Op::AddDestination(tcp("10.96.0.1", 80), destination("10.1.0.1", 8080), DestinationSpec::masquerading(1)),
        Op::AddDestination(tcp("10.96.0.1", 80), destination("10.1.0.1", 8081), limited),
        Op::AddDestination(tcp("10.96.0.1", 80), destination("10.1.0.2", 80), forwarded(Forwarding::Tunnel)),
        Op::AddDestination(tcp("10.96.0.1", 80), destination("10.1.0.3", 80), forwarded(Forwarding::DirectRouting)),
        Op::AddDestination(six, destination("fd00:1::1", 5353), DestinationSpec::masquerading(65_535)),
        Op::AddDestination(sctp, destination("10.1.0.1", 9999), DestinationSpec::masquerading(0)),
        Op::AddRoute(ip("10.96.0.1"), RouteSpec { preferred_source: Some(ip("127.0.0.1")) }),
        Op::AddRoute(ip("10.96.0.2"), RouteSpec::default()),
        Op::AddRoute(ip("fd00:96::1"), RouteSpec { preferred_source: Some(ip("::1")) }),
        Op::AddRoute(ip("fd00:96::2"), RouteSpec::default()),
    ]
}

fn what_is_added_is_observed(kernel: &mut dyn Kernel) {
    let ops = everything();
    apply(kernel, &ops);
    let seen = observe(kernel);
    assert_eq!(seen.model.to_string(), model_of(&ops).to_string());
    assert_eq!(seen, Observation { model: model_of(&ops), ..Observation::default() });
}

fn updates_change_in_place(kernel: &mut dyn Kernel) {
    let mut ops = everything();
    apply(kernel, &ops);
    let hashing = VirtualServerSpec { flags: SchedulerFlags::PORT, ..scheduled("mh") };
    let persistence = Some(Persistence { timeout: 60, prefix: 16 });
    let limited = DestinationSpec { upper_threshold: 9, lower_threshold: 1, ..DestinationSpec::masquerading(5) };
    let updates = [
        Op::UpdateVirtualServer(tcp("10.96.0.1", 80), VirtualServerSpec { persistence, ..hashing }),
        Op::UpdateVirtualServer(VirtualServerKey::new(ip("fd00:96::1"), 53, Protocol::Udp), scheduled("rr")),
        Op::UpdateVirtualServer(VirtualServerKey::Mark { mark: 7, family: Family::Ipv4 }, scheduled("lc")),
        Op::UpdateDestination(tcp("10.96.0.1", 80), destination("10.1.0.1", 8080), limited),
        Op::UpdateDestination(tcp("10.96.0.1", 80), destination("10.1.0.1", 8081), limited.drained()),
        Op::UpdateRoute(ip("10.96.0.1"), RouteSpec::default()),
        Op::UpdateRoute(ip("10.96.0.2"), RouteSpec { preferred_source: Some(ip("127.0.0.1")) }),
        Op::UpdateRoute(ip("fd00:96::1"), RouteSpec::default()),
        Op::UpdateRoute(ip("fd00:96::2"), RouteSpec { preferred_source: Some(ip("::1")) }),
    ];
    apply(kernel, &updates);
    ops.extend(updates);
    assert_eq!(observe(kernel).model.to_string(), model_of(&ops).to_string());
}

fn removals_take_away_that_and_no_more(kernel: &mut dyn Kernel) {
    let mut ops = everything();
    apply(kernel, &ops);
    let removals = [
        Op::RemoveRoute(ip("10.96.0.1")),
        Op::RemoveRoute(ip("fd00:96::2")),
        Op::RemoveDestination(tcp("10.96.0.1", 80), destination("10.1.0.1", 8080)),
        Op::RemoveVirtualServer(VirtualServerKey::new(ip("fd00:96::1"), 53, Protocol::Udp)),
        Op::RemoveVirtualServer(VirtualServerKey::Mark { mark: 7, family: Family::Ipv6 }),
    ];
    apply(kernel, &removals);
    ops.extend(removals);
    assert_eq!(observe(kernel).model.to_string(), model_of(&ops).to_string());
}

fn what_is_there_cannot_be_added_again(kernel: &mut dyn Kernel) {
    let ops = everything();
    apply(kernel, &ops);
    let failures = kernel.apply(&ops);
    assert_eq!(failures.len(), ops.len());
    for (index, failure) in failures.iter().enumerate() {
        assert_eq!(failure.index, index);
        assert!(matches!(failure.cause, Cause::OutOfDate(_)), "{}: {:?}", ops[index], failure.cause);
    }
    assert_eq!(observe(kernel).model, model_of(&ops));
}

fn what_is_not_there_cannot_be_changed_or_removed(kernel: &mut dyn Kernel) {
    apply(kernel, &[Op::AddVirtualServer(tcp("10.96.0.1", 80), scheduled("rr"))]);
    let before = observe(kernel);
    let (spec, masquerading) = (scheduled("rr"), DestinationSpec::masquerading(1));
    let (absent, present, real) = (tcp("10.96.0.9", 80), tcp("10.96.0.1", 80), destination("10.1.0.1", 80));
    let ops = [
        Op::UpdateVirtualServer(absent, spec),
        Op::AddDestination(absent, real, masquerading),
        Op::UpdateDestination(absent, real, masquerading),
        Op::UpdateDestination(present, real, masquerading),
        Op::RemoveRoute(ip("10.96.0.9")),
        Op::RemoveRoute(ip("fd00:96::9")),
        Op::RemoveDestination(absent, real),
        Op::RemoveDestination(present, real),
        Op::RemoveVirtualServer(absent),
        Op::UpdateRoute(ip("10.96.0.9"), RouteSpec::default()),
        Op::UpdateRoute(ip("fd00:96::9"), RouteSpec::default()),
        Op::RemoveLocalhostPath,
        Op::RemoveKubeProxyDevice,
    ];
    let failures = kernel.apply(&ops);
    assert_eq!(failures.len(), ops.len());
    for failure in failures {
        assert!(matches!(failure.cause, Cause::OutOfDate(_)), "{}: {:?}", ops[failure.index], failure.cause);
    }
    assert_eq!(observe(kernel), before);
}

/// A virtual server's address out of many.
fn numbered(number: usize) -> VirtualServerKey {
    let number = u16::try_from(number).unwrap();
    VirtualServerKey::new(IpAddr::from([10, 97, 0, 1]), number + 1, Protocol::Tcp)
}

fn failures_are_told_by_index_and_stop_nothing(kernel: &mut dyn Kernel) {
    // Indices on both sides of the borders between sends of 256.
    let taken = BTreeSet::from([0, 1, 100, 255, 256, 257, 511, 512, 599]);
    apply(
        kernel,
        &taken.iter().map(|number| Op::AddVirtualServer(numbered(*number), scheduled("wrr"))).collect::<Vec<_>>(),
    );
    let ops: Vec<Op> = (0..600).map(|number| Op::AddVirtualServer(numbered(number), scheduled("rr"))).collect();
    let failed: BTreeSet<usize> = kernel.apply(&ops).iter().map(|failure| failure.index).collect();
    assert_eq!(failed, taken);
    let seen = observe(kernel).model.virtual_servers;
    for number in 0..600 {
        let name = if taken.contains(&number) { "wrr" } else { "rr" };
        assert_eq!(seen[&numbered(number)].spec, scheduled(name), "{number}");
    }
}

/// A receive buffer of the usual size has room for 277 answers.
fn hundreds_of_failures_in_one_application_are_all_told(kernel: &mut dyn Kernel) {
    let mut ops: Vec<Op> = (0..1000)
        .map(|number| {
            Op::AddDestination(numbered(number), destination("10.1.0.1", 80), DestinationSpec::masquerading(1))
        })
        .collect();
    ops.extend(
        (0..700_u16).map(u16::to_be_bytes).map(|[high, low]| Op::RemoveRoute(IpAddr::from([10, 98, high, low]))),
    );
    let failures = kernel.apply(&ops);
    assert!(failures.iter().map(|failure| failure.index).eq(0..ops.len()));
    assert!(failures.iter().all(|failure| matches!(failure.cause, Cause::OutOfDate(_))));
}

fn a_missing_scheduler_fails_its_virtual_server_alone(kernel: &mut dyn Kernel) {
    let (good, bad) = (tcp("10.96.0.1", 80), tcp("10.96.0.2", 80));
    let ops = [
        Op::AddVirtualServer(bad, scheduled("nosuch")),
        Op::AddVirtualServer(good, scheduled("rr")),
        Op::AddDestination(bad, destination("10.1.0.1", 80), DestinationSpec::masquerading(1)),
        Op::AddDestination(good, destination("10.1.0.1", 80), DestinationSpec::masquerading(1)),
    ];
    let failures = kernel.apply(&ops);
    assert_eq!(failures[0], Failure { index: 0, cause: Cause::SchedulerMissing });
    assert!(matches!(failures[1..], [Failure { index: 2, cause: Cause::OutOfDate(_) }]), "{failures:?}");
    let update = [Op::UpdateVirtualServer(good, scheduled("nosuch"))];
    assert_eq!(kernel.apply(&update), [Failure { index: 0, cause: Cause::SchedulerMissing }]);
    assert_eq!(observe(kernel).model, model_of(&[ops[1], ops[3]]));
}

fn a_scoped_reading_has_what_was_asked_for(kernel: &mut dyn Kernel) {
    apply(kernel, &everything());
    let absent = tcp("10.96.0.9", 80);
    let keys = [tcp("10.96.0.1", 80), absent, VirtualServerKey::Mark { mark: 7, family: Family::Ipv6 }];
    let seen = kernel.observe(Scope::VirtualServers(&keys)).unwrap();
    let mut wanted = observe(kernel).model;
    wanted.virtual_servers.retain(|key, _| keys.contains(key));
    wanted.routes.clear();
    assert_eq!(seen, Observation { model: wanted, ..Observation::default() });
    assert_eq!(kernel.observe(Scope::VirtualServers(&[])).unwrap(), Observation::default());
}

fn an_outline_has_everything_but_destinations(kernel: &mut dyn Kernel) {
    apply(kernel, &everything());
    let mut wanted = observe(kernel);
    wanted.model.virtual_servers.values_mut().for_each(|server| server.destinations.clear());
    wanted.connections.clear();
    assert_eq!(kernel.observe(Scope::Outline).unwrap(), wanted);
}

fn looking_for_flows_changes_nothing_else(kernel: &mut dyn Kernel) {
    apply(kernel, &everything());
    let before = observe(kernel);
    for (family, address) in [(Family::Ipv4, "10.96.0.1"), (Family::Ipv6, "fd00:96::1")] {
        let at = |port| AddressPort { address: ip(address), protocol: Protocol::Udp, port };
        for count in [1, 100] {
            let kept = (1..=count).map(|port| (at(port), BTreeSet::from([destination(address, 53)]))).collect();
            let forgotten = kernel.forget_flows(family, &kept);
            assert_eq!((forgotten.flows, forgotten.failure.is_none()), (0, true), "{forgotten:?}");
        }
    }
    assert_eq!(observe(kernel), before);
}

/// Operations from so small a world that they meet each other, in order of phases.
fn operations() -> impl Strategy<Value = Vec<Op>> {
    let server = || {
        prop_oneof![
            Just(tcp("10.96.0.1", 80)),
            Just(VirtualServerKey::new(ip("10.96.0.1"), 80, Protocol::Udp)),
            Just(VirtualServerKey::Mark { mark: 7, family: Family::Ipv4 }),
        ]
    };
    let real = || (1..4_u8).prop_map(|last| DestinationKey { address: IpAddr::from([10, 1, 0, last]), port: 80 });
    let vip = || prop_oneof![Just(ip("10.96.0.1")), Just(ip("10.96.0.2")), Just(ip("fd00:96::1"))];
    let op = prop_oneof![
        (server(), spec()).prop_map(|(key, spec)| Op::AddVirtualServer(key, spec)),
        (server(), spec()).prop_map(|(key, spec)| Op::UpdateVirtualServer(key, spec)),
        server().prop_map(Op::RemoveVirtualServer),
        (server(), real(), destination_spec()).prop_map(|(key, real, spec)| Op::AddDestination(key, real, spec)),
        (server(), real(), destination_spec()).prop_map(|(key, real, spec)| Op::UpdateDestination(key, real, spec)),
        (server(), real()).prop_map(|(key, real)| Op::RemoveDestination(key, real)),
        (vip(), any::<bool>()).prop_map(|(vip, source)| Op::AddRoute(vip, route(vip, source))),
        (vip(), any::<bool>()).prop_map(|(vip, source)| Op::UpdateRoute(vip, route(vip, source))),
        vip().prop_map(Op::RemoveRoute),
        Just(Op::RemoveKubeProxyDevice),
    ];
    vec(op, 0..12).prop_map(|mut ops| {
        ops.sort_by_key(Op::phase);
        ops
    })
}

fn spec() -> impl Strategy<Value = VirtualServerSpec> {
    let scheduler = prop_oneof![Just("rr"), Just("wrr"), Just("sh"), Just("mh")];
    let flags = (0..16_u32).prop_map(|bits| SchedulerFlags(bits << 2));
    let persistence = (1..100_000_u32, 0..=32_u8).prop_map(|(timeout, prefix)| Persistence { timeout, prefix });
    (scheduler, flags, option::of(persistence)).prop_map(|(scheduler, flags, persistence)| VirtualServerSpec {
        scheduler: scheduler.parse().unwrap(),
        flags,
        persistence,
    })
}

fn destination_spec() -> impl Strategy<Value = DestinationSpec> {
    let forwarding =
        prop_oneof![Just(Forwarding::Masquerade), Just(Forwarding::Tunnel), Just(Forwarding::DirectRouting)];
    (0..100_u32, forwarding, 0..9_u32, 0..9_u32).prop_map(|(weight, forwarding, lower, more)| DestinationSpec {
        weight,
        forwarding,
        upper_threshold: lower + more,
        lower_threshold: lower,
    })
}

fn route(vip: IpAddr, with_source: bool) -> RouteSpec {
    let source = if vip.is_ipv4() { ip("127.0.0.1") } else { ip("::1") };
    RouteSpec { preferred_source: with_source.then_some(source) }
}

fn random_operations_do_what_they_do_to_a_model(kernel: &mut dyn Kernel) {
    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
    // The runner calls it again and again with `Fn`, though never twice at once.
    let kernel = RefCell::new(kernel);
    let outcome = TestRunner::new(config).run(&vec(operations(), 1..5), |applications| {
        let kernel = &mut **kernel.borrow_mut();
        clear(kernel);
        let mut model = Model::default();
        for ops in applications {
            let indexed = (0..).zip(&ops);
            let refused: Vec<usize> =
                indexed.filter(|(_, op)| model.apply(op).is_err()).map(|(index, _)| index).collect();
            let failures = kernel.apply(&ops);
            prop_assert!(failures.iter().all(|failure| matches!(failure.cause, Cause::OutOfDate(_))), "{failures:?}");
            prop_assert_eq!(failures.iter().map(|failure| failure.index).collect::<Vec<_>>(), refused);
            prop_assert_eq!(observe(kernel).model.to_string(), model.to_string());
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

fn clear(kernel: &mut dyn Kernel) {
    let held = observe(kernel).model;
    let mut ops: Vec<Op> = held.routes.into_keys().map(Op::RemoveRoute).collect();
    ops.extend(held.virtual_servers.into_keys().map(Op::RemoveVirtualServer));
    apply(kernel, &ops);
}
