//! What a pass did, for logs, exit codes and metrics.

use super::pace::{Outcome, Success};
use crate::kernel::{Cause, FlowsError, Forgotten, ObserveError};
use crate::model::{Family, Op};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use tracing::debug;

/// What a pass did.
#[derive(Debug, Default)]
pub struct Report {
    /// Operations that succeeded, by [`Op::kind`].
    pub done: BTreeMap<&'static str, usize>,
    /// Operations that failed, with the reason.
    pub failed: Vec<(Op, Cause)>,
    /// What came of looking for flows that lead nowhere, where something had changed.
    pub flows: Vec<(Family, Forgotten)>,
    /// Why the kernel could not be read, if it could not; nothing was changed then.
    pub unread: Option<ObserveError>,
    /// Whether everything was read, but perhaps for destinations whose turn comes.
    pub read_all: bool,
    /// Whether what was compared had been read to see that it is as it should be.
    pub checked: bool,
    /// Whether the kernel turned out to be other than it was thought to be, without anything failing.
    pub surprised: bool,
    /// How many virtual servers stand only because the input is in doubt since the start.
    pub inherited: usize,
    /// How many destinations are departing after the pass.
    pub draining: usize,
    /// How many virtual servers stay after the pass only so that clients hear that their connections were cut.
    pub lingering: usize,
}

impl Report {
    /// What forgetting a flow is called, as [`Op::kind`] names operations.
    pub const FORGET: &'static str = "forget flow";

    /// Whether the kernel holds what it should, as far as this pass knows.
    pub fn is_good(&self) -> bool {
        let remembers = |(_, forgotten): &(Family, Forgotten)| {
            // Without the module there is nothing that trying again would change.
            forgotten.failure.as_ref().is_some_and(|failure| !matches!(failure, FlowsError::Unavailable))
        };
        self.unread.is_none() && self.failed.is_empty() && !self.surprised && !self.flows.iter().any(remembers)
    }

    /// Operations that failed, with the reason; of virtual servers that are rules, which are written as a whole, the first,
    /// and of a set that cannot be had that, and not each of its members.
    pub fn failures(&self) -> impl Iterator<Item = &(Op, Cause)> {
        let mut told = BTreeSet::new();
        self.failed.iter().filter(move |(op, cause)| {
            if matches!(cause, Cause::SetOfOtherType { .. }) {
                return matches!(op, Op::CreateSet(..));
            }
            let whole = op.virtual_server().filter(|_| matches!(cause, Cause::Rules(_)));
            whole.is_none_or(|key| told.insert(key))
        })
    }

    /// What the pacing needs to know.
    pub fn outcome(&self) -> Outcome {
        let success = match &self.unread {
            Some(_) => Success::Unread,
            None if self.is_good() => Success::Whole,
            None => Success::Partial,
        };
        Outcome { success, read_all: self.read_all, draining: self.draining + self.lingering > 0 }
    }

    /// Counts an operation that succeeded.
    pub(super) fn note_done(&mut self, op: &Op) {
        debug!(kind = op.kind(), "done: {op}");
        *self.done.entry(op.kind()).or_default() += 1;
    }

    /// Takes in what came of looking for flows; counts what was forgotten as operations.
    pub(super) fn take_forgotten(&mut self, family: Family, forgotten: Forgotten) {
        if forgotten.flows > 0 {
            *self.done.entry(Self::FORGET).or_default() += forgotten.flows;
        }
        self.flows.push((family, forgotten));
    }

    /// How many operations succeeded.
    pub fn changes(&self) -> usize {
        self.done.values().sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (kind, count) in &self.done {
            write!(f, "{separator}{kind}: {count}")?;
            separator = ", ";
        }
        if self.done.is_empty() {
            f.write_str("nothing to change")?;
        }
        if !self.failed.is_empty() {
            write!(f, ", failed: {}", self.failed.len())?;
        }
        Ok(())
    }
}
