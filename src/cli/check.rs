//! `ipvsd check`: whether this node is fit for balancing, one line for each thing that was looked at.

use super::log::Log;
use super::options::{Name, ProxyOptions};
use super::{NO, print};
use crate::daemon;
use crate::inspect::check::{Finding, Level, findings};
use crate::state::OneLine;
use clap::Args;
use std::process::ExitCode;

/// Flags of `ipvsd check`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Print JSON: a list of `subject`, `level`, `message` and `advice`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    proxy: ProxyOptions,
}

/// Prints the findings; exits with 1 if one is bad.
pub fn run(arguments: &Arguments, log: &Log) -> anyhow::Result<ExitCode> {
    let config = arguments.proxy.resolve(Name::Ipvsd)?;
    log.start(&config.logging)?;
    let found = findings(&daemon::survey(&config, arguments.proxy.name_source())?);
    print(&if arguments.json { serde_json::to_string_pretty(&found)? + "\n" } else { text(&found) })?;
    let is_bad = found.iter().any(|finding| finding.level == Level::Bad);
    Ok(if is_bad { ExitCode::from(NO) } else { ExitCode::SUCCESS })
}

fn text(found: &[Finding]) -> String {
    let line = |Finding { subject, level, message, advice }: &Finding| {
        let advice = advice.as_ref().map(|advice| format!("; {advice}")).unwrap_or_default();
        format!("{level:<8} {subject:<12} {}{advice}\n", OneLine(message))
    };
    found.iter().map(line).collect()
}
