//! When to turn the wheel next: after a change, to look at what drains, to try again, to check everything.
//!
//! Pure: told what happened and when, it says what is due and when. Waiting is the caller's.

use crate::desired::Moment;
use std::time::Duration;

/// How often things happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intervals {
    /// Between two readings of the whole kernel state while all is well.
    pub resync: Duration,
    /// At least this long between the end of one pass and the start of the next.
    pub rest: Duration,
    /// Between two looks at what drains.
    pub drain_check: Duration,
}

impl Default for Intervals {
    fn default() -> Self {
        Self { resync: Duration::from_secs(30), rest: Duration::ZERO, drain_check: Duration::from_secs(1) }
    }
}

/// What came of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How far it got.
    pub success: Success,
    /// Everything was read.
    pub read_all: bool,
    /// Destinations are departing, or virtual servers linger.
    pub draining: bool,
}

/// How far a pass got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Success {
    /// Nothing failed.
    Whole,
    /// Some operations failed: everything is read and tried again, and meanwhile changes go on.
    Partial,
    /// The kernel could not be read: nothing can be done until it can.
    Unread,
}

/// What a pass begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing is read.
    Nothing,
    /// The connections of what drains are counted.
    DrainCheck,
    /// Everything is read, which may be in parts: it is for nothing but the time since the last reading.
    Check,
    /// Everything is read at once.
    Reading,
}

/// The state of the pacing.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    intervals: Intervals,
    /// When everything is read next.
    reading: Moment,
    /// Whether that is by the timer alone, and so may be done in parts.
    is_routine: bool,
    /// When the departing are counted next, if any are.
    drain_check: Option<Moment>,
    /// Before this nothing happens.
    rested: Moment,
    /// How long the next failure waits: doubles up to [`Pace::LONGEST_RETRY`], starts anew when a pass is good.
    retry: Duration,
}

impl Pace {
    /// The wait after a first failure. Most are races that a fresh reading settles.
    const FIRST_RETRY: Duration = Duration::from_millis(100);
    /// The longest wait between attempts.
    const LONGEST_RETRY: Duration = Duration::from_secs(30);

    /// A pace whose first reading is due at once.
    pub fn new(intervals: Intervals) -> Self {
        let start = Moment::ZERO;
        Self {
            intervals,
            reading: start,
            is_routine: false,
            drain_check: None,
            rested: start,
            retry: Self::FIRST_RETRY,
        }
    }

    /// What a pass at `now` begins with. What drains goes before the timer's reading, which does not count connections.
    pub fn due(&self, now: Moment) -> Due {
        let is_reading_due = self.reading <= now;
        let is_drain_check_due = self.drain_check.is_some_and(|due| due <= now);
        match () {
            () if is_reading_due && !self.is_routine => Due::Reading,
            () if is_drain_check_due => Due::DrainCheck,
            () if is_reading_due => Due::Check,
            () => Due::Nothing,
        }
    }

    /// When the next pass is due; `changed` says whether the input changed since the last.
    pub fn next(&self, changed: bool) -> Moment {
        let due = if changed { Moment::ZERO } else { self.drain_check.unwrap_or(self.reading).min(self.reading) };
        due.max(self.rested)
    }

    /// Asks for a reading with the next pass, because something outside may have changed the kernel.
    pub fn read_soon(&mut self) {
        self.reading = Moment::ZERO;
        self.is_routine = false;
    }

    /// Takes in what came of a part of a check that ended at `now`: nobody has to wait because of it, unless it failed.
    pub fn checked(&mut self, outcome: Outcome, now: Moment) {
        if outcome.success != Success::Whole {
            return self.passed(outcome, now);
        }
        if outcome.draining {
            self.drain_check.get_or_insert(now.saturating_add(self.intervals.drain_check));
        }
    }

    /// Takes in what came of a pass that ended at `now`.
    pub fn passed(&mut self, outcome: Outcome, now: Moment) {
        self.rested = now.saturating_add(self.intervals.rest);
        self.drain_check = outcome.draining.then(|| now.saturating_add(self.intervals.drain_check));
        if outcome.success != Success::Whole {
            // What cannot be mended keeps nobody from mending the rest as often as is asked for.
            self.reading = now.saturating_add(self.retry.min(self.intervals.resync));
            self.is_routine = false;
            if outcome.success == Success::Unread {
                self.rested = self.rested.max(self.reading);
            }
            self.retry = (self.retry * 2).min(Self::LONGEST_RETRY);
            return;
        }
        self.retry = Self::FIRST_RETRY;
        if outcome.read_all {
            self.reading = now.saturating_add(self.intervals.resync);
            self.is_routine = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Outcome = Outcome { success: Success::Whole, read_all: true, draining: false };
    const BAD: Outcome = Outcome { success: Success::Partial, ..GOOD };

    fn at(milliseconds: u64) -> Moment {
        Moment::from_millis(milliseconds)
    }

    #[test]
    fn everything_is_read_at_start_and_then_on_the_timer() {
        let mut pace = Pace::new(Intervals::default());
        assert_eq!(pace.due(at(0)), Due::Reading);
        pace.passed(GOOD, at(5));
        assert_eq!(pace.due(at(30_004)), Due::Nothing);
        assert_eq!(pace.next(false), at(30_005));
    }

    #[test]
    fn a_change_is_due_at_once_and_reads_nothing() {
        let mut pace = Pace::new(Intervals::default());
        pace.passed(GOOD, at(5));
        assert_eq!(pace.next(true), at(5));
        assert_eq!(pace.due(at(6)), Due::Nothing);
        pace.passed(Outcome { read_all: false, ..GOOD }, at(20_000));
        assert_eq!(pace.next(false), at(30_005), "an incremental pass does not put the timer off");
    }

    #[test]
    fn changes_wait_for_the_rest_between_passes() {
        let mut pace = Pace::new(Intervals { rest: at(1_000), ..Intervals::default() });
        pace.passed(GOOD, at(5));
        assert_eq!(pace.next(true), at(1_005));
    }

    #[test]
    fn failures_are_retried_ever_later_with_a_reading_and_a_good_pass_forgets_them() {
        let mut pace = Pace::new(Intervals::default());
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..11 {
            pace.passed(BAD, now);
            waits.push((pace.next(false) - now).as_millis());
            now = pace.next(false);
            assert_eq!(pace.due(now), Due::Reading);
        }
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
        pace.passed(GOOD, now);
        pace.passed(BAD, now);
        assert_eq!(pace.next(false) - now, Pace::FIRST_RETRY);
    }

    #[test]
    fn what_fails_for_good_puts_no_reading_off() {
        let mut pace = Pace::new(Intervals { resync: at(5_000), ..Intervals::default() });
        let mut now = at(0);
        for _ in 0..11 {
            pace.passed(BAD, now);
            assert!(pace.next(false) - now <= at(5_000));
            now = pace.next(false);
        }
    }

    #[test]
    fn a_kernel_that_cannot_be_read_is_not_asked_in_a_spin() {
        let mut pace = Pace::new(Intervals::default());
        pace.passed(BAD, at(0));
        assert_eq!(pace.next(true), at(0), "a failed operation holds up no other change");
        pace.passed(Outcome { success: Success::Unread, ..GOOD }, at(0));
        assert_eq!(pace.next(true), at(200));
    }

    #[test]
    fn only_the_timer_asks_for_a_reading_that_may_be_in_parts() {
        let mut pace = Pace::new(Intervals::default());
        assert_eq!(pace.due(at(0)), Due::Reading, "the first one");
        pace.passed(GOOD, at(0));
        assert_eq!(pace.due(at(30_000)), Due::Check);
        pace.read_soon();
        assert_eq!(pace.due(at(30_000)), Due::Reading, "somebody asks");
        pace.passed(GOOD, at(1));
        pace.checked(BAD, at(2));
        assert_eq!(pace.due(at(102)), Due::Reading, "something failed");
    }

    #[test]
    fn a_part_of_a_check_puts_nothing_off() {
        let mut pace = Pace::new(Intervals { rest: at(1_000), ..Intervals::default() });
        pace.passed(GOOD, at(0));
        pace.checked(Outcome { read_all: false, ..GOOD }, at(900));
        assert_eq!((pace.next(true), pace.next(false)), (at(1_000), at(30_000)));
        pace.checked(Outcome { draining: true, ..GOOD }, at(950));
        pace.checked(Outcome { draining: true, ..GOOD }, at(1_900));
        assert_eq!(pace.next(false), at(1_950), "what drains is looked at from the first time on");
    }

    #[test]
    fn draining_is_looked_at_until_it_is_over() {
        let mut pace = Pace::new(Intervals::default());
        pace.passed(Outcome { draining: true, ..GOOD }, at(0));
        assert_eq!(pace.next(false), at(1_000));
        assert_eq!(pace.due(at(1_000)), Due::DrainCheck);
        assert_eq!(pace.due(at(40_000)), Due::DrainCheck, "also where the timer asks for a reading");
        pace.passed(GOOD, at(1_000));
        assert_eq!(pace.due(at(10_000)), Due::Nothing);
    }
}
