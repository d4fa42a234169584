//! The HTTP servers on real sockets of this host: what they answer, byte for byte, and that docs/metrics.md tells the
//! truth about the metrics.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod browser;
mod client;
mod cluster;
mod document;
mod health_check;
#[path = "../support/kubernetes/mod.rs"]
mod kubernetes;
mod metrics;
mod page;
mod rig;

use client::{Answered, ask, get};
use ipvsd::model::Family::{Ipv4, Ipv6};
use kubernetes::objects;
use rig::Rig;

#[tokio::test]
async fn a_healthy_proxy_says_so() {
    let rig = Rig::new();
    let address = rig.healthz().await;
    rig.health.node(true);
    rig.advance_to(5);
    rig.health.updated(Ipv4, rig.now());
    rig.advance_to(20);
    let status = r#""healthy":true,"status":{"IPv4":{"lastUpdated":"2026-11-25T10:00:05Z","healthy":true},"IPv6":{"lastUpdated":"2026-11-25T10:00:00Z","healthy":true}}"#;
    let times = r#""lastUpdated":"2026-11-25T10:00:20Z","currentTime":"2026-11-25T10:00:20Z""#;
    for (path, body) in [
        ("/healthz", format!(r#"{{{times},"nodeEligible":true,{status}}}"#)),
        ("/livez", format!("{{{times},{status}}}")),
    ] {
        let Answered { status, headers, body: told } = get(address, path).await;
        assert_eq!((status, told), (200, body));
        assert_eq!(headers["Content-Type"], "application/json");
        assert_eq!(headers["X-Content-Type-Options"], "nosniff");
    }
}

#[tokio::test]
async fn a_proxy_that_lags_is_unhealthy_until_it_has_caught_up() {
    let rig = Rig::new();
    let address = rig.healthz().await;
    rig.health.node(true);
    rig.health.queued(Ipv6, rig.now());
    for (second, wanted) in [(59, 200), (60, 503), (61, 503)] {
        rig.advance_to(second);
        assert_eq!(get(address, "/healthz").await.status, wanted, "at {second} s");
        assert_eq!(get(address, "/livez").await.status, wanted, "at {second} s");
    }
    let body = get(address, "/livez").await.body;
    let wanted = r#"{"lastUpdated":"2026-11-25T10:00:00Z","currentTime":"2026-11-25T10:01:01Z","healthy":false,"status":{"IPv4":{"lastUpdated":"2026-11-25T10:00:00Z","healthy":true},"IPv6":{"lastUpdated":"2026-11-25T10:00:00Z","healthy":false}}}"#;
    assert_eq!(body, wanted);
    rig.health.updated(Ipv6, rig.now());
    assert_eq!(get(address, "/livez").await.status, 200);
    assert_eq!(rig.series(r#"kubeproxy_proxy_healthz_total{code="200"}"#), "1");
    assert_eq!(rig.series(r#"kubeproxy_proxy_healthz_total{code="503"}"#), "2");
    assert_eq!(rig.series(r#"kubeproxy_proxy_livez_total{code="503"}"#), "3");
}

#[tokio::test]
async fn a_node_that_is_unknown_or_on_its_way_out_gets_no_traffic_and_is_not_restarted() {
    let rig = Rig::new();
    let address = rig.healthz().await;
    for (eligible, wanted) in [(None, 503), (Some(true), 200), (Some(false), 503), (Some(true), 200)] {
        if let Some(eligible) = eligible {
            rig.health.node(eligible);
        }
        let Answered { status, body, .. } = get(address, "/healthz").await;
        assert_eq!(status, wanted, "{eligible:?}");
        let told = format!(r#""nodeEligible":{},"healthy":true"#, eligible.unwrap_or(false));
        assert!(body.contains(&told), "{body}");
        assert_eq!(get(address, "/livez").await.status, 200, "{eligible:?}");
    }
}

#[tokio::test]
async fn the_health_server_has_two_pages_for_every_method() {
    let rig = Rig::new();
    let address = rig.healthz().await;
    rig.health.node(true);
    for path in ["/", "/healthz/", "/healthz/ping", "/livez/x", "/metrics", "//healthz", "/HEALTHZ"] {
        let Answered { status, headers, body } = get(address, path).await;
        assert_eq!((status, body.as_str()), (404, "404 page not found\n"), "{path}");
        assert_eq!(headers["Content-Type"], "text/plain; charset=utf-8");
    }
    for method in ["GET", "POST", "OPTIONS"] {
        let answered = ask(address, method, "/healthz?verbose=1", "").await;
        assert!(answered.status == 200 && answered.body.starts_with('{'), "{method}");
    }
    let head = ask(address, "HEAD", "/healthz", "").await;
    let length = get(address, "/healthz").await.body.len();
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.headers["Content-Length"], length.to_string());
}
