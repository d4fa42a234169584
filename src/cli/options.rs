//! Flags that several subcommands share, and how they become a [`Config`].

use super::kube_proxy::{FIELDS, Given, KubeProxyFlags, boolean};
use crate::config::duration::{self, GoDuration};
use crate::config::kube_proxy::defaults::Periods;
use crate::config::kube_proxy::v1alpha1::{ConntrackConfiguration, KubeProxyConfiguration};
use crate::config::resolve::{InvalidField, Request, ResolveError, resolve};
use crate::config::{Config, kube_proxy, own};
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What to program, and how.
#[derive(Clone, Debug, Args)]
pub struct ProxyOptions {
    /// Directory of manifests instead of an API server: v1 Services and discovery.k8s.io/v1 EndpointSlices in *.yaml,
    /// *.yml and *.json
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// How long a removed endpoint may keep its TCP and SCTP connections; 0 cuts them at once [default: 15m]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    drain_timeout: Option<Duration>,
    /// Have iptables rules balance where the kernel has no IPVS, instead of ending [default: true]
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipvs_fallback: Option<bool>,
    /// After such a start, move over to IPVS when the kernel gets it [default: false, which only says so]
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    move_to_ipvs: Option<bool>,
    /// YAML file of ipvsd's own settings, as in docs/drop-in.md: drainTimeout, netfilter, serviceMetrics and others. Flags
    /// count more
    #[arg(long, value_name = "FILE")]
    ipvsd_config: Option<PathBuf>,
    #[command(flatten)]
    kube_proxy: Given,
}

/// Under which name the program was started, which is under whose defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// ipvsd's: the mode is ipvs unless somebody says otherwise.
    Ipvsd,
    /// kube-proxy's: nothing differs from its own.
    KubeProxy,
}

impl ProxyOptions {
    /// kube-proxy's flags as they were given.
    pub fn kube_proxy_flags(&self) -> &KubeProxyFlags {
        &self.kube_proxy.flags
    }

    /// Whether a source is named, or a file that may name one.
    pub fn name_source(&self) -> bool {
        let KubeProxyFlags { kubeconfig, config, master, .. } = &self.kube_proxy.flags;
        self.manifests.is_some() || kubeconfig.is_some() || config.is_some() || master.is_some()
    }

    /// The configuration that flags and files ask for.
    ///
    /// # Errors
    /// A file that cannot be read or understood, or all values that are wrong, by field or flag.
    pub fn resolve(&self, name: Name) -> anyhow::Result<Config> {
        let own = self.ipvsd_config.as_deref().map(own::load).transpose()?.unwrap_or_default();
        let mut notices = Vec::new();
        let effective = self.effective(name, &mut notices)?;
        let flags = &self.kube_proxy.flags;
        let request = Request {
            effective,
            files: flags.config.iter().chain(&self.ipvsd_config).cloned().collect(),
            manifests: self.manifests.clone(),
            master: flags.master.clone().unwrap_or_default(),
            drain_timeout: self.drain_timeout.unwrap_or_else(|| own.drain_timeout()),
            netfilter: own.netfilter,
            shared_affinity: own.shared_affinity.unwrap_or(false),
            ipvs_fallback: self.ipvs_fallback.or(own.ipvs_fallback),
            move_to_ipvs: self.move_to_ipvs.or(own.move_to_ipvs),
            service_metrics: own.service_metrics(),
            inspection_socket: own.inspection_socket().map(Path::to_owned),
            notices,
        };
        Ok(resolve(request).map_err(|error| if flags.config.is_some() { error } else { by_flag(error) })?)
    }

    fn effective(&self, name: Name, notices: &mut Vec<String>) -> anyhow::Result<KubeProxyConfiguration> {
        if self.kube_proxy.names.iter().any(|name| name == "machine-id-file" || name == "boot-id-file") {
            notices.push("--machine-id-file and --boot-id-file are not used".into());
        }
        let Some(path) = &self.kube_proxy.flags.config else {
            return Ok(self.kube_proxy.alone(self.defaults(name), notices));
        };
        let file = kube_proxy::load(path)?;
        notices.extend(file.warnings.iter().map(|warning| format!("{}: {warning}", path.display())));
        Ok(self.kube_proxy.beside(file.object, notices))
    }

    /// What is in effect without flags. Who balances manifests has no cluster: no ports are opened there, nothing is
    /// set that balancing does not need, and changes are programmed at once.
    fn defaults(&self, name: Name) -> KubeProxyConfiguration {
        let mut config = KubeProxyConfiguration::with_defaults();
        let mut periods = config.periods();
        if self.manifests.is_some() {
            let leave = Some(GoDuration::ZERO);
            config.healthz_bind_address.clear();
            config.metrics_bind_address.clear();
            config.oom_score_adj = None;
            config.conntrack = ConntrackConfiguration {
                max_per_core: Some(0),
                min: Some(0),
                tcp_established_timeout: leave,
                tcp_close_wait_timeout: leave,
                ..config.conntrack
            };
            periods = Periods { min_sync: GoDuration::ZERO, ..periods };
        }
        if name == Name::Ipvsd {
            config.mode = "ipvs".into();
        }
        config.set_only_periods(periods);
        config
    }
}

/// Names each field by the flag that sets it.
fn by_flag(error: ResolveError) -> ResolveError {
    // What is behind the field is a part of it: an index, or the name of a feature gate.
    let flag_of = |field: String| {
        let found = FIELDS.iter().find_map(|(flag, known)| Some((flag, field.strip_prefix(known)?)));
        found.map_or_else(|| field.clone(), |(flag, part)| format!("--{flag}{}", part.replacen('.', " ", 1)))
    };
    match error {
        ResolveError::Invalid(invalid) => ResolveError::Invalid(
            invalid.into_iter().map(|wrong| InvalidField { field: flag_of(wrong.field), ..wrong }).collect(),
        ),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Input;
    use crate::desired::Settings;
    use crate::kernel::node_setup::NodeSetup;
    use crate::model::{SchedulerFlags, SchedulerName};
    use crate::reconcile::pace::Intervals;
    use clap::Parser;
    use std::fs;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        proxy: ProxyOptions,
    }

    fn resolved(flags: &str) -> anyhow::Result<Config> {
        let words = ["ipvsd"].into_iter().chain(flags.split_whitespace());
        Line::try_parse_from(words)?.proxy.resolve(Name::Ipvsd)
    }

    #[test]
    fn without_flags_it_is_round_robin_every_half_minute_and_a_drain_of_fifteen() {
        for flags in ["", " --ipvs-scheduler="] {
            let config = resolved(&format!("--manifests dir{flags}")).unwrap();
            assert_eq!((config.input, config.settings), (Input::Manifests("dir".into()), Settings::default()));
            assert_eq!(config.options.intervals, Intervals::default());
            assert_eq!(config.options.drain_timeout, Duration::from_secs(900));
            assert_eq!((config.notices, config.effective.mode.as_str()), (Vec::<String>::new(), "ipvs"));
        }
    }

    #[test]
    fn flags_become_settings() {
        let flags = "--manifests dir --ipvs-scheduler mh --ipvs-sync-period 1m30s --ipvs-min-sync-period 250ms --drain-timeout 0";
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
            ("--drain-timeout -1s", "unexpected argument"),
            ("--drain-timeout=-1s", "\"-1s\" is not a duration"),
        ] {
            let error = resolved(&format!("--manifests dir {flags}")).unwrap_err().to_string();
            let flag = if message.starts_with("unexpected") { "'-1'" } else { flags.split([' ', '=']).next().unwrap() };
            assert!(error.contains(flag) && error.contains(message), "{error}");
        }
    }

    #[test]
    fn manifests_alone_open_no_ports_and_leave_the_node_alone() {
        let config = resolved("--manifests dir").unwrap();
        assert_eq!((config.servers.healthz, config.servers.metrics), (None, None));
        assert_eq!(config.node, NodeSetup::default());
        let asked =
            resolved("--manifests dir --metrics-bind-address 127.0.0.1 --conntrack-max-per-core 5 --oom-score-adj=-1");
        let asked = asked.unwrap();
        assert_eq!(asked.servers.metrics, Some("127.0.0.1:10249".parse().unwrap()));
        assert_eq!((asked.node.conntrack.max_per_core, asked.node.oom_score_adj), (Some(5), Some(-1)));
    }

    #[test]
    fn without_manifests_it_is_a_cluster_with_kube_proxys_defaults() {
        let config = resolved("--kubeconfig /k").unwrap();
        assert!(matches!(&config.input, Input::Cluster(cluster) if cluster.kubeconfig == Some("/k".into())));
        assert_eq!(config.servers.healthz, Some("0.0.0.0:10256".parse().unwrap()));
        assert_eq!((config.options.intervals.rest.as_secs(), config.effective.mode.as_str()), (1, "ipvs"));
        assert!(
            resolved("--kubeconfig /k --proxy-mode nftables").unwrap_err().to_string().contains("write `mode: ipvs`")
        );
    }

    #[test]
    fn a_file_and_manifests_go_together() {
        let directory = tempfile::tempdir().unwrap();
        let (file, own) = (directory.path().join("config"), directory.path().join("own"));
        let header = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
        fs::write(&file, format!("{header}mode: ipvs\nipvs: {{scheduler: wlc}}")).unwrap();
        fs::write(&own, "drainTimeout: 1m").unwrap();
        let flags = format!("--manifests dir --config {} --ipvsd-config {}", file.display(), own.display());
        let config = resolved(&flags).unwrap();
        assert_eq!(
            (&config.input, config.options.drain_timeout),
            (&Input::Manifests("dir".into()), Duration::from_secs(60))
        );
        assert_eq!(config.settings.scheduling.scheduler.as_str(), "wlc");
        assert_eq!(
            resolved(&format!("{flags} --drain-timeout 5s")).unwrap().options.drain_timeout,
            Duration::from_secs(5)
        );
        fs::write(&own, "colour: blue").unwrap();
        assert!(resolved(&flags).unwrap_err().to_string().contains("colour"));
    }

    #[test]
    fn what_is_given_for_nothing_is_said() {
        let notices = resolved("--manifests dir --machine-id-file /m --iptables-sync-period 1m").unwrap().notices;
        assert_eq!(
            notices,
            [
                "--machine-id-file and --boot-id-file are not used",
                "--iptables-sync-period has no effect in this mode, as in kube-proxy"
            ]
        );
    }
}
