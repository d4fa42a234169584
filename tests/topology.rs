//! Which endpoints a Service leads to on this node, for all that can be said of endpoints and policies together: the
//! cases of kube-proxy's own table of them (`CategorizeEndpoints`), in our words, and with what it cannot say, where
//! clients on this node go when the external policy is `Local`. From Service and slices to a kernel in memory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at what it did not expect"
)]

use ipvsd::desired::{NetfilterSettings, Settings};
use ipvsd::kernel::fake::FakeKernel;
use ipvsd::model::{DestinationKey, Family, Model, Protocol, VirtualServerKey};
use ipvsd::reconcile::{Options, Reconciler};
use ipvsd::state::{
    Change, Endpoint, EndpointSlice, Families, Node, NodeHint, NodeObject, ObjectName, Service, ServicePort, SlicePort,
    TrafficPolicy, Whereabouts, Zones,
};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// What is special; the internal policy, the external one, or none for a Service that is not to be reached from outside;
/// the endpoints. Then which endpoints the cluster IP has, the node port, and the node port for clients on this node.
///
/// An endpoint is its number and what is said of it: `local`, `unready`, `leaving` (terminating, and still serving),
/// `here` or `elsewhere` (the node it is meant for), `za` (zone a, where this node
/// is). Behind `@` is another zone of this node, or `none`. `=` is the same as for everybody, `-` that there is no such way.
const CASES: &str = "
    all are hinted, some for this zone             | Cluster -       | 1:za 2:zb 3:zc 4:za              | 1 4     | -     | -
    hints and external policy Local                | Cluster Local   | 1:za,local 2:zb,local 3:zc,local 4:za | 1 4 | 1 2 3 | 1 4
    hints and internal policy Local                | Local   -       | 1:za,local 2:zb,local 3:zc,local 4:za | 1 2 3 | -   | -
    the node has no zone                           | Cluster -       | 1:za 2:zb 3:zc 4:za @none        | 1 2 3 4 | -     | -
    the node's zone is empty                       | Cluster -       | 1:za 2:zb 3:zc 4:za @            | 1 2 3 4 | -     | -
    no endpoint is for the node's zone             | Cluster -       | 1:za 2:zb 3:zc 4:za @e           | 1 2 3 4 | -     | -
    an unready one elsewhere                       | Cluster -       | 1:za 2:zb 3:zc,unready 4:za      | 1 4     | -     | -
    an unready one of this zone                    | Cluster -       | 1:za,unready 2:zb 3:zc 4:za      | 4       | -     | -
    only unready ones are of this zone             | Cluster -       | 1:za,unready 2:zb 3:zc 4:za,unready | 2 3  | -     | -
    one has no hint                                | Cluster -       | 1:za 2:zb 3 4:za                 | 1 2 3 4 | -     | -
    one is for several zones                       | Cluster -       | 1:za/b/c 2:zb/c 3:zb/d 4:zc @c   | 1 2 4   | -     | -
    localness and zones disagree                   | Cluster Local   | 1:zb,local 2:za 3:zb,local 4:za  | 2 4     | 1 3   | 2 4
    no endpoints, internal policy Local            | Local   -       |                                  |         | -     | -
    all are elsewhere, internal policy Local       | Local   -       | 1 2                              |         | -     | -
    all are here, internal policy Local            | Local   -       | 1:local 2:local                  | 1 2     | -     | -
    some are here, internal policy Local           | Local   -       | 1:local 2                        | 1       | -     | -
    none is ready                                  | Cluster -       | 1:unready 2:unready              |         | -     | -
    one is ready                                   | Cluster -       | 1:unready 2                      | 2       | -     | -
    all are terminating                            | Cluster -       | 1:leaving 2:leaving              | 1 2     | -     | -
    internal Local, external Cluster               | Local   Cluster | 1:unready 2:local 3 4:local      | 2 4     | 2 3 4 | =
    internal Cluster, external Local               | Cluster Local   | 1:unready 2:local 3 4:local      | 2 3 4   | 2 4   | 2 3 4
    both Local, some here                          | Local   Local   | 1:unready 2:local 3 4:local      | 2 4     | 2 4   | 2 3 4
    both Local, all elsewhere                      | Local   Local   | 1 2                              |         |       | 1 2
    both Local, all elsewhere and terminating      | Local   Local   | 1:leaving 2:leaving              |         |       | 1 2
    internal Cluster, external Local, some terminating | Cluster Local | 1 2:leaving,local 3:leaving 4  | 1 4     | 2     | 1 4
    an external policy for nobody                  | Cluster Local!  | 1:local 2                        | 1 2     | -     | -
    no set of the cluster for internal Local alone | Local   -       | 1 2:leaving,local                | 2       | -     | -
    all are meant for nodes, one for this          | Cluster -       | 1:here,za 2:elsewhere,za 3:elsewhere,zb | 1 | -    | -
    one is meant for no node: zones                | Cluster -       | 1:here,za 2:za 3:elsewhere,zb    | 1 2     | -     | -
    none is meant for this node: zones             | Cluster -       | 1:elsewhere,za 2:elsewhere,zb    | 1       | -     | -
    the one for this node is unready: zones        | Cluster -       | 1:here,za,unready 2:elsewhere,za 3:elsewhere,zb | 2 | - | -
    for neither this node nor its zone             | Cluster -       | 1:elsewhere,zb 2:elsewhere,zc    | 1 2     | -     | -
";

#[test]
fn endpoints_are_categorized_as_kube_proxy_does() {
    let mut wrong = Vec::new();
    let cases: Vec<_> = CASES.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(cases.len(), 32);
    for case in cases {
        let cells: Vec<_> = case.split('|').map(str::trim).collect();
        let found = found(cells[1], cells[2]);
        if found != cells[3..] {
            wrong.push(format!("{case}\n    but {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The cells that a Service comes to.
fn found(policies: &str, endpoints: &str) -> Vec<String> {
    let (words, zone) = endpoints.split_once('@').unwrap_or((endpoints, "a"));
    let service = service(policies);
    let settings = Settings { netfilter: Some(NetfilterSettings::default()), ..Settings::default() };
    let mut reconciler = Reconciler::new(FakeKernel::default(), settings, Options::default());
    reconciler.take([
        Change::Node(Node { addresses: [NODE.parse().unwrap()].into(), ..Node::default() }),
        Change::NodeObject(NodeObject { zone: (zone != "none").then(|| zone.into()), ..NodeObject::default() }),
        Change::Service(service.into()),
        Change::EndpointSlice(slice(words).into()),
    ]);
    assert!(reconciler.pass(Duration::ZERO).is_good());
    let model = &reconciler.kernel().model;
    let at = |address: &str, port| numbers(model, VirtualServerKey::new(address.parse().unwrap(), port, Protocol::Tcp));
    let node_port = at(NODE, 30_080);
    let is_mark = |key: &&VirtualServerKey| matches!(key, VirtualServerKey::Mark { .. });
    let marks: BTreeSet<_> = model.virtual_servers.keys().filter(is_mark).map(|key| numbers(model, *key)).collect();
    assert!(marks.len() <= 1, "whoever is on the node gets the same: {marks:?}");
    let here = match marks.into_iter().next().flatten() {
        Some(others) if node_port.as_ref() != Some(&others) => others,
        _ if node_port.is_some() => "=".into(),
        _ => "-".into(),
    };
    vec![at("10.96.0.1", 80).unwrap(), node_port.unwrap_or_else(|| "-".into()), here]
}

const NODE: &str = "192.0.2.1";

/// The endpoints of a virtual server by their numbers; none if it is not there.
fn numbers(model: &Model, key: VirtualServerKey) -> Option<String> {
    let number = |key: &DestinationKey| key.address.to_string().rsplit('.').next().unwrap().to_owned();
    let server = model.virtual_servers.get(&key)?;
    Some(server.destinations.keys().map(number).collect::<Vec<_>>().join(" "))
}

/// `!` is a Service with a policy for traffic that has no way in.
fn service(policies: &str) -> Service {
    let (internal, external) = policies.split_once(char::is_whitespace).unwrap();
    let policy = |word: &str| if word.starts_with("Local") { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
    let is_accessible = ["Local", "Cluster"].contains(&external.trim());
    Service {
        families: Families { ipv4: true, ipv6: false },
        cluster_ips: vec!["10.96.0.1".parse().unwrap()],
        ports: vec![ServicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: is_accessible.then_some(30_080),
        }],
        internal_policy: policy(internal),
        external_policy: policy(external.trim()),
        ..Service::new(ObjectName::new("default", "web"))
    }
}

fn slice(words: &str) -> EndpointSlice {
    let [name, service] = ["web-1", "web"].map(|name| ObjectName::new("default", name));
    EndpointSlice {
        ports: vec![SlicePort { name: "".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: words.split_whitespace().map(endpoint).collect(),
        ..EndpointSlice::new(name, service, Family::Ipv4)
    }
}

fn endpoint(word: &str) -> Endpoint {
    let (number, marks) = word.split_once(':').unwrap_or((word, ""));
    let mut endpoint = Endpoint::new(IpAddr::from([10, 1, 0, number.parse().unwrap()]));
    for mark in marks.split(',').filter(|mark| !mark.is_empty()) {
        match mark {
            "local" => endpoint.node = Whereabouts::Here,
            "unready" => (endpoint.ready, endpoint.serving) = (false, false),
            "leaving" => (endpoint.ready, endpoint.terminating) = (false, true),
            "here" => endpoint.node_hint = NodeHint::Here,
            "elsewhere" => endpoint.node_hint = NodeHint::Elsewhere,
            zones => endpoint.zones = Zones::new(zones.strip_prefix('z').unwrap().split('/')).map(Arc::new),
        }
    }
    endpoint
}
