//! What the whole-program tests share.
#![allow(dead_code, reason = "each test program uses its part")]

pub mod arbitrary;
pub mod deployment;
pub mod flows;
pub mod oracle;

use ipvsd::kernel::Kernel;
use ipvsd::reconcile::{Reconciler, Report};
use std::time::Duration;

/// Passes until nothing is left to do but the timer's reading, and that once; returns the time it is then.
pub fn settle<K: Kernel>(reconciler: &mut Reconciler<K>, start: Duration) -> Duration {
    let mut now = start;
    for _ in 0..200 {
        now = reconciler.next().max(now);
        let report = reconciler.pass(now);
        let is_settled = |report: &Report| report.is_good() && report.draining == 0 && report.changes() == 0;
        let mut settled = report.read_all && is_settled(&report);
        while reconciler.is_checking() {
            settled &= is_settled(&reconciler.check(now));
        }
        if settled {
            return now;
        }
    }
    panic!("it does not settle");
}
