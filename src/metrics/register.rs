//! Makes metrics and puts them into a registry, in one word each.

use prometheus::core::Collector;
use prometheus::{
    Error, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
    exponential_buckets,
};

type Result<T> = std::result::Result<T, Error>;

/// Name and help text.
pub type Named = (&'static str, &'static str);

/// A counter.
pub fn counter(registry: &Registry, (name, help): Named) -> Result<IntCounter> {
    registered(registry, IntCounter::new(name, help)?)
}

/// Counters, told apart by labels.
pub fn counters(registry: &Registry, (name, help): Named, labels: &[&str]) -> Result<IntCounterVec> {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

/// A gauge.
pub fn gauge(registry: &Registry, (name, help): Named) -> Result<Gauge> {
    registered(registry, Gauge::new(name, help)?)
}

/// Gauges, told apart by labels.
pub fn gauges(registry: &Registry, (name, help): Named, labels: &[&str]) -> Result<GaugeVec> {
    registered(registry, GaugeVec::new(Opts::new(name, help), labels)?)
}

/// A histogram with these upper bounds.
pub fn histogram(registry: &Registry, (name, help): Named, buckets: Vec<f64>) -> Result<Histogram> {
    registered(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?)
}

/// Histograms, told apart by labels.
pub fn histograms(registry: &Registry, named: Named, labels: &[&str], buckets: Vec<f64>) -> Result<HistogramVec> {
    let (name, help) = named;
    registered(registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)?)
}

/// Upper bounds for how long the kernel's being programmed takes, as kube-proxy has them: from 1 ms to 16 s, each twice
/// the one before.
pub fn sync_buckets() -> Result<Vec<f64>> {
    exponential_buckets(0.001, 2.0, 15)
}

/// A number of things, for a counter.
pub fn whole(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// A number of things, for a gauge.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, and nobody counts so many")]
pub fn real(number: usize) -> f64 {
    number as f64
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
