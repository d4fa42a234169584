//! From IPVS to netfilter's rules and back, under traffic: no connection ends, no request fails, nothing is left over.

use crate::lab::{is_set, run, trial};
use crate::meanwhile::repeat_while;
use crate::mode::Mode;
use crate::program::eventually;
use crate::traffic_rig::{Rig, VIPS, request, requests, service, slices};
use ipvsd::demo::namespace::Namespace;
use ipvsd::model::Protocol;
use libtest_mimic::Trial;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("mode_changes::connections_and_requests_go_on_over_both", connections_and_requests_go_on_over_both),
        trial("mode_changes::nothing_of_the_other_mode_is_left", nothing_of_the_other_mode_is_left),
    ]
}

/// To be run before all others, as what they leave behind keeps modules in use for a while; and in the lab alone, whose
/// `/lib` and modules are its own.
pub fn first_trials() -> Vec<Trial> {
    let gains = trial("mode_changes::a_node_that_gains_ipvs_says_so_and_moves_over_if_asked", a_node_gains_ipvs);
    vec![gains.with_ignored_flag(!is_set("IPVSD_IN_LAB"))]
}

fn rig(flags: &[&'static str]) -> Rig {
    let mut rig = Rig::new(flags, |hosts| [vec![service("web", json!({}))], slices("web", hosts)].concat());
    rig.wait_for(&requests(&VIPS));
    // With netfilter from the beginning, as in a cluster.
    rig.stop_daemon();
    rig.with_netfilter();
    rig.start_daemon();
    // The table that is written last.
    rig.wait_until("rules stand", |rig| {
        rig.on_node(|| run("ip6tables-save", &["-t", "filter"]).contains("-j KUBE-IPVS-FILTER"))
    });
    rig
}

fn change(rig: &mut Rig, mode: Mode) {
    let starts = rig.log().matches(" started ").count();
    rig.stop_daemon();
    rig.change_mode(mode);
    rig.start_daemon();
    rig.wait_until("the other mode's rules stand", |rig| {
        let log = rig.log();
        log.split(" started ").nth(starts + 1).is_some_and(|since| since.contains(" programmed: "))
    });
    assert_eq!(balances_by_rules(rig), mode != Mode::Ipvs);
}

fn balances_by_rules(rig: &Rig) -> bool {
    rig.on_node(|| run("iptables-save", &["-t", "nat"])).contains("-j IPVSD-DISPATCH")
}

/// Sends requests while `work` goes on; none may fail, and none may have to be repeated: a refusal that comes while the
/// client is still at its first packet makes it only wait for a second.
fn under_requests(rig: &mut Rig, work: impl FnOnce(&mut Rig)) {
    let client = rig.network.client.namespace.run(Namespace::here).unwrap();
    let mut answered = 0;
    let ask = || {
        for vip in VIPS {
            let answer = request(Protocol::Tcp, vip, 80).send();
            assert!(answer.is_ok(), "after {answered} requests: {answer:?}");
            answered += 1;
        }
    };
    let repeated = || client.run(|| Ok(run("nstat", &["-asz", "TcpExtTCPSynRetrans"]))).unwrap();
    let before = repeated();
    repeat_while(&client, ask, || work(rig));
    assert!(answered > 10);
    assert_eq!(repeated(), before);
}

fn connections_and_requests_go_on_over_both() {
    let mut rig = rig(&[]);
    rig.with_pauses_between_tables();
    let by_ipvs = VIPS.map(|vip| rig.converse(vip));
    under_requests(&mut rig, |rig| {
        change(rig, Mode::Legacy);
        by_ipvs.iter().for_each(|one| rig.still_there(one));
        let drains = |rig: &Rig| !rig.on_node(|| run("ipvsadm", &["-Sn"])).contains("-w 1");
        rig.wait_until("IPVS takes nothing new", drains);
        by_ipvs.iter().for_each(|one| rig.still_there(one));
        let by_rules = VIPS.map(|vip| rig.converse(vip));
        change(rig, Mode::Ipvs);
        by_rules.iter().chain(&by_ipvs).for_each(|one| rig.still_there(one));
    });
}

/// The lab's kernel without IPVS, and without the files of its modules, until this is dropped. `/lib` is the lab's own.
struct WithoutIpvs {
    files: PathBuf,
    /// Those that go with IPVS.
    modules: Vec<String>,
}

impl WithoutIpvs {
    fn unload() -> Self {
        let files = Path::new("/lib/modules").join(run("uname", &["-r"]).trim());
        let listed = run("lsmod", &[]);
        let names = listed.lines().filter_map(|line| line.split_whitespace().next());
        let modules: Vec<_> = names.filter(|name| name.starts_with("ip_vs_") || *name == "xt_ipvs").collect();
        let without = Self { files, modules: modules.iter().map(|name| (*name).to_owned()).collect() };
        fs::rename(&without.files, without.hidden()).unwrap();
        // The namespaces of tests before go in their own time.
        eventually("nobody has IPVS any more", || {
            let remove = |name| Command::new("rmmod").arg(name).stderr(Stdio::null()).status().map(drop).unwrap();
            modules.iter().copied().chain(["ip_vs"]).for_each(remove);
            !Path::new("/proc/net/ip_vs").exists()
        });
        without
    }

    fn hidden(&self) -> PathBuf {
        self.files.with_extension("hidden")
    }

    fn load(&self) {
        fs::rename(self.hidden(), &self.files).unwrap();
        let names: Vec<_> = ["-a", "ip_vs"].into_iter().chain(self.modules.iter().map(String::as_str)).collect();
        run("modprobe", &names);
    }
}

impl Drop for WithoutIpvs {
    fn drop(&mut self) {
        if self.hidden().exists() {
            self.load();
        }
    }
}

/// Starts the daemon anew where there is no IPVS any more.
fn start_without_ipvs(rig: &mut Rig) -> WithoutIpvs {
    rig.stop_daemon();
    assert!(rig.ipvsd("cleanup").status.success());
    let without = WithoutIpvs::unload();
    rig.start_daemon();
    rig.wait_until("rules balance", balances_by_rules);
    without
}

fn a_node_gains_ipvs() {
    let mut rig = rig(&["--ipvs-sync-period", "200ms"]);
    let without = start_without_ipvs(&mut rig);
    assert!(rig.log().contains("mode iptables, because there is no IPVS: the kernel has no IPVS"), "{}", rig.log());
    without.load();
    let says = |what: &'static str| move |rig: &Rig| rig.log().contains(what);
    rig.wait_until("it says so", says("the kernel has IPVS now: the next start moves over to it"));
    assert!(balances_by_rules(&rig));

    rig.add_flags(&["--move-to-ipvs"]);
    let without = start_without_ipvs(&mut rig);
    let by_rules = VIPS.map(|vip| rig.converse(vip));
    under_requests(&mut rig, |rig| {
        without.load();
        rig.wait_until("it moves over", says("the kernel has IPVS now: moving over to it"));
        rig.wait_until("IPVS balances", |rig| !balances_by_rules(rig));
        by_rules.iter().for_each(|one| rig.still_there(one));
    });
    assert!(rig.on_node(|| run("ipvsadm", &["-Sn"])).contains(&format!("-a -t {}:80", VIPS[0])));
    assert!(rig.log().contains("mode ipvs, as asked"), "{}", rig.log());
}

fn nothing_of_the_other_mode_is_left() {
    let mut rig = rig(&["--drain-timeout", "1s"]);
    let state = |rig: &Rig| {
        let lines = rig.on_node(|| run("ipvsadm", &["-Sn"]) + &run("iptables-save", &[]) + &run("ip6tables-save", &[]));
        let mut lines: Vec<_> = lines
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split(" [").next().unwrap().to_owned())
            .collect();
        lines.sort();
        lines
    };
    let before = state(&rig);
    change(&mut rig, Mode::Legacy);
    rig.wait_until("IPVS is empty", |rig| rig.on_node(|| run("ipvsadm", &["-Sn"])).is_empty());
    change(&mut rig, Mode::Ipvs);
    rig.wait_until("all is as it was", |rig| state(rig) == before);
    assert!(rig.ipvsd("diff").status.success());
}
