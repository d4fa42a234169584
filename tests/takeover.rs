//! Taking over from kube-proxy, on the fake kernel: what is its own, what becomes of it, and when its device, its rules and
//! its tables may go.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use ipvsd::desired::{NetfilterSettings, Settings};
use ipvsd::kernel::Errno;
use ipvsd::kernel::fake::FakeKernel;
use ipvsd::model::netfilter::{Capacity, Set, SetKey, SetKind};
use ipvsd::model::{
    DestinationKey, DestinationSpec, Family, Leftover, Op, Protocol, SchedulerFlags, VirtualServer, VirtualServerKey,
    VirtualServerSpec,
};
use ipvsd::reconcile::{Options, Reconciler, Takeover};
use ipvsd::state::{Change, Endpoint, EndpointSlice, Families, Node, ObjectName, Service, ServicePort, SlicePort};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const VIP: &str = "10.96.0.1";
const NODE: &str = "192.0.2.1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn tcp(address: &str, port: u16) -> VirtualServerKey {
    VirtualServerKey::new(ip(address), port, Protocol::Tcp)
}

fn destination(address: &str) -> DestinationKey {
    DestinationKey { address: ip(address), port: 8080 }
}

/// A kernel as kube-proxy left it: these virtual servers with one destination each, and these addresses on its device.
fn left(servers: &[VirtualServerKey], device: &[&str]) -> FakeKernel {
    let mut kernel = FakeKernel::default();
    let spec =
        VirtualServerSpec { scheduler: "rr".parse().unwrap(), flags: SchedulerFlags::default(), persistence: None };
    for key in servers {
        let destinations = [(destination("10.1.0.1"), DestinationSpec::masquerading(1))].into_iter().collect();
        kernel.model.virtual_servers.insert(*key, VirtualServer { spec, destinations });
        kernel.untagged.insert(*key);
    }
    kernel.model.kube_proxy_device = Some(device.iter().map(|address| ip(address)).collect());
    kernel
}

/// A Service on [`VIP`], port 80 and node port 30080, and its endpoint 10.1.0.1, on a node with the address [`NODE`].
fn cluster() -> Vec<Change> {
    let name = ObjectName::new("default", "web");
    let service = Service {
        cluster_ips: vec![ip(VIP)],
        ports: vec![ServicePort { name: "".into(), protocol: Protocol::Tcp, port: 80, node_port: Some(30_080) }],
        ..Service::new(name.clone())
    };
    let slice = EndpointSlice {
        ports: vec![SlicePort { name: "".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: vec![Endpoint::new(ip("10.1.0.1"))],
        ..EndpointSlice::new(ObjectName::new("default", "web-1"), name, Family::Ipv4)
    };
    let node = Node { addresses: [ip(NODE)].into(), primary_ipv4: Some(ip(NODE)), primary_ipv6: None };
    vec![Change::Node(node), Change::Service(Arc::new(service)), Change::EndpointSlice(Arc::new(slice))]
}

/// A reconciler that knows the cluster and takes over all.
fn reconciler(kernel: FakeKernel) -> Reconciler<FakeKernel> {
    taking(kernel, Takeover::AllBut(vec![]))
}

fn taking(kernel: FakeKernel, takeover: Takeover) -> Reconciler<FakeKernel> {
    let options = Options { drain_timeout: Duration::from_secs(60), takeover, ..Options::default() };
    let mut reconciler = Reconciler::new(kernel, Settings::default(), options);
    reconciler.take(cluster());
    reconciler
}

/// What a pass does, or would do.
fn steps(reconciler: &mut Reconciler<FakeKernel>) -> Vec<String> {
    reconciler.preview(Duration::ZERO).unwrap().iter().map(Op::to_string).collect()
}

#[test]
fn what_a_service_asks_for_is_taken_over_in_place_and_then_the_device_goes() {
    let kernel = left(&[tcp(VIP, 80), tcp(NODE, 30_080)], &[VIP]);
    assert_eq!(
        steps(&mut reconciler(kernel.clone())),
        ["~ tcp 10.96.0.1:80 rr", "~ tcp 192.0.2.1:30080 rr", "+ route 10.96.0.1 src 192.0.2.1", "- device kube-ipvs0",]
    );
    let mut reconciler = reconciler(kernel);
    assert!(reconciler.pass(Duration::ZERO).is_good());
    assert!(reconciler.kernel().untagged.is_empty());
    assert_eq!(reconciler.problems(), []);
    assert_eq!(steps(&mut reconciler), [""; 0], "nothing is left to do");
}

#[test]
fn what_nobody_asks_for_drains_as_ours_on_a_route_of_ours() {
    let leftover = tcp("10.96.0.2", 443);
    let mut kernel = left(&[leftover], &["10.96.0.2"]);
    kernel.connections.insert((leftover, destination("10.1.0.1")), 1);
    let mut reconciler = reconciler(kernel);
    assert!(reconciler.pass(Duration::ZERO).is_good());
    let kernel = reconciler.kernel();
    assert!(kernel.untagged.is_empty(), "after a crash it is known to be ours");
    assert_eq!(kernel.model.kube_proxy_device, None);
    assert!(kernel.model.routes.contains_key(&ip("10.96.0.2")));
    assert_eq!(kernel.model.virtual_servers[&leftover].destinations[&destination("10.1.0.1")].weight, 0);
    reconciler.kernel_mut().connections.clear();
    reconciler.pass(Duration::from_secs(30));
    assert!(!reconciler.kernel().model.virtual_servers.contains_key(&leftover));
    assert!(!reconciler.kernel().model.routes.contains_key(&ip("10.96.0.2")));
}

#[test]
fn without_the_device_and_elsewhere_others_virtual_servers_are_left_alone() {
    let mut kernel = left(&[tcp(VIP, 80), tcp(NODE, 31_000)], &[]);
    kernel.model.kube_proxy_device = None;
    let before = kernel.untagged.clone();
    let mut reconciler_without = reconciler(kernel);
    reconciler_without.pass(Duration::ZERO);
    assert_eq!(reconciler_without.kernel().untagged, before);
    assert_eq!(reconciler_without.problems().len(), 1, "a Service wants one of them");

    let stranger = tcp("198.51.100.1", 80);
    let mut reconciler_with = reconciler(left(&[tcp(VIP, 80), tcp(NODE, 31_000), stranger], &[VIP]));
    reconciler_with.pass(Duration::ZERO);
    assert_eq!(reconciler_with.kernel().untagged, [tcp(NODE, 31_000), stranger].into());
    assert_eq!(reconciler_with.kernel().model.kube_proxy_device, None);
}

#[test]
fn what_is_excluded_is_never_touched_and_keeps_the_device_it_stands_on() {
    let takeover = Takeover::AllBut(vec!["10.96.0.0/24".parse().unwrap()]);
    let mut on_device = taking(left(&[tcp(VIP, 80), tcp("10.96.0.2", 53)], &[VIP, "10.96.0.2"]), takeover.clone());
    let before = on_device.kernel().clone();
    on_device.pass(Duration::ZERO);
    assert_eq!(on_device.kernel().untagged, before.untagged);
    assert_eq!(on_device.kernel().model.kube_proxy_device, before.model.kube_proxy_device);

    let mut beside = taking(left(&[tcp("10.96.0.2", 53)], &["10.97.0.1"]), takeover);
    beside.pass(Duration::ZERO);
    assert_eq!(beside.kernel().untagged, [tcp("10.96.0.2", 53)].into());
    assert_eq!(beside.kernel().model.kube_proxy_device, None);
}

#[test]
fn while_the_input_is_in_doubt_what_nobody_asks_for_stays_and_so_does_the_device() {
    let (leftover, node_port) = (tcp("10.96.0.2", 443), tcp(NODE, 31_000));
    let mut reconciler = reconciler(left(&[tcp(VIP, 80), leftover, node_port], &[VIP, "10.96.0.2"]));
    reconciler.take([Change::Doubt(true)]);
    reconciler.pass(Duration::ZERO);
    let kernel = reconciler.kernel();
    assert_eq!(kernel.untagged, [node_port].into(), "taken over, but for what cannot be recognised yet");
    assert_eq!(kernel.model.virtual_servers[&leftover].destinations[&destination("10.1.0.1")].weight, 1);
    assert!(kernel.model.kube_proxy_device.is_some());
    reconciler.take([Change::Doubt(false)]);
    reconciler.pass(Duration::from_secs(1));
    assert_eq!(reconciler.kernel().model.virtual_servers[&leftover].destinations[&destination("10.1.0.1")].weight, 0);
    assert_eq!(reconciler.kernel().model.kube_proxy_device, None);
}

/// Whether the device stays after a pass in which the kernel refuses some operations; once it takes them it goes.
fn device_stays(mut kernel: FakeKernel, refuses: fn(&Op) -> Option<Errno>) -> bool {
    kernel.refuses = refuses;
    let mut reconciler = reconciler(kernel);
    reconciler.pass(Duration::ZERO);
    let stays = reconciler.kernel().model.kube_proxy_device.is_some();
    reconciler.kernel_mut().refuses = |_| None;
    let again = reconciler.next();
    reconciler.pass(again);
    assert_eq!(reconciler.kernel().model.kube_proxy_device, None);
    stays
}

#[test]
fn a_failure_on_one_of_its_addresses_keeps_the_device_and_another_failure_does_not() {
    let udp = VirtualServerKey::new(ip(VIP), 53, Protocol::Udp);
    let with_node_port = || left(&[tcp(VIP, 80), tcp(NODE, 30_080)], &[VIP]);
    let without = || left(&[tcp(VIP, 80), udp], &[VIP]);
    assert!(device_stays(without(), |op| matches!(op, Op::AddRoute(..)).then_some(Errno::EINVAL)));
    let of_node_port = |op: &Op| (op.address() == Some(ip(NODE))).then_some(Errno::ENOMEM);
    assert!(device_stays(with_node_port(), of_node_port), "without the device it could not be recognised");
    assert!(!device_stays(without(), of_node_port), "it is ours to add at any time");
    assert!(!device_stays(without(), |op| matches!(op, Op::RemoveVirtualServer(..)).then_some(Errno::ENOMEM)));
}

#[test]
fn an_empty_device_goes_too_unless_nothing_is_to_be_taken_over() {
    let mut taker = reconciler(left(&[], &[]));
    taker.pass(Duration::ZERO);
    assert_eq!(taker.kernel().model.kube_proxy_device, None);
    let mut other = taking(left(&[tcp(VIP, 80)], &[VIP]), Takeover::Nothing);
    other.pass(Duration::ZERO);
    assert!(other.kernel().model.kube_proxy_device.is_some());
    assert!(other.kernel().untagged.contains(&tcp(VIP, 80)));
}

#[test]
fn cleaning_up_takes_away_ours_alone_or_kube_proxys_as_well() {
    for (takeover, servers, has_device) in [(Takeover::Nothing, 2, true), (Takeover::AllBut(vec![]), 1, false)] {
        let mut kernel = left(&[tcp(VIP, 80), tcp("198.51.100.1", 80)], &[VIP]);
        let ours = kernel.model.virtual_servers[&tcp(VIP, 80)].clone();
        kernel.model.virtual_servers.insert(tcp("10.96.0.9", 80), ours);
        let options = Options { takeover, ..Options::default() };
        let mut cleaner = Reconciler::new(kernel, Settings::default(), options);
        assert!(cleaner.pass(Duration::ZERO).is_good());
        let model = &cleaner.kernel().model;
        assert_eq!((model.virtual_servers.len(), model.kube_proxy_device.is_some()), (servers, has_device));
        assert!(!model.virtual_servers.contains_key(&tcp("10.96.0.9", 80)));
    }
}

/// Everything that kube-proxy's other modes may leave.
fn all_leftovers() -> Vec<Leftover> {
    let kinds = [Leftover::Rules, Leftover::OtherRules, Leftover::Table];
    kinds.iter().flat_map(|kind| [kind(Family::Ipv4), kind(Family::Ipv6)]).collect()
}

/// A reconciler that programs netfilter for these families, on a node where kube-proxy's other modes were.
fn beside_rules(families: Families, takeover: Takeover) -> Reconciler<FakeKernel> {
    let mut kernel = FakeKernel::default();
    kernel.model.kube_proxy_leftovers = all_leftovers().into_iter().collect();
    let netfilter = Some(NetfilterSettings { families, ..NetfilterSettings::default() });
    let options = Options { takeover, ..Options::default() };
    let mut reconciler = Reconciler::new(kernel, Settings { netfilter, ..Settings::default() }, options);
    reconciler.take(cluster());
    reconciler
}

fn left_of(reconciler: &Reconciler<FakeKernel>) -> Vec<Leftover> {
    reconciler.kernel().model.kube_proxy_leftovers.iter().copied().collect()
}

fn of_family(family: Family) -> Vec<Leftover> {
    all_leftovers().into_iter().filter(|leftover| leftover.family() == family).collect()
}

#[test]
fn what_other_modes_left_goes_when_ours_stands() {
    let mut reconciler = beside_rules(Families::BOTH, Takeover::AllBut(vec![]));
    assert_eq!(
        steps(&mut reconciler).iter().filter(|step| step.contains("kube-proxy")).collect::<Vec<_>>(),
        [
            "- kube-proxy's rules ipv4",
            "- kube-proxy's rules ipv6",
            "- kube-proxy's rules ipv4 in the other iptables",
            "- kube-proxy's rules ipv6 in the other iptables",
            "- kube-proxy's table ipv4",
            "- kube-proxy's table ipv6",
        ]
    );
    let report = reconciler.pass(Duration::ZERO);
    assert!(report.is_good());
    assert_eq!((report.done["remove kube-proxy's rules"], report.done["remove kube-proxy's table"]), (4, 2));
    assert_eq!(left_of(&reconciler), []);
    assert_eq!(reconciler.kernel().model.rules.len(), 2);
    assert_eq!((steps(&mut reconciler), reconciler.problems()), (vec![], vec![]));
}

#[test]
fn what_other_modes_left_stays_where_nothing_is_taken_over_and_of_families_that_are_not_ours() {
    let mut other = beside_rules(Families::BOTH, Takeover::Nothing);
    other.pass(Duration::ZERO);
    assert_eq!(left_of(&other).len(), all_leftovers().len());
    let mut one_family = beside_rules(Families { ipv4: true, ipv6: false }, Takeover::AllBut(vec![]));
    one_family.pass(Duration::ZERO);
    assert_eq!(left_of(&one_family), of_family(Family::Ipv6));
}

#[test]
fn what_other_modes_left_stays_while_the_input_is_in_doubt() {
    let mut reconciler = beside_rules(Families::BOTH, Takeover::AllBut(vec![]));
    reconciler.take([Change::Doubt(true)]);
    reconciler.pass(Duration::ZERO);
    assert_eq!(left_of(&reconciler).len(), all_leftovers().len());
    assert_eq!(reconciler.kernel().model.rules.len(), 2, "ours stand nevertheless");
    reconciler.take([Change::Doubt(false)]);
    reconciler.pass(Duration::from_secs(1));
    assert_eq!(left_of(&reconciler), []);
}

#[test]
fn a_failure_keeps_what_other_modes_left_for_the_same_family() {
    let failures: [fn(&Op) -> bool; 3] = [
        |op| matches!(op, Op::AddRoute(..)),
        |op| matches!(op, Op::SetRules(Family::Ipv4, _)),
        |op| matches!(op, Op::AddDestination(..)),
    ];
    let refusals: [fn(&Op) -> Option<Errno>; 3] = [
        |op| matches!(op, Op::AddRoute(..)).then_some(Errno::EINVAL),
        |op| matches!(op, Op::SetRules(Family::Ipv4, _)).then_some(Errno::EINVAL),
        |op| matches!(op, Op::AddDestination(..)).then_some(Errno::EINVAL),
    ];
    for (refuses, fails) in refusals.into_iter().zip(failures) {
        let mut reconciler = beside_rules(Families::BOTH, Takeover::AllBut(vec![]));
        reconciler.kernel_mut().refuses = refuses;
        let report = reconciler.pass(Duration::ZERO);
        assert!(report.failed.iter().any(|(op, _)| fails(op)));
        assert_eq!(left_of(&reconciler), of_family(Family::Ipv4));
        reconciler.kernel_mut().refuses = |_| None;
        let again = reconciler.next();
        reconciler.pass(again);
        assert_eq!(left_of(&reconciler), []);
    }
}

#[test]
fn a_kube_proxy_that_writes_again_is_told_of_and_not_fought_for_ever() {
    let mut reconciler = beside_rules(Families::BOTH, Takeover::AllBut(vec![]));
    reconciler.pass(Duration::ZERO);
    let rules = Leftover::Rules(Family::Ipv4);
    let mut told = Vec::new();
    for _ in 0..5 {
        reconciler.kernel_mut().model.kube_proxy_leftovers.insert(rules);
        let next = reconciler.next();
        reconciler.pass(next);
        told.push((left_of(&reconciler).len(), reconciler.problems().len()));
    }
    assert_eq!(told, [(0, 1), (0, 1), (1, 1), (1, 1), (1, 1)]);
    assert_eq!(
        reconciler.problems()[0].to_string(),
        "this node: kube-proxy's rules ipv4 came back after they were removed: a kube-proxy still runs on this node, and \
         must be stopped; they stay until ipvsd is started anew"
    );
    reconciler.kernel_mut().model.kube_proxy_leftovers.clear();
    let next = reconciler.next();
    reconciler.pass(next);
    assert_eq!(reconciler.problems(), []);
}

#[test]
fn cleaning_up_after_kube_proxy_takes_what_all_its_modes_left() {
    let key = SetKey { kind: SetKind::ClusterIp, family: Family::Ipv4 };
    for (takeover, left) in [(Takeover::AllBut(vec![]), (0, 0)), (Takeover::Nothing, (6, 1))] {
        let mut kernel = FakeKernel::default();
        kernel.model.kube_proxy_leftovers = all_leftovers().into_iter().collect();
        kernel.model.sets.insert(key, Set { capacity: Capacity::LEAST, ..Set::default() });
        let options = Options { takeover, ..Options::default() };
        let mut cleaner = Reconciler::new(kernel, Settings::default(), options);
        assert!(cleaner.pass(Duration::ZERO).is_good());
        assert_eq!((left_of(&cleaner).len(), cleaner.kernel().model.sets.len()), left);
    }
}
