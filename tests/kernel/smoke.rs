//! Checks the ground that the other kernel tests stand on: IPVS answers, its schedulers load, and tests do not see
//! each other.

use crate::lab::{in_namespace, run, trial};
use libtest_mimic::Trial;
use neli::consts::socket::NlFamily;
use neli::router::synchronous::NlRouter;
use neli::utils::Groups;

/// Every scheduler of Linux 6.1 but twos, which Debian's user-mode kernel does not have.
const SCHEDULERS: [&str; 13] = ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh"];

pub fn trials() -> Vec<Trial> {
    vec![
        trial("smoke::ipvs_answers_generic_netlink", ipvs_answers_generic_netlink),
        trial("smoke::every_scheduler_loads", every_scheduler_loads),
        trial("smoke::namespaces_have_tables_of_their_own", namespaces_have_tables_of_their_own),
    ]
}

fn ipvs_answers_generic_netlink() {
    let (router, _multicast) =
        NlRouter::connect(NlFamily::Generic, None, Groups::empty()).expect("a generic netlink socket");
    let family = router.resolve_genl_family("IPVS").expect("the family IPVS");
    assert!(family >= 0x10, "{family} is below the first dynamic family");
}

fn every_scheduler_loads() {
    for (address, scheduler) in (1..).zip(SCHEDULERS) {
        let service = format!("192.0.2.{address}:80");
        run("ipvsadm", &["-A", "-t", &service, "-s", scheduler]);
    }
    let rules = run("ipvsadm", &["-S", "-n"]);
    for (address, scheduler) in (1..).zip(SCHEDULERS) {
        let rule = format!("-A -t 192.0.2.{address}:80 -s {scheduler}");
        assert!(rules.lines().any(|line| line.starts_with(&rule)), "no `{rule}` in\n{rules}");
    }
}

fn namespaces_have_tables_of_their_own() {
    run("ipvsadm", &["-A", "-t", "192.0.2.1:80", "-s", "rr"]);
    let other = in_namespace(|| run("ipvsadm", &["-S", "-n"]));
    assert_eq!(other, "");
    let ours = run("ipvsadm", &["-S", "-n"]);
    assert_eq!(ours.trim_end(), "-A -t 192.0.2.1:80 -s rr");
}
