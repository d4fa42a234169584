//! What becomes of `mode: ipvs` on a kernel that has no IPVS: the whole program, as kubeadm starts kube-proxy and by
//! itself. On a kernel that has it there is nothing to see.

use crate::api_server::ApiServer;
use crate::lab::{run, trial};
use crate::objects::{NODE, node, service, slice};
use crate::program::{IPVSD, PATIENCE, ipvsd, stdout};
use ipvsd::demo::daemon::Daemon;
use ipvsd::demo::namespace::Namespace;
use ipvsd::demo::network::Network;
use ipvsd::demo::wait::wait_for;
use ipvsd::kernel::modules;
use libtest_mimic::Trial;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::process::Command;
use tempfile::TempDir;

/// As kubeadm writes it.
const KUBEADM: &str = include_str!("../fixtures/kube-proxy/kubeadm.yaml");

pub fn trials() -> Vec<Trial> {
    if modules::has_ipvs() {
        return Vec::new();
    }
    vec![
        trial("fallback::rules_balance_where_ipvs_is_missed_and_everybody_is_told", everybody_is_told),
        trial("fallback::kube_proxys_usual_mode_is_what_it_says", kube_proxys_usual_mode_is_what_it_says),
        trial("fallback::who_forbids_it_is_told_what_is_missing", who_forbids_it_is_told_what_is_missing),
        trial("fallback::a_directory_of_manifests_is_served_too", a_directory_of_manifests_is_served_too),
        trial("fallback::what_is_logged_is_changed_while_it_runs", what_is_logged_is_changed_while_it_runs),
        trial("fallback::a_restart_with_another_file_changes_the_mode_in_place", changes_in_place),
    ]
}

/// A cluster with a Service, and the program in kube-proxy's place on a node.
struct Rig {
    daemon: Daemon,
    server: ApiServer,
    directory: TempDir,
    _network: Network,
}

/// Runs `body` on a node where kubeadm's configuration has this mode.
fn on_node(mode: &'static str, body: fn(&mut Rig)) {
    let network = Network::build(1).unwrap();
    let here = network.node.run(Namespace::here).unwrap();
    here.run(|| {
        body(&mut Rig::start(mode, network));
        Ok(())
    })
    .unwrap();
}

impl Rig {
    fn start(mode: &str, network: Network) -> Self {
        let server = ApiServer::start();
        for object in [node("a"), service("web", 1), slice("web", &[1, 2])] {
            server.put(object);
        }
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = server.kubeconfig(directory.path());
        let config = directory.path().join("config.conf");
        let text = KUBEADM.replace("/var/lib/kube-proxy/kubeconfig.conf", kubeconfig.to_str().unwrap());
        fs::write(&config, text.replace("mode: \"\"", &format!("mode: {mode}"))).unwrap();
        let program = directory.path().join("kube-proxy");
        symlink(IPVSD, &program).unwrap();
        let mut command = Command::new(program);
        command.arg(format!("--config={}", config.display())).arg(format!("--hostname-override={NODE}"));
        command.env("IPVSD_LOG_FORMAT", "json");
        let daemon = Daemon::start(&Namespace::here().unwrap(), &mut command, &directory.path().join("log")).unwrap();
        let mut rig = Self { daemon, server, directory, _network: network };
        rig.until("the Service is programmed", |_| rules().contains("--to-destination 10.1.0.2:8080"));
        rig
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let came = wait_for(PATIENCE, || {
            self.daemon.check()?;
            Ok(is_so(self).then_some(()))
        });
        assert!(came.unwrap().is_some(), "waited in vain until {what}; it said:\n{}", self.daemon.log());
    }

    /// The reasons of the Events that were written.
    fn events(&self) -> Vec<String> {
        self.server.written().iter().map(|event| event["reason"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

fn rules() -> String {
    run("iptables-save", &["-t", "nat"])
}

/// A page of the metrics server's; nothing while nobody answers.
fn page(path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], 10_249))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

fn everybody_is_told() {
    on_node("ipvs", |rig| {
        let log = rig.daemon.log();
        assert!(log.contains("mode iptables, because there is no IPVS: the kernel has no IPVS"), "{log}");
        rig.until("/proxyMode tells it", |_| page("/proxyMode").as_deref() == Some("iptables"));
        let series = "ipvsd_proxy_mode{mode=\"iptables\",reason=\"fallback\"} 1";
        rig.until("a metric tells it", |_| page("/metrics").is_some_and(|text| text.contains(series)));
        rig.until("an Event tells it", |rig| rig.events().contains(&"FallbackToIptables".to_owned()));
        // Nothing is bad: not what is missing for IPVS, and the rules are those of the mode.
        let text = stdout(&ipvsd(&["check"]), 0);
        let why = "warning  mode         iptables rules balance, because there is no IPVS: the kernel has no IPVS";
        for line in [
            why,
            "warning  modules      ip_vs is not loaded",
            "ok       differences  ",
            "ok       kernel       1 ",
            "ok       iptables     nf_tables: ",
        ] {
            assert!(text.lines().any(|found| found.starts_with(line)), "no {line:?} in\n{text}");
        }
    });
}

fn kube_proxys_usual_mode_is_what_it_says() {
    on_node("\"\"", |rig| {
        assert!(rig.daemon.log().contains("mode iptables, as asked"), "{}", rig.daemon.log());
        let series = "ipvsd_proxy_mode{mode=\"iptables\",reason=\"asked\"} 1";
        rig.until("a metric tells it", |_| page("/metrics").is_some_and(|text| text.contains(series)));
        rig.until("it is told of the start", |rig| rig.events().contains(&"Starting".to_owned()));
        assert!(!rig.events().contains(&"FallbackToIptables".to_owned()));
        let text = stdout(&ipvsd(&["check"]), 0);
        assert!(text.contains("ok       mode         iptables rules balance, as asked\n"), "{text}");
        assert!(!text.contains("ip_vs"), "{text}");
        // As `kubectl exec` of an administrator, or a firewall that is loaded anew.
        run("iptables", &["-t", "nat", "-F"]);
        rig.server.put(service("more", 2));
        rig.server.put(slice("more", &[3]));
        rig.until("a new Service is programmed", |_| rules().contains("--to-destination 10.1.0.3:8080"));
    });
}

/// The modules of the lines that say more than usual, which a change of the cluster leaves in the log.
fn debugged(rig: &mut Rig, number: u8) -> BTreeSet<String> {
    let before = rig.daemon.log().len();
    rig.server.put(service(&format!("log-{number}"), (10 + number).into()));
    rig.server.put(slice(&format!("log-{number}"), &[number]));
    rig.until("it is programmed", |rig| {
        rules().contains(&format!("--to-destination 10.1.0.{number}:8080"))
            && rig.daemon.log()[before..].contains("programmed: ")
    });
    let log = rig.daemon.log();
    let lines = log[before..].lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let debug = lines.filter(|line| line["level"] == "DEBUG");
    debug.map(|line| line["target"].as_str().unwrap().to_owned()).collect()
}

fn what_is_logged_is_changed_while_it_runs() {
    on_node("iptables", |rig| {
        let level = |arguments: &[&str], code| {
            let output = ipvsd(&[&["log-level"], arguments].concat());
            (stdout(&output, code), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        assert_eq!(level(&[], 0).0, "info\n");
        assert_eq!(debugged(rig, 3), BTreeSet::new());
        let filter = "info,ipvsd::reconcile=debug";
        assert_eq!(level(&[filter], 0).0, format!("{filter}\n"));
        assert_eq!(debugged(rig, 4), BTreeSet::from(["ipvsd::reconcile::report".to_owned()]));
        for (bad, why) in [("debgu", "\"debgu\" is no level"), ("ipvsd::watch=debug", "ipvsd has no module \"watch\"")]
        {
            let (printed, said) = level(&[bad], 2);
            assert!(printed.is_empty() && said.starts_with(&format!("ipvsd: {why}")), "{bad}: {said}");
            assert_eq!(level(&[], 0).0, format!("{filter}\n"), "it is as before");
        }
        assert_eq!(level(&["info"], 0).0, "info\n");
        assert_eq!(debugged(rig, 5), BTreeSet::new());
    });
}

fn changes_in_place() {
    on_node("iptables", |rig| {
        let config = rig.directory.path().join("config.conf");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("mode: iptables", "mode: ipvs")).unwrap();
        let series = "ipvsd_proxy_mode{mode=\"iptables\",reason=\"fallback\"} 1";
        rig.until("the other mode is asked for", |_| page("/metrics").is_some_and(|text| text.contains(series)));
    });
}

/// A directory with a Service of one endpoint.
fn manifests() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for object in [service("web", 1), slice("web", &[1])] {
        fs::write(directory.path().join(format!("{}.json", object["kind"].as_str().unwrap())), object.to_string())
            .unwrap();
    }
    directory
}

fn who_forbids_it_is_told_what_is_missing() {
    let directory = manifests();
    let with = ["run", "--once", "--ipvs-fallback=false", "--manifests", directory.path().to_str().unwrap()];
    let output = ipvsd(&with);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("nothing else is allowed in its place: the kernel has no IPVS"), "{said}");
    assert!(!rules().contains("IPVSD-"));
    let text = stdout(&ipvsd(&["check", "--ipvs-fallback=false"]), 1);
    let line = "bad      mode         nothing can balance: the module ip_vs is not loaded, and --ipvs-fallback forbids";
    assert!(text.lines().any(|found| found.starts_with(line)), "{text}");
}

fn a_directory_of_manifests_is_served_too() {
    let directory = manifests();
    let directory = directory.path().to_str().unwrap();
    stdout(&ipvsd(&["run", "--once", "--manifests", directory]), 0);
    assert!(rules().contains("--to-destination 10.1.0.1:8080"));
    assert_eq!(stdout(&ipvsd(&["diff", "--manifests", directory]), 0), "");
    let text = stdout(&ipvsd(&["check"]), 0);
    assert!(text.contains("warning  mode         iptables rules balance, because there is no IPVS: "), "{text}");
    stdout(&ipvsd(&["cleanup"]), 0);
    assert!(!rules().contains("IPVSD-"));
}
