//! The role: allows what ipvsd asks of the API, and nothing beside it.

use crate::support::deployment::{Request, Role, documents};

/// Requests as they go over the wire.
const ASKED: &[(&str, &str)] = &[
    ("GET", "/api/v1/services?labelSelector=%21service.kubernetes.io%2Fservice-proxy-name&limit=500"),
    ("GET", "/api/v1/services?watch=true&resourceVersion=1&allowWatchBookmarks=true"),
    ("GET", "/apis/discovery.k8s.io/v1/endpointslices?labelSelector=%21service.kubernetes.io%2Fheadless"),
    ("GET", "/apis/discovery.k8s.io/v1/endpointslices?resourceVersion=1&watch=true"),
    ("GET", "/api/v1/nodes/node-1"),
    ("GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dnode-1"),
    ("GET", "/api/v1/nodes?watch=true&fieldSelector=metadata.name%3Dnode-1"),
    ("POST", "/apis/events.k8s.io/v1/namespaces/default/events?fieldManager=ipvsd"),
    ("PATCH", "/apis/events.k8s.io/v1/namespaces/default/events/node-1.17"),
    ("PUT", "/apis/events.k8s.io/v1/namespaces/web/events/front.17"),
];

/// What its token must be worth nothing for.
const NEVER: &[(&str, &str)] = &[
    ("GET", "/api/v1/secrets"),
    ("GET", "/api/v1/namespaces/kube-system/secrets/token"),
    ("GET", "/api/v1/configmaps"),
    ("GET", "/api/v1/pods"),
    ("GET", "/api/v1/endpoints"),
    ("GET", "/api/v1/namespaces/default/services/web"),
    ("GET", "/api/v1/namespaces"),
    ("GET", "/api/v1/nodes/node-1/proxy/metrics"),
    ("GET", "/apis/events.k8s.io/v1/events"),
    ("GET", "/apis/networking.k8s.io/v1/servicecidrs"),
    ("PATCH", "/api/v1/nodes/node-1"),
    ("PATCH", "/api/v1/nodes/node-1/status"),
    ("PATCH", "/api/v1/namespaces/default/services/web/status"),
    ("POST", "/api/v1/namespaces/default/events"),
    ("DELETE", "/apis/events.k8s.io/v1/namespaces/default/events/node-1.17"),
    ("DELETE", "/apis/events.k8s.io/v1/namespaces/default/events"),
    ("POST", "/api/v1/namespaces/kube-system/serviceaccounts/ipvsd/token"),
    ("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"),
];

#[test]
fn the_role_allows_what_is_asked_and_nothing_beside_it() {
    let role = Role::of_ipvsd();
    let allowed = |(method, target): &(&str, &str)| role.allows(&Request::of_http(method, target).unwrap());
    let refused: Vec<_> = ASKED.iter().filter(|request| !allowed(request)).collect();
    assert!(refused.is_empty(), "{refused:?}");
    let open: Vec<_> = NEVER.iter().filter(|request| allowed(request)).collect();
    assert!(open.is_empty(), "{open:?}");
    assert!(!role.has_wildcard());
}

#[test]
fn the_binding_gives_the_role_to_the_account_of_the_daemon_set() {
    let documents = documents();
    let of_kind = |kind: &str| documents.iter().find(|document| document.kind() == kind).unwrap();
    let binding = of_kind("ClusterRoleBinding");
    let account = of_kind("ServiceAccount").text("/metadata/name");
    assert_eq!(binding.text("/roleRef/kind"), "ClusterRole");
    assert_eq!(binding.text("/roleRef/name"), of_kind("ClusterRole").text("/metadata/name"));
    assert_eq!(binding.value["subjects"].as_array().unwrap().len(), 1);
    assert_eq!(binding.text("/subjects/0/kind"), "ServiceAccount");
    assert_eq!(binding.text("/subjects/0/name"), account);
    assert_eq!(binding.text("/subjects/0/namespace"), "kube-system");
    assert_eq!(of_kind("DaemonSet").text("/spec/template/spec/serviceAccountName"), account);
}

#[test]
fn a_request_is_known_by_verb_group_resource_and_name() {
    for (method, target, verb, group, resource, name) in [
        ("GET", "/api/v1/services", "list", "", "services", None),
        ("GET", "/api/v1/services?watch=1", "watch", "", "services", None),
        ("GET", "/api/v1/namespaces/a", "get", "", "namespaces", Some("a")),
        ("GET", "/api/v1/namespaces/a/services", "list", "", "services", None),
        ("GET", "/api/v1/nodes?fieldSelector=metadata.name%3Da", "list", "", "nodes", Some("a")),
        ("PATCH", "/api/v1/nodes/a/status", "patch", "", "nodes/status", Some("a")),
        ("DELETE", "/apis/apps/v1/namespaces/a/daemonsets", "deletecollection", "apps", "daemonsets", None),
    ] {
        let expected = Request {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            name: name.map(str::to_owned),
        };
        assert_eq!(Request::of_http(method, target), Some(expected), "{target}");
    }
    for target in ["/version", "/", "/apis", "/apis/apps/v1"] {
        assert_eq!(Request::of_http("GET", target), None, "{target}");
    }
}
