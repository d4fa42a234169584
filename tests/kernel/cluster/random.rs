//! A cluster by chance, the same for the same seed: all that an API server takes and that decides what IPVS has.

use crate::objects::{NODE, with};
use serde_json::{Value, json};

/// Numbers by chance (splitmix64, by Guy Steele and others).
pub struct Chance(pub u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of 0 to `count` - 1.
    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(count).unwrap()).unwrap()
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    /// True in `percent` of a hundred cases.
    fn happens(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// A Service, its status if it has one, and its slices.
pub struct Part {
    pub service: Value,
    pub has_status: bool,
    pub slices: Vec<Value>,
}

/// The `number`th part of a cluster.
pub fn part(number: usize, chance: &mut Chance) -> Part {
    let name = format!("s{number}");
    let families = chance.one_of(&[vec!["IPv4"], vec!["IPv6"], vec!["IPv4", "IPv6"], vec!["IPv6", "IPv4"]]);
    let ports = ports(chance);
    let kind = chance.one_of(&["ClusterIP", "NodePort", "LoadBalancer"]);
    let mut service = service(&name, (kind, &families), &ports);
    let spec = &mut service["spec"];
    spec["internalTrafficPolicy"] = json!(chance.one_of(&["Cluster", "Cluster", "Local"]));
    if chance.happens(30) {
        spec["sessionAffinity"] = json!("ClientIP");
        spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": chance.one_of(&[60, 600, 10_800])}});
    }
    if chance.happens(30) {
        spec["externalIPs"] = json!([format!("203.0.113.{number}"), format!("fd00:113::{number:x}")]);
    }
    if kind != "ClusterIP" || !spec["externalIPs"].is_null() {
        spec["externalTrafficPolicy"] = json!(chance.one_of(&["Cluster", "Local"]));
    }
    if kind == "LoadBalancer" {
        spec["allocateLoadBalancerNodePorts"] = json!(chance.happens(70));
        service["status"] = json!({"loadBalancer": {"ingress": ingress(number, chance)}});
    }
    let slices = families.iter().flat_map(|family| slices(&name, (family, number), &ports, chance)).collect();
    Part { has_status: kind == "LoadBalancer", service, slices }
}

fn service(name: &str, (kind, families): (&str, &[&str]), ports: &[Value]) -> Value {
    let policy = if families.len() > 1 { "RequireDualStack" } else { "SingleStack" };
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"type": kind, "ipFamilies": families, "ipFamilyPolicy": policy, "ports": ports},
    })
}

/// One to three with different names, numbers and protocols.
fn ports(chance: &mut Chance) -> Vec<Value> {
    let port = |index: usize, protocol| json!({"name": format!("p{index}"), "port": 80 + index, "protocol": protocol});
    (0..=chance.below(3)).map(|index| port(index, chance.one_of(&["TCP", "UDP", "SCTP"]))).collect()
}

fn ingress(number: usize, chance: &mut Chance) -> Vec<Value> {
    let all = [
        json!({"ip": format!("198.51.100.{number}"), "ipMode": "VIP"}),
        json!({"ip": format!("fd00:100::{number:x}"), "ipMode": "VIP"}),
        json!({"ip": format!("198.51.101.{number}"), "ipMode": "Proxy"}),
        json!({"hostname": "balancer.example"}),
    ];
    all.into_iter().filter(|_| chance.happens(60)).collect()
}

/// None to two slices of a family; each has its own endpoints, and some of the ports.
fn slices(service: &str, (family, number): (&str, usize), ports: &[Value], chance: &mut Chance) -> Vec<Value> {
    let one = |index: usize, chance: &mut Chance| {
        let targets: Vec<_> =
            ports.iter().filter(|_| chance.happens(90)).map(|port| with(port.clone(), "/port", json!(8080))).collect();
        let endpoints: Vec<_> = (0..chance.below(4))
            .map(|host| endpoint(&address(family, number, index * 10 + host + 1), chance))
            .collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{service}-{}-{index}", family.to_lowercase()),
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": family,
            "ports": targets,
            "endpoints": endpoints,
        })
    };
    (0..chance.below(3)).map(|index| one(index, chance)).collect()
}

fn address(family: &str, service: usize, host: usize) -> String {
    if family == "IPv4" { format!("10.244.{service}.{host}") } else { format!("fd00:244:{service:x}::{host:x}") }
}

fn endpoint(address: &str, chance: &mut Chance) -> Value {
    // Mostly ready: else nothing else would matter.
    let (ready, serving, terminating) = chance.one_of(&[
        (true, true, false),
        (true, true, false),
        (true, true, false),
        (false, true, true),
        (false, false, false),
    ]);
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "nodeName": chance.one_of(&[NODE, "worker-2", "worker-3"]),
    });
    if chance.happens(80) {
        endpoint["hints"] = json!({"forZones": [{"name": chance.one_of(&["a", "b"])}]});
    }
    endpoint
}
