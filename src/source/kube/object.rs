//! The JSON of one object into what is kept of it. Only the fields that are used are read, so `managedFields` and the
//! like are gone with the text.

use super::kind::Kind;
use super::node::{self, RawNode};
use super::wire::Identity;
use crate::source::convert::{self, Context, Converted, DEFAULT_NAMESPACE, RawEndpointSlice, RawService};
use crate::state::{EndpointSlice, NodeObject, ObjectName, ObjectRef, Origin, Problem, Service};
use k8s_openapi::jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::SystemTime;

/// Written by the endpoint slice controller: when the change happened that led to this version of the slice.
const TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// An object as the API server sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    /// Namespace and name (a Node's namespace means nothing). None where not even that can be read.
    pub name: Option<ObjectName>,
    /// When it was changed last, on the clock that all objects of the cluster share; 0 where that cannot be read.
    pub version: u64,
    /// What led to that change happened then; EndpointSlices only.
    pub trigger: Option<SystemTime>,
    /// What it says.
    pub content: Content,
    /// What is wrong with parts that it is used without.
    pub slips: Vec<Problem>,
}

/// What is told of one kind of object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A list begins, perhaps in place of one that did not come to its end.
    ListBegins,
    /// An object of the list.
    Listed(Object),
    /// The list is complete.
    ListEnds,
    /// An object is new or different since the list.
    Changed(Object),
    /// An object is gone, or a selector no longer matches it.
    Gone(Object),
}

/// What an object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Service(Arc<Service>),
    EndpointSlice(Arc<EndpointSlice>),
    Node(NodeObject),
    /// Nothing for ipvsd.
    NotOurs,
    /// Something that cannot be.
    Bad(Problem),
}

impl Object {
    /// Reads the object of kind `kind` in `json`.
    pub(super) fn read(kind: Kind, json: &RawValue, context: &Context) -> Self {
        let identity = Identity::of(json);
        let trigger = if kind == Kind::EndpointSlices { identity.annotation(TRIGGER) } else { None };
        let name = identity
            .name()
            .map(|name| ObjectName::new(identity.namespace().as_deref().unwrap_or(DEFAULT_NAMESPACE), &name));
        let (content, slips) = content(kind, json, context).unwrap_or_else(|problem| {
            let object = name.clone().and_then(|name| reference(kind, name));
            (Content::Bad(Problem { object, ..problem }), Vec::new())
        });
        Self {
            name,
            version: identity.version().and_then(|version| version.parse().ok()).unwrap_or_default(),
            trigger: trigger.and_then(|text| text.parse::<Timestamp>().ok()).map(SystemTime::from),
            content,
            slips,
        }
    }
}

/// What an object says, and what is wrong with parts of it.
fn content(kind: Kind, json: &RawValue, context: &Context) -> Result<(Content, Vec<Problem>), Problem> {
    Ok(match kind {
        Kind::Services => {
            let converted = convert::service(&typed::<RawService>(json)?, &Origin::Api, context)?;
            used(converted, |service| Content::Service(Arc::new(service)))
        }
        Kind::EndpointSlices => {
            let converted = convert::endpoint_slice(&typed::<RawEndpointSlice>(json)?, &Origin::Api, context)?;
            used(converted, |slice| Content::EndpointSlice(Arc::new(slice)))
        }
        Kind::Node => (Content::Node(node::convert(&typed::<RawNode>(json)?)), Vec::new()),
    })
}

fn used<T>(converted: Option<Converted<T>>, content: impl FnOnce(T) -> Content) -> (Content, Vec<Problem>) {
    match converted {
        Some(Converted { object, problems }) => (content(object), problems),
        None => (Content::NotOurs, Vec::new()),
    }
}

/// Finding the path of a wrong field costs as much as reading, so it is done only when there is one.
fn typed<R: DeserializeOwned>(json: &RawValue) -> Result<R, Problem> {
    serde_json::from_str(json.get()).or_else(|_| {
        let mut text = serde_json::Deserializer::from_str(json.get());
        serde_path_to_error::deserialize(&mut text).map_err(|error| {
            let field = Some(error.path().to_string()).filter(|path| path != ".").unwrap_or_default();
            Problem { origin: Origin::Api, object: None, field, message: without_place(&error.into_inner()) }
        })
    })
}

/// The line and column are those of a text that nobody can look at.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message).to_owned()
}

fn reference(kind: Kind, name: ObjectName) -> Option<ObjectRef> {
    match kind {
        Kind::Services => Some(ObjectRef::Service(name)),
        Kind::EndpointSlices => Some(ObjectRef::EndpointSlice(name)),
        Kind::Node => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::convert::Rules;
    use serde_json::json;
    use std::time::Duration;

    fn read(kind: Kind, json: &serde_json::Value) -> Object {
        let context = Context::new(Rules::Api, "node-1");
        Object::read(kind, &serde_json::value::to_raw_value(json).unwrap(), &context)
    }

    fn problem(kind: Kind, json: &serde_json::Value) -> String {
        match read(kind, json).content {
            Content::Bad(problem) => problem.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_object_has_its_name_version_and_trigger() {
        let object = read(
            Kind::EndpointSlices,
            &json!({
                "metadata": {
                    "namespace": "shop",
                    "name": "web-1",
                    "resourceVersion": "42",
                    "labels": {"kubernetes.io/service-name": "web"},
                    "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "1970-01-01T00:00:01.5Z"},
                    "managedFields": [{"fieldsV1": {"f:endpoints": {}}}],
                },
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["10.1.0.1"]}],
                "ports": [{"name": "", "port": 80}],
            }),
        );
        assert_eq!((object.name, object.version), (Some(ObjectName::new("shop", "web-1")), 42));
        assert_eq!(object.trigger, Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1500)));
        let Content::EndpointSlice(slice) = object.content else { panic!("{:?}", object.content) };
        assert_eq!((slice.service.to_string(), slice.endpoints.len()), ("shop/web".to_owned(), 1));
    }

    #[test]
    fn what_is_not_to_be_proxied_is_not_ours() {
        let external_name = json!({"metadata": {"name": "a"}, "spec": {"type": "ExternalName"}});
        assert_eq!(read(Kind::Services, &external_name).content, Content::NotOurs);
        let names = json!({"metadata": {"name": "a"}, "addressType": "FQDN"});
        assert_eq!(read(Kind::EndpointSlices, &names).content, Content::NotOurs);
    }

    #[test]
    fn a_wrong_type_is_a_problem_of_the_object_and_names_the_field() {
        let service = |spec| json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec});
        for (json, message) in [
            (
                service(json!({"ports": [{"port": 80}, {"port": {}}]})),
                "the API: Service shop/web: spec.ports[1].port: invalid type: map, expected a JSON number",
            ),
            (
                service(json!("none")),
                "the API: Service shop/web: spec: invalid type: string \"none\", expected a mapping",
            ),
            (
                json!({"metadata": {"name": "web", "namespace": "shop", "labels": 3}}),
                "the API: Service shop/web: metadata.labels: invalid type: integer `3`, expected a map",
            ),
            (
                json!({"metadata": {"name": ["web"]}}),
                "the API: metadata.name: invalid type: sequence, expected a string",
            ),
            (json!({"metadata": 1}), "the API: metadata: invalid type: integer `1`, expected a mapping"),
            (json!("nothing"), "the API: invalid type: string \"nothing\", expected a mapping"),
        ] {
            let found = problem(Kind::Services, &json);
            assert!(found.starts_with(message), "{found}\n{message}");
        }
    }

    #[test]
    fn what_is_of_the_right_type_and_cannot_be_is_a_problem_too() {
        let spec = json!({"clusterIP": "10.0.0.1", "ports": [{"port": 70000}]});
        assert_eq!(
            problem(Kind::Services, &json!({"metadata": {"name": "web"}, "spec": spec})),
            "the API: Service default/web: spec.ports[0].port: 70000 is not a port: 1 to 65535 are"
        );
    }
}
