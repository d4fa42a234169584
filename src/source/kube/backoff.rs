//! How long to wait before the next try.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The longest that an API server may ask us to wait; more would be a mistake of somebody in between.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Waits that double with every failure.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    /// Since the last success.
    failures: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    pub(super) fn succeed(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure, never less than the server asked for. `chance`, 0 to 1000, spreads the nodes
    /// of a cluster over half of the time.
    pub(super) fn fail(&mut self, retry_after: Option<Duration>, chance: u32) -> Duration {
        let doubled = self.first.saturating_mul(2_u32.saturating_pow(self.failures)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        let asked = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
        asked + doubled / 2 + doubled * chance / 2000
    }
}

/// 0 to 1000 by chance.
pub(super) fn chance() -> u32 {
    u32::try_from(RandomState::new().hash_one(()) % 1001).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn backoff() -> Backoff {
        Backoff::new(SECOND, 30 * SECOND)
    }

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let mut backoff = backoff();
        let waits: Vec<_> = (0..7).map(|_| backoff.fail(None, 1000).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        backoff.succeed();
        assert_eq!(backoff.fail(None, 1000), SECOND);
    }

    #[test]
    fn chance_takes_up_to_half_of_a_wait() {
        for (chance, wait) in [(0, 500), (500, 750), (1000, 1000)] {
            assert_eq!(backoff().fail(None, chance).as_millis(), wait);
        }
        assert!((0..100).all(|_| chance_is_in_bounds()));
    }

    fn chance_is_in_bounds() -> bool {
        chance() <= 1000
    }

    #[test]
    fn a_server_that_asks_for_time_gets_it_within_reason() {
        for (asked, wait) in [(7, 8), (3600, 61)] {
            assert_eq!(backoff().fail(Some(asked * SECOND), 1000).as_secs(), wait);
        }
    }

    #[test]
    fn no_number_of_failures_overflows() {
        let mut backoff = backoff();
        backoff.failures = u32::MAX;
        assert_eq!(backoff.fail(None, 1000), 30 * SECOND);
    }
}
