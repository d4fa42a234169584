//! What fields objects have, as the API server knows them: a misspelt one would otherwise do nothing and say nothing.
//!
//! Fields of Kubernetes 1.36 (`core/v1` and `discovery.k8s.io/v1`), those too that ipvsd does not use: a manifest may be what
//! kubectl printed.

use serde_json::Value;

/// What may stand somewhere.
pub(super) enum Shape {
    /// Something that is not looked into.
    Any,
    /// A mapping with these fields.
    Mapping(&'static [(&'static str, Shape)]),
    /// A sequence of such.
    Sequence(&'static Shape),
}

use Shape::{Any, Mapping, Sequence};

/// A Service of `v1`.
pub(super) const SERVICE: Shape = Mapping(&[
    ("apiVersion", Any),
    ("kind", Any),
    ("metadata", METADATA),
    ("spec", SERVICE_SPEC),
    ("status", Mapping(&[("conditions", Any), ("loadBalancer", Mapping(&[("ingress", Sequence(&INGRESS))]))])),
]);

/// An EndpointSlice of `discovery.k8s.io/v1`.
pub(super) const ENDPOINT_SLICE: Shape = Mapping(&[
    ("apiVersion", Any),
    ("kind", Any),
    ("metadata", METADATA),
    ("addressType", Any),
    ("endpoints", Sequence(&ENDPOINT)),
    ("ports", Sequence(&Mapping(&[("appProtocol", Any), ("name", Any), ("port", Any), ("protocol", Any)]))),
]);

const METADATA: Shape = Mapping(&[
    ("annotations", Any),
    ("creationTimestamp", Any),
    ("deletionGracePeriodSeconds", Any),
    ("deletionTimestamp", Any),
    ("finalizers", Any),
    ("generateName", Any),
    ("generation", Any),
    ("labels", Any),
    ("managedFields", Any),
    ("name", Any),
    ("namespace", Any),
    ("ownerReferences", Any),
    ("resourceVersion", Any),
    ("selfLink", Any),
    ("uid", Any),
]);

const SERVICE_SPEC: Shape = Mapping(&[
    ("allocateLoadBalancerNodePorts", Any),
    ("clusterIP", Any),
    ("clusterIPs", Any),
    ("externalIPs", Any),
    ("externalName", Any),
    ("externalTrafficPolicy", Any),
    ("healthCheckNodePort", Any),
    ("internalTrafficPolicy", Any),
    ("ipFamilies", Any),
    ("ipFamilyPolicy", Any),
    ("loadBalancerClass", Any),
    ("loadBalancerIP", Any),
    ("loadBalancerSourceRanges", Any),
    ("ports", Sequence(&SERVICE_PORT)),
    ("publishNotReadyAddresses", Any),
    ("selector", Any),
    ("sessionAffinity", Any),
    ("sessionAffinityConfig", Mapping(&[("clientIP", Mapping(&[("timeoutSeconds", Any)]))])),
    ("trafficDistribution", Any),
    ("type", Any),
]);

const SERVICE_PORT: Shape = Mapping(&[
    ("appProtocol", Any),
    ("name", Any),
    ("nodePort", Any),
    ("port", Any),
    ("protocol", Any),
    ("targetPort", Any),
]);

const INGRESS: Shape = Mapping(&[("hostname", Any), ("ip", Any), ("ipMode", Any), ("ports", Any)]);

const ENDPOINT: Shape = Mapping(&[
    ("addresses", Any),
    ("conditions", Mapping(&[("ready", Any), ("serving", Any), ("terminating", Any)])),
    ("deprecatedTopology", Any),
    ("hints", Mapping(&[("forNodes", Sequence(&HINT)), ("forZones", Sequence(&HINT))])),
    ("hostname", Any),
    ("nodeName", Any),
    ("targetRef", TARGET),
    ("zone", Any),
]);

const HINT: Shape = Mapping(&[("name", Any)]);

const TARGET: Shape = Mapping(&[
    ("apiVersion", Any),
    ("fieldPath", Any),
    ("kind", Any),
    ("name", Any),
    ("namespace", Any),
    ("resourceVersion", Any),
    ("uid", Any),
]);

/// Where a value is not of a shape.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// The path of a field that nobody knows.
    Unknown(String),
    /// The path of a sequence in the place of a mapping, which would be taken for its fields in some order.
    Sequence(String),
}

/// The first misfit of `value`. What is of another wrong type is told by whoever reads it.
pub(super) fn misfit(value: &Value, shape: &Shape) -> Option<Misfit> {
    let within = |place: String, misfit| match misfit {
        Misfit::Unknown(rest) => Misfit::Unknown(joined(place, &rest)),
        Misfit::Sequence(rest) => Misfit::Sequence(joined(place, &rest)),
    };
    match (shape, value) {
        (Mapping(fields), Value::Object(map)) => map.iter().find_map(|(key, value)| {
            let found = match fields.iter().find(|(name, _)| name == key) {
                Some((_, shape)) => misfit(value, shape)?,
                None => Misfit::Unknown(String::new()),
            };
            Some(within(key.clone(), found))
        }),
        (Mapping(_), Value::Array(_)) => Some(Misfit::Sequence(String::new())),
        (Sequence(item), Value::Array(values)) => values
            .iter()
            .enumerate()
            .find_map(|(index, value)| Some(within(format!("[{index}]"), misfit(value, item)?))),
        _ => None,
    }
}

fn joined(place: String, rest: &str) -> String {
    match rest {
        "" => place,
        index if index.starts_with('[') => place + index,
        field => place + "." + field,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_misspelt_or_no_mapping_is_found() {
        let unknown = |path: &str| Some(Misfit::Unknown(path.into()));
        let sequence = |path: &str| Some(Misfit::Sequence(path.into()));
        for (value, found) in [
            (
                json!({"kind": "Service", "metadata": {"labels": {"any": "thing"}}, "spec": {"selector": {"a": 1}}}),
                None,
            ),
            (json!({"spec": {"sesionAffinity": "ClientIP"}}), unknown("spec.sesionAffinity")),
            (json!({"spec": {"ports": [{"port": 80}, {"prot": 80}]}}), unknown("spec.ports[1].prot")),
            (json!({"Spec": 1}), unknown("Spec")),
            (json!({"spec": ["ClusterIP", "10.0.0.1"]}), sequence("spec")),
            (json!({"spec": {"ports": [["http"]]}}), sequence("spec.ports[0]")),
            (json!({"spec": null, "status": 7}), None),
        ] {
            assert_eq!(misfit(&value, &SERVICE), found, "{value}");
        }
        let slice = json!({"endpoints": [{"addresses": ["10.0.0.1"], "condition": {"ready": false}}]});
        assert_eq!(misfit(&slice, &ENDPOINT_SLICE), unknown("endpoints[0].condition"));
        let slice = json!({"endpoints": [{"hints": {"forZones": [{"nam": "a"}]}}]});
        assert_eq!(misfit(&slice, &ENDPOINT_SLICE), unknown("endpoints[0].hints.forZones[0].nam"));
    }
}
