//! Ctrl-C and SIGTERM as a question to ask between two steps, so that what was made is removed on the way out.

use anyhow::{Result, bail};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};

/// Whether somebody wants us to end.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes over the signals for the rest of the process's life.
    ///
    /// # Errors
    /// If they cannot be had.
    pub fn watch() -> Result<Self> {
        let interrupt = Self::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let guard = runtime.enter();
        let (mut terminate, mut keyboard) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        drop(guard);
        let flag = interrupt.clone();
        thread::spawn(move || {
            runtime.block_on(async {
                select! { _ = terminate.recv() => {}, _ = keyboard.recv() => {} }
            });
            flag.0.store(true, Ordering::Relaxed);
        });
        Ok(interrupt)
    }

    /// Whether to go on.
    ///
    /// # Errors
    /// If a signal has come.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }
}
