//! What the reconciler's thread tells those who look from outside: metrics, health, and the health checks of Services.

use super::message::News;
use crate::desired::{HealthCheck, Locals, Traffic};
use crate::health::SharedHealth;
use crate::metrics::{Metrics, Pass, TrafficPolicy};
use crate::model::Family;
use crate::reconcile::Report;
use crate::server::Clock;
use crate::state::{Change, ObjectName};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

/// What load balancers are told that ask for a Service, in each family that the node serves.
pub type HealthChecks = BTreeMap<Family, OfFamily>;

/// The same in one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfFamily {
    /// By Service.
    pub services: BTreeMap<ObjectName, HealthCheck>,
    /// Where they ask; the unspecified address is all of them.
    pub addresses: BTreeSet<IpAddr>,
}

/// What a daemon's threads share to tell and to answer.
#[derive(Clone)]
pub struct Shared {
    /// Counts and measures.
    pub metrics: Arc<Metrics>,
    /// Whether the node keeps up.
    pub health: SharedHealth,
    /// The one clock by which `health` is told and asked.
    pub clock: Clock,
    /// The families this node serves.
    pub families: Vec<Family>,
}

/// The reconciler's side of it.
pub struct Telemetry {
    shared: Shared,
    /// What was sent last is served.
    health_checks: watch::Sender<HealthChecks>,
    /// [`Locals::revision`] as last sent.
    revision: Option<u64>,
    /// When the news came that no pass has acted on yet.
    waiting: Vec<Instant>,
    /// When the causes of that news happened, with the family of the endpoints.
    causes: Vec<(Family, SystemTime)>,
}

impl Telemetry {
    /// Tells through `shared`; `health_checks` is what Services' health checks are served from.
    pub fn new(shared: Shared, health_checks: watch::Sender<HealthChecks>) -> Self {
        Self { shared, health_checks, revision: None, waiting: Vec::new(), causes: Vec::new() }
    }

    /// News came, which waits to be programmed.
    pub fn received(&mut self, news: &News) {
        let Shared { metrics, health, clock, families } = &self.shared;
        let count = |of: fn(&Change) -> bool| news.changes.iter().filter(|change| of(change)).count();
        metrics.service_changes(count(|c| matches!(c, Change::Service(_) | Change::ServiceGone(_))));
        metrics.endpoint_changes(count(|c| matches!(c, Change::EndpointSlice(_) | Change::EndpointSliceGone(_))));
        let now = clock();
        metrics.queued(now.since_unix_epoch);
        families.iter().for_each(|family| health.queued(*family, now));
        for change in &news.changes {
            if let Change::NodeObject(node) = change {
                health.node(node.is_eligible);
            }
        }
        self.waiting.push(news.received);
        self.note_causes(news);
    }

    /// A pass is over that took so long.
    pub fn passed(&mut self, report: &Report, took: Duration) {
        let Shared { metrics, health, clock, .. } = &self.shared;
        let now = clock();
        let ages: Vec<Duration> = self.waiting.iter().map(Instant::elapsed).collect();
        metrics.pass(&Pass { report, took, ended: now.since_unix_epoch, news: &ages });
        // One operation that the kernel never takes is no reason to take the node out of service.
        let is_blind = report.unread.is_some();
        health.passed(|_| is_blind, now);
        if is_blind {
            return;
        }
        self.waiting.clear();
        for (family, cause) in self.causes.drain(..) {
            metrics.endpoints_programmed(family, cause.elapsed().unwrap_or_default());
        }
    }

    /// What the endpoints on this node mean to others now, and where its node ports are.
    pub fn note_locals(&mut self, locals: &Locals, addresses: impl FnOnce() -> BTreeSet<IpAddr>) {
        let Shared { metrics, families, .. } = &self.shared;
        for family in families {
            for (traffic, policy) in
                [(Traffic::Internal, TrafficPolicy::Internal), (Traffic::External, TrafficPolicy::External)]
            {
                metrics.without_local_endpoints(*family, policy, locals.unserved(traffic, *family));
            }
        }
        if locals.revision() == 0 {
            return;
        }
        let addresses = addresses();
        let is_news = self.revision.replace(locals.revision()) != Some(locals.revision());
        let of = |family: Family| OfFamily {
            services: locals.health_checks(family).clone(),
            addresses: addresses.iter().copied().filter(|address| Family::of(*address) == family).collect(),
        };
        self.health_checks.send_if_modified(|sent| {
            let had_them = |address| sent.values().any(|of_family| of_family.addresses.contains(address));
            let differs = is_news || !addresses.iter().all(had_them);
            if differs {
                *sent = families.iter().map(|family| (*family, of(*family))).collect();
            }
            differs
        });
    }

    /// So many problems stand, of which `new` did not before.
    pub fn note_problems(&self, standing: usize, new: usize) {
        self.shared.metrics.rejected(standing, new);
    }

    fn note_causes(&mut self, news: &News) {
        let family = |change: &Change| match change {
            Change::EndpointSlice(slice) => Some(slice.family),
            _ => None,
        };
        let families: BTreeSet<Family> = news.changes.iter().filter_map(family).collect();
        let causes = families.iter().flat_map(|family| news.triggers.iter().map(|cause| (*family, *cause)));
        self.causes.extend(causes.filter(|(family, _)| self.shared.families.contains(family)));
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry")
            .field("revision", &self.revision)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}
