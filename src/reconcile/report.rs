//! What a pass did, for logs, exit codes and metrics.

use super::pace::{Outcome, Success};
use crate::kernel::{Cause, ObserveError};
use crate::model::Op;
use std::collections::BTreeMap;
use std::fmt;

/// What a pass did.
#[derive(Debug, Default)]
pub struct Report {
    /// Operations that succeeded, by [`Op::kind`].
    pub done: BTreeMap<&'static str, usize>,
    /// Operations that failed, with the reason.
    pub failed: Vec<(Op, Cause)>,
    /// Why the kernel could not be read, if it could not; nothing was changed then.
    pub unread: Option<ObserveError>,
    /// Whether everything was read.
    pub read_all: bool,
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
    /// Whether the kernel holds what it should, as far as this pass knows.
    pub fn is_good(&self) -> bool {
        self.unread.is_none() && self.failed.is_empty() && !self.surprised
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
