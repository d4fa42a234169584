//! The pages of the metrics server.

use crate::client::{Answered, ask, get};
use crate::rig::Rig;
use futures_util::future::BoxFuture;
use ipvsd::model::Family::Ipv4;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[tokio::test]
async fn each_page_is_there_with_its_media_type() {
    let rig = Rig::new();
    let address = rig.metrics_server(false).await;
    let text = "text/plain; charset=utf-8";
    for (path, media_type, body) in [
        ("/healthz", text, "ok"),
        ("/healthz/ping", text, "ok"),
        ("/proxyMode", text, "ipvs"),
        ("/configz", "application/json", r#"{"kubeproxy.config.k8s.io":{}}"#),
    ] {
        let answered = get(address, path).await;
        assert_eq!((answered.status, answered.body.as_str()), (200, body), "{path}");
        assert_eq!(answered.headers["Content-Type"], media_type, "{path}");
        assert_eq!(answered.headers["X-Content-Type-Options"], "nosniff", "{path}");
    }
    for (path, line) in [
        ("/metrics", "kubernetes_feature_enabled{name=\"AllowServiceExternalIPs\",stage=\"\"} 1\n"),
        ("/metrics/slis", "kubernetes_healthchecks_total{name=\"ping\",status=\"success\",type=\"healthz\"} 2\n"),
    ] {
        let answered = get(address, path).await;
        assert_eq!(answered.headers["Content-Type"], "text/plain; version=0.0.4; charset=utf-8");
        assert!(answered.status == 200 && answered.body.contains(line), "{path}: {}", answered.body);
    }
}

#[tokio::test]
async fn everything_else_is_not_found() {
    let address = Rig::new().metrics_server(false).await;
    for path in [
        "//",
        "/index.html",
        "/livez",
        "/metrics/",
        "/healthz/x",
        "/debug/pprof/",
        "/debug/pprof/heap",
        "/debug/flags/v",
    ] {
        let Answered { status, body, .. } = get(address, path).await;
        assert_eq!((status, body.as_str()), (404, "404 page not found\n"), "{path}");
    }
}

#[tokio::test]
async fn the_age_of_the_queue_is_measured_when_asked_for() {
    let rig = Rig::new();
    let address = rig.metrics_server(false).await;
    rig.health.queued(Ipv4, rig.now());
    rig.advance_to(7);
    assert!(get(address, "/metrics").await.body.contains("\nipvsd_queue_age_seconds 7\n"));
}

#[tokio::test]
async fn what_goes_through_services_is_among_the_metrics_if_it_can_be_had() {
    for (traffic, wanted) in [(Some("ipvsd_service_connections_total{} 7\n"), true), (None, false)] {
        let told = Arc::new(move || {
            Box::pin(ready(traffic.map(|text: &str| Arc::new(text.to_owned())))) as BoxFuture<'static, _>
        });
        let mut rig = Rig::new();
        rig.traffic = Some(told);
        let Answered { status, headers, body } = get(rig.metrics_server(false).await, "/metrics").await;
        assert_eq!(headers["Content-Type"], "text/plain; version=0.0.4; charset=utf-8");
        assert!(status == 200 && body.contains("\nipvsd_queue_age_seconds 0\n"), "the rest is there: {body}");
        assert_eq!(body.ends_with("\nipvsd_service_connections_total{} 7\n"), wanted, "{body}");
    }
}

#[tokio::test]
async fn the_pages_for_people_are_text_or_nothing() {
    let rig = Rig::new();
    let address = rig.metrics_server(false).await;
    rig.advance_to(3_725);
    let warning = "Warning: this is for people to read; its form may change at any time.\n\n";
    let version = env!("CARGO_PKG_VERSION");
    for (path, body) in [
        ("/flagz", format!("\nipvsd flags\n{warning}config=/var/lib/kube-proxy/config.conf\nv=2\n")),
        (
            "/statusz",
            format!(
                "\nipvsd statusz\n{warning}Started: Wed Nov 25 10:00:00 UTC 2026\nUp: 1 hr 02 min 05 sec\n\
                 Binary version: {version}\nPaths: /configz /flagz /healthz /metrics /statusz\n"
            ),
        ),
    ] {
        for accept in [
            "",
            "Accept: \r\n",
            "Accept: */*\r\n",
            "Accept: application/json, TEXT/plain;q=0.5\r\n",
            "Accept: text/*\r\n",
        ] {
            let answered = ask(address, "GET", path, accept).await;
            assert_eq!((answered.status, &answered.body), (200, &body), "{accept}");
        }
        let structured = "Accept: application/json;v=v1beta1;g=config.k8s.io;as=Flagz\r\n";
        for accept in [structured, "Accept: text/html\r\n", "Accept: text/plainer\r\n"] {
            assert_eq!(ask(address, "GET", path, accept).await.status, 406, "{accept}");
        }
    }
}

#[tokio::test]
async fn the_logs_verbosity_can_be_put_where_profiling_is_on() {
    let rig = Rig::new();
    let address = rig.metrics_server(true).await;
    let put = async |body: &str| {
        let lines = format!("Content-Length: {}\r\n\r\n{body}", body.len());
        ask(address, "PUT", "/debug/flags/v", &lines).await
    };
    for (body, status, level) in
        [("4", 200, 4), ("7\n", 200, 7), ("", 400, 7), ("many", 400, 7), ("99999999999", 400, 7)]
    {
        assert_eq!(put(body).await.status, status, "{body:?}");
        assert_eq!(rig.verbosity.load(Ordering::Relaxed), level, "{body:?}");
    }
    assert_eq!(put(&"4".repeat(2_000)).await.status, 413);
    assert_eq!(get(address, "/debug/flags/v").await.status, 406);
}
