//! What others do on a node that ipvsd has to live with: programs that hang.

use crate::lab::{run, trial};
use crate::objects::{service, slice};
use crate::program::{IPVSD, eventually};
use ipvsd::demo::daemon::Daemon;
use ipvsd::demo::namespace::Namespace;
use libtest_mimic::Trial;
use std::env;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Where the daemon tells its health.
const HEALTH: &str = "127.0.0.1:10256";

pub fn trials() -> Vec<Trial> {
    vec![
        trial("circumstances::a_program_that_hangs_at_the_start_keeps_neither_health_nor_the_end", hangs_at_the_start),
        trial("circumstances::one_that_hangs_later_does_not_either_and_is_killed", hangs_later),
    ]
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
