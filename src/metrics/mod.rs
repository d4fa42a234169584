//! What can be counted and measured, in Prometheus' text format: [`Metrics`] has a method for each thing that happens.
//!
//! kube-proxy's own metrics, with its names, types, labels and buckets, are in `proxy`; what every Kubernetes
//! component has is in `generic` and `process`; what only ipvsd has is in `own`, what kube-proxy has where its rules
//! balance in `rules`, and what goes through Services, if that is asked for, in [`traffic`]. docs/metrics.md lists them
//! all, and `tests/servers` holds it to what is really given. Nothing is global.

mod generic;
mod own;
mod process;
mod proxy;
mod quantiles;
mod register;
mod rules;
pub mod traffic;

use crate::kernel::Cause;
use crate::model::{Family, Op};
use crate::reconcile::{Report, pace::Success};
use generic::Generic;
use own::Own;
use process::Process;
use prometheus::{Registry, TextEncoder};
use proxy::Proxy;
use rules::Rules;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

pub use generic::{ApiRequest, Feature};
pub use prometheus::Error;
pub use proxy::TrafficPolicy;
pub use quantiles::Quantiles;
pub use rules::Source as RulesSource;

/// The media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that is measured. Any thread may tell and ask at any time.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// The families this node serves: what kube-proxy labels by family is given for each of them.
    families: Vec<Family>,
    proxy: Proxy,
    rules: Rules,
    generic: Generic,
    process: Process,
    own: Own,
}

/// A pass of the reconciler that is over.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// What it did.
    pub report: &'a Report,
    /// How long it took.
    pub took: Duration,
    /// When it ended, since 1970.
    pub ended: Duration,
    /// How long ago, at its end, each piece of news came that it acted on; empty if the input had not changed.
    pub news: &'a [Duration],
}

impl Metrics {
    /// All metrics at zero, for a node that serves `families`.
    ///
    /// # Errors
    /// None with the names in this module, which the tests make sure of.
    pub fn new(families: &[Family], features: &[Feature<'_>]) -> Result<Self, Error> {
        let registry = Registry::new();
        Ok(Self {
            families: families.to_vec(),
            proxy: Proxy::register(&registry, families)?,
            rules: Rules::new(families)?,
            generic: Generic::register(&registry, features)?,
            process: Process::register(&registry)?,
            own: Own::register(&registry)?,
            registry,
        })
    }

    /// So many Services changed, which is not programmed yet.
    pub fn service_changes(&self, changes: usize) {
        self.proxy.service_changes.came(changes);
    }

    /// So many EndpointSlices changed, which is not programmed yet.
    pub fn endpoint_changes(&self, changes: usize) {
        self.proxy.endpoint_changes.came(changes);
    }

    /// A pass was asked for, at this time since 1970.
    pub fn queued(&self, now: Duration) {
        for family in &self.families {
            self.proxy.of(*family).last_queued.set(now.as_secs_f64());
        }
    }

    /// A pass is over.
    pub fn pass(&self, pass: &Pass<'_>) {
        self.own.pass(pass);
        let success = pass.report.outcome().success;
        for family in &self.families {
            let metrics = self.proxy.of(*family);
            metrics.duration.observe(pass.took.as_secs_f64());
            if success == Success::Whole {
                metrics.last_updated.set(pass.ended.as_secs_f64());
            }
        }
        let of_rules = pass.report.failed.iter().filter(|(_, cause)| matches!(cause, Cause::Rules(_)));
        let families: BTreeSet<Family> = of_rules.filter_map(|(op, _)| rules_of(op)).collect();
        families.iter().for_each(|family| self.proxy.of(*family).rules_failed.inc());
        self.rules.pass(pass, &self.families, &families);
        for (family, forgotten) in &pass.report.flows {
            self.conntrack_cleaned(*family, forgotten.took, forgotten.flows);
        }
        if success != Success::Unread {
            self.proxy.service_changes.programmed();
            self.proxy.endpoint_changes.programmed();
        }
    }

    /// Endpoints are programmed that changed so long ago, by the time that their EndpointSlice gives for the cause
    /// (annotation `endpoints.kubernetes.io/last-change-trigger-time`).
    pub fn endpoints_programmed(&self, family: Family, after: Duration) {
        self.proxy.of(family).network_programming.observe(after.as_secs_f64());
    }

    /// So many Services have this policy `Local` and no local endpoint now.
    pub fn without_local_endpoints(&self, family: Family, policy: TrafficPolicy, services: usize) {
        self.proxy.without_local_endpoints(family, policy, services);
    }

    /// `/healthz` was answered with this status.
    pub fn healthz(&self, status: u16) {
        self.proxy.healthz.with_label_values(&[&status.to_string()]).inc();
    }

    /// `/livez` was answered with this status.
    pub fn livez(&self, status: u16) {
        self.proxy.livez.with_label_values(&[&status.to_string()]).inc();
    }

    /// The metrics server said that it is alive.
    pub fn pinged(&self) {
        self.generic.pings.inc();
    }

    /// Connection tracking was rid of what leads nowhere any more.
    pub fn conntrack_cleaned(&self, family: Family, took: Duration, deleted: usize) {
        let metrics = self.proxy.of(family);
        metrics.conntrack_duration.observe(took.as_secs_f64());
        metrics.conntrack_deleted.inc_by(register::whole(deleted));
    }

    /// The API server answered, or did not.
    pub fn api_request(&self, request: &ApiRequest<'_>) {
        self.generic.api_request(request);
    }

    /// So many objects are rejected now, of which `new` were not before.
    pub fn rejected(&self, standing: usize, new: usize) {
        self.own.rejected(standing, new);
    }

    /// What balances on this node, kube-proxy's word, and why.
    pub fn mode(&self, mode: &str, reason: &str) {
        self.own.mode(mode, reason);
    }

    /// Rules balance on this node: what kube-proxy tells only then is given from now on.
    ///
    /// # Errors
    /// It is given already.
    pub fn rules(&self, source: RulesSource) -> Result<(), Error> {
        self.rules.register(&self.registry, &self.families, source)
    }

    /// So many series of what goes through Services were left out, as there would have been too many.
    pub fn traffic_left_out(&self, series: usize) {
        self.own.traffic_left_out.set(register::real(series));
    }

    /// What goes through Services could not be told when it was asked for.
    pub fn traffic_failed(&self) {
        self.own.traffic_failures.inc();
    }

    /// The configuration changed and is not good: what was read at the start stays in force.
    pub fn config_rejected(&self) {
        self.own.config_rejected.inc();
    }

    /// How long passes took, and how long it took from the arrival of news to its effect; each none if there was none.
    pub fn latencies(&self) -> [Option<Quantiles>; 2] {
        let passes = self.families.first().and_then(|family| Quantiles::of(&self.proxy.of(*family).duration));
        [passes, Quantiles::of(&self.own.programming)]
    }

    /// All of it as text. `queue_age` is how long the oldest change has been waiting.
    ///
    /// # Errors
    /// None with the metrics in this module.
    pub fn render(&self, queue_age: Duration) -> Result<String, Error> {
        self.own.queue_age.set(queue_age.as_secs_f64());
        self.process.read(Path::new("/proc"));
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// The service level indicators, `/metrics/slis`.
    ///
    /// # Errors
    /// None with the metrics in this module.
    pub fn render_slis(&self) -> Result<String, Error> {
        TextEncoder::new().encode_to_string(&self.generic.slis.gather())
    }
}

/// The family whose rules an operation writes, where that is what failed.
fn rules_of(op: &Op) -> Option<Family> {
    match op {
        Op::SetRules(family, _) | Op::RemoveRules(family) => Some(*family),
        op => op.virtual_server().map(|key| key.family()),
    }
}

#[cfg(test)]
mod tests;
