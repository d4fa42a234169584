//! What others do on a node that ipvsd has to live with: programs that hang, sets of its names that are not what they
//! should be.

use crate::lab::{run, trial};
use crate::objects::{service, slice};
use crate::program::{IPVSD, eventually, ipvsd, stdout};
use ipvsd::demo::daemon::Daemon;
use ipvsd::demo::namespace::Namespace;
use libtest_mimic::Trial;
use std::env;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Where the daemon tells its health.
const HEALTH: &str = "127.0.0.1:10256";

pub fn trials() -> Vec<Trial> {
    vec![
        trial("circumstances::a_program_that_hangs_at_the_start_keeps_neither_health_nor_the_end", hangs_at_the_start),
        trial("circumstances::one_that_hangs_later_does_not_either_and_is_killed", hangs_later),
        trial("circumstances::the_systemd_drop_ins_rights_are_enough_where_rules_are_nf_tables", as_the_drop_in),
        trial("circumstances::a_set_of_another_type_is_replaced", other_type_is_replaced),
        trial("circumstances::one_that_rules_refer_to_costs_itself_alone_and_is_told", other_type_in_use),
    ]
}

/// A raw socket is what iptables finds sets by.
fn as_the_drop_in() {
    let drop_in = include_str!("../../systemd/ipvsd.service.d/kubernetes.conf");
    let rights = ["AmbientCapabilities=CAP_NET_RAW", "CapabilityBoundingSet=CAP_NET_RAW"];
    assert!(rights.into_iter().all(|right| drop_in.lines().any(|line| line == right)), "{drop_in}");
    let node = Node::new();
    fs::set_permissions(node.directory.path(), Permissions::from_mode(0o755)).unwrap();
    let arguments = node.arguments();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    stdout(&ipvsd(&[&["run", "--init-only"], &arguments[..]].concat()), 0);
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"])
        .args(["--inh-caps", "--ambient-caps", "--bounding-set"].map(|set| format!("{set}=-all,+net_admin,+net_raw")))
        .args([IPVSD, "run", "--once"])
        .args(&arguments)
        .output()
        .unwrap();
    stdout(&output, 0);
    let rules = run("iptables-nft-save", &[]);
    assert!(rules.contains("--match-set KUBE-"), "{rules}");
}

/// A directory of manifests with a Service of one endpoint, and programs that can be made to hang.
struct Node {
    directory: TempDir,
}

impl Node {
    fn new() -> Self {
        let node = Self { directory: tempfile::tempdir().unwrap() };
        for folder in ["manifests", "programs"] {
            fs::create_dir(node.path(folder)).unwrap();
        }
        fs::write(node.path("config.yaml"), "netfilter: true\n").unwrap();
        node.serve("web", 1);
        for family in ["iptables", "ip6tables"] {
            for backend in ["", "-nft", "-legacy"] {
                node.write_program(&format!("{family}{backend}-restore"));
            }
        }
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn serve(&self, name: &str, last: usize) {
        for object in [service(name, last), slice(name, &[u8::try_from(last).unwrap()])] {
            let file = format!("{name}-{}.json", object["kind"].as_str().unwrap());
            fs::write(self.path("manifests").join(file), object.to_string()).unwrap();
        }
    }

    /// One that does its work, or hangs if there is the file `hang`.
    fn write_program(&self, name: &str) {
        let (hang, hanging) = (self.path("hang"), self.path("hanging"));
        let text = format!(
            "#!/bin/sh\n[ -e {} ] || PATH='{}' exec {name} \"$@\"\necho $$ >>{}\nexec sleep 1000\n",
            hang.display(),
            env::var("PATH").unwrap(),
            hanging.display()
        );
        let program = self.path("programs").join(name);
        fs::write(&program, text).unwrap();
        fs::set_permissions(program, Permissions::from_mode(0o755)).unwrap();
    }

    fn hang(&self) {
        fs::write(self.path("hang"), "").unwrap();
    }

    /// The processes that hung.
    fn hanging(&self) -> Vec<String> {
        fs::read_to_string(self.path("hanging")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn arguments(&self) -> Vec<String> {
        let (manifests, config) = (self.path("manifests"), self.path("config.yaml"));
        let arguments = ["--manifests", manifests.to_str().unwrap(), "--ipvsd-config", config.to_str().unwrap()];
        arguments.map(str::to_owned).into()
    }

    fn start(&self) -> Daemon {
        let path = format!("{}:{}", self.path("programs").display(), env::var("PATH").unwrap());
        let mut command = Command::new(IPVSD);
        command.arg("run").args(self.arguments()).args(["--healthz-bind-address", HEALTH]).env("PATH", path);
        Daemon::start(&Namespace::here().unwrap(), &mut command, &self.path("log")).unwrap()
    }

    fn once(&self) -> Output {
        let arguments = self.arguments();
        let arguments: Vec<_> = ["run", "--once"].into_iter().chain(arguments.iter().map(String::as_str)).collect();
        ipvsd(&arguments)
    }
}

/// What is answered on `/livez`; nothing while nobody answers.
fn livez() -> String {
    let mut answer = String::new();
    if let Ok(mut stream) = TcpStream::connect(HEALTH) {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").unwrap();
        stream.read_to_string(&mut answer).unwrap();
    }
    answer
}

/// Stops a daemon while a program hangs, and sees that it ends soon, and the program with it.
fn stop(node: &Node, daemon: Daemon) {
    let hanging = node.hanging();
    assert!(!hanging.is_empty());
    let asked = Instant::now();
    assert!(daemon.stop().unwrap().success());
    assert!(asked.elapsed() < Duration::from_secs(9), "{:?}", asked.elapsed());
    assert!(fs::read_to_string(node.path("log")).unwrap().contains("stopped; the kernel stays as it is"));
    let is_there = |process: &String| {
        let command = fs::read_to_string(Path::new("/proc").join(process).join("cmdline"));
        command.is_ok_and(|command| command.starts_with("sleep"))
    };
    eventually("the program is killed", || !hanging.iter().any(is_there));
}

fn hangs_at_the_start() {
    let node = Node::new();
    node.hang();
    let daemon = node.start();
    eventually("a program hangs", || !node.hanging().is_empty());
    eventually("it tells its health", || livez().starts_with("HTTP/1.1 200 "));
    stop(&node, daemon);
}

fn hangs_later() {
    let node = Node::new();
    let daemon = node.start();
    let log = || fs::read_to_string(node.path("log")).unwrap();
    eventually("it is programmed", || log().contains("programmed: "));
    node.hang();
    // A rule less is put back by the next pass that reads everything, which another address of the node brings about.
    run("iptables", &["-t", "mangle", "-F", "IPVSD-PREROUTING"]);
    run("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"]);
    eventually("a program hangs", || !node.hanging().is_empty());
    assert!(livez().starts_with("HTTP/1.1 200 "), "{}", livez());
    stop(&node, daemon);
}

/// The type of a set, as ipset tells it.
fn type_of_set(name: &str) -> String {
    let text = run("ipset", &["list", "-terse", name]);
    text.lines().find_map(|line| line.strip_prefix("Type: ")).unwrap().to_owned()
}

fn other_type_is_replaced() {
    let node = Node::new();
    run("ipset", &["create", "KUBE-CLUSTER-IP", "hash:net"]);
    run("ipset", &["add", "KUBE-CLUSTER-IP", "10.0.0.0/8"]);
    run("ipset", &["create", "IPVSD-SHORT-CIRCUIT", "hash:ip,port"]);
    run("ipset", &["create", "KUBE-LOAD-BALANCER", "hash:ip,port", "family", "inet6"]);
    stdout(&node.once(), 0);
    assert_eq!(type_of_set("KUBE-CLUSTER-IP"), "hash:ip,port");
    run("ipset", &["test", "KUBE-CLUSTER-IP", "10.96.0.2,tcp:80"]);
    for (name, header) in [("IPVSD-SHORT-CIRCUIT", "skbinfo"), ("KUBE-LOAD-BALANCER", "family inet ")] {
        let text = run("ipset", &["list", "-terse", name]);
        assert!(text.contains(header), "{text}");
    }
}

fn other_type_in_use() {
    let node = Node::new();
    run("ipset", &["create", "KUBE-CLUSTER-IP", "hash:net"]);
    run("iptables", &["-A", "INPUT", "-m", "set", "--match-set", "KUBE-CLUSTER-IP", "src"]);
    let output = node.once();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let told = "there is a set of this name with the type hash:net where hash:ip,port is needed, and rules refer to it";
    let lines: Vec<_> = said.lines().filter(|line| line.contains("failed, will be tried again: ")).collect();
    assert!(matches!(lines[..], [line] if line.contains("+ set KUBE-CLUSTER-IP ") && line.contains(told)), "{said}");
    assert_eq!(type_of_set("KUBE-CLUSTER-IP"), "hash:net");
    assert_eq!(type_of_set("KUBE-LOOP-BACK"), "hash:ip,port,ip");
    run("iptables", &["-t", "mangle", "-C", "OUTPUT", "-j", "IPVSD-OUTPUT", "-m", "comment", "--comment", OUTPUT]);
    // As it is told.
    run("iptables", &["-F", "INPUT"]);
    stdout(&ipvsd(&["cleanup"]), 0);
    stdout(&node.once(), 0);
    assert_eq!(type_of_set("KUBE-CLUSTER-IP"), "hash:ip,port");
}

/// Of the rule that leads to those for the node's own packets.
const OUTPUT: &str = "ipvsd short circuit of the node";
