//! A node with a proxy on it: kube-proxy or ipvsd, started alike.

use crate::control_plane::assets;
use crate::objects::NODE;
use crate::relay::Relay;
use ipvsd::demo::backend::{Backend, Port};
use ipvsd::demo::client::Request;
use ipvsd::demo::daemon::Daemon;
use ipvsd::demo::namespace::Namespace;
use ipvsd::demo::network::{Host, Network};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Where a proxy finds the API server.
pub const API: SocketAddr = at_loopback(6443);
const METRICS: SocketAddr = at_loopback(10249);

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub enum Proxy {
    Kube,
    Ipvsd,
}

/// A network whose node has iptables of one kind, and nothing else yet.
pub struct Node {
    /// Programs of that kind under the usual names, and the proxy's log.
    directory: TempDir,
    _relay: Relay,
    _backends: Vec<Backend>,
    network: Network,
}

impl Node {
    /// Builds it. The API server is in this thread's namespace.
    pub fn build(kind: &str, api_server: SocketAddr) -> Self {
        let network = Network::build(3).unwrap();
        let here = Namespace::here().unwrap();
        let relay = network.node.run(|| Ok(Relay::start(API, here, api_server))).unwrap();
        let start = |host: &Host| Backend::start(&host.name, &host.namespace, &[Port::Http(8080)]).unwrap();
        let backends = network.backends.iter().map(start).collect();
        let directory = TempDir::new().unwrap();
        for name in ["iptables", "ip6tables"] {
            for name in ["", "-save", "-restore"].map(|end| format!("{name}{end}")) {
                symlink(format!("/usr/sbin/xtables-{kind}-multi"), directory.path().join(name)).unwrap();
            }
        }
        show_kind(&network.node, &directory.path().join("iptables-restore"));
        Self { directory, _relay: relay, _backends: backends, network }
    }

    /// Starts a proxy.
    pub fn start(&self, proxy: Proxy, kubeconfig: &Path) -> Daemon {
        let mut command = match proxy {
            Proxy::Kube => Command::new(assets().unwrap().join("kube-proxy")),
            Proxy::Ipvsd => Command::new(env!("CARGO_BIN_EXE_ipvsd")),
        };
        let path = format!("{}:{}", self.directory.path().display(), std::env::var("PATH").unwrap());
        command.arg0("kube-proxy").env("PATH", path);
        command.arg(format!("--kubeconfig={}", kubeconfig.display())).arg(format!("--hostname-override={NODE}"));
        command.args(["--proxy-mode=iptables", "--cluster-cidr=10.244.0.0/16", "--conntrack-max-per-core=0"]);
        command.args(["--conntrack-tcp-timeout-established=0s", "--conntrack-tcp-timeout-close-wait=0s"]);
        if let Proxy::Ipvsd = proxy {
            let settings = self.directory.path().join("ipvsd.yaml");
            std::fs::write(&settings, "inspectionSocket: ''\n").unwrap();
            command.arg("--ipvsd-config").arg(settings);
        }
        Daemon::start(&self.network.node, &mut command, &self.directory.path().join("log")).unwrap()
    }

    /// Who answers the client, if anybody does.
    pub fn ask(&self, request: Request) -> Option<String> {
        self.network.client.namespace.run(|| Ok(request.send().ok())).unwrap().map(|answer| answer.name)
    }

    /// How long the first sync of IPv4 took, once the proxy's metrics have it.
    pub fn first_sync(&self) -> Option<Duration> {
        let metrics = self.network.node.run(|| Ok(get(METRICS, "/metrics"))).unwrap();
        let value = |end: &str| {
            let name = format!("kubeproxy_sync_proxy_rules_duration_seconds_{end}{{ip_family=\"IPv4\"}} ");
            metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<f64>().ok())
        };
        let count = value("count").filter(|count| *count > 0.0)?;
        assert!(count < 2.0, "a second sync came before anybody asked");
        value("sum").map(Duration::from_secs_f64)
    }
}

const fn at_loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Makes the chain by which a kubelet shows which kind is in use.
fn show_kind(node: &Namespace, restore: &Path) {
    let mut child = node.spawn(Command::new(restore).arg("--noflush").stdin(Stdio::piped())).unwrap();
    child.stdin.take().unwrap().write_all(b"*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n").unwrap();
    assert!(child.wait().unwrap().success());
}

/// The answer to a request; empty where nobody listens.
fn get(server: SocketAddr, path: &str) -> String {
    let mut answer = String::new();
    if let Ok(mut stream) = TcpStream::connect(server) {
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n").unwrap();
        stream.read_to_string(&mut answer).unwrap();
    }
    answer
}
