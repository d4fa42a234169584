//! The health check servers: which are open, and what they answer.

use crate::client::{Answered, ask, get};
use crate::rig::Rig;
use ipvsd::desired::HealthCheck;
use ipvsd::model::Family::Ipv4;
use ipvsd::server::HealthCheckServers;
use ipvsd::state::ObjectName;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Every address of 127.0.0.0/8 is this host's.
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Services `default/NAME` with their ports and numbers of endpoints.
fn wanted<const N: usize>(services: [(&str, u16, usize); N]) -> BTreeMap<ObjectName, HealthCheck> {
    let check =
        |(name, port, local_endpoints)| (ObjectName::new("default", name), HealthCheck { port, local_endpoints });
    services.map(check).into()
}

fn servers(rig: &Rig) -> HealthCheckServers {
    HealthCheckServers::new(rig.health.clone(), rig.clock.clone())
}

/// A port that is free on every address and stays so: the kernel gives none of these to whoever does not choose.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Other runs of these tests, at the same time, begin elsewhere.
    let first = 10_000 + u16::try_from(std::process::id() % 1_000).unwrap() * 20;
    let mut ports = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed));
    ports.find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok()).unwrap()
}

async fn is_open(address: IpAddr, port: u16) -> bool {
    match TcpStream::connect((address, port)).await {
        Ok(_) => true,
        // Reset: it was closed with the connection in its queue.
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset) => false,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_node_with_endpoints_is_told_by_status_body_and_weight() {
    let rig = Rig::new();
    let mut servers = servers(&rig);
    let port = free_port();
    let address = SocketAddr::from((HERE, port));
    for (endpoints, wanted_status) in [(0, 503), (2, 200), (1, 200), (0, 503)] {
        assert!(servers.sync(&wanted([("web", port, endpoints)]), &BTreeSet::from([HERE])).await.is_empty());
        for path in ["/", "/healthz", "/any/path?at=all"] {
            let Answered { status, headers, body } = get(address, path).await;
            let told = format!(
                "{{\n\t\"service\": {{\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t}},\n\
                 \t\"localEndpoints\": {endpoints},\n\t\"serviceProxyHealthy\": true\n}}"
            );
            assert_eq!((status, body), (wanted_status, told));
            assert_eq!(headers["Content-Type"], "application/json");
            assert_eq!(headers["X-Content-Type-Options"], "nosniff");
            assert_eq!(headers["X-Load-Balancing-Endpoint-Weight"], endpoints.to_string());
        }
    }
}

#[tokio::test]
async fn no_endpoint_helps_a_proxy_that_is_unhealthy_and_eligibility_does_not_count() {
    let rig = Rig::new();
    let mut servers = servers(&rig);
    let port = free_port();
    servers.sync(&wanted([("web", port, 3)]), &BTreeSet::from([HERE])).await;
    let address = SocketAddr::from((HERE, port));
    rig.health.node(false);
    assert_eq!(ask(address, "POST", "/", "").await.status, 200);
    rig.health.queued(Ipv4, rig.now());
    rig.advance_to(60);
    let Answered { status, body, headers } = get(address, "/").await;
    assert_eq!(status, 503);
    assert!(body.contains("\"serviceProxyHealthy\": false"));
    assert_eq!(headers["X-Load-Balancing-Endpoint-Weight"], "3");
}

#[tokio::test]
async fn servers_are_opened_and_closed_as_services_come_change_and_go() {
    let rig = Rig::new();
    let mut servers = servers(&rig);
    let here = BTreeSet::from([HERE]);
    let [one, two, three] = [free_port(), free_port(), free_port()];
    // What is wanted, each after the one above it, and which of the three ports are open then.
    let steps = [
        (wanted([("a", one, 1)]), [true, false, false]),
        (wanted([("a", one, 1), ("b", two, 1)]), [true, true, false]),
        (wanted([("a", three, 1), ("b", two, 1)]), [false, true, true]),
        // They change places, and a third takes over.
        (wanted([("a", two, 1), ("b", three, 1)]), [false, true, true]),
        (wanted([("c", two, 1)]), [false, true, false]),
        (wanted([]), [false, false, false]),
    ];
    for (wanted, open) in steps {
        let failures = servers.sync(&wanted, &here).await;
        assert!(failures.is_empty(), "{failures:?}");
        for (port, open) in [one, two, three].into_iter().zip(open) {
            assert_eq!(is_open(HERE, port).await, open, "{wanted:?}");
        }
    }
    servers.sync(&wanted([("a", one, 1)]), &here).await;
    drop(servers);
    while is_open(HERE, one).await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_new_number_of_endpoints_cuts_no_connection() {
    let rig = Rig::new();
    let mut servers = servers(&rig);
    let (port, here) = (free_port(), BTreeSet::from([HERE]));
    servers.sync(&wanted([("web", port, 1)]), &here).await;
    let mut stream = TcpStream::connect((HERE, port)).await.unwrap();
    let mut answer = [0; 2_000];
    for (endpoints, status) in [(1, "200"), (0, "503"), (5, "200")] {
        assert!(servers.sync(&wanted([("web", port, endpoints)]), &here).await.is_empty());
        stream.write_all(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n").await.unwrap();
        let length = stream.read(&mut answer).await.unwrap();
        assert!(answer[..length].starts_with(format!("HTTP/1.1 {status} ").as_bytes()));
    }
    servers.sync(&wanted([]), &here).await;
    assert_eq!(stream.read(&mut answer).await.unwrap_or(0), 0, "closed with its server");
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_each_time_and_had_as_soon_as_it_is_free() {
    let rig = Rig::new();
    let mut servers = servers(&rig);
    let (port, free) = (free_port(), free_port());
    let taken = TcpListener::bind((HERE, port)).unwrap();
    let (wanted, addresses) = (wanted([("a", port, 1), ("b", free, 1)]), BTreeSet::from([HERE, THERE]));
    for _ in 0..2 {
        let failures = servers.sync(&wanted, &addresses).await;
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert_eq!(failures[0].service, ObjectName::new("default", "a"));
        assert_eq!(failures[0].address, SocketAddr::from((HERE, port)));
        assert_eq!(failures[0].source.kind(), ErrorKind::AddrInUse);
        let told = format!("cannot listen on 127.0.0.1:{port} for the health check of Service default/a");
        assert_eq!(failures[0].to_string(), told);
        for (address, port) in [(THERE, port), (HERE, free), (THERE, free)] {
            assert_eq!(get((address, port).into(), "/").await.status, 200, "what can be had is had");
        }
    }
    drop(taken);
    assert!(servers.sync(&wanted, &addresses).await.is_empty());
    assert_eq!(get((HERE, port).into(), "/").await.status, 200);
}

#[tokio::test]
async fn the_addresses_may_change() {
    let rig = Rig::new();
    let mut servers = servers(&rig);
    let port = free_port();
    let wanted = wanted([("web", port, 1)]);
    let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    for (addresses, open) in [
        (vec![everywhere], [true, true]),
        (vec![THERE], [false, true]),
        (vec![HERE, THERE], [true, true]),
        (vec![HERE], [true, false]),
        (vec![], [false, false]),
        (vec![everywhere], [true, true]),
    ] {
        let failures = servers.sync(&wanted, &addresses.iter().copied().collect()).await;
        assert!(failures.is_empty(), "{failures:?}");
        assert_eq!([is_open(HERE, port).await, is_open(THERE, port).await], open, "{addresses:?}");
    }
}

#[tokio::test]
async fn many_clients_that_say_nothing_keep_nobody_out() {
    let rig = Rig::new();
    let mut servers = servers(&rig);
    let (one, two) = (free_port(), free_port());
    servers.sync(&wanted([("a", one, 1), ("b", two, 1)]), &BTreeSet::from([HERE])).await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect((HERE, one)).await.unwrap());
    }
    for port in [one, two] {
        assert_eq!(get((HERE, port).into(), "/").await.status, 200);
    }
    let mut first = silent.remove(0);
    assert_eq!(first.read(&mut [0]).await.unwrap_or(0), 0, "the oldest are closed");
}
