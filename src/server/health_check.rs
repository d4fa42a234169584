//! The servers behind `healthCheckNodePort`: a load balancer asks on a Service's own port how many of its endpoints
//! this node has, and sends only where there are some.

use super::answer::{self, Answer};
use super::clock::Clock;
use super::http::{self, Connections, Handler, Limits};
use super::listener;
use crate::desired::HealthCheck;
use crate::health::SharedHealth;
use crate::state::ObjectName;
use ::http::header::{HeaderName, HeaderValue};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::task::JoinHandle;

/// Connections to all of them together.
const CONNECTIONS: usize = 256;

/// Load balancers that weigh nodes read it (cloud-provider contract of Kubernetes).
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// A port that nobody listens on although a Service wants it.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for the health check of Service {service}")]
pub struct ListenFailure {
    /// The Service.
    pub service: ObjectName,
    /// Its port, with the address on which it failed.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// One server for each Service and address. Dropped, it closes all of them.
pub struct HealthCheckServers {
    health: SharedHealth,
    clock: Clock,
    connections: Connections,
    services: BTreeMap<ObjectName, Served>,
}

/// A Service that has its port.
struct Served {
    port: u16,
    /// Written by [`HealthCheckServers::sync`], read by the handlers.
    local_endpoints: Arc<AtomicUsize>,
    /// Those that could be opened.
    listeners: BTreeMap<IpAddr, Listening>,
}

/// A listener that serves. Dropped, it closes soon; [`Listening::close`] waits for that.
struct Listening(JoinHandle<Infallible>);

impl HealthCheckServers {
    /// None yet. No endpoint helps while `health` is bad.
    pub fn new(health: SharedHealth, clock: Clock) -> Self {
        let connections = Connections::within(Limits::connections(CONNECTIONS));
        Self { health, clock, connections, services: BTreeMap::new() }
    }

    /// Serves what is wanted on these addresses, and nothing else: closes what nobody wants any more, opens what is
    /// new, tries again what failed before. A new number of endpoints touches no socket.
    ///
    /// `addresses` are `0.0.0.0` and `::`, as far as the node serves these families, or the node's own that
    /// `nodePortAddresses` leaves. They may change. Returns what could not be opened.
    pub async fn sync(
        &mut self,
        wanted: &BTreeMap<ObjectName, HealthCheck>,
        addresses: &BTreeSet<IpAddr>,
    ) -> Vec<ListenFailure> {
        // First, because one Service may take over the port of another, and every address contains each.
        self.close_unwanted(wanted, addresses).await;
        let mut failures = Vec::new();
        for (service, check) in wanted {
            failures.extend(self.open(service, *check, addresses));
        }
        failures
    }

    async fn close_unwanted(&mut self, wanted: &BTreeMap<ObjectName, HealthCheck>, addresses: &BTreeSet<IpAddr>) {
        let mut unwanted = Vec::new();
        self.services.retain(|service, served| {
            let stays = wanted.get(service).is_some_and(|check| check.port == served.port);
            let going = |address: &IpAddr| !stays || !addresses.contains(address);
            let closed = served.listeners.extract_if(.., |address, _| going(address));
            unwanted.extend(closed.map(|(_, listening)| listening));
            stays
        });
        for listening in unwanted {
            listening.close().await;
        }
    }

    fn open(&mut self, service: &ObjectName, check: HealthCheck, addresses: &BTreeSet<IpAddr>) -> Vec<ListenFailure> {
        let HealthCheck { port, local_endpoints } = check;
        let fresh = || Served { port, local_endpoints: Arc::default(), listeners: BTreeMap::new() };
        let served = self.services.entry(service.clone()).or_insert_with(fresh);
        served.local_endpoints.store(local_endpoints, Ordering::Relaxed);
        let mut failures = Vec::new();
        for ip in addresses {
            if served.listeners.contains_key(ip) {
                continue;
            }
            let address = SocketAddr::from((*ip, port));
            match listener::at(address) {
                Ok(socket) => {
                    let handler = handler(service, &served.local_endpoints, &self.health, &self.clock);
                    let serving = http::serve(socket, handler, self.connections.clone());
                    served.listeners.insert(*ip, Listening(tokio::spawn(serving)));
                }
                Err(source) => failures.push(ListenFailure { service: service.clone(), address, source }),
            }
        }
        failures
    }
}

impl fmt::Debug for HealthCheckServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.services.iter().map(|(service, served)| (service, served.port))).finish()
    }
}

impl Listening {
    async fn close(mut self) {
        self.0.abort();
        // Whatever it says, it has ended then.
        let _ = (&mut self.0).await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Answers for one Service, whatever the path and the method.
fn handler(service: &ObjectName, endpoints: &Arc<AtomicUsize>, health: &SharedHealth, clock: &Clock) -> Handler {
    let (service, endpoints) = (service.clone(), Arc::clone(endpoints));
    let (health, clock) = (health.clone(), Arc::clone(clock));
    http::at_once(move |_| tell(&service, endpoints.load(Ordering::Relaxed), health.report(clock()).is_healthy()))
}

fn tell(service: &ObjectName, local_endpoints: usize, healthy: bool) -> Answer {
    let status = answer::health(local_endpoints > 0 && healthy);
    let ObjectName { namespace, name } = service;
    // Names of Kubernetes need no escapes.
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\
         \t\"localEndpoints\": {local_endpoints},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
    );
    answer::with_header(answer::json(status, body), WEIGHT, HeaderValue::from(local_endpoints))
}
