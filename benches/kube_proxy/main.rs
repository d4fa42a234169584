//! The mode iptables beside kube-proxy in the same: the first sync of ten thousand Services, and how long a new endpoint
//! waits for its first connection.
//!
//! `./dev bench kube_proxy`, with kube-proxy, kube-apiserver and etcd in `KUBEBUILDER_ASSETS`. One API server has the
//! cluster. Each proxy gets a network of its own on this machine's kernel, with either kind of iptables, one after the
//! other, the flags and the questions being the same.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot run ends by panicking"
)]

#[path = "../../tests/support/kubernetes/mod.rs"]
mod kubernetes;

mod proxy;

use ipvsd::demo::client::Request;
use ipvsd::demo::wait::wait_for;
use ipvsd::model::Protocol;
use kubernetes::control_plane::{ControlPlane, assets};
use kubernetes::{control_plane, objects, relay};
use proxy::{Node, Proxy};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

const SERVICES: u32 = 10_000;
/// Of them, those that get a new endpoint under each proxy.
const CHANGES: u32 = 25;
/// From a start to the last Service, or from a change to its effect.
const PATIENCE: Duration = Duration::from_secs(300);

/// Both proxies gather changes for a second after the last pass: one that comes later comes alone.
const PAUSE: Duration = Duration::from_millis(1500);

/// What should hold with a kind of iptables.
struct Goals {
    kind: &'static str,
    /// Of the first sync.
    first_sync: Duration,
    /// How many times as long that of kube-proxy takes.
    ratio: f64,
    /// Of half of the changes.
    change: Duration,
}

const GOALS: [Goals; 2] = [
    Goals { kind: "nft", first_sync: Duration::from_secs(3), ratio: 15.0, change: Duration::from_millis(50) },
    // There kube-proxy's rules, whose number makes it slow with the other kind, are a matter of a second too.
    Goals { kind: "legacy", first_sync: Duration::from_secs(3), ratio: 1.0, change: Duration::from_millis(200) },
];

/// What one proxy takes.
struct Measured {
    /// From the start of the process until Services all over the cluster answer.
    start: Duration,
    /// Its own metric of the first sync of IPv4.
    first_sync: Duration,
    /// From the API server's answer to the first connection to a new endpoint, in order.
    changes: Vec<Duration>,
}

fn main() -> ExitCode {
    if !assets().is_some_and(|assets| assets.join("kube-proxy").exists()) {
        println!("not measured: it needs kube-proxy, kube-apiserver and etcd in KUBEBUILDER_ASSETS");
        return ExitCode::SUCCESS;
    }
    let plane = ControlPlane::start(&[]);
    plane.put(&objects::node("a"));
    plane.put_status(&objects::node("a"));
    for number in 0..SERVICES {
        plane.put(&objects::service(&name(number), number.try_into().unwrap()));
        plane.put(&slice(number, 2));
    }
    let mut next = 0..;
    let mut missed = 0;
    for goals in GOALS {
        let kind = goals.kind;
        if !Command::new(format!("iptables-{kind}-save")).output().is_ok_and(|output| output.status.success()) {
            println!("{kind}: this kernel has none");
            continue;
        }
        let [theirs, ours] = [Proxy::Kube, Proxy::Ipvsd].map(|proxy| {
            let numbers = next.by_ref().take(CHANGES.try_into().unwrap());
            measure(&plane, proxy, kind, numbers.map(|number| number * 61 % SERVICES))
        });
        missed += compare(&goals, &theirs, &ours);
    }
    ExitCode::from(u8::from(missed > 0))
}

fn measure(plane: &ControlPlane, proxy: Proxy, kind: &str, changed: impl Iterator<Item = u32>) -> Measured {
    let node = Node::build(kind, plane.address());
    let kubeconfig = plane.kubeconfig_at(proxy::API, "system:kube-proxy");
    let begun = Instant::now();
    let mut daemon = node.start(proxy, &kubeconfig);
    // From the last to the first, as a proxy may begin with any.
    let asked = (0..SERVICES).rev().step_by(499);
    for number in asked {
        let answers = || {
            daemon.check()?;
            Ok(node.ask(request(number)))
        };
        wait_for(PATIENCE, answers).unwrap().unwrap();
    }
    let start = begun.elapsed();
    let first_sync = wait_for(PATIENCE, || Ok(node.first_sync())).unwrap().unwrap();
    let change = |number| {
        std::thread::sleep(PAUSE);
        plane.put(&slice(number, 3));
        let acknowledged = Instant::now();
        while node.ask(request(number)).as_deref() != Some("backend-3") {
            assert!(acknowledged.elapsed() < PATIENCE, "a new endpoint gets no connection");
        }
        acknowledged.elapsed()
    };
    Measured { start, first_sync, changes: changed.map(change).collect() }
}

/// Prints how it is with rules of one kind; returns how many goals are missed.
fn compare(goals: &Goals, theirs: &Measured, ours: &Measured) -> usize {
    let Goals { kind, first_sync, ratio, change } = goals;
    println!("\n{kind}, {SERVICES} Services x 2 endpoints      kube-proxy        ipvsd    ratio");
    let first = format!("{ratio} at least, {} ms at most", first_sync.as_millis());
    let times = row("first sync, by its own metric", theirs.first_sync, ours.first_sync, &first);
    row("from the start to the last Service", theirs.start, ours.start, "");
    let [half_theirs, half_ours] = [theirs, ours].map(|measured| half(&measured.changes));
    row("a new endpoint, half of them", half_theirs, half_ours, &format!("{} ms at most", change.as_millis()));
    [times < *ratio, ours.first_sync > *first_sync, half_ours > *change].into_iter().filter(|missed| *missed).count()
}

/// Prints and returns how many times as long theirs takes.
fn row(name: &str, theirs: Duration, ours: Duration, goal: &str) -> f64 {
    let [theirs, ours] = [theirs, ours].map(|time| time.as_secs_f64() * 1000.0);
    println!("{name:<36} {theirs:>9.1} ms {ours:>9.1} ms {:>8.1}  {goal}", theirs / ours);
    theirs / ours
}

/// The time that half of these do not exceed.
fn half(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}

fn request(number: u32) -> Request {
    let service = objects::service("", number.try_into().unwrap());
    let address: IpAddr = service["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
    Request::new(Protocol::Tcp, SocketAddr::from((address, 80)))
}

fn name(number: u32) -> String {
    format!("service-{number}")
}

/// The EndpointSlice of a Service, with so many of the backends.
fn slice(number: u32, endpoints: u8) -> Value {
    let endpoint = |backend: u8| {
        json!({
            "addresses": [format!("10.244.{backend}.2")],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": objects::NODE,
        })
    };
    objects::with(objects::slice(&name(number), &[]), "/endpoints", (1..=endpoints).map(endpoint).collect())
}
