//! kube-proxy's flags, one definition of each, for `ipvsd run` and for a program that is called `kube-proxy`.
//!
//! They have kube-proxy's syntax: `--flag value` or `--flag=value`, `--switch` or `--switch=false` but never
//! `--switch false`, the last one of several counts, lists add up. What they mean beside a file is in [`precedence`].

mod precedence;
mod values;

pub use precedence::{FIELDS, Given, in_effect};
pub use values::{Version, boolean};
use values::{gate, ip, path, socket, vmodule_item};

use crate::config::duration::GoDuration;
use crate::config::kube_proxy::logging::{Quantity, VmoduleItem};
use clap::Args;
use std::path::PathBuf;

/// Every flag of kube-proxy 1.36. None is one that was not given.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "kube-proxy's flags, most of which have no effect beside --config")]
pub struct KubeProxyFlags {
    /// kube-proxy's configuration file, YAML or JSON
    #[arg(long, value_name = "FILE", value_parser = path)]
    pub config: Option<PathBuf>,
    /// Write the configuration in effect to this file and exit
    #[arg(long, value_name = "FILE", value_parser = path)]
    pub write_config_to: Option<PathBuf>,
    /// Remove what ipvsd made and what kube-proxy's ipvs mode left, and exit
    #[arg(long, value_name = "BOOL", value_parser = boolean)]
    pub cleanup: Option<bool>,
    /// Do only what needs full rights (modules, sysctls), and exit
    #[arg(long, value_name = "BOOL", value_parser = boolean)]
    pub init_only: Option<bool>,
    /// Print the version and exit; =raw prints more
    #[arg(long, value_name = "VERSION")]
    pub version: Option<Version>,

    /// Address of the API server, which counts more than the kubeconfig's [default: the kubeconfig's]
    #[arg(long, value_name = "URL")]
    pub master: Option<String>,
    /// Credentials for the API server [default: those of the pod]
    #[arg(long, value_name = "FILE", value_parser = path)]
    pub kubeconfig: Option<PathBuf>,
    /// Accepted, unused: ipvsd speaks JSON [default: application/vnd.kubernetes.protobuf]
    #[arg(long, value_name = "TYPE")]
    pub kube_api_content_type: Option<String>,
    /// Accepted, unused: requests to the API server at once [default: 10]
    #[arg(long, value_name = "NUMBER")]
    pub kube_api_burst: Option<i32>,
    /// Accepted, unused: requests to the API server a second [default: 5]
    #[arg(long, value_name = "NUMBER")]
    pub kube_api_qps: Option<f32>,
    /// Accepted, unused: a watch that breaks is resumed [default: 15m]
    #[arg(long, value_name = "DURATION")]
    pub config_sync_period: Option<GoDuration>,
    /// Features on or off: NAME=true,NAME=false
    #[arg(long, value_name = "LIST", value_parser = gate, value_delimiter = ',')]
    pub feature_gates: Option<Vec<(String, bool)>>,

    /// The node's name [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub hostname_override: Option<String>,
    /// The node's primary address; nothing is bound to it [default: 0.0.0.0, which is the Node object's]
    #[arg(long, value_name = "IP", value_parser = ip)]
    pub bind_address: Option<String>,
    /// Where health is served [default: 0.0.0.0:10256; nowhere with --manifests]
    #[arg(long, value_name = "IP:PORT", value_parser = socket)]
    pub healthz_bind_address: Option<String>,
    /// Where metrics are served [default: 127.0.0.1:10249; nowhere with --manifests]
    #[arg(long, value_name = "IP:PORT", value_parser = socket)]
    pub metrics_bind_address: Option<String>,
    /// Deprecated: the port of --healthz-bind-address if that has none; 0 serves no health
    #[arg(long, value_name = "NUMBER")]
    pub healthz_port: Option<i32>,
    /// Deprecated: the port of --metrics-bind-address if that has none; 0 serves no metrics
    #[arg(long, value_name = "NUMBER")]
    pub metrics_port: Option<i32>,
    /// End if one of these addresses cannot be bound [default: false]
    #[arg(long, value_name = "BOOL", value_parser = boolean)]
    pub bind_address_hard_fail: Option<bool>,
    /// Serve profiles beside the metrics [default: false]
    #[arg(long, value_name = "BOOL", value_parser = boolean)]
    pub profiling: Option<bool>,
    /// Version whose hidden metrics are wanted again [default: none]
    #[arg(long, value_name = "MAJOR.MINOR")]
    pub show_hidden_metrics_for_version: Option<String>,

    /// ipvs or iptables [default: ipvs; iptables as kube-proxy]
    #[arg(long, value_name = "MODE")]
    pub proxy_mode: Option<String>,
    /// Scheduler for Services that do not choose one: rr wrr lc wlc lblc lblcr sh mh dh sed nq fo ovf, ... [default: rr]
    #[arg(long, value_name = "NAME")]
    pub ipvs_scheduler: Option<String>,
    /// How often everything in the kernel is read and checked [default: 30s]
    #[arg(long, value_name = "DURATION")]
    pub ipvs_sync_period: Option<GoDuration>,
    /// The shortest time between two passes that change the kernel [default: 1s; 0s with --manifests]
    #[arg(long, value_name = "DURATION")]
    pub ipvs_min_sync_period: Option<GoDuration>,
    /// CIDRs of virtual servers that are left alone [default: none]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub ipvs_exclude_cidrs: Option<Vec<String>>,
    /// Set arp_ignore to 1 and arp_announce to 2 [default: false]
    #[arg(long, value_name = "BOOL", value_parser = boolean)]
    pub ipvs_strict_arp: Option<bool>,
    /// Timeout of an idle TCP connection; 0 leaves the kernel's [default: 0s]
    #[arg(long, value_name = "DURATION")]
    pub ipvs_tcp_timeout: Option<GoDuration>,
    /// Timeout of a TCP connection after a FIN; 0 leaves the kernel's [default: 0s]
    #[arg(long, value_name = "DURATION")]
    pub ipvs_tcpfin_timeout: Option<GoDuration>,
    /// Timeout of UDP; 0 leaves the kernel's [default: 0s]
    #[arg(long, value_name = "DURATION")]
    pub ipvs_udp_timeout: Option<GoDuration>,
    /// Bit of the packet mark that asks for masquerading, 0 to 31, in the mode ipvs too [default: 14]
    #[arg(long, value_name = "NUMBER")]
    pub iptables_masquerade_bit: Option<i32>,
    /// Masquerade all traffic to cluster IPs [default: false]
    #[arg(long, value_name = "BOOL", value_parser = boolean)]
    pub masquerade_all: Option<bool>,
    /// Answer on 127.0.0.1 for node ports [default: true]
    #[arg(long, value_name = "BOOL", value_parser = boolean)]
    pub iptables_localhost_nodeports: Option<bool>,
    /// --ipvs-sync-period, for the mode iptables [default: 30s]
    #[arg(long, value_name = "DURATION")]
    pub iptables_sync_period: Option<GoDuration>,
    /// --ipvs-min-sync-period, for the mode iptables [default: 1s]
    #[arg(long, value_name = "DURATION")]
    pub iptables_min_sync_period: Option<GoDuration>,

    /// How traffic of this node's pods is told: ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix
    /// [default: ClusterCIDR]
    #[arg(long, value_name = "MODE")]
    pub detect_local_mode: Option<String>,
    /// The bridge that pods are on, for BridgeInterface
    #[arg(long, value_name = "NAME")]
    pub pod_bridge_interface: Option<String>,
    /// What names of pods' devices begin with, for InterfaceNamePrefix
    #[arg(long, value_name = "PREFIX")]
    pub pod_interface_name_prefix: Option<String>,
    /// Addresses of all pods, for ClusterCIDR: a CIDR, or two of different families with a comma [default: none]
    #[arg(long, value_name = "CIDRS")]
    pub cluster_cidr: Option<String>,
    /// CIDRs of the node's addresses that have node ports, or `primary` [default: all addresses]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub nodeport_addresses: Option<Vec<String>>,

    /// oom_score_adj of the process, -1000 to 1000 [default: -999; left alone with --manifests]
    #[arg(long, value_name = "NUMBER")]
    pub oom_score_adj: Option<i32>,
    /// Connections that the kernel tracks for each processor; 0 leaves the kernel's limit [default: 32768; 0 with
    /// --manifests]
    #[arg(long, value_name = "NUMBER")]
    pub conntrack_max_per_core: Option<i32>,
    /// Connections that the kernel tracks at least [default: 131072; 0 with --manifests]
    #[arg(long, value_name = "NUMBER")]
    pub conntrack_min: Option<i32>,
    /// Timeout of an established connection; 0 leaves the kernel's [default: 24h; 0s with --manifests]
    #[arg(long, value_name = "DURATION")]
    pub conntrack_tcp_timeout_established: Option<GoDuration>,
    /// Timeout of a half closed connection; 0 leaves the kernel's [default: 1h; 0s with --manifests]
    #[arg(long, value_name = "DURATION")]
    pub conntrack_tcp_timeout_close_wait: Option<GoDuration>,
    /// Track TCP packets that are out of the window too [default: false, which leaves the kernel's]
    #[arg(long, value_name = "BOOL", value_parser = boolean)]
    pub conntrack_tcp_be_liberal: Option<bool>,
    /// Timeout of UDP without an answer; 0 leaves the kernel's [default: 0s]
    #[arg(long, value_name = "DURATION")]
    pub conntrack_udp_timeout: Option<GoDuration>,
    /// Timeout of UDP that was answered; 0 leaves the kernel's [default: 0s]
    #[arg(long, value_name = "DURATION")]
    pub conntrack_udp_timeout_stream: Option<GoDuration>,

    /// How much is logged, unless --log says it: 0 to 3 info, 4 and 5 debug, more trace [default: 0]
    #[arg(short, long, value_name = "NUMBER")]
    pub v: Option<u32>,
    /// The same for modules of ipvsd: MODULE=NUMBER,...
    #[arg(long, value_name = "LIST", value_parser = vmodule_item, value_delimiter = ',')]
    pub vmodule: Option<Vec<VmoduleItem>>,
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub logging_format: Option<String>,
    /// Accepted; nothing is held back [default: 5s]
    #[arg(long, value_name = "DURATION")]
    pub log_flush_frequency: Option<GoDuration>,
    /// Accepted with the gate LoggingAlphaOptions; all goes to stderr [default: false]
    #[arg(long, value_name = "BOOL", value_parser = boolean)]
    pub log_text_split_stream: Option<bool>,
    /// Accepted with the gate LoggingAlphaOptions; nothing is held back [default: 0 bytes]
    #[arg(long, value_name = "BYTES")]
    pub log_text_info_buffer_size: Option<Quantity>,
    /// Accepted with the gate LoggingAlphaOptions; all goes to stderr [default: false]
    #[arg(long, value_name = "BOOL", value_parser = boolean)]
    pub log_json_split_stream: Option<bool>,
    /// Accepted with the gate LoggingAlphaOptions; nothing is held back [default: 0 bytes]
    #[arg(long, value_name = "BYTES")]
    pub log_json_info_buffer_size: Option<Quantity>,
    /// Accepted, unused
    #[arg(long, value_name = "FILES")]
    pub machine_id_file: Option<String>,
    /// Accepted, unused
    #[arg(long, value_name = "FILES")]
    pub boot_id_file: Option<String>,
}

#[cfg(test)]
mod tests;
