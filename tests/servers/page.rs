//! The page for people.

use crate::client::{Answered, ask, get};
use crate::cluster::{Cluster, endpoints_of, of_service, read_service, served};
use crate::objects::{service, with};
use crate::rig::Rig;
use ipvsd::kernel::Errno;
use ipvsd::kernel::fake::FakeKernel;
use ipvsd::metrics::Pass;
use ipvsd::model::Family::Ipv4;
use ipvsd::model::Op;
use ipvsd::reconcile::Report;
use ipvsd::server::{Ask, Unanswered};
use ipvsd::state::{Change, ObjectName};
use serde_json::json;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What is between tags, a line for each row of a table.
pub fn rows(page: &str) -> Vec<Vec<String>> {
    page.split("<tr>").skip(1).map(|row| cells(row.split("</tr>").next().unwrap())).collect()
}

fn cells(row: &str) -> Vec<String> {
    let texts = row.split("</t").filter_map(|cell| cell.rsplit_once('>').or(Some(("", cell))));
    let mut cells: Vec<_> = texts.map(|(_, text)| text.to_owned()).collect();
    // What comes after the last cell.
    cells.pop();
    cells
}

/// Two Services, of which one drains and the other remembers its clients.
pub fn shop() -> Cluster {
    let dns = with(service("dns", 9), "/spec/sessionAffinity", json!("ClientIP"));
    let dns = with(dns, "/spec/externalIPs", json!(["203.0.113.7"]));
    let kernel = FakeKernel::default();
    let mut cluster = Cluster::new(kernel).programmed(served("web", 0, &[1, 2, 3]));
    cluster.connect();
    cluster.programmed([Change::Service(read_service(dns).into()), endpoints_of("web", &[1, 2])])
}

#[tokio::test]
async fn it_says_what_the_node_does() {
    let rig = Rig::about(shop().ask());
    let address = rig.metrics_server(false).await;
    rig.health.node(true);
    rig.advance_to(65);
    rig.metrics.pass(&Pass {
        report: &Report::default(),
        took: Duration::from_micros(1500),
        ended: Duration::ZERO,
        news: &[Duration::from_millis(3); 2],
    });
    let Answered { status, headers, body } = get(address, "/").await;
    assert_eq!((status, headers["Content-Type"].as_str()), (200, "text/html; charset=utf-8"));
    for (header, value) in
        [("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"), ("Cache-Control", "no-store")]
    {
        assert_eq!(headers[header], value);
    }
    assert!(headers["Content-Security-Policy"].starts_with("default-src 'none'; style-src 'sha256-"));
    for text in [
        "<title>ipvsd on worker-1: healthy</title>",
        "<dt>Mode</dt><dd>ipvs, as asked</dd>",
        "<dt>Up for</dt><dd>1 min 5 s</dd>",
        "<dt>Services</dt><dd>2</dd>",
        "<dt>Virtual servers</dt><dd>3</dd>",
        "<dt>Destinations</dt><dd>2</dd>",
        "<dt>Draining</dt><dd>1</dd>",
        "The last pass ended 3 s ago and took 7 ms.",
        "3 ways in.",
    ] {
        assert!(body.contains(text), "{text} in {body}");
    }
    let wanted = "\
IPv4|yes|2026-11-25T10:00:00Z, 1 min 5 s ago
IPv6|yes|2026-11-25T10:00:00Z, 1 min 5 s ago
From news to the kernel|2|5ms|5ms|5ms
Passes|1|2ms|2ms|2ms
default/dns|http|cluster IP|10.96.0.10:80/TCP|rr|10800 s|Cluster|0|0|no endpoints
default/dns|http|external IP|203.0.113.7:80/TCP|rr|10800 s|Cluster|0|0|no endpoints
default/web|http|cluster IP|10.96.0.1:80/TCP|rr||Cluster|2|1|draining";
    let rows: Vec<_> = rows(&body).into_iter().map(|cells| cells.join("|")).collect();
    let is_heading = |row: &&String| ["Family|", "What|", "Service|"].iter().any(|first| row.starts_with(first));
    assert_eq!(rows.iter().filter(|row| !is_heading(row)).cloned().collect::<Vec<_>>().join("\n"), wanted);

    let head = ask(address, "HEAD", "/", "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.headers["Content-Length"], body.len().to_string());
}

#[tokio::test]
async fn ways_in_are_found_by_name_and_by_address() {
    let address = Rig::about(shop().ask()).metrics_server(false).await;
    for (query, found) in [
        ("q=", vec!["10.96.0.10:80/TCP", "203.0.113.7:80/TCP", "10.96.0.1:80/TCP"]),
        ("q=WEB+", vec!["10.96.0.1:80/TCP"]),
        ("q=default%2Fdns", vec!["10.96.0.10:80/TCP", "203.0.113.7:80/TCP"]),
        ("q=10.96.0.1", vec!["10.96.0.10:80/TCP", "10.96.0.1:80/TCP"]),
        ("q=0.1%3A80", vec!["10.96.0.1:80/TCP"]),
        ("q=nobody", vec![]),
    ] {
        let page = get(address, &format!("/?{query}")).await.body;
        let services = rows(&page).into_iter().filter(|cells| cells[0].starts_with("default/"));
        assert_eq!(services.map(|cells| cells[3].clone()).collect::<Vec<_>>(), found, "{query}");
        assert!(page.contains(&format!("<p>{} ways in.</p>", found.len())), "{query}");
    }
}

/// A cluster in which somebody has got everything past the API server that could be markup.
pub fn hostile() -> Cluster {
    let evil = "<script>console.error('owned')</script>\"><img src=x onerror=console.error('owned')>";
    let mut service = read_service(service("web", 0));
    service.name = ObjectName::new("a&b", evil);
    service.ports[0].name = "'</table><h1>owned</h1>".into();
    let field = "metadata.annotations[</td><style>td { color: red }</style>]";
    let cluster = Cluster::new(FakeKernel::default()).programmed([Change::Service(service.into())]);
    cluster.with_problem(of_service(evil), field)
}

#[tokio::test]
async fn what_others_write_is_no_markup() {
    let address = Rig::about(hostile().ask()).metrics_server(false).await;
    for query in ["", "?q=%22%3E%3Cscript%3Econsole.error(%27owned%27)%3C/script%3E", "?q=onerror"] {
        let page = get(address, &format!("/{query}")).await.body;
        for markup in ["<script", "<img", "<h1>owned", "</style>]", "onerror=console.error('"] {
            assert!(!page.contains(markup), "{markup} in {page}");
        }
        assert_eq!(page.matches("<style>").count(), 1);
    }
    let page = get(address, "/?q=%22%27%3E").await.body;
    assert!(page.contains("value=\"&quot;&#39;&gt;\""), "{page}");
    assert!(get(address, "/").await.body.contains("a&amp;b/&lt;script&gt;"));
}

#[tokio::test]
async fn neither_endpoints_nor_values_are_told() {
    let cluster = shop().with_problem(of_service("web"), "spec.externalIPs[0]");
    let page = get(Rig::about(cluster.ask()).metrics_server(false).await, "/").await.body;
    for secret in ["10.1.0.", "web-1", "secret"] {
        assert!(!page.contains(secret), "{secret} in {page}");
    }
}

#[tokio::test]
async fn trouble_is_told_at_the_top_and_where_it_is() {
    let refuses = |op: &Op| matches!(op, Op::AddDestination(..)).then_some(Errno::EPERM);
    let cluster = Cluster::new(FakeKernel { refuses, ..FakeKernel::default() })
        .programmed(served("web", 0, &[1, 2]).into_iter().chain(served("dns", 9, &[])));
    let rig = Rig::about(cluster.with_problem(of_service("dns"), "spec.ports[1].port").ask());
    let address = rig.metrics_server(false).await;
    rig.health.queued(Ipv4, rig.now());
    rig.advance_to(75);
    let page = get(address, "/").await.body;
    assert!(page.contains("<title>ipvsd on worker-1: unhealthy: changes of IPv4 wait for too long</title>"), "{page}");
    for sentence in [
        "<li class=\"bad\">operations that failed and are tried again: 2</li>",
        "<li class=\"warning\">load balancers are told to send nothing to this node</li>",
        "<li class=\"warning\">problems with the input: 1</li>",
        "The oldest change has been waiting for 1 min 15 s.",
    ] {
        assert!(page.contains(sentence), "{sentence} in {page}");
    }
    let rows: Vec<_> = rows(&page).into_iter().map(|cells| cells.join("|")).collect();
    for row in [
        "IPv4|no|2026-11-25T10:00:00Z, 1 min 15 s ago",
        "add destination|2",
        "Service default/dns|spec.ports[1].port",
        "default/web|http|cluster IP|10.96.0.1:80/TCP|rr||Cluster|2|0|error",
        "default/dns|http|cluster IP|10.96.0.10:80/TCP|rr||Cluster|0|0|error",
    ] {
        assert!(rows.iter().any(|found| found == row), "{row} in {rows:?}");
    }
}

#[tokio::test]
async fn before_anything_is_known_it_says_so() {
    let unread = FakeKernel { unreadable: 9, ..FakeKernel::default() };
    for (cluster, sentence) in [
        (Cluster::new(FakeKernel::default()), "what is wanted is not known yet, and nothing is changed"),
        (Cluster::new(unread).programmed([]), "the kernel cannot be read: "),
    ] {
        let page = get(Rig::about(cluster.ask()).metrics_server(false).await, "/").await.body;
        assert!(page.contains(sentence), "{sentence} in {page}");
    }
}

#[tokio::test]
async fn it_is_no_longer_for_ten_thousand_services() {
    let changes = (0..10_000).flat_map(|number| served(&format!("service-{number}"), number, &[1, 2, 3, 4]));
    let cluster = Cluster::new(FakeKernel::default()).programmed(changes);
    let address = Rig::about(cluster.ask()).metrics_server(false).await;
    let page = get(address, "/").await.body;
    assert!(page.len() < 100_000, "{} bytes", page.len());
    assert_eq!(rows(&page).iter().filter(|cells| cells[0].starts_with("default/")).count(), 200);
    assert!(page.contains("10000 ways in; 9800 more than these: search for them."), "{page}");
    let found = get(address, "/?q=service-9999").await.body;
    assert!(found.contains("<p>1 ways in.</p>") && found.contains("default/service-9999"), "{found}");
}

#[tokio::test]
async fn a_reconciler_that_is_busy_is_not_waited_for() {
    let ask: Ask = Arc::new(|_| Box::pin(pending()));
    let address = Rig::about(ask).metrics_server(false).await;
    let begun = Instant::now();
    let (one, other) = tokio::join!(get(address, "/"), get(address, "/"));
    assert!(begun.elapsed() < Duration::from_secs(10));
    for page in [one.body, other.body] {
        assert!(page.contains("the reconciler is in the middle of a pass"), "{page}");
        assert!(page.contains("IPv4") && !page.contains("<form"), "{page}");
    }
}

#[tokio::test]
async fn many_readers_cost_the_reconciler_little() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let ask: Ask = Arc::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Err(Unanswered::Busy) })
    });
    let address = Rig::about(ask).metrics_server(false).await;
    let begun = Instant::now();
    let readers: Vec<_> = (0..30).map(|_| tokio::spawn(async move { get(address, "/").await.status })).collect();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), 200);
    }
    let tenths = usize::try_from(begun.elapsed().as_millis() / 100).unwrap();
    assert!(asked.load(Ordering::Relaxed) <= tenths + 1, "{asked:?} times in {tenths} tenths of a second");
}
