//! `check` on a real kernel: a node that is fit, one with every fault that can be made in a namespace, and that looking
//! changes nothing.

use crate::lab::{run, trial};
use crate::program::{Daemon, IPVSD, add_addresses, ipvsd, rules, service, stdout};
use libtest_mimic::Trial;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("check::a_node_with_a_daemon_is_fit", a_node_is_fit),
        trial("check::each_fault_is_told_and_nothing_is_changed", faults_are_told),
        trial("check::without_rights_it_says_so", without_rights),
    ]
}

/// Level and subject of each line, once each.
fn lines(text: &str) -> Vec<String> {
    let mut lines: Vec<_> =
        text.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect();
    lines.dedup();
    lines
}

fn a_node_is_fit() {
    add_addresses(&["192.0.2.1/24"]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    fs::write(directory.path().join("a.yaml"), service(0, &[1])).unwrap();
    let mut daemon = Daemon::start(IPVSD, &["run", "--manifests", path]);
    daemon.wait_for("programmed");
    let text = stdout(&ipvsd(&["check"]), 0);
    let fit = [
        "ok rights",
        "ok mode",
        "ok modules",
        "ok settings",
        "ok daemon",
        "ok differences",
        "ok kernel",
        "ok kube-proxy",
    ];
    assert_eq!(lines(&text)[..8], fit, "{text}");
    assert!(text.contains("has 1 Services and 1 virtual servers, 0 destinations drain, the last pass "), "{text}");

    let found: Value = serde_json::from_str(&stdout(&ipvsd(&["check", "--json"]), 0)).unwrap();
    let found = found.as_array().unwrap();
    assert_eq!(found[0]["subject"], "rights");
    assert!(found.iter().all(|one| (one["level"] == "ok") == one["advice"].is_null()), "{found:?}");
}

fn faults_are_told() {
    add_addresses(&["192.0.2.1/24"]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    fs::write(directory.path().join("a.yaml"), service(0, &[1])).unwrap();
    fs::write(directory.path().join("b.yaml"), "neither: [").unwrap();
    let mut daemon = Daemon::start(IPVSD, &["run", "--manifests", path, "--ipvs-sync-period", "1h"]);
    daemon.wait_for("programmed");
    run("ipvsadm", &["-d", "-t", "10.0.0.1:80", "-r", "172.17.0.1:8080"]);
    run("ipvsadm", &["-A", "-f", "5", "-s", "rr"]);
    run("ip", &["link", "add", "kube-ipvs0", "type", "dummy"]);
    run("sysctl", &["-qw", "net.ipv4.ip_forward=0", "net.ipv4.conf.node0.rp_filter=1"]);
    run("iptables", &["-t", "nat", "-N", "KUBE-SVC-ABC"]);
    let before = (rules(), settings(), modules());

    let text = stdout(&ipvsd(&["check"]), 1);
    for line in [
        "bad      settings     /proc/sys/net/ipv4/ip_forward is 0, not 1; ",
        "bad      differences  the kernel differs by 1 operations from what the daemon wants; ",
        "ok       kernel       1 virtual servers of ipvsd, of which 1 have nowhere to send connections",
        "warning  foreign      1 virtual servers that ipvsd did not make: mark 5 ipv4; ",
        "warning  kube-proxy   the device kube-ipvs0 of kube-proxy's ipvs mode is there; ",
        "bad      kube-proxy   rules of kube-proxy's iptables mode stand (legacy), ",
        "warning  rp_filter    rp_filter is strict on node0",
        "warning  problem      ",
    ] {
        assert!(text.lines().any(|found| found.starts_with(line)), "no {line:?} in\n{text}");
    }
    assert_eq!((rules(), settings(), modules()), before);
    daemon.kill();
    let text = stdout(&ipvsd(&["check"]), 1);
    assert!(text.contains("warning  daemon       no ipvsd runs in this network namespace; "), "{text}");
}

/// Which are loaded, but for those that the kernel loads when it is asked whether there are tables of nftables.
fn modules() -> BTreeSet<String> {
    let all = run("lsmod", &[]);
    let names = all.lines().filter_map(|line| line.split(' ').next());
    names.filter(|name| !["nf_tables", "libcrc32c"].contains(name)).map(str::to_owned).collect()
}

fn settings() -> String {
    run("sysctl", &["net.ipv4.vs", "net.ipv4.ip_forward", "net.ipv4.conf.all", "net.netfilter.nf_conntrack_max"])
}

fn without_rights() {
    let output = std::process::Command::new("setpriv").args(["--bounding-set=-all", IPVSD, "check"]).output().unwrap();
    let text = stdout(&output, 1);
    assert!(text.starts_with("bad      rights       CAP_NET_ADMIN is missing"), "{text}");
}
