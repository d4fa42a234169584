//! A running `ipvsd run`, as demo and traffic tests start and stop it.

use super::namespace::Namespace;
use super::wait::wait_for;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How long it may take to stop.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running daemon. It is killed when this value is dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    /// What it says.
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` in a node's namespace; what it says is added to the file `log`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(node: &Namespace, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(Self { child: node.spawn(command)?, log: log.to_owned() })
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// If it has ended, with its log.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the daemon has ended ({status}); it said:\n{}", self.log()),
        }
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// If it does not within ten seconds.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        match wait_for(PATIENCE, || Ok(self.child.try_wait()?))? {
            Some(status) => Ok(status),
            None => bail!("the daemon does not stop; it said:\n{}", self.log()),
        }
    }

    /// Ends it without a chance to do anything, as a crash would.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let process = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(process, signal).context("cannot signal the daemon")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Nothing to do for one that has ended.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}
