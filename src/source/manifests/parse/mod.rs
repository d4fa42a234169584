//! The text of a file into its objects and problems. Pure: no file is touched here.

use super::contents::{Doubt, Entry, File, Object};
use super::documents::{Document, documents, lines_before};
use super::kinds::{CORE, DISCOVERY, Identity, doubt, list_of, stranger};
use super::parallel::in_parallel;
use super::shape::{ENDPOINT_SLICE, Misfit, SERVICE, Shape, misfit};
use crate::source::convert::{self, Context, DEFAULT_NAMESPACE, Outcome, RawEndpointSlice, RawService};
use crate::state::{ObjectName, ObjectRef, Origin, Problem};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_saphyr::{Options, RenderOptions, SnippetMode, UserMessageFormatter};
use std::sync::Arc;

/// A file as it was found.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its path as the user would write it; the ending says whether it is JSON.
    pub path: Arc<str>,
    /// Its text, or the message that says why there is none.
    pub text: Result<String, String>,
}

/// The objects and problems of each file, in the order of `sources`.
pub fn parse(sources: &[Source], context: &Context) -> Vec<File> {
    let mut files: Vec<File> =
        sources.iter().map(|source| File { path: Arc::clone(&source.path), entries: Vec::new() }).collect();
    let units: Vec<Unit<'_>> = sources.iter().zip(0..).flat_map(|(source, file)| units(source, file)).collect();
    for (unit, entries) in units.iter().zip(in_parallel(&units, |unit| unit.entries(context))) {
        if let Some(file) = files.get_mut(unit.file) {
            file.entries.extend(entries);
        }
    }
    files
}

/// A piece of a file that is parsed alone.
struct Unit<'a> {
    /// The index of its file.
    file: usize,
    path: &'a Arc<str>,
    content: Content<'a>,
}

enum Content<'a> {
    /// One YAML document.
    Yaml { document: Document<'a>, number: usize, whole: &'a str },
    /// All of a JSON file.
    Json(&'a str),
    /// A message instead of a text.
    Unreadable(&'a str),
}

fn units(source: &Source, file: usize) -> Vec<Unit<'_>> {
    let unit = |content| Unit { file, path: &source.path, content };
    let text = match &source.text {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(message) => return vec![unit(Content::Unreadable(message))],
    };
    if source.path.ends_with(".json") {
        return vec![unit(Content::Json(text))];
    }
    let documents = documents(text).into_iter().zip(1..);
    documents.map(|(document, number)| unit(Content::Yaml { document, number, whole: text })).collect()
}

impl Unit<'_> {
    fn entries(&self, context: &Context) -> Vec<Entry> {
        let mut reader = Reader { path: self.path, context, document: 0, entries: Vec::new() };
        match self.content {
            Content::Yaml { document, number, whole } => {
                reader.document = number;
                reader.yaml(document, whole);
            }
            Content::Json(text) => reader.json(text),
            Content::Unreadable(message) => reader.unclear("", message.to_owned(), Doubt::AnyOfTheFile),
        }
        // Most documents are one object, and a vector begins with room for four.
        reader.entries.shrink_to_fit();
        reader.entries
    }
}

struct Reader<'a> {
    path: &'a Arc<str>,
    context: &'a Context,
    /// The document at hand, counted from 1; 0 for the whole file.
    document: usize,
    entries: Vec<Entry>,
}

impl Reader<'_> {
    fn yaml(&mut self, document: Document<'_>, whole: &str) {
        match serde_saphyr::from_str_with_options(document.text, yaml_options()) {
            Ok(value) => self.read(value),
            Err(error) => {
                let message = yaml_message(&error, lines_before(whole, document.offset));
                self.unclear("", message, Doubt::AnyOfTheFile);
            }
        }
    }

    /// Several values one after the other are several documents, as for kubectl. An error ends them.
    fn json(&mut self, text: &str) {
        for value in serde_json::Deserializer::from_str(text).into_iter() {
            self.document += 1;
            match value {
                Ok(value) => self.read(value),
                Err(error) => self.unclear("", format!("not JSON: {error}"), Doubt::AnyOfTheFile),
            }
        }
    }

    fn read(&mut self, value: Value) {
        match value {
            Value::Null => {}
            Value::Object(fields) => match list_of(&fields) {
                Some(list) => self.list(fields, list),
                None => self.object(fields, Identity::default(), ""),
            },
            other => self.unclear("", not_a_mapping(&other), Doubt::AnyOfTheFile),
        }
    }

    fn list(&mut self, mut fields: Map<String, Value>, list: Identity) {
        let items = match fields.remove("items") {
            None | Some(Value::Null) => return,
            Some(Value::Array(items)) => items,
            Some(_) => return self.unclear("items", "not a sequence".to_owned(), Doubt::AnyOfTheFile),
        };
        for (index, item) in items.into_iter().enumerate() {
            let place = format!("items[{index}]");
            match item {
                Value::Object(fields) => self.object(fields, list, &place),
                other => self.unclear(&place, not_a_mapping(&other), Doubt::AnyOfTheFile),
            }
        }
    }

    /// Reads one object, which has `place` in its document. What it does not say of itself, `usual` does.
    fn object(&mut self, fields: Map<String, Value>, usual: Identity, place: &str) {
        let name = name(&fields);
        let text = |key: &str| fields.get(key).and_then(Value::as_str);
        let kind = (text("apiVersion").or(usual.api_version), text("kind").or(usual.kind));
        match kind {
            (Some(CORE), Some("Service")) => {
                let name = name.map(ObjectRef::Service);
                let service = self.fitting(fields, (&SERVICE, place, &name));
                let service = service.and_then(|fields| self.typed::<RawService, _>(fields, place, convert::service));
                self.known(name, service);
            }
            (Some(DISCOVERY), Some("EndpointSlice")) => {
                let name = name.map(ObjectRef::EndpointSlice);
                let slice = self.fitting(fields, (&ENDPOINT_SLICE, place, &name));
                let slice =
                    slice.and_then(|fields| self.typed::<RawEndpointSlice, _>(fields, place, convert::endpoint_slice));
                self.known(name, slice);
            }
            (api_version, kind) => {
                let (field, message) = stranger(api_version, kind, name.as_ref());
                let doubt = doubt(api_version, kind, name);
                self.unclear(&within(place, field), message, doubt);
            }
        }
    }

    /// Tells of a field that nobody knows, which costs nothing but itself; what is no object is an error.
    fn fitting(
        &mut self,
        fields: Map<String, Value>,
        (shape, place, name): (&Shape, &str, &Option<ObjectRef>),
    ) -> Result<Value, Problem> {
        let value = Value::Object(fields);
        match misfit(&value, shape) {
            None => {}
            Some(Misfit::Unknown(field)) => {
                let message = "unknown, so it has no effect".to_owned();
                let problem = self.problem(within(place, &field), message);
                self.entries.push(Entry::Slip(Problem { object: name.clone(), ..problem }.into()));
            }
            Some(Misfit::Sequence(field)) => {
                return Err(self.problem(within(place, &field), "a sequence, where a mapping is needed".to_owned()));
            }
        }
        Ok(value)
    }

    fn typed<R: DeserializeOwned, T: Into<Object>>(
        &self,
        value: Value,
        place: &str,
        convert: fn(&R, &Origin, &Context) -> Outcome<T>,
    ) -> Result<Option<Object>, Problem> {
        // Keeping track of the path costs as much as the rest, so it is done only when there is one to tell.
        let raw = R::deserialize(&value).or_else(|_| serde_path_to_error::deserialize(&value)).map_err(|error| {
            let field = Some(error.path().to_string()).filter(|path| path != ".").unwrap_or_default();
            self.problem(within(place, &field), error.into_inner().to_string())
        });
        match convert(&raw?, &self.origin(), self.context) {
            Ok(found) => Ok(found.map(|found| found.object.into())),
            Err(problem) => Err(Problem { field: within(place, &problem.field), ..problem }),
        }
    }

    /// Takes in an object of a kind that ipvsd reads; without a name it can only be a problem.
    fn known(&mut self, object: Option<ObjectRef>, result: Result<Option<Object>, Problem>) {
        let entry = match (object, result) {
            (_, Ok(Some(object))) => Entry::Object(object),
            (Some(object), Ok(None)) => Entry::NotOurs(object, self.origin()),
            (None, Ok(None)) => return,
            (Some(object), Err(problem)) => {
                Entry::Bad(object.clone(), Problem { object: Some(object), ..problem }.into())
            }
            (None, Err(problem)) => Entry::Unclear(problem.into(), Doubt::AnyOfTheFile),
        };
        self.entries.push(entry);
    }

    fn unclear(&mut self, field: &str, message: String, doubt: Doubt) {
        self.entries.push(Entry::Unclear(self.problem(field.to_owned(), message).into(), doubt));
    }

    fn problem(&self, field: String, message: String) -> Problem {
        Problem { origin: self.origin(), object: None, field, message }
    }

    fn origin(&self) -> Origin {
        Origin::Manifest { file: Arc::clone(self.path), document: self.document }
    }
}

fn name(fields: &Map<String, Value>) -> Option<ObjectName> {
    let metadata = fields.get("metadata")?;
    let text = |key: &str| metadata.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    Some(ObjectName::new(text("namespace").unwrap_or(DEFAULT_NAMESPACE), text("name")?))
}

fn not_a_mapping(value: &Value) -> String {
    let what = match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a sequence",
        Value::Object(_) => "a mapping",
    };
    format!("not an object but {what}: it needs apiVersion, kind and metadata")
}

fn within(place: &str, field: &str) -> String {
    match (place, field) {
        ("", field) => field.to_owned(),
        (place, "") => place.to_owned(),
        (place, field) => format!("{place}.{field}"),
    }
}

/// A file's size bounds what it holds, so the parser's own limits on that are lifted: lists of 20,000 items are
/// meant to be read. What aliases multiply stays limited, to about the size of the largest file.
pub(super) fn yaml_options() -> Options {
    serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_anchors: usize::MAX,
            max_aliases: 1_000_000,
            max_merge_keys: 1_000_000,
            enforce_alias_anchor_ratio: false,
        },
    }
}

fn yaml_message(error: &serde_saphyr::Error, lines_before: usize) -> String {
    let mut options = RenderOptions::new(&UserMessageFormatter);
    options.snippets = SnippetMode::Off;
    options.line_offset = u64::try_from(lines_before).unwrap_or_default();
    format!("not YAML: {}", error.render_with_options(options))
}

#[cfg(test)]
mod tests;
