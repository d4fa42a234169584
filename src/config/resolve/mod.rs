//! From what file and flags came to, to checked values. All that is wrong is told at once, each by its field.

mod unused;

use super::address;
use super::checks::Checks;
pub use super::checks::InvalidField;
use super::duration::GoDuration;
use super::kube_proxy::gates::{FeatureGates, Objection};
use super::kube_proxy::v1alpha1::{ConntrackConfiguration, KubeProxyConfiguration};
use super::logging::Logging;
use super::network::{self, DetectLocal, Masquerade};
use super::{Cluster, Config, Input, Mode, Servers, ServiceMetrics};
use crate::desired::Settings;
use crate::kernel::node_setup::{Conntrack, IpvsTimeouts, NodeSetup};
use crate::model::SchedulerName;
use crate::reconcile::pace::Intervals;
use crate::reconcile::{Options, Takeover};
use crate::state::{OneLine, Scheduling};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The feature gate without which `spec.externalIPs` are not served.
const EXTERNAL_IPS: &str = "AllowServiceExternalIPs";

/// A client that asks every 15 s whether its connection is alive, which is the default of many, hears within half a minute
/// that it is not; twice that for those who are slower.
const LINGER: Duration = Duration::from_secs(60);

/// What file and flags came to.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// kube-proxy's fields, with its defaults.
    pub effective: KubeProxyConfiguration,
    /// The files that were read.
    pub files: Vec<PathBuf>,
    /// The directory that takes the API server's place.
    pub manifests: Option<PathBuf>,
    /// The API server's address; empty is none.
    pub master: String,
    /// How long a departing destination may keep its connections.
    pub drain_timeout: Duration,
    /// Whether netfilter is programmed; if nobody says, for a cluster, and where its rules balance.
    pub netfilter: Option<bool>,
    /// Whether affinity is shared by all addresses of a port, where nobody chose a scheduler.
    pub shared_affinity: bool,
    /// Whether rules balance where IPVS is wanted and missing; if nobody says, they do.
    pub ipvs_fallback: Option<bool>,
    /// Whether the program moves over to IPVS that comes later; if nobody says, it does not.
    pub move_to_ipvs: Option<bool>,
    /// What metrics tell of what goes through Services; none is nothing.
    pub service_metrics: Option<ServiceMetrics>,
    /// The file by which the daemon is asked; none is no file.
    pub inspection_socket: Option<PathBuf>,
    /// What the operator should know already.
    pub notices: Vec<String>,
}

/// Why there is no configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Fields have values that they cannot have.
    #[error("{}", list(.0))]
    Invalid(Vec<InvalidField>),
    /// The configuration is good, and for another program.
    #[error(
        "mode: nftables is not a mode of ipvsd: write `mode: ipvs` or `mode: iptables`, or run kube-proxy on this node"
    )]
    Nftables,
}

fn list(invalid: &[InvalidField]) -> String {
    invalid.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Checks everything.
///
/// # Errors
/// All that is wrong, or that the mode is none of ipvsd.
pub fn resolve(request: Request) -> Result<Config, ResolveError> {
    let mut checks = Checks { notices: request.notices.clone(), ..Checks::default() };
    let config = check(request, &mut checks);
    if !checks.invalid.is_empty() {
        return Err(ResolveError::Invalid(checks.invalid));
    }
    if config.effective.mode == "nftables" {
        return Err(ResolveError::Nftables);
    }
    // They name keys and patterns of files, and go to logs and terminals.
    let notices = checks.notices.iter().map(|notice| OneLine(notice).to_string()).collect();
    Ok(Config { notices, ..config })
}

/// The configuration, with anything in the place of what is refused.
fn check(request: Request, checks: &mut Checks) -> Config {
    let mut effective = request.effective.clone();
    mode(&effective, checks);
    unused::note(&effective, checks);
    effective.forget_other_modes();
    let feature_gates = gates(&effective, checks);
    let is_iptables = effective.mode == "iptables";
    if is_iptables && request.netfilter == Some(false) {
        checks.refuse("netfilter", false, "must not be in the mode iptables");
    }
    let has_netfilter = request.netfilter.unwrap_or(request.manifests.is_none() || is_iptables);
    let mut config = Config {
        mode: Mode::Iptables,
        settings: Settings {
            scheduling: scheduling(&effective, checks),
            shares_affinity: request.shared_affinity && effective.ipvs.in_effect(&effective.mode).scheduler.is_empty(),
            node_ports: network::node_ports(&effective, checks),
            bind_address: network::bind_address(&effective, checks),
            has_cluster: request.manifests.is_none(),
            external_ips_allowed: feature_gates.enabled(EXTERNAL_IPS),
            ..Settings::default()
        },
        options: Options {
            intervals: intervals(&effective, checks),
            drain_timeout: request.drain_timeout,
            linger: LINGER,
            takeover: takeover(&effective, checks),
        },
        node_name: node_name(&effective, checks),
        servers: servers(&request, &effective, checks),
        detect_local: DetectLocal::of(&effective, checks),
        masquerade: Masquerade::of(&effective, checks),
        node: node(&effective, checks),
        logging: Logging::of(&effective.logging, &feature_gates, checks),
        input: input(&request, &effective, checks),
        feature_gates,
        files: request.files,
        notices: Vec::new(),
        effective,
    };
    let netfilter = network::netfilter(&config.detect_local, config.masquerade);
    if !is_iptables {
        // Who keeps netfilter out does not want it for this either.
        let may_fall_back = request.ipvs_fallback.unwrap_or(true) && request.netfilter != Some(false);
        let fallback = may_fall_back.then(|| netfilter.clone());
        config.mode = Mode::Ipvs { fallback, moves_over: request.move_to_ipvs.unwrap_or(false) };
    }
    config.settings.netfilter = has_netfilter.then_some(netfilter);
    config
}

fn mode(config: &KubeProxyConfiguration, checks: &mut Checks) {
    match config.mode.as_str() {
        "ipvs" | "iptables" | "nftables" => {}
        other => checks.refuse("mode", other, "must be iptables, ipvs, nftables or nothing"),
    }
}

fn gates(config: &KubeProxyConfiguration, checks: &mut Checks) -> FeatureGates {
    FeatureGates::new(&config.feature_gates).unwrap_or_else(|objections| {
        for Objection { name, on, why } in objections {
            checks.refuse(&format!("featureGates.{name}"), on, format!("cannot be: {why}"));
        }
        FeatureGates::default()
    })
}

/// As in kube-proxy the empty name is round robin, and the ipvs section counts in its own mode only.
fn scheduling(config: &KubeProxyConfiguration, checks: &mut Checks) -> Scheduling {
    let name = config.ipvs.in_effect(&config.mode).scheduler;
    let scheduler = match name.parse() {
        _ if name.is_empty() => SchedulerName::RR,
        Ok(scheduler) => scheduler,
        Err(_) => {
            let message = "is not a scheduler name: 1 to 15 characters of a-z, 0-9, _ and - are";
            checks.refuse("ipvs.scheduler", format_args!("{name:?}"), message);
            SchedulerName::RR
        }
    };
    Scheduling::with_usual_flags(scheduler)
}

fn intervals(config: &KubeProxyConfiguration, checks: &mut Checks) -> Intervals {
    let periods = config.periods();
    let [sync, min_sync] = ["syncPeriod", "minSyncPeriod"].map(|field| format!("{}.{field}", config.section()));
    if periods.min_sync > periods.sync {
        checks.refuse(&min_sync, periods.min_sync, format!("must not be longer than {sync}, {}", periods.sync));
    }
    Intervals {
        resync: checks.positive(&sync, periods.sync),
        rest: checks.not_negative(&min_sync, periods.min_sync),
        ..Intervals::default()
    }
}

/// What kube-proxy left on the node is taken over, but for what it was told to leave alone itself.
fn takeover(config: &KubeProxyConfiguration, checks: &mut Checks) -> Takeover {
    let excluded = config.ipvs.in_effect(&config.mode).exclude_cidrs;
    let excluded = excluded.iter().flatten().enumerate();
    Takeover::AllBut(excluded.filter_map(|(i, text)| checks.cidr(&format!("ipvs.excludeCIDRs[{i}]"), text)).collect())
}

fn node_name(config: &KubeProxyConfiguration, checks: &mut Checks) -> Option<String> {
    let name = config.hostname_override.trim();
    if name.is_empty() && !config.hostname_override.is_empty() {
        checks.refuse("hostnameOverride", format_args!("{:?}", config.hostname_override), "must not be blank");
    }
    (!name.is_empty()).then(|| name.to_lowercase())
}

fn servers(request: &Request, config: &KubeProxyConfiguration, checks: &mut Checks) -> Servers {
    let version = &config.show_hidden_metrics_for_version;
    if !version.is_empty() && !is_version(version) {
        checks.refuse("showHiddenMetricsForVersion", version, "must be MAJOR.MINOR");
    }
    Servers {
        healthz: socket("healthzBindAddress", &config.healthz_bind_address, checks),
        metrics: socket("metricsBindAddress", &config.metrics_bind_address, checks),
        hard_fail: config.bind_address_hard_fail,
        profiling: config.enable_profiling,
        service_metrics: request.service_metrics,
        inspection: request.inspection_socket.clone(),
    }
}

fn is_version(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    text.split_once('.').is_some_and(|(major, minor)| is_number(major) && is_number(minor))
}

/// Only flags can leave it empty, which is nowhere.
fn socket(field: &str, text: &str, checks: &mut Checks) -> Option<SocketAddr> {
    if text.is_empty() {
        return None;
    }
    address::socket(text).map_err(|message| checks.refuse(field, text, message)).ok()
}

fn node(config: &KubeProxyConfiguration, checks: &mut Checks) -> NodeSetup {
    let section = config.ipvs.in_effect(&config.mode);
    NodeSetup {
        strict_arp: section.strict_arp,
        ipvs_timeouts: IpvsTimeouts {
            tcp: checks.timeout("ipvs.tcpTimeout", section.tcp_timeout),
            tcp_fin: checks.timeout("ipvs.tcpFinTimeout", section.tcp_fin_timeout),
            udp: checks.timeout("ipvs.udpTimeout", section.udp_timeout),
        },
        conntrack: conntrack(&config.conntrack, checks),
        oom_score_adj: config.oom_score_adj.and_then(|score| checks.within("oomScoreAdj", score, -1000..=1000)),
    }
}

fn conntrack(section: &ConntrackConfiguration, checks: &mut Checks) -> Conntrack {
    let mut count = |field, value: Option<i32>| checks.within(field, value.unwrap_or(0), 0..=i32::MAX).unwrap_or(0);
    let (per_core, min) = (count("conntrack.maxPerCore", section.max_per_core), count("conntrack.min", section.min));
    let mut timeout = |field, value: Option<GoDuration>| checks.timeout(field, value.unwrap_or_default());
    Conntrack {
        max_per_core: Some(per_core).filter(|per_core| *per_core > 0),
        min,
        tcp_established: timeout("conntrack.tcpEstablishedTimeout", section.tcp_established_timeout),
        tcp_close_wait: timeout("conntrack.tcpCloseWaitTimeout", section.tcp_close_wait_timeout),
        udp: timeout("conntrack.udpTimeout", Some(section.udp_timeout)),
        udp_stream: timeout("conntrack.udpStreamTimeout", Some(section.udp_stream_timeout)),
        tcp_be_liberal: section.tcp_be_liberal,
    }
}

fn input(request: &Request, config: &KubeProxyConfiguration, checks: &mut Checks) -> Input {
    let connection = &config.client_connection;
    let burst = checks.within("clientConnection.burst", connection.burst, 0..=i32::MAX);
    let resync = checks.positive("configSyncPeriod", config.config_sync_period);
    if !connection.qps.is_finite() {
        checks.refuse("clientConnection.qps", connection.qps, "must be a number of 32 bits");
    }
    if let Some(directory) = &request.manifests {
        return Input::Manifests(directory.clone());
    }
    Input::Cluster(Cluster {
        kubeconfig: given(&connection.kubeconfig).map(PathBuf::from),
        master: given(&request.master),
        qps: Some(connection.qps).filter(|qps| *qps > 0.0),
        burst: burst.unwrap_or_default(),
        accept_content_types: given(&connection.accept_content_types),
        content_type: connection.content_type.clone(),
        resync,
    })
}

fn given(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
