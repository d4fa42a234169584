//! What each Service and EndpointSlice becomes, or the exact words that say why it does not.

mod bad_service;
mod endpoint_slice;
mod service;

use super::*;
use crate::state::Families;
use serde_json::{Value, json};
use std::time::Duration;

const FILE: &str = "web.yaml";

fn origin() -> Origin {
    Origin::Manifest { file: FILE.into(), document: 1 }
}

/// `base` with the values of `patch` in place of its own, mappings merged, as a JSON merge patch.
fn patched(mut base: Value, patch: &Value) -> Value {
    match (base.as_object_mut(), patch.as_object()) {
        (Some(fields), Some(changes)) => {
            for (key, change) in changes {
                let field = fields.remove(key).unwrap_or(Value::Null);
                fields.insert(key.clone(), patched(field, change));
            }
            base
        }
        _ => patch.clone(),
    }
}

fn web() -> Value {
    json!({
        "metadata": { "name": "web" },
        "spec": { "clusterIP": "10.0.0.1", "ports": [{ "port": 80 }] },
    })
}

fn web_slice() -> Value {
    json!({
        "metadata": { "name": "web-1", "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4",
        "ports": [{ "port": 8080 }],
        "endpoints": [{ "addresses": ["10.1.0.1"] }, { "addresses": ["10.1.0.2"] }],
    })
}

/// What a patch of the Service `web` becomes; that a manifest's is used in spite of a problem is none.
fn read_service(patch: &Value, rules: Rules) -> Result<Option<Service>, Problem> {
    service(&serde_json::from_value(patched(web(), patch)).unwrap(), &origin(), &context(rules)).map(whole)
}

fn read_slice(patch: &Value, rules: Rules) -> Result<Option<EndpointSlice>, Problem> {
    endpoint_slice(&serde_json::from_value(patched(web_slice(), patch)).unwrap(), &origin(), &context(rules)).map(whole)
}

fn context(rules: Rules) -> Context {
    Context::new(rules, "node-1")
}

fn whole<T>(converted: Option<Converted<T>>) -> Option<T> {
    converted.map(|converted| {
        assert_eq!(converted.problems, []);
        converted.object
    })
}

/// The fields of a Service of the API that it is used without, and what is wrong with them.
fn slips<T>(converted: Outcome<T>) -> (T, Vec<(String, String)>) {
    let Ok(Some(Converted { object, problems })) = converted else { panic!("it is not used") };
    (object, problems.into_iter().map(|problem| (problem.field, problem.message)).collect())
}

fn addresses<const N: usize>(texts: [&str; N]) -> Vec<std::net::IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// What to change in a good object, the field that is to blame then, and the message.
type Bad = (Value, &'static str, &'static str);

#[test]
fn an_object_without_a_name_is_a_problem_without_an_object() {
    for name in [json!(null), json!("")] {
        let patch = json!({ "metadata": { "name": name } });
        let service = read_service(&patch, Rules::Manifest).unwrap_err();
        assert_eq!(service.to_string(), "web.yaml, document 1: metadata.name: missing");
        assert_eq!(read_slice(&patch, Rules::Manifest), Err(service));
    }
}

#[test]
fn what_only_ipvsd_minds_costs_an_object_of_the_api_nothing_else() {
    let patch = json!({
        "metadata": { "annotations": { "ipvsd.io/scheduler": "Round Robin", "ipvsd.io/drain-timeout": "1m" } },
        "spec": { "externalIPs": ["127.0.0.1", "192.0.2.1"] },
    });
    let raw = serde_json::from_value(patched(web(), &patch)).unwrap();
    let (service, wrong) = slips(service(&raw, &origin(), &context(Rules::Api)));
    assert_eq!((service.external_ips, service.scheduling), (addresses(["192.0.2.1"]), None));
    assert_eq!(service.drain_timeout, Some(Duration::from_secs(60)), "each annotation for itself");
    let message = "\"Round Robin\" is not a scheduler name: 1 to 15 characters of a-z, 0-9, _ and - are";
    let wanted = [
        ("spec.externalIPs[0]", "127.0.0.1 is a loopback address, which cannot be proxied"),
        ("metadata.annotations[ipvsd.io/scheduler]", message),
    ];
    assert_eq!(wrong, wanted.map(|(field, message)| (field.to_owned(), message.to_owned())));

    let patch = json!({ "metadata": { "annotations": { "ipvsd.io/weights": "10.1.0.1=heavy" } } });
    let raw = serde_json::from_value(patched(web_slice(), &patch)).unwrap();
    let (slice, wrong) = slips(endpoint_slice(&raw, &origin(), &context(Rules::Api)));
    assert_eq!(slice.endpoints.iter().map(|endpoint| endpoint.weight).collect::<Vec<_>>(), [1, 1]);
    let wanted = ("metadata.annotations[ipvsd.io/weights]", "\"heavy\" is not a weight: 0 to 65535 are");
    assert_eq!(wrong, [(wanted.0.to_owned(), wanted.1.to_owned())]);

    let special = json!({ "spec": { "clusterIP": "169.254.1.1", "ports": [{ "port": 80, "nodePort": 30_080 }] } });
    let raw = serde_json::from_value(patched(web(), &special)).unwrap();
    let (service, wrong) = slips(super::service(&raw, &origin(), &context(Rules::Api)));
    assert_eq!((service.families, service.cluster_ips), (Families { ipv4: true, ipv6: false }, vec![]));
    assert_eq!(wrong[0].1, "169.254.1.1 is a link-local address, which cannot be proxied");
}
