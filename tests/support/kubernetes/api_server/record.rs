//! What was asked of the server.

use http::request::Parts;
use http::{Method, header};
use std::collections::BTreeMap;

/// The verb that RBAC sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Patch,
    /// None that the server knows.
    Other,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Record {
    pub method: String,
    /// Path and query as they came.
    pub target: String,
    pub verb: Verb,
    /// Empty for the core group.
    pub group: String,
    /// Plural, such as `services`.
    pub resource: String,
    pub namespace: Option<String>,
    pub name: Option<String>,
    /// Decoded.
    pub query: BTreeMap<String, String>,
    /// The bearer token.
    pub token: Option<String>,
}

impl Record {
    pub fn of(request: &Parts) -> Self {
        let query = query(request.uri.query().unwrap_or_default());
        let mut path = request.uri.path().split('/').skip(1);
        let group = match path.next() {
            Some("apis") => path.next().unwrap_or_default(),
            _ => "",
        };
        let mut path = path.skip(1).peekable();
        let namespace = path.next_if_eq(&"namespaces").and_then(|_| path.next());
        let (resource, name) = (path.next().unwrap_or_default(), path.next());
        Self {
            method: request.method.to_string(),
            target: request.uri.to_string(),
            verb: verb(&request.method, name.is_some(), query.get("watch").is_some_and(|watch| watch == "true")),
            group: group.to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            query,
            token: token(request),
        }
    }

    pub fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    pub fn is_stream(&self) -> bool {
        self.parameter("sendInitialEvents") == "true"
    }

    /// Verb, resource with its group, and selectors, in one line.
    pub fn summary(&self) -> String {
        let group = if self.group.is_empty() { String::new() } else { format!(".{}", self.group) };
        let selectors = [self.parameter("labelSelector"), self.parameter("fieldSelector")];
        let selectors = selectors.into_iter().filter(|text| !text.is_empty()).map(|text| format!(" {text}"));
        format!("{:?} {}{group}{}", self.verb, self.resource, selectors.collect::<String>())
    }
}

fn verb(method: &Method, has_name: bool, is_watch: bool) -> Verb {
    match *method {
        Method::GET if is_watch => Verb::Watch,
        Method::GET if has_name => Verb::Get,
        Method::GET => Verb::List,
        Method::POST => Verb::Create,
        Method::PATCH => Verb::Patch,
        _ => Verb::Other,
    }
}

fn token(request: &Parts) -> Option<String> {
    let header = request.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    header.strip_prefix("Bearer ").map(str::to_owned)
}

fn query(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decoded(k), decoded(v))).collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(*other),
        }
        rest = after;
    }
    String::from_utf8(bytes).unwrap()
}
