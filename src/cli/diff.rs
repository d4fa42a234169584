//! `ipvsd diff`: what the daemon that runs here would change in the kernel now, or what `run` would with the source that
//! is named. On stdout, one operation a line; what is wrong with the input, on stderr.

use super::log::Log;
use super::options::{Name, ProxyOptions};
use super::{NO, complain, explain};
use crate::config::logging::Logging;
use crate::daemon;
use crate::inspect::{Status, Wanted, differences};
use crate::model::Op;
use crate::server::AskError;
use anyhow::Context;
use clap::Args;
use serde_json::json;
use std::io::{self, ErrorKind, Write};
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
    match print(arguments.json, (&ops, &problems)) {
        // The answer stays the answer when the reader has seen enough of it: `ipvsd diff | grep -q route`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        outcome => outcome?,
    }
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

fn print(json: bool, (ops, problems): (&[Op], &[String])) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    if json {
        let operations: Vec<_> = ops.iter().map(Op::to_string).collect();
        serde_json::to_writer_pretty(&mut out, &json!({ "operations": operations, "problems": problems }))?;
        writeln!(out)?;
    } else {
        ops.iter().try_for_each(|op| writeln!(out, "{op}"))?;
    }
    out.flush()
}
