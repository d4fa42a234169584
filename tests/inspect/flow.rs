//! What becomes of packets, beyond what the golden table of real ones has: source ranges, what is not served, what is not
//! ours. The kernel is the fake one, programmed by the reconciler.

use crate::service::{service, slice};
use ipvsd::desired::{DetectLocal, NetfilterSettings, Settings};
use ipvsd::inspect::flow::{Client, Explanation, Flow, Hook, Outcome, World, explain};
use ipvsd::kernel::fake::FakeKernel;
use ipvsd::model::{Protocol, VirtualServerKey};
use ipvsd::reconcile::{Options, Reconciler};
use ipvsd::state::{Change, Node};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

const ENDPOINTS: &str = r#"[{ "addresses": ["10.244.0.2"], "nodeName": "node-1" }, { "addresses": ["10.244.1.2"] }]"#;

fn node() -> Node {
    Node { addresses: [[192, 0, 2, 1].into()].into(), primary_ipv4: Some([192, 0, 2, 1].into()), primary_ipv6: None }
}

/// A node whose pods are in 10.244.0.0/24, with a Service in 198.51.100.0/24 and 192.0.2.0/24 only, and one without
/// endpoints.
fn reconciler(netfilter: Option<NetfilterSettings>) -> Reconciler<FakeKernel> {
    let settings = Settings { netfilter, ..Settings::default() };
    let mut reconciler = Reconciler::new(FakeKernel::default(), settings, Options::default());
    let web = json!({
        "type": "LoadBalancer", "clusterIP": "10.96.0.1", "ports": [{ "name": "http", "port": 80, "nodePort": 30080 }],
        "loadBalancerSourceRanges": ["198.51.100.0/24", "192.0.2.0/24"],
    });
    let mut web = service("web", web);
    if let Change::Service(service) = &mut web {
        let mut balanced = (**service).clone();
        balanced.load_balancer_ips = vec![[203, 0, 113, 1].into()];
        *service = balanced.into();
    }
    let none = service("none", json!({ "clusterIP": "10.96.0.9", "ports": [{ "name": "http", "port": 80 }] }));
    let endpoints = slice("web", serde_json::from_str(ENDPOINTS).unwrap());
    reconciler.take([Change::Node(node()), web, endpoints, none]);
    reconciler.pass(Duration::ZERO);
    reconciler
}

fn with_netfilter() -> Reconciler<FakeKernel> {
    let detect_local = DetectLocal::ClusterCidr(vec!["10.244.0.0/24".parse().unwrap()]);
    reconciler(Some(NetfilterSettings { detect_local, ..NetfilterSettings::default() }))
}

/// What becomes of a packet from `source` (empty is the node itself) to `target`, by TCP.
fn told(reconciler: &Reconciler<FakeKernel>, source: &str, target: &str) -> Explanation {
    let kernel = reconciler.kernel();
    let (source, device) = (source.parse().ok(), None);
    let flow = Flow { source, device, target: target.parse().unwrap(), protocol: Protocol::Tcp };
    explain(&flow, &World { model: &kernel.model, foreign: &kernel.foreign, node: &node() }).unwrap()
}

/// In a few words.
fn outcome(explanation: &Explanation) -> String {
    match &explanation.outcome {
        Outcome::Balanced(key, _, ways) => {
            let ways = ways.iter().map(|way| if way.is_masqueraded { "+" } else { "-" }).collect::<String>();
            format!("{key} {ways}")
        }
        Outcome::Unserved(key, _) => format!("{key} refuses"),
        other => format!("{other:?}"),
    }
}

#[test]
fn source_ranges_and_what_is_around_vips_are_heeded() {
    let reconciler = with_netfilter();
    for (source, target, wanted) in [
        ("198.51.100.7", "203.0.113.1:80", "tcp 203.0.113.1:80 ++"),
        ("198.18.0.7", "203.0.113.1:80", "Dropped"),
        ("10.244.0.9", "203.0.113.1:80", "Dropped"),
        ("", "203.0.113.1:80", "tcp 203.0.113.1:80 ++"),
        // The ranges are for the load balancer's address alone.
        ("198.18.0.7", "192.0.2.1:30080", "tcp 192.0.2.1:30080 ++"),
        ("198.18.0.7", "10.96.0.1:80", "tcp 10.96.0.1:80 ++"),
        ("10.244.0.9", "10.96.0.1:80", "tcp 10.96.0.1:80 --"),
        // Who reaches itself sees the node.
        ("10.244.0.2", "10.96.0.1:80", "tcp 10.96.0.1:80 +-"),
        ("10.244.0.9", "10.96.0.9:80", "tcp 10.96.0.9:80 refuses"),
        ("10.244.0.9", "10.96.0.1:22", "Refused"),
        ("10.244.0.9", "192.0.2.1:22", "Delivered"),
        // By the loop through the veth pair, as of nobody that an endpoint could answer.
        ("", "127.0.0.1:30080", "mark 1052736 ipv4 ++"),
        ("", "127.0.0.1:30081", "Delivered"),
        ("", "10.96.0.1:22", "Refused"),
        ("10.244.0.9", "192.0.2.200:80", "Forwarded"),
        ("", "192.0.2.200:80", "Forwarded"),
    ] {
        assert_eq!(outcome(&told(&reconciler, source, target)), wanted, "{source} -> {target}");
    }
}

#[test]
fn the_client_is_who_the_rules_take_it_for() {
    let reconciler = with_netfilter();
    for (source, client) in [
        ("10.244.0.9", Client::Pod),
        ("10.244.1.9", Client::Outside),
        ("192.0.2.1", Client::Node),
        ("", Client::Node),
        // A VIP is an address of the node.
        ("10.96.0.1", Client::Node),
    ] {
        assert_eq!(told(&reconciler, source, "10.96.0.1:80").client, client, "{source}");
    }
    assert_eq!(told(&reconciler, "", "10.96.0.1:80").source, node().primary_ipv4.unwrap());
    let unknown = self::reconciler(Some(NetfilterSettings::default()));
    assert_eq!(told(&unknown, "10.244.0.9", "10.96.0.1:80").client, Client::Unknown);
}

#[test]
fn without_rules_only_virtual_servers_decide() {
    let reconciler = reconciler(None);
    for (source, target, wanted) in [
        ("198.18.0.7", "203.0.113.1:80", "tcp 203.0.113.1:80 --"),
        ("10.244.0.2", "10.96.0.1:80", "tcp 10.96.0.1:80 --"),
        ("10.244.0.9", "10.96.0.1:22", "Delivered"),
    ] {
        let explanation = told(&reconciler, source, target);
        assert_eq!((outcome(&explanation), explanation.steps), (wanted.to_owned(), vec![]), "{source} -> {target}");
    }
}

#[test]
fn the_rules_that_did_something_are_named_in_order() {
    let explanation = told(&with_netfilter(), "198.18.0.7", "203.0.113.1:80");
    let steps: Vec<_> = explanation.steps.iter().map(|step| (step.hook, step.table, step.chain.as_str())).collect();
    let last = explanation.steps.last().unwrap();
    assert_eq!(
        steps,
        [
            (Hook::Prerouting, "nat", "KUBE-MARK-MASQ"),
            (Hook::Prerouting, "nat", "KUBE-SERVICES"),
            (Hook::Input, "filter", "KUBE-IPVS-FILTER"),
            (Hook::Input, "filter", "KUBE-SOURCE-RANGES-FIREWALL"),
        ]
    );
    assert_eq!((last.rule.as_str(), last.effect.as_str()), ("-j DROP", "it is dropped"));
}

#[test]
fn others_virtual_servers_are_others_business() {
    let mut reconciler = with_netfilter();
    let every_port = VirtualServerKey::new([192, 0, 2, 1].into(), 0, Protocol::Tcp);
    reconciler.kernel_mut().foreign = BTreeSet::from([every_port]);
    let explanation = told(&reconciler, "198.18.0.7", "192.0.2.1:22");
    assert_eq!(explanation.outcome, Outcome::Foreign(every_port));
}
