//! What goes on beside the work of a test, and ends with it even if that panics: a thread that nobody stops would keep a
//! failed test from ending.

use ipvsd::demo::namespace::Namespace;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Tells a thread to end as soon as this is dropped.
pub struct Signal(Arc<AtomicBool>);

/// The thread's side of a [`Signal`].
pub struct Listener(Arc<AtomicBool>);

impl Signal {
    /// Both sides of one.
    pub fn new() -> (Self, Listener) {
        let is_over = Arc::new(AtomicBool::new(false));
        (Self(Arc::clone(&is_over)), Listener(is_over))
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Listener {
    /// Whether it is time to end.
    pub fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Does `round` again and again in `namespace`, at least three times, for as long as `work` takes. Returns how often.
///
/// # Panics
/// As one of the two does, after both have ended.
pub fn repeat_while(namespace: &Namespace, mut round: impl FnMut() + Send, work: impl FnOnce()) -> usize {
    let (signal, listener) = Signal::new();
    let repeat = move || {
        let mut rounds = 0;
        while rounds < 3 || !listener.is_over() {
            round();
            rounds += 1;
        }
        Ok(rounds)
    };
    thread::scope(|scope| {
        let repeating = scope.spawn(|| namespace.run(repeat).unwrap());
        // Here, so that a panic on the way drops it before the scope waits for the thread.
        let signal = signal;
        work();
        drop(signal);
        repeating.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}
