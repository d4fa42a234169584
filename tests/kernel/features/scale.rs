//! What a node of 10,000 Services has of netfilter: no chain and no rule more than one of ten, and no program run for them.

use crate::lab::{run, trial};
use crate::program::{Daemon, IPVSD};
use libtest_mimic::Trial;
use std::fmt::Write;
use std::fs;
use std::ops::Range;
use std::path::Path;

pub fn trials() -> Vec<Trial> {
    vec![trial("features::ten_thousand_services_have_the_rules_of_ten_and_start_no_program", rules_at_size)]
}

fn rules_at_size() {
    let directory = tempfile::tempdir().unwrap();
    let [manifests, own, trace] = ["manifests", "own.yaml", "trace"].map(|name| directory.path().join(name));
    fs::create_dir(&manifests).unwrap();
    fs::write(&own, "netfilter: true\n").unwrap();
    write_services(&manifests, 0..10);
    let [manifests_text, own, trace_text] = [&manifests, &own, &trace].map(|path| path.to_str().unwrap());
    let strace = ["-f", "-qq", "--seccomp-bpf", "-e", "trace=execve,execveat", "-o", trace_text, IPVSD, "run"];
    let flags = ["--ipvsd-config", own, "--cluster-cidr", "10.244.0.0/16,fd00:244::/32", "--ipvs-sync-period", "1h"];
    let mut daemon = Daemon::start("strace", &[&strace[..], &flags, &["--manifests", manifests_text]].concat());
    daemon.wait_for("programmed");
    let (few, started) = (chains_and_rules(), programs(&trace));
    println!("    {few:?} chains and rules, {started} programs at the start");
    assert!(started > 1, "the trace shows the programs that write the rules");

    write_services(&manifests, 10..10_000);
    daemon.wait_for("programmed");
    assert_eq!(run("ipset", &["list", "-t", "KUBE-CLUSTER-IP"]).lines().last(), Some("Number of entries: 10000"));
    assert_eq!(chains_and_rules(), few);
    assert_eq!(programs(&trace), started, "for thousands more");

    write_services(&manifests, 10_000..10_001);
    daemon.wait_for("programmed");
    assert_eq!(run("ipset", &["list", "-t", "KUBE-CLUSTER-IP"]).lines().last(), Some("Number of entries: 10001"));
    assert_eq!((chains_and_rules(), programs(&trace)), (few, started), "for one more");
}

/// Of both families together.
fn chains_and_rules() -> (usize, usize) {
    let saved = run("iptables-save", &[]) + &run("ip6tables-save", &[]);
    let count = |beginning| saved.lines().filter(|line| line.starts_with(beginning)).count();
    (count(':'), count('-'))
}

/// How many were started so far.
fn programs(trace: &Path) -> usize {
    let trace = fs::read_to_string(trace).unwrap();
    trace.lines().filter(|line| line.contains("execve") && !line.contains("ENOENT")).count()
}

/// One file of them, of all kinds and of both families.
fn write_services(directory: &Path, numbers: Range<u32>) {
    let mut text = String::new();
    for number in numbers.clone() {
        let [_, a, b, c] = (number + 1).to_be_bytes();
        let suffix = format!("{:x}", number + 1);
        let kind = match number % 10 {
            0 => format!(
                "type: LoadBalancer, loadBalancerSourceRanges: [192.0.2.{c}/32], ports: [{{port: 80, nodePort: {}}}]",
                20_000 + number
            ),
            1 => format!(
                "type: LoadBalancer, externalTrafficPolicy: Local, externalIPs: [11.{a}.{b}.{c}], ports: [{{port: 80}}]"
            ),
            2 => format!("type: NodePort, ports: [{{port: 53, protocol: UDP, nodePort: {}}}]", 20_000 + number),
            3 => "ports: [{port: 80, protocol: SCTP}]".to_owned(),
            _ => "ports: [{port: 80}]".to_owned(),
        };
        writeln!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{number}}}\n\
             spec: {{clusterIPs: [10.{a}.{b}.{c}, \"fd00:96::{suffix}\"], {kind}}}\n\
             status: {{loadBalancer: {{ingress: [{{ip: 12.{a}.{b}.{c}}}]}}}}"
        )
        .unwrap();
    }
    // Read as a whole or not at all.
    let draft = directory.with_extension("draft");
    fs::write(&draft, text).unwrap();
    fs::rename(draft, directory.join(format!("{}.yaml", numbers.start))).unwrap();
}
