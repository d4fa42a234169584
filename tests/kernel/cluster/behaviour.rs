//! What a cluster says is what the kernel has, and where traffic goes.

use super::rig::{IPVS, Rig, in_default, on_node_of_network};
use super::table::{table, ways};
use crate::lab::trial;
use crate::objects::{node, service, slice, with};
use crate::traffic_rig::{self, VIPS, request, requests};
use ipvsd::demo::client::Request;
use ipvsd::demo::network::Network;
use ipvsd::model::Protocol;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::io::ErrorKind;

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("cluster::what_is_put_changed_and_deleted_is_what_the_kernel_has", the_kernel_follows),
        trial("cluster::clients_get_through_while_a_service_is_there_and_are_refused_after_it", clients_get_through),
    ]
}

fn the_kernel_follows() {
    let mut rig = Rig::settled(&[IPVS], [vec![node("a")], everything()].concat());
    assert_eq!(table().len(), 17, "there is enough to be wrong about");
    rig.server.put(slice("plain", &[2, 3, 4]));
    rig.server.put(with(service("plain", 1), "/spec/ports/0/port", json!(8081)));
    rig.until_true();
    rig.server.put(with(slice("local", &[1, 2]), "/endpoints/0/nodeName", json!("worker-2")));
    rig.server.put(with(service("affine", 3), "/spec/sessionAffinity", json!("None")));
    rig.until_true();
    let other = json!({"service.kubernetes.io/service-proxy-name": "other"});
    rig.server.put(with(service("plain", 1), "/metadata/labels", other));
    rig.server.delete("EndpointSlice", "default", "balanced-1");
    rig.until_true();
    for object in everything() {
        let text = |pointer| object.pointer(pointer).unwrap().as_str().unwrap();
        rig.server.delete(text("/kind"), "default", text("/metadata/name"));
        rig.until_true();
    }
    assert!(table().is_empty());
    assert_eq!(rig.metric("ipvsd_objects_rejected_total"), Some(0.0));
}

/// Services of all kinds with their slices.
fn everything() -> Vec<Value> {
    let ports = json!([
        {"name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080},
        {"name": "dns", "protocol": "UDP", "port": 53, "nodePort": 30053},
        {"name": "sctp", "protocol": "SCTP", "port": 80, "nodePort": 30080},
    ]);
    let many = with(service("ports", 2), "/spec/ports", ports.clone());
    let affine = with(service("affine", 3), "/spec/sessionAffinity", json!("ClientIP"));
    let local = with(service("local", 4), "/spec/internalTrafficPolicy", json!("Local"));
    let balanced = with(
        service("balanced", 5),
        "/status/loadBalancer",
        json!({"ingress": [
            {"ip": "203.0.113.20", "ipMode": "VIP"}, {"ip": "203.0.113.21", "ipMode": "Proxy"}, {"hostname": "a.example"},
        ]}),
    );
    vec![
        service("plain", 1),
        slice("plain", &[1, 2]),
        with(with(many, "/spec/type", json!("NodePort")), "/spec/externalTrafficPolicy", json!("Cluster")),
        with(slice("ports", &[1]), "/ports", target_ports()),
        with(affine, "/spec/sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 600}})),
        slice("affine", &[3]),
        local,
        with(slice("local", &[1, 2]), "/endpoints/1/nodeName", json!("worker-2")),
        with(with(balanced, "/spec/type", json!("LoadBalancer")), "/spec/externalIPs", json!(["203.0.113.9"])),
        slice("balanced", &[4]),
        dual_stack(),
        with(
            with(slice("dual", &[]), "/addressType", json!("IPv6")),
            "/endpoints",
            json!([
                {"addresses": ["fd00:10::1"], "conditions": {"ready": true}},
                {"addresses": ["fd00:10::2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            ]),
        ),
        with(service("headless", 7), "/spec/clusterIP", json!("None")),
        service("empty", 8),
        with(service("leaving", 9), "/spec/externalIPs", json!(["203.0.113.10"])),
        with(slice("leaving", &[5]), "/endpoints/0/conditions", json!({"ready": false, "terminating": true})),
    ]
}

fn target_ports() -> Value {
    json!([
        {"name": "http", "protocol": "TCP", "port": 8080},
        {"name": "dns", "protocol": "UDP", "port": 5353},
        {"name": "sctp", "protocol": "SCTP", "port": 8080},
    ])
}

fn dual_stack() -> Value {
    let addresses = json!(["10.96.0.70", "fd00:96::70"]);
    let dual = with(service("dual", 0), "/spec/clusterIP", json!("10.96.0.70"));
    with(with(dual, "/spec/clusterIPs", addresses), "/spec/ipFamilies", json!(["IPv4", "IPv6"]))
}

fn clients_get_through() {
    on_node_of_network(get_through);
}

/// With the configuration as kubeadm writes it, and nothing but its kubeconfig changed.
fn get_through(network: &Network) {
    // Every refusal is to be heard: an ICMP message, of which the kernel sends a client six at once and then one a second.
    network.node.set(&[("net/ipv4/icmp_ratelimit", "0"), ("net/ipv6/icmp/ratelimit", "0")]).unwrap();
    let client = &network.client.namespace;
    let send = |request: Request| client.run(|| Ok(request.send())).unwrap();
    let mut rig = Rig::here(&[]);
    rig.server.put(node("a"));
    let web = traffic_rig::service(
        "web",
        json!({"type": "NodePort", "ports": [
            {"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080},
            {"name": "udp", "port": 80, "protocol": "UDP", "nodePort": 30080},
            {"name": "sctp", "port": 80, "protocol": "SCTP", "nodePort": 30080},
        ]}),
    );
    // What the API server would add.
    rig.server.put(in_default(with(web, "/spec/ipFamilies", json!(["IPv4", "IPv6"]))));
    traffic_rig::slices("web", &network.backends).into_iter().for_each(|slice| rig.server.put(in_default(slice)));
    rig.start();
    let all = [requests(&VIPS), vec![request(Protocol::Tcp, "192.0.2.1", 30080)]].concat();
    for request in &all {
        rig.until(&format!("{request:?} is answered"), |_| send(*request).is_ok());
        // By chance, as that mode is iptables.
        let spread = client.run(|| Ok(request.spread(23)?)).unwrap();
        assert_eq!(spread.len(), 2, "{request:?}");
    }
    rig.server.delete("Service", "default", "web");
    let refused = |request: &Request| send(*request).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
    let at_node_port = request(Protocol::Tcp, "192.0.2.1", 30080);
    rig.until("it is refused", |_| {
        refused(&at_node_port) && VIPS.iter().all(|vip| send(request(Protocol::Tcp, vip, 80)).is_err())
    });
    assert!(ways(&table()).is_empty(), "what is left drains");
}
