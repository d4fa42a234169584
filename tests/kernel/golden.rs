//! The table of who reaches which endpoints and who is masqueraded, as real packets: every kind of client, every kind of
//! frontend, each policy, each way to be configured, both families.

use crate::golden_explained::Explained;
use crate::golden_rig::{FAMILIES, From, GoldenRig, To, by_cluster_cidr, news, service};
use crate::meanwhile::repeat_while;
use crate::mode::{self, Mode, Test, has_sctp};
use ipvsd::demo::client::Request;
use ipvsd::demo::namespace::Namespace;
use ipvsd::desired::{DetectLocal, NetfilterSettings};
use ipvsd::model::{Family, Protocol};
use ipvsd::state::{Service, TrafficPolicy, Whereabouts};
use libtest_mimic::Trial;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The tests where `mode` balances.
pub fn trials(mode: Mode) -> Vec<Trial> {
    let tests: &[Test] = &[
        ("pods_known_by_address", pods_known_by_address),
        ("pods_not_known", pods_not_known),
        ("everything_masqueraded", everything_masqueraded),
        ("everything_masqueraded_and_pods_not_known", everything_masqueraded_and_pods_not_known),
        ("pods_known_by_device", pods_known_by_device),
        ("udp_and_sctp_go_the_same_ways", udp_and_sctp_go_the_same_ways),
        ("a_pod_reaches_itself", a_pod_reaches_itself),
        ("without_a_local_endpoint_nothing_leaks", without_a_local_endpoint_nothing_leaks),
        ("who_is_led_elsewhere_is_masqueraded_while_a_policy_changes", led_elsewhere_is_masqueraded),
        ("affinity_holds_by_either_way", affinity_holds_by_either_way),
    ];
    mode::trials("golden", mode, tests)
}

/// Policy, client and frontend; then for each configuration, which endpoints answer (`all` or those of this node, `loc`)
/// and, with `+`, whether they see the node as the client. The configurations are: usual, pods not known, everything
/// masqueraded, both.
///
/// Node ports are on 127.0.0.1 as in kube-proxy's mode iptables, and on ::1 in none of its modes.
const TABLE: &str = "
    default   Pod       ClusterIp     all    all    all+   all+
    default   Pod       NodePort      all+   all+   all+   all+
    default   Pod       LoadBalancer  all+   all+   all+   all+
    default   Node      ClusterIp     all+   all    all+   all+
    default   Node      NodePort      all+   all+   all+   all+
    default   Node      LoadBalancer  all+   all+   all+   all+
    default   Node      Localhost     all+   all+   all+   all+
    default   External  ClusterIp     all+   all    all+   all+
    default   External  NodePort      all+   all+   all+   all+
    default   External  LoadBalancer  all+   all+   all+   all+
    external  Pod       ClusterIp     all    all    all+   all+
    external  Pod       NodePort      all    loc    all    loc
    external  Pod       LoadBalancer  all    loc    all    loc
    external  Node      ClusterIp     all+   all    all+   all+
    external  Node      NodePort      all+   all+   all+   all+
    external  Node      LoadBalancer  all+   all+   all+   all+
    external  Node      Localhost     all+   all+   all+   all+
    external  External  ClusterIp     all+   all    all+   all+
    external  External  NodePort      loc    loc    loc    loc
    external  External  LoadBalancer  loc    loc    loc    loc
    internal  Pod       ClusterIp     loc    loc    loc+   loc+
    internal  Pod       NodePort      all+   all+   all+   all+
    internal  Pod       LoadBalancer  all+   all+   all+   all+
    internal  Node      ClusterIp     loc+   loc    loc+   loc+
    internal  Node      NodePort      all+   all+   all+   all+
    internal  Node      LoadBalancer  all+   all+   all+   all+
    internal  Node      Localhost     all+   all+   all+   all+
    internal  External  ClusterIp     loc+   loc    loc+   loc+
    internal  External  NodePort      all+   all+   all+   all+
    internal  External  LoadBalancer  all+   all+   all+   all+
    external  Pod       ExternalIp    all    loc    all    loc
    external  Node      ExternalIp    all+   all+   all+   all+
    external  External  ExternalIp    loc    loc    loc    loc
    default   External  ExternalIp    all+   all+   all+   all+
";

fn pods_known_by_address(mode: Mode) {
    hold(0, mode, settings(by_cluster_cidr(), false), Protocol::Tcp);
}

fn pods_not_known(mode: Mode) {
    hold(1, mode, settings(DetectLocal::Unknown, false), Protocol::Tcp);
}

fn everything_masqueraded(mode: Mode) {
    hold(2, mode, settings(by_cluster_cidr(), true), Protocol::Tcp);
}

fn everything_masqueraded_and_pods_not_known(mode: Mode) {
    hold(3, mode, settings(DetectLocal::Unknown, true), Protocol::Tcp);
}

/// The device of the pod that asks; the others ask nothing here.
fn pods_known_by_device(mode: Mode) {
    hold(0, mode, settings(DetectLocal::Bridge("backend-3".parse().unwrap()), false), Protocol::Tcp);
    hold(0, mode, settings(DetectLocal::DevicePrefix("backend-".parse().unwrap()), false), Protocol::Tcp);
}

fn udp_and_sctp_go_the_same_ways(mode: Mode) {
    hold(0, mode, settings(by_cluster_cidr(), false), Protocol::Udp);
    if has_sctp() {
        hold(0, mode, settings(by_cluster_cidr(), false), Protocol::Sctp);
    }
}

fn settings(detect_local: DetectLocal, masquerade_all: bool) -> NetfilterSettings {
    NetfilterSettings { detect_local, masquerade_all, ..NetfilterSettings::default() }
}

/// A Service for each policy.
fn services(protocol: Protocol) -> [(&'static str, Service); 3] {
    use TrafficPolicy::Local;
    let [default, external, internal] = [1, 2, 3].map(|number| service(number, protocol));
    [
        ("default", default),
        ("external", Service { external_policy: Local, ..external }),
        ("internal", Service { internal_policy: Local, ..internal }),
    ]
}

/// Sends what the table says and compares what came of it with one of its columns.
fn hold(column: usize, mode: Mode, settings: NetfilterSettings, protocol: Protocol) {
    let mut rig = GoldenRig::of(mode, settings);
    let services = services(protocol);
    for (_, service) in &services {
        let slices = rig.slices(service);
        rig.program([news(service)].into_iter().chain(slices));
    }
    let explained = Explained::of(&mut rig);
    let mut wrong = Vec::new();
    for line in TABLE.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<_> = line.split_whitespace().collect();
        let (_, service) = services.iter().find(|(policy, _)| *policy == words[0]).unwrap();
        let (from, to) = (from(words[1]), to(words[2]));
        for family in FAMILIES {
            let found = outcome(&rig, (from, family), protocol, rig.target(service, to, family));
            let is_nowhere = (to, family) == (To::Localhost, Family::Ipv6);
            let wanted = if is_nowhere { "none" } else { words[3 + column] };
            if found != wanted {
                wrong.push(format!("{family} {line}\n    but {found}"));
            }
            let told = explained.outcome(&rig, (from, family), (protocol, rig.target(service, to, family)));
            if told != wanted {
                wrong.push(format!("{family} {line}\n    but `explain` says {told}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{protocol}, column {column}\n{}\n{}", wrong.join("\n"), rig.state());
}

fn from(word: &str) -> From {
    match word {
        "Pod" => From::Pod,
        "Node" => From::Node,
        _ => From::External,
    }
}

fn to(word: &str) -> To {
    match word {
        "ClusterIp" => To::ClusterIp,
        "NodePort" => To::NodePort,
        "LoadBalancer" => To::LoadBalancer,
        "ExternalIp" => To::ExternalIp,
        _ => To::Localhost,
    }
}

/// In the words of the table.
fn outcome(rig: &GoldenRig, (from, family): (From, Family), protocol: Protocol, target: SocketAddr) -> String {
    let own = rig.own_address(from, family);
    let (mut names, mut masqueraded) = (BTreeSet::new(), BTreeSet::new());
    for asked in 0..rig.mode().enough() {
        if asked >= 4 && names.len() > 1 {
            break;
        }
        match rig.ask(from, protocol, target) {
            Ok(answer) => {
                masqueraded.insert(answer.source != own);
                names.insert(answer.name);
            }
            Err(error) if target.ip().is_loopback() && error.kind() == ErrorKind::ConnectionRefused => {
                return "none".into();
            }
            // SCTP is not told of refusals.
            Err(_) if target.ip().is_loopback() && protocol == Protocol::Sctp => return "none".into(),
            Err(error) => return error.to_string(),
        }
    }
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let which = match names[..] {
        ["backend-1", "backend-2"] => "all".to_owned(),
        ["backend-1"] => "loc".to_owned(),
        _ => format!("{names:?}"),
    };
    match masqueraded.into_iter().collect::<Vec<_>>()[..] {
        [false] => which,
        [true] => which + "+",
        _ => which + " with and without the node as the client",
    }
}

fn a_pod_reaches_itself(mode: Mode) {
    let mut rig = GoldenRig::of(mode, settings(by_cluster_cidr(), false));
    let of_here = services(Protocol::Tcp).map(|(policy, service)| (policy, service, Whereabouts::Here));
    // A slice that was written by hand need not name a node.
    let by_hand = services(Protocol::Tcp).into_iter().take(1).map(|(policy, one)| (policy, one, Whereabouts::Unsaid));
    for (policy, service, node) in of_here.into_iter().chain(by_hand) {
        let slices = rig.slices_of(&service, &[(0, node)]);
        rig.program([news(&service)].into_iter().chain(slices));
        let explained = Explained::of(&mut rig);
        for (family, to) in
            FAMILIES.into_iter().flat_map(|f| [To::ClusterIp, To::NodePort, To::LoadBalancer].map(|t| (f, t)))
        {
            let answer = rig.ask(From::Endpoint, Protocol::Tcp, rig.target(&service, to, family));
            let answer = answer.unwrap_or_else(|error| panic!("{policy} {family} {to:?}: {error}\n{}", rig.state()));
            assert_ne!(answer.source, rig.own_address(From::Endpoint, family));
            let told =
                explained.outcome(&rig, (From::Endpoint, family), (Protocol::Tcp, rig.target(&service, to, family)));
            assert_eq!(told, "loc+", "{policy} {family} {to:?} {node:?}");
        }
    }
}

/// The answers of other nodes to a client whose address they see pass this node by.
fn led_elsewhere_is_masqueraded(mode: Mode) {
    let mut rig = GoldenRig::of(mode, settings(by_cluster_cidr(), false));
    let [_, (_, mut service), _] = services(Protocol::Tcp);
    // Else whoever is being answered is cut off, as asked.
    service.drain_timeout = Some(Duration::from_secs(60));
    let slices = rig.slices(&service);
    rig.program([news(&service)].into_iter().chain(slices));
    let requests = [To::NodePort, To::LoadBalancer, To::ExternalIp]
        .map(|to| Request::new(Protocol::Tcp, rig.target(&service, to, Family::Ipv4)));
    let client = rig.own_address(From::External, Family::Ipv4);
    let asked = AtomicUsize::new(0);
    let ask = || {
        for request in &requests {
            asked.fetch_add(1, Ordering::Relaxed);
            let answer = request.send().unwrap();
            assert!(answer.name == "backend-1" || answer.source != client, "{request:?}: {answer:?}");
        }
    };
    let outside = rig.namespace(From::External).run(Namespace::here).unwrap();
    let rounds = repeat_while(&outside, ask, || {
        // As long as no port of the client's comes again, which would lead a connection astray by itself: there are 16,384.
        for turn in (0..200).take_while(|_| asked.load(Ordering::Relaxed) < 8_000) {
            service.external_policy = if turn % 2 == 0 { TrafficPolicy::Cluster } else { TrafficPolicy::Local };
            rig.program([news(&service)]);
        }
    });
    println!("    {rounds} rounds of requests");
    assert!(rounds > 10, "{rounds} rounds");
}

/// Where there are endpoints on other nodes only, clients outside get nothing, and those on the node all the same.
fn without_a_local_endpoint_nothing_leaks(mode: Mode) {
    let mut rig = GoldenRig::of(mode, settings(by_cluster_cidr(), false));
    let [_, (_, external), (_, internal)] = services(Protocol::Tcp);
    for service in [&external, &internal] {
        let slices = rig.slices_of(service, &[(1, Whereabouts::Elsewhere)]);
        rig.program([news(service)].into_iter().chain(slices));
    }
    let kind = |rig: &GoldenRig, from, service: &Service, to, family| {
        rig.ask(from, Protocol::Tcp, rig.target(service, to, family)).map_err(|error| error.kind())
    };
    for family in FAMILIES {
        for from in [From::Pod, From::Node] {
            for to in [To::NodePort, To::LoadBalancer, To::ExternalIp] {
                assert_eq!(kind(&rig, from, &external, to, family).unwrap().name, "backend-2", "{from:?} {to:?}");
            }
        }
        for from in [From::Pod, From::Node, From::External] {
            assert_eq!(kind(&rig, from, &internal, To::ClusterIp, family), Err(ErrorKind::ConnectionRefused));
        }
    }
    let explained = Explained::of(&mut rig);
    let told = |rig: &GoldenRig, explained: &Explained, from, service, to| {
        explained.outcome(rig, (from, Family::Ipv4), (Protocol::Tcp, rig.target(service, to, Family::Ipv4)))
    };
    assert_eq!(told(&rig, &explained, From::External, &external, To::LoadBalancer), "Dropped");
    assert!(told(&rig, &explained, From::External, &internal, To::ClusterIp).starts_with("Unserved"));
    // Dropped, not refused: the load balancer may take another node before the client has given up.
    let dropped = kind(&rig, From::External, &external, To::LoadBalancer, Family::Ipv4).unwrap_err();
    assert_ne!(dropped, ErrorKind::ConnectionRefused);

    // With no endpoint anywhere it is refused, by every way.
    for service in [&external, &internal] {
        let nowhere = rig.slices_of(service, &[]);
        rig.program(nowhere);
    }
    for (from, service, to) in [
        (From::External, &external, To::LoadBalancer),
        (From::External, &external, To::NodePort),
        (From::Pod, &external, To::NodePort),
        (From::Node, &internal, To::LoadBalancer),
        (From::External, &internal, To::ClusterIp),
    ] {
        assert_eq!(kind(&rig, from, service, to, Family::Ipv4), Err(ErrorKind::ConnectionRefused), "{from:?} {to:?}");
    }
}

/// From outside by the address's virtual server, from a pod by the mark's, which hashes.
fn affinity_holds_by_either_way(mode: Mode) {
    let mut rig = GoldenRig::of(mode, settings(by_cluster_cidr(), false));
    let [_, (_, external), _] = services(Protocol::Tcp);
    let service = Service { affinity: Some(300), ..external };
    let slices = rig.slices_of(&service, &[(0, Whereabouts::Here), (1, Whereabouts::Here)]);
    rig.program([news(&service)].into_iter().chain(slices));
    for from in [From::External, From::Pod, From::Node] {
        for to in [To::LoadBalancer, To::NodePort] {
            let names: BTreeSet<_> = (0..6)
                .map(|_| rig.ask(from, Protocol::Tcp, rig.target(&service, to, Family::Ipv4)).unwrap().name)
                .collect();
            assert_eq!(names.len(), 1, "{from:?} {to:?}");
        }
    }
}
