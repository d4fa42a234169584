//! A text in YAML or JSON into typed fields. Strict first and lenient then, as kube-proxy: a key that is unknown or
//! stands twice is told of and costs nothing, any other mistake is an error that names the field.
//!
//! kube-proxy turns YAML 1.1 into JSON before it looks at fields, and so does this: a plain `yes` is a boolean, a
//! plain `5` is no text. A null is the same as nothing.

use crate::state::OneLine;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};
use serde_saphyr::options::DuplicateKeyPolicy;
use std::fmt::{self, Display, Formatter};

/// Why a text cannot be read as an object.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It is neither YAML nor JSON.
    #[error("not YAML: {0}")]
    Syntax(String),
    /// It is empty.
    #[error("there is nothing in it")]
    Empty,
    /// A field has a value of the wrong type.
    #[error("{field}: {message}")]
    Field {
        /// Its path, such as `ipvs.syncPeriod`; `.` for the whole.
        field: String,
        /// What is wrong with it.
        message: String,
    },
}

impl DecodeError {
    /// Something is wrong with a field. Both are made one line, since they may have anything of the text in them.
    pub(super) fn field(field: &str, message: impl Display) -> Self {
        Self::Field { field: OneLine(field).to_string(), message: OneLine(message).to_string() }
    }
}

/// An object, and what was found beside its fields.
#[derive(Debug)]
pub struct Decoded<T> {
    /// The object.
    pub object: T,
    /// A sentence for each key that is unknown or stands twice, and for documents that are not read.
    pub warnings: Vec<String>,
}

/// Reads the first document of `text`. `shape` is an object with all its sections, which shows the keys that there
/// are: a list in it shows by its one item what items have, and the empty key stands for any.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode<T: Serialize + DeserializeOwned>(text: &str, shape: &T) -> Result<Decoded<T>, DecodeError> {
    let (node, mut warnings) = parse(text)?;
    let value = node.into_value("", &mut warnings);
    let shape = serde_json::to_value(shape).unwrap_or_default();
    find_unknown(&value, &shape, "", &mut warnings)?;
    let object = serde_path_to_error::deserialize(value)
        .map_err(|error| DecodeError::field(&error.path().to_string(), error.inner()))?;
    Ok(Decoded { object, warnings })
}

/// The first document. JSON is tried as such too: what is indented with tabs is no YAML.
fn parse(text: &str) -> Result<(Node, Vec<String>), DecodeError> {
    if let Ok(node) = serde_json::from_str(text) {
        return Ok((node, Vec::new()));
    }
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        legacy_octal_numbers: true,
    };
    let mut bytes = text.as_bytes();
    let mut documents = serde_saphyr::read_with_options::<_, Node>(&mut bytes, options);
    let first = documents.next().ok_or(DecodeError::Empty)?;
    let first = first.map_err(|error| DecodeError::Syntax(OneLine(error.without_snippet()).to_string()))?;
    let more = documents.next().is_some().then(|| "only the first document is read, as in kube-proxy".to_owned());
    Ok((first, more.into_iter().collect()))
}

/// A value that still has all its keys, those that stand twice too.
enum Node {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    /// Without nulls in maps. Of keys that are the same the last one counts.
    fn into_value(self, path: &str, warnings: &mut Vec<String>) -> Value {
        match self {
            Self::Scalar(value) => value,
            Self::List(items) => items
                .into_iter()
                .enumerate()
                .map(|(i, item)| item.into_value(&format!("{path}[{i}]"), warnings))
                .collect(),
            Self::Map(entries) => Self::map(entries, path, warnings),
        }
    }

    fn map(entries: Vec<(String, Node)>, path: &str, warnings: &mut Vec<String>) -> Value {
        let mut map = Map::new();
        for (key, node) in entries {
            let path = join(path, &key);
            let value = node.into_value(&path, warnings);
            if map.insert(key, value).is_some() {
                warnings.push(format!("{path} stands there more than once; the last one counts"));
            }
        }
        map.into_iter().filter(|(_, value)| !value.is_null()).collect()
    }
}

/// Tells of keys that `shape` does not have. The empty key there stands for any.
///
/// # Errors
/// When something is not a map that should be. Serde would take a list for one, field by field.
fn find_unknown(value: &Value, shape: &Value, path: &str, warnings: &mut Vec<String>) -> Result<(), DecodeError> {
    match (value, shape) {
        (Value::Object(fields), Value::Object(known)) => {
            for (key, value) in fields {
                let path = join(path, key);
                match known.get(key).or_else(|| known.get("")) {
                    Some(shape) => find_unknown(value, shape, &path, warnings)?,
                    None => warnings.push(format!("{path} is unknown and has no effect")),
                }
            }
            Ok(())
        }
        (Value::Array(items), Value::Array(example)) => {
            let Some(shape) = example.first() else { return Ok(()) };
            let mut items = items.iter().enumerate();
            items.try_for_each(|(index, item)| find_unknown(item, shape, &format!("{path}[{index}]"), warnings))
        }
        (_, Value::Object(_)) => {
            Err(DecodeError::field(if path.is_empty() { "." } else { path }, "must be a map of fields"))
        }
        _ => Ok(()),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyNode)
    }
}

struct AnyNode;

impl<'de> Visitor<'de> for AnyNode {
    type Value = Node;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("a value of YAML or JSON")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    /// `1.0` is a whole number, as it is for kube-proxy. What JSON has no number for becomes null.
    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        let whole = (value.fract() == 0.0).then(|| format!("{value:.0}").parse::<i64>().ok()).flatten();
        Ok(Node::Scalar(whole.map_or_else(|| Number::from_f64(value).map_or(Value::Null, Value::Number), Value::from)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}
