//! The HTTP servers on a whole host: every address of both families, and ports that are taken.

use crate::lab::{run, trial};
use ipvsd::desired::HealthCheck;
use ipvsd::health::{Health, SharedHealth};
use ipvsd::model::Family::{Ipv4, Ipv6};
use ipvsd::server::{BindError, Binding, Clock, HealthCheckServers, Server, healthz, system_clock};
use ipvsd::{metrics::Metrics, state::ObjectName};
use libtest_mimic::Trial;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

const BOTH: [&str; 3] = ["127.0.0.1", "127.0.0.2", "::1"];
const PORT: u16 = 10_256;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("servers::any_wildcard_is_every_address_of_both_families", any_wildcard_is_every_address),
        trial("servers::without_ipv6_the_rest_is_served", without_ipv6_the_rest_is_served),
        trial("servers::health_checks_of_both_families_share_a_port", health_checks_share_a_port),
    ]
}

fn any_wildcard_is_every_address() {
    in_runtime(async {
        for (address, open) in [
            ("0.0.0.0", [true, true, true]),
            ("::", [true, true, true]),
            ("127.0.0.1", [true, false, false]),
            ("::1", [false, false, true]),
        ] {
            let (server, mut told) = serve(address);
            assert!(told.recv().await.unwrap(), "{address}");
            assert_eq!(reached(PORT).await, open, "{address}");
            server.abort();
            assert!(server.await.unwrap_err().is_cancelled());
            assert_eq!(reached(PORT).await, [false; 3], "{address} goes with its server");
        }
    });
}

/// The addresses go, the family's sockets stay. (A kernel without the family is the other case, in `listener`.)
fn without_ipv6_the_rest_is_served() {
    run("sysctl", &["-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.lo.disable_ipv6=1"]);
    in_runtime(async {
        let (_server, mut told) = serve("0.0.0.0");
        assert!(told.recv().await.unwrap());
        assert_eq!(reached(PORT).await, [true, true, false]);
    });
}

fn health_checks_share_a_port() {
    in_runtime(async {
        let (health, clock) = health();
        let mut servers = HealthCheckServers::new(health, clock);
        let check = HealthCheck { port: 30_000, local_endpoints: 1 };
        let wanted = BTreeMap::from([(ObjectName::new("default", "web"), check)]);
        let everywhere: BTreeSet<IpAddr> = ["0.0.0.0", "::"].map(|address| address.parse().unwrap()).into();
        assert!(servers.sync(&wanted, &everywhere).await.is_empty());
        assert_eq!(reached(30_000).await, [true; 3]);
        let ipv4 = everywhere.iter().copied().filter(IpAddr::is_ipv4).collect();
        assert!(servers.sync(&wanted, &ipv4).await.is_empty());
        assert_eq!(reached(30_000).await, [true, true, false]);
        let taken = TcpListener::bind(("::1", 30_000)).unwrap();
        let failures = servers.sync(&wanted, &everywhere).await;
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert_eq!(failures[0].address, "[::]:30000".parse().unwrap());
        drop(taken);
        assert!(servers.sync(&wanted, &everywhere).await.is_empty());
    });
}

fn in_runtime<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn health() -> (SharedHealth, Clock) {
    let clock = system_clock();
    (SharedHealth::new(Health::new([Ipv4, Ipv6], Duration::from_secs(60), true, clock())), clock)
}

/// A health server on [`PORT`], and whether it could bind, each time it tries.
fn serve(address: &str) -> (JoinHandle<BindError>, UnboundedReceiver<bool>) {
    let (health, clock) = health();
    let metrics = Arc::new(Metrics::new(&[Ipv4, Ipv6], &[]).unwrap());
    let address = SocketAddr::new(address.parse().unwrap(), PORT);
    let server = Server { name: "healthz", address, hard_fail: false };
    let (tell, told) = unbounded_channel();
    let tell = move |binding: Binding<'_>| tell.send(matches!(binding, Binding::Bound(_))).unwrap();
    (tokio::spawn(server.run(healthz(health, metrics, clock), tell)), told)
}

/// Which addresses of [`BOTH`] take connections on a port.
async fn reached(port: u16) -> [bool; 3] {
    let mut reached = [false; 3];
    for (reached, address) in reached.iter_mut().zip(BOTH) {
        *reached = TcpStream::connect((address, port)).await.is_ok();
    }
    reached
}
