//! The JSON around the objects: pages of a list and lines of a watch. The objects stay text here, so that one that is
//! wrong spoils nothing but itself.

use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;

/// In a bookmark of a list that is sent as a stream: everything has been sent (Kubernetes API concepts, streaming
/// lists).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// A page of a list.
#[derive(Debug, Deserialize)]
pub(super) struct Page<'a> {
    pub metadata: PageMetadata,
    /// The API server writes `null` for none.
    #[serde(borrow, default)]
    pub items: Option<Vec<&'a RawValue>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PageMetadata {
    /// Where a watch goes on from here.
    pub resource_version: String,
    /// Names the next page; empty on the last one.
    #[serde(default, rename = "continue")]
    pub next: String,
}

/// A line of a watch. The API server writes `type` first, which nothing here relies on.
#[derive(Debug, Deserialize)]
pub(super) struct Line<'a> {
    #[serde(rename = "type", borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    pub object: &'a RawValue,
}

/// What every object says of itself. Each text is read alone: one of the wrong JSON type is as good as absent.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Identity<'a> {
    #[serde(borrow, default)]
    metadata: Metadata<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    namespace: Option<&'a RawValue>,
    #[serde(borrow)]
    resource_version: Option<&'a RawValue>,
    #[serde(borrow)]
    annotations: Option<&'a RawValue>,
}

impl<'a> Identity<'a> {
    /// Of the object in `json`; what cannot be read is absent.
    pub(super) fn of(json: &'a RawValue) -> Self {
        serde_json::from_str(json.get()).unwrap_or_default()
    }

    pub(super) fn name(&self) -> Option<Cow<'a, str>> {
        text(self.metadata.name)
    }

    pub(super) fn namespace(&self) -> Option<Cow<'a, str>> {
        text(self.metadata.namespace)
    }

    /// Names the state of the whole collection after the object's last change.
    pub(super) fn version(&self) -> Option<Cow<'a, str>> {
        text(self.metadata.resource_version)
    }

    pub(super) fn annotation(&self, key: &str) -> Option<String> {
        let all: HashMap<String, &RawValue> = serde_json::from_str(self.metadata.annotations?.get()).ok()?;
        text(all.get(key).copied()).map(Cow::into_owned)
    }

    /// Whether this bookmark ends the list that came before it.
    pub(super) fn ends_the_list(&self) -> bool {
        self.annotation(INITIAL_EVENTS_END).as_deref() == Some("true")
    }
}

fn text(json: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let text: Cow<'_, str> = serde_json::from_str::<Borrowed<'_>>(json?.get()).ok()?.0;
    Some(text).filter(|text| !text.is_empty())
}

/// A text that is copied only where it has escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_comes_first() {
        for line in [
            r#"{"type":"ADDED","object":{"metadata":{"resourceVersion":"7"}}}"#,
            r#"{"object":{"metadata":{"resourceVersion":"7"}},"type":"ADDED"}"#,
            r#"{"object":{"metadata":{"resourceVersion":"7"}},"other":[1],"type":"ADD\u0045D"}"#,
        ] {
            let line: Line<'_> = serde_json::from_str(line).unwrap();
            assert_eq!(line.kind, "ADDED");
            assert_eq!(Identity::of(line.object).version().as_deref(), Some("7"));
        }
    }

    #[test]
    fn a_page_may_be_empty_in_every_way_but_needs_its_version() {
        for (text, items) in [
            (r#"{"metadata":{"resourceVersion":"7"},"items":[{},7]}"#, 2),
            (r#"{"metadata":{"resourceVersion":"7","continue":""},"items":[]}"#, 0),
            (r#"{"metadata":{"resourceVersion":"7"},"items":null}"#, 0),
            (r#"{"metadata":{"resourceVersion":"7"}}"#, 0),
        ] {
            let page: Page<'_> = serde_json::from_str(text).unwrap();
            assert_eq!((page.items.unwrap_or_default().len(), &*page.metadata.next), (items, ""));
        }
        for text in ["{}", r#"{"metadata":{}}"#, r#"{"metadata":{"resourceVersion":"7"},"items":{}}"#, "[", ""] {
            assert!(serde_json::from_str::<Page<'_>>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_of_an_identity_costs_nothing_else_of_it() {
        let json = r#"{"metadata":{"name":"web","namespace":[],"resourceVersion":7,"annotations":{"a":1,"b":"two"}}}"#;
        let json: &RawValue = serde_json::from_str(json).unwrap();
        let identity = Identity::of(json);
        assert_eq!(identity.name().as_deref(), Some("web"));
        assert_eq!((identity.namespace(), identity.version()), (None, None));
        assert_eq!((identity.annotation("a"), identity.annotation("b")), (None, Some("two".to_owned())));
        let nothing: &RawValue = serde_json::from_str("[]").unwrap();
        assert_eq!(Identity::of(nothing).name(), None);
    }
}
