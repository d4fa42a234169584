//! Looks at the kernel all the time, and remembers what was missing that should stand.

use super::table::{Way, ways_now};
use ipvsd::kernel::linux::Linux;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Between two looks. One takes about a millisecond, and the lab has one processor for everybody.
const PAUSE: Duration = Duration::from_millis(3);

/// What came of watching: how often it looked, and what it missed first.
type Outcome = (usize, Option<BTreeSet<Way>>);

/// Watches this thread's network namespace.
pub struct Watcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Outcome>,
}

impl Watcher {
    /// Begins; from now on all of `standing` must be there at every look.
    pub fn start(standing: BTreeSet<Way>) -> Self {
        assert!(!standing.is_empty(), "there is nothing to watch");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || watch(&standing, &stopped));
        Self { stop, thread }
    }

    /// Ends, and panics if anything was missing at any time.
    pub fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (looks, missing) = self.thread.join().unwrap();
        assert_eq!(missing, None, "withdrawn at look {looks}");
        println!("    looked {looks} times meanwhile");
    }
}

fn watch(standing: &BTreeSet<Way>, stopped: &AtomicBool) -> Outcome {
    let mut kernel = Linux::open().unwrap();
    let mut looks = 0;
    // One look after the end too, so that there is at least one.
    loop {
        let is_last = stopped.load(Ordering::Relaxed);
        let there = ways_now(&mut kernel);
        looks += 1;
        if !standing.is_subset(&there) {
            return (looks, Some(standing.difference(&there).cloned().collect()));
        }
        if is_last {
            return (looks, None);
        }
        thread::sleep(PAUSE);
    }
}
