//! Tables of fields: each that is wrong by its name, each that is good by what it becomes.

use super::*;
use crate::config::kube_proxy;
use crate::desired::{NetfilterSettings, NodePortAddresses};
use crate::model::SchedulerFlags;
use ipnet::IpNet;
use proptest::prelude::*;
use std::net::IpAddr;

const HEADER: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

fn request(fields: &str) -> Request {
    let mut effective = kube_proxy::parse(&format!("{HEADER}{fields}")).unwrap().object;
    effective.set_platform_defaults();
    Request { effective, ..Request::default() }
}

fn resolved(fields: &str) -> Config {
    resolve(request(fields)).unwrap()
}

fn refused(fields: &str) -> Vec<String> {
    match resolve(request(fields)) {
        Err(ResolveError::Invalid(invalid)) => invalid.iter().map(ToString::to_string).collect(),
        other => panic!("{fields}: {other:?}"),
    }
}

/// What is wrong with modes, periods, sockets and the kernel's settings, and the message.
const WRONG_VALUES: &[(&str, &str)] = &[
    ("mode: foo", "mode: foo must be iptables, ipvs, nftables or nothing"),
    ("mode: IPVS", "mode: IPVS must be iptables, ipvs, nftables or nothing"),
    ("iptables: {masqueradeBit: 32}", "iptables.masqueradeBit: 32 must be 0 to 31"),
    ("mode: ipvs\niptables: {masqueradeBit: -10}", "iptables.masqueradeBit: -10 must be 0 to 31"),
    ("iptables: {syncPeriod: 500ms}", "iptables.minSyncPeriod: 1s must not be longer than iptables.syncPeriod, 500ms"),
    ("iptables: {minSyncPeriod: -1s}", "iptables.minSyncPeriod: -1s must not be less than 0"),
    (
        "mode: ipvs\nipvs: {syncPeriod: 1s, minSyncPeriod: 2s}",
        "ipvs.minSyncPeriod: 2s must not be longer than ipvs.syncPeriod, 1s",
    ),
    ("mode: ipvs\nipvs: {syncPeriod: -5s, minSyncPeriod: -10s}", "ipvs.syncPeriod: -5s must be longer than 0"),
    ("mode: ipvs\nipvs: {tcpTimeout: -1s}", "ipvs.tcpTimeout: -1s must not be less than 0"),
    ("mode: ipvs\nipvs: {tcpFinTimeout: -1s}", "ipvs.tcpFinTimeout: -1s must not be less than 0"),
    ("mode: ipvs\nipvs: {udpTimeout: -1s}", "ipvs.udpTimeout: -1s must not be less than 0"),
    (
        "mode: ipvs\nipvs: {excludeCIDRs: [::0/0, 1.2.3]}",
        "ipvs.excludeCIDRs[1]: \"1.2.3\" must be a CIDR such as 10.100.0.0/16 or fde4:8dba:82e1::/48",
    ),
    (
        "mode: ipvs\nipvs: {scheduler: RR}",
        "ipvs.scheduler: \"RR\" is not a scheduler name: 1 to 15 characters of a-z, 0-9, _ and - are",
    ),
    ("clientConnection: {qps: 1e300}", "clientConnection.qps: inf must be a number of 32 bits"),
    ("bindAddress: \"1\\n2\"", "bindAddress: 1\\n2 must be an IP address"),
    ("configSyncPeriod: -1s", "configSyncPeriod: -1s must be longer than 0"),
    ("bindAddress: 10.10.12.11:2000", "bindAddress: 10.10.12.11:2000 must be an IP address"),
    ("bindAddress: \"[::]\"", "bindAddress: [::] must be an IP address"),
    ("healthzBindAddress: 0.0.0.0:0", "healthzBindAddress: 0.0.0.0:0 must have a port from 1 to 65535"),
    ("healthzBindAddress: foo", "healthzBindAddress: foo must be IP:port"),
    ("metricsBindAddress: 127.0.0.1:foo", "metricsBindAddress: 127.0.0.1:foo must have a port from 1 to 65535"),
    ("metricsBindAddress: web:80", "metricsBindAddress: web:80 must have a valid IP address before the port"),
    ("clientConnection: {burst: -5}", "clientConnection.burst: -5 must not be less than 0"),
    ("conntrack: {maxPerCore: -1}", "conntrack.maxPerCore: -1 must not be less than 0"),
    ("conntrack: {min: -1}", "conntrack.min: -1 must not be less than 0"),
    ("conntrack: {tcpEstablishedTimeout: -5s}", "conntrack.tcpEstablishedTimeout: -5s must not be less than 0"),
    ("conntrack: {tcpCloseWaitTimeout: -5s}", "conntrack.tcpCloseWaitTimeout: -5s must not be less than 0"),
    ("conntrack: {udpTimeout: -5s}", "conntrack.udpTimeout: -5s must not be less than 0"),
    ("conntrack: {udpStreamTimeout: -5s}", "conntrack.udpStreamTimeout: -5s must not be less than 0"),
];

/// What is wrong with the node, its pods and the log, and the message.
const WRONG_NAMES: &[(&str, &str)] = &[
    ("oomScoreAdj: -1001", "oomScoreAdj: -1001 must be -1000 to 1000"),
    ("oomScoreAdj: 1001", "oomScoreAdj: 1001 must be -1000 to 1000"),
    (
        "detectLocalMode: Guess",
        "detectLocalMode: Guess must be ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix",
    ),
    ("detectLocalMode: BridgeInterface", "detectLocal.bridgeInterface: \"\" must not be empty"),
    ("detectLocalMode: InterfaceNamePrefix", "detectLocal.interfaceNamePrefix: \"\" must not be empty"),
    (
        "clusterCIDR: 192.168.59.0",
        "clusterCIDR: \"192.168.59.0\" must be a CIDR such as 10.100.0.0/16 or fde4:8dba:82e1::/48",
    ),
    ("clusterCIDR: \"10.0.0.0/8,\"", "clusterCIDR: \"\" must be a CIDR such as 10.100.0.0/16 or fde4:8dba:82e1::/48"),
    (
        "clusterCIDR: 10.0.0.0/8,11.0.0.0/8",
        "clusterCIDR: 10.0.0.0/8,11.0.0.0/8 must be one CIDR, or two of different families with a comma",
    ),
    (
        "clusterCIDR: 10.0.0.0/8,fd00::/8,fd01::/16",
        "clusterCIDR: 10.0.0.0/8,fd00::/8,fd01::/16 must be one CIDR, or two of different families with a comma",
    ),
    (
        "nodePortAddresses: [1.2.3.4/32, 10.20.30.40]",
        "nodePortAddresses[1]: \"10.20.30.40\" must be a CIDR such as 10.100.0.0/16 or fde4:8dba:82e1::/48",
    ),
    (
        "detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: \"a b\"}",
        "detectLocal.bridgeInterface: a b must be the name of a network device, or its beginning",
    ),
    ("nodePortAddresses: [primary, 127.0.0.1/32]", "nodePortAddresses[0]: primary must stand alone, without CIDRs"),
    ("nodePortAddresses: [127.0.0.1/32, primary]", "nodePortAddresses[1]: primary must stand alone, without CIDRs"),
    ("hostnameOverride: \"  \"", "hostnameOverride: \"  \" must not be blank"),
    ("showHiddenMetricsForVersion: \"1\"", "showHiddenMetricsForVersion: 1 must be MAJOR.MINOR"),
    ("featureGates: {Nonsense: true}", "featureGates.Nonsense: true cannot be: there is no such feature gate"),
    (
        "featureGates: {NFTablesProxyMode: false}",
        "featureGates.NFTablesProxyMode: false cannot be: this feature gate is locked to true",
    ),
    ("logging: {flushFrequency: -1s}", "logging.flushFrequency: -1s must be longer than 0"),
    ("logging: {format: xml}", "logging.format: xml must be text or json"),
    ("logging: {verbosity: 3000000000}", "logging.verbosity: 3000000000 must be at most 2147483647"),
    (
        "logging: {format: json, vmodule: [{filePattern: cli, verbosity: 1}]}",
        "logging.vmodule: json must not be the format where vmodule is set",
    ),
    ("logging: {vmodule: [{verbosity: 1}]}", "logging.vmodule[0]: \"\" must be a pattern without `=` and comma"),
    ("logging: {vmodule: [{filePattern: \"a=b\"}]}", "logging.vmodule[0]: a=b must be a pattern without `=` and comma"),
    (
        "logging: {options: {json: {infoBufferSize: 1Ki}}}",
        "logging.options.json.infoBufferSize: 1Ki needs the feature gate LoggingAlphaOptions",
    ),
];

#[test]
fn every_field_that_is_wrong_is_named_with_its_value() {
    for (fields, message) in WRONG_VALUES.iter().chain(WRONG_NAMES) {
        let mut messages = refused(fields);
        messages.retain(|found| found != "ipvs.minSyncPeriod: -10s must not be less than 0");
        assert_eq!(messages, [*message], "{fields}");
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let fields = "mode: ipvs\nbindAddress: x\noomScoreAdj: 2000\nipvs: {syncPeriod: -1s}\nconntrack: {min: -1}\nclusterCIDR: none";
    let named: Vec<_> = refused(fields).iter().map(|message| message.split(':').next().unwrap().to_owned()).collect();
    let wanted =
        ["bindAddress", "ipvs.minSyncPeriod", "ipvs.syncPeriod", "clusterCIDR", "conntrack.min", "oomScoreAdj"];
    assert_eq!(named, wanted);
    let error = resolve(request(fields)).unwrap_err().to_string();
    assert_eq!(error.matches("; ").count(), 5, "one line: {error}");
}

#[test]
fn what_only_another_mode_uses_is_not_checked() {
    for fields in [
        "ipvs: {syncPeriod: -1s, tcpTimeout: -1s, excludeCIDRs: [foo], scheduler: \"no such\"}",
        "nftables: {masqueradeBit: 99, syncPeriod: -1s}",
        "mode: ipvs\niptables: {syncPeriod: -1s}\nnftables: {minSyncPeriod: 1h}",
        "detectLocalMode: NodeCIDR\nclusterCIDR: nonsense",
    ] {
        resolved(fields);
    }
}

#[test]
fn the_mode_nftables_is_refused_with_a_way_out() {
    let error = resolve(request("mode: nftables")).unwrap_err();
    assert_eq!(error, ResolveError::Nftables);
    assert!(error.to_string().contains("write `mode: ipvs` or `mode: iptables`, or run kube-proxy"));
    assert_eq!(refused("mode: nftables\noomScoreAdj: 5000").len(), 1, "what is wrong comes first");
}

#[test]
fn modes_are_what_they_say() {
    for fields in ["", "mode: iptables"] {
        let config = resolved(fields);
        assert_eq!((config.effective.mode.as_str(), &config.mode), ("iptables", &Mode::Iptables));
        assert_eq!(config.notices, Vec::<String>::new());
        assert_eq!(config.options.intervals.rest, Duration::from_secs(1));
    }
    let ipvs = resolved("mode: ipvs");
    assert_eq!(ipvs.notices, Vec::<String>::new());
    assert_eq!(ipvs.mode, Mode::Ipvs { fallback: ipvs.settings.netfilter.clone(), moves_over: false });
}

#[test]
fn the_fallback_can_be_forbidden_and_needs_netfilter() {
    let mode = |netfilter, ipvs_fallback, move_to_ipvs| {
        let request = Request { netfilter, ipvs_fallback, move_to_ipvs, ..request("mode: ipvs") };
        let Mode::Ipvs { fallback, moves_over } = resolve(request).unwrap().mode else { panic!("ipvs") };
        (fallback.is_some(), moves_over)
    };
    assert_eq!(mode(None, None, None), (true, false));
    assert_eq!(mode(None, Some(false), Some(true)), (false, true));
    assert_eq!(mode(Some(false), None, None), (false, false));
    let of_manifests = Request { manifests: Some("dir".into()), ..request("mode: ipvs") };
    let config = resolve(of_manifests).unwrap();
    assert!(config.settings.netfilter.is_none());
    assert!(matches!(config.mode, Mode::Ipvs { fallback: Some(_), .. }), "which brings netfilter along");
}

#[test]
fn the_mode_iptables_is_nothing_without_netfilter() {
    let refused = resolve(Request { netfilter: Some(false), ..request("mode: iptables") }).unwrap_err();
    assert_eq!(refused.to_string(), "netfilter: false must not be in the mode iptables");
    let of_manifests = Request { manifests: Some("dir".into()), ..request("mode: iptables") };
    assert!(resolve(of_manifests).unwrap().settings.netfilter.is_some());
}

#[test]
fn what_is_set_and_not_used_is_said() {
    for (fields, notice) in [
        (
            "mode: ipvs\nwinkernel: {sourceVip: 10.0.0.9, enableDSR: true}\nportRange: 2-7\nwindowsRunAsService: true",
            "set, and not used in mode ipvs: portRange, windowsRunAsService, winkernel.enableDSR, winkernel.sourceVip",
        ),
        (
            "mode: ipvs\nnftables: {masqueradeAll: true}\niptables: {syncPeriod: 1m, masqueradeAll: true}",
            "set, and not used in mode ipvs: iptables.syncPeriod, nftables.masqueradeAll",
        ),
        (
            "ipvs: {scheduler: wrr, excludeCIDRs: [10.0.0.0/8]}\niptables: {syncPeriod: 1m}",
            "set, and not used in mode iptables: ipvs.excludeCIDRs, ipvs.scheduler",
        ),
    ] {
        assert_eq!(resolved(fields).notices.last().unwrap(), notice);
    }
}

#[test]
fn kubeadms_file_is_taken_as_it_is() {
    let text = include_str!("../../../tests/fixtures/kube-proxy/kubeadm.yaml");
    let mut effective = kube_proxy::parse(text).unwrap().object;
    effective.set_platform_defaults();
    let config = resolve(Request { effective, ..Request::default() }).unwrap();
    assert_eq!(config.notices, Vec::<String>::new());
    assert_eq!(config.mode, Mode::Iptables);
    assert_eq!(config.node_name, None);
    assert_eq!(config.settings.bind_address, None);
    assert_eq!(config.servers.healthz, Some("0.0.0.0:10256".parse().unwrap()));
    assert_eq!(config.servers.metrics, Some("127.0.0.1:10249".parse().unwrap()));
    assert_eq!(config.detect_local, DetectLocal::ClusterCidr(cidrs(&["10.244.0.0/16"])));
    assert_eq!(config.settings.node_ports, NodePortAddresses::Any);
    assert_eq!(config.masquerade, Masquerade { all: false, bit: 14, localhost_node_ports: true });
    let detect_local = crate::desired::DetectLocal::ClusterCidr(cidrs(&["10.244.0.0/16"]));
    let netfilter = Some(NetfilterSettings { detect_local, ..NetfilterSettings::default() });
    assert_eq!(config.settings, Settings { netfilter, has_cluster: true, ..Settings::default() });
    assert_eq!((config.node.strict_arp, config.node.ipvs_timeouts), (false, IpvsTimeouts::default()));
    assert_eq!(config.node.oom_score_adj, Some(-999));
    assert_eq!(config.options.takeover, Takeover::AllBut(Vec::new()));
    let Input::Cluster(cluster) = config.input else { panic!("a cluster") };
    assert_eq!(cluster.kubeconfig, Some("/var/lib/kube-proxy/kubeconfig.conf".into()));
    assert_eq!((cluster.master, cluster.qps, cluster.burst), (None, Some(5.0), 10));
    assert_eq!(cluster.resync, Duration::from_secs(900));
    assert_eq!(cluster.content_type, "application/vnd.kubernetes.protobuf");
}

#[test]
fn fields_become_values() {
    let config = resolved(
        "mode: ipvs\nhostnameOverride: \" Node-1 \"\nbindAddress: 010.0.0.1\nbindAddressHardFail: true\nenableProfiling: true\n\
         clusterCIDR: 10.244.000.0/16,fd00::5/64\nnodePortAddresses: [10.1.2.3/8, \"fd00::/8\"]\n\
         ipvs: {scheduler: mh, syncPeriod: 1m, minSyncPeriod: 250ms, strictARP: true, excludeCIDRs: [10.9.0.0/16], tcpTimeout: 15m}\n\
         iptables: {masqueradeAll: true, masqueradeBit: 3, localhostNodePorts: false}\n\
         clientConnection: {qps: -1, burst: 0, acceptContentTypes: application/json}\n\
         logging: {format: json, verbosity: 4}",
    );
    assert_eq!(config.node_name.as_deref(), Some("node-1"));
    assert_eq!(config.settings.bind_address, Some(IpAddr::from([10, 0, 0, 1])));
    assert!(config.servers.hard_fail && config.servers.profiling);
    assert_eq!(config.detect_local, DetectLocal::ClusterCidr(cidrs(&["10.244.0.0/16", "fd00::/64"])));
    assert_eq!(config.settings.node_ports, NodePortAddresses::Within(cidrs(&["10.0.0.0/8", "fd00::/8"])));
    assert_eq!(config.settings.scheduling.scheduler, SchedulerName::MH);
    assert_eq!(config.settings.scheduling.flags, SchedulerFlags::PORT);
    let intervals = config.options.intervals;
    assert_eq!((intervals.resync, intervals.rest), (Duration::from_secs(60), Duration::from_millis(250)));
    assert_eq!((config.node.strict_arp, config.node.ipvs_timeouts.tcp), (true, Some(Duration::from_secs(900))));
    assert_eq!(config.options.takeover, Takeover::AllBut(cidrs(&["10.9.0.0/16"])));
    assert_eq!(config.masquerade, Masquerade { all: true, bit: 3, localhost_node_ports: false });
    assert_eq!(config.logging.filter(), "info,ipvsd=debug");
    assert_eq!(config.logging.format, crate::config::logging::LogFormat::Json);
    let Input::Cluster(cluster) = config.input else { panic!("a cluster") };
    assert_eq!((cluster.qps, cluster.burst), (None, 10), "less than 0 is no limit, and 0 is not set");
    assert_eq!(cluster.accept_content_types.as_deref(), Some("application/json"));
}

#[test]
fn who_is_a_local_pod_is_told_in_four_ways() {
    for (fields, wanted) in [
        ("", DetectLocal::ClusterCidr(Vec::new())),
        ("detectLocalMode: NodeCIDR\nclusterCIDR: 10.0.0.0/8", DetectLocal::NodeCidr),
        (
            "detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: cbr0}",
            DetectLocal::BridgeInterface("cbr0".into()),
        ),
        (
            "detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: veth}",
            DetectLocal::InterfaceNamePrefix("veth".into()),
        ),
    ] {
        let config = resolved(fields);
        assert_eq!(config.detect_local, wanted);
        assert_eq!(config.settings.netfilter, Some(network::netfilter(&wanted, config.masquerade)));
    }
    assert_eq!(resolved("nodePortAddresses: [primary]").settings.node_ports, NodePortAddresses::Primary);
    assert_eq!(resolved("nodePortAddresses: []").settings.node_ports, NodePortAddresses::Any);
}

#[test]
fn connection_tracking_is_left_alone_where_it_says_zero() {
    let default = resolved("").node.conntrack;
    assert_eq!((default.max_per_core, default.min), (Some(32768), 131_072));
    assert_eq!(default.tcp_established, Some(Duration::from_secs(86_400)));
    assert_eq!((default.udp, default.tcp_be_liberal), (None, false));
    let none = resolved("conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}");
    assert_eq!(none.node.conntrack, Conntrack::default());
}

#[test]
fn a_directory_takes_the_place_of_the_cluster() {
    let request = Request {
        manifests: Some("dir".into()),
        drain_timeout: Duration::from_secs(7),
        notices: vec!["first".into()],
        files: vec!["file".into()],
        ..request("mode: ipvs\nclientConnection: {kubeconfig: /k}")
    };
    let config = resolve(request).unwrap();
    assert_eq!(config.input, Input::Manifests("dir".into()));
    assert_eq!((config.options.drain_timeout, config.files), (Duration::from_secs(7), vec!["file".into()]));
    assert_eq!(config.notices, ["first"]);
    assert_eq!(config.settings.netfilter, None, "a machine without a cluster may have no iptables");
}

#[test]
fn netfilter_is_programmed_where_it_is_asked_for() {
    for (manifests, netfilter, wanted) in [(true, Some(true), true), (false, Some(false), false), (false, None, true)] {
        let manifests = manifests.then(|| "dir".into());
        let fields = "mode: ipvs\niptables: {masqueradeBit: 3}";
        let config = resolve(Request { manifests, netfilter, ..request(fields) }).unwrap();
        assert_eq!(config.settings.netfilter.is_some(), wanted);
        let bits = config.settings.netfilter.map(|settings| settings.masquerade_bit.bits());
        assert_eq!(bits, wanted.then_some(8));
    }
}

proptest! {
    #[test]
    fn no_values_make_it_panic(at in 0_usize..1100, length in 0_usize..20, with in "[-0-9a-z/,.:\\[\\]\" ]{0,12}") {
        let mut text: Vec<char> = include_str!("../../../tests/fixtures/kube-proxy/ipvs.yaml").chars().collect();
        let start = at.min(text.len());
        let end = (start + length).min(text.len());
        text.splice(start..end, with.chars());
        if let Ok(decoded) = kube_proxy::parse(&text.into_iter().collect::<String>()) {
            let mut effective = decoded.object;
            effective.set_platform_defaults();
            if let Ok(config) = resolve(Request { effective, ..Request::default() }) {
                _ = (config.logging.filter(), config.effective.to_yaml());
            }
        }
    }
}

fn cidrs(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn affinity_is_shared_where_that_is_asked_for_and_nobody_names_a_scheduler_in_the_mode_that_has_it() {
    for (fields, wanted) in [
        ("mode: ipvs", true),
        ("mode: ipvs\nipvs: {scheduler: \"\"}", true),
        ("mode: ipvs\nipvs: {scheduler: rr}", false),
        ("mode: iptables\nipvs: {scheduler: wrr}", true),
    ] {
        let shares = |shared_affinity| {
            let request = Request { shared_affinity, ..request(fields) };
            resolve(request).unwrap().settings.shares_affinity
        };
        assert_eq!((shares(true), shares(false)), (wanted, false), "{fields}");
    }
}
