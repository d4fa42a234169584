//! Taking over from kube-proxy, on the fake kernel: what is its own, what becomes of it, and when its device may go.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use ipvsd::desired::Settings;
use ipvsd::kernel::Errno;
use ipvsd::kernel::fake::FakeKernel;
use ipvsd::model::{
    DestinationKey, DestinationSpec, Op, Protocol, SchedulerFlags, VirtualServer, VirtualServerKey, VirtualServerSpec,
};
use ipvsd::reconcile::{Options, Reconciler, Takeover};
use ipvsd::state::{
    Change, Endpoint, EndpointSlice, Families, Node, NodeHint, ObjectName, Origin, Service, ServicePort, SlicePort,
    TrafficPolicy,
};
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
        name: name.clone(),
        origin: Origin::Api,
        families: Families::BOTH,
        cluster_ips: vec![ip(VIP)],
        external_ips: vec![],
        load_balancer_ips: vec![],
        source_ranges: vec![],
        ports: vec![ServicePort { name: "".into(), protocol: Protocol::Tcp, port: 80, node_port: Some(30_080) }],
        affinity: None,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        health_check_node_port: None,
        scheduling: None,
        drain_timeout: None,
    };
    let endpoint = Endpoint {
        address: ip("10.1.0.1"),
        weight: 1,
        ready: true,
        serving: true,
        terminating: false,
        is_local: false,
        node_hint: NodeHint::None,
        zones: None,
    };
    let slice = EndpointSlice {
        name: ObjectName::new("default", "web-1"),
        origin: Origin::Api,
        service: name,
        family: ipvsd::model::Family::Ipv4,
        is_of_nodes: true,
        ports: vec![SlicePort { name: "".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: vec![endpoint],
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
