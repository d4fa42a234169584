//! What these tests stand on: an API server, the daemon under the name `kube-proxy` with kubeadm's configuration file, all
//! in this thread's network namespace, and ways to look at both.

use super::table::{Table, Way, difference, table, ways};
use super::truth::{Node, truth};
use crate::api_server::ApiServer;
use crate::follower::Truth;
use crate::objects::{NODE, with};
use crate::program::{IPVSD, PATIENCE, add_addresses};
use ipvsd::demo::backend::{Backend, Port};
use ipvsd::demo::daemon::Daemon;
use ipvsd::demo::namespace::Namespace;
use ipvsd::demo::network::{Host, Network};
use ipvsd::demo::wait::wait_for;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// As kubeadm writes it.
const KUBEADM: &str = include_str!("../../fixtures/kube-proxy/kubeadm.yaml");
/// What most tests change of it: the mode, in which nothing rests between two passes.
pub const IPVS: (&str, &str) = ("mode: \"\"", "mode: ipvs");
/// The address that the Node object tells of.
pub const NODE_ADDRESSES: [&str; 2] = ["192.0.2.1", "fd00:2::1"];
/// Where health and metrics are served.
pub const HEALTH: &str = "127.0.0.1:10256";
pub const METRICS: &str = "127.0.0.1:10249";

/// An API server and a daemon. Dropped from top to bottom.
pub struct Rig<S = ApiServer> {
    daemon: Option<Daemon>,
    pub server: S,
    /// What the truth depends on besides the server.
    pub node: Node,
    /// Has the program by its other name, its configuration and its log.
    pub directory: TempDir,
    /// The configuration file.
    pub config: PathBuf,
}

impl Rig {
    /// An empty cluster on a node with addresses, and no daemon yet.
    pub fn new(changes: &[(&str, &str)]) -> Self {
        add_addresses(&["192.0.2.1/24", "fd00:2::1/64"]);
        Self::here(changes)
    }

    /// The same in a namespace that has its addresses already.
    pub fn here(changes: &[(&str, &str)]) -> Self {
        let server = ApiServer::start();
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = server.kubeconfig(directory.path());
        Self::on(server, directory, (&kubeconfig, changes))
    }

    /// The same with these objects, a running daemon and a kernel that has it all.
    pub fn settled(changes: &[(&str, &str)], objects: Vec<Value>) -> Self {
        let mut rig = Self::new(changes);
        objects.into_iter().for_each(|object| rig.server.put(object));
        rig.start();
        rig.until_true();
        rig
    }
}

impl<S: Truth> Rig<S> {
    /// A rig for any server.
    pub fn on(server: S, directory: TempDir, (kubeconfig, changes): (&Path, &[(&str, &str)])) -> Self {
        symlink(IPVSD, directory.path().join("kube-proxy")).unwrap();
        let config = directory.path().join("config.conf");
        fs::write(&config, configuration(kubeconfig, changes)).unwrap();
        let addresses = NODE_ADDRESSES.map(|address| address.parse().unwrap()).into();
        let node = Node { addresses, zone: None, scheduler: None };
        Self { daemon: None, server, node, directory, config }
    }

    /// Starts the daemon as kubeadm's DaemonSet does.
    pub fn start(&mut self) {
        let mut command = Command::new(self.directory.path().join("kube-proxy"));
        command.arg(format!("--config={}", self.config.display())).arg(format!("--hostname-override={NODE}"));
        let log = self.directory.path().join("log");
        self.daemon = Some(Daemon::start(&Namespace::here().unwrap(), &mut command, &log).unwrap());
    }

    /// Ends the daemon with SIGKILL.
    pub fn crash(&mut self) {
        self.daemon.take().unwrap().kill().unwrap();
    }

    /// What the daemons said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// What the kernel should hold.
    pub fn truth(&self) -> Table {
        truth(&self.server.objects("Service"), &self.server.objects("EndpointSlice"), &self.node)
    }

    /// The ways to the endpoints of Services whose names begin so.
    pub fn ways(&self, beginning: &str) -> BTreeSet<Way> {
        let is_meant = |service: &Value| service["metadata"]["name"].as_str().unwrap().starts_with(beginning);
        let services: Vec<_> = self.server.objects("Service").into_iter().filter(is_meant).collect();
        ways(&truth(&services, &self.server.objects("EndpointSlice"), &self.node))
    }

    /// Waits until the kernel holds what it should.
    pub fn until_true(&mut self) {
        self.until("the kernel equals the truth", |rig| table() == rig.truth());
    }

    /// Waits for something that must come soon.
    pub fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let came = wait_for(PATIENCE, || {
            if let Some(daemon) = &mut self.daemon {
                daemon.check()?;
            }
            Ok(is_so(self).then_some(()))
        });
        if came.unwrap().is_none() {
            let difference = difference(&table(), &self.truth());
            panic!("waited in vain until {what}. The kernel:\n{difference}The daemon said:\n{}", self.log());
        }
    }

    /// Waits until a line of the log has all of these words.
    pub fn until_said(&mut self, words: &[&str]) {
        let is_said = |line: &str| words.iter().all(|word| line.contains(word));
        self.until(&format!("it says {words:?}"), |rig| rig.log().lines().any(is_said));
    }

    /// The value of a series of the daemon's metrics; nothing while there is none, or no answer.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let (_, body) = get(METRICS, "/metrics")?;
        let lines = body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        lines.map(|value| value.parse().unwrap())
    }

    /// How many operations of a kind the daemon did since its start.
    pub fn operations(&self, kind: &str) -> f64 {
        self.metric(&format!("ipvsd_operations_total{{kind=\"{kind}\"}}")).unwrap_or_default()
    }

    /// The status of a page of the health server; 0 while there is no answer.
    pub fn health(&self, path: &str) -> u16 {
        get(HEALTH, path).map_or(0, |(status, _)| status)
    }
}

/// kubeadm's configuration for this kubeconfig, with texts in it replaced.
pub fn configuration(kubeconfig: &Path, changes: &[(&str, &str)]) -> String {
    let path = kubeconfig.to_str().unwrap();
    let all = [("/var/lib/kube-proxy/kubeconfig.conf", path)].into_iter().chain(changes.iter().copied());
    all.fold(KUBEADM.to_owned(), |text, (from, to)| {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        text.replace(from, to)
    })
}

/// Asks an HTTP server here for a page: status and body, or nothing while nobody listens.
pub fn get(server: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(server.parse::<SocketAddr>().unwrap()).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// Runs `body` on the node of a network whose two backends serve everything on the ports that slices of
/// [`traffic_rig`](crate::traffic_rig) name.
pub fn on_node_of_network(body: fn(&Network)) {
    let network = Network::build(2).unwrap();
    let ports = [Port::Http(8080), Port::Udp(8080), Port::SctpHttp(8080), Port::Lines(9090)];
    let start = |host: &Host| Backend::start(&host.name, &host.namespace, &ports).unwrap();
    let _backends: Vec<_> = network.backends.iter().map(start).collect();
    let run = || {
        body(&network);
        Ok(())
    };
    network.node.run(run).unwrap();
}

/// A manifest's object as an API server has it.
pub fn in_default(object: Value) -> Value {
    with(object, "/metadata/namespace", json!("default"))
}
