//! The subcommands on a real kernel: exact rules for a directory, `list` against ipvsadm, `diff`, `cleanup`, and what
//! others made.

use crate::lab::{run, trial};
use crate::program::{Daemon, IPVSD, add_addresses, eventually, ipvsd, rules, service, stdout};
use libtest_mimic::Trial;
use nix::sched::{CloneFlags, unshare};
use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("commands::twenty_services_of_all_kinds_give_exactly_these_rules", twenty_services),
        trial("commands::every_scheduler_is_had_by_annotation_and_by_default", schedulers),
        trial("commands::list_prints_what_ipvsadm_prints", list_like_ipvsadm),
        trial("commands::what_others_made_survives_run_stop_and_cleanup", foreign_survives),
        trial("commands::an_edit_by_hand_is_repaired", edit_is_repaired),
        trial("commands::an_endpoint_on_this_node_stays_as_it_was_set", local_endpoint),
        trial("commands::a_log_that_cannot_be_written_stops_nothing", unwritable_log),
        trial("commands::an_answer_that_nobody_reads_is_the_same_answer", unread_answers),
        trial("commands::where_lo_was_never_up_ipv4_works", lo_never_up),
        trial("commands::where_ipv6_is_off_ipv6_fails_alone_and_says_why", ipv6_off),
        trial(
            "commands::a_directory_that_cannot_be_read_is_an_error_at_start_and_a_warning_later",
            unreadable_directory,
        ),
    ]
}

const TWENTY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/twenty");

fn twenty_services() {
    add_addresses(&["192.0.2.1/24", "192.0.2.7/24", "2001:db8::1/64"]);
    let output = ipvsd(&["run", "--once", "--manifests", TWENTY]);
    stdout(&output, 1);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors.matches("problem: ").count(), 1, "{errors}");
    let missing = "03-scheduling.yml, document 12: Service default/s20-scheduler-nobody-has: \
                   metadata.annotations[ipvsd.io/scheduler]: the kernel cannot load the scheduler nobody";
    assert!(errors.contains(missing), "{errors}");

    let mut expected: Vec<_> = include_str!("twenty/expected.txt").lines().map(str::to_owned).collect();
    expected.sort();
    assert_eq!(rules().join("\n"), expected.join("\n"));

    let routes = run("ip", &["-o", "route", "show", "table", "local", "proto", "118"]);
    assert!(routes.contains("local 10.96.0.1 dev lo scope host src 192.0.2.1"), "{routes}");
    assert!(!routes.contains("192.0.2.7 "), "the node's own address needs no route: {routes}");
    assert_eq!(stdout(&ipvsd(&["diff", "--manifests", TWENTY]), 1).lines().count(), 1, "the missing scheduler");
}

/// Every scheduler of this kernel; `twos` is younger.
fn schedulers() {
    let names = ["rr", "wrr", "lc", "wlc", "sh", "dh", "sed", "nq", "mh", "lblc", "lblcr", "fo", "ovf"];
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("text");
    for (number, name) in (0..).zip(names) {
        let annotated = format!("metadata: {{name: s{number}, annotations: {{ipvsd.io/scheduler: {name}}}}}\nspec");
        let text = service(number, &[1]).replace(&format!("metadata: {{name: s{number}}}\nspec"), &annotated);
        fs::write(directory.path().join(format!("{name}.yaml")), text).expect("ours");
    }
    fs::write(directory.path().join("usual.yaml"), service(50, &[1])).expect("ours");
    stdout(&ipvsd(&["run", "--once", "--manifests", path, "--ipvs-scheduler", "wlc"]), 0);
    let rules = rules();
    for (number, name) in (1..).zip(names) {
        let flag = if name == "mh" { " -b mh-port" } else { "" };
        let rule = format!("-A -t 10.0.0.{number}:80 -s {name}{flag}");
        assert!(rules.contains(&rule), "{rule} is not in {rules:?}");
    }
    assert!(rules.contains(&"-A -t 10.0.0.51:80 -s wlc".to_owned()), "{rules:?}");

    let unknown = ipvsd(&["run", "--once", "--manifests", path, "--ipvs-scheduler", "nobody"]);
    assert_eq!(unknown.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(errors.contains("ip_vs_nobody"), "{errors}");
}

fn list_like_ipvsadm() {
    for line in [
        "-A -t 10.0.0.1:80 -s rr",
        "-a -t 10.0.0.1:80 -r 10.1.0.1:8080 -m -w 3",
        "-a -t 10.0.0.1:80 -r 10.1.0.20:80 -i -w 1",
        "-a -t 10.0.0.1:80 -r 10.1.0.3:80 -g -w 65535",
        "-A -t 10.0.0.2:443 -s sh -b sh-port,sh-fallback -p 360 -M 255.255.255.0",
        "-A -t 9.0.0.2:443 -s mh -b mh-port -p 10800",
        "-A -t 9.0.0.2:444 -s wlc -b flag-1,flag-3",
        "-A -t 10.0.0.4:0 -s rr -p 50",
        "-A -u 10.0.0.3:53 -s wlc -o",
        "-A --sctp-service 10.0.0.9:9 -s ovf",
        "-A -f 77 -s rr",
        "-a -f 77 -r 10.1.0.1 -m",
        "-A -f 78 -6 -s rr -p",
        "-A -t [fd00::1]:80 -s wrr -p 300 -M 64",
        "-a -t [fd00::1]:80 -r [fd00::2]:80 -m -w 100",
        "-a -t [fd00::1]:80 -r [fd00:1234:5678:9abc:def0:1234:5678:9abc]:65535 -m -w 100",
        "-A -t [fd00:1234:5678:9abc:def0:1234:5678:9abc]:65535 -s lblcr",
    ] {
        run("ipvsadm", &line.split(' ').collect::<Vec<_>>());
    }
    assert_eq!(stdout(&ipvsd(&["list"]), 0), run("ipvsadm", &["-L", "-n"]));

    let json: serde_json::Value = serde_json::from_str(&stdout(&ipvsd(&["list", "--json"]), 0)).expect("JSON");
    let servers = json["virtualServers"].as_array().expect("a list");
    assert_eq!(servers.len(), 11);
    assert!(servers.iter().all(|server| server["managed"] == false));
    assert_eq!(servers[2]["destinations"][0]["weight"], 3);
    assert_eq!(servers[3]["persistence"]["prefix"], 24);
}

fn foreign_survives() {
    run("ipvsadm", &["-A", "-t", "10.0.0.1:80", "-s", "lc"]);
    run("ipvsadm", &["-a", "-t", "10.0.0.1:80", "-r", "172.20.0.1:80", "-m"]);
    run("ipvsadm", &["-A", "-f", "5", "-s", "rr"]);
    run("ip", &["route", "add", "local", "10.0.0.1", "dev", "lo", "table", "local"]);
    let (rules_before, routes_before) = (rules(), local_routes());

    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("text");
    // Number 0 asks for 10.0.0.1:80 as well.
    fs::write(directory.path().join("a.yaml"), service(0, &[1]) + &service(1, &[1])).expect("ours");
    let mut daemon = Daemon::start(IPVSD, &["run", "--manifests", path]);
    daemon.wait_for("Service default/s0: tcp 10.0.0.1:80 is a virtual server that ipvsd did not make");
    eventually("ours stands", || rules().iter().any(|rule| rule == "-A -t 10.0.0.2:80 -s rr"));
    assert!(rules_before.iter().all(|rule| rules().contains(rule)));
    daemon.kill();
    assert_eq!(rules().len(), rules_before.len() + 2);

    // After a crash the one is known to be ours and the other not to be.
    stdout(&ipvsd(&["run", "--once", "--manifests", path]), 1);
    assert_eq!(rules().len(), rules_before.len() + 2);
    assert_eq!(stdout(&ipvsd(&["cleanup"]), 0), "remove route: 1, remove virtual server: 1\n");
    assert_eq!((rules(), local_routes()), (rules_before, routes_before));
}

fn local_routes() -> String {
    run("ip", &["route", "show", "table", "local"])
}

fn edit_is_repaired() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("text");
    fs::write(directory.path().join("a.yaml"), service(0, &[1, 2])).expect("ours");
    let mut daemon = Daemon::start(IPVSD, &["run", "--manifests", path, "--ipvs-sync-period", "300ms"]);
    daemon.wait_for("programmed");
    let wanted = rules();
    for edit in [
        "-E -t 10.0.0.1:80 -s lc -p 60",
        "-e -t 10.0.0.1:80 -r 172.17.0.1:8080 -m -w 7",
        "-d -t 10.0.0.1:80 -r 172.17.0.1:8080",
        "-a -t 10.0.0.1:80 -r 172.99.0.1:8080 -m",
        "-D -t 10.0.0.1:80",
        "-C",
    ] {
        run("ipvsadm", &edit.split(' ').collect::<Vec<_>>());
        daemon.wait_for("programmed");
        eventually(edit, || rules() == wanted);
    }
    run("ip", &["route", "del", "local", "10.0.0.1", "dev", "lo", "table", "local"]);
    eventually("the route is back", || local_routes().contains("10.0.0.1 "));
    assert_eq!(stdout(&ipvsd(&["cleanup"]), 0), "remove route: 1, remove virtual server: 1\n", "still ours");
}

/// A host-network endpoint: the kernel must give back what was set, or every reading would find a difference.
fn local_endpoint() {
    add_addresses(&["172.17.0.1/24"]);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("text");
    fs::write(directory.path().join("a.yaml"), service(0, &[1, 2])).expect("ours");
    stdout(&ipvsd(&["run", "--once", "--manifests", path]), 0);
    assert_eq!(stdout(&ipvsd(&["diff", "--manifests", path]), 0), "");
}

fn unreadable_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("manifests");
    let name = path.to_str().expect("text");
    let output = ipvsd(&["run", "--manifests", name]);
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains(name) && errors.contains("No such file or directory"), "{errors}");

    fs::create_dir(&path).expect("ours");
    fs::write(path.join("a.yaml"), service(0, &[1])).expect("ours");
    let mut daemon = Daemon::start(IPVSD, &["run", "--manifests", name]);
    daemon.wait_for("programmed");
    let before = rules();
    fs::rename(&path, directory.path().join("away")).expect("ours");
    let warning = daemon.wait_for("the directory of manifests cannot be read, what it said before stays in force");
    assert!(warning.contains("No such file or directory"), "it says why: {warning}");
    assert_eq!(rules(), before);
    fs::create_dir(&path).expect("ours");
    daemon.wait_for("is another one than before and has none");
    assert_eq!(rules(), before, "as if something were mounted there no longer");
    fs::remove_dir(&path).expect("ours");
    fs::rename(directory.path().join("away"), &path).expect("ours");
    daemon.wait_for("no longer");
    fs::write(path.join("b.yaml"), service(1, &[1])).expect("ours");
    daemon.wait_for("programmed");
    assert_eq!(rules().len(), before.len() + 2);
    // Another one makes it a change that is seen at once.
    let mut half = File::create(path.join("a.yaml")).expect("ours");
    fs::write(path.join("c.yaml"), service(2, &[1])).expect("ours");
    daemon.wait_for("programmed");
    assert_eq!(rules().len(), before.len() + 4, "what is still being written says what it said before");
    half.write_all(service(0, &[1, 2]).as_bytes()).expect("ours");
    drop(half);
    daemon.wait_for("programmed");
    assert_eq!(rules().len(), before.len() + 5);
}

/// The log's disk is full, or its reader has gone.
fn unwritable_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("text");
    let closed_pipe = || std::io::pipe().map(|(_, writer)| writer.into()).expect("a pipe");
    for (number, log) in [full_disk(), closed_pipe()].into_iter().enumerate() {
        fs::remove_dir_all(path).and_then(|()| fs::create_dir(path)).expect("ours");
        let mut daemon =
            Command::new(IPVSD).args(["run", "--manifests", path]).stderr(log).spawn().expect("it is there");
        let number = u32::try_from(number).expect("small");
        fs::write(directory.path().join("a.yaml"), service(number, &[1])).expect("ours");
        fs::write(directory.path().join("b.yaml"), "neither: [").expect("ours");
        let wanted = format!("-A -t 10.0.0.{}:80 -s rr", number + 1);
        eventually(&wanted, || rules().contains(&wanted));
        daemon.kill().and_then(|()| daemon.wait()).expect("it still runs");
    }
}

fn unread_answers() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("text");
    fs::write(directory.path().join("a.yaml"), service(0, &[1, 2])).expect("ours");
    fs::write(directory.path().join("b.yaml"), "neither: [").expect("ours");
    let code = |arguments: &[&str], out: Stdio, err: Stdio| {
        Command::new(IPVSD).args(arguments).stdout(out).stderr(err).status().expect("it is there").code()
    };
    let closed_pipe = || Stdio::from(std::io::pipe().expect("a pipe").1);
    assert_eq!(code(&["diff", "--manifests", path], closed_pipe(), full_disk()), Some(1));
    assert_eq!(code(&["run", "--once", "--manifests", path], full_disk(), full_disk()), Some(1));
    assert_eq!(code(&["list"], closed_pipe(), full_disk()), Some(0));
    assert_eq!(code(&["cleanup"], full_disk(), full_disk()), Some(0));
    assert_eq!(rules(), Vec::<String>::new());
    assert_eq!(code(&["cleanup"], closed_pipe(), full_disk()), Some(0));
}

fn full_disk() -> Stdio {
    File::options().write(true).open("/dev/full").expect("Linux has it").into()
}

/// The table of local routes comes with the first address of `lo`.
fn lo_never_up() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a new namespace");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("text");
    fs::write(directory.path().join("a.yaml"), service(0, &[1])).expect("ours");
    stdout(&ipvsd(&["run", "--once", "--manifests", path]), 0);
    assert!(local_routes().contains("local 10.0.0.1 dev lo"), "{}", local_routes());
    assert_eq!(rules(), ["-A -t 10.0.0.1:80 -s rr", "-a -t 10.0.0.1:80 -r 172.17.0.1:8080 -m -w 1"]);
}

fn ipv6_off() {
    run("sysctl", &["-q", "net.ipv6.conf.all.disable_ipv6=1"]);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("text");
    fs::write(
        directory.path().join("a.yaml"),
        service(0, &[1]) + &service(0, &[1]).replace("10.0.0.1", "'fd00::1'").replace("s0", "six"),
    )
    .expect("ours");
    let mut daemon = Daemon::start(IPVSD, &["run", "--manifests", path]);
    daemon.wait_for("+ route fd00::1: IPv6 is switched off on lo: net.ipv6.conf.lo.disable_ipv6 is not 0");
    assert!(local_routes().contains("local 10.0.0.1 dev lo"), "{}", local_routes());
    run("sysctl", &["-q", "net.ipv6.conf.all.disable_ipv6=0"]);
    daemon.wait_for("no longer failing: + route fd00::1");
}
