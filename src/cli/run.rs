//! `ipvsd run`: the daemon, or one pass of its work, or one of the things that kube-proxy's flags ask for instead.

use super::kube_proxy::{KubeProxyFlags, Version, in_effect};
use super::log::{self, Log};
use super::options::{Name, ProxyOptions};
use super::{NO, cleanup};
use crate::config::Config;
use crate::daemon::{self, About, Ended, Invocation};
use anyhow::Context;
use clap::Args;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};
use tracing::info;

/// Flags of `ipvsd run`.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// Program the kernel once and exit; what is left draining goes with the next run. Refused beside a daemon
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    proxy: ProxyOptions,
}

impl Arguments {
    /// kube-proxy's flags as they were given.
    pub fn kube_proxy_flags(&self) -> &KubeProxyFlags {
        self.proxy.kube_proxy_flags()
    }
}

/// Runs until it is told to stop, or once. What flags ask for instead comes first, in kube-proxy's order.
pub fn run(arguments: &Arguments, name: Name, log: &Log) -> anyhow::Result<ExitCode> {
    let flags = arguments.kube_proxy_flags();
    if let Some(version) = flags.version.filter(|version| *version != Version::No) {
        return print_version(version);
    }
    let config = arguments.proxy.resolve(name)?;
    let log = log.start(&config.logging)?;
    if let Some(path) = &flags.write_config_to {
        return write_config(path, &config);
    }
    if flags.cleanup == Some(true) {
        return cleanup::run(config.options.takeover);
    }
    if flags.init_only == Some(true) {
        daemon::init_only(&config)?;
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.once {
        let all_done = daemon::run_once(&config, log)?;
        return Ok(if all_done { ExitCode::SUCCESS } else { ExitCode::from(NO) });
    }
    let proxy = arguments.proxy.clone();
    let set_verbosity = log::verbosity(&log, config.logging.clone());
    let about = About { flags: in_effect(&config.effective), log, set_verbosity };
    match daemon::run(config, Invocation { reread: Box::new(move || proxy.resolve(name)), about })? {
        Ended::Stopped => Ok(ExitCode::SUCCESS),
        Ended::ConfigurationChanged | Ended::OtherDaemonEnded | Ended::IpvsAppeared => {
            Err(daemon::restart_in_place()).context("the program cannot be started anew")
        }
    }
}

fn print_version(version: Version) -> anyhow::Result<ExitCode> {
    let more = if version == Version::Raw {
        format!(", {} {}, in the place of kube-proxy 1.36", env::consts::OS, env::consts::ARCH)
    } else {
        String::new()
    };
    writeln!(io::stdout(), "ipvsd {}{more}", env!("CARGO_PKG_VERSION"))?;
    Ok(ExitCode::SUCCESS)
}

fn write_config(path: &Path, config: &Config) -> anyhow::Result<ExitCode> {
    fs::write(path, config.effective.to_yaml()).with_context(|| format!("--write-config-to {}", path.display()))?;
    info!("wrote the configuration to {}", path.display());
    Ok(ExitCode::SUCCESS)
}
