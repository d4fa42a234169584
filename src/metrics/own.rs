//! What only ipvsd has to tell: its passes, operations and failures, and what it found changed behind its back.

use super::Pass;
use super::register::{Named, counter, counters, gauge, gauges, histogram, real, whole};
use crate::kernel::{Cause, Errno, FlowsError, ObserveError};
use crate::reconcile::{Report, pace::Success};
use prometheus::{Error, Gauge, GaugeVec, Histogram, IntCounter, IntCounterVec, Registry};
use std::sync::{Mutex, PoisonError};

/// The metrics whose names begin with `ipvsd_`.
#[derive(Debug)]
pub struct Own {
    pub config_rejected: IntCounter,
    pub queue_age: Gauge,
    pub traffic_failures: IntCounter,
    pub traffic_left_out: Gauge,
    mode: GaugeVec,
    passes: IntCounterVec,
    kernel_reads: IntCounterVec,
    operations: IntCounterVec,
    operation_failures: IntCounterVec,
    drift_repaired: IntCounter,
    pub programming: Histogram,
    draining: Gauge,
    objects_rejected: Gauge,
    objects_rejected_ever: IntCounter,
    /// What the pass before left, to tell repairs from its unfinished work.
    before: Mutex<Before>,
}

/// What is remembered of a pass.
#[derive(Clone, Copy, Debug)]
struct Before {
    was_good: bool,
    draining: usize,
}

impl Own {
    pub fn register(registry: &Registry) -> Result<Self, Error> {
        gauges(registry, BUILD, &["version"])?.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        Ok(Self {
            config_rejected: counter(registry, CONFIG_REJECTED)?,
            queue_age: gauge(registry, QUEUE_AGE)?,
            traffic_failures: counter(registry, TRAFFIC_FAILURES)?,
            traffic_left_out: gauge(registry, TRAFFIC_LEFT_OUT)?,
            mode: gauges(registry, MODE, &["mode", "reason"])?,
            passes: counters(registry, PASSES, &["result"])?,
            kernel_reads: counters(registry, KERNEL_READS, &["result"])?,
            operations: counters(registry, OPERATIONS, &["kind"])?,
            operation_failures: counters(registry, OPERATION_FAILURES, &["errno", "kind"])?,
            drift_repaired: counter(registry, DRIFT_REPAIRED)?,
            programming: histogram(registry, PROGRAMMING, PROGRAMMING_BUCKETS.to_vec())?,
            draining: gauge(registry, DRAINING)?,
            objects_rejected: gauge(registry, OBJECTS_REJECTED)?,
            objects_rejected_ever: counter(registry, OBJECTS_REJECTED_EVER)?,
            // Before the first pass nothing was programmed, so what it does repairs nothing.
            before: Mutex::new(Before { was_good: false, draining: 0 }),
        })
    }

    pub fn mode(&self, mode: &str, reason: &str) {
        self.mode.with_label_values(&[mode, reason]).set(1.0);
    }

    pub fn pass(&self, pass: &Pass<'_>) {
        let report = pass.report;
        self.passes.with_label_values(&[result(report)]).inc();
        if report.unread.is_some() {
            self.kernel_reads.with_label_values(&["failure"]).inc();
        } else if report.read_all {
            self.kernel_reads.with_label_values(&["success"]).inc();
        }
        for (kind, count) in &report.done {
            self.operations.with_label_values(&[kind]).inc_by(whole(*count));
        }
        for (op, cause) in &report.failed {
            self.operation_failures.with_label_values(&[&errno(cause), op.kind()]).inc();
        }
        for failure in report.flows.iter().filter_map(|(_, forgotten)| forgotten.failure.as_ref()) {
            self.operation_failures.with_label_values(&[&errno_of_flows(failure), Report::FORGET]).inc();
        }
        if report.unread.is_none() {
            pass.news.iter().for_each(|age| self.programming.observe(age.as_secs_f64()));
        }
        self.draining.set(real(report.draining));
        self.drift_repaired.inc_by(whole(self.repaired(pass)));
    }

    pub fn rejected(&self, standing: usize, new: usize) {
        self.objects_rejected.set(real(standing));
        self.objects_rejected_ever.inc_by(whole(new));
    }

    /// How many operations of a pass undid what somebody else did: it checked the kernel, the input had not changed, and
    /// the pass before left nothing to do but to take away what was draining.
    fn repaired(&self, pass: &Pass<'_>) -> usize {
        let Report { draining, checked, .. } = *pass.report;
        let now = Before { was_good: pass.report.is_good(), draining };
        // Nothing can panic while it is held.
        let before = std::mem::replace(&mut *self.before.lock().unwrap_or_else(PoisonError::into_inner), now);
        if !checked || !pass.news.is_empty() || !before.was_good {
            return 0;
        }
        pass.report.changes().saturating_sub(before.draining.saturating_sub(draining))
    }
}

fn result(report: &Report) -> &'static str {
    match report.outcome().success {
        Success::Whole => "whole",
        Success::Partial => "partial",
        Success::Unread => "unread",
    }
}

/// The kernel's error number by its name, as in errno(3).
fn errno(cause: &Cause) -> String {
    let errno = match cause {
        Cause::OutOfDate(errno) | Cause::Refused(errno) | Cause::Unknown(errno) => *errno,
        Cause::SchedulerMissing => Errno::ENOENT,
        Cause::Ipv6Off => Errno::EACCES,
        Cause::SetFull => Errno::ENOSPC,
        Cause::SetOfOtherType { .. } => Errno::EBUSY,
        // A program failed, which has no number.
        Cause::Rules(_) => Errno::EIO,
    };
    format!("{errno:?}")
}

/// The same of what kept flows that lead nowhere.
fn errno_of_flows(failure: &FlowsError) -> String {
    let errno = match failure {
        FlowsError::Unavailable => Errno::EINVAL,
        FlowsError::Unread(ObserveError::Refused { errno, .. }) | FlowsError::Unforgotten(errno) => *errno,
        FlowsError::Unread(_) => Errno::EIO,
    };
    format!("{errno:?}")
}

/// From what a pass for one change takes to what nobody should have to wait for.
const PROGRAMMING_BUCKETS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

const BUILD: Named = ("ipvsd_build_info", "Always 1; the label tells the version");
const CONFIG_REJECTED: Named =
    ("ipvsd_config_rejected_total", "Times that a changed configuration was not taken because it is not good");
const DRAINING: Named = ("ipvsd_draining_destinations", "Destinations that keep old connections and get no new ones");
const DRIFT_REPAIRED: Named =
    ("ipvsd_drift_repaired_total", "Operations that undid what somebody else had changed in the kernel");
const KERNEL_READS: Named = ("ipvsd_kernel_reads_total", "Times that everything was read from the kernel");
const OBJECTS_REJECTED: Named = ("ipvsd_objects_rejected", "Objects that are not, or not wholly, programmed now");
const OBJECTS_REJECTED_EVER: Named = ("ipvsd_objects_rejected_total", "Times that an object was rejected");
const OPERATIONS: Named = ("ipvsd_operations_total", "Operations that the kernel did");
const OPERATION_FAILURES: Named = ("ipvsd_operation_failures_total", "Operations that the kernel refused");
const PASSES: Named = ("ipvsd_passes_total", "Passes of the reconciler by how they ended");
const PROGRAMMING: Named =
    ("ipvsd_programming_duration_seconds", "From the arrival of news to its effect in the kernel, in seconds");
const MODE: Named =
    ("ipvsd_proxy_mode", "1 for what balances: ipvs or iptables; because it was asked for, or as a fallback");
const TRAFFIC_FAILURES: Named = (
    "ipvsd_service_metrics_failures_total",
    "Times that what goes through Services was asked for and could not be told",
);
const TRAFFIC_LEFT_OUT: Named = (
    "ipvsd_service_metrics_left_out_series",
    "Series of Services and destinations that are beyond serviceMetricsLimit",
);
const QUEUE_AGE: Named =
    ("ipvsd_queue_age_seconds", "How long the oldest change has been waiting to be programmed, in seconds");
