//! Flags alone, flags beside a file, and docs/drop-in.md, which has to know them all.

use super::*;
use crate::cli::options::{Name, ProxyOptions};
use crate::config::kube_proxy as file;
use crate::config::{Config, Input};
use clap::{CommandFactory, Parser};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const HEADER: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    proxy: ProxyOptions,
}

fn parsed(words: &[&str]) -> Result<ProxyOptions, String> {
    let line = Line::try_parse_from([&["kube-proxy"], words].concat());
    line.map(|line| line.proxy).map_err(|error| error.to_string())
}

fn resolved(words: &[&str]) -> Config {
    parsed(words).unwrap().resolve(Name::KubeProxy).unwrap()
}

fn refused(words: &[&str]) -> String {
    match parsed(words) {
        Ok(options) => format!("{:#}", options.resolve(Name::KubeProxy).unwrap_err()),
        Err(error) => error,
    }
}

/// The effective configuration as a value of JSON.
fn effective(words: &[&str]) -> Value {
    serde_json::to_value(resolved(words).effective).unwrap()
}

/// A file with these fields, and its path.
fn file_with(fields: &str) -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("{HEADER}{fields}")).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (file, path)
}

/// A flag with a value that is not its default, and what it makes of its field.
type Sample = (&'static str, &'static str, Value);

/// One for each flag.
fn samples() -> Vec<Sample> {
    [samples_of_cluster_and_ipvs(), samples_of_node_and_log()].concat()
}

fn samples_of_cluster_and_ipvs() -> Vec<Sample> {
    vec![
        ("kubeconfig", "/k", json!("/k")),
        ("kube-api-content-type", "application/json", json!("application/json")),
        ("kube-api-burst", "20", json!(20)),
        ("kube-api-qps", "7.1", json!(7.1)),
        ("config-sync-period", "1m", json!("1m0s")),
        (
            "feature-gates",
            "NativeHistograms=true,ComponentFlagz=F",
            json!({"ComponentFlagz": false, "NativeHistograms": true}),
        ),
        ("hostname-override", " Node ", json!("node")),
        ("bind-address", "::1", json!("::1")),
        ("healthz-bind-address", "1.2.3.4", json!("1.2.3.4:10256")),
        ("metrics-bind-address", "fd00::1", json!("[fd00::1]:10249")),
        ("bind-address-hard-fail", "true", json!(true)),
        ("profiling", "1", json!(true)),
        ("show-hidden-metrics-for-version", "1.35", json!("1.35")),
        ("proxy-mode", "ipvs", json!("ipvs")),
        ("ipvs-scheduler", "wrr", json!("wrr")),
        ("ipvs-sync-period", "2m", json!("2m0s")),
        ("ipvs-min-sync-period", "3s", json!("3s")),
        ("ipvs-exclude-cidrs", "10.0.0.0/8,fd00::/8", json!(["10.0.0.0/8", "fd00::/8"])),
        ("ipvs-strict-arp", "true", json!(true)),
        ("ipvs-tcp-timeout", "4s", json!("4s")),
        ("ipvs-tcpfin-timeout", "5s", json!("5s")),
        ("ipvs-udp-timeout", "6s", json!("6s")),
    ]
}

fn samples_of_node_and_log() -> Vec<Sample> {
    vec![
        ("iptables-masquerade-bit", "3", json!(3)),
        ("masquerade-all", "true", json!(true)),
        ("iptables-localhost-nodeports", "false", json!(false)),
        ("iptables-sync-period", "7m", json!("7m0s")),
        ("iptables-min-sync-period", "8s", json!("8s")),
        ("detect-local-mode", "NodeCIDR", json!("NodeCIDR")),
        ("pod-bridge-interface", "cbr0", json!("cbr0")),
        ("pod-interface-name-prefix", "veth", json!("veth")),
        ("cluster-cidr", "10.0.0.0/8,fd00::/8", json!("10.0.0.0/8,fd00::/8")),
        ("nodeport-addresses", "primary", json!(["primary"])),
        ("oom-score-adj", "-5", json!(-5)),
        ("conntrack-max-per-core", "9", json!(9)),
        ("conntrack-min", "10", json!(10)),
        ("conntrack-tcp-timeout-established", "11s", json!("11s")),
        ("conntrack-tcp-timeout-close-wait", "12s", json!("12s")),
        ("conntrack-tcp-be-liberal", "true", json!(true)),
        ("conntrack-udp-timeout", "13s", json!("13s")),
        ("conntrack-udp-timeout-stream", "14s", json!("14s")),
        ("v", "4", json!(4)),
        (
            "vmodule",
            "source=5,cli=6",
            json!([{"filePattern": "source", "verbosity": 5}, {"filePattern": "cli", "verbosity": 6}]),
        ),
        ("logging-format", "json", json!("json")),
        ("log-flush-frequency", "15s", json!("15s")),
        ("log-text-split-stream", "true", json!(true)),
        ("log-text-info-buffer-size", "16Ki", json!("16Ki")),
        ("log-json-split-stream", "true", json!(true)),
        ("log-json-info-buffer-size", "17", json!("17")),
        ("healthz-port", "0", json!("")),
        ("metrics-port", "0", json!("")),
    ]
}

/// A command line with the flag and what it needs beside it.
fn with_sample(flag: &str, value: &str) -> Vec<String> {
    let mode = flag.starts_with("ipvs-").then(|| "--proxy-mode=ipvs".to_owned());
    let gate = flag.starts_with("log-").then(|| "--feature-gates=LoggingAlphaOptions=true".to_owned());
    [format!("--{flag}={value}")].into_iter().chain(mode).chain(gate).collect()
}

fn words(owned: &[String]) -> Vec<&str> {
    owned.iter().map(String::as_str).collect()
}

fn at(value: &Value, path: &str) -> Value {
    value.pointer(&format!("/{}", path.replace('.', "/"))).cloned().unwrap_or_default()
}

#[test]
fn each_flag_sets_its_field() {
    for (flag, value, wanted) in samples() {
        let (_, field) = FIELDS.iter().find(|(known, _)| *known == flag).unwrap();
        assert_eq!(at(&effective(&words(&with_sample(flag, value))), field), wanted, "{flag}");
    }
    let sampled: Vec<_> = samples().iter().map(|(flag, ..)| *flag).collect();
    assert_eq!(sampled, FIELDS.map(|(flag, _)| flag));
}

#[test]
fn beside_a_file_most_flags_have_no_effect_and_are_named() {
    let (_file, path) = file_with("oomScoreAdj: 17\nfeatureGates: {LoggingAlphaOptions: true}");
    let config = ["--config", &path];
    let alone = effective(&config);
    for (flag, value, wanted) in samples() {
        let flag_and_value = format!("--{flag}={value}");
        let with_flag = [&config[..], &[&flag_and_value]].concat();
        let resolved = resolved(&with_flag);
        let named = format!("without effect beside --config, as in kube-proxy: --{flag}");
        let (_, field) = FIELDS.iter().find(|(known, _)| *known == flag).unwrap();
        if flag == "hostname-override" || field.starts_with("logging.") {
            assert_eq!(at(&serde_json::to_value(resolved.effective).unwrap(), field), wanted, "{flag}");
            assert!(!resolved.notices.contains(&named), "{flag}");
        } else {
            assert_eq!(serde_json::to_value(resolved.effective).unwrap(), alone, "{flag}");
            assert!(resolved.notices.contains(&named), "{flag}: {:?}", resolved.notices);
        }
    }
}

#[test]
fn the_server_is_told_beside_a_file_too() {
    let (_file, path) = file_with("clientConnection: {kubeconfig: /k}");
    let config = resolved(&["--config", &path, "--master=https://there", "--kubeconfig=/other"]);
    let Input::Cluster(cluster) = config.input else { panic!("a cluster") };
    assert_eq!((cluster.master.as_deref(), cluster.kubeconfig), (Some("https://there"), Some("/k".into())));
    assert_eq!(config.files, [PathBuf::from(path)]);
}

#[test]
fn patterns_of_the_flag_come_before_those_of_the_file() {
    let fields = "logging: {format: json, flushFrequency: 1s, verbosity: 10, options: {json: {splitStream: true}}}";
    let (_file, path) = file_with(fields);
    let logging = effective(&["--config", &path, "-v", "3", "--log-flush-frequency=2m"])["logging"].clone();
    assert_eq!((&logging["verbosity"], &logging["flushFrequency"]), (&json!(3), &json!("2m0s")));
    assert_eq!((&logging["format"], &logging["options"]["json"]["splitStream"]), (&json!("json"), &Value::Null));
    let (_file, path) = file_with("logging: {vmodule: [{filePattern: a, verbosity: 1}]}");
    let logging = effective(&["--config", &path, "--vmodule=b=2", "--vmodule=c=3,d=4"])["logging"].clone();
    let patterns: Vec<_> =
        logging["vmodule"].as_array().unwrap().iter().map(|item| item["filePattern"].clone()).collect();
    assert_eq!(patterns, ["b", "c", "d", "a"]);
}

#[test]
fn the_name_of_the_flag_wins_and_is_trimmed() {
    let (_file, path) = file_with("hostnameOverride: FOO");
    for (flag, name) in [("", "foo"), ("  Bar ", "bar")] {
        assert_eq!(resolved(&["--config", &path, "--hostname-override", flag]).node_name.as_deref(), Some(name));
    }
    for config in [&["--config", path.as_str()][..], &[]] {
        let error = refused(&[config, &["--hostname-override=  "]].concat());
        assert!(error.contains("must not be blank"), "{error}");
    }
}

#[test]
fn kubeadms_command_line_is_taken() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/kube-proxy/kubeadm.yaml");
    let config = resolved(&[&format!("--config={fixture}"), "--hostname-override=NODE"]);
    assert_eq!(config.node_name.as_deref(), Some("node"));
}

#[test]
fn periods_are_those_of_the_modes_own_flags() {
    let given = [
        "--iptables-sync-period=36s",
        "--iptables-min-sync-period=3s",
        "--ipvs-sync-period=16s",
        "--ipvs-min-sync-period=7s",
    ];
    for (mode, sync, rest, ignored) in [
        ("--proxy-mode=iptables", 36, 3, "ipvs"),
        ("--proxy-mode=", 36, 3, "ipvs"),
        ("--proxy-mode=ipvs", 16, 7, "iptables"),
    ] {
        let config = resolved(&[&given[..], &[mode]].concat());
        let intervals = config.options.intervals;
        assert_eq!(
            (intervals.resync, intervals.rest),
            (Duration::from_secs(sync), Duration::from_secs(rest)),
            "{mode}"
        );
        for name in ["sync", "min-sync"] {
            let notice = format!("--{ignored}-{name}-period has no effect in this mode, as in kube-proxy");
            assert!(config.notices.contains(&notice), "{notice}: {:?}", config.notices);
        }
    }
    let default = resolved(&["--proxy-mode=ipvs"]).options.intervals;
    assert_eq!((default.resync.as_secs(), default.rest.as_secs()), (30, 1), "what the help of kube-proxy shows");
}

#[test]
fn a_deprecated_port_counts_only_for_an_address_without_one() {
    let (healthz, metrics) = ("0.0.0.0:10256", "127.0.0.1:10249");
    for (given, wanted) in [
        (&[][..], [Some(healthz), Some(metrics)]),
        (&["--healthz-port=1234", "--metrics-port=1235"], [Some(healthz), Some(metrics)]),
        (&["--healthz-port=0", "--metrics-port=0"], [None, None]),
        (&["--healthz-bind-address=1.2.3.4", "--healthz-port=5"], [Some("1.2.3.4:5"), Some(metrics)]),
        (&["--metrics-bind-address=fd00::1", "--metrics-port=5"], [Some(healthz), Some("[fd00::1]:5")]),
        (&["--healthz-bind-address=1.2.3.4:6", "--healthz-port=5"], [Some("1.2.3.4:6"), Some(metrics)]),
        (&["--healthz-bind-address=", "--metrics-bind-address="], [Some(healthz), Some(metrics)]),
        (&["--bind-address=::1"], [Some(healthz), Some(metrics)]),
    ] {
        let config = resolved(given);
        let wanted = wanted.map(|socket| socket.map(|socket| socket.parse().unwrap()));
        assert_eq!([config.servers.healthz, config.servers.metrics], wanted, "{given:?}");
        let quirks = given.iter().filter(|flag| flag.contains("port") || flag.ends_with("-bind-address=")).count();
        assert_eq!(config.notices.len(), quirks, "of each: {:?}", config.notices);
    }
    let error = refused(&["--healthz-bind-address=1.2.3.4", "--write-config-to=x"]);
    assert!(error.contains("--healthz-bind-address: 1.2.3.4 must be IP:port"), "{error}");
    let error = refused(&["--healthz-bind-address=1.2.3.4", "--healthz-port=70000"]);
    assert!(error.contains("--healthz-bind-address: 1.2.3.4:70000 must have a port from 1 to 65535"), "{error}");
}

#[test]
fn empty_paths_are_none() {
    let config = resolved(&["--config=", "--kubeconfig=", "--write-config-to=", "--master="]);
    let Input::Cluster(cluster) = config.input else { panic!("a cluster") };
    assert_eq!((config.files, cluster.kubeconfig, cluster.master), (Vec::new(), None, None));
    let config = resolved(&["--write-config-to=x", "--metrics-port=5"]);
    assert_eq!(config.notices[0], "--metrics-port has no effect beside --write-config-to, as in kube-proxy");
}

#[test]
fn flags_are_written_as_for_kube_proxy() {
    for (line, field, wanted) in [
        ("--masquerade-all", "iptables.masqueradeAll", json!(true)),
        ("--masquerade-all=false", "iptables.masqueradeAll", json!(false)),
        ("--masquerade-all --masquerade-all=F", "iptables.masqueradeAll", json!(false)),
        ("-v2", "logging.verbosity", json!(2)),
        ("-v=2", "logging.verbosity", json!(2)),
        ("-v 2", "logging.verbosity", json!(2)),
        ("--v=2", "logging.verbosity", json!(2)),
        ("--v 1 -v 3", "logging.verbosity", json!(3)),
        ("--oom-score-adj -7", "oomScoreAdj", json!(-7)),
        ("--cluster-cidr 10.0.0.0/8", "clusterCIDR", json!("10.0.0.0/8")),
        ("--cluster-cidr=", "clusterCIDR", json!("")),
        ("--nodeport-addresses=", "nodePortAddresses", json!([])),
        (
            "--nodeport-addresses 10.0.0.0/8,11.0.0.0/8 --nodeport-addresses=12.0.0.0/8",
            "nodePortAddresses",
            json!(["10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8"]),
        ),
        ("--feature-gates=AllAlpha=true --feature-gates AllAlpha=false", "featureGates", json!({"AllAlpha": false})),
    ] {
        assert_eq!(at(&effective(&line.split(' ').collect::<Vec<_>>()), field), wanted, "{line}");
    }
}

#[test]
fn a_bad_value_is_named_with_its_flag() {
    for (line, message) in [
        ("--masquerade-all false", "unexpected argument 'false'"),
        ("--masquerade-all=no", "must be true or false"),
        ("--bind-address web", "must be an IP address"),
        ("--healthz-bind-address web:80", "must be IP or IP:port"),
        ("--oom-score-adj x", "invalid digit"),
        ("--ipvs-tcp-timeout 5", "\"5\" is not a duration: write 30s, 1m30s, 250ms or 0"),
        ("--vmodule=a", "\"a\" must be PATTERN=NUMBER"),
        ("--feature-gates=A", "\"A\" must be NAME=true or NAME=false"),
        ("--feature-gates=A=true", "--feature-gates A: true cannot be: there is no such feature gate"),
        ("--nodeport-addresses=10.0.0.0/8,x", "--nodeport-addresses[1]: \"x\" must be a CIDR"),
        ("-v=-1", "invalid"),
        ("--iptables-masquerade-bit 32", "32 must be 0 to 31"),
        ("--proxy-mode foo", "foo must be iptables, ipvs, nftables or nothing"),
        ("--kube-api-burst -1", "-1 must not be less than 0"),
        ("--config-sync-period -1s", "-1s must be longer than 0"),
    ] {
        let error = refused(&line.split(' ').collect::<Vec<_>>());
        let flag = line.split([' ', '=']).next().unwrap();
        assert!(error.contains(message), "{line}: {error}");
        assert!(error.contains(flag) || flag == "--masquerade-all" || error.contains("--v"), "{line}: {error}");
    }
    assert!(refused(&["--config=/no/such/file"]).starts_with("/no/such/file cannot be read: No such file"));
}

#[test]
fn what_a_file_has_wrong_is_named_by_its_field() {
    let (_file, path) = file_with("iptables: {masqueradeBit: 32}\ncolour: blue");
    assert_eq!(refused(&["--config", &path]), "iptables.masqueradeBit: 32 must be 0 to 31");
    let (_file, path) = file_with("mode: ipvs\ncolour: blue");
    assert_eq!(resolved(&["--config", &path]).notices, [format!("{path}: colour is unknown and has no effect")]);
    let (_file, path) = file_with("mode: [");
    assert!(refused(&["--config", &path]).starts_with(&format!("{path} is no configuration of kube-proxy: not YAML")));
}

/// The rows of a table of docs/drop-in.md: what stands in backquotes in the first cell.
fn documented(heading: &str) -> Vec<String> {
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/drop-in.md")).unwrap();
    let section = document.split("\n## ").find(|section| section.starts_with(heading)).unwrap().to_owned();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")).map(|row| row.split('`').next().unwrap());
    rows.map(str::to_owned).collect()
}

fn assert_same(documented: Vec<String>, known: BTreeSet<String>) {
    let rows: BTreeSet<_> = documented.iter().cloned().collect();
    assert_eq!(rows.len(), documented.len(), "a row stands there twice");
    assert_eq!(rows.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new(), "documented, and not there");
    assert_eq!(known.difference(&rows).collect::<Vec<_>>(), Vec::<&String>::new(), "not documented");
}

#[test]
fn the_document_has_a_row_for_each_flag() {
    let command = KubeProxyFlags::augment_args(clap::Command::new("kube-proxy"));
    let flags = command.get_arguments().filter_map(|argument| argument.get_long()).map(|long| format!("--{long}"));
    assert_same(documented("Flags"), flags.collect());
    let mut own: BTreeSet<_> = Line::command()
        .get_arguments()
        .filter_map(|argument| argument.get_long())
        .map(|long| format!("--{long}"))
        .collect();
    own.retain(|flag| !documented("Flags").contains(flag));
    assert_same(documented("ipvsd's own flags"), own);
}

#[test]
fn the_document_has_a_row_for_each_field() {
    let mut fields = BTreeSet::new();
    let mut open = vec![(String::new(), serde_json::to_value(file::shape()).unwrap())];
    while let Some((path, value)) = open.pop() {
        match value {
            Value::Object(map) if !map.contains_key("") => {
                let below = map.into_iter().map(|(key, value)| (format!("{path}.{key}"), value));
                open.extend(below);
            }
            _ => _ = fields.insert(path.trim_start_matches('.').to_owned()),
        }
    }
    for (_, field) in FIELDS {
        assert!(fields.contains(field), "{field}");
    }
    assert_same(documented("Configuration file"), fields);
}
