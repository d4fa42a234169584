//! `ipvsd diff`: what the daemon that runs here would change in the kernel now, or what `run` would with the source that
//! is named. On stdout, one operation a line; what is wrong with the input, on stderr.

use super::log::Log;
use super::options::{Name, ProxyOptions};
use super::{NO, complain, explain, print};
use crate::config::logging::Logging;
use crate::daemon;
use crate::inspect::{Status, Wanted, differences};
use crate::model::Op;
use crate::server::AskError;
use anyhow::Context;
use clap::Args;
use serde_json::json;
use std::process::ExitCode;

/// Flags of `ipvsd diff`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Print JSON: `operations` and `problems`, each a list of texts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    proxy: ProxyOptions,
}

/// What would be changed, and what is wrong with the input.
type Found = (Vec<Op>, Vec<String>);

/// Prints the differences; exits with 1 if there are any.
pub fn run(arguments: &Arguments, log: &Log) -> anyhow::Result<ExitCode> {
    let (ops, problems) = if arguments.proxy.name_source() {
        by_source(arguments, log)?
    } else {
        match of_daemon(log) {
            Err(Some(error)) => return Err(error),
            Err(None) => by_source(arguments, log).context(AskError::NoDaemon)?,
            Ok(found) => found,
        }
    };
    if !arguments.json {
        problems.iter().for_each(complain);
    }
    print(&if arguments.json { json(&ops, &problems)? } else { text(&ops) })?;
    Ok(if ops.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}

fn by_source(arguments: &Arguments, log: &Log) -> anyhow::Result<Found> {
    let config = arguments.proxy.resolve(Name::Ipvsd)?;
    log.start(&config.logging)?;
    let (ops, problems) = daemon::preview(&config)?;
    Ok((ops, problems.iter().map(ToString::to_string).collect()))
}

/// What the daemon of this network namespace wants, compared with the kernel as it is now. Without a daemon there is no
/// error, and nothing.
fn of_daemon(log: &Log) -> Result<Found, Option<anyhow::Error>> {
    let wanted: Wanted = explain::ask_daemon("/v1/wanted").map_err(|error| match error {
        AskError::NoDaemon => None,
        error => Some(error.into()),
    })?;
    let found = || {
        log.start(&Logging::default())?;
        let status: Status = explain::ask_daemon("/v1/status")?;
        anyhow::ensure!(status.informed, "ipvsd does not know yet what it should do: its input is not read");
        let kernel = daemon::look_for(&status.mode, &wanted.ours)?;
        Ok((differences(&wanted, &kernel), status.problems))
    };
    found().map_err(Some)
}

fn json(ops: &[Op], problems: &[String]) -> serde_json::Result<String> {
    let operations: Vec<_> = ops.iter().map(Op::to_string).collect();
    Ok(serde_json::to_string_pretty(&json!({ "operations": operations, "problems": problems }))? + "\n")
}

fn text(ops: &[Op]) -> String {
    ops.iter().map(|op| format!("{op}\n")).collect()
}
