//! Services that are not taken, field by field, and the words that say why.

use super::*;

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
