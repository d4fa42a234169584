//! What the mode iptables costs: the first pass over ten thousand Services, a change among them, and what a packet pays,
//! as ratios to a replay of the same bytes, of the rules that kube-proxy has for the same, and to a node with ten Services.
//!
//! `./dev bench nat`, on the machine's own kernel, with both kinds of iptables where it has both; needs no IPVS. Every run
//! is in a network namespace of its own.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark that cannot run ends by panicking")]

use ipvsd::demo::backend::{Backend, Port};
use ipvsd::demo::network::Network;
use ipvsd::desired::{NetfilterSettings, Settings};
use ipvsd::kernel::linux::Linux;
use ipvsd::kernel::nat::table::{Changes, Table};
use ipvsd::kernel::{Kernel, Scope};
use ipvsd::model::netfilter::Balancing;
use ipvsd::model::{Family, Protocol};
use ipvsd::reconcile::{Options, Reconciler};
use ipvsd::state::{
    Change, Endpoint, EndpointSlice, Families, Node, NodeHint, ObjectName, Origin, Service, ServicePort, SlicePort,
    TrafficPolicy, Whereabouts,
};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const FEW: u16 = 10;
const MANY: u16 = 10_000;
const CHANGES: u16 = 200;
const CONNECTIONS: usize = 3_000;

/// What should hold: the first pass, half of the changes with either kind, and the ratio of connecting.
const FIRST_PASS: Duration = Duration::from_secs(3);
const CHANGE: [(&str, Duration); 2] = [("nft", Duration::from_millis(50)), ("legacy", Duration::from_millis(200))];
const CONNECT: f64 = 1.2;
/// With either kind, how many first passes fit into the mere writing of kube-proxy's rules; its own first sync takes longer
/// (`./dev bench kube_proxy`). The legacy tables take either in one piece, so that there the shape saves little.
const SHAPE: [(&str, f64); 2] = [("nft", 8.0), ("legacy", 1.0)];

fn main() {
    let mut missed = 0;
    for (kind, change) in CHANGE {
        if Command::new(format!("iptables-{kind}-save")).output().is_ok_and(|output| output.status.success()) {
            missed += of_kind(kind, change);
        } else {
            println!("{kind}: this kernel has none");
        }
    }
    std::process::exit(i32::from(missed > 0));
}

/// Prints how it is with rules of one kind; returns how many goals are missed.
fn of_kind(kind: &str, goal: Duration) -> usize {
    println!("\n{kind}, {MANY} Services x 2 endpoints");
    let network = Network::build(2).unwrap();
    let replayed = replay_all(kind);
    let in_kube_proxys_shape = alone(|| restore(kind, &kube_proxys_shape()));
    let _backends: Vec<_> = network
        .backends
        .iter()
        .map(|host| Backend::start(&host.name, &host.namespace, &[Port::Http(8080)]).unwrap())
        .collect();
    let endpoints = [network.backends[0].addresses.ipv4, network.backends[1].addresses.ipv4];
    let mut reconciler = network.node.run(|| Ok(reconciler(kind, &network))).unwrap();
    let mut now = Duration::ZERO;
    let mut pass = |changes: Vec<Change>| {
        now += Duration::from_millis(1);
        reconciler.take(changes);
        let start = Instant::now();
        let report = network.node.run(|| Ok(reconciler.pass(now))).unwrap();
        assert!(report.is_good(), "{:?}", report.failed);
        start.elapsed()
    };
    pass((0..FEW).flat_map(|number| objects(number, &endpoints)).collect());
    let with_few = connect(&network);
    let first = pass((FEW..MANY).flat_map(|number| objects(number, &endpoints)).collect());
    let with_many = connect(&network);
    // Takes an endpoint from a Service, and then gives it back.
    let change = |i: u16| vec![slice(i / 2 * 37 % MANY, &endpoints[usize::from(i.is_multiple_of(2))..])];
    let changes: Vec<_> = (0..CHANGES).map(|i| pass(change(i))).collect();
    let read = network.node.run(|| Ok(time(|| drop(linux(kind).observe(Scope::All).unwrap())))).unwrap();
    let replayed_leaf = network.node.run(|| Ok(replay_leaf(kind))).unwrap();

    let [half, most] = [2, 100].map(|part| at(&changes, part));
    let ratio = with_many.as_secs_f64() / with_few.as_secs_f64();
    row("first pass", first, Some(FIRST_PASS));
    row("  to a replay of the rules' bytes", replayed, None);
    row("kube-proxy's rules, written once", in_kube_proxys_shape, None);
    let shape = in_kube_proxys_shape.as_secs_f64() / first.as_secs_f64();
    let shape_goal = SHAPE.iter().find(|(of, _)| *of == kind).unwrap().1;
    println!("{:<36} {shape:>9.1}     {shape_goal} at least", "  in first passes");
    row("a change, half of them", half, Some(goal));
    row("  99 of 100", most, None);
    row("  to a replay of the chain's bytes", replayed_leaf, None);
    row("reading all of it", read, None);
    row("connecting, 10 Services", with_few, None);
    row("connecting, 10,000 Services", with_many, None);
    println!("{:<36} {ratio:>9.2}     {CONNECT} at most", "  ratio");
    [first > FIRST_PASS, half > goal, ratio > CONNECT, shape < shape_goal].into_iter().filter(|missed| *missed).count()
}

fn row(name: &str, time: Duration, goal: Option<Duration>) {
    let goal = goal.map(|goal| format!("{} ms at most", goal.as_millis())).unwrap_or_default();
    println!("{name:<36} {:>9.3} ms  {goal}", time.as_secs_f64() * 1000.0);
}

/// The time that all but one of so many parts of these do not exceed.
fn at(times: &[Duration], parts: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() - 1 - times.len() / parts]
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// The kernel of this thread's namespace, whose other rules are of a kind.
fn linux(kind: &str) -> Linux {
    restore(kind, "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n");
    Linux::open_nat().unwrap()
}

fn reconciler(kind: &str, network: &Network) -> Reconciler<Linux> {
    let balancing = Balancing::Nat { is_liberal: false, counts: false };
    let netfilter = NetfilterSettings { families: Families::BOTH, balancing, ..NetfilterSettings::default() };
    let settings = Settings { netfilter: Some(netfilter), ..Settings::default() };
    let options = Options { drain_timeout: Duration::ZERO, ..Options::default() };
    let mut reconciler = Reconciler::new(linux(kind), settings, options);
    let node = network.client.gateway.ipv4.into();
    reconciler.take([Change::Node(Node { addresses: [node].into(), primary_ipv4: Some(node), primary_ipv6: None })]);
    reconciler
}

/// The median time until a connection to the first Service stands, from a client outside.
fn connect(network: &Network) -> Duration {
    let target = SocketAddr::from((vip(0), 80));
    let measure = || {
        let one = |_| time(|| drop(TcpStream::connect(target).unwrap()));
        Ok((0..CONNECTIONS).map(one).collect::<Vec<_>>())
    };
    at(&network.client.namespace.run(measure).unwrap(), 2)
}

/// How long the program takes for all rules, as they are written.
fn replay_all(kind: &str) -> Duration {
    let endpoints = [Ipv4Addr::new(10, 244, 1, 2), Ipv4Addr::new(10, 244, 2, 2)];
    let server = |number| {
        let destination = |address: &Ipv4Addr| {
            let key = ipvsd::model::DestinationKey { address: (*address).into(), port: 8080 };
            (key, ipvsd::model::DestinationSpec::masquerading(1))
        };
        let spec = ipvsd::kernel::nat::server::spec(None);
        let key = ipvsd::model::VirtualServerKey::new(vip(number), 80, Protocol::Tcp);
        (key, Some(ipvsd::model::VirtualServer { spec, destinations: endpoints.iter().map(destination).collect() }))
    };
    let changes: Changes = (0..MANY).map(server).collect();
    let input = Table::empty(Family::Ipv4).input(&changes).text;
    alone(|| restore(kind, &input))
}

/// The time that something takes in a namespace of its own.
fn alone(work: impl FnOnce() + Send) -> Duration {
    ipvsd::demo::namespace::Namespace::new().unwrap().run(|| Ok(time(work))).unwrap()
}

/// What kube-proxy's iptables mode has for the same Services: three chains for each, of eight rules.
fn kube_proxys_shape() -> String {
    let (mut chains, mut rules) = (String::new(), String::new());
    for number in 0..MANY {
        let (vip, service) = (vip(number), format!("KUBE-SVC-{number:016}"));
        let comment = format!("-m comment --comment \"default/s{number} cluster IP\"");
        let to_vip = format!("-m tcp -p tcp -d {vip} --dport 80");
        chains += &format!(":{service} - [0:0]\n");
        rules += &format!("-A KUBE-SERVICES {comment} {to_vip} -j {service}\n");
        rules += &format!("-A {service} {comment} {to_vip} ! -s 10.244.0.0/16 -j KUBE-MARK-MASQ\n");
        for (endpoint, probability) in [(1, "-m statistic --mode random --probability 0.5000000000 "), (2, "")] {
            let (address, chain) = (format!("10.244.{endpoint}.2"), format!("KUBE-SEP-{endpoint}{number:015}"));
            let comment = format!("-m comment --comment default/s{number}");
            chains += &format!(":{chain} - [0:0]\n");
            rules += &format!("-A {service} {comment} {probability}-j {chain}\n");
            rules += &format!("-A {chain} {comment} -s {address} -j KUBE-MARK-MASQ\n");
            rules += &format!("-A {chain} {comment} -m tcp -p tcp -j DNAT --to-destination {address}:8080\n");
        }
    }
    format!("*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n{chains}{rules}COMMIT\n")
}

/// How long it takes for one chain that is there, half of so many times.
fn replay_leaf(kind: &str) -> Duration {
    let saved = Command::new(format!("iptables-{kind}-save")).args(["-t", "nat"]).output().unwrap().stdout;
    let saved = String::from_utf8(saved).unwrap();
    let rules = saved.lines().filter(|line| line.starts_with("-A IPVSD-ADDRESS-07 "));
    let rules: String = rules.map(|rule| format!("{rule}\n")).collect();
    let input = format!("*nat\n:IPVSD-ADDRESS-07 - [0:0]\n{rules}COMMIT\n");
    let times: Vec<_> = (0..CHANGES).map(|_| time(|| restore(kind, &input))).collect();
    at(&times, 2)
}

fn restore(kind: &str, input: &str) {
    let mut program = Command::new(format!("iptables-{kind}-restore"));
    let mut child = program.args(["--noflush", "-w", "10"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn vip(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    [10, 96, high, low].into()
}

fn objects(number: u16, endpoints: &[Ipv4Addr]) -> [Change; 2] {
    let service = Service {
        name: name(number),
        origin: Origin::Api,
        families: [Family::Ipv4].into_iter().collect(),
        cluster_ips: vec![vip(number)],
        external_ips: vec![],
        load_balancer_ips: vec![],
        source_ranges: vec![],
        ports: vec![ServicePort { name: "".into(), protocol: Protocol::Tcp, port: 80, node_port: None }],
        affinity: None,
        drain_timeout: None,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        health_check_node_port: None,
        scheduling: None,
    };
    [Change::Service(Arc::new(service)), slice(number, endpoints)]
}

fn slice(number: u16, endpoints: &[Ipv4Addr]) -> Change {
    let endpoint = |address: &Ipv4Addr| Endpoint {
        address: (*address).into(),
        weight: 1,
        ready: true,
        serving: true,
        terminating: false,
        node: Whereabouts::Here,
        node_hint: NodeHint::None,
        zones: None,
    };
    Change::EndpointSlice(Arc::new(EndpointSlice {
        name: name(number),
        origin: Origin::Api,
        service: name(number),
        family: Family::Ipv4,
        is_of_nodes: false,
        names: Default::default(),
        ports: vec![SlicePort { name: "".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: endpoints.iter().map(endpoint).collect(),
    }))
}

fn name(number: u16) -> ObjectName {
    ObjectName::new("default", &format!("s{number}"))
}
