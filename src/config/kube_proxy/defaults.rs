//! What kube-proxy puts in the place of fields that are not set, and which section counts in which mode.
//!
//! The values are kube-proxy's own (v1.36), measured at what `kube-proxy --write-config-to` writes.

use super::logging::LoggingConfiguration;
use super::v1alpha1::{API_VERSION, ConntrackConfiguration, IpvsConfiguration, KIND, KubeProxyConfiguration};
use crate::config::address;
use crate::config::duration::GoDuration;
use std::net::IpAddr;

/// The port that health is served on.
pub const HEALTHZ_PORT: u16 = 10256;
/// The port that metrics are served on.
pub const METRICS_PORT: u16 = 10249;

/// How often everything is done again.
const SYNC_PERIOD: GoDuration = GoDuration::from_secs(30);
/// The shortest time between two rounds, in the modes that have a default for it.
const MIN_SYNC_PERIOD: GoDuration = GoDuration::from_secs(1);
/// The bit of the packet mark that asks for masquerading.
const MASQUERADE_BIT: i32 = 14;

/// The periods of one mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Periods {
    /// How often everything is done again.
    pub sync: GoDuration,
    /// The shortest time between two rounds.
    pub min_sync: GoDuration,
}

impl KubeProxyConfiguration {
    /// What kube-proxy goes by without a file and without flags.
    pub fn with_defaults() -> Self {
        let mut config = Self { api_version: API_VERSION.into(), kind: KIND.into(), ..Self::default() };
        config.set_defaults();
        config
    }

    /// Gives every field that is not set its default, and a bare address its port.
    pub fn set_defaults(&mut self) {
        or(&mut self.bind_address, "0.0.0.0");
        let (everywhere, loopback) = match address::ip(&self.bind_address) {
            Some(IpAddr::V4(_)) => ("0.0.0.0", "127.0.0.1"),
            _ => ("::", "::1"),
        };
        or(&mut self.healthz_bind_address, everywhere);
        or(&mut self.metrics_bind_address, loopback);
        self.healthz_bind_address = address::with_port(&self.healthz_bind_address, HEALTHZ_PORT);
        self.metrics_bind_address = address::with_port(&self.metrics_bind_address, METRICS_PORT);
        or(&mut self.oom_score_adj, -999);
        or(&mut self.config_sync_period, GoDuration::from_secs(15 * 60));
        or(&mut self.client_connection.content_type, "application/vnd.kubernetes.protobuf");
        or(&mut self.client_connection.qps, 5.0);
        or(&mut self.client_connection.burst, 10);
        self.set_defaults_of_modes();
        self.conntrack.set_defaults();
        self.logging.set_defaults();
    }

    fn set_defaults_of_modes(&mut self) {
        or(&mut self.iptables.masquerade_bit, MASQUERADE_BIT);
        or(&mut self.iptables.localhost_node_ports, true);
        or(&mut self.iptables.sync_period, SYNC_PERIOD);
        or(&mut self.iptables.min_sync_period, MIN_SYNC_PERIOD);
        or(&mut self.ipvs.sync_period, SYNC_PERIOD);
        or(&mut self.nftables.masquerade_bit, MASQUERADE_BIT);
        or(&mut self.nftables.sync_period, SYNC_PERIOD);
        or(&mut self.nftables.min_sync_period, MIN_SYNC_PERIOD);
    }

    /// What kube-proxy sets on Linux after file and flags were read.
    pub fn set_platform_defaults(&mut self) {
        or(&mut self.mode, "iptables");
        or(&mut self.detect_local_mode, "ClusterCIDR");
        if self.mode == "nftables" && self.node_port_addresses.as_ref().is_none_or(Vec::is_empty) {
            self.node_port_addresses = Some(vec!["primary".into()]);
        }
    }

    /// The periods of the mode's section; that of iptables for a mode that there is not.
    pub fn periods(&self) -> Periods {
        let (sync, min_sync) = match self.mode.as_str() {
            "ipvs" => (self.ipvs.sync_period, self.ipvs.min_sync_period),
            "nftables" => (self.nftables.sync_period, self.nftables.min_sync_period),
            _ => (self.iptables.sync_period, self.iptables.min_sync_period),
        };
        Periods { sync, min_sync }
    }

    /// Sets the periods of the mode's section, and those of all others to 0: kube-proxy forgets them once the mode
    /// is known, which is what it then shows of itself.
    pub fn set_only_periods(&mut self, periods: Periods) {
        let chosen = self.section();
        for (section, sync, min_sync) in [
            ("iptables", &mut self.iptables.sync_period, &mut self.iptables.min_sync_period),
            ("ipvs", &mut self.ipvs.sync_period, &mut self.ipvs.min_sync_period),
            ("nftables", &mut self.nftables.sync_period, &mut self.nftables.min_sync_period),
        ] {
            let Periods { sync: wanted, min_sync: wanted_min } =
                if section == chosen { periods } else { Periods::default() };
            (*sync, *min_sync) = (wanted, wanted_min);
        }
    }

    /// Whether all traffic to cluster IPs is masqueraded: the ipvs mode takes that from the iptables section.
    pub fn masquerade_all(&self) -> bool {
        if self.mode == "nftables" { self.nftables.masquerade_all } else { self.iptables.masquerade_all }
    }

    /// Sets that for the mode, and forgets what the other section says.
    pub fn set_only_masquerade_all(&mut self, all: bool) {
        let is_nftables = self.mode == "nftables";
        self.iptables.masquerade_all = all && !is_nftables;
        self.nftables.masquerade_all = all && is_nftables;
    }

    /// Forgets what kube-proxy does not go by once the mode is known: what sections of other modes say of the things
    /// that every mode has, and the port range.
    pub fn forget_other_modes(&mut self) {
        self.set_only_periods(self.periods());
        self.set_only_masquerade_all(self.masquerade_all());
        self.port_range.clear();
    }

    /// The name of the section that the mode's periods are in.
    pub fn section(&self) -> &'static str {
        match self.mode.as_str() {
            "ipvs" => "ipvs",
            "nftables" => "nftables",
            _ => "iptables",
        }
    }
}

impl IpvsConfiguration {
    /// The section in its own mode; in another one nothing of it counts.
    pub fn in_effect(&self, mode: &str) -> Self {
        if mode == "ipvs" { self.clone() } else { Self::default() }
    }
}

impl ConntrackConfiguration {
    fn set_defaults(&mut self) {
        or(&mut self.max_per_core, 32 * 1024);
        or(&mut self.min, 128 * 1024);
        or(&mut self.tcp_established_timeout, GoDuration::from_secs(24 * 3600));
        or(&mut self.tcp_close_wait_timeout, GoDuration::from_secs(3600));
    }
}

impl LoggingConfiguration {
    fn set_defaults(&mut self) {
        or(&mut self.format, "text");
        if self.flush_frequency.duration == GoDuration::ZERO {
            self.flush_frequency = GoDuration::from_secs(5).into();
        }
    }
}

/// Puts a default where nothing is.
fn or<T: Default + PartialEq>(field: &mut T, default: impl Into<T>) {
    if *field == T::default() {
        *field = default.into();
    }
}
