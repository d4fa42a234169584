//! What each Service and EndpointSlice becomes, or the exact words that say why it does not.

use super::*;
use crate::model::{Family, SchedulerFlags};
use crate::state::{
    Endpoint, EndpointNames, Families, NodeHint, Scheduling, ServicePort, SlicePort, TrafficPolicy, Zones,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const FILE: &str = "web.yaml";

fn origin() -> Origin {
    Origin::Manifest { file: FILE.into(), document: 1 }
}

/// `base` with the values of `patch` in place of its own, mappings merged, as a JSON merge patch.
fn patched(mut base: Value, patch: &Value) -> Value {
    match (base.as_object_mut(), patch.as_object()) {
        (Some(fields), Some(changes)) => {
            for (key, change) in changes {
                let field = fields.remove(key).unwrap_or(Value::Null);
                fields.insert(key.clone(), patched(field, change));
            }
            base
        }
        _ => patch.clone(),
    }
}

fn web() -> Value {
    json!({
        "metadata": { "name": "web" },
        "spec": { "clusterIP": "10.0.0.1", "ports": [{ "port": 80 }] },
    })
}

fn web_slice() -> Value {
    json!({
        "metadata": { "name": "web-1", "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4",
        "ports": [{ "port": 8080 }],
        "endpoints": [{ "addresses": ["10.1.0.1"] }, { "addresses": ["10.1.0.2"] }],
    })
}

/// What a patch of the Service `web` becomes; that a manifest's is used in spite of a problem is none.
fn read_service(patch: &Value, rules: Rules) -> Result<Option<Service>, Problem> {
    service(&serde_json::from_value(patched(web(), patch)).unwrap(), &origin(), &context(rules)).map(whole)
}

fn read_slice(patch: &Value, rules: Rules) -> Result<Option<EndpointSlice>, Problem> {
    endpoint_slice(&serde_json::from_value(patched(web_slice(), patch)).unwrap(), &origin(), &context(rules)).map(whole)
}

fn context(rules: Rules) -> Context {
    Context::new(rules, "node-1")
}

fn whole<T>(converted: Option<Converted<T>>) -> Option<T> {
    converted.map(|converted| {
        assert_eq!(converted.problems, []);
        converted.object
    })
}

/// The fields of a Service of the API that it is used without, and what is wrong with them.
fn slips<T>(converted: Outcome<T>) -> (T, Vec<(String, String)>) {
    let Ok(Some(Converted { object, problems })) = converted else { panic!("it is not used") };
    (object, problems.into_iter().map(|problem| (problem.field, problem.message)).collect())
}

fn addresses<const N: usize>(texts: [&str; N]) -> Vec<std::net::IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_full_service_comes_out_whole() {
    let found = read_service(
        &json!({
            "metadata": { "namespace": "shop", "annotations": { "ipvsd.io/scheduler": "mh", "ipvsd.io/drain-timeout": "1m30s", "other.io/x": "y" } },
            "spec": {
                "type": "LoadBalancer",
                "clusterIP": "10.0.0.01", "clusterIPs": ["10.0.0.1", "FD00::1"],
                "externalIPs": ["192.0.2.7", "192.0.2.007"],
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 60 } },
                "ipFamilies": ["IPv4", "IPv6"],
                "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local",
                "healthCheckNodePort": 32000,
                "loadBalancerSourceRanges": [" 198.51.100.7/24", "192.0.2.0/025 "],
                "ports": [
                    { "name": "http", "port": 80, "targetPort": "web", "nodePort": 30080 },
                    { "name": "dns", "protocol": "UDP", "port": 53, "targetPort": 5353, "nodePort": 0 },
                    { "name": "dns-sctp", "protocol": "SCTP", "port": 53, "nodePort": 30080 },
                ],
            },
            "status": { "loadBalancer": { "ingress": [
                { "ip": "203.0.113.1" }, { "hostname": "lb.example.com" },
                { "ip": "203.0.113.2", "ipMode": "Proxy" }, { "ip": "203.0.113.3", "ipMode": "VIP" },
            ] } },
        }),
        Rules::Manifest,
    );
    let port = |name: &str, protocol, port, node_port| ServicePort { name: name.into(), protocol, port, node_port };
    let wanted = Service {
        name: ObjectName::new("shop", "web"),
        origin: origin(),
        families: Families::BOTH,
        cluster_ips: addresses(["10.0.0.1", "fd00::1"]),
        external_ips: addresses(["192.0.2.7"]),
        load_balancer_ips: addresses(["203.0.113.1", "203.0.113.3"]),
        source_ranges: vec!["198.51.100.0/24".parse().unwrap(), "192.0.2.0/25".parse().unwrap()],
        ports: vec![
            port("http", Protocol::Tcp, 80, Some(30080)),
            port("dns", Protocol::Udp, 53, None),
            port("dns-sctp", Protocol::Sctp, 53, Some(30080)),
        ],
        affinity: Some(60),
        internal_policy: TrafficPolicy::Local,
        external_policy: TrafficPolicy::Local,
        health_check_node_port: Some(32_000),
        scheduling: Some(Scheduling { scheduler: "mh".parse().unwrap(), flags: SchedulerFlags::PORT }),
        drain_timeout: Some(Duration::from_secs(90)),
    };
    assert_eq!(found, Ok(Some(wanted)));
}

#[test]
fn a_small_service_gets_the_defaults_of_the_api_server() {
    let null = json!({
        "spec": {
            "externalIPs": null, "ipFamilies": null, "sessionAffinity": "ClientIP", "externalTrafficPolicy": "",
            "healthCheckNodePort": 0, "loadBalancerSourceRanges": null,
        },
        "status": null,
    });
    for rules in [Rules::Manifest, Rules::Api] {
        let found = read_service(&null, rules).unwrap().unwrap();
        assert_eq!(found.name, ObjectName::new("default", "web"));
        assert_eq!(found.ports[0].protocol, Protocol::Tcp);
        assert_eq!(&*found.ports[0].name, "");
        assert_eq!((found.affinity, found.scheduling), (Some(10_800), None));
        assert_eq!((found.internal_policy, found.external_policy), (TrafficPolicy::Cluster, TrafficPolicy::Cluster));
        assert_eq!((found.health_check_node_port, found.source_ranges), (None, vec![]));
        assert_eq!(found.families, Families { ipv4: true, ipv6: rules == Rules::Manifest });
    }
}

#[test]
fn services_of_others_are_nothing() {
    for patch in [
        json!({ "spec": { "type": "ExternalName", "externalName": "example.com", "ports": null } }),
        json!({ "spec": { "clusterIP": "None", "ports": null } }),
        json!({ "spec": { "clusterIP": null, "clusterIPs": ["None"] } }),
        json!({ "metadata": { "labels": { "service.kubernetes.io/service-proxy-name": "" } } }),
        json!({ "metadata": { "labels": { "service.kubernetes.io/service-proxy-name": null } } }),
    ] {
        for rules in [Rules::Manifest, Rules::Api] {
            assert_eq!(read_service(&patch, rules), Ok(None), "{patch}");
        }
    }
}

/// What to change in a good object, the field that is to blame then, and the message.
type Bad = (Value, &'static str, &'static str);

fn bad_addresses() -> Vec<Bad> {
    vec![
        (json!({ "spec": { "clusterIP": "10.0.0.256" } }), "spec.clusterIP", "\"10.0.0.256\" is not an IP address"),
        (
            json!({ "spec": { "clusterIP": "127.0.0.1" } }),
            "spec.clusterIP",
            "127.0.0.1 is a loopback address, which cannot be proxied",
        ),
        (json!({ "spec": { "clusterIPs": ["10.0.0.1", ""] } }), "spec.clusterIPs[1]", "\"\" is not an IP address"),
        (
            json!({ "spec": { "clusterIPs": ["10.0.0.1", "10.0.0.2"] } }),
            "spec.clusterIPs[1]",
            "10.0.0.2 is a second address of its family",
        ),
        (
            json!({ "spec": { "clusterIPs": ["10.0.0.2"] } }),
            "spec.clusterIPs[0]",
            "10.0.0.2 is not 10.0.0.1, spec.clusterIP",
        ),
        (
            json!({ "spec": { "clusterIP": null } }),
            "spec.clusterIP",
            "missing: a Service needs spec.clusterIP, spec.externalIPs, status.loadBalancer.ingress[].ip or \
             spec.ports[].nodePort",
        ),
        (
            json!({ "spec": { "externalIPs": ["192.0.2.1", "lb.example.com"] } }),
            "spec.externalIPs[1]",
            "\"lb.example.com\" is not an IP address",
        ),
        (
            json!({ "status": { "loadBalancer": { "ingress": [{ "hostname": "a" }, { "ip": "fe80::1" }] } } }),
            "status.loadBalancer.ingress[1].ip",
            "fe80::1 is a link-local address, which cannot be proxied",
        ),
        (
            json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.1", "ipMode": "vip" }] } } }),
            "status.loadBalancer.ingress[0].ipMode",
            "\"vip\" is not a mode: VIP and Proxy are",
        ),
    ]
}

fn bad_ports() -> Vec<Bad> {
    let ports = |ports: Value| json!({ "spec": { "ports": ports } });
    vec![
        (ports(json!([])), "spec.ports", "missing: a Service needs at least one port"),
        (ports(json!([{}])), "spec.ports[0].port", "missing"),
        (ports(json!([{ "port": 0 }])), "spec.ports[0].port", "0 is not a port: 1 to 65535 are"),
        (ports(json!([{ "port": 65536 }])), "spec.ports[0].port", "65536 is not a port: 1 to 65535 are"),
        (ports(json!([{ "port": 80.5 }])), "spec.ports[0].port", "80.5 is not a port: 1 to 65535 are"),
        (ports(json!([{ "port": 80, "nodePort": -1 }])), "spec.ports[0].nodePort", "-1 is not a port: 1 to 65535 are"),
        (
            ports(json!([{ "port": 80, "protocol": "tcp" }])),
            "spec.ports[0].protocol",
            "\"tcp\" is not a protocol: TCP, UDP and SCTP are",
        ),
        (
            ports(json!([{ "name": "a", "port": 80 }, { "port": 81 }])),
            "spec.ports[1].name",
            "missing: each of several ports needs a name",
        ),
        (
            ports(json!([{ "name": "a", "port": 80 }, { "name": "a", "port": 81 }])),
            "spec.ports[1].name",
            "\"a\" is taken by spec.ports[0]",
        ),
        (
            ports(json!([{ "name": "a", "port": 80 }, { "name": "b", "port": 81 }, { "name": "c", "port": 80 }])),
            "spec.ports[2].port",
            "tcp port 80 is taken by spec.ports[0]",
        ),
        (
            ports(json!([{ "name": "a", "port": 80, "nodePort": 9 }, { "name": "b", "port": 81, "nodePort": 9 }])),
            "spec.ports[1].nodePort",
            "tcp node port 9 is taken by spec.ports[0]",
        ),
    ]
}

fn bad_families() -> Vec<Bad> {
    let families = |families: Value| json!({ "spec": { "ipFamilies": families } });
    vec![
        (families(json!(["ipv4"])), "spec.ipFamilies[0]", "\"ipv4\" is not a family: IPv4 and IPv6 are"),
        (families(json!(["IPv4", "IPv4"])), "spec.ipFamilies[1]", "IPv4 is taken by spec.ipFamilies[0]"),
        (
            families(json!(["IPv6", "IPv4"])),
            "spec.clusterIPs[0]",
            "10.0.0.1 is not of the family that spec.ipFamilies[0] says",
        ),
        (
            json!({ "spec": { "clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4"] } }),
            "spec.clusterIPs[1]",
            "fd00::1 is not of the family that spec.ipFamilies[1] says",
        ),
    ]
}

fn bad_policies() -> Vec<Bad> {
    let balanced = |spec: Value| {
        let ports = json!([{ "port": 80, "nodePort": 30_080 }]);
        json!({ "spec": patched(json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": ports }), &spec) })
    };
    let health_check = "spec.healthCheckNodePort";
    let needs = "needs spec.type LoadBalancer and spec.externalTrafficPolicy Local";
    vec![
        (
            json!({ "spec": { "internalTrafficPolicy": "local" } }),
            "spec.internalTrafficPolicy",
            "\"local\" is not a policy: Cluster and Local are",
        ),
        (
            balanced(json!({ "externalTrafficPolicy": "Global" })),
            "spec.externalTrafficPolicy",
            "\"Global\" is not a policy: Cluster and Local are",
        ),
        (
            json!({ "spec": { "externalTrafficPolicy": "Cluster" } }),
            "spec.externalTrafficPolicy",
            "is for spec.externalIPs, status.loadBalancer.ingress[].ip and spec.ports[].nodePort: there are none",
        ),
        (balanced(json!({ "healthCheckNodePort": 65_536 })), health_check, "65536 is not a port: 1 to 65535 are"),
        (balanced(json!({ "healthCheckNodePort": 32_000, "externalTrafficPolicy": null })), health_check, needs),
        (balanced(json!({ "healthCheckNodePort": 32_000, "type": "NodePort" })), health_check, needs),
        (
            balanced(json!({ "healthCheckNodePort": 30_080 })),
            health_check,
            "tcp node port 30080 is taken by spec.ports[0]",
        ),
        (
            balanced(json!({ "loadBalancerSourceRanges": ["192.0.2.0/24", "192.0.2.1"] })),
            "spec.loadBalancerSourceRanges[1]",
            "\"192.0.2.1\" is not an address range such as 192.0.2.0/24",
        ),
        (
            json!({ "spec": { "loadBalancerSourceRanges": ["192.0.2.0/24"] } }),
            "spec.loadBalancerSourceRanges",
            "needs spec.type LoadBalancer",
        ),
    ]
}

fn other_bad_fields() -> Vec<Bad> {
    let affinity = |seconds: Value| {
        let config = json!({ "clientIP": { "timeoutSeconds": seconds } });
        json!({ "spec": { "sessionAffinity": "ClientIP", "sessionAffinityConfig": config } })
    };
    let timeout = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
    vec![
        (
            json!({ "metadata": { "namespace": "a/b" } }),
            "metadata.namespace",
            "\"a/b\" is not a name: at most 253 characters of a-z, 0-9, - and . are",
        ),
        (
            json!({ "spec": { "type": "Loadbalancer" } }),
            "spec.type",
            "\"Loadbalancer\" is not a type: ClusterIP, NodePort, LoadBalancer and ExternalName are",
        ),
        (
            json!({ "spec": { "sessionAffinity": "clientip" } }),
            "spec.sessionAffinity",
            "\"clientip\" is not an affinity: None and ClientIP are",
        ),
        (affinity(json!(0)), timeout, "0 is not a timeout: 1 to 86400 are"),
        (affinity(json!(86_401)), timeout, "86401 is not a timeout: 1 to 86400 are"),
        (
            json!({ "metadata": { "annotations": { "ipvsd.io/scheduler": "" } } }),
            "metadata.annotations[ipvsd.io/scheduler]",
            "\"\" is not a scheduler name: 1 to 15 characters of a-z, 0-9, _ and - are",
        ),
    ]
}

#[test]
fn a_bad_service_is_a_problem_that_names_the_field() {
    let bad = [bad_addresses(), bad_ports(), bad_families(), bad_policies(), other_bad_fields()];
    for (patch, field, message) in bad.concat() {
        let problem = read_service(&patch, Rules::Manifest).expect_err(&patch.to_string());
        assert_eq!((problem.field.as_str(), problem.message.as_str()), (field, message), "{patch}");
    }
    let problem = read_service(&json!({ "spec": { "clusterIP": "x" } }), Rules::Manifest).unwrap_err();
    let text = "web.yaml, document 1: Service default/web: spec.clusterIP: \"x\" is not an IP address";
    assert_eq!(problem.to_string(), text);
}

#[test]
fn an_object_without_a_name_is_a_problem_without_an_object() {
    for name in [json!(null), json!("")] {
        let patch = json!({ "metadata": { "name": name } });
        let service = read_service(&patch, Rules::Manifest).unwrap_err();
        assert_eq!(service.to_string(), "web.yaml, document 1: metadata.name: missing");
        assert_eq!(read_slice(&patch, Rules::Manifest), Err(service));
    }
}

#[test]
fn a_service_is_good_with_any_one_kind_of_frontend() {
    for patch in [
        json!({ "spec": { "clusterIP": "" , "clusterIPs": ["fd00::1"] } }),
        json!({ "spec": { "clusterIP": null, "externalIPs": ["192.0.2.1"] } }),
        json!({ "spec": { "clusterIP": null, "ports": [{ "port": 80, "nodePort": 30080 }] } }),
        json!({ "spec": { "clusterIP": null }, "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } } }),
    ] {
        assert!(matches!(read_service(&patch, Rules::Manifest), Ok(Some(_))), "{patch}");
    }
}

#[test]
fn what_the_api_server_let_through_is_skipped_as_kube_proxy_does() {
    let found = read_service(
        &json!({
            "spec": {
                "type": "Future", "externalIPs": ["", "192.0.2.01"], "sessionAffinity": "Future",
                "internalTrafficPolicy": "Future", "externalTrafficPolicy": "Future",
                "healthCheckNodePort": 32_000, "loadBalancerSourceRanges": ["bad", "203.0.113.000/025"],
            },
            "status": { "loadBalancer": { "ingress": [{ "ip": "bad" }, { "ip": "192.0.2.2", "ipMode": "Future" }] } },
        }),
        Rules::Api,
    )
    .unwrap()
    .unwrap();
    assert_eq!((found.external_ips, found.load_balancer_ips), (addresses(["192.0.2.1"]), vec![]));
    assert_eq!((found.affinity, found.health_check_node_port), (None, None));
    assert_eq!((found.internal_policy, found.external_policy), (TrafficPolicy::Cluster, TrafficPolicy::Cluster));
    assert_eq!(found.source_ranges, ["203.0.113.0/25".parse().unwrap()]);
}

#[test]
fn a_service_of_the_api_is_proxied_in_the_families_of_its_cluster_ips() {
    for (ip, ips, families, wanted) in [
        ("", json!([]), json!([]), &[][..]),
        ("", json!(["10.0.0.2"]), json!(["IPv4"]), &[]),
        ("10.0.0.2", json!(["10.0.0.2", "fd00::2"]), json!([]), &["10.0.0.2"]),
        ("fd00::2", json!([]), json!([]), &["fd00::2"]),
        ("10.0.0.2", json!(["10.0.0.2"]), json!(["IPv4"]), &["10.0.0.2"]),
        ("10.0.0.2", json!(["10.0.0.2", "fd00::2"]), json!(["IPv4", "IPv6"]), &["10.0.0.2", "fd00::2"]),
        ("fd00::2", json!(["fd00::2", "10.0.0.2"]), json!(["IPv6", "IPv4"]), &["fd00::2", "10.0.0.2"]),
        ("10.0.0.2", json!(["10.0.0.2", "fd00::2"]), json!(["IPv4"]), &["10.0.0.2"]),
        ("10.0.0.2", json!(["10.0.0.2"]), json!(["IPv4", "IPv6"]), &["10.0.0.2"]),
        ("10.0.0.2", json!(["10.0.0.2"]), json!(["IPv6"]), &[]),
        ("10.0.0.2", json!([]), json!(["IPv4"]), &[]),
        ("bad", json!(["bad", "fd00::2"]), json!(["IPv4", "IPv6"]), &["fd00::2"]),
        ("172.30.0.041", json!(["172.30.0.041"]), json!(["IPv4"]), &["172.30.0.41"]),
    ] {
        let patch = json!({ "spec": {
            "clusterIP": ip, "clusterIPs": ips, "ipFamilies": families,
            "externalIPs": ["192.0.2.1", "2001:db8::1"], "type": "LoadBalancer",
            "loadBalancerSourceRanges": ["192.0.2.0/24"],
        } });
        let found = read_service(&patch, Rules::Api).unwrap();
        let cluster_ips = found.as_ref().map(|found| found.cluster_ips.clone()).unwrap_or_default();
        assert_eq!(cluster_ips.iter().map(ToString::to_string).collect::<Vec<_>>(), wanted, "{patch}");
        let Some(found) = found else { continue };
        assert_eq!(found.families, cluster_ips.iter().map(|ip| Family::of(*ip)).collect(), "{patch}");
        let others = found.external_ips.iter().filter(|ip| !found.families.contains(Family::of(**ip)));
        assert_eq!(others.count(), 0, "{patch}");
    }
}

#[test]
fn families_of_a_manifest_are_those_that_it_names() {
    let spec = json!({ "ipFamilies": ["IPv4"], "externalIPs": ["192.0.2.1", "2001:db8::1"] });
    let found = read_service(&json!({ "spec": spec }), Rules::Manifest).unwrap().unwrap();
    assert_eq!((found.families, found.external_ips), (Families { ipv4: true, ipv6: false }, addresses(["192.0.2.1"])));
}

#[test]
fn a_range_of_everything_opens_its_family() {
    for (ranges, wanted) in [
        (json!(["192.0.2.0/24", "0.0.0.0/0", "2001:db8::/32"]), &["2001:db8::/32"][..]),
        (json!(["192.0.2.0/24", "::/0", "2001:db8::/32"]), &["192.0.2.0/24"]),
        (json!(["0.0.0.0/0"]), &[]),
    ] {
        let patch = json!({ "spec": { "type": "LoadBalancer", "loadBalancerSourceRanges": ranges } });
        for rules in [Rules::Manifest, Rules::Api] {
            let found = read_service(&patch, rules).unwrap().unwrap();
            assert_eq!(found.source_ranges.iter().map(ToString::to_string).collect::<Vec<_>>(), wanted, "{patch}");
        }
    }
}

#[test]
fn a_health_check_is_for_load_balancers_and_the_policy_local() {
    for (kind, policy, wanted) in [
        ("LoadBalancer", "Local", Some(32_000)),
        ("LoadBalancer", "Cluster", None),
        ("NodePort", "Local", None),
        ("ClusterIP", "Local", None),
    ] {
        let spec = json!({ "type": kind, "externalTrafficPolicy": policy, "healthCheckNodePort": 32_000 });
        let found = read_service(&json!({ "spec": spec }), Rules::Api).unwrap().unwrap();
        assert_eq!(found.health_check_node_port, wanted, "{kind} {policy}");
    }
}

#[test]
fn what_only_ipvsd_minds_costs_an_object_of_the_api_nothing_else() {
    let patch = json!({
        "metadata": { "annotations": { "ipvsd.io/scheduler": "Round Robin", "ipvsd.io/drain-timeout": "1m" } },
        "spec": { "externalIPs": ["127.0.0.1", "192.0.2.1"] },
    });
    let raw = serde_json::from_value(patched(web(), &patch)).unwrap();
    let (service, wrong) = slips(service(&raw, &origin(), &context(Rules::Api)));
    assert_eq!((service.external_ips, service.scheduling), (addresses(["192.0.2.1"]), None));
    assert_eq!(service.drain_timeout, Some(Duration::from_secs(60)), "each annotation for itself");
    let message = "\"Round Robin\" is not a scheduler name: 1 to 15 characters of a-z, 0-9, _ and - are";
    let wanted = [
        ("spec.externalIPs[0]", "127.0.0.1 is a loopback address, which cannot be proxied"),
        ("metadata.annotations[ipvsd.io/scheduler]", message),
    ];
    assert_eq!(wrong, wanted.map(|(field, message)| (field.to_owned(), message.to_owned())));

    let patch = json!({ "metadata": { "annotations": { "ipvsd.io/weights": "10.1.0.1=heavy" } } });
    let raw = serde_json::from_value(patched(web_slice(), &patch)).unwrap();
    let (slice, wrong) = slips(endpoint_slice(&raw, &origin(), &context(Rules::Api)));
    assert_eq!(slice.endpoints.iter().map(|endpoint| endpoint.weight).collect::<Vec<_>>(), [1, 1]);
    let wanted = ("metadata.annotations[ipvsd.io/weights]", "\"heavy\" is not a weight: 0 to 65535 are");
    assert_eq!(wrong, [(wanted.0.to_owned(), wanted.1.to_owned())]);

    let special = json!({ "spec": { "clusterIP": "169.254.1.1", "ports": [{ "port": 80, "nodePort": 30_080 }] } });
    let raw = serde_json::from_value(patched(web(), &special)).unwrap();
    let (service, wrong) = slips(super::service(&raw, &origin(), &context(Rules::Api)));
    assert_eq!((service.families, service.cluster_ips), (Families { ipv4: true, ipv6: false }, vec![]));
    assert_eq!(wrong[0].1, "169.254.1.1 is a link-local address, which cannot be proxied");
}

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
        is_local: address == "10.1.0.3",
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
        (json!(null), &[][..], &[][..], (false, NodeHint::None, None)),
        (json!("node-1"), &["a"], &[], (true, NodeHint::None, Zones::new(["a"]))),
        (json!("node-2"), &["b", "a"], &["node-2"], (false, NodeHint::Elsewhere, Zones::new(["a", "b"]))),
        (json!("node-2"), &[], &["node-2", "node-1"], (false, NodeHint::Here, None)),
    ] {
        let hints = json!({ "forZones": names(zones), "forNodes": names(nodes) });
        let patch = json!({ "endpoints": [{ "addresses": ["10.1.0.1"], "nodeName": node_name, "hints": hints }] });
        for rules in [Rules::Manifest, Rules::Api] {
            let found = read_slice(&patch, rules).unwrap().unwrap().endpoints.remove(0);
            let wanted = (wanted.0, wanted.1, wanted.2.clone().map(Arc::new));
            assert_eq!((found.is_local, found.node_hint, found.zones), wanted, "{patch}");
        }
    }
}

#[test]
fn without_a_node_name_nothing_is_local() {
    let hints = json!({ "forNodes": [{ "name": "" }] });
    let patch = json!({ "endpoints": [{ "addresses": ["10.1.0.1"], "nodeName": "", "hints": hints }] });
    let raw = serde_json::from_value(patched(web_slice(), &patch)).unwrap();
    let found = endpoint_slice(&raw, &origin(), &Context::new(Rules::Api, "")).map(whole).unwrap().unwrap();
    assert_eq!((found.endpoints[0].is_local, found.endpoints[0].node_hint), (false, NodeHint::Elsewhere));
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
