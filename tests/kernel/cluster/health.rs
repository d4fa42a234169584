//! What the running daemon tells the world: health, health checks of Services, metrics, pages and Events.

use super::rig::{IPVS, METRICS, Rig, get};
use crate::lab::{run, trial};
use crate::objects::{NODE, node, service, slice, with};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::net::TcpListener;

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("cluster::health_follows_the_node_object", health_follows_the_node),
        trial("cluster::a_health_check_is_served_as_long_as_its_service_is_there", health_check),
        trial("cluster::events_are_written_of_the_start_and_of_a_port_that_is_taken", events),
        trial("cluster::metrics_count_what_happened", metrics),
        trial("cluster::what_somebody_else_removed_comes_back_and_is_counted", drift),
    ]
}

fn health_follows_the_node() {
    let mut rig = Rig::new(&[IPVS]);
    rig.server.put(service("web", 1));
    rig.server.put(slice("web", &[1]));
    rig.start();
    rig.until("it serves", |rig| rig.health("/livez") == 200);
    assert_eq!(rig.health("/healthz"), 503, "nothing is known");
    rig.until_true();
    assert_eq!(rig.health("/healthz"), 503, "Services are served, the Node is not known");
    assert_eq!(rig.health("/livez"), 200);
    assert_eq!(get(METRICS, "/proxyMode"), Some((200, "ipvs".to_owned())));
    let (_, configz) = get(METRICS, "/configz").unwrap();
    assert!(configz.contains("\"mode\":\"ipvs\""), "{configz}");
    let (_, page) = get(METRICS, "/?q=default/we").unwrap();
    for text in [&*format!("<h1>ipvsd on {NODE}</h1>"), "ipvs, as asked", "default/web", "10.96.0.2:80/TCP"] {
        assert!(page.contains(text), "{text} in {page}");
    }

    let tainted = json!([{"key": "ToBeDeletedByClusterAutoscaler", "value": "1", "effect": "NoSchedule"}]);
    for (object, healthz) in [
        (node("a"), 200),
        (with(node("a"), "/spec/taints", tainted), 503),
        (node("a"), 200),
        (with(node("a"), "/metadata/deletionTimestamp", json!("2026-11-25T10:00:00Z")), 503),
        (node("a"), 200),
    ] {
        rig.server.put(object);
        rig.until(&format!("healthz is {healthz}"), |rig| rig.health("/healthz") == healthz);
        assert_eq!(rig.health("/livez"), 200);
        rig.until_true();
    }
    rig.server.delete("Node", "", NODE);
    rig.until_said(&["this node's Node object was deleted"]);
    rig.until_true();
    assert_eq!(["/healthz", "/livez"].map(|page| rig.health(page)), [200, 200], "what it said stays in force");
}

/// A Service that tells load balancers of its endpoints here.
fn balanced(name: &str, last: usize, port: u16) -> Value {
    let service = with(service(name, last), "/spec/type", json!("LoadBalancer"));
    let service = with(service, "/spec/externalTrafficPolicy", json!("Local"));
    with(service, "/spec/healthCheckNodePort", json!(port))
}

fn health_check() {
    const CHECK: &str = "192.0.2.1:32000";
    let answer = || get(CHECK, "/").map(|(status, body)| (status, local_endpoints(&body)));
    let mut rig = Rig::settled(&[IPVS], vec![node("a"), balanced("web", 1, 32_000), slice("web", &[1, 2])]);
    rig.until("both are counted", |_| answer() == Some((200, 2)));
    let elsewhere = with(slice("web", &[1, 2]), "/endpoints/0/nodeName", json!("worker-2"));
    rig.server.put(elsewhere.clone());
    rig.until("one is left", |_| answer() == Some((200, 1)));
    rig.server.put(with(elsewhere, "/endpoints/1/nodeName", json!("worker-2")));
    rig.until("none is left", |_| answer() == Some((503, 0)));
    rig.server.delete("Service", "default", "web");
    rig.until("it is closed", |_| answer().is_none());
}

fn local_endpoints(body: &str) -> u64 {
    serde_json::from_str::<Value>(body).unwrap()["localEndpoints"].as_u64().unwrap()
}

fn events() {
    let _taken = TcpListener::bind("0.0.0.0:32001").unwrap();
    let mut rig = Rig::settled(&[IPVS], vec![node("a"), balanced("web", 1, 32_001), slice("web", &[1])]);
    let reasons = |rig: &Rig| rig.server.written().iter().map(|event| event["reason"].clone()).collect::<Vec<_>>();
    rig.until("both are written", |rig| reasons(rig).len() == 2);
    assert_eq!(reasons(&rig), ["Starting", "FailedToStartServiceHealthcheck"]);
    let written = rig.server.written();
    assert_eq!(written[0]["regarding"]["name"], NODE);
    assert_eq!(
        (&written[1]["regarding"]["kind"], &written[1]["regarding"]["name"]),
        (&json!("Service"), &json!("web"))
    );
    rig.until_said(&["32001", "in use"]);
}

fn metrics() {
    let mut rig = Rig::settled(&[IPVS], vec![node("a"), service("web", 1), slice("web", &[1])]);
    let syncs = "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"}";
    let programmed = "kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv4\"}";
    let changes = ["endpoint", "service"].map(|of| format!("kubeproxy_sync_proxy_rules_{of}_changes_total"));
    let series = |rig: &Rig| [syncs, programmed, &changes[0], &changes[1]].map(|name| rig.metric(name).unwrap());
    rig.until("the first pass is counted", |rig| rig.metric(syncs) >= Some(1.0));
    let [syncs_before, programmed_before, endpoints_before, services_before] = series(&rig);
    assert_eq!((programmed_before, endpoints_before, services_before), (0.0, 1.0, 1.0));

    rig.server.put(service("more", 2));
    rig.until_true();
    let now = run("date", &["-u", "+%FT%T.%NZ"]).trim_end().to_owned();
    let annotations = json!({"endpoints.kubernetes.io/last-change-trigger-time": now});
    rig.server.put(with(slice("web", &[1, 2]), "/metadata/annotations", annotations));
    rig.until_true();
    rig.until("its way is measured", |rig| rig.metric(programmed) == Some(1.0));
    let [syncs_after, _, endpoints_after, services_after] = series(&rig);
    assert!(syncs_after >= syncs_before + 2.0, "{syncs_before} {syncs_after}");
    assert_eq!((endpoints_after, services_after), (2.0, 2.0));
    for (series, at_least) in [
        ("ipvsd_programming_duration_seconds_count", 3.0),
        ("ipvsd_passes_total{result=\"whole\"}", 3.0),
        ("kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"}", 1.7e9),
        ("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family=\"IPv6\"}", 1.7e9),
        ("process_start_time_seconds", 1.7e9),
    ] {
        assert!(rig.metric(series) >= Some(at_least), "{series} {:?}", rig.metric(series));
    }
    for series in ["ipvsd_objects_rejected", "ipvsd_drift_repaired_total", "ipvsd_queue_age_seconds"] {
        assert_eq!(rig.metric(series), Some(0.0), "{series}");
    }
    let (_, all) = get(METRICS, "/metrics").unwrap();
    let requests = all.lines().filter(|line| line.starts_with("rest_client_requests_total{code=\"200\""));
    assert!(requests.count() > 0, "{all}");
}

fn drift() {
    // The one of the section ipvs.
    let often = ("syncPeriod: 0s\n  tcpFinTimeout", "syncPeriod: 1s\n  tcpFinTimeout");
    let mut rig = Rig::settled(&[IPVS, often], vec![node("a"), service("web", 1), slice("web", &[1, 2])]);
    run("ipvsadm", &["-D", "-t", "10.96.0.2:80"]);
    rig.until_true();
    rig.until("it is counted", |rig| rig.metric("ipvsd_drift_repaired_total") >= Some(1.0));
}
