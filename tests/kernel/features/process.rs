//! What a process does of itself: preparing a node alone, and what it makes of what a former one left.

use crate::lab::{run, trial};
use crate::program::{ipvsd, rules, service, stdout};
use libtest_mimic::Trial;
use std::fs;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("features::init_only_prepares_the_node_and_programs_nothing", init_only),
        trial("features::a_new_process_puts_right_the_weights_that_it_finds", weights),
    ]
}

fn init_only() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a.yaml"), service(0, &[1])).unwrap();
    let sysctls = || run("sysctl", &["-n", "net.ipv4.vs.conntrack", "net.ipv4.vs.expire_nodest_conn"]);
    assert_eq!(sysctls(), "0\n0\n");
    let arguments = ["run", "--init-only", "--manifests", directory.path().to_str().unwrap()];
    stdout(&ipvsd(&arguments), 0);
    assert_eq!(sysctls(), "1\n1\n");
    assert_eq!((rules().len(), run("iptables-save", &[]).contains("KUBE-")), (0, false));
}

/// Whoever was killed while an endpoint drained may have left it at 0 for ever.
fn weights() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a.yaml"), service(0, &[1, 2])).unwrap();
    let arguments = ["run", "--once", "--manifests", directory.path().to_str().unwrap()];
    stdout(&ipvsd(&arguments), 0);
    let wanted = rules();
    run("ipvsadm", &["-e", "-t", "10.0.0.1:80", "-r", "172.17.0.1:8080", "-m", "-w", "0"]);
    assert_ne!(rules(), wanted);
    stdout(&ipvsd(&arguments), 0);
    assert_eq!(rules(), wanted);
}
