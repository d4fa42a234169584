//! What ends the daemon from outside, and how its threads end then: in peace, or with the programs killed that they wait
//! for.

use super::Ended;
use crate::kernel::program;
use crate::server::BindError;
use std::io;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// How long a thread may take to end what it does before programs are killed, and how long it is waited for after that.
/// Kubernetes and systemd are patient for 30 s and more.
const GRACE: Duration = Duration::from_secs(3);

/// Between two looks whether a thread has ended.
const PAUSE: Duration = Duration::from_millis(5);

/// Hears of what ends the daemon. From its making on, a signal does nothing by itself.
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
    fatal: mpsc::Receiver<BindError>,
}

impl Stop {
    /// Hears SIGTERM, SIGINT and servers that may end the process.
    ///
    /// # Errors
    /// The kernel's.
    pub fn hear(fatal: mpsc::Receiver<BindError>) -> io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, fatal })
    }

    /// Waits for the first of them. Nothing is lost if this is dropped before it returns.
    ///
    /// # Errors
    /// A server's.
    pub async fn told(&mut self) -> anyhow::Result<Ended> {
        select! {
            _ = self.terminate.recv() => Ok(Ended::Stopped),
            _ = self.interrupt.recv() => Ok(Ended::Stopped),
            Some(error) = self.fatal.recv() => Err(error.into()),
        }
    }
}

/// Waits until a thread has ended.
pub async fn ended<T>(thread: &JoinHandle<T>) {
    while !thread.is_finished() {
        sleep(PAUSE).await;
    }
}

/// Waits for the end of a thread that is to end, though not for long for one that waits for a program.
pub async fn let_end<T>(thread: &JoinHandle<T>) {
    if timeout(GRACE, ended(thread)).await.is_err() {
        program::end_all();
        // What it does now is short. If not, the caller decides.
        _ = timeout(GRACE, ended(thread)).await;
    }
}
