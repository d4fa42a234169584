//! Where the servers, and whoever tells them something, get the time from.

use crate::health::Time;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// Tells the time. All that tell and ask about one [`crate::health::Health`] need clones of one clock.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

/// The machine's clocks, with now as the beginning of the one that never goes back.
pub fn system_clock() -> Clock {
    let epoch = Instant::now();
    Arc::new(move || Time {
        monotonic: epoch.elapsed(),
        // A clock that was never set may stand before 1970.
        since_unix_epoch: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_begins_now_and_goes_on() {
        let clock = system_clock();
        let (first, second) = (clock(), clock());
        assert!(first.monotonic <= second.monotonic);
        assert!(first.monotonic.as_secs() < 60 && first.since_unix_epoch.as_secs() > 1_700_000_000);
    }
}
