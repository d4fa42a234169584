//! The fields of `KubeProxyConfiguration` in `kubeproxy.config.k8s.io/v1alpha1`, as they stand in a file.
//!
//! In this API an absent field and one with its zero value (`""`, `0`, `0s`, `false`) are the same, except where
//! `Option` says otherwise. A field's documentation gives its unit and the default that [`defaults`](super::defaults)
//! puts in the place of zero; what values are good is checked in [`resolve`](crate::config::resolve).

use super::logging::LoggingConfiguration;
use crate::config::duration::GoDuration;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;

/// The `apiVersion` of a configuration file.
pub const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
/// The `kind` of a configuration file.
pub const KIND: &str = "KubeProxyConfiguration";

/// All that kube-proxy can be told in its file, in the order in which it says it itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeProxyConfiguration {
    /// [`KIND`].
    pub kind: String,
    /// [`API_VERSION`].
    pub api_version: String,
    /// Switches of alpha and beta features by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub feature_gates: BTreeMap<String, bool>,
    /// How to reach the API server.
    pub client_connection: ClientConnection,
    /// What is logged and how.
    pub logging: LoggingConfiguration,
    /// The node's name; the system's host name where it is empty.
    pub hostname_override: String,
    /// The node's primary address, or all zeros to let the Node object say it. Nothing is bound to it. 0.0.0.0.
    pub bind_address: String,
    /// Where health is served, `IP:port` or `IP`. Port 10256 on all addresses of `bind_address`'s family.
    pub healthz_bind_address: String,
    /// Where metrics are served, `IP:port` or `IP`. Port 10249 on the loopback address of that family.
    pub metrics_bind_address: String,
    /// Whether a socket that cannot be bound ends the process.
    pub bind_address_hard_fail: bool,
    /// Whether the metrics socket serves profiles.
    pub enable_profiling: bool,
    /// The `major.minor` whose hidden metrics are wanted again.
    pub show_hidden_metrics_for_version: String,
    /// `iptables`, `ipvs` or `nftables`. `iptables`.
    pub mode: String,
    /// What concerns the iptables mode, and masquerading in the ipvs mode.
    pub iptables: IptablesConfiguration,
    /// What concerns the ipvs mode.
    pub ipvs: IpvsConfiguration,
    /// What concerns the nftables mode.
    pub nftables: NftablesConfiguration,
    /// What concerns Windows.
    pub winkernel: WinkernelConfiguration,
    /// How traffic of this node's pods is told: `ClusterCIDR`, `NodeCIDR`, `BridgeInterface` or
    /// `InterfaceNamePrefix`. `ClusterCIDR`.
    pub detect_local_mode: String,
    /// What the last two of these modes need.
    pub detect_local: DetectLocalConfiguration,
    /// The addresses of all pods: a CIDR, or two of different families with a comma.
    #[serde(rename = "clusterCIDR")]
    pub cluster_cidr: String,
    /// CIDRs of the node's addresses that have node ports, or only the word `primary`. All addresses.
    pub node_port_addresses: Option<Vec<String>>,
    /// `oom_score_adj` of the process, -1000 to 1000. -999.
    pub oom_score_adj: Option<i32>,
    /// The kernel's connection tracking.
    pub conntrack: ConntrackConfiguration,
    /// How often everything is asked of the API server again. 15m.
    pub config_sync_period: GoDuration,
    /// Has had no meaning since the userspace mode went.
    pub port_range: String,
    /// Concerns Windows.
    #[serde(skip_serializing_if = "is_false")]
    pub windows_run_as_service: bool,
}

/// `clientConnection`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientConnection {
    /// Path of a kubeconfig. Without it, and without a server's address, the pod's own credentials are used.
    pub kubeconfig: String,
    /// The `Accept` header, if it is to differ.
    pub accept_content_types: String,
    /// The type of what is sent. `application/vnd.kubernetes.protobuf`.
    pub content_type: String,
    /// Requests a second; less than 0 is no limit. 5.
    #[serde(serialize_with = "as_go_writes_it")]
    pub qps: f32,
    /// Requests at once. 10.
    pub burst: i32,
}

/// `iptables`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IptablesConfiguration {
    /// The bit of the packet mark that asks for masquerading, 0 to 31, in the ipvs mode too. 14.
    pub masquerade_bit: Option<i32>,
    /// Whether all traffic to cluster IPs is masqueraded, in the ipvs mode too.
    pub masquerade_all: bool,
    /// Whether node ports answer on 127.0.0.1. True.
    pub localhost_node_ports: Option<bool>,
    /// How often everything is written again. 30s.
    pub sync_period: GoDuration,
    /// The shortest time between two writings. 1s.
    pub min_sync_period: GoDuration,
}

/// `ipvs`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IpvsConfiguration {
    /// How often everything is checked. 30s.
    pub sync_period: GoDuration,
    /// The shortest time between two passes. Unlike in the other modes, 0s.
    pub min_sync_period: GoDuration,
    /// The scheduler; `rr` where it is empty.
    pub scheduler: String,
    /// CIDRs of virtual servers that are left alone.
    #[serde(rename = "excludeCIDRs")]
    pub exclude_cidrs: Option<Vec<String>>,
    /// Whether the node answers ARP only for addresses of the device that is asked.
    #[serde(rename = "strictARP")]
    pub strict_arp: bool,
    /// Timeout of an idle TCP connection; 0 leaves the kernel's.
    pub tcp_timeout: GoDuration,
    /// Timeout of a TCP connection after a FIN; 0 leaves the kernel's.
    pub tcp_fin_timeout: GoDuration,
    /// Timeout of UDP; 0 leaves the kernel's.
    pub udp_timeout: GoDuration,
}

/// `nftables`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NftablesConfiguration {
    /// As in `iptables`. 14.
    pub masquerade_bit: Option<i32>,
    /// As in `iptables`.
    pub masquerade_all: bool,
    /// As in `iptables`. 30s.
    pub sync_period: GoDuration,
    /// As in `iptables`. 1s.
    pub min_sync_period: GoDuration,
}

/// `winkernel`: Windows only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WinkernelConfiguration {
    /// The HNS network.
    pub network_name: String,
    /// The source address of NAT.
    pub source_vip: String,
    /// Whether servers answer past the node.
    #[serde(rename = "enableDSR")]
    pub enable_dsr: bool,
    /// The endpoint that stands for the node.
    pub root_hns_endpoint_name: String,
    /// Whether health checks of a load balancer are forwarded.
    pub forward_health_check_vip: bool,
}

/// `detectLocal`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DetectLocalConfiguration {
    /// The bridge that pods are on, for `BridgeInterface`.
    pub bridge_interface: String,
    /// What names of pods' devices begin with, for `InterfaceNamePrefix`.
    pub interface_name_prefix: String,
}

/// `conntrack`: settings of the kernel's connection tracking. 0 leaves what is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConntrackConfiguration {
    /// Entries for each processor. 32768; with 0 `min` has no effect either.
    pub max_per_core: Option<i32>,
    /// At least so many entries. 131072.
    pub min: Option<i32>,
    /// Timeout of an established connection. 24h.
    pub tcp_established_timeout: Option<GoDuration>,
    /// Timeout of a half closed connection. 1h.
    pub tcp_close_wait_timeout: Option<GoDuration>,
    /// Whether packets out of the window count as valid; false leaves what is there.
    pub tcp_be_liberal: bool,
    /// Timeout of UDP without an answer.
    pub udp_timeout: GoDuration,
    /// Timeout of UDP that was answered.
    pub udp_stream_timeout: GoDuration,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Whole numbers without a point, and the digits of 32 bits, not those that 64 bits would need for the same number.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn as_go_writes_it<S: Serializer>(value: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    let digits = value.to_string();
    match (digits.parse::<i64>(), digits.parse::<f64>()) {
        (Ok(whole), _) => serializer.serialize_i64(whole),
        (_, Ok(number)) => serializer.serialize_f64(number),
        _ => serializer.serialize_f32(*value),
    }
}
