//! Flags that several subcommands share, and how they become a [`Config`].

use crate::config::{Config, duration};
use crate::desired::Settings;
use crate::model::SchedulerName;
use crate::reconcile::Options;
use crate::reconcile::pace::Intervals;
use crate::state::Scheduling;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// What to program, and how.
#[derive(Debug, Args)]
pub struct ProxyOptions {
    /// Directory of manifests: v1 Services and discovery.k8s.io/v1 EndpointSlices in *.yaml, *.yml and *.json
    #[arg(long, value_name = "DIR")]
    manifests: PathBuf,
    /// Scheduler for Services that do not choose one: rr wrr lc wlc lblc lblcr sh mh dh sed nq fo ovf, ... [default: rr]
    #[arg(long, value_name = "NAME", value_parser = scheduler, default_value = "", hide_default_value = true)]
    ipvs_scheduler: SchedulerName,
    /// How long a removed endpoint may keep its TCP and SCTP connections; 0 cuts them at once
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "15m")]
    drain_timeout: Duration,
    /// How often everything in the kernel is read and checked
    #[arg(long, value_name = "DURATION", value_parser = positive_duration, default_value = "30s")]
    ipvs_sync_period: Duration,
    /// The shortest time between two passes that change the kernel
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "0")]
    ipvs_min_sync_period: Duration,
}

impl ProxyOptions {
    /// The configuration that these flags ask for.
    pub fn resolve(self) -> Config {
        let intervals =
            Intervals { resync: self.ipvs_sync_period, rest: self.ipvs_min_sync_period, ..Intervals::default() };
        Config {
            manifests: self.manifests,
            settings: Settings { scheduling: Scheduling::with_usual_flags(self.ipvs_scheduler), ..Settings::default() },
            options: Options { intervals, drain_timeout: self.drain_timeout },
        }
    }
}

/// As in kube-proxy, the empty name is round robin.
fn scheduler(text: &str) -> Result<SchedulerName, crate::model::InvalidScheduler> {
    if text.is_empty() { Ok(SchedulerName::RR) } else { text.parse() }
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Ok(Duration::ZERO) => Err("must be longer than 0".into()),
        other => other.map_err(|error| error.to_string()),
    }
}
