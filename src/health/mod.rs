//! Whether the proxy keeps up: what waits to be programmed, for how long, and what load balancers are told.
//!
//! Pure: time is an argument. [`Health`] is the state, [`SharedHealth`] the handle that the reconciler's thread writes
//! and the HTTP tasks read, [`Report`] what is answered on `/healthz` and `/livez`.

mod report;
pub mod timestamp;

use crate::model::Family;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use report::{Answer, FamilyReport, Report};

/// One point in time, on two clocks: one for ages, which nobody sets, and one for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Since some fixed point; never goes back.
    pub monotonic: Duration,
    /// Since 1970-01-01T00:00:00Z; may be set at any moment.
    pub since_unix_epoch: Duration,
}

/// How well each family's changes reach the kernel, and whether the node may get traffic at all.
#[derive(Debug)]
pub struct Health {
    /// The families this node serves; never changes.
    families: BTreeMap<Family, Programming>,
    /// How long a change may wait until its family counts as unhealthy; kube-proxy takes twice the sync period.
    patience: Duration,
    /// What the Node object says, or what was given at the start until one comes.
    node_eligible: bool,
}

/// One family's state.
#[derive(Debug)]
struct Programming {
    /// When all there was had last been programmed, or the start.
    last_updated: Time,
    /// On the monotonic clock: since when something waits, if anything does.
    pending: Option<Duration>,
}

impl Health {
    /// Healthy, with nothing waiting. `node_eligible` holds until the first Node object: false where one must come
    /// (kube-proxy), true where none will (manifests).
    pub fn new(
        families: impl IntoIterator<Item = Family>,
        patience: Duration,
        node_eligible: bool,
        started: Time,
    ) -> Self {
        let fresh = |family| (family, Programming { last_updated: started, pending: None });
        Self { families: families.into_iter().map(fresh).collect(), patience, node_eligible }
    }

    /// A change of a family waits to be programmed, or something failed and will be tried again. The oldest counts.
    pub fn queued(&mut self, family: Family, now: Time) {
        if let Some(programming) = self.families.get_mut(&family) {
            programming.pending.get_or_insert(now.monotonic);
        }
    }

    /// Everything of a family is in the kernel.
    pub fn updated(&mut self, family: Family, now: Time) {
        if let Some(programming) = self.families.get_mut(&family) {
            *programming = Programming { last_updated: now, pending: None };
        }
    }

    /// The Node object came, changed or went: eligible is one that exists, is not being deleted and has no taint
    /// `ToBeDeletedByClusterAutoscaler`.
    pub fn node(&mut self, eligible: bool) {
        self.node_eligible = eligible;
    }

    /// How long the oldest change has been waiting; zero if none does.
    pub fn queue_age(&self, now: Time) -> Duration {
        self.families.values().map(|programming| programming.waiting(now)).max().unwrap_or_default()
    }

    /// All that can be answered now.
    pub fn report(&self, now: Time) -> Report {
        let family = |programming: &Programming| FamilyReport {
            last_updated: programming.last_updated,
            is_healthy: programming.pending.is_none() || programming.waiting(now) < self.patience,
        };
        Report {
            now,
            node_eligible: self.node_eligible,
            families: self.families.iter().map(|(name, programming)| (*name, family(programming))).collect(),
        }
    }
}

impl Programming {
    fn waiting(&self, now: Time) -> Duration {
        self.pending.map_or(Duration::ZERO, |since| now.monotonic.saturating_sub(since))
    }
}

/// A handle on one [`Health`], for any number of threads.
#[derive(Clone, Debug)]
pub struct SharedHealth(Arc<Mutex<Health>>);

impl SharedHealth {
    /// Shares `health`.
    pub fn new(health: Health) -> Self {
        Self(Arc::new(Mutex::new(health)))
    }

    /// [`Health::queued`].
    pub fn queued(&self, family: Family, now: Time) {
        self.state().queued(family, now);
    }

    /// [`Health::updated`].
    pub fn updated(&self, family: Family, now: Time) {
        self.state().updated(family, now);
    }

    /// A pass is over: a family of which something failed waits on (or from now on), the others are up to date. Failing
    /// re-checks count too, which kube-proxy does not notice.
    pub fn passed(&self, failed: impl Fn(Family) -> bool, now: Time) {
        let mut state = self.state();
        let families: Vec<_> = state.families.keys().copied().collect();
        for family in families {
            if failed(family) {
                state.queued(family, now);
            } else {
                state.updated(family, now);
            }
        }
    }

    /// [`Health::node`].
    pub fn node(&self, eligible: bool) {
        self.state().node(eligible);
    }

    /// [`Health::queue_age`].
    pub fn queue_age(&self, now: Time) -> Duration {
        self.state().queue_age(now)
    }

    /// [`Health::report`].
    pub fn report(&self, now: Time) -> Report {
        self.state().report(now)
    }

    /// No write leaves half a state behind, so one that panicked did no harm.
    fn state(&self) -> MutexGuard<'_, Health> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Family::{Ipv4, Ipv6};

    const PATIENCE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Time {
        Time { monotonic: Duration::from_secs(seconds), since_unix_epoch: Duration::from_secs(1_000_000 + seconds) }
    }

    fn health() -> SharedHealth {
        SharedHealth::new(Health::new([Ipv4, Ipv6], PATIENCE, true, at(0)))
    }

    fn healthy(health: &SharedHealth, seconds: u64) -> [bool; 2] {
        let report = health.report(at(seconds));
        [Ipv4, Ipv6].map(|family| report.families[&family].is_healthy)
    }

    #[test]
    fn it_is_healthy_while_it_starts_and_while_nothing_happens() {
        assert_eq!(healthy(&health(), 0), [true, true]);
        assert_eq!(healthy(&health(), 1_000_000), [true, true]);
    }

    #[test]
    fn a_change_may_wait_for_less_than_the_patience() {
        let health = health();
        health.queued(Ipv4, at(10));
        assert_eq!(healthy(&health, 69), [true, true]);
        assert_eq!(healthy(&health, 70), [false, true]);
        health.updated(Ipv4, at(71));
        assert_eq!(healthy(&health, 200), [true, true]);
    }

    #[test]
    fn later_changes_do_not_make_the_oldest_younger() {
        let health = health();
        health.queued(Ipv6, at(10));
        health.queued(Ipv6, at(60));
        health.updated(Ipv4, at(65));
        assert_eq!(healthy(&health, 70), [true, false]);
        assert_eq!(health.queue_age(at(75)), Duration::from_secs(65));
    }

    #[test]
    fn failing_passes_count_from_the_first_that_failed() {
        let health = health();
        for second in [30, 60, 89] {
            health.passed(|family| family == Ipv4, at(second));
            assert_eq!(healthy(&health, second), [true, true]);
        }
        health.passed(|family| family == Ipv4, at(90));
        assert_eq!(healthy(&health, 90), [false, true]);
        health.passed(|_| false, at(91));
        assert_eq!(healthy(&health, 91), [true, true]);
        assert_eq!(health.queue_age(at(91)), Duration::ZERO);
    }

    #[test]
    fn a_family_that_is_not_served_is_not_spoken_of() {
        let health = SharedHealth::new(Health::new([Ipv4], PATIENCE, true, at(0)));
        health.queued(Ipv6, at(0));
        health.updated(Ipv6, at(0));
        assert_eq!(health.report(at(1_000)).families.keys().copied().collect::<Vec<_>>(), [Ipv4]);
        assert!(health.report(at(1_000)).is_healthy());
    }

    #[test]
    fn a_clock_that_is_set_ages_nothing() {
        let health = health();
        health.queued(Ipv4, at(10));
        let set = Time { since_unix_epoch: Duration::from_secs(9_999_999), ..at(20) };
        assert!(health.report(set).is_healthy());
    }

    #[test]
    fn a_thread_that_panicked_does_not_silence_the_others() {
        let health = health();
        let other = health.clone();
        let panicked = std::thread::spawn(move || other.passed(|_| panic!("as a test wants it"), at(1))).join();
        assert!(panicked.is_err());
        assert!(health.report(at(2)).is_healthy());
    }
}
