//! What it costs at size: 10,000 Services in a real kernel, counted in system calls, and killed half-way.

use crate::lab::{run, trial};
use crate::program::{Daemon, IPVSD, ipvsd, rules, service, stdout, write_cluster};
use libtest_mimic::Trial;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("cost::ten_thousand_services_cost_under_a_thousand_calls_and_a_change_at_most_ten", calls_at_size),
        trial("cost::killed_among_virtual_servers_the_next_start_finishes_the_work", killed_among_virtual_servers),
        trial("cost::killed_among_destinations_the_next_start_finishes_the_work", killed_among_destinations),
        trial("cost::killed_among_routes_the_next_start_finishes_the_work", killed_among_routes),
    ]
}

/// System calls that carry netlink messages.
const NETLINK: &str = "trace=sendto,sendmsg,recvfrom,recvmsg";

fn calls_at_size() {
    let directory = tempfile::tempdir().expect("a directory");
    let (manifests, trace) = (directory.path().join("manifests"), directory.path().join("trace"));
    fs::create_dir(&manifests).expect("ours");
    write_cluster(&manifests, 10_000);
    let tracer = ["-f", "-qq", "-o", text(&trace), "-e", NETLINK];
    // It ends with its tracer.
    let traced = ["setpriv", "--pdeathsig", "KILL", IPVSD, "run", "--ipvs-sync-period", "1h"];
    let arguments = [&tracer[..], &traced, &["--manifests", text(&manifests)]].concat();
    let mut daemon = Daemon::start("strace", &arguments);
    let line = daemon.wait_for("programmed");
    for done in ["add destination: 20000", "add route: 10000", "add virtual server: 10000"] {
        assert!(line.contains(done), "{line}");
    }
    assert_eq!(rules().len(), 30_000);
    let start = calls(&trace);
    println!("    {} netlink calls from start to 40,000 objects", start.len());
    assert!(start.len() < 1000, "{}", start.len());

    // An endpoint more, one less, and a change that means nothing.
    let changed = manifests.join("extra.yaml");
    fs::write(&changed, service(20_000, &[1, 2])).expect("ours");
    daemon.wait_for("programmed");
    // The main thread looks at the node's links now and then.
    let reconciler = start.last().and_then(|call| call.split(' ').next()).expect("it made calls").to_owned();
    let calls = |trace: &Path| -> Vec<String> {
        calls(trace).into_iter().filter(|call| call.starts_with(&reconciler)).collect()
    };
    for (what, endpoints) in [("one more", &[1, 2, 3][..]), ("one less", &[2, 3])] {
        let before = calls(&trace).len();
        fs::write(&changed, service(20_000, endpoints)).expect("ours");
        daemon.wait_for("programmed");
        let new = calls(&trace).split_off(before);
        println!("    {what}: {} netlink calls", new.len());
        assert!((2..=10).contains(&new.len()), "{what}:\n{}", new.join("\n"));
        assert!(!new.iter().any(|call| call.contains("NLM_F_DUMP")), "{what}:\n{}", new.join("\n"));
    }
    // The departed endpoint, which has no connections, goes.
    daemon.wait_for("remove destination: 1");
    let before = calls(&trace).len();
    fs::write(&changed, format!("# Nothing new.\n{}", service(20_000, &[2, 3]))).expect("ours");
    fs::write(manifests.join("empty.yaml"), "").expect("ours");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(calls(&trace).split_off(before), Vec::<String>::new(), "no change");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// The calls so far, without those that found nothing to read.
fn calls(trace: &Path) -> Vec<String> {
    let trace = fs::read_to_string(trace).expect("strace writes it");
    trace.lines().filter(|line| !line.contains("EAGAIN")).map(str::to_owned).collect()
}

fn killed_among_virtual_servers() {
    killed_at(10);
}

fn killed_among_destinations() {
    killed_at(40);
}

fn killed_among_routes() {
    killed_at(60);
}

/// SIGKILL at one of the sends that take 4,000 Services to the kernel, then a round that may finish its work.
fn killed_at(send: u32) {
    let directory = tempfile::tempdir().expect("a directory");
    let manifests = text(directory.path());
    write_cluster(directory.path(), 4_000);
    run("ipvsadm", &["-A", "-t", "9.9.9.9:99", "-s", "lc"]);
    let inject = format!("inject=sendto:signal=KILL:when={send}");
    let arguments = ["-f", "-qq", "-o", "/dev/null", "-e", "trace=sendto", "-e", &inject, IPVSD, "run"];
    let arguments = [&arguments[..], &["--manifests", manifests]].concat();
    let killed = Command::new("strace").args(arguments).output().expect("strace is there");
    assert!(!killed.status.success(), "it was not killed");
    let half = rules().len();
    println!("    killed at send {send} with {half} rules");
    assert!(half > 1000, "the kill came before there was anything to lose");
    assert_ne!(ipvsd(&["diff", "--manifests", manifests]).stdout, b"", "the kill came too late to mean anything");

    stdout(&ipvsd(&["run", "--once", "--manifests", manifests]), 0);
    assert_eq!(stdout(&ipvsd(&["diff", "--manifests", manifests]), 0), "");
    assert_eq!(rules().len(), 12_001);
    assert!(rules().contains(&"-A -t 9.9.9.9:99 -s lc".to_owned()));
}
