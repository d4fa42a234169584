//! Label and field selectors: whether one matches an object.

use super::Record;
use serde_json::Value;

/// The selectors of a request.
#[derive(Clone, Debug)]
pub struct Selector {
    labels: Vec<String>,
    fields: Vec<String>,
    namespace: Option<String>,
}

impl Selector {
    pub fn of(record: &Record) -> Self {
        let terms = |name: &str| record.parameter(name).split(',').filter(|term| !term.is_empty()).map(str::to_owned);
        Self {
            labels: terms("labelSelector").collect(),
            fields: terms("fieldSelector").collect(),
            namespace: record.namespace.clone(),
        }
    }

    pub fn matches(&self, object: &Value) -> bool {
        let label = |key: &str| object["metadata"]["labels"].get(key).and_then(Value::as_str);
        let field = |path: &str| path.split('.').fold(object, |value, key| &value[key]).as_str();
        let namespace = object["metadata"]["namespace"].as_str();
        self.labels.iter().all(|term| holds(term, label))
            && self.fields.iter().all(|term| holds(term, |path| Some(field(path).unwrap_or_default())))
            && self.namespace.as_deref().is_none_or(|wanted| namespace == Some(wanted))
    }
}

/// `!key`, `key`, `key!=value`, `key==value` or `key=value`.
fn holds<'a>(term: &str, value_of: impl Fn(&str) -> Option<&'a str>) -> bool {
    if let Some(key) = term.strip_prefix('!') {
        value_of(key).is_none()
    } else if let Some((key, value)) = term.split_once("!=") {
        value_of(key) != Some(value)
    } else if let Some((key, value)) = term.split_once('=') {
        value_of(key) == Some(value.trim_start_matches('='))
    } else {
        value_of(term).is_some()
    }
}
