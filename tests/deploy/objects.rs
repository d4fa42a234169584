//! Every document is an object of its kind, with no field that the kind does not have.

use crate::support::deployment::{self, Document};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

#[test]
fn every_object_says_the_same_after_it_was_read_as_its_kind() {
    let mut kinds: Vec<String> = Vec::new();
    for document in deployment::documents().iter().filter(|document| is_whole(document)) {
        if let Some(again) = again(document) {
            assert_eq!(again, document.value, "{}", document.file.display());
            kinds.push(document.kind().to_owned());
        }
    }
    kinds.sort();
    kinds.dedup();
    let expected = ["ClusterRole", "ClusterRoleBinding", "DaemonSet", "EndpointSlice", "Service", "ServiceAccount"];
    assert_eq!(kinds, expected);
}

#[test]
fn every_patch_says_nothing_that_its_kind_does_not_have() {
    let patches: Vec<_> = deployment::documents().into_iter().filter(|document| !is_whole(document)).collect();
    assert_eq!(patches.len(), 2);
    for Document { file, value } in patches {
        let value = without_directives(&value);
        let again = again(&Document { file: file.clone(), value: value.clone() }).unwrap();
        assert_eq!(lost(&value, &again, ""), None::<String>, "{}", file.display());
    }
}

#[test]
fn what_is_no_object_of_the_api_is_of_a_known_kind() {
    let known = ["Component", "Config", "KubeProxyConfiguration", "Kustomization"];
    for document in deployment::documents() {
        assert!(again(&document).is_some() || known.contains(&document.kind()), "{document:?}");
    }
}

#[test]
fn a_misspelt_field_is_found_in_an_object_and_in_a_patch() {
    let value = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a", "lables": {}}});
    let document = Document { file: "made up".into(), value };
    let again = again(&document).unwrap();
    assert_ne!(again, document.value);
    assert_eq!(lost(&document.value, &again, ""), Some("/metadata/lables".to_owned()));
}

/// A patch is not a whole object: it has what changes.
fn is_whole(document: &Document) -> bool {
    !document.file.starts_with("deploy/kustomize/kubeadm") || document.kind() == "Component"
}

/// The object read as its kind and written again; none for a kind that is not the API's.
pub fn again(document: &Document) -> Option<Value> {
    Some(match document.kind() {
        "ClusterRole" => reread::<ClusterRole>(document),
        "ClusterRoleBinding" => reread::<ClusterRoleBinding>(document),
        "ConfigMap" => reread::<ConfigMap>(document),
        "DaemonSet" => reread::<DaemonSet>(document),
        "EndpointSlice" => reread::<EndpointSlice>(document),
        "Service" => reread::<Service>(document),
        "ServiceAccount" => reread::<ServiceAccount>(document),
        _ => return None,
    })
}

fn reread<T: DeserializeOwned + Serialize>(document: &Document) -> Value {
    let object: T = serde_json::from_value(document.value.clone())
        .unwrap_or_else(|error| panic!("{}: {error}", document.file.display()));
    serde_json::to_value(object).unwrap()
}

/// The patch without the entries of lists that say what to delete (`$patch: delete`).
fn without_directives(patch: &Value) -> Value {
    match patch {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), without_directives(value))).collect(),
        Value::Array(items) => {
            items.iter().filter(|item| item.get("$patch").is_none()).map(without_directives).collect()
        }
        other => other.clone(),
    }
}

/// Where `again` lacks something of `said`, or has something else there.
fn lost(said: &Value, again: &Value, at: &str) -> Option<String> {
    match (said, again) {
        (Value::Object(said), Value::Object(again)) => said.iter().find_map(|(name, value)| {
            let at = format!("{at}/{name}");
            again.get(name).map_or(Some(at.clone()), |again| lost(value, again, &at))
        }),
        (Value::Array(said), Value::Array(again)) if said.len() == again.len() => {
            let mut pairs = said.iter().zip(again).enumerate();
            pairs.find_map(|(index, (said, again))| lost(said, again, &format!("{at}/{index}")))
        }
        _ => (said != again).then(|| at.to_owned()),
    }
}
