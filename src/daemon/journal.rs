//! What the daemon says: one line for each change that matters, and each problem once, when it comes and when it
//! goes.

use super::trouble::Trouble;
use crate::kernel::{Cause, FlowsError};
use crate::model::Op;
use crate::reconcile::Report;
use crate::state::{OneLine, Problem};
use std::collections::BTreeSet;
use std::time::Duration;
use tracing::{error, info, warn};

/// What has been said already.
#[derive(Debug)]
pub struct Journal {
    /// Problems with the input that stand, each logged when it came.
    problems: BTreeSet<Problem>,
    /// Problems ever logged.
    problems_ever: usize,
    /// Failures since everything was last read and tried, each logged when it came, as text.
    failures: BTreeSet<String>,
    kernel_trouble: Trouble,
    /// Virtual servers that stand only because of doubt.
    inherited: usize,
    /// Whether it was said that the node does not forward IPv6.
    told_of_ipv6: bool,
    /// Whether it was said that flows cannot be looked for.
    told_of_flows: bool,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            problems: BTreeSet::new(),
            problems_ever: 0,
            failures: BTreeSet::new(),
            kernel_trouble: Trouble::with("the kernel", "nothing is changed until it can"),
            inherited: 0,
            told_of_ipv6: false,
            told_of_flows: false,
        }
    }
}

/// The object and the field that a problem is about, where it has them.
fn subject(problem: &Problem) -> (Option<String>, Option<String>) {
    let object = problem.object.as_ref().map(|object| OneLine(object).to_string());
    let field = (!problem.field.is_empty()).then(|| OneLine(&problem.field).to_string());
    (object, field)
}

impl Journal {
    /// Takes in the problems that stand now, says what is new and what is over. Returns how many are new.
    pub fn note_problems(&mut self, now: impl IntoIterator<Item = Problem>) -> usize {
        let now: BTreeSet<_> = now.into_iter().collect();
        let ever = self.problems_ever;
        for problem in now.difference(&self.problems) {
            self.problems_ever += 1;
            let (object, field) = subject(problem);
            warn!(object, field, standing = now.len(), ever = self.problems_ever, "problem: {problem}");
        }
        for problem in self.problems.difference(&now) {
            let (object, field) = subject(problem);
            info!(object, field, standing = now.len(), "no longer: {problem}");
        }
        self.problems = now;
        self.problems_ever - ever
    }

    /// How many problems stand.
    pub fn problems(&self) -> usize {
        self.problems.len()
    }

    /// How many problems stand, and failures.
    pub fn standing(&self) -> usize {
        self.problems.len() + self.failures.len()
    }

    /// Says what a pass did, if it did anything or failed in a new way.
    pub fn note_pass(&mut self, report: &Report, took: Duration, owner: impl Fn(&Op) -> String) {
        self.kernel_trouble.note_error(report.unread.as_ref());
        if report.inherited > self.inherited {
            let kept = report.inherited;
            warn!(kept, "virtual servers from before the start stay, because what cannot be read may be theirs");
        }
        self.inherited = report.inherited;
        if report.changes() > 0 {
            let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            info!(changes = report.changes(), draining = report.draining, milliseconds, "programmed: {report}");
        }
        let mut failures = BTreeSet::new();
        for (op, cause) in report.failures() {
            // A stale picture is read anew at once; it is news only if that does not help.
            if !matches!(cause, Cause::OutOfDate(_)) {
                failures.insert(OneLine(format_args!("{}{op}: {cause}", owner(op))).to_string());
            }
        }
        failures.extend(self.note_flows(report));
        if !report.read_all {
            // They are tried again with all else, and not with whatever changes meanwhile.
            failures.extend(self.failures.iter().cloned());
        }
        for failure in failures.difference(&self.failures) {
            error!("failed, will be tried again: {failure}");
        }
        for failure in self.failures.difference(&failures) {
            info!("no longer failing: {failure}");
        }
        self.failures = failures;
    }

    /// Says once that flows cannot be looked for. Returns what else kept them.
    fn note_flows(&mut self, report: &Report) -> Vec<String> {
        let failed = report.flows.iter().filter_map(|(family, forgotten)| Some((family, forgotten.failure.as_ref()?)));
        let (unavailable, failed): (Vec<_>, Vec<_>) =
            failed.partition(|(_, failure)| matches!(failure, FlowsError::Unavailable));
        for (_, failure) in unavailable {
            if !std::mem::replace(&mut self.told_of_flows, true) {
                warn!("UDP and SCTP flows that lead nowhere stay until they time out: {failure}");
            }
        }
        failed.iter().map(|(family, failure)| format!("forget flows of {}: {failure}", family.name())).collect()
    }

    /// Says once that IPv6 virtual servers will not work.
    pub fn note_ipv6_not_forwarded(&mut self) {
        if !std::mem::replace(&mut self.told_of_ipv6, true) {
            warn!(
                "IPv6 virtual servers cannot reach other hosts: net.ipv6.conf.all.forwarding is 0, and ipvsd leaves that to you"
            );
        }
    }
}
