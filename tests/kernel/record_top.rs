//! Records a table for the pictures of `ipvsd top` (src/cli/top/picture.rs): a daemon with Services of a shop, backends that
//! answer, and clients. No test, so it is in the list only when asked for:
//!
//! `IPVSD_RECORD=1 ./dev test record_top` writes tests/fixtures/top.json anew.

use crate::lab::{is_set, run, trial};
use crate::program::{Daemon, IPVSD, add_addresses, eventually, ipvsd, stdout};
use ipvsd::inspect::Owner;
use ipvsd::server::{INSPECTION_NAME, ask};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Scope, scope, sleep};
use std::time::Duration;
use tokio::runtime::Builder;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/top.json");

pub fn trials() -> Vec<Trial> {
    if !is_set("IPVSD_RECORD") {
        return Vec::new();
    }
    vec![trial("record_top", record)]
}

/// Namespace and name, the rest of `spec`, the port of the backends and the last parts of their addresses.
const SERVICES: [(&str, &str, &str, u16, &[u8]); 7] = [
    ("kube-system", "dns", "clusterIP: 10.96.0.10, ports: [{port: 53, protocol: UDP}]", 5353, &[11, 12]),
    ("monitoring", "prometheus", "clusterIP: 10.96.9.1, ports: [{port: 9090}]", 9090, &[21]),
    ("shop", "api", "clusterIP: 10.96.1.2, ports: [{port: 443}]", 8443, &[31, 32, 33]),
    ("shop", "cart", "clusterIP: 10.96.1.3, ports: [{port: 80}]", 8081, &[41, 42]),
    // It wants an address that shop/web has.
    ("shop", "web-old", "clusterIP: 10.96.1.5, externalIPs: [203.0.113.10], ports: [{port: 80}]", 8080, &[51]),
    ("shop", "web", "clusterIP: 10.96.1.1, externalIPs: [203.0.113.10], ports: [{port: 80}]", 8080, &[61, 62, 63]),
    ("tools", "importer", "clusterIP: 10.96.7.7, ports: [{port: 80}]", 8082, &[]),
];

fn record() {
    add_addresses(&["192.0.2.7/24"]);
    let backends = SERVICES.iter().flat_map(|(.., endpoints)| endpoints.iter());
    backends.for_each(|last| _ = run("ip", &["address", "add", &format!("198.51.100.{last}"), "dev", "lo"]));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("shop.yaml");
    fs::write(&file, manifests(SERVICES)).unwrap();
    let path = directory.path().to_str().unwrap();
    let mut daemon = Daemon::start(IPVSD, &["run", "--manifests", path, "--ipvs-scheduler", "wrr"]);
    daemon.wait_for("programmed");
    let ends = AtomicBool::new(false);
    scope(|scope| {
        SERVICES.iter().for_each(|(_, name, _, port, endpoints)| serve(scope, &ends, (name, *port, endpoints)));
        call(scope, &ends);
        sleep(Duration::from_secs(4));
        // One of them goes, and keeps its conversations.
        let fewer = SERVICES.map(|one| if one.1 == "api" { (one.0, one.1, one.2, one.3, &one.4[..2]) } else { one });
        fs::write(&file, manifests(fewer)).unwrap();
        eventually("it drains", || listing()["virtualServers"].to_string().contains("\"weight\":0"));
        sleep(Duration::from_secs(6));
        let owners = Builder::new_current_thread().enable_all().build().unwrap();
        let owners: Vec<Owner> = owners.block_on(ask(INSPECTION_NAME, "/v1/owners")).unwrap();
        let recorded = json!({ "table": listing(), "owners": owners });
        fs::write(FILE, serde_json::to_string_pretty(&recorded).unwrap() + "\n").unwrap();
        ends.store(true, Ordering::Relaxed);
    });
}

fn listing() -> Value {
    serde_json::from_str(&stdout(&ipvsd(&["list", "--json"]), 0)).unwrap()
}

fn manifests(services: [(&str, &str, &str, u16, &[u8]); 7]) -> String {
    let one = |(namespace, name, spec, port, endpoints): (&str, &str, &str, u16, &[u8])| {
        let protocol = if spec.contains("UDP") { "UDP" } else { "TCP" };
        let endpoints: Vec<_> = endpoints.iter().map(|last| format!("{{addresses: [198.51.100.{last}]}}")).collect();
        format!(
            "---\n{{apiVersion: v1, kind: Service, metadata: {{namespace: {namespace}, name: {name}}}, spec: {{{spec}}}}}\n\
             ---\n{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, metadata: {{\
             namespace: {namespace}, name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}, \
             ports: [{{port: {port}, protocol: {protocol}}}], endpoints: [{}]}}\n",
            endpoints.join(", ")
        )
    };
    services.map(one).concat()
}

/// Backends that answer whatever they are sent with 4 kB, or with as much as they get.
fn serve<'s>(scope: &'s Scope<'s, '_>, ends: &'s AtomicBool, (name, port, endpoints): (&str, u16, &[u8])) {
    for last in endpoints {
        let address = format!("198.51.100.{last}:{port}");
        if name == "dns" {
            let socket = UdpSocket::bind(address).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            scope.spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    let mut buffer = [0; 512];
                    if let Ok((length, client)) = socket.recv_from(&mut buffer) {
                        socket.send_to(&buffer[..length], client).unwrap();
                    }
                }
            });
        } else {
            let listener = TcpListener::bind(address).unwrap();
            listener.set_nonblocking(true).unwrap();
            scope.spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((stream, _)) => _ = scope.spawn(move || answer(stream)),
                        Err(_) => sleep(Duration::from_millis(10)),
                    }
                }
            });
        }
    }
}

fn answer(mut stream: TcpStream) {
    stream.set_nonblocking(false).unwrap();
    let mut request = [0; 300];
    while stream.read_exact(&mut request).is_ok() && stream.write_all(&[b'!'; 4000]).is_ok() {}
}

/// Clients: who calls, how many at a time, how often a conversation asks, and how long it pauses.
fn call<'s>(scope: &'s Scope<'s, '_>, ends: &'s AtomicBool) {
    for (address, clients, questions, pause) in [
        ("203.0.113.10:80", 6, 4, 40),
        ("10.96.1.1:80", 2, 2, 100),
        ("10.96.1.2:443", 9, 1_000_000, 150),
        ("10.96.1.3:80", 2, 3, 200),
        ("10.96.9.1:9090", 1, 1_000_000, 500),
        ("10.96.1.5:80", 1, 1, 900),
    ] {
        for _ in 0..clients {
            scope.spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    let asked = converse(address, questions, Duration::from_millis(pause), ends);
                    // Servers may end first.
                    assert!(asked.is_ok() || ends.load(Ordering::Relaxed), "{address}: {asked:?}");
                }
            });
        }
    }
    scope.spawn(move || {
        while !ends.load(Ordering::Relaxed) {
            let socket = UdpSocket::bind("192.0.2.7:0").unwrap();
            socket.connect("10.96.0.10:53").unwrap();
            socket.send(b"who is shop/web?").unwrap();
            sleep(Duration::from_millis(30));
        }
    });
}

fn converse(address: &str, questions: usize, pause: Duration, ends: &AtomicBool) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    for _ in 0..questions {
        stream.write_all(&[b'?'; 300])?;
        stream.read_exact(&mut [0; 4000])?;
        sleep(pause);
        if ends.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(())
}
