//! Tests of what each thing that happens does to the metrics.

use super::*;
use crate::kernel::iptables::{Blame, Failed};
use crate::kernel::{Errno, FlowsError, Forgotten, ObserveError, nfacct};
use crate::model::{Protocol, VirtualServerKey};
use std::collections::BTreeMap;
use std::sync::Arc;

const BOTH: &[Family] = &[Family::Ipv4, Family::Ipv6];
const REMOVE: Op = Op::RemoveRoute(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

fn metrics() -> Metrics {
    Metrics::new(BOTH, &[]).unwrap()
}

fn done(kind: &'static str, count: usize) -> Report {
    Report { done: BTreeMap::from([(kind, count)]), ..Report::default() }
}

fn pass(report: &Report) -> Pass<'_> {
    Pass { report, took: Duration::from_millis(3), ended: Duration::from_secs(1_000), news: &[] }
}

/// The value of one series, written as in the exposition.
fn value(metrics: &Metrics, series: &str) -> Option<f64> {
    let text = metrics.render(Duration::ZERO).unwrap();
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn a_pass_is_told_for_each_family() {
    let metrics = metrics();
    metrics.queued(Duration::from_millis(999_500));
    metrics.pass(&pass(&done("add destination", 2)));
    metrics.pass(&pass(&Report { draining: 4, ..done("add destination", 3) }));
    for (series, wanted) in [
        (r#"kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv4"}"#, 2.0),
        (r#"kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv6",le="0.002"}"#, 0.0),
        (r#"kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv6",le="0.004"}"#, 2.0),
        (r#"kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv6"}"#, 1_000.0),
        (r#"kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv4"}"#, 999.5),
        (r#"ipvsd_passes_total{result="whole"}"#, 2.0),
        (r#"ipvsd_operations_total{kind="add destination"}"#, 5.0),
        ("ipvsd_draining_destinations", 4.0),
    ] {
        assert_eq!(value(&metrics, series), Some(wanted), "{series}");
    }
}

#[test]
fn a_pass_that_failed_programmed_nothing_for_good() {
    let metrics = metrics();
    metrics.service_changes(2);
    metrics.endpoint_changes(1);
    let errno = Errno::EPERM;
    let unread = Report { unread: Some(ObserveError::Refused { what: "routes", errno }), ..Report::default() };
    metrics.pass(&Pass { news: &[Duration::from_secs(1)], ..pass(&unread) });
    let pending = "kubeproxy_sync_proxy_rules_service_changes_pending";
    assert_eq!(value(&metrics, pending), Some(2.0));
    assert_eq!(value(&metrics, "ipvsd_programming_duration_seconds_count"), Some(0.0));
    assert_eq!(value(&metrics, r#"ipvsd_kernel_reads_total{result="failure"}"#), Some(1.0));
    let key = VirtualServerKey::new(std::net::Ipv4Addr::LOCALHOST.into(), 80, Protocol::Tcp);
    let failed = vec![
        (REMOVE, Cause::Refused(Errno::EBUSY)),
        (Op::RemoveVirtualServer(key), Cause::OutOfDate(Errno::ESRCH)),
        (Op::RemoveVirtualServer(key), Cause::OutOfDate(Errno::ESRCH)),
    ];
    metrics.pass(&Pass { news: &[Duration::from_secs(2)], ..pass(&Report { failed, ..Report::default() }) });
    for (series, wanted) in [
        (pending, 0.0),
        ("kubeproxy_sync_proxy_rules_service_changes_total", 2.0),
        ("kubeproxy_sync_proxy_rules_endpoint_changes_total", 1.0),
        (r#"kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"}"#, 0.0),
        (r#"ipvsd_operation_failures_total{errno="EBUSY",kind="remove route"}"#, 1.0),
        (r#"ipvsd_operation_failures_total{errno="ESRCH",kind="remove virtual server"}"#, 2.0),
        (r#"ipvsd_passes_total{result="partial"}"#, 1.0),
        (r#"ipvsd_passes_total{result="unread"}"#, 1.0),
        ("ipvsd_programming_duration_seconds_sum", 2.0),
    ] {
        assert_eq!(value(&metrics, series), Some(wanted), "{series}");
    }
}

#[test]
fn only_what_nobody_asked_for_and_nothing_before_left_is_a_repair() {
    let reading = |count, draining| Report { read_all: true, checked: true, draining, ..done("add route", count) };
    let failing = Report { failed: vec![(REMOVE, Cause::Refused(Errno::EBUSY))], ..reading(0, 0) };
    let news = [Duration::ZERO];
    // Each pass after the one above it; how many repairs it adds.
    let steps: [(&str, Report, &[Duration], usize); 8] = [
        ("the first one", reading(9, 0), &[], 0),
        ("nothing changed behind our back", reading(0, 0), &[], 0),
        ("three routes had been removed", reading(3, 0), &[], 3),
        ("the input changed", reading(5, 4), &news, 0),
        ("three that drained went, one route had been removed", reading(4, 1), &[], 1),
        ("an incremental pass sees no drift", done("remove destination", 1), &[], 0),
        ("one failed", failing, &news, 0),
        ("and is tried again", reading(1, 0), &[], 0),
    ];
    let metrics = metrics();
    let mut total = 0;
    for (why, report, news, repairs) in steps {
        metrics.pass(&Pass { news, ..pass(&report) });
        total += repairs;
        assert_eq!(value(&metrics, "ipvsd_drift_repaired_total"), Some(register::real(total)), "{why}");
    }
    assert_eq!(value(&metrics, r#"ipvsd_kernel_reads_total{result="success"}"#), Some(7.0));
}

#[test]
fn a_family_that_is_not_served_is_not_shown() {
    let metrics = Metrics::new(&[Family::Ipv4], &[]).unwrap();
    metrics.pass(&pass(&Report::default()));
    metrics.conntrack_cleaned(Family::Ipv6, Duration::ZERO, 1);
    let text = metrics.render(Duration::ZERO).unwrap();
    assert!(text.contains("IPv4") && !text.contains("IPv6"));
}

#[test]
fn rules_that_cannot_be_written_are_counted_in_their_family_and_other_failures_are_not() {
    let blame = Blame::Input { line: Some(1) };
    let refused = Cause::Rules(Failed { program: "iptables-restore".into(), reason: "line 1 failed".into(), blame });
    let failed = vec![(Op::RemoveRules(Family::Ipv6), refused), (REMOVE, Cause::Refused(Errno::EBUSY))];
    let metrics = metrics();
    metrics.pass(&pass(&Report { failed, ..Report::default() }));
    for (family, wanted) in [("IPv4", 0.0), ("IPv6", 1.0)] {
        let series = format!("kubeproxy_sync_proxy_rules_iptables_restore_failures_total{{ip_family=\"{family}\"}}");
        assert_eq!(value(&metrics, &series), Some(wanted));
    }
}

fn rules_source(packets: &[(&'static str, u64)]) -> RulesSource {
    let packets: BTreeMap<_, _> = packets.iter().copied().collect();
    RulesSource { counts: Arc::default(), packets: Box::new(move || packets.clone()) }
}

#[test]
fn a_pass_that_looks_at_everything_is_told_apart_from_one_of_a_change() {
    let metrics = metrics();
    metrics.rules(rules_source(&[])).unwrap();
    let blame = Blame::Input { line: None };
    let refused = Cause::Rules(Failed { program: "iptables-restore".into(), reason: "line 1 failed".into(), blame });
    let failed = || vec![(Op::RemoveRules(Family::Ipv6), refused.clone())];
    let errno = Errno::EPERM;
    let unread = Some(ObserveError::Refused { what: "routes", errno });
    for report in [
        Report { read_all: true, failed: failed(), ..Report::default() },
        Report { failed: failed(), ..Report::default() },
        Report { unread, ..Report::default() },
        Report::default(),
        Report::default(),
    ] {
        metrics.pass(&pass(&report));
    }
    for (series, wanted) in [
        (r#"kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv4"}"#, 2.0),
        (r#"kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv6"}"#, 2.0),
        (r#"kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family="IPv6"}"#, 3.0),
        (r#"kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv6"}"#, 5.0),
        (r#"kubeproxy_sync_proxy_rules_iptables_restore_failures_total{ip_family="IPv6"}"#, 2.0),
        (r#"kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total{ip_family="IPv6"}"#, 1.0),
        (r#"kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total{ip_family="IPv4"}"#, 0.0),
    ] {
        assert_eq!(value(&metrics, series), Some(wanted), "{series}");
    }
}

#[test]
fn what_rules_tell_is_given_once_they_balance_and_what_nothing_counts_never() {
    const NAMES: [&str; 7] = [
        "kubeproxy_sync_full_proxy_rules_duration_seconds",
        "kubeproxy_sync_partial_proxy_rules_duration_seconds",
        "kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total",
        "kubeproxy_sync_proxy_rules_iptables_total",
        "kubeproxy_sync_proxy_rules_iptables_last",
        "kubeproxy_iptables_ct_state_invalid_dropped_packets_total",
        "kubeproxy_iptables_localhost_nodeports_accepted_packets_total",
    ];
    let given = |metrics: &Metrics| {
        let text = metrics.render(Duration::ZERO).unwrap();
        NAMES.map(|name| text.contains(&format!("# TYPE {name} ")))
    };
    let metrics = Metrics::new(&[Family::Ipv4], &[]).unwrap();
    metrics.pass(&pass(&Report::default()));
    assert_eq!(given(&metrics), [false; 7]);
    metrics.rules(rules_source(&[(nfacct::INVALID, 7)])).unwrap();
    assert_eq!(given(&metrics), [true, true, true, true, true, true, false]);
    assert_eq!(value(&metrics, NAMES[5]), Some(7.0));
    assert_eq!(
        value(&metrics, r#"kubeproxy_sync_proxy_rules_iptables_total{ip_family="IPv4",table="nat"}"#),
        Some(0.0)
    );
    assert!(!metrics.render(Duration::ZERO).unwrap().contains("IPv6"));
    assert!(metrics.rules(rules_source(&[])).is_err(), "they are given once");
}

#[test]
fn flows_that_led_nowhere_are_counted_and_timed_by_family_and_so_is_what_kept_them() {
    let forgotten = |flows, failure| Forgotten { flows, took: Duration::from_millis(3), failure };
    let metrics = metrics();
    let unread = FlowsError::Unread(ObserveError::Inconsistent { what: "flows" });
    for flows in [
        vec![(Family::Ipv4, forgotten(7, None)), (Family::Ipv6, forgotten(0, None))],
        vec![(Family::Ipv4, forgotten(2, Some(FlowsError::Unforgotten(Errno::EBUSY))))],
        vec![(Family::Ipv6, forgotten(0, Some(FlowsError::Unavailable)))],
        vec![(Family::Ipv6, forgotten(0, Some(unread)))],
        vec![],
    ] {
        metrics.pass(&pass(&Report { flows, ..Report::default() }));
    }
    for (series, wanted) in [
        (r#"kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="IPv4"}"#, 9.0),
        (r#"kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="IPv6"}"#, 0.0),
        (r#"kubeproxy_conntrack_reconciler_sync_duration_seconds_count{ip_family="IPv4"}"#, 2.0),
        (r#"kubeproxy_conntrack_reconciler_sync_duration_seconds_bucket{ip_family="IPv6",le="0.002"}"#, 0.0),
        (r#"kubeproxy_conntrack_reconciler_sync_duration_seconds_bucket{ip_family="IPv6",le="0.004"}"#, 3.0),
        (r#"ipvsd_operation_failures_total{errno="EBUSY",kind="forget flow"}"#, 1.0),
        (r#"ipvsd_operation_failures_total{errno="EINVAL",kind="forget flow"}"#, 1.0),
        (r#"ipvsd_operation_failures_total{errno="EIO",kind="forget flow"}"#, 1.0),
        (r#"ipvsd_passes_total{result="whole"}"#, 3.0),
        (r#"ipvsd_passes_total{result="partial"}"#, 2.0),
    ] {
        assert_eq!(value(&metrics, series), Some(wanted), "{series}");
    }
}

#[test]
fn answers_requests_and_features_have_their_labels() {
    let feature = |name, enabled| Feature { name, stage: "BETA", enabled };
    let metrics = Metrics::new(BOTH, &[feature("On", true), feature("Off", false)]).unwrap();
    metrics.healthz(503);
    metrics.livez(200);
    let request = ApiRequest { host: "api:6443", method: "GET", status: Some(200), took: Duration::from_millis(20) };
    metrics.api_request(&request);
    metrics.api_request(&ApiRequest { status: None, ..request });
    metrics.conntrack_cleaned(Family::Ipv4, Duration::from_millis(2), 7);
    metrics.without_local_endpoints(Family::Ipv4, TrafficPolicy::External, 3);
    metrics.endpoints_programmed(Family::Ipv6, Duration::from_millis(300));
    metrics.rejected(2, 5);
    metrics.config_rejected();
    for (series, wanted) in [
        (r#"kubeproxy_proxy_healthz_total{code="503"}"#, 1.0),
        (r#"kubeproxy_proxy_livez_total{code="200"}"#, 1.0),
        (r#"rest_client_requests_total{code="200",host="api:6443",method="GET"}"#, 1.0),
        (r#"rest_client_requests_total{code="<error>",host="api:6443",method="GET"}"#, 1.0),
        (r#"rest_client_request_duration_seconds_bucket{host="api:6443",verb="GET",le="0.025"}"#, 2.0),
        (r#"kubernetes_feature_enabled{name="On",stage="BETA"}"#, 1.0),
        (r#"kubernetes_feature_enabled{name="Off",stage="BETA"}"#, 0.0),
        (r#"kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="IPv4"}"#, 7.0),
        (r#"kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family="IPv4",traffic_policy="external"}"#, 3.0),
        (r#"kubeproxy_network_programming_duration_seconds_bucket{ip_family="IPv6",le="0.25"}"#, 0.0),
        (r#"kubeproxy_network_programming_duration_seconds_bucket{ip_family="IPv6",le="0.5"}"#, 1.0),
        ("ipvsd_objects_rejected", 2.0),
        ("ipvsd_objects_rejected_total", 5.0),
        ("ipvsd_config_rejected_total", 1.0),
    ] {
        assert_eq!(value(&metrics, series), Some(wanted), "{series}");
    }
}

#[test]
fn the_queue_is_as_old_as_it_is_when_asked() {
    let text = metrics().render(Duration::from_millis(1_500)).unwrap();
    assert!(text.contains("\nipvsd_queue_age_seconds 1.5\n"));
}

#[test]
fn pings_are_told_apart_from_the_rest() {
    let metrics = metrics();
    metrics.pinged();
    let slis = metrics.render_slis().unwrap();
    assert!(slis.contains("kubernetes_healthcheck{name=\"ping\",type=\"healthz\"} 1\n"));
    assert!(slis.contains("kubernetes_healthchecks_total{name=\"ping\",status=\"success\",type=\"healthz\"} 1\n"));
    assert!(!metrics.render(Duration::ZERO).unwrap().contains("kubernetes_healthcheck"));
}
