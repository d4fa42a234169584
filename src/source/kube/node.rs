//! The Node object: what the cluster says of the machine that ipvsd runs on.

use crate::state::NodeObject;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The zone (Kubernetes API: well-known labels).
const ZONE: &str = "topology.kubernetes.io/zone";
/// The cluster autoscaler puts this taint on a node that it is about to remove; cloud controllers then take the node
/// out of their load balancers (KEP-3836).
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// A v1 Node as Kubernetes writes it: the fields that are used, all of them optional.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawNode {
    #[serde(deserialize_with = "null_is_default")]
    metadata: RawMetadata,
    #[serde(deserialize_with = "null_is_default")]
    spec: RawSpec,
    #[serde(deserialize_with = "null_is_default")]
    status: RawStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawMetadata {
    #[serde(deserialize_with = "null_is_default")]
    labels: BTreeMap<String, Option<String>>,
    deletion_timestamp: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RawSpec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs", deserialize_with = "null_is_default")]
    pod_cidrs: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    taints: Vec<RawTaint>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RawTaint {
    key: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RawStatus {
    #[serde(deserialize_with = "null_is_default")]
    addresses: Vec<RawAddress>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RawAddress {
    #[serde(rename = "type")]
    kind: Option<String>,
    address: Option<String>,
}

/// What is kept of a Node. Addresses and ranges that are none are left out, as kube-proxy does.
pub(super) fn convert(raw: &RawNode) -> NodeObject {
    let zone = raw.metadata.labels.get(ZONE).and_then(Option::as_deref).filter(|zone| !zone.is_empty());
    let is_leaving = raw.spec.taints.iter().any(|taint| taint.key.as_deref() == Some(TO_BE_DELETED));
    NodeObject {
        zone: zone.map(Arc::from),
        addresses: ["InternalIP", "ExternalIP"].into_iter().flat_map(|kind| addresses(&raw.status, kind)).collect(),
        pod_cidrs: pod_cidrs(&raw.spec),
        is_eligible: raw.metadata.deletion_timestamp.is_none() && !is_leaving,
    }
}

fn addresses<'a>(status: &'a RawStatus, kind: &'a str) -> impl Iterator<Item = IpAddr> + 'a {
    let of_kind = status.addresses.iter().filter(move |entry| entry.kind.as_deref() == Some(kind));
    of_kind.filter_map(|entry| entry.address.as_deref()?.trim().parse().ok())
}

fn pod_cidrs(spec: &RawSpec) -> Vec<IpNet> {
    let texts = if spec.pod_cidrs.is_empty() { spec.pod_cidr.as_slice() } else { &spec.pod_cidrs };
    texts.iter().filter_map(|text| text.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(json: serde_json::Value) -> NodeObject {
        convert(&serde_json::from_value(json).unwrap())
    }

    #[test]
    fn a_node_says_its_zone_addresses_ranges_and_whether_it_stays() {
        let found = node(json!({
            "metadata": {"labels": {"topology.kubernetes.io/zone": "a", "other": null}},
            "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00:1::/64", "nonsense"]},
            "status": {"addresses": [
                {"type": "ExternalIP", "address": "203.0.113.1"},
                {"type": "Hostname", "address": "worker"},
                {"type": "InternalIP", "address": "192.0.2.1"},
                {"type": "InternalIP", "address": "worker.example"},
                {"type": "InternalIP", "address": "fd00::1"},
            ]},
        }));
        assert_eq!(found.zone.as_deref(), Some("a"));
        let addresses: Vec<_> = found.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["192.0.2.1", "fd00::1", "203.0.113.1"]);
        let pod_cidrs: Vec<_> = found.pod_cidrs.iter().map(ToString::to_string).collect();
        assert_eq!(pod_cidrs, ["10.1.0.0/24", "fd00:1::/64"]);
        assert!(found.is_eligible);
    }

    #[test]
    fn the_old_field_for_one_range_is_read_where_the_new_one_is_missing() {
        assert_eq!(node(json!({"spec": {"podCIDR": "10.1.0.0/24"}})).pod_cidrs, ["10.1.0.0/24".parse().unwrap()]);
    }

    #[test]
    fn a_node_that_is_about_to_go_gets_no_traffic_from_load_balancers() {
        for (json, is_eligible) in [
            (json!({}), true),
            (json!({"metadata": null, "spec": null, "status": null}), true),
            (json!({"spec": {"taints": [{"key": "other", "effect": "NoSchedule"}]}}), true),
            (json!({"spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}}), false),
            (json!({"metadata": {"deletionTimestamp": "2026-11-25T10:00:00Z"}}), false),
        ] {
            assert_eq!(node(json.clone()).is_eligible, is_eligible, "{json}");
        }
    }
}
