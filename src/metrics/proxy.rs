//! kube-proxy's own metrics, as far as they mean anything whatever balances.

use super::register::{Named, counter, counters, gauge, gauges, histograms, real, sync_buckets, whole};
use crate::model::Family;
use prometheus::{
    Error, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, Registry, linear_buckets,
};

/// Which of a Service's two traffic policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// `spec.internalTrafficPolicy`.
    Internal,
    /// `spec.externalTrafficPolicy`.
    External,
}

/// The metrics whose names begin with `kubeproxy_`.
#[derive(Debug)]
pub struct Proxy {
    pub service_changes: Changes,
    pub endpoint_changes: Changes,
    pub healthz: IntCounterVec,
    pub livez: IntCounterVec,
    without_local_endpoints: GaugeVec,
    ipv4: OfFamily,
    ipv6: OfFamily,
}

/// What is labelled by family, for one family. Resolved once, so that a pass looks no label up.
#[derive(Debug)]
pub struct OfFamily {
    pub duration: Histogram,
    pub last_updated: Gauge,
    pub last_queued: Gauge,
    pub network_programming: Histogram,
    pub rules_failed: IntCounter,
    pub conntrack_duration: Histogram,
    pub conntrack_deleted: IntCounter,
}

/// Changes of one kind of object.
#[derive(Debug)]
pub struct Changes {
    pending: Gauge,
    total: IntCounter,
}

/// The metrics that are labelled by family, without a family yet.
struct ByFamily {
    duration: HistogramVec,
    last_updated: GaugeVec,
    last_queued: GaugeVec,
    network_programming: HistogramVec,
    rules_failed: IntCounterVec,
    conntrack_duration: HistogramVec,
    conntrack_deleted: IntCounterVec,
}

const FAMILY: &[&str] = &["ip_family"];

impl Proxy {
    /// Registers all of them. Those of the families that are served are there from the start.
    pub fn register(registry: &Registry, families: &[Family]) -> Result<Self, Error> {
        let changes = |pending, total| {
            Ok::<_, Error>(Changes { pending: gauge(registry, pending)?, total: counter(registry, total)? })
        };
        let by_family = ByFamily::register(registry)?;
        let proxy = Self {
            service_changes: changes(SERVICE_CHANGES_PENDING, SERVICE_CHANGES)?,
            endpoint_changes: changes(ENDPOINT_CHANGES_PENDING, ENDPOINT_CHANGES)?,
            healthz: counters(registry, HEALTHZ, &["code"])?,
            livez: counters(registry, LIVEZ, &["code"])?,
            without_local_endpoints: gauges(registry, WITHOUT_LOCAL_ENDPOINTS, &["ip_family", "traffic_policy"])?,
            ipv4: by_family.of(Family::Ipv4),
            ipv6: by_family.of(Family::Ipv6),
        };
        for family in [Family::Ipv4, Family::Ipv6] {
            if families.contains(&family) {
                proxy.without_local_endpoints(family, TrafficPolicy::Internal, 0);
                proxy.without_local_endpoints(family, TrafficPolicy::External, 0);
            } else {
                by_family.forget(family)?;
            }
        }
        Ok(proxy)
    }

    /// The metrics of one family. Those of a family that is not served are counted and not shown.
    pub fn of(&self, family: Family) -> &OfFamily {
        match family {
            Family::Ipv4 => &self.ipv4,
            Family::Ipv6 => &self.ipv6,
        }
    }

    pub fn without_local_endpoints(&self, family: Family, policy: TrafficPolicy, services: usize) {
        let policy = match policy {
            TrafficPolicy::Internal => "internal",
            TrafficPolicy::External => "external",
        };
        self.without_local_endpoints.with_label_values(&[family.name(), policy]).set(real(services));
    }
}

impl Changes {
    pub fn came(&self, changes: usize) {
        self.pending.add(real(changes));
        self.total.inc_by(whole(changes));
    }

    pub fn programmed(&self) {
        self.pending.set(0.0);
    }
}

impl ByFamily {
    fn register(registry: &Registry) -> Result<Self, Error> {
        let sync = sync_buckets()?;
        Ok(Self {
            duration: histograms(registry, DURATION, FAMILY, sync.clone())?,
            last_updated: gauges(registry, LAST_UPDATED, FAMILY)?,
            last_queued: gauges(registry, LAST_QUEUED, FAMILY)?,
            network_programming: histograms(registry, NETWORK_PROGRAMMING, FAMILY, network_programming_buckets()?)?,
            rules_failed: counters(registry, RULES_FAILED, FAMILY)?,
            conntrack_duration: histograms(registry, CONNTRACK_DURATION, FAMILY, sync)?,
            conntrack_deleted: counters(registry, CONNTRACK_DELETED, FAMILY)?,
        })
    }

    fn of(&self, family: Family) -> OfFamily {
        let labels = [family.name()];
        OfFamily {
            duration: self.duration.with_label_values(&labels),
            last_updated: self.last_updated.with_label_values(&labels),
            last_queued: self.last_queued.with_label_values(&labels),
            network_programming: self.network_programming.with_label_values(&labels),
            rules_failed: self.rules_failed.with_label_values(&labels),
            conntrack_duration: self.conntrack_duration.with_label_values(&labels),
            conntrack_deleted: self.conntrack_deleted.with_label_values(&labels),
        }
    }

    fn forget(&self, family: Family) -> Result<(), Error> {
        let labels = [family.name()];
        self.duration.remove_label_values(&labels)?;
        self.last_updated.remove_label_values(&labels)?;
        self.last_queued.remove_label_values(&labels)?;
        self.network_programming.remove_label_values(&labels)?;
        self.rules_failed.remove_label_values(&labels)?;
        self.conntrack_duration.remove_label_values(&labels)?;
        self.conntrack_deleted.remove_label_values(&labels)
    }
}

/// Fine up to a minute, where the service level objective of Kubernetes' scalability group is looked for, then coarse.
fn network_programming_buckets() -> Result<Vec<f64>, Error> {
    let parts = [
        linear_buckets(0.25, 0.25, 2)?,
        linear_buckets(1.0, 1.0, 59)?,
        linear_buckets(60.0, 5.0, 12)?,
        linear_buckets(120.0, 30.0, 7)?,
    ];
    Ok(parts.concat())
}

const DURATION: Named =
    ("kubeproxy_sync_proxy_rules_duration_seconds", "[ALPHA] How long a pass of the reconciler took, in seconds");
const LAST_UPDATED: Named =
    ("kubeproxy_sync_proxy_rules_last_timestamp_seconds", "[ALPHA] When everything was last programmed");
const LAST_QUEUED: Named =
    ("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", "[ALPHA] When a pass was last asked for");
const NETWORK_PROGRAMMING: Named = (
    "kubeproxy_network_programming_duration_seconds",
    "[ALPHA] From the cause of a change of endpoints in the cluster to its effect in this kernel, in seconds",
);
const SERVICE_CHANGES_PENDING: Named =
    ("kubeproxy_sync_proxy_rules_service_changes_pending", "[ALPHA] Changes of Services that are not programmed yet");
const SERVICE_CHANGES: Named = ("kubeproxy_sync_proxy_rules_service_changes_total", "[ALPHA] Changes of Services seen");
const ENDPOINT_CHANGES_PENDING: Named = (
    "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
    "[ALPHA] Changes of EndpointSlices that are not programmed yet",
);
const ENDPOINT_CHANGES: Named =
    ("kubeproxy_sync_proxy_rules_endpoint_changes_total", "[ALPHA] Changes of EndpointSlices seen");
const WITHOUT_LOCAL_ENDPOINTS: Named = (
    "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
    "[ALPHA] Services with the traffic policy Local and no endpoint on this node",
);
const HEALTHZ: Named = ("kubeproxy_proxy_healthz_total", "[ALPHA] Answers on /healthz by HTTP status");
const LIVEZ: Named = ("kubeproxy_proxy_livez_total", "[ALPHA] Answers on /livez by HTTP status");
const RULES_FAILED: Named = (
    "kubeproxy_sync_proxy_rules_iptables_restore_failures_total",
    "[ALPHA] Times that the rules of netfilter could not be written",
);
const CONNTRACK_DURATION: Named = (
    "kubeproxy_conntrack_reconciler_sync_duration_seconds",
    "[ALPHA] How long it took to rid connection tracking of what leads nowhere, in seconds",
);
const CONNTRACK_DELETED: Named = (
    "kubeproxy_conntrack_reconciler_deleted_entries_total",
    "[ALPHA] Entries of connection tracking deleted because they led nowhere",
);
