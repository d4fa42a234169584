//! Cleaning up under kube-proxy's name takes what all of its modes left, with or without IPVS.

use crate::feed;
use crate::lab::{run, trial};
use crate::rules::{FAMILIES, LEGACY, NFT, kube_proxys, restore, saved};
use crate::table::load;
use ipvsd::model::Family;
use libtest_mimic::Trial;
use std::os::unix::fs::symlink;
use std::process::{Command, Output};

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("leftovers::cleanup_as_kube_proxy_takes_what_all_modes_left", all_modes),
        trial("leftovers::cleanup_of_ipvsd_leaves_it", ours_alone),
    ]
}

/// Of the ipvs mode: chains with the sets that they look into.
const OF_IPVS_MODE: &str = "*nat\n:KUBE-LOAD-BALANCER - [0:0]\n:KUBE-NODE-PORT - [0:0]\n\
    -A KUBE-SERVICES -m set --match-set KUBE-LOAD-BALANCER dst,dst -j KUBE-LOAD-BALANCER\n\
    -A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ\nCOMMIT\n\
    *filter\n:KUBE-IPVS-FILTER - [0:0]\n:KUBE-IPVS-OUT-FILTER - [0:0]\n\
    -A INPUT -m comment --comment \"kubernetes ipvs access filter\" -j KUBE-IPVS-FILTER\n\
    -A OUTPUT -m comment --comment \"kubernetes ipvs access filter\" -j KUBE-IPVS-OUT-FILTER\n\
    -A FORWARD -m comment --comment \"kube-proxy firewall rules\" -j KUBE-PROXY-FIREWALL\n\
    -A KUBE-IPVS-FILTER -m set --match-set KUBE-LOAD-BALANCER dst,dst -j RETURN\nCOMMIT\n";

fn everything_of_kube_proxys() {
    run("ipset", &["create", "KUBE-LOAD-BALANCER", "hash:ip,port"]);
    run("ipset", &["create", "KUBE-6-CLUSTER-IP", "hash:ip,port", "family", "inet6"]);
    run("ipset", &["create", "SOMEBODYS", "hash:ip"]);
    for backend in [NFT, LEGACY] {
        FAMILIES.iter().for_each(|family| restore(backend, *family, kube_proxys(*family)));
    }
    restore(NFT, Family::Ipv4, OF_IPVS_MODE);
    load();
    feed("nft", &["-f", "-"], "table ip somebodys {}\n");
}

fn program(arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let named = directory.path().join(arguments[0]);
    symlink(env!("CARGO_BIN_EXE_ipvsd"), &named).unwrap();
    Command::new(named).args(&arguments[1..]).output().unwrap()
}

fn all_modes() {
    everything_of_kube_proxys();
    let output = program(&["kube-proxy", "--cleanup"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("destroy set: 2, remove kube-proxy's rules: 4, remove kube-proxy's table: 2"), "{said}");
    for backend in [NFT, LEGACY] {
        for family in FAMILIES {
            let left: Vec<_> =
                saved(backend, family).into_iter().filter(|line| !line.contains("KUBE-FIREWALL")).collect();
            assert_eq!(left, [""; 0], "{backend} {family}");
        }
    }
    let tables = run("nft", &["list", "tables"]);
    assert!(tables.contains("table ip somebodys") && !tables.contains("kube-proxy"), "{tables}");
    assert_eq!(run("ipset", &["list", "-name"]), "SOMEBODYS\n");
    let output = program(&["kube-proxy", "--cleanup"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "nothing to change\n");
}

fn ours_alone() {
    everything_of_kube_proxys();
    let before = (saved(NFT, Family::Ipv4), run("nft", &["list", "tables"]), run("ipset", &["list", "-name"]));
    // Where there is no IPVS it says so.
    program(&["ipvsd", "cleanup"]);
    assert_eq!((saved(NFT, Family::Ipv4), run("nft", &["list", "tables"]), run("ipset", &["list", "-name"])), before);
}
