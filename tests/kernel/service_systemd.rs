//! The unit of `systemd/` under the real systemd: when it is ready and by which rights, what the journal gets, and that
//! nobody who sends requests notices when it is away.

use crate::lab::lab_trial;
use crate::meanwhile::repeat_while;
use crate::program::{eventually, rules};
use crate::systemd::Machine;
use crate::traffic_rig::{VIPS, requests, service, slices};
use ipvsd::demo::backend::{Backend, Port};
use ipvsd::demo::client::Conversation;
use ipvsd::demo::namespace::Namespace;
use ipvsd::demo::network::{Host, Network};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![
        lab_trial("service_systemd::installed_as_the_manual_says_it_is_ready_with_the_least_rights", installed),
        lab_trial("service_systemd::whatever_ends_it_nobody_notices_and_it_comes_back", whatever_ends_it),
        lab_trial("service_systemd::one_that_waits_for_another_may_take_any_time_to_start", any_time_to_start),
    ]
}

/// CAP_NET_ADMIN alone (capability.h).
const NET_ADMIN: &str = "0000000000001000";
/// A priority of syslog, as the journal has it.
const ERROR: &str = "3";
const WARNING: &str = "4";
const INFORMATION: &str = "6";
/// Every virtual server and destination of the manual's manifest.
const PROGRAMMED: [&str; 6] = [
    "-A -t 203.0.113.10:443 -s wlc",
    "-A -t 203.0.113.10:80 -s wlc",
    "-a -t 203.0.113.10:443 -r 198.51.100.11:8443 -m -w 2",
    "-a -t 203.0.113.10:443 -r 198.51.100.12:8443 -m -w 1",
    "-a -t 203.0.113.10:80 -r 198.51.100.11:8080 -m -w 2",
    "-a -t 203.0.113.10:80 -r 198.51.100.12:8080 -m -w 1",
];

fn installed() {
    let machine = Machine::boot(&Namespace::here().unwrap());
    assert_eq!(rules(), [""; 0]);
    machine.install();
    assert_eq!(rules(), PROGRAMMED, "when systemctl has ended");
    has_the_least_rights(&machine);
    answers_at_its_file(&machine);
    tells_the_journal(&machine);
    mistakes_are_errors_to_the_journal(&machine);
}

fn has_the_least_rights(machine: &Machine) {
    let status = machine.sh(&format!("cat /proc/{}/status", machine.unit("MainPID")));
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        value.unwrap_or_else(|| panic!("no {name} in {status}"))
    };
    for (name, identity) in [("Uid", "id -u ipvsd"), ("Gid", "id -g ipvsd")] {
        assert_eq!(field(name), [machine.sh(identity).trim_end(); 4].join("\t"), "{name}");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), NET_ADMIN, "{set}");
    }
    // With filters, and with no way to more rights.
    assert_eq!([field("Seccomp"), field("NoNewPrivs")], ["2", "1"]);
}

/// In the directory that the unit has for it.
fn answers_at_its_file(machine: &Machine) {
    let seen = machine.sh("stat --format='%n %a %U' /run/ipvsd /run/ipvsd/inspection.sock");
    assert_eq!(seen, "/run/ipvsd 700 ipvsd\n/run/ipvsd/inspection.sock 600 ipvsd\n");
    machine.sh("curl --silent --show-error --fail --unix-socket /run/ipvsd/inspection.sock http://ipvsd/v1/status");
}

fn tells_the_journal(machine: &Machine) {
    let status = "virtual servers follow /etc/ipvsd/manifests";
    eventually("the status without problems", || machine.unit("StatusText") == status);
    let programmed = entry(machine, "--unit=ipvsd IPVSD_CHANGES=7");
    assert_eq!(programmed["PRIORITY"], INFORMATION, "{programmed}");
    for field in ["IPVSD_DRAINING", "IPVSD_MILLISECONDS"] {
        assert!(programmed[field].as_str().unwrap().parse::<u64>().is_ok(), "{field} of {programmed}");
    }
    machine.put("mistake.yaml", &service("mistake", json!({ "clusterIPs": [VIPS[0], "nowhere"] })).to_string());
    let problem = entry(machine, "--unit=ipvsd 'IPVSD_OBJECT=Service default/mistake'");
    assert_eq!([&problem["PRIORITY"], &problem["IPVSD_FIELD"]], [WARNING, "spec.clusterIPs[1]"], "{problem}");
    let status = format!("{status}; problems: 1, `ipvsd check` names them");
    eventually("the status with a problem", || machine.unit("StatusText") == status);
}

/// Those of a command line, which is read before there is a log.
fn mistakes_are_errors_to_the_journal(machine: &Machine) {
    machine.sh("! systemd-run --quiet --unit=mistake --property=Type=oneshot /usr/local/bin/ipvsd run --no-such-flag");
    let said = "error: unexpected argument '--no-such-flag' found";
    let matches = "_SYSTEMD_UNIT=mistake.service _TRANSPORT=stdout";
    eventually("what is wrong", || machine.journal(matches).iter().any(|entry| entry["MESSAGE"] == said));
    for entry in machine.journal(matches) {
        assert_eq!(entry["PRIORITY"], ERROR, "{entry}");
    }
}

/// The first entry of the journal that matches, which may come a moment later.
fn entry(machine: &Machine, matches: &str) -> Value {
    let mut entries = Vec::new();
    eventually(&format!("an entry of the journal: {matches}"), || {
        entries = machine.journal(matches);
        !entries.is_empty()
    });
    entries.remove(0)
}

fn whatever_ends_it() {
    let network = Network::build(2).unwrap();
    let ports = [Port::Http(8080), Port::Udp(8080), Port::SctpHttp(8080), Port::Lines(9090)];
    let start = |host: &Host| Backend::start(&host.name, &host.namespace, &ports).unwrap();
    let _backends: Vec<_> = network.backends.iter().map(start).collect();
    let machine = Machine::boot(&network.node);
    machine.drop_in("WatchdogSec=3s");
    machine.install();
    let objects = [vec![service("traffic", json!({}))], slices("traffic", &network.backends)].concat();
    machine.put("traffic.yaml", &objects.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n"));

    let client = &network.client.namespace;
    let target = SocketAddr::from((VIPS[0].parse::<IpAddr>().unwrap(), 90));
    let mut conversation = None;
    eventually("a conversation", || {
        conversation = client.run(|| Ok(Conversation::start(target)?)).ok();
        conversation.is_some()
    });
    let mut conversation = conversation.unwrap();
    let table = || network.node.run(|| Ok(rules())).unwrap();
    let whole = table();
    let mut talk = || {
        for request in requests(&VIPS) {
            request.send().unwrap_or_else(|error| panic!("{request:?}: {error}"));
        }
        conversation.say("meanwhile").unwrap();
        assert_eq!(table(), whole);
    };
    repeat_while(client, &mut talk, || _ = machine.sh("systemctl stop ipvsd; systemctl start ipvsd"));
    repeat_while(client, &mut talk, || _ = machine.sh("systemctl restart ipvsd"));
    repeat_while(client, &mut talk, || comes_back_after(&machine, "KILL", "signal"));
    repeat_while(client, &mut talk, || comes_back_after(&machine, "STOP", "watchdog"));
    answers_at_its_file(&machine);
}

/// After a signal, by itself and as another process. The journal has the result that systemd sees in its end.
fn comes_back_after(machine: &Machine, signal: &str, result: &str) {
    let process = machine.unit("MainPID");
    machine.sh(&format!("systemctl kill --kill-whom=main --signal={signal} ipvsd"));
    // In this order: until that one has ended the unit is active too.
    eventually("another process", || machine.unit("MainPID") != process && machine.unit("ActiveState") == "active");
    let failed = format!("ipvsd.service: Failed with result '{result}'.");
    let said = machine.journal("UNIT=ipvsd.service");
    assert!(said.iter().any(|entry| entry["MESSAGE"] == *failed), "{failed} in {said:#?}");
}

fn any_time_to_start() {
    let machine = Machine::boot(&Namespace::here().unwrap());
    machine.install();
    machine.sh("systemctl stop ipvsd");
    machine.drop_in("TimeoutStartSec=4s");
    let command = "/usr/local/bin/ipvsd run --manifests /etc/ipvsd/manifests";
    machine.sh(&format!("systemd-run --quiet --unit=other --property=Type=notify {command}"));
    machine.sh("systemctl start --no-block ipvsd");
    let waits = "waits: another ipvsd runs in this network namespace (process ";
    eventually("that it waits", || machine.unit("StatusText").starts_with(waits));
    let process = machine.unit("MainPID");
    sleep(Duration::from_secs(5));
    let state = ["ActiveState", "MainPID", "NRestarts"].map(|property| machine.unit(property));
    assert_eq!(state, ["activating", &process, "0"]);
    machine.sh("systemctl stop other");
    eventually("that it is ready", || machine.unit("ActiveState") == "active");
    assert_eq!(machine.unit("MainPID"), process, "it started anew in place");
}
