//! Files in the place of kube-proxy's: the expected texts are what kube-proxy 1.36.2 wrote for the same files.

use super::*;
use proptest::prelude::*;
use serde_json::Value;
use std::fs;

const HEADER: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

fn fixture(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kube-proxy").join(name)).unwrap()
}

fn read(fields: &str) -> Decoded<KubeProxyConfiguration> {
    parse(&format!("{HEADER}{fields}")).unwrap()
}

/// What `--write-config-to` writes for a file alone.
fn effective(text: &str) -> String {
    let mut config = parse(text).unwrap().object;
    config.set_platform_defaults();
    config.forget_other_modes();
    config.to_yaml()
}

/// The expected texts are what kube-proxy 1.36.2 wrote.
#[test]
fn files_come_to_what_kube_proxy_makes_of_them() {
    for name in ["kubeadm.yaml", "ipvs.yaml", "minimal.yaml", "lenient.json"] {
        let stem = name.split('.').next().unwrap();
        let [ours, theirs]: [Value; 2] = [effective(&fixture(name)), fixture(&format!("{stem}.effective.yaml"))]
            .map(|text| serde_saphyr::from_str(&text).unwrap());
        assert_eq!(ours, theirs, "{name}");
    }
}

#[test]
fn what_is_in_effect_is_read_as_the_same() {
    for name in ["kubeadm.effective.yaml", "ipvs.effective.yaml"] {
        let first = effective(&fixture(name));
        assert_eq!(parse(&first).unwrap().warnings, Vec::<String>::new());
        let keys = |text: &str| text.lines().map(|line| line.split(':').next().unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(keys(&first), keys(&fixture(name)), "the keys are in the order of the alphabet");
    }
}

#[test]
fn kubeadms_file_has_nothing_strange() {
    let decoded = parse(&fixture("kubeadm.yaml")).unwrap();
    assert_eq!(decoded.warnings, Vec::<String>::new());
    assert_eq!(decoded.object.client_connection.kubeconfig, "/var/lib/kube-proxy/kubeconfig.conf");
}

#[test]
fn strange_keys_are_told_and_cost_nothing() {
    assert_eq!(
        parse(&fixture("lenient.json")).unwrap().warnings,
        [
            "mode stands there more than once; the last one counts",
            "ipvs stands there more than once; the last one counts",
            "colour is unknown and has no effect",
            "logging.vmodule[0].why is unknown and has no effect",
        ],
        "what the first ipvs section has is not in effect, so its slips do not matter"
    );
    assert_eq!(
        parse(&fixture("minimal.yaml")).unwrap().warnings,
        ["only the first document is read, as in kube-proxy"]
    );
    for (fields, warning) in [
        ("Mode: ipvs", "Mode is unknown and has no effect"),
        ("5: x", "5 is unknown and has no effect"),
        ("ipvs: {syncPeriod: 5s, sheduler: {a: b}}", "ipvs.sheduler is unknown and has no effect"),
        ("conntrack: {min: 5, min: 6}", "conntrack.min stands there more than once; the last one counts"),
        ("logging: {options: {json: {size: 1}}}", "logging.options.json.size is unknown and has no effect"),
        ("featureGates: {A: true, A: true}", "featureGates.A stands there more than once; the last one counts"),
    ] {
        assert_eq!(read(fields).warnings, [warning]);
    }
}

#[test]
fn values_of_the_wrong_type_are_named_by_their_field() {
    for (fields, message) in [
        ("hostnameOverride: 123", "hostnameOverride: invalid type: integer `123`, expected a string"),
        ("ipvs: {strictARP: \"yes\"}", "ipvs.strictARP: invalid type: string \"yes\", expected a boolean"),
        ("ipvs: {syncPeriod: 5}", "ipvs.syncPeriod: invalid type: integer `5`, expected a string"),
        ("ipvs: {syncPeriod: \"\"}", "ipvs.syncPeriod: \"\" is not a duration: write 30s, 1m30s, 250ms or 0"),
        ("iptables: {syncPeriod: 1d}", "iptables.syncPeriod: \"1d\" is not a duration: write 30s, 1m30s, 250ms or 0"),
        ("ipvs: 5", "ipvs: must be a map of fields"),
        ("ipvs: [5s]", "ipvs: must be a map of fields"),
        ("logging: {vmodule: [5]}", "logging.vmodule[0]: must be a map of fields"),
        ("featureGates: [A]", "featureGates: must be a map of fields"),
        ("iptables: {masqueradeBit: 1.5}", "iptables.masqueradeBit: invalid type: floating point `1.5`, expected i32"),
        ("iptables: {masqueradeBit: 99999999999}", "iptables.masqueradeBit: invalid value: integer `99999999999`"),
        ("iptables: {masqueradeBit: \"14\"}", "iptables.masqueradeBit: invalid type: string \"14\", expected i32"),
        ("nodePortAddresses: [10.0.0.0/8, 5]", "nodePortAddresses[1]: invalid type: integer `5`, expected a string"),
        ("nodePortAddresses: 10.0.0.0/8", "nodePortAddresses: invalid type: string"),
        ("logging: {verbosity: -1}", "logging.verbosity: invalid value: integer `-1`, expected u32"),
        ("logging: {flushFrequency: 1.5}", "logging.flushFrequency: \"1.5\" is not a duration"),
        (
            "logging: {options: {text: {infoBufferSize: x}}}",
            "logging.options.text.infoBufferSize: \"x\" is not a quantity",
        ),
        ("featureGates: {NativeHistograms: 1}", "featureGates.NativeHistograms: invalid type: integer `1`"),
        ("clientConnection: {qps: \"5\"}", "clientConnection.qps: invalid type: string \"5\", expected f32"),
    ] {
        let error = parse(&format!("{HEADER}{fields}")).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

#[test]
fn another_kind_of_object_is_refused() {
    for (text, message) in [
        ("", "there is nothing in it"),
        ("# nothing", "there is nothing in it"),
        ("mode: ipvs", "apiVersion: \"\" must be kubeproxy.config.k8s.io/v1alpha1"),
        ("apiVersion: kubeproxy.config.k8s.io/v1alpha1", "kind: \"\" must be KubeProxyConfiguration"),
        ("kind: KubeSchedulerConfiguration\napiVersion: kubeproxy.config.k8s.io/v1alpha1", "kind: \"KubeSchedulerConf"),
        (
            "kind: KubeProxyConfiguration\napiVersion: kubeproxy.config.k8s.io/v1",
            "apiVersion: \"kubeproxy.config.k8s.i",
        ),
        ("- a\n- b", ".: must be a map of fields"),
        ("Twas bryllyg, and ye slythy toves", ".: must be a map of fields"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.starts_with(message), "{text:?}: {error}");
    }
    let error = parse(&format!("{HEADER}bindAddress: ::\n")).unwrap_err().to_string();
    assert!(error.starts_with("not YAML: ") && error.contains("line 3"), "{error}");
}

#[test]
fn yaml_is_read_as_its_first_version() {
    let config =
        read("ipvs: {strictARP: on}\niptables: {masqueradeBit: 010}\noomScoreAdj: 1.0\nconntrack: {min: 1_0}").object;
    assert_eq!((config.ipvs.strict_arp, config.iptables.masquerade_bit), (true, Some(8)));
    assert_eq!((config.oom_score_adj, config.conntrack.min), (Some(1), Some(10)));
    let anchored = read("mode: ipvs\nnftables: &a {syncPeriod: 5s}\nipvs: {<<: *a}").object;
    assert_eq!(anchored.periods().sync.to_string(), "5s");
}

#[test]
fn zero_and_null_are_not_set() {
    for fields in [
        "",
        "ipvs: null\nconntrack: null\nfeatureGates: null\nnodePortAddresses: null\nlogging: null",
        "ipvs: {syncPeriod: 0s}\niptables: {minSyncPeriod: 0s, syncPeriod: \"0\", masqueradeBit: null}\nconfigSyncPeriod: 0s",
        "clientConnection: {qps: 0, burst: 0, contentType: \"\"}\nlogging: {flushFrequency: 0, format: \"\"}",
        "bindAddress: \"\"\nhealthzBindAddress: \"\"\nmetricsBindAddress: \"\"\noomScoreAdj: null",
        "conntrack: {maxPerCore: null, tcpEstablishedTimeout: null}",
    ] {
        assert_eq!(read(fields).object, KubeProxyConfiguration::with_defaults(), "{fields}");
    }
}

#[test]
fn where_zero_means_something_it_stays() {
    let config = read("conntrack: {maxPerCore: 0, min: 0, tcpCloseWaitTimeout: 0s}\noomScoreAdj: 0").object;
    assert_eq!((config.conntrack.max_per_core, config.conntrack.min), (Some(0), Some(0)));
    assert_eq!((config.conntrack.tcp_close_wait_timeout.unwrap().nanos(), config.oom_score_adj), (0, Some(0)));
    let config = read("iptables: {localhostNodePorts: false, masqueradeBit: 0}").object;
    assert_eq!((config.iptables.localhost_node_ports, config.iptables.masquerade_bit), (Some(false), Some(0)));
}

#[test]
fn addresses_follow_the_family_of_the_bind_address_and_get_their_ports() {
    for (fields, healthz, metrics) in [
        ("", "0.0.0.0:10256", "127.0.0.1:10249"),
        ("bindAddress: 9.8.7.6", "0.0.0.0:10256", "127.0.0.1:10249"),
        ("bindAddress: \"::\"", "[::]:10256", "[::1]:10249"),
        ("bindAddress: ::0", "[::]:10256", "[::1]:10249"),
        ("bindAddress: \"::ffff:1.2.3.4\"", "0.0.0.0:10256", "127.0.0.1:10249"),
        ("healthzBindAddress: 1.2.3.4\nmetricsBindAddress: fd00::1", "1.2.3.4:10256", "[fd00::1]:10249"),
        ("healthzBindAddress: 1.2.3.4:12345\nmetricsBindAddress: \"[fd00::1]:5\"", "1.2.3.4:12345", "[fd00::1]:5"),
    ] {
        let config = read(fields).object;
        assert_eq!((config.healthz_bind_address.as_str(), config.metrics_bind_address.as_str()), (healthz, metrics));
    }
}

#[test]
fn the_mode_chooses_the_section_of_the_periods() {
    let sections =
        "iptables: {syncPeriod: 1m, masqueradeAll: true}\nipvs: {syncPeriod: 2m}\nnftables: {syncPeriod: 3m}";
    for (mode, sync, min_sync, all) in [
        ("\"\"", "1m0s", "1s", true),
        ("iptables", "1m0s", "1s", true),
        ("ipvs", "2m0s", "0s", true),
        ("nftables", "3m0s", "1s", false),
        ("kernelspace", "1m0s", "1s", true),
    ] {
        let mut config = read(&format!("mode: {mode}\n{sections}")).object;
        let before = (config.periods(), config.masquerade_all());
        assert_eq!(
            (before.0.sync.to_string().as_str(), before.0.min_sync.to_string().as_str(), before.1),
            (sync, min_sync, all)
        );
        config.forget_other_modes();
        assert_eq!((config.periods(), config.masquerade_all()), before);
        let left = [config.iptables.sync_period, config.ipvs.sync_period, config.nftables.sync_period];
        assert_eq!(left.iter().filter(|period| period.nanos() > 0).count(), 1, "{mode}");
    }
}

#[test]
fn the_platform_has_defaults_of_its_own() {
    let mut config = read("").object;
    config.set_platform_defaults();
    assert_eq!((config.mode.as_str(), config.detect_local_mode.as_str()), ("iptables", "ClusterCIDR"));
    assert_eq!(config.node_port_addresses, None);
    let mut config = read("mode: nftables\ndetectLocalMode: NodeCIDR").object;
    config.set_platform_defaults();
    assert_eq!(config.node_port_addresses, Some(vec!["primary".into()]));
    assert_eq!(config.detect_local_mode, "NodeCIDR");
}

#[test]
fn configz_has_the_object_under_its_group() {
    let configz: Value = serde_json::from_str(&KubeProxyConfiguration::with_defaults().configz()).unwrap();
    let object = &configz["kubeproxy.config.k8s.io"];
    assert_eq!((&object["kind"], &object["apiVersion"]), (&KIND.into(), &API_VERSION.into()));
    assert_eq!(object["clientConnection"]["qps"], 5);
}

#[test]
fn requests_a_second_are_written_without_needless_digits() {
    for (qps, text) in [("7.1", "7.1"), ("1e6", "1000000"), ("-1", "-1"), ("33.333333", "33.333332"), ("100.0", "100")]
    {
        let value = serde_json::to_value(read(&format!("clientConnection: {{qps: {qps}}}")).object).unwrap();
        assert_eq!(value["clientConnection"]["qps"].to_string(), text);
    }
}

#[test]
fn a_file_is_named_when_it_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("config.conf");
    assert_eq!(load(&missing).unwrap_err().to_string(), format!("{} cannot be read", missing.display()));
    fs::write(&missing, b"\xff\xfe").unwrap();
    assert!(load(&missing).unwrap_err().to_string().starts_with(missing.to_str().unwrap()));
    fs::write(&missing, HEADER).unwrap();
    assert!(load(&missing).is_ok());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        _ = parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_text_like_a_file_makes_it_panic(text in "([a-zA-Z]{1,9}: ?|[-{}\\[\\],:&*!|>'\"%@`#?.~<]|\n *|[0-9]{1,25}|0x|1e999|true|null|30s){0,60}") {
        _ = parse(&text);
        _ = parse(&format!("{HEADER}{text}"));
    }

    #[test]
    fn no_damage_to_a_file_makes_it_panic(at in 0_usize..1700, length in 0_usize..40, with in ".{0,20}") {
        let mut text: Vec<char> = fixture("kubeadm.yaml").chars().collect();
        let start = at.min(text.len());
        let end = (start + length).min(text.len());
        text.splice(start..end, with.chars());
        if let Ok(decoded) = parse(&text.into_iter().collect::<String>()) {
            _ = effective(&decoded.object.to_yaml());
        }
    }
}
