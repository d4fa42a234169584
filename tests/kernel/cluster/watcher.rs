//! Looks at the kernel all the time, and remembers what was missing that should stand.

use super::table::{Way, ways_now};
use crate::meanwhile::{Listener, Signal};
use ipvsd::kernel::linux::Linux;
use std::collections::BTreeSet;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Between two looks. One takes about a millisecond, and the lab has one processor for everybody.
const PAUSE: Duration = Duration::from_millis(3);

/// What came of watching: how often it looked, and what it missed first.
type Outcome = (usize, Option<BTreeSet<Way>>);

/// Watches this thread's network namespace.
pub struct Watcher {
    signal: Signal,
    thread: JoinHandle<Outcome>,
}

impl Watcher {
    /// Begins; from now on all of `standing` must be there at every look.
    pub fn start(standing: BTreeSet<Way>) -> Self {
        assert!(!standing.is_empty(), "there is nothing to watch");
        let (signal, listener) = Signal::new();
        let thread = thread::spawn(move || watch(&standing, &listener));
        Self { signal, thread }
    }

    /// Ends, and panics if anything was missing at any time.
    pub fn finish(self) {
        drop(self.signal);
        let (looks, missing) = self.thread.join().unwrap();
        assert_eq!(missing, None, "withdrawn at look {looks}");
        println!("    looked {looks} times meanwhile");
    }
}

fn watch(standing: &BTreeSet<Way>, listener: &Listener) -> Outcome {
    let mut kernel = Linux::open().unwrap();
    let mut looks = 0;
    // One look after the end too, so that there is at least one.
    loop {
        let is_last = listener.is_over();
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
