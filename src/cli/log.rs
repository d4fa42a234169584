//! The log: where its filter is said, and how it can be changed while the program runs.

use crate::config::logging::{LogFormat, Logging};
use crate::server::SetVerbosity;
use anyhow::{Context, anyhow};
use clap::Args;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use tracing::info;
use tracing_subscriber::filter::EnvFilter;

/// Where the log's filter is said.
#[derive(Debug, Args)]
pub struct Log {
    /// What to log, to stderr: a level (error, warn, info, debug, trace) or `module=level` pairs [default: what -v says]
    #[arg(long, global = true, value_name = "FILTER", env = "IPVSD_LOG")]
    log: Option<String>,
}

impl Log {
    /// Starts to log what the flag says, or else what the configuration does. Returns what changes that.
    ///
    /// # Errors
    /// If the flag is no filter.
    pub fn start(&self, configured: &Logging) -> anyhow::Result<SetVerbosity> {
        let filter = self.log.clone().unwrap_or_else(|| configured.filter());
        start(&filter, configured).with_context(|| format!("--log {filter}"))
    }
}

fn start(filter: &str, configured: &Logging) -> anyhow::Result<SetVerbosity> {
    let filter = EnvFilter::builder().parse(filter)?;
    let to_terminal = io::stderr().is_terminal();
    // A line that cannot be written (a full disk, a reader that went) is lost; to say so where it could not be said
    // would be a panic in the middle of balancing.
    let lines = tracing_subscriber::fmt().with_writer(io::stderr).with_target(false).log_internal_errors(false);
    let already = |error| anyhow!("{error}");
    Ok(match configured.format {
        LogFormat::Text => {
            let lines = lines.with_ansi(to_terminal).with_env_filter(filter).with_filter_reloading();
            let handle = lines.reload_handle();
            lines.try_init().map_err(already)?;
            setter(configured.clone(), move |filter| handle.reload(filter).is_ok())
        }
        LogFormat::Json => {
            let lines = lines.json().with_env_filter(filter).with_filter_reloading();
            let handle = lines.reload_handle();
            lines.try_init().map_err(already)?;
            setter(configured.clone(), move |filter| handle.reload(filter).is_ok())
        }
    })
}

/// Changes the verbosity; modules that have one of their own keep it.
fn setter(configured: Logging, reload: impl Fn(EnvFilter) -> bool + Send + Sync + 'static) -> SetVerbosity {
    Arc::new(move |level: i32| {
        let logging = Logging { verbosity: u32::try_from(level).unwrap_or(0), ..configured.clone() };
        // Our own filters can be parsed, and the subscriber lives as long as the process.
        if EnvFilter::builder().parse(logging.filter()).is_ok_and(&reload) {
            info!(level, "the log's verbosity was changed");
        }
    })
}
