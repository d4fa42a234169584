//! What EndpointSlices become, and the words for those that are not taken.

use super::*;
use crate::model::Family;
use crate::state::{Endpoint, EndpointNames, NodeHint, SlicePort, Whereabouts, Zones};
use std::sync::Arc;

#[test]
fn a_full_slice_comes_out_whole() {
    let found = read_slice(
        &json!({
            "metadata": { "namespace": "shop", "annotations": { "ipvsd.io/weights": "10.1.0.1=3,*=2" } },
            "ports": [{ "name": "http", "port": 8080 }, { "name": "dns", "protocol": "UDP", "port": 5353 }],
            "endpoints": [
                {
                    "addresses": ["10.1.0.01", "10.1.0.9"],
                    "conditions": { "ready": null },
                    "targetRef": { "kind": "Pod", "name": "web-x2k" },
                },
                { "addresses": ["10.1.0.2"], "conditions": { "ready": false, "serving": true, "terminating": true } },
                { "addresses": ["10.1.0.3"], "conditions": null, "nodeName": "node-1", "hints": null },
            ],
        }),
        Rules::Manifest,
    );
    let endpoint = |address: &str, ready, terminating, weight| Endpoint {
        address: address.parse().unwrap(),
        weight,
        ready,
        serving: true,
        terminating,
        node: if address == "10.1.0.3" { Whereabouts::Here } else { Whereabouts::Unsaid },
        node_hint: NodeHint::None,
        zones: None,
    };
    let wanted = EndpointSlice {
        name: ObjectName::new("shop", "web-1"),
        origin: origin(),
        service: ObjectName::new("shop", "web"),
        family: Family::Ipv4,
        is_of_nodes: true,
        ports: vec![
            SlicePort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 },
            SlicePort { name: "dns".into(), protocol: Protocol::Udp, port: 5353 },
        ],
        endpoints: vec![
            endpoint("10.1.0.1", true, false, 3),
            endpoint("10.1.0.2", false, true, 2),
            endpoint("10.1.0.3", true, false, 2),
        ],
        names: EndpointNames::new(["web-x2k", "", ""]),
    };
    assert_eq!(found, Ok(Some(wanted)));
}

#[test]
fn where_an_endpoint_is_and_whom_it_is_for_is_told_apart() {
    let names = |names: &[&str]| Value::Array(names.iter().map(|name| json!({ "name": name })).collect());
    for (node_name, zones, nodes, wanted) in [
        (json!(null), &[][..], &[][..], (Whereabouts::Unsaid, NodeHint::None, None)),
        (json!("node-1"), &["a"], &[], (Whereabouts::Here, NodeHint::None, Zones::new(["a"]))),
        (
            json!("node-2"),
            &["b", "a"],
            &["node-2"],
            (Whereabouts::Elsewhere, NodeHint::Elsewhere, Zones::new(["a", "b"])),
        ),
        (json!("node-2"), &[], &["node-2", "node-1"], (Whereabouts::Elsewhere, NodeHint::Here, None)),
    ] {
        let hints = json!({ "forZones": names(zones), "forNodes": names(nodes) });
        let patch = json!({ "endpoints": [{ "addresses": ["10.1.0.1"], "nodeName": node_name, "hints": hints }] });
        for rules in [Rules::Manifest, Rules::Api] {
            let found = read_slice(&patch, rules).unwrap().unwrap().endpoints.remove(0);
            let wanted = (wanted.0, wanted.1, wanted.2.clone().map(Arc::new));
            assert_eq!((found.node, found.node_hint, found.zones), wanted, "{patch}");
        }
    }
}

#[test]
fn without_a_node_name_nothing_is_local() {
    let hints = json!({ "forNodes": [{ "name": "" }] });
    let patch = json!({ "endpoints": [{ "addresses": ["10.1.0.1"], "nodeName": "", "hints": hints }] });
    let raw = serde_json::from_value(patched(web_slice(), &patch)).unwrap();
    let found = endpoint_slice(&raw, &origin(), &Context::new(Rules::Api, "")).map(whole).unwrap().unwrap();
    assert_eq!((found.endpoints[0].node, found.endpoints[0].node_hint), (Whereabouts::Unsaid, NodeHint::Elsewhere));
}

#[test]
fn slices_without_addresses_to_use_are_nothing() {
    for patch in [
        json!({ "addressType": "FQDN", "endpoints": [{ "addresses": ["example.com"] }] }),
        json!({ "metadata": { "labels": { "service.kubernetes.io/headless": "" } }, "endpoints": [{}] }),
    ] {
        assert_eq!(read_slice(&patch, Rules::Manifest), Ok(None), "{patch}");
    }
}

fn bad_hints() -> Vec<Bad> {
    let endpoint = |more: Value| json!({ "endpoints": [patched(json!({ "addresses": ["10.1.0.1"] }), &more)] });
    let zones = |zones: Value| endpoint(json!({ "hints": { "forZones": zones } }));
    let many: Vec<Value> = (0..9).map(|number| json!({ "name": format!("z{number}") })).collect();
    vec![
        (
            endpoint(json!({ "nodeName": "Node 1" })),
            "endpoints[0].nodeName",
            "\"Node 1\" is not a name: at most 253 characters of a-z, 0-9, - and . are",
        ),
        (zones(json!([{}])), "endpoints[0].hints.forZones[0].name", "missing"),
        (
            zones(json!([{ "name": "zone a" }])),
            "endpoints[0].hints.forZones[0].name",
            "\"zone a\" is not a zone: at most 63 characters of a-z, A-Z, 0-9, -, _ and . are",
        ),
        (
            zones(json!([{ "name": "a" }, { "name": "a" }])),
            "endpoints[0].hints.forZones[1].name",
            "\"a\" is taken by hints.forZones[0]",
        ),
        (zones(json!(many)), "endpoints[0].hints.forZones", "has 9 entries: at most 8 may be"),
        (
            endpoint(json!({ "hints": { "forNodes": [{ "name": "node_1" }] } })),
            "endpoints[0].hints.forNodes[0].name",
            "\"node_1\" is not a name: at most 253 characters of a-z, 0-9, - and . are",
        ),
    ]
}

/// A patch of the EndpointSlice `web-1`, the field that is to blame and the message.
fn bad_slices() -> Vec<Bad> {
    let ports = |ports: Value| json!({ "ports": ports });
    let second = |address: &str| json!({ "endpoints": [{ "addresses": ["10.1.0.1"] }, { "addresses": [address] }] });
    vec![
        (
            json!({ "metadata": { "labels": null } }),
            "metadata.labels[kubernetes.io/service-name]",
            "missing: it names the Service that the endpoints belong to",
        ),
        (json!({ "addressType": null }), "addressType", "missing: IPv4 or IPv6"),
        (json!({ "addressType": "ipv4" }), "addressType", "\"ipv4\" is not a type: IPv4, IPv6 and FQDN are"),
        (ports(json!([{ "name": "http" }])), "ports[0].port", "missing"),
        (ports(json!([{ "port": 0 }])), "ports[0].port", "0 is not a port: 1 to 65535 are"),
        (
            ports(json!([{ "port": 1, "protocol": "ICMP" }])),
            "ports[0].protocol",
            "\"ICMP\" is not a protocol: TCP, UDP and SCTP are",
        ),
        (
            ports(json!([{ "name": "a", "port": 1 }, { "name": "a", "protocol": "UDP", "port": 1 }])),
            "ports[1].name",
            "\"a\" is taken by ports[0]",
        ),
        (json!({ "endpoints": [{}] }), "endpoints[0].addresses", "missing: an endpoint needs an address"),
        (second("backend-2"), "endpoints[1].addresses[0]", "\"backend-2\" is not an IP address"),
        (
            second("169.254.0.1"),
            "endpoints[1].addresses[0]",
            "169.254.0.1 is a link-local address, which cannot be proxied",
        ),
        (second("fd00::1"), "endpoints[1].addresses[0]", "fd00::1 is not of the slice's addressType, IPv4"),
        (
            json!({ "metadata": { "annotations": { "ipvsd.io/weights": "10.1.0.9=1" } } }),
            "metadata.annotations[ipvsd.io/weights]",
            "10.1.0.9 is not the address of an endpoint here",
        ),
        (
            json!({ "metadata": { "annotations": { "ipvsd.io/weight": "10.1.0.1=1" } } }),
            "metadata.annotations[ipvsd.io/weight]",
            "unknown annotation: here ipvsd knows ipvsd.io/weights",
        ),
    ]
}

#[test]
fn a_bad_slice_is_a_problem_that_names_the_field() {
    for (patch, field, message) in [bad_slices(), bad_hints()].concat() {
        let problem = read_slice(&patch, Rules::Manifest).expect_err(&patch.to_string());
        assert_eq!((problem.field.as_str(), problem.message.as_str()), (field, message), "{patch}");
        assert_eq!(problem.object, Some(ObjectRef::EndpointSlice(ObjectName::new("default", "web-1"))));
    }
}

#[test]
fn parts_of_a_slice_from_the_api_that_cannot_be_used_are_skipped() {
    let found = read_slice(
        &json!({
            "metadata": { "annotations": { "ipvsd.io/weights": "10.1.0.9=5" } },
            "ports": [{ "port": 1 }, { "name": "a" }, { "name": "b", "port": 0 }, { "name": "", "port": 8080 }],
            "endpoints": [{}, { "addresses": ["fd00::1"] }, { "addresses": ["10.1.0.1"] }],
        }),
        Rules::Api,
    )
    .unwrap()
    .unwrap();
    assert_eq!(found.ports, [SlicePort { name: "".into(), protocol: Protocol::Tcp, port: 8080 }]);
    assert_eq!(found.endpoints.iter().map(|endpoint| endpoint.address).collect::<Vec<_>>(), addresses(["10.1.0.1"]));
    for patch in [json!({ "metadata": { "labels": null } }), json!({ "addressType": "IPv5" })] {
        assert_eq!(read_slice(&patch, Rules::Api), Ok(None), "{patch}");
    }
}
