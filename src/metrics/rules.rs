//! What kube-proxy has where its rules balance: how many there are, and what they counted. Given once the mode is known to be
//! that one.

use super::Pass;
use super::register::{Named, real, sync_buckets};
use crate::kernel::iptables::counts::{Counts, TABLES};
use crate::kernel::nfacct::{INVALID, LOCALHOST, Packets};
use crate::model::Family;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Error, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

/// Where the numbers come from, which are read whenever somebody asks for metrics.
pub struct Source {
    /// How many rules there are.
    pub counts: Arc<Counts>,
    /// What rules counted by name.
    pub packets: Box<dyn Fn() -> Packets + Send + Sync>,
}

/// What passes tell. Counted in every mode, and given in the one.
#[derive(Debug)]
pub struct Rules {
    full: HistogramVec,
    partial: HistogramVec,
    partial_failures: IntCounterVec,
    /// Told where a pass ends; none until rules are known to balance.
    counts: OnceLock<Arc<Counts>>,
}

impl Rules {
    /// For these families, and registered nowhere.
    pub fn new(families: &[Family]) -> Result<Self, Error> {
        let buckets = sync_buckets()?;
        let duration = |(name, help): Named| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.clone()), &["ip_family"])
        };
        let (name, help) = PARTIAL_FAILURES;
        let partial_failures = IntCounterVec::new(Opts::new(name, help), &["ip_family"])?;
        let rules =
            Self { full: duration(FULL)?, partial: duration(PARTIAL)?, partial_failures, counts: OnceLock::new() };
        for family in families {
            rules.full.with_label_values(&[family.name()]);
            rules.partial.with_label_values(&[family.name()]);
            rules.partial_failures.with_label_values(&[family.name()]);
        }
        Ok(rules)
    }

    /// A pass is over, of these families, in some of which rules could not be written.
    pub fn pass(&self, pass: &Pass<'_>, families: &[Family], failed: &BTreeSet<Family>) {
        // One that could not read all was to.
        let is_full = pass.report.read_all || pass.report.unread.is_some();
        let durations = if is_full { &self.full } else { &self.partial };
        for family in families {
            let labels = [family.name()];
            durations.with_label_values(&labels).observe(pass.took.as_secs_f64());
            if !is_full && failed.contains(family) {
                self.partial_failures.with_label_values(&labels).inc();
            }
        }
        if let Some(counts) = self.counts.get() {
            counts.pass_over();
        }
    }

    /// Gives them, and what comes from `source`, from now on.
    pub fn register(&self, registry: &Registry, families: &[Family], source: Source) -> Result<(), Error> {
        registry.register(Box::new(self.full.clone()))?;
        registry.register(Box::new(self.partial.clone()))?;
        registry.register(Box::new(self.partial_failures.clone()))?;
        // What was tried before the first pass is none of it.
        source.counts.pass_over();
        self.counts.get_or_init(|| Arc::clone(&source.counts));
        registry.register(Box::new(Found::new(families, source)?))
    }
}

/// What is read when it is asked for.
struct Found {
    families: Vec<Family>,
    source: Source,
    rules: GaugeVec,
    written: GaugeVec,
    /// Descriptions of what counters tell, which are made anew each time.
    counters: Vec<Desc>,
}

impl Found {
    fn new(families: &[Family], source: Source) -> Result<Self, Error> {
        let gauges = |(name, help): Named| GaugeVec::new(Opts::new(name, help), &["table", "ip_family"]);
        let described = COUNTERS.map(|(_, (name, help))| Desc::new(name.into(), help.into(), vec![], [].into()));
        let counters = described.into_iter().collect::<Result<_, _>>()?;
        Ok(Self { families: families.to_vec(), source, rules: gauges(RULES)?, written: gauges(WRITTEN)?, counters })
    }

    fn gauges(&self) -> impl Iterator<Item = MetricFamily> {
        let Source { counts, .. } = &self.source;
        for family in &self.families {
            for table in TABLES {
                let labels = [table, family.name()];
                self.rules.with_label_values(&labels).set(real(counts.rules(*family, table)));
                self.written.with_label_values(&labels).set(real(counts.written(*family, table)));
            }
        }
        self.rules.collect().into_iter().chain(self.written.collect())
    }
}

/// The counter that says this now; none if it is not there, or has no name that it may have.
fn counter((name, help): Named, value: u64) -> Option<Vec<MetricFamily>> {
    let counter = IntCounter::new(name, help).ok()?;
    counter.inc_by(value);
    Some(counter.collect())
}

impl Collector for Found {
    fn desc(&self) -> Vec<&Desc> {
        [self.rules.desc(), self.written.desc(), self.counters.iter().collect()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let packets: BTreeMap<_, _> = (self.source.packets)();
        let counted = COUNTERS.iter().filter_map(|(key, named)| counter(*named, *packets.get(key)?));
        self.gauges().chain(counted.flatten()).collect()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("counts", &self.counts).finish_non_exhaustive()
    }
}

const COUNTERS: [(&str, Named); 2] = [(INVALID, INVALID_DROPPED), (LOCALHOST, LOCALHOST_ACCEPTED)];

const FULL: Named = (
    "kubeproxy_sync_full_proxy_rules_duration_seconds",
    "[ALPHA] How long a pass of the reconciler took that looked at everything, in seconds",
);
const PARTIAL: Named = (
    "kubeproxy_sync_partial_proxy_rules_duration_seconds",
    "[ALPHA] How long a pass of the reconciler took that looked at what had changed, in seconds",
);
const PARTIAL_FAILURES: Named = (
    "kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total",
    "[ALPHA] Times that the rules of netfilter could not be written for what had changed",
);
const RULES: Named = ("kubeproxy_sync_proxy_rules_iptables_total", "[ALPHA] Rules in chains of ipvsd's");
const WRITTEN: Named = (
    "kubeproxy_sync_proxy_rules_iptables_last",
    "[ALPHA] Rules that the last pass of the reconciler that wrote any wrote into chains of ipvsd's",
);
const INVALID_DROPPED: Named = (
    "kubeproxy_iptables_ct_state_invalid_dropped_packets_total",
    "[ALPHA] Packets that were dropped because connection tracking calls them invalid",
);
const LOCALHOST_ACCEPTED: Named = (
    "kubeproxy_iptables_localhost_nodeports_accepted_packets_total",
    "[ALPHA] First packets of connections to node ports at loopback addresses",
);
