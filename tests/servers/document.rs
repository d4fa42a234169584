//! Holds docs/metrics.md to what is really given, and the other way round.

use ipvsd::kernel::ipvs::{DestinationEntry, Stats, Tunnel, VirtualServerEntry};
use ipvsd::kernel::nfacct::{INVALID, LOCALHOST, Packets};
use ipvsd::kernel::{Cause, Errno};
use ipvsd::metrics::traffic::{self, Names, ServicePort};
use ipvsd::metrics::{ApiRequest, Feature, Metrics, Pass, RulesSource, TrafficPolicy};
use ipvsd::model::Family::Ipv4;
use ipvsd::model::{DestinationKey, Op, Protocol, VirtualServerKey};
use ipvsd::reconcile::Report;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What is known of a metric, in the document or in the exposition.
#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    kind: String,
    labels: BTreeSet<String>,
    /// Of a histogram, as text, without `+Inf`.
    bounds: Vec<String>,
}

#[test]
fn the_document_has_all_metrics_as_they_are() {
    let (documented, given) = (documented(), given());
    for (name, known) in &given {
        assert_eq!(documented.get(name), Some(known), "docs/metrics.md about {name}");
    }
    for name in documented.keys() {
        assert!(given.contains_key(name), "docs/metrics.md has {name}, which is never given");
    }
}

#[test]
fn nothing_is_both_given_and_said_to_be_missing() {
    let document = document();
    let missing = document.split("## Metrics of kube-proxy that ipvsd does not have").nth(1).unwrap();
    let given = given();
    let names = missing.split('`').skip(1).step_by(2);
    for name in names {
        let prefix = name.trim_end_matches('*');
        let is_given = |given: &String| if prefix == name { given == name } else { given.starts_with(prefix) };
        assert!(!given.keys().any(is_given), "{name} is given");
    }
}

fn document() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap()
}

fn documented() -> BTreeMap<String, Known> {
    let mut metrics = BTreeMap::<String, Known>::new();
    for line in document().lines() {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let name = cells[0].trim_matches('`').to_owned();
        match cells[..] {
            [_, kind @ ("counter" | "gauge" | "histogram"), labels, _, _] => {
                let labels = labels.split('`').skip(1).step_by(2).map(str::to_owned).collect();
                let known = Known { kind: kind.to_owned(), labels, bounds: Vec::new() };
                assert!(metrics.insert(name.clone(), known).is_none(), "{name} is there twice");
            }
            [_, bounds] if bounds.starts_with(|first: char| first.is_ascii_digit()) => {
                let metric = metrics.get_mut(&name).unwrap_or_else(|| panic!("bounds of {name}"));
                metric.bounds = bounds.split(' ').flat_map(expanded).collect();
            }
            _ => {}
        }
    }
    metrics
}

/// `0.5`, or `1..59/2`.
fn expanded(bounds: &str) -> Vec<String> {
    let Some((from, rest)) = bounds.split_once("..") else { return vec![bounds.to_owned()] };
    let (to, step) = rest.split_once('/').unwrap();
    let number = |text: &str| text.parse::<usize>().unwrap();
    (number(from)..=number(to)).step_by(number(step)).map(|bound| bound.to_string()).collect()
}

/// What is given once everything has happened.
fn given() -> BTreeMap<String, Known> {
    let metrics = Metrics::new(&[Ipv4], &[Feature { name: "One", stage: "BETA", enabled: true }]).unwrap();
    let op = Op::RemoveRoute(std::net::Ipv4Addr::LOCALHOST.into());
    let failed = vec![(op, Cause::Refused(Errno::EPERM))];
    let report = Report { read_all: true, failed, done: BTreeMap::from([(op.kind(), 1)]), ..Report::default() };
    let packets: Packets = [(INVALID, 1), (LOCALHOST, 1)].into();
    metrics.rules(RulesSource { counts: Arc::default(), packets: Box::new(move || packets.clone()) }).unwrap();
    metrics.pass(&Pass { report: &report, took: Duration::ZERO, ended: Duration::ZERO, news: &[Duration::ZERO] });
    metrics.mode("ipvs", "asked");
    metrics.queued(Duration::ZERO);
    metrics.service_changes(1);
    metrics.endpoint_changes(1);
    metrics.endpoints_programmed(Ipv4, Duration::ZERO);
    metrics.without_local_endpoints(Ipv4, TrafficPolicy::Internal, 1);
    metrics.healthz(200);
    metrics.livez(200);
    metrics.pinged();
    metrics.conntrack_cleaned(Ipv4, Duration::ZERO, 1);
    metrics.api_request(&ApiRequest { host: "api", method: "GET", status: None, took: Duration::ZERO });
    metrics.rejected(1, 1);
    let mut given = parsed(&metrics.render(Duration::ZERO).unwrap());
    given.append(&mut parsed(&traffic()));
    given.append(&mut parsed(&metrics.render_slis().unwrap()));
    given
}

/// What goes through a virtual server by address and one by mark, with a destination each.
fn traffic() -> String {
    let port = ServicePort { namespace: "a".into(), service: "b".into(), name: "c".into(), protocol: "TCP" };
    let address = VirtualServerKey::new([10, 96, 0, 1].into(), 80, Protocol::Tcp);
    let keys = [address, VirtualServerKey::Mark { mark: 1, family: Ipv4 }];
    let destination = DestinationEntry {
        key: DestinationKey { address: [10, 244, 0, 1].into(), port: 8080 },
        forwarding: None,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
        active: 0,
        inactive: 0,
        persistent: 0,
        stats: Stats::default(),
        tunnel: Tunnel::default(),
    };
    let entry = |key: VirtualServerKey| {
        let flags = VirtualServerEntry::flags_of_ours(false);
        let (scheduler, persistence_engine, stats) = ("rr".into(), None, Stats::default());
        let identity = key.into();
        let (timeout, netmask) = (0, 0);
        let server = VirtualServerEntry { identity, scheduler, persistence_engine, flags, timeout, netmask, stats };
        (server, vec![destination.clone()])
    };
    let names = Names { ports: keys.map(|key| (key, port.clone())).into(), ..Names::default() };
    traffic::traffic(&keys.map(entry), &names, usize::MAX).text
}

fn parsed(exposition: &str) -> BTreeMap<String, Known> {
    let mut metrics = BTreeMap::<String, Known>::new();
    let mut current = String::new();
    for line in exposition.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            current = name.to_owned();
            metrics.insert(current.clone(), Known { kind: kind.to_owned(), ..Known::default() });
        } else if !line.starts_with('#') {
            let metric = metrics.get_mut(&current).unwrap();
            for (name, value) in labels(line) {
                if name != "le" {
                    metric.labels.insert(name.to_owned());
                } else if value != "+Inf" && !metric.bounds.iter().any(|bound| bound == value) {
                    metric.bounds.push(value.to_owned());
                }
            }
        }
    }
    metrics
}

/// The labels of a series. No value here holds a comma or a quotation mark.
fn labels(line: &str) -> impl Iterator<Item = (&str, &str)> {
    let inside = line.split_once('{').map_or("", |(_, rest)| rest.rsplit_once('}').unwrap().0);
    inside.split(',').filter_map(|label| label.split_once('=')).map(|(name, value)| (name, value.trim_matches('"')))
}
