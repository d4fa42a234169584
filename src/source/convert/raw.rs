//! The objects as Kubernetes writes them: only the fields that ipvsd uses, all of them optional.
//!
//! `null` is the same as absent everywhere, as for the API server. Nothing is checked here but the JSON types.

use serde::{Deserialize, Deserializer};
use serde_json::Number;
use std::collections::BTreeMap;

/// Labels or annotations; a `null` value is an empty one.
pub type Strings = BTreeMap<String, Option<String>>;

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// `metadata`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "a mapping")]
pub struct RawMetadata {
    /// Missing is a problem.
    pub name: Option<String>,
    /// Missing means `default`.
    pub namespace: Option<String>,
    /// Says whose an object is.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: Strings,
    /// Those that begin with `ipvsd.io/` are ipvsd's.
    #[serde(deserialize_with = "null_is_default")]
    pub annotations: Strings,
}

/// A v1 Service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "a mapping")]
pub struct RawService {
    /// Name, labels, annotations.
    #[serde(deserialize_with = "null_is_default")]
    pub metadata: RawMetadata,
    /// What is wanted.
    #[serde(deserialize_with = "null_is_default")]
    pub spec: RawServiceSpec,
    /// What the load balancer's controller says.
    #[serde(deserialize_with = "null_is_default")]
    pub status: RawServiceStatus,
}

/// A Service's `spec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", expecting = "a mapping")]
pub struct RawServiceSpec {
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The primary cluster IP, or `None`.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// All cluster IPs, the primary one first.
    #[serde(rename = "clusterIPs", deserialize_with = "null_is_default")]
    pub cluster_ips: Vec<String>,
    /// `IPv4` or `IPv6`, one for each of the cluster IPs.
    #[serde(deserialize_with = "null_is_default")]
    pub ip_families: Vec<String>,
    /// Addresses that somebody else routes to the node.
    #[serde(rename = "externalIPs", deserialize_with = "null_is_default")]
    pub external_ips: Vec<String>,
    /// At least one.
    #[serde(deserialize_with = "null_is_default")]
    pub ports: Vec<RawServicePort>,
    /// `None` or `ClientIP`.
    pub session_affinity: Option<String>,
    /// Holds the timeout of `ClientIP`.
    #[serde(deserialize_with = "null_is_default")]
    pub session_affinity_config: RawSessionAffinityConfig,
    /// `Cluster` or `Local`, for the cluster IPs.
    pub internal_traffic_policy: Option<String>,
    /// `Cluster` or `Local`, for every other way in.
    pub external_traffic_policy: Option<String>,
    /// Where load balancers ask whether this node has endpoints, 0 or nothing for nowhere.
    pub health_check_node_port: Option<Number>,
    /// Which clients may use the load balancer's addresses.
    #[serde(deserialize_with = "null_is_default")]
    pub load_balancer_source_ranges: Vec<String>,
}

/// One of a Service's `ports`. `targetPort` is not here: the EndpointSlice says where connections go.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", expecting = "a mapping")]
pub struct RawServicePort {
    /// Needed when there are several ports.
    pub name: Option<String>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Option<String>,
    /// The port of all addresses.
    pub port: Option<Number>,
    /// The port of the node's own addresses, 0 or nothing for none.
    pub node_port: Option<Number>,
}

/// `spec.sessionAffinityConfig`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", expecting = "a mapping")]
pub struct RawSessionAffinityConfig {
    /// The settings of `ClientIP`.
    #[serde(rename = "clientIP", deserialize_with = "null_is_default")]
    pub client_ip: RawClientIp,
}

/// `spec.sessionAffinityConfig.clientIP`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", expecting = "a mapping")]
pub struct RawClientIp {
    /// How long a client keeps its endpoint.
    pub timeout_seconds: Option<Number>,
}

/// A Service's `status`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", expecting = "a mapping")]
pub struct RawServiceStatus {
    /// The addresses given by a load balancer.
    #[serde(deserialize_with = "null_is_default")]
    pub load_balancer: RawLoadBalancerStatus,
}

/// `status.loadBalancer`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "a mapping")]
pub struct RawLoadBalancerStatus {
    /// One entry per address or hostname.
    #[serde(deserialize_with = "null_is_default")]
    pub ingress: Vec<RawIngress>,
}

/// One of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", expecting = "a mapping")]
pub struct RawIngress {
    /// Missing when the load balancer is known by a hostname.
    pub ip: Option<String>,
    /// `VIP` (or nothing): packets arrive with this destination. `Proxy`: they do not.
    pub ip_mode: Option<String>,
}

/// A discovery.k8s.io/v1 EndpointSlice.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", expecting = "a mapping")]
pub struct RawEndpointSlice {
    /// Name, labels, annotations.
    #[serde(deserialize_with = "null_is_default")]
    pub metadata: RawMetadata,
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: Option<String>,
    /// Target ports, matched to the Service's by name and protocol.
    #[serde(deserialize_with = "null_is_default")]
    pub ports: Vec<RawSlicePort>,
    /// Where connections go.
    #[serde(deserialize_with = "null_is_default")]
    pub endpoints: Vec<RawEndpoint>,
}

/// One of a slice's `ports`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "a mapping")]
pub struct RawSlicePort {
    /// The Service port's name.
    pub name: Option<String>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Option<String>,
    /// The target port.
    pub port: Option<Number>,
}

/// One of a slice's `endpoints`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", expecting = "a mapping")]
pub struct RawEndpoint {
    /// Addresses of one pod, of which the first is used.
    #[serde(deserialize_with = "null_is_default")]
    pub addresses: Vec<String>,
    /// Whether it takes connections.
    #[serde(deserialize_with = "null_is_default")]
    pub conditions: RawConditions,
    /// The node it is on.
    pub node_name: Option<String>,
    /// What it is: a pod, as a rule.
    #[serde(deserialize_with = "null_is_default")]
    pub target_ref: RawTargetRef,
    /// Whose clients it is meant for.
    #[serde(deserialize_with = "null_is_default")]
    pub hints: RawHints,
}

/// An endpoint's `targetRef`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "a mapping")]
pub struct RawTargetRef {
    /// The object's name.
    pub name: Option<String>,
}

/// An endpoint's `hints`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", expecting = "a mapping")]
pub struct RawHints {
    /// Zones.
    #[serde(deserialize_with = "null_is_default")]
    pub for_zones: Vec<RawHint>,
    /// Nodes.
    #[serde(deserialize_with = "null_is_default")]
    pub for_nodes: Vec<RawHint>,
}

/// One zone or node of an endpoint's `hints`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, expecting = "a mapping")]
pub struct RawHint {
    /// The zone's or the node's.
    pub name: Option<String>,
}

/// An endpoint's `conditions`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, expecting = "a mapping")]
pub struct RawConditions {
    /// Takes connections.
    pub ready: Option<bool>,
    /// Would take connections, were it not terminating.
    pub serving: Option<bool>,
    /// Is going away.
    pub terminating: Option<bool>,
}
