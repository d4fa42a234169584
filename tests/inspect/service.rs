//! One Service, told whole.

use ipvsd::desired::{NetfilterSettings, Settings};
use ipvsd::inspect::form::Server;
use ipvsd::inspect::service::{Judgement, Kind, Policy};
use ipvsd::inspect::{Answer, Question, ServiceAnswer, Status, Subject, answer};
use ipvsd::kernel::fake::FakeKernel;
use ipvsd::model::{Protocol, VirtualServerKey};
use ipvsd::reconcile::{Options, Reconciler};
use ipvsd::source::convert::{self, Context, Rules};
use ipvsd::state::{Change, Node, ObjectName, ObjectRef, Origin, Problem};
use serde_json::{Value, json};
use std::time::Duration;

/// A Service as news.
pub fn service(name: &str, spec: Value) -> Change {
    let whole = json!({ "metadata": { "namespace": "shop", "name": name }, "spec": spec });
    let raw = serde_json::from_value(whole).unwrap();
    let context = Context::new(Rules::Manifest, "node-1");
    Change::Service(convert::service(&raw, &Origin::Api, &context).unwrap().unwrap().object.into())
}

/// Its endpoints as news.
pub fn slice(service: &str, endpoints: Value) -> Change {
    let whole = json!({
        "metadata": {
            "namespace": "shop", "name": format!("{service}-1"), "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080 }],
        "endpoints": endpoints,
    });
    let raw = serde_json::from_value(whole).unwrap();
    let context = Context::new(Rules::Manifest, "node-1");
    Change::EndpointSlice(convert::endpoint_slice(&raw, &Origin::Api, &context).unwrap().unwrap().object.into())
}

/// A Service with a way in of each kind, and endpoints here, elsewhere, unready and of no use.
fn shop() -> Vec<Change> {
    let web = json!({
        "type": "LoadBalancer", "clusterIP": "10.96.0.1", "externalIPs": ["203.0.113.1"],
        "externalTrafficPolicy": "Local", "ports": [{ "name": "http", "port": 80, "nodePort": 30080 }],
    });
    let endpoints = json!([
        { "addresses": ["10.1.0.1"], "nodeName": "node-1", "targetRef": { "name": "web-a" } },
        { "addresses": ["10.1.0.2"], "nodeName": "node-2", "targetRef": { "name": "web-b" } },
        { "addresses": ["10.1.0.3"], "nodeName": "node-1", "conditions": { "ready": false } },
    ]);
    let node = Node {
        addresses: [[192, 0, 2, 1].into()].into(),
        primary_ipv4: Some([192, 0, 2, 1].into()),
        primary_ipv6: None,
    };
    let other =
        json!({ "clusterIP": "10.96.0.2", "externalIPs": ["203.0.113.1"], "ports": [{ "name": "http", "port": 80 }] });
    vec![Change::Node(node), service("web", web), slice("web", endpoints), service("zoo", other)]
}

fn reconciler(kernel: FakeKernel, changes: Vec<Change>) -> Reconciler<FakeKernel> {
    let settings = Settings { netfilter: Some(NetfilterSettings::default()), ..Settings::default() };
    let options = Options { drain_timeout: Duration::from_secs(60), ..Options::default() };
    let mut reconciler = Reconciler::new(kernel, settings, options);
    reconciler.take(changes);
    reconciler.pass(Duration::ZERO);
    reconciler
}

fn asked(reconciler: &Reconciler<FakeKernel>, question: Question, now: u64) -> Option<Answer> {
    let problems = reconciler.problems();
    let now = Duration::from_secs(now);
    let subject = Subject {
        view: reconciler.view(),
        problems: &problems,
        now,
        is_informed: true,
        last_pass: None,
        fallback: None,
    };
    answer(&question, &subject)
}

fn told(reconciler: &Reconciler<FakeKernel>, name: &str, now: u64) -> ServiceAnswer {
    match asked(reconciler, Question::Service(ObjectName::new("shop", name)), now) {
        Some(Answer::Service(service)) => *service,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_way_in_and_every_endpoint_is_told() {
    let web = told(&reconciler(FakeKernel::default(), shop()), "web", 0);
    let [port] = &web.ports[..] else { panic!("{web:?}") };
    let ways: Vec<_> =
        port.frontends.iter().map(|way| (way.kind, way.policy, way.address.to_string(), way.port)).collect();
    assert_eq!(
        ways,
        [
            (Kind::ClusterIp, Policy::Cluster, "10.96.0.1".into(), 80),
            (Kind::ExternalIp, Policy::Local, "203.0.113.1".into(), 80),
            (Kind::NodePort, Policy::Local, "192.0.2.1".into(), 30080),
        ]
    );
    let endpoints: Vec<_> =
        port.endpoints.iter().map(|one| (one.name.as_deref(), one.local, one.cluster, one.local_policy)).collect();
    let (chosen, unready) = (Some(Judgement::Chosen), Some(Judgement::NotReady));
    assert_eq!(
        endpoints,
        [
            (Some("web-a"), true, chosen, chosen),
            (Some("web-b"), false, chosen, Some(Judgement::OnOtherNode)),
            (None, true, unready, unready),
        ]
    );
    // By address, and by the mark for clients on this node.
    assert_eq!(web.virtual_servers.len(), 4);
    assert!(
        web.virtual_servers.iter().any(|one| matches!(one.server, Server::Mark { .. }) && one.destinations.len() == 2)
    );
    let routed: Vec<_> = web.routes.iter().map(|route| route.address.to_string()).collect();
    assert_eq!(routed, ["10.96.0.1", "203.0.113.1"]);
}

#[test]
fn who_has_an_address_instead_is_told_and_so_is_what_is_wrong() {
    let kernel = FakeKernel::default();
    let zoo = told(&reconciler(kernel, shop()), "zoo", 0);
    let holders: Vec<_> = zoo.ports[0].frontends.iter().map(|way| way.holder.as_deref()).collect();
    assert_eq!(holders, [None, Some("shop/web")]);
    assert_eq!(zoo.virtual_servers.len(), 1);
    assert!(zoo.problems[0].contains("belongs to Service shop/web, which had it first"), "{:?}", zoo.problems);

    let mut kernel = FakeKernel::default();
    kernel.foreign.insert(VirtualServerKey::new([10, 96, 0, 1].into(), 80, Protocol::Tcp));
    let web = told(&reconciler(kernel, shop()), "web", 0);
    let foreign: Vec<_> = web.ways().map(|(_, way)| way.foreign).collect();
    assert_eq!(foreign, [true, false, false]);
}

#[test]
fn what_drains_is_told_with_the_time_that_is_left() {
    let mut reconciler = reconciler(FakeKernel::default(), shop());
    reconciler.take([slice("web", json!([{ "addresses": ["10.1.0.1"], "nodeName": "node-1" }]))]);
    let key = VirtualServerKey::new([10, 96, 0, 1].into(), 80, Protocol::Tcp);
    let departing = ipvsd::model::DestinationKey { address: [10, 1, 0, 2].into(), port: 8080 };
    reconciler.kernel_mut().connections.insert((key, departing), 3);
    reconciler.pass(Duration::from_secs(10));
    let web = told(&reconciler, "web", 30);
    let of_key: Vec<_> = web.drains.iter().filter(|drain| VirtualServerKey::from(drain.server) == key).collect();
    assert_eq!((of_key.len(), of_key[0].destination, of_key[0].seconds_left), (1, departing.address, 40));
    let Some(Answer::Status(status)) = asked(&reconciler, Question::Status, 30) else { panic!("a status") };
    assert!(status.drains.contains(of_key[0]) && status.draining == status.drains.len());
}

#[test]
fn a_service_is_found_by_where_it_is_reached_and_nobody_by_nothing() {
    let reconciler = reconciler(FakeKernel::default(), shop());
    let at = |last| Question::ServiceAt(VirtualServerKey::new([10, 96, 0, last].into(), 80, Protocol::Tcp));
    assert!(matches!(asked(&reconciler, at(1), 0), Some(Answer::Service(service)) if service.name == "web"));
    assert!(asked(&reconciler, at(9), 0).is_none());
    assert!(asked(&reconciler, Question::Service(ObjectName::new("shop", "nobody")), 0).is_none());
}

#[test]
fn a_status_counts_and_lists_what_is_wrong() {
    let reconciler = reconciler(FakeKernel::default(), shop());
    let problem = Problem {
        origin: Origin::Api,
        object: Some(ObjectRef::Service(ObjectName::new("shop", "web"))),
        field: String::new(),
        message: "is strange".into(),
    };
    let subject = Subject {
        view: reconciler.view(),
        problems: &[problem],
        now: Duration::ZERO,
        is_informed: true,
        last_pass: None,
        fallback: Some("there is\nno IPVS"),
    };
    let status = Status::of(&subject);
    assert_eq!((status.services, status.endpoint_slices, status.virtual_servers), (2, 1, 5));
    assert_eq!(status.fallback.as_deref(), Some("there is\\nno IPVS"));
    assert_eq!(status.problems, ["the API: Service shop/web: is strange"]);
    assert_eq!(status.netfilter.values().collect::<Vec<_>>(), ["masquerade 0x4000, localhost", "masquerade 0x4000"]);
    assert_eq!(serde_json::from_str::<Status>(&serde_json::to_string(&status).unwrap()).unwrap(), status);
}
