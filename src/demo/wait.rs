//! Waits for what comes by itself: the effect of a changed manifest, the end of a process.

use anyhow::Result;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until there is something to return; nothing if there is none within `patience`.
///
/// # Errors
/// The first of `look`, which ends the wait.
pub fn wait_for<T>(patience: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
    let deadline = Instant::now() + patience;
    loop {
        let found = look()?;
        if found.is_some() || Instant::now() > deadline {
            return Ok(found);
        }
        sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_what_it_waits_for_with_an_error_or_with_nothing() {
        let mut looks = 0..;
        assert_eq!(
            wait_for(Duration::MAX / 4, || Ok(looks.find(|_| true).filter(|look| *look == 3))).unwrap(),
            Some(3)
        );
        assert!(wait_for(Duration::MAX / 4, || anyhow::bail!("it ended") as Result<Option<()>>).is_err());
        assert_eq!(wait_for(Duration::ZERO, || Ok(None::<()>)).unwrap(), None);
    }
}
