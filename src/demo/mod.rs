//! `ipvsd demo`: shows the whole thing at work in network namespaces of its own.
//!
//! A client, a node that runs this very program as a daemon, and three backends ([`network`], [`backend`],
//! [`client`]); the daemon gets [`manifests`]. Whatever the demo makes goes when its values are dropped, on every way
//! out. The kernel tests of traffic use the same parts.

pub mod backend;
pub mod client;
pub mod daemon;
mod interrupt;
pub mod manifests;
pub mod namespace;
pub mod network;
mod show;
mod socket;
pub mod wait;

use crate::kernel::modules;
use anyhow::{Result, bail};
use std::process::ExitCode;

/// Runs the demo. The exit code is 1 if the backends did not answer as they should.
///
/// # Errors
/// If it cannot run: not root, no IPVS in the kernel, the daemon does not start, or a signal.
pub fn run() -> Result<ExitCode> {
    check_rights_and_kernel()?;
    let as_expected = show::show()?;
    Ok(if as_expected { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check_rights_and_kernel() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the demo makes network namespaces, for which it must be root");
    }
    if !modules::has_ipvs() {
        bail!(
            "this kernel has no IPVS. `./dev demo` runs the demo in a kernel that has it; nothing is installed in yours"
        );
    }
    Ok(())
}
