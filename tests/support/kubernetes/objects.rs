//! Objects as a cluster has them.

use serde_json::{Value, json};

/// The node of all tests.
pub const NODE: &str = "worker-1";

/// A Service of one port in the namespace `default`, with a cluster IP that ends in `last`.
pub fn service(name: &str, last: usize) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"app": name},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{\"kind\":\"Service\"}\n"},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": cluster_ip(last),
            "clusterIPs": [cluster_ip(last)],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "selector": {"app": name},
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
        },
        "status": {"loadBalancer": {}},
    })
}

fn cluster_ip(last: usize) -> String {
    format!("10.96.{}.{}", last / 250, last % 250 + 1)
}

/// The EndpointSlice `NAME-1` of the Service `name`, with endpoints that end in these.
pub fn slice(name: &str, endpoints: &[u8]) -> Value {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|last| {
            json!({
                "addresses": [format!("10.1.0.{last}")],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": NODE,
                "targetRef": {"kind": "Pod", "namespace": "default", "name": format!("{name}-{last}")},
                "zone": "a",
            })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{name}-1"),
            "namespace": "default",
            "generateName": format!("{name}-"),
            "labels": {
                "kubernetes.io/service-name": name,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": name, "uid": "0", "controller": true}],
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": endpoints,
    })
}

/// The node of the tests, in a zone.
pub fn node(zone: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE, "labels": {"topology.kubernetes.io/zone": zone}},
        "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"]},
        "status": {"addresses": [
            {"type": "InternalIP", "address": "192.0.2.1"},
            {"type": "Hostname", "address": NODE},
        ]},
    })
}

/// `object` with the value at a JSON pointer replaced or added.
pub fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[key] = value;
    object
}
