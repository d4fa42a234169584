//! Flags that several subcommands share, and how they become a [`Config`].

use crate::config::{Config, duration};
use crate::desired::Settings;
use crate::model::SchedulerName;
use crate::reconcile::pace::Intervals;
use crate::reconcile::{Options, Takeover};
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
            options: Options { intervals, drain_timeout: self.drain_timeout, takeover: Takeover::AllBut(Vec::new()) },
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SchedulerFlags;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        proxy: ProxyOptions,
    }

    fn resolved(flags: &str) -> Result<Config, clap::Error> {
        let words = ["ipvsd", "--manifests", "dir"].into_iter().chain(flags.split_whitespace());
        Line::try_parse_from(words).map(|line| line.proxy.resolve())
    }

    #[test]
    fn without_flags_it_is_round_robin_every_half_minute_and_a_drain_of_fifteen() {
        for flags in ["", "--ipvs-scheduler="] {
            let Config { manifests, settings, options } = resolved(flags).unwrap();
            assert_eq!((manifests, settings), (PathBuf::from("dir"), Settings::default()));
            assert_eq!(options.intervals, Intervals::default());
            assert_eq!(options.drain_timeout, Duration::from_secs(900));
        }
    }

    #[test]
    fn flags_become_settings() {
        let flags = "--ipvs-scheduler mh --ipvs-sync-period 1m30s --ipvs-min-sync-period 250ms --drain-timeout 0";
        let Config { settings, options, .. } = resolved(flags).unwrap();
        assert_eq!(settings.scheduling.scheduler, SchedulerName::MH);
        assert_eq!(settings.scheduling.flags, SchedulerFlags::PORT, "mh hashes the port too unless told not to");
        assert_eq!((options.intervals.resync, options.intervals.rest.as_millis()), (Duration::from_secs(90), 250));
        assert_eq!(options.drain_timeout, Duration::ZERO);
    }

    #[test]
    fn a_bad_value_is_named_with_its_flag() {
        for (flags, message) in [
            ("--ipvs-sync-period 0", "must be longer than 0"),
            ("--ipvs-sync-period 5", "\"5\" is not a duration: write 30s, 1m30s, 250ms or 0"),
            ("--ipvs-scheduler RR", "\"RR\" is not a scheduler name: 1 to 15 characters of a-z, 0-9, _ and - are"),
        ] {
            let error = resolved(flags).unwrap_err().to_string();
            assert!(error.contains(flags.split(' ').next().unwrap()) && error.contains(message), "{error}");
        }
    }
}
