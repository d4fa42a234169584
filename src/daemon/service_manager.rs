//! Tells the service manager how the daemon is (sd_notify(3)): ready after the first pass, alive as long as the
//! reconciler turns, stopping. Without a service manager nothing is sent.

use crate::reconcile::Report;
use sd_notify::NotifyState;
use std::time::Duration;
use tracing::debug;

/// The service manager, or none.
#[derive(Debug)]
pub struct ServiceManager {
    /// The longest silence it tolerates (`WATCHDOG_USEC`), if it watches at all.
    watchdog: Option<Duration>,
    /// Whether it was told that the daemon is ready.
    told_ready: bool,
}

impl ServiceManager {
    /// The service manager that this process's environment names.
    pub fn find() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled(), told_ready: false }
    }

    /// How long the daemon may wait before it says again that it is alive.
    pub fn patience(&self) -> Duration {
        // sd_watchdog_enabled(3) recommends half of the time.
        self.watchdog.map_or(Duration::MAX, |longest| longest / 2)
    }

    /// The reconciler turns.
    pub fn alive(&self) {
        if self.watchdog.is_some() {
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// A pass is over. The first that could read the kernel makes the daemon ready: all that can be programmed is.
    pub fn passed(&mut self, report: &Report) {
        if report.unread.is_none() && !self.told_ready {
            self.told_ready = true;
            tell(&[NotifyState::Ready, NotifyState::Status("virtual servers follow the manifests")]);
        }
    }

    /// The daemon ends and the kernel stays as it is.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

/// Whoever does not listen need not be told.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!("the service manager does not listen: {error}");
    }
}
