//! What the policies `Local` mean where there is another node: each node keeps to its own endpoints, and who is at home on
//! a node reaches all.

use super::lan::{Lan, ask, node_address, pod_address};
use crate::golden_rig::FAMILIES;
use crate::lab::{run, trial};
use ipvsd::demo::client::Request;
use ipvsd::demo::namespace::Namespace;
use ipvsd::model::{Family, Protocol};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "features::with_the_external_policy_local_a_node_serves_its_own_endpoints_to_their_own_clients",
            external,
        ),
        trial("features::with_the_internal_policy_local_a_pod_reaches_the_endpoints_of_its_node_only", internal),
    ]
}

const CLUSTER_IPS: [&str; 2] = ["10.96.0.1", "fd00:96::1"];
const BALANCER_IPS: [&str; 2] = ["198.51.100.1", "fd00:51::1"];
const NODE_PORT: u16 = 30_080;
const HEALTH_CHECK: u16 = 32_000;

/// The load balancer `web` with an external policy.
fn balancer(policy: &str) -> Value {
    let check = if policy == "Local" { HEALTH_CHECK } else { 0 };
    let ingress = BALANCER_IPS.map(|ip| json!({"ip": ip}));
    let mut service = service("web", CLUSTER_IPS);
    service["spec"]["type"] = "LoadBalancer".into();
    service["spec"]["externalTrafficPolicy"] = policy.into();
    service["spec"]["healthCheckNodePort"] = check.into();
    service["spec"]["ports"][0]["nodePort"] = NODE_PORT.into();
    service["status"] = json!({"loadBalancer": {"ingress": ingress}});
    service
}

fn service(name: &str, cluster_ips: [&str; 2]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"clusterIP": cluster_ips[0], "clusterIPs": cluster_ips, "ports": [
            {"name": "tcp", "port": 80, "protocol": "TCP"},
            {"name": "udp", "port": 80, "protocol": "UDP"},
        ]},
    })
}

/// The index of its node, its address, and whether it is ready, or terminating.
type Endpoint = (usize, fn(usize, Family) -> IpAddr, bool);

fn slices(service: &str, endpoints: &[Endpoint]) -> [Value; 2] {
    FAMILIES.map(|family| {
        let endpoint = |(node, address, ready): &Endpoint| {
            json!({
                "addresses": [address(*node, family)],
                "nodeName": format!("node-{}", node + 1),
                "conditions": {"ready": ready, "serving": true, "terminating": !ready},
            })
        };
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{service}-{}", family.name().to_lowercase()),
                "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": family.name(),
            "ports": [
                {"name": "tcp", "port": 8080, "protocol": "TCP"},
                {"name": "udp", "port": 8080, "protocol": "UDP"},
            ],
            "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        })
    })
}

/// The first pod of a node.
fn pod(node: usize, family: Family) -> IpAddr {
    pod_address((node, 0), family)
}

fn of(addresses: [&str; 2], family: Family) -> IpAddr {
    addresses[if family == Family::Ipv4 { 0 } else { 1 }].parse().unwrap()
}

/// The only endpoint is on the first node. The policy goes from `Local` to `Cluster` and back.
fn external() {
    let mut lan = Lan::new();
    lan.start(&[vec![balancer("Local")], slices("web", &[(0, pod, true)]).to_vec()].concat());
    outside(&mut lan, 200);
    within(&lan);

    lan.put(&balancer("Cluster"));
    for (node, family) in both_nodes() {
        lan.until("every node serves every endpoint", |lan| health(lan, node, family).is_none());
        for target in ways_in(&lan, node, family) {
            let answer = ask(&lan.client, target).unwrap();
            assert_eq!(answer.name, "pod-1-1", "{target}");
            assert_ne!(answer.source, client_address(family), "{target}: answers come back by the node");
        }
    }

    lan.put(&balancer("Local"));
    outside(&mut lan, 200);
    // While its pod terminates a node serves, and tells load balancers that it is about to stop.
    slices("web", &[(0, pod, false)]).iter().for_each(|slice| lan.put(slice));
    outside(&mut lan, 503);
}

/// The first node serves the client, and the second has nothing for it.
fn outside(lan: &mut Lan, status_of_the_first: u16) {
    for (node, family) in both_nodes() {
        let wanted = if node == 0 { status_of_the_first } else { 503 };
        lan.until(&format!("{family} node {node} says {wanted}"), |lan| health(lan, node, family) == Some(wanted));
        for target in ways_in(lan, node, family) {
            match node {
                0 => assert_eq!(
                    ask(&lan.client, target).map(|answer| (answer.name, answer.source)).unwrap(),
                    ("pod-1-1".into(), client_address(family)),
                    "{target}"
                ),
                _ => assert!(is_silent(&lan.client, target), "{target}"),
            }
        }
    }
    // Nor was anything led to the first node, whose answers would have passed the second one by.
    let connections = lan.nodes[1].run(|| Ok(run("ipvsadm", &["-Lnc"]))).unwrap();
    assert!(!connections.contains("SYN_RECV"), "{connections}");
}

/// Who is at home on a node reaches the endpoint by every way.
fn within(lan: &Lan) {
    for (node, family) in both_nodes() {
        for from in [&lan.pods[node][1], &lan.nodes[node]] {
            let targets = ways_in(lan, node, family).into_iter().chain([(of(CLUSTER_IPS, family), 80).into()]);
            for target in targets {
                assert_eq!(ask(from, target).unwrap().name, "pod-1-1", "{node} {target}");
            }
        }
    }
}

fn both_nodes() -> impl Iterator<Item = (usize, Family)> {
    [0, 1].into_iter().flat_map(|node| FAMILIES.map(|family| (node, family)))
}

/// A node's port, and the load balancer's address once packets for it are sent to that node.
fn ways_in(lan: &Lan, node: usize, family: Family) -> [SocketAddr; 2] {
    lan.lead(of(BALANCER_IPS, family), node);
    [(node_address(node, family), NODE_PORT).into(), (of(BALANCER_IPS, family), 80).into()]
}

fn client_address(family: Family) -> IpAddr {
    of(["192.0.2.2", "fd00:2::2"], family)
}

/// What a node tells load balancers; nothing if it does not listen.
fn health(lan: &Lan, node: usize, family: Family) -> Option<u16> {
    let check = SocketAddr::new(node_address(node, family), HEALTH_CHECK);
    let get = || {
        let mut stream = TcpStream::connect(check)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = lan.client.run(get).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

fn is_silent(from: &Namespace, target: SocketAddr) -> bool {
    let connect = || Ok(TcpStream::connect_timeout(&target, Duration::from_millis(250)));
    from.run(connect).unwrap().is_err_and(|error| error.kind() == ErrorKind::TimedOut)
}

/// Of `web` there is a pod on each node, of `host` a server on the first node itself.
fn internal() {
    let local = |name, ips| {
        let mut service = service(name, ips);
        service["spec"]["internalTrafficPolicy"] = "Local".into();
        service
    };
    let (web, host) = (CLUSTER_IPS, ["10.96.0.2", "fd00:96::2"]);
    let mut lan = Lan::new();
    let objects = vec![local("web", web), local("host", host)];
    let endpoints = [slices("web", &[(0, pod, true), (1, pod, true)]), slices("host", &[(0, node_address, true)])];
    lan.start(&[objects, endpoints.concat()].concat());
    for (node, family) in both_nodes() {
        lan.until("it is served", |lan| ask(&lan.nodes[node], (of(web, family), 80).into()).is_ok());
        for from in [&lan.pods[node][1], &lan.nodes[node]] {
            let ask = |_| ask(from, (of(web, family), 80).into()).unwrap().name;
            let names: BTreeSet<_> = (0..3).map(ask).collect();
            assert_eq!(names, BTreeSet::from([format!("pod-{}-1", node + 1)]), "{family}");
            // A refusal by datagram is heard at once.
            let protocol = if node == 0 { Protocol::Tcp } else { Protocol::Udp };
            let to_host = Request::new(protocol, (of(host, family), 80).into());
            let answer = from.run(|| Ok(to_host.send())).unwrap();
            match node {
                0 => assert_eq!(answer.unwrap().name, "node-1"),
                _ => assert!(is_refusal(answer.unwrap_err().kind()), "{family}"),
            }
        }
    }
}

/// A node's own datagram is not even sent.
fn is_refusal(kind: ErrorKind) -> bool {
    [ErrorKind::ConnectionRefused, ErrorKind::PermissionDenied].contains(&kind)
}
