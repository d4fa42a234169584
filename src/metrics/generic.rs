//! What every Kubernetes component tells: its build, its feature gates, its requests to the API server, its pings.

use super::register::{Named, counters, gauges, histograms};
use prometheus::{Error, HistogramVec, IntCounter, IntCounterVec, Registry};
use std::env::consts::{ARCH, OS};
use std::time::Duration;

/// A feature gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature<'a> {
    /// As in `--feature-gates`.
    pub name: &'a str,
    /// `ALPHA`, `BETA`, `DEPRECATED`, or empty when generally available.
    pub stage: &'a str,
    /// Whether it is on.
    pub enabled: bool,
}

/// One request to the API server that is over.
#[derive(Clone, Copy, Debug)]
pub struct ApiRequest<'a> {
    /// `host:port` of the API server.
    pub host: &'a str,
    /// `GET`, `PATCH`, ...
    pub method: &'a str,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// Until the head of the answer.
    pub took: Duration,
}

/// The metrics that are no proxy's own.
#[derive(Debug)]
pub struct Generic {
    requests: IntCounterVec,
    request_duration: HistogramVec,
    /// A registry of its own: they are on another path.
    pub slis: Registry,
    pub pings: IntCounter,
}

impl Generic {
    pub fn register(registry: &Registry, features: &[Feature<'_>]) -> Result<Self, Error> {
        register_build(registry)?;
        let enabled = gauges(registry, FEATURES, &["name", "stage"])?;
        for feature in features {
            enabled.with_label_values(&[feature.name, feature.stage]).set(f64::from(u8::from(feature.enabled)));
        }
        let slis = Registry::new();
        // Whoever can ask gets an answer, so the last ping went well.
        gauges(&slis, HEALTHCHECK, &["name", "type"])?.with_label_values(&["ping", "healthz"]).set(1.0);
        let pings = counters(&slis, HEALTHCHECKS, &["name", "status", "type"])?;
        Ok(Self {
            requests: counters(registry, REQUESTS, &["code", "host", "method"])?,
            request_duration: histograms(registry, REQUEST_DURATION, &["host", "verb"], REQUEST_BUCKETS.to_vec())?,
            pings: pings.with_label_values(&["ping", "success", "healthz"]),
            slis,
        })
    }

    pub fn api_request(&self, request: &ApiRequest<'_>) {
        let ApiRequest { host, method, status, took } = *request;
        // What client-go puts where there was no answer.
        let code = status.map_or_else(|| "<error>".to_owned(), |status| status.to_string());
        self.requests.with_label_values(&[&code, host, method]).inc();
        self.request_duration.with_label_values(&[host, method]).observe(took.as_secs_f64());
    }
}

/// Our version in the place of Kubernetes' own. What is not known of the build is empty.
fn register_build(registry: &Registry) -> Result<(), Error> {
    let labels = [
        ("build_date", ""),
        ("compiler", "rustc"),
        ("git_commit", ""),
        ("git_tree_state", ""),
        ("git_version", concat!("v", env!("CARGO_PKG_VERSION"))),
        ("go_version", ""),
        ("major", env!("CARGO_PKG_VERSION_MAJOR")),
        ("minor", env!("CARGO_PKG_VERSION_MINOR")),
        ("platform", &format!("{OS}/{}", go_architecture())),
    ];
    let build = gauges(registry, BUILD, &labels.map(|(name, _)| name))?;
    build.with_label_values(&labels.map(|(_, value)| value)).set(1.0);
    Ok(())
}

/// This machine's architecture as Kubernetes names it.
fn go_architecture() -> &'static str {
    match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

const REQUEST_BUCKETS: [f64; 12] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];

const BUILD: Named = ("kubernetes_build_info", "[BETA] Always 1; the labels tell which build of ipvsd this is");
const FEATURES: Named = ("kubernetes_feature_enabled", "[BETA] 1 for a feature gate that is on, 0 for one that is off");
const REQUESTS: Named =
    ("rest_client_requests_total", "[BETA] Requests to the API server by HTTP status, method and host");
const REQUEST_DURATION: Named = (
    "rest_client_request_duration_seconds",
    "[BETA] How long requests to the API server took, by verb and host, in seconds",
);
const HEALTHCHECK: Named = ("kubernetes_healthcheck", "[STABLE] 1 for a health check that went well the last time");
const HEALTHCHECKS: Named = ("kubernetes_healthchecks_total", "[STABLE] Health checks by how they went");
