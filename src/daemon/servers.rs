//! The daemon's HTTP servers as tasks: health, metrics, and the health checks of Services. Their trouble is logged once,
//! and told to the cluster as Events.

use super::telemetry::{HealthChecks, OfFamily, Shared};
use crate::config::{Config, Servers as Addresses};
use crate::model::Family;
use crate::server::{
    self, BindError, Binding, Handler, HealthCheckServers, ListenFailure, LogFilter, MetricsPages, Page, Server,
    SetVerbosity, Traffic,
};
use crate::source::kube::{Events, Occurrence};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::{info, warn};

/// How often a health check's port is tried again that could not be had.
const RETRY: Duration = Duration::from_secs(30);

/// What this process says of itself, and lets be changed.
pub struct About {
    /// Flags with their values.
    pub flags: BTreeMap<String, String>,
    /// What is logged.
    pub log: LogFilter,
    /// Changes that by a level of `-v`.
    pub set_verbosity: SetVerbosity,
}

/// What the pages at the metrics port say.
pub struct Pages {
    /// Of this process.
    pub about: About,
    /// The word on `/proxyMode`.
    pub mode: &'static str,
    /// For people.
    pub page: Page,
    /// What goes through Services, if the metrics tell that.
    pub traffic: Option<Traffic>,
}

/// Starts servers, each as a task that may end the process.
pub struct Starter<'a> {
    /// What the servers share.
    pub shared: &'a Shared,
    /// Where trouble is told to the cluster.
    pub events: Option<&'a Events>,
    /// Takes why the process must end, if a server may end it.
    pub fatal: mpsc::Sender<BindError>,
}

impl Starter<'_> {
    /// Starts the server for health, if there is to be one.
    pub fn health(&self, addresses: &Addresses) {
        let Shared { metrics, health, clock, .. } = self.shared;
        if let Some(address) = addresses.healthz {
            let handler = server::healthz(health.clone(), Arc::clone(metrics), Arc::clone(clock));
            let server = Server { name: "healthz", address, hard_fail: addresses.hard_fail };
            self.start(server, handler, Occurrence::HealthServerFailed);
        }
    }

    /// Starts the server for metrics and what goes with them, if there is to be one.
    pub fn metrics(&self, config: &Config, said: Pages) {
        if let Some(address) = config.servers.metrics {
            let server = Server { name: "metrics", address, hard_fail: config.servers.hard_fail };
            self.start(server, pages(config, said, self.shared).handler(), Occurrence::MetricsServerFailed);
        }
    }

    fn start(&self, server: Server, handler: Handler, occurrence: fn(String) -> Occurrence) {
        let (fatal, events) = (self.fatal.clone(), self.events.cloned());
        tokio::spawn(async move {
            let mut trouble = None;
            let error = server.run(handler, |binding| note_binding(binding, &mut trouble, events.as_ref(), occurrence));
            // Nobody receives it only when the process ends already.
            _ = fatal.send(error.await).await;
        });
    }
}

fn pages(config: &Config, Pages { about, mode, page, traffic }: Pages, shared: &Shared) -> MetricsPages {
    let configz = config.effective.configz();
    MetricsPages {
        metrics: Arc::clone(&shared.metrics),
        traffic,
        health: shared.health.clone(),
        clock: Arc::clone(&shared.clock),
        started: (shared.clock)(),
        mode,
        page,
        configz: Arc::new(move || configz.clone()),
        flags: about.flags,
        set_verbosity: config.servers.profiling.then_some(about.set_verbosity),
    }
}

/// Says once what is wrong, and what is well in the end.
fn note_binding(
    binding: Binding<'_>,
    trouble: &mut Option<String>,
    events: Option<&Events>,
    occurrence: fn(String) -> Occurrence,
) {
    match binding {
        Binding::Bound(address) => info!(%address, "listening"),
        Binding::Failed(error) => {
            let message = format!("{error}: {}", error.source);
            if trouble.as_ref() != Some(&message) {
                warn!("{message}");
                if let Some(events) = events {
                    events.write(occurrence(message.clone()));
                }
            }
            *trouble = Some(message);
        }
    }
}

/// Serves the health checks that are sent, until nobody can send any.
pub async fn serve_health_checks(mut wanted: watch::Receiver<HealthChecks>, shared: Shared, events: Option<Events>) {
    let fresh = |family: &Family| (*family, HealthCheckServers::new(shared.health.clone(), Arc::clone(&shared.clock)));
    let mut servers: BTreeMap<Family, HealthCheckServers> = shared.families.iter().map(fresh).collect();
    let mut told: BTreeSet<String> = BTreeSet::new();
    loop {
        let wanted_now = wanted.borrow_and_update().clone();
        let mut failures = Vec::new();
        for (family, OfFamily { services, addresses }) in &wanted_now {
            if let Some(servers) = servers.get_mut(family) {
                failures.extend(servers.sync(services, addresses).await);
            }
        }
        let is_retried = !failures.is_empty();
        told = failures.into_iter().map(|failure| note_failure(failure, &told, events.as_ref())).collect();
        let next = if is_retried { timeout(RETRY, wanted.changed()).await } else { Ok(wanted.changed().await) };
        if matches!(next, Ok(Err(_))) {
            return;
        }
    }
}

/// Says that a port cannot be had, unless it was said already. Returns what is said.
fn note_failure(failure: ListenFailure, told: &BTreeSet<String>, events: Option<&Events>) -> String {
    let message = format!("{failure}: {}", failure.source);
    if !told.contains(&message) {
        warn!("{message}");
        if let Some(events) = events {
            events.write(Occurrence::ServiceHealthServerFailed(failure.service, message.clone()));
        }
    }
    message
}
