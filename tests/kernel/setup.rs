//! What is set on the node before it balances, on a real kernel, and what a node without rights is told.

use crate::lab::{in_namespace, run, trial};
use ipvsd::kernel::linux::Linux;
use ipvsd::kernel::node_setup::{Conntrack, IpvsTimeouts, NodeSetup, prepare, survey};
use ipvsd::kernel::{modules, sysctl};
use ipvsd::model::SchedulerName;
use libtest_mimic::Trial;
use std::path::Path;
use std::time::Duration;

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("setup::settings_are_of_the_namespace", settings_are_of_the_namespace),
        trial("setup::everything_asked_for_is_set_once_and_what_cannot_be_is_told", everything_asked_for),
        trial("setup::timeouts_not_asked_for_stay", timeouts_not_asked_for_stay),
        trial("setup::timeouts_beyond_the_kernels_count_are_told", timeouts_beyond_the_kernels_count),
        trial("setup::the_modules_that_are_needed_are_there", modules_are_there),
    ]
}

fn settings_are_of_the_namespace() {
    let mut linux = Linux::open().unwrap();
    let wanted = survey(&NodeSetup::default(), &mut linux).unwrap();
    // With the thread's own path, because /proc/sys/net is of the task that looks.
    let prepared = prepare(&NodeSetup::default(), &mut linux).unwrap();
    assert!(prepared.set.iter().any(|setting| setting.path == "/proc/sys/net/ipv4/vs/conntrack"), "{prepared:?}");
    assert!(prepared.set.iter().eq(wanted.iter().map(|difference| &difference.setting)), "{wanted:?}");
    assert_eq!(prepare(&NodeSetup::default(), &mut linux).unwrap().set, []);
    assert_eq!(run("sysctl", &["-n", "net.ipv4.vs.conntrack", "net.ipv4.ip_forward"]), "1\n1\n");
    let elsewhere = in_namespace(|| run("sysctl", &["-n", "net.ipv4.vs.conntrack"]));
    assert_eq!(elsewhere, "0\n");
    assert!(!sysctl::forwards_ipv6(Path::new(sysctl::ROOT)));
}

/// The size of the table of connections is the initial namespace's to set, and this is another one.
fn everything_asked_for() {
    let setup = NodeSetup {
        strict_arp: true,
        ipvs_timeouts: IpvsTimeouts { tcp: seconds(901), tcp_fin: seconds(121), udp: seconds(301) },
        conntrack: Conntrack {
            max_per_core: Some(1),
            min: 1_000_004,
            tcp_established: seconds(86_401),
            tcp_close_wait: seconds(3601),
            udp: seconds(31),
            udp_stream: seconds(121),
            tcp_be_liberal: true,
        },
        oom_score_adj: Some(1),
    };
    let mut linux = Linux::open().unwrap();
    let prepared = prepare(&setup, &mut linux).unwrap();
    let read = |names: &[&str]| run("sysctl", &[&["-n"], names].concat()).replace('\n', " ");
    assert_eq!(read(&["net.ipv4.conf.all.arp_ignore", "net.ipv4.conf.all.arp_announce"]), "1 2 ");
    let timeouts = ["tcp_timeout_established", "tcp_timeout_close_wait", "udp_timeout", "udp_timeout_stream"];
    let names: Vec<_> = timeouts.iter().map(|name| format!("net.netfilter.nf_conntrack_{name}")).collect();
    assert_eq!(read(&names.iter().map(String::as_str).collect::<Vec<_>>()), "86401 3601 31 121 ");
    assert_eq!(read(&["net.netfilter.nf_conntrack_tcp_be_liberal"]), "1 ");
    assert_eq!(run("ipvsadm", &["-L", "--timeout"]), "Timeout (tcp tcpfin udp): 901 121 301\n");
    assert_eq!(std::fs::read_to_string("/proc/self/oom_score_adj").unwrap(), "1\n");

    let untold: Vec<_> = prepared.unset.iter().map(ToString::to_string).collect();
    let maximum = read(&["net.netfilter.nf_conntrack_max"]);
    let stays =
        format!("/proc/sys/net/netfilter/nf_conntrack_max is {}, not 1000004, and cannot be set", maximum.trim());
    assert_eq!(untold.len(), 2, "{untold:?}");
    assert_eq!(untold[0], stays);
    assert!(untold[1].starts_with("/proc/sys/net/netfilter/nf_conntrack_buckets is "), "{untold:?}");

    let left: Vec<_> = survey(&setup, &mut linux).unwrap();
    assert!(left.iter().eq(prepared.unset.iter().map(|unset| &unset.difference)), "{left:?}");
    assert_eq!(prepare(&setup, &mut linux).unwrap().set, []);
}

fn timeouts_not_asked_for_stay() {
    let mut linux = Linux::open().unwrap();
    run("ipvsadm", &["--set", "100", "50", "20"]);
    let udp = IpvsTimeouts { udp: Some(Duration::from_millis(300)), ..IpvsTimeouts::default() };
    let setup = NodeSetup { ipvs_timeouts: udp, ..NodeSetup::default() };
    let prepared = prepare(&setup, &mut linux).unwrap();
    let line = prepared.set.last().unwrap().to_string();
    assert_eq!(line, "ipvsadm --set = tcp 100 s, tcpfin 50 s, udp 1 s");
    assert_eq!(run("ipvsadm", &["-L", "--timeout"]), "Timeout (tcp tcpfin udp): 100 50 1\n");
}

fn timeouts_beyond_the_kernels_count() {
    let mut linux = Linux::open().unwrap();
    run("ipvsadm", &["--set", "100", "50", "20"]);
    let tcp = IpvsTimeouts { tcp: Some(Duration::MAX), ..IpvsTimeouts::default() };
    let prepared = prepare(&NodeSetup { ipvs_timeouts: tcp, ..NodeSetup::default() }, &mut linux).unwrap();
    let [unset] = &prepared.unset[..] else { panic!("{:?}", prepared.unset) };
    let stays = "ipvsadm --set is tcp 100 s, tcpfin 50 s, udp 20 s, not tcp 4294967295 s, tcpfin 50 s, udp 20 s, and cannot be set";
    assert_eq!(unset.to_string(), stays);
}

fn modules_are_there() {
    let missing = modules::load_needed([SchedulerName::RR, SchedulerName::MH]);
    assert!(missing.is_empty(), "{missing:?}");
    let missing = modules::load_needed(["nobody".parse().unwrap()]);
    assert_eq!(missing.len(), 1);
    assert_eq!(missing[0].module, "ip_vs_nobody");
}

fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}
