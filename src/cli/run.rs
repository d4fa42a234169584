//! `ipvsd run`: the daemon, or one pass of its work.

use super::NO;
use super::options::ProxyOptions;
use crate::daemon;
use clap::Args;
use std::process::ExitCode;

/// Flags of `ipvsd run`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    proxy: ProxyOptions,
    /// Program the kernel once and exit; what is left draining goes with the next run
    #[arg(long)]
    once: bool,
}

/// Runs until it is told to stop, or once.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let config = arguments.proxy.resolve();
    if !arguments.once {
        daemon::run(&config)?;
        return Ok(ExitCode::SUCCESS);
    }
    let all_done = daemon::run_once(&config)?;
    Ok(if all_done { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}
