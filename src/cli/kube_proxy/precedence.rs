//! What kube-proxy's flags mean: alone, and beside a file, where nearly all of them have no effect.
//!
//! kube-proxy forgets what flags said once it reads a file, and says nothing about it. That is kept, since command
//! lines with leftovers depend on it, but each such flag is named in a notice.

use super::KubeProxyFlags;
use crate::config::address::with_port;
use crate::config::kube_proxy::defaults::{HEALTHZ_PORT, METRICS_PORT, Periods};
use crate::config::kube_proxy::v1alpha1::KubeProxyConfiguration;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches, Id};
use serde_json::Value;
use std::collections::BTreeMap;

/// Flags that have an effect beside a file.
const BESIDE_A_FILE: [&str; 15] = [
    "config",
    "write-config-to",
    "cleanup",
    "init-only",
    "version",
    "master",
    "hostname-override",
    "v",
    "vmodule",
    "logging-format",
    "log-flush-frequency",
    "log-text-split-stream",
    "log-text-info-buffer-size",
    "log-json-split-stream",
    "log-json-info-buffer-size",
];

/// Flags that set part of a field which another flag sets whole.
const DEPRECATED: [&str; 2] = ["healthz-port", "metrics-port"];

/// Flags and the fields of the file that say the same.
pub const FIELDS: [(&str, &str); 50] = [
    ("kubeconfig", "clientConnection.kubeconfig"),
    ("kube-api-content-type", "clientConnection.contentType"),
    ("kube-api-burst", "clientConnection.burst"),
    ("kube-api-qps", "clientConnection.qps"),
    ("config-sync-period", "configSyncPeriod"),
    ("feature-gates", "featureGates"),
    ("hostname-override", "hostnameOverride"),
    ("bind-address", "bindAddress"),
    ("healthz-bind-address", "healthzBindAddress"),
    ("metrics-bind-address", "metricsBindAddress"),
    ("bind-address-hard-fail", "bindAddressHardFail"),
    ("profiling", "enableProfiling"),
    ("show-hidden-metrics-for-version", "showHiddenMetricsForVersion"),
    ("proxy-mode", "mode"),
    ("ipvs-scheduler", "ipvs.scheduler"),
    ("ipvs-sync-period", "ipvs.syncPeriod"),
    ("ipvs-min-sync-period", "ipvs.minSyncPeriod"),
    ("ipvs-exclude-cidrs", "ipvs.excludeCIDRs"),
    ("ipvs-strict-arp", "ipvs.strictARP"),
    ("ipvs-tcp-timeout", "ipvs.tcpTimeout"),
    ("ipvs-tcpfin-timeout", "ipvs.tcpFinTimeout"),
    ("ipvs-udp-timeout", "ipvs.udpTimeout"),
    ("iptables-masquerade-bit", "iptables.masqueradeBit"),
    ("masquerade-all", "iptables.masqueradeAll"),
    ("iptables-localhost-nodeports", "iptables.localhostNodePorts"),
    ("iptables-sync-period", "iptables.syncPeriod"),
    ("iptables-min-sync-period", "iptables.minSyncPeriod"),
    ("detect-local-mode", "detectLocalMode"),
    ("pod-bridge-interface", "detectLocal.bridgeInterface"),
    ("pod-interface-name-prefix", "detectLocal.interfaceNamePrefix"),
    ("cluster-cidr", "clusterCIDR"),
    ("nodeport-addresses", "nodePortAddresses"),
    ("oom-score-adj", "oomScoreAdj"),
    ("conntrack-max-per-core", "conntrack.maxPerCore"),
    ("conntrack-min", "conntrack.min"),
    ("conntrack-tcp-timeout-established", "conntrack.tcpEstablishedTimeout"),
    ("conntrack-tcp-timeout-close-wait", "conntrack.tcpCloseWaitTimeout"),
    ("conntrack-tcp-be-liberal", "conntrack.tcpBeLiberal"),
    ("conntrack-udp-timeout", "conntrack.udpTimeout"),
    ("conntrack-udp-timeout-stream", "conntrack.udpStreamTimeout"),
    ("v", "logging.verbosity"),
    ("vmodule", "logging.vmodule"),
    ("logging-format", "logging.format"),
    ("log-flush-frequency", "logging.flushFrequency"),
    ("log-text-split-stream", "logging.options.text.splitStream"),
    ("log-text-info-buffer-size", "logging.options.text.infoBufferSize"),
    ("log-json-split-stream", "logging.options.json.splitStream"),
    ("log-json-info-buffer-size", "logging.options.json.infoBufferSize"),
    ("healthz-port", "healthzBindAddress"),
    ("metrics-port", "metricsBindAddress"),
];

/// Each flag with what is in effect in its place, whether it came from the flag, from a file or from nobody.
pub fn in_effect(config: &KubeProxyConfiguration) -> BTreeMap<String, String> {
    // A configuration can always be written as JSON.
    let whole = serde_json::to_value(config).unwrap_or_default();
    let value = |field: &str| match whole.pointer(&format!("/{}", field.replace('.', "/"))) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let fields = FIELDS.iter().filter(|(flag, _)| !DEPRECATED.contains(flag));
    fields.map(|(flag, field)| ((*flag).to_owned(), value(field))).collect()
}

/// Flags, and the names of those that were given.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Their values.
    pub flags: KubeProxyFlags,
    /// Their names, without dashes.
    pub names: Vec<String>,
}

impl Given {
    /// What `file` says with the flags that have an effect beside it, and a notice for those that have none.
    pub fn beside(&self, file: KubeProxyConfiguration, notices: &mut Vec<String>) -> KubeProxyConfiguration {
        let mut config = file;
        // Another quirk: only flags can split streams.
        config.logging.options.text.split_stream = false;
        config.logging.options.json.split_stream = false;
        self.set_logging(&mut config);
        let ignored: Vec<_> = self.names.iter().filter(|name| !BESIDE_A_FILE.contains(&name.as_str())).collect();
        if !ignored.is_empty() {
            let names: Vec<_> = ignored.iter().map(|name| format!("--{name}")).collect();
            notices.push(format!("without effect beside --config, as in kube-proxy: {}", names.join(", ")));
        }
        self.finish(config)
    }

    /// What the flags alone say, over `defaults`, with a notice for each that has no effect.
    pub fn alone(&self, defaults: KubeProxyConfiguration, notices: &mut Vec<String>) -> KubeProxyConfiguration {
        // Quirk: these are the defaults whatever the mode turns out to be, and so those of another mode's section.
        let periods = defaults.periods();
        let mut config = defaults;
        set(&mut config.mode, &self.flags.proxy_mode);
        self.set_periods(&mut config, periods, notices);
        config.set_only_masquerade_all(self.flags.masquerade_all.unwrap_or_default());
        self.set_modes(&mut config);
        self.set_cluster(&mut config);
        self.set_servers(&mut config, notices);
        self.set_node(&mut config);
        self.set_conntrack(&mut config);
        self.set_logging(&mut config);
        self.finish(config)
    }

    /// Those of the mode's own flags, which for all but ipvs are those of iptables.
    fn set_periods(&self, config: &mut KubeProxyConfiguration, default: Periods, notices: &mut Vec<String>) {
        let flags = &self.flags;
        let ipvs = ["ipvs-sync-period", "ipvs-min-sync-period"];
        let iptables = ["iptables-sync-period", "iptables-min-sync-period"];
        let (sync, min_sync, ignored) = if config.mode == "ipvs" {
            (flags.ipvs_sync_period, flags.ipvs_min_sync_period, iptables)
        } else {
            (flags.iptables_sync_period, flags.iptables_min_sync_period, ipvs)
        };
        config.set_only_periods(Periods {
            sync: sync.unwrap_or(default.sync),
            min_sync: min_sync.unwrap_or(default.min_sync),
        });
        for name in ignored.into_iter().filter(|ignored| self.names.iter().any(|name| name == ignored)) {
            notices.push(format!("--{name} has no effect in this mode, as in kube-proxy"));
        }
    }

    fn set_modes(&self, config: &mut KubeProxyConfiguration) {
        let flags = &self.flags;
        set_some(&mut config.iptables.masquerade_bit, &flags.iptables_masquerade_bit);
        set_some(&mut config.iptables.localhost_node_ports, &flags.iptables_localhost_nodeports);
        set(&mut config.ipvs.scheduler, &flags.ipvs_scheduler);
        set_some(&mut config.ipvs.exclude_cidrs, &list(&flags.ipvs_exclude_cidrs));
        set(&mut config.ipvs.strict_arp, &flags.ipvs_strict_arp);
        set(&mut config.ipvs.tcp_timeout, &flags.ipvs_tcp_timeout);
        set(&mut config.ipvs.tcp_fin_timeout, &flags.ipvs_tcpfin_timeout);
        set(&mut config.ipvs.udp_timeout, &flags.ipvs_udp_timeout);
    }

    fn set_cluster(&self, config: &mut KubeProxyConfiguration) {
        let flags = &self.flags;
        let kubeconfig = flags.kubeconfig.as_ref().map(|path| path.to_string_lossy().into_owned());
        set(&mut config.client_connection.kubeconfig, &kubeconfig);
        set(&mut config.client_connection.content_type, &flags.kube_api_content_type);
        set(&mut config.client_connection.burst, &flags.kube_api_burst);
        set(&mut config.client_connection.qps, &flags.kube_api_qps);
        set(&mut config.config_sync_period, &flags.config_sync_period);
        let gates = flags.feature_gates.iter().flatten().filter(|(name, _)| !name.is_empty());
        config.feature_gates.extend(gates.cloned());
        set(&mut config.show_hidden_metrics_for_version, &flags.show_hidden_metrics_for_version);
    }

    /// An empty address keeps the default in kube-proxy, though its help says otherwise, and so it does here.
    fn set_servers(&self, config: &mut KubeProxyConfiguration, notices: &mut Vec<String>) {
        let flags = &self.flags;
        for (name, field, address, port) in [
            (
                "healthz",
                &mut config.healthz_bind_address,
                &flags.healthz_bind_address,
                (flags.healthz_port, HEALTHZ_PORT),
            ),
            (
                "metrics",
                &mut config.metrics_bind_address,
                &flags.metrics_bind_address,
                (flags.metrics_port, METRICS_PORT),
            ),
        ] {
            match address {
                Some(address) if address.is_empty() => {
                    notices.push(format!("an empty --{name}-bind-address keeps the default, as in kube-proxy"));
                }
                address => set(field, address),
            }
            // Another quirk: where the configuration is only written, ports are left out.
            if flags.write_config_to.is_none() {
                set_port(name, field, port, notices);
            } else if port.0.is_some() {
                notices.push(format!("--{name}-port has no effect beside --write-config-to, as in kube-proxy"));
            }
        }
        set(&mut config.bind_address_hard_fail, &flags.bind_address_hard_fail);
        set(&mut config.enable_profiling, &flags.profiling);
    }

    fn set_node(&self, config: &mut KubeProxyConfiguration) {
        let flags = &self.flags;
        set(&mut config.bind_address, &flags.bind_address.clone().filter(|address| !address.is_empty()));
        set_some(&mut config.oom_score_adj, &flags.oom_score_adj);
        set_some(&mut config.node_port_addresses, &list(&flags.nodeport_addresses));
        set(&mut config.cluster_cidr, &flags.cluster_cidr);
        set(&mut config.detect_local_mode, &flags.detect_local_mode);
        set(&mut config.detect_local.bridge_interface, &flags.pod_bridge_interface);
        set(&mut config.detect_local.interface_name_prefix, &flags.pod_interface_name_prefix);
    }

    fn set_conntrack(&self, config: &mut KubeProxyConfiguration) {
        let (flags, section) = (&self.flags, &mut config.conntrack);
        set_some(&mut section.max_per_core, &flags.conntrack_max_per_core);
        set_some(&mut section.min, &flags.conntrack_min);
        set_some(&mut section.tcp_established_timeout, &flags.conntrack_tcp_timeout_established);
        set_some(&mut section.tcp_close_wait_timeout, &flags.conntrack_tcp_timeout_close_wait);
        set(&mut section.tcp_be_liberal, &flags.conntrack_tcp_be_liberal);
        set(&mut section.udp_timeout, &flags.conntrack_udp_timeout);
        set(&mut section.udp_stream_timeout, &flags.conntrack_udp_timeout_stream);
    }

    /// Patterns of the flag come before those of a file, and the first that matches counts.
    fn set_logging(&self, config: &mut KubeProxyConfiguration) {
        let (flags, section) = (&self.flags, &mut config.logging);
        set(&mut section.format, &flags.logging_format);
        set(&mut section.flush_frequency, &flags.log_flush_frequency.map(Into::into));
        set(&mut section.verbosity, &flags.v);
        let patterns = flags.vmodule.iter().flatten().filter(|item| !item.file_pattern.is_empty());
        section.vmodule.splice(0..0, patterns.cloned());
        set(&mut section.options.text.split_stream, &flags.log_text_split_stream);
        set(&mut section.options.text.info_buffer_size, &flags.log_text_info_buffer_size);
        set(&mut section.options.json.split_stream, &flags.log_json_split_stream);
        set(&mut section.options.json.info_buffer_size, &flags.log_json_info_buffer_size);
    }

    fn finish(&self, mut config: KubeProxyConfiguration) -> KubeProxyConfiguration {
        config.set_platform_defaults();
        // A blank name is told from none when the configuration is checked.
        let name = self.flags.hostname_override.as_ref().filter(|name| !name.is_empty());
        let trimmed = name.map(|name| if name.trim().is_empty() { name } else { name.trim() }.to_lowercase());
        set(&mut config.hostname_override, &trimmed);
        config
    }
}

/// What is in effect of a deprecated port: 0 takes the address away, another is for an address without one.
fn set_port(name: &str, address: &mut String, (port, default): (Option<i32>, u16), notices: &mut Vec<String>) {
    let with_port = if port == Some(0) { String::new() } else { with_port(address, port.unwrap_or(default.into())) };
    if port.is_some() {
        let effect =
            if *address == with_port { ", and has no effect: the address has a port, as in kube-proxy" } else { "" };
        notices.push(format!("--{name}-port is deprecated for --{name}-bind-address{effect}"));
    }
    *address = with_port;
}

/// An empty flag is an empty list.
fn list(flag: &Option<Vec<String>>) -> Option<Vec<String>> {
    flag.as_ref().map(|texts| texts.iter().filter(|text| !text.is_empty()).cloned().collect())
}

fn set<T: Clone>(field: &mut T, flag: &Option<T>) {
    if let Some(value) = flag {
        field.clone_from(value);
    }
}

fn set_some<T: Clone>(field: &mut Option<T>, flag: &Option<T>) {
    if flag.is_some() {
        field.clone_from(flag);
    }
}

impl Args for Given {
    /// A flag takes the next word whatever it looks like, a switch never does.
    fn augment_args(command: Command) -> Command {
        let ours = ids();
        KubeProxyFlags::augment_args(command.args_override_self(true)).mut_args(|argument| {
            let is_switch = matches!(argument.get_value_names(), Some([name]) if *name == "BOOL" || *name == "VERSION");
            match ours.contains(argument.get_id()) {
                true if is_switch => argument.num_args(0..=1).require_equals(true).default_missing_value("true"),
                true => argument.allow_hyphen_values(true),
                false => argument,
            }
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// What clap knows the flags by: their names with underscores.
fn ids() -> Vec<Id> {
    KubeProxyFlags::augment_args(Command::new("")).get_arguments().map(|argument| argument.get_id().clone()).collect()
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let ids = ids();
        let given = ids.iter().filter(|id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine));
        let names = given.map(|id| id.as_str().replace('_', "-")).collect();
        let mut flags = KubeProxyFlags::from_arg_matches(matches)?;
        for path in [&mut flags.config, &mut flags.write_config_to] {
            *path = path.take().filter(|path| !path.as_os_str().is_empty());
        }
        Ok(Self { flags, names })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
