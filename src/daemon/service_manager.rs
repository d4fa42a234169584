//! Tells the service manager how the daemon is (sd_notify(3)): ready after the first pass, alive as long as the
//! reconciler turns or waits for a program that has its time, what it does, stopping. Without a service manager nothing is
//! sent.

use crate::config::Input;
use crate::reconcile::Report;
use sd_notify::NotifyState;
use std::time::Duration;
use tracing::debug;

/// How long a start may take, in microseconds: systemd's own default, 90 s (`DefaultTimeoutStartSec`).
const START: u32 = 90_000_000;

/// The service manager, or none.
#[derive(Clone, Debug)]
pub struct ServiceManager {
    /// The longest silence it tolerates (`WATCHDOG_USEC`), if it watches at all.
    watchdog: Option<Duration>,
    /// What virtual servers follow.
    input: String,
    /// Whether it was told that the daemon is ready.
    told_ready: bool,
    /// How many problems it was told of last.
    told_problems: Option<usize>,
}

impl ServiceManager {
    /// The service manager that this process's environment names, which is told what is waited for.
    pub fn find(input: &Input) -> Self {
        tell_status(&format!("virtual servers stay as they are until {input} has been read"));
        Self {
            watchdog: sd_notify::watchdog_enabled(),
            input: input.to_string(),
            told_ready: false,
            told_problems: None,
        }
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
            // What it was before a start in place, which had put it off.
            let watchdog = self.watchdog.and_then(|longest| u32::try_from(longest.as_micros()).ok());
            watchdog.into_iter().for_each(|microseconds| tell(&[NotifyState::WatchdogUsec(microseconds)]));
            tell(&[NotifyState::Ready]);
        }
    }

    /// So many problems stand. It is told anew only when that changes.
    pub fn stands(&mut self, problems: usize) {
        if !self.told_ready || self.told_problems == Some(problems) {
            return;
        }
        self.told_problems = Some(problems);
        let but = match problems {
            0 => String::new(),
            _ => format!("; problems: {problems}, `ipvsd check` names them"),
        };
        tell_status(&format!("virtual servers follow {}{but}", self.input));
    }
}

/// What the daemon does, for people.
pub fn tell_status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// The daemon waits for somebody else's end, which may take any time: its start may take [`START`] from now on.
pub fn start_takes_longer() {
    tell(&[NotifyState::ExtendTimeoutUsec(START)]);
}

/// The daemon ends and the kernel stays as it is. Not to be told before a start in place: the manager kills whoever has not
/// ended some time after.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The program starts anew in place. Until it is ready it may be silent, as after any start: of that start the manager,
/// which still knows it as ready, sees nothing.
pub fn starts_anew() {
    if sd_notify::watchdog_enabled().is_some() {
        tell(&[NotifyState::WatchdogUsec(0), NotifyState::Status("starts anew in place")]);
    }
}

/// Whoever does not listen need not be told.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!("the service manager does not listen: {error}");
    }
}
