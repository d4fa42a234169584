//! `ipvsd explain`: how a Service was decided and what the kernel holds for it, or what becomes of a packet.

mod explained;
mod flow;
mod service;
mod target;
mod text;

use super::{NO, complain, print};
use crate::server::{self, AskError, INSPECTION_NAME};
use anyhow::bail;
use clap::Args;
use serde::de::DeserializeOwned;
use std::process::ExitCode;
use target::Target;
use tokio::runtime::{Builder, Runtime};

/// Flags of `ipvsd explain`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A Service, as NAMESPACE/SERVICE or NAMESPACE/SERVICE:PORT (a number or a name), or where it is reached, as
    /// ADDRESS:PORT/PROTOCOL
    #[arg(required_unless_present = "flow")]
    target: Option<Target>,
    /// What becomes of a packet: SOURCE,ADDRESS:PORT/PROTOCOL, as two words or with `->` in the place of the comma. The
    /// source is an address, or `node` for the node itself
    #[arg(long, num_args = 1..=2, value_name = "FLOW", conflicts_with = "target")]
    flow: Vec<String>,
    /// The device by which the packet comes [default: by which packets to its source leave]
    #[arg(long, requires = "flow")]
    device: Option<String>,
    /// Print JSON; docs/inspection.md has the fields
    #[arg(long)]
    json: bool,
}

/// Explains; exits with 1 if something differs from what should be, or nobody gets the packet.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (is_well, text) = match &arguments.target {
        Some(target) => service::explain(target, arguments.json)?,
        None => {
            let flow = arguments.flow.join(" ").parse()?;
            flow::explain(&flow, arguments.device.clone(), arguments.json)?
        }
    };
    print(&text)?;
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}

/// Asks the daemon of this network namespace; none where there is no daemon or no such Service. Other trouble is told,
/// and what the kernel says stands for itself.
fn ask<T: DeserializeOwned>(path: &str) -> anyhow::Result<Option<T>> {
    match ask_daemon(path) {
        Ok(answer) => Ok(Some(answer)),
        Err(AskError::NoDaemon | AskError::Unknown(_)) => Ok(None),
        Err(error @ (AskError::Stranger(_) | AskError::Late | AskError::Refused(..))) => {
            complain(format_args!("{error}; what follows is from the kernel alone"));
            Ok(None)
        }
        Err(error) => bail!(error),
    }
}

/// Asks on a runtime that lives for that.
pub(super) fn ask_daemon<T: DeserializeOwned>(path: &str) -> Result<T, AskError> {
    runtime()?.block_on(server::ask(INSPECTION_NAME, path))
}

/// Gives the daemon a text for what is at a path, and returns what is there then.
pub(super) fn give_daemon<T: DeserializeOwned>(path: &str, text: &str) -> Result<T, AskError> {
    runtime()?.block_on(server::put(INSPECTION_NAME, path, text))
}

fn runtime() -> Result<Runtime, AskError> {
    Builder::new_current_thread().enable_all().build().map_err(AskError::Io)
}
