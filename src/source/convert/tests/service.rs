//! Services that are taken, and what of the API's is left out.

use super::*;
use crate::model::{Family, SchedulerFlags};
use crate::state::{Scheduling, ServicePort, TrafficPolicy};

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
