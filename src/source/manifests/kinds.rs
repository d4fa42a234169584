//! Which documents are ipvsd's to read, and what the others may have been meant to be.

use super::contents::Doubt;
use crate::state::ObjectName;
use serde_json::{Map, Value};

/// The API group of Services.
pub(super) const CORE: &str = "v1";
/// The API group of EndpointSlices.
pub(super) const DISCOVERY: &str = "discovery.k8s.io/v1";

/// The other kinds of the API group `v1`, a closed list. A ServiceAccount that shares its name with a Service is
/// common, and is no misspelt Service.
const OTHER_CORE_KINDS: [&str; 16] = [
    "Binding",
    "ComponentStatus",
    "ConfigMap",
    "Endpoints",
    "Event",
    "LimitRange",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "PodTemplate",
    "ReplicationController",
    "ResourceQuota",
    "Secret",
    "ServiceAccount",
];

/// What an object says of its type.
#[derive(Clone, Copy, Default)]
pub(super) struct Identity {
    pub api_version: Option<&'static str>,
    pub kind: Option<&'static str>,
}

/// What the items of a list are where they do not say so, if `fields` is a list. The API server's own lists,
/// such as `kubectl get -o yaml --raw` prints, leave it out.
pub(super) fn list_of(fields: &Map<String, Value>) -> Option<Identity> {
    let text = |key: &str| fields.get(key).and_then(Value::as_str);
    match (text("apiVersion")?, text("kind")?) {
        (CORE, "List") => Some(Identity::default()),
        (CORE, "ServiceList") => Some(Identity { api_version: Some(CORE), kind: Some("Service") }),
        (DISCOVERY, "EndpointSliceList") => {
            Some(Identity { api_version: Some(DISCOVERY), kind: Some("EndpointSlice") })
        }
        _ => None,
    }
}

/// The field and the message for an object that ipvsd does not read.
pub(super) fn stranger(
    api_version: Option<&str>,
    kind: Option<&str>,
    name: Option<&ObjectName>,
) -> (&'static str, String) {
    let read = "ipvsd reads Service and List of v1, and EndpointSlice of discovery.k8s.io/v1";
    let name = name.map(|name| format!(" {name}")).unwrap_or_default();
    match (api_version, kind) {
        (_, None) => ("kind", format!("missing: {read}")),
        (None, Some(kind)) => ("apiVersion", format!("missing, for {kind}{name}: {read}")),
        (Some(version), Some(kind @ ("Service" | "EndpointSlice"))) => {
            ("apiVersion", format!("{kind}{name} of {version} is not read: {read}"))
        }
        (Some(version), Some(kind)) => ("kind", format!("{kind}{name} of {version} is not read: {read}")),
    }
}

/// A slip in the kind or version of a Service must not take down its VIP, and a Deployment in the same file must
/// not keep a Service that was removed.
pub(super) fn doubt(api_version: Option<&str>, kind: Option<&str>, name: Option<ObjectName>) -> Doubt {
    let other = match (api_version, kind) {
        (Some(CORE), Some(kind)) => OTHER_CORE_KINDS.contains(&kind),
        (_, Some("Service" | "EndpointSlice")) | (None, _) | (_, None) | (Some(DISCOVERY), _) => false,
        (Some(_), Some(_)) => true,
    };
    match name {
        _ if other => Doubt::Nothing,
        Some(name) => Doubt::Named(name),
        None => Doubt::AnyOfTheFile,
    }
}
