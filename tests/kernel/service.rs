//! The daemon as a service: what it tells the service manager, and the rights that `systemd/ipvsd.service` leaves it.

use crate::lab::{run, trial};
use crate::program::{IPVSD, eventually, ipvsd, rules, service, stdout};
use ipvsd::demo::daemon::Daemon;
use ipvsd::demo::namespace::Namespace;
use ipvsd::demo::wait::wait_for;
use libtest_mimic::Trial;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("service::the_service_manager_hears_of_ready_alive_and_stopping", service_manager),
        trial("service::the_service_manager_hears_of_one_that_waits_for_another", waiting),
        trial("service::the_journal_gets_what_lines_tell_as_fields", journal),
        trial("service::why_it_ends_is_an_error_to_the_journal", last_words),
        trial("service::the_daemon_is_asked_at_a_file_by_root_alone", socket_file),
        trial("service::with_no_right_but_to_the_network_it_does_all_its_work", as_the_unit),
        trial("service::as_user_0_with_the_daemon_sets_rights_it_does_all_its_work", as_the_container),
        trial("service::with_the_daemon_sets_rights_it_programs_netfilter", netfilter_as_the_container),
        trial("service::a_start_in_place_is_no_end_to_the_service_manager", start_in_place),
    ]
}

/// The user `nobody`, with the one capability of the unit.
const UNIT: [&str; 8] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=-all,+net_admin",
    "--ambient-caps=-all,+net_admin",
    "--bounding-set=-all,+net_admin",
    "--no-new-privs",
];
/// What the DaemonSet asks of the container runtime for the daemon: a user 0 that has no capabilities but two, and a
/// read-only root file system.
const CONTAINER: [&str; 9] = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    "mount -o remount,bind,ro / && exec \"$@\"",
    "sh",
    "setpriv",
    "--bounding-set=-all,+net_admin,+net_raw",
    "--no-new-privs",
];
const DAEMON_SET: &str = include_str!("../../deploy/kustomize/base/daemon-set.yaml");

fn service_manager() {
    let directory = tempfile::tempdir().unwrap();
    let address = directory.path().join("notify");
    let manager = UnixDatagram::bind(&address).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    fs::write(directory.path().join("a.yaml"), service(0, &[1])).unwrap();
    let mut command = Command::new(IPVSD);
    command.args(["run", "--manifests", directory.path().to_str().unwrap()]);
    command.env("NOTIFY_SOCKET", &address).env("WATCHDOG_USEC", "400000");
    let daemon = Daemon::start(&Namespace::here().unwrap(), &mut command, &directory.path().join("log")).unwrap();
    hear(&manager, "READY=1");
    assert_eq!(rules().len(), 2, "ready means programmed");
    let status = format!("STATUS=virtual servers follow {}", directory.path().display());
    hear(&manager, &status);
    fs::write(directory.path().join("b.yaml"), "kind: [").unwrap();
    hear(&manager, &format!("{status}; problems: 1, `ipvsd check` names them"));
    hear(&manager, "WATCHDOG=1");
    hear(&manager, "WATCHDOG=1");
    assert!(daemon.stop().unwrap().success());
    hear(&manager, "STOPPING=1");
    assert_eq!(rules().len(), 2, "the kernel stays as it is");
}

/// Again and again, as it gives a start 90 s from then on.
fn waiting() {
    let directory = tempfile::tempdir().unwrap();
    let address = directory.path().join("notify");
    let manager = UnixDatagram::bind(&address).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let start = |log: &str, variables: Option<(&str, &Path)>| {
        let mut command = Command::new(IPVSD);
        command.args(["run", "--manifests", directory.path().to_str().unwrap()]).envs(variables);
        Daemon::start(&Namespace::here().unwrap(), &mut command, &directory.path().join(log)).unwrap()
    };
    let first = start("first", None);
    eventually("the first has the place", || first.log().contains("started"));
    let second = start("second", Some(("NOTIFY_SOCKET", &address)));
    let told = hear(&manager, "EXTEND_TIMEOUT_USEC=90000000") + &hear(&manager, "EXTEND_TIMEOUT_USEC=90000000");
    assert!(told.contains("STATUS=waits: another ipvsd runs") && !told.contains("READY=1"), "{told}");
    assert!(first.stop().unwrap().success());
    hear(&manager, "READY=1");
    assert!(second.stop().unwrap().success());
}

/// A changed configuration starts the program anew. It may wait for a cluster then, for longer than the watchdog would.
fn start_in_place() {
    let directory = tempfile::tempdir().unwrap();
    let address = directory.path().join("notify");
    let manager = UnixDatagram::bind(&address).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let [manifests, settings] = ["manifests", "ipvsd.yaml"].map(|name| directory.path().join(name));
    fs::create_dir(&manifests).unwrap();
    fs::write(&settings, "netfilter: false\n").unwrap();
    let mut command = Command::new(IPVSD);
    command.args(["run", "--manifests", manifests.to_str().unwrap(), "--ipvsd-config", settings.to_str().unwrap()]);
    command.env("NOTIFY_SOCKET", &address).env("WATCHDOG_USEC", "30000000");
    let daemon = Daemon::start(&Namespace::here().unwrap(), &mut command, &directory.path().join("log")).unwrap();
    hear(&manager, "READY=1");
    fs::write(&settings, "netfilter: false\nsharedAffinity: true\n").unwrap();
    assert!(!hear(&manager, "WATCHDOG_USEC=0").contains("STOPPING=1"));
    assert!(hear(&manager, "READY=1").contains("WATCHDOG_USEC=30000000"));
    assert!(daemon.stop().unwrap().success());
    hear(&manager, "STOPPING=1");
}

/// Returns what came until then.
fn hear(manager: &UnixDatagram, word: &str) -> String {
    let (mut message, mut all) = ([0; 512], String::new());
    loop {
        let length = manager.recv(&mut message).unwrap_or_else(|error| panic!("no {word}: {error} after {all}"));
        let text = String::from_utf8_lossy(&message[..length]);
        all += &text;
        if text.lines().any(|line| line == word) {
            return all;
        }
    }
}

/// In a mount namespace that has this directory for the journal's.
fn journal() {
    let directory = tempfile::tempdir().unwrap();
    let [manifests, sockets] = ["manifests", "sockets"].map(|name| directory.path().join(name));
    [&manifests, &sockets].iter().for_each(|path| fs::create_dir(path).unwrap());
    let journal = UnixDatagram::bind(sockets.join("socket")).unwrap();
    journal.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    fs::write(manifests.join("a.yaml"), service(0, &[1, 2])).unwrap();
    fs::create_dir_all("/run/systemd/journal").unwrap();
    let script = "mount --bind \"$1\" /run/systemd/journal && shift && exec \"$@\"";
    let [manifests, sockets] = [&manifests, &sockets].map(|path| path.to_str().unwrap());
    let log = ["--log-format", "journal"];
    let words = [&["--mount", "sh", "-c", script, "sh", sockets, IPVSD][..], &log, &["run", "--once", "--manifests"]];
    stdout(&Command::new("unshare").args(words.concat()).arg(manifests).output().unwrap(), 0);
    let mut message = [0; 4096];
    let programmed = loop {
        let length = journal.recv(&mut message).unwrap_or_else(|error| panic!("no line: {error}"));
        let text = String::from_utf8_lossy(&message[..length]).into_owned();
        if text.contains("programmed: ") {
            break text;
        }
    };
    assert!(
        programmed.contains("PRIORITY\n\u{1}\0\0\0\0\0\0\u{0}6\n"),
        "the priority of information in {programmed:?}"
    );
    for field in ["PRIORITY", "SYSLOG_IDENTIFIER", "IPVSD_CHANGES", "IPVSD_DRAINING", "IPVSD_MILLISECONDS"] {
        assert!(programmed.lines().any(|line| line == field), "{field} in {programmed}");
    }
}

/// Programs that know sockets by a path ask there, from any network namespace. The first daemon has it.
fn socket_file() {
    const FILE: &str = "/run/ipvsd/inspection.sock";
    const ASK: [&str; 6] = ["curl", "--silent", "--show-error", "--fail", "--unix-socket", FILE];
    let ask = |launcher: &[&str]| {
        let words = [launcher, &ASK, &["http://ipvsd/v1/services/default/s0"]].concat();
        Command::new(words[0]).args(&words[1..]).output().unwrap()
    };
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a.yaml"), service(0, &[1])).unwrap();
    let command = || {
        let mut command = Command::new(IPVSD);
        command.args(["run", "--manifests", directory.path().to_str().unwrap()]);
        command
    };
    let start = |node: &Namespace, log: &str, said: &str| {
        let daemon = Daemon::start(node, &mut command(), &directory.path().join(log)).unwrap();
        let came = wait_for(Duration::from_secs(20), || Ok(daemon.log().contains(said).then_some(())));
        assert!(came.unwrap().is_some(), "{}", daemon.log());
        daemon
    };
    let here = Namespace::here().unwrap();
    let first = start(&here, "first", "programmed");
    assert!(stdout(&ask(&[]), 0).contains("10.0.0.1"));
    assert_eq!(fs::metadata(FILE).unwrap().mode() & 0o777, 0o600);
    assert_eq!(ask(&UNIT).status.code(), Some(7), "curl cannot connect");

    let other = start(&Namespace::new().unwrap(), "other", "programmed");
    assert!(other.log().contains(&format!("{FILE}: another process listens there")), "{}", other.log());
    assert!(other.stop().unwrap().success());
    assert!(stdout(&ask(&[]), 0).contains("10.0.0.1"));

    first.kill().unwrap();
    assert_eq!(ask(&[]).status.code(), Some(7), "what is left of it answers nobody");
    let second = start(&here, "second", "started");
    assert!(stdout(&ask(&[]), 0).contains("10.0.0.1"));
    assert!(second.stop().unwrap().success());
}

/// By the sign that systemd reads off what is written to stderr.
fn last_words() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stderr");
    let stderr = fs::File::create(&path).unwrap();
    let metadata = stderr.metadata().unwrap();
    let mut command = Command::new(IPVSD);
    command.args(["run", "--manifests", "/there/is/none"]).stderr(stderr);
    command.env("JOURNAL_STREAM", format!("{}:{}", metadata.dev(), metadata.ino()));
    assert_eq!(command.status().unwrap().code(), Some(2));
    let said = fs::read_to_string(path).unwrap();
    assert!(said.starts_with("<3>ipvsd: ") && said.lines().count() == 1, "{said}");
}

fn as_the_unit() {
    does_all_its_work(&UNIT);
}

fn as_the_container() {
    let rights = ["allowPrivilegeEscalation: false", "readOnlyRootFilesystem: true", "drop: [ALL]"];
    for asked in rights.into_iter().chain(["add: [NET_ADMIN, NET_RAW]"]) {
        assert!(DAEMON_SET.contains(asked), "{asked}");
    }
    does_all_its_work(&CONTAINER);
}

/// iptables is the legacy one here, which asks for more than the other.
fn netfilter_as_the_container() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a.yaml"), service(0, &[1, 2])).unwrap();
    let settings = directory.path().join("ipvsd.conf");
    fs::write(&settings, "netfilter: true").unwrap();
    let [manifests, settings] = [directory.path(), &settings].map(|path| path.to_str().unwrap());
    let arguments = ["run", "--once", "--manifests", manifests, "--ipvsd-config", settings];
    let words = [&CONTAINER[..], &[IPVSD], &arguments].concat();
    // As the kubelet does for a hostPath of type FileOrCreate.
    fs::write("/run/xtables.lock", "").unwrap();
    stdout(&Command::new(words[0]).args(&words[1..]).output().unwrap(), 0);
    for program in ["iptables-save", "ip6tables-save"] {
        let found = run(program, &["-t", "nat"]);
        assert!(found.contains("-A POSTROUTING") && found.contains("KUBE-POSTROUTING"), "{found}");
    }
    assert!(run("ipset", &["list", "KUBE-CLUSTER-IP"]).contains("10.0.0.1,tcp:80"));
}

/// Runs ipvsd by `launcher`, which takes every right but one from it, where sysctls cannot be written.
fn does_all_its_work(launcher: &[&str]) {
    let directory = tempfile::Builder::new().permissions(open_to_all()).tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    fs::write(directory.path().join("a.yaml"), service(0, &[1, 2])).unwrap();
    let launched = |arguments: &[&str]| {
        let words = [launcher, &[IPVSD], arguments].concat();
        Command::new(words[0]).args(&words[1..]).output().unwrap()
    };
    // As under ProtectKernelTunables: sysctls must be right already.
    let protect = || run("mount", &["--bind", "-o", "ro", "/proc/sys", "/proc/sys"]);
    protect();
    let refused = launched(&["run", "--once", "--manifests", path]);
    assert_eq!(refused.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(errors.contains("net/ipv4/") && errors.contains("set it on the host"), "{errors}");

    run("umount", &["/proc/sys"]);
    let settings = include_str!("../../systemd/sysctl.d/60-ipvsd.conf").lines().filter(|line| line.starts_with("net."));
    for (path, value) in settings.filter_map(|line| line.split_once(" = ")) {
        fs::write(format!("/proc/sys/{}", path.replace('.', "/")), value).unwrap();
    }
    protect();
    stdout(&launched(&["run", "--once", "--manifests", path]), 0);
    assert_eq!(rules().len(), 3);
    assert_eq!(stdout(&launched(&["diff", "--manifests", path]), 0), "");
    assert_eq!(stdout(&launched(&["list"]), 0), stdout(&ipvsd(&["list"]), 0));
    assert_eq!(stdout(&launched(&["cleanup"]), 0), "remove route: 1, remove virtual server: 1\n");
}

fn open_to_all() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o755)
}
