//! The objects, every change of them, and the versions that name the states in between.

use super::Record;
use super::selector::Selector;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What the server has.
pub struct Store {
    objects: BTreeMap<Key, Arc<Object>>,
    /// Every change, in order.
    history: Vec<Change>,
    /// The version of the present state.
    version: u64,
    /// Watches can begin here or later.
    oldest: u64,
    /// Lists that are read page by page, by what names the rest.
    snapshots: HashMap<String, Rest>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    kind: String,
    namespace: String,
    name: String,
}

/// An object as it is sent. A tree of all its values would take twenty times the memory, and 60,000 objects should fit
/// into the lab.
pub struct Object {
    pub text: String,
    /// What selectors look at: name, namespace and labels.
    selected: Value,
    uid: u64,
}

/// An object before and after a change.
struct Change {
    version: u64,
    kind: String,
    before: Option<Arc<Object>>,
    after: Option<Arc<Object>>,
}

/// Objects of a list that were not sent yet, and the version of the list.
#[derive(Clone)]
struct Rest {
    objects: Vec<Arc<Object>>,
    version: u64,
}

/// A page of a list.
pub struct Page {
    pub objects: Vec<Arc<Object>>,
    pub version: u64,
    pub next: Option<String>,
    /// How many come after it.
    pub remaining: usize,
}

/// An event of a watch: its type and its object.
pub type Event = (&'static str, Arc<Object>);

/// The rest of a list is no longer known.
#[derive(Debug)]
pub struct Gone;

impl Default for Store {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), history: Vec::new(), version: 1000, oldest: 1000, snapshots: HashMap::new() }
    }
}

impl Store {
    /// What the present state is called.
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn put(&mut self, mut object: Value) {
        let key = Key::of(&object);
        self.version += 1;
        let before = self.objects.get(&key).cloned();
        let uid = before.as_ref().map_or(self.version, |before| before.uid);
        complete(&mut object, self.version, uid);
        let object = Arc::new(Object::new(&object, uid));
        self.objects.insert(key.clone(), Arc::clone(&object));
        self.history.push(Change { version: self.version, kind: key.kind, before, after: Some(object) });
    }

    pub fn delete(&mut self, kind: &str, namespace: &str, name: &str) {
        let key = Key { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() };
        if let Some(before) = self.objects.remove(&key) {
            self.version += 1;
            self.history.push(Change { version: self.version, kind: key.kind, before: Some(before), after: None });
        }
    }

    /// Watches that run are not disturbed by it, as with the real server.
    pub fn compact(&mut self) {
        self.version += 1;
        self.oldest = self.version;
        self.snapshots.clear();
    }

    /// Whether a watch can begin there.
    pub fn knows(&self, version: u64) -> bool {
        version >= self.oldest
    }

    pub fn objects(&self, kind: &str) -> Vec<Value> {
        self.of_kind(kind).map(|object| object.value()).collect()
    }

    /// The page of a list that a request asks for.
    pub fn page(&mut self, kind: &str, record: &Record) -> Result<Page, Gone> {
        let limit = record.parameter("limit").parse().unwrap_or(usize::MAX);
        let mut rest = match record.parameter("continue") {
            "" => Rest { objects: self.matching(kind, &Selector::of(record)), version: self.version },
            next => self.snapshots.get(next).cloned().ok_or(Gone)?,
        };
        let later = rest.objects.split_off(limit.min(rest.objects.len()));
        let (remaining, version) = (later.len(), rest.version);
        let next = (!later.is_empty()).then(|| {
            let token = format!("after {} of {version}, rest {}", rest.objects.len(), self.snapshots.len());
            self.snapshots.insert(token.clone(), Rest { objects: later, version });
            token
        });
        Ok(Page { objects: rest.objects, version, next, remaining })
    }

    pub fn matching(&self, kind: &str, selector: &Selector) -> Vec<Arc<Object>> {
        self.of_kind(kind).filter(|object| selector.matches(&object.selected)).map(Arc::clone).collect()
    }

    /// The events of a watch after `version`, and the version that they lead to.
    pub fn events_after(&self, version: u64, kind: &str, selector: &Selector) -> (Vec<Event>, u64) {
        let known = self.history.partition_point(|change| change.version <= version);
        let news = self.history.iter().skip(known).filter(|change| change.kind == kind);
        (news.filter_map(|change| change.seen_through(selector)).collect(), self.version)
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.iter().filter(move |(key, _)| key.kind == kind).map(|(_, object)| object)
    }
}

impl Object {
    fn new(object: &Value, uid: u64) -> Self {
        let metadata = &object["metadata"];
        let selected =
            ["name", "namespace", "labels"].map(|field| (field.to_owned(), metadata[field].clone())).into_iter();
        let selected = json!({"metadata": selected.collect::<serde_json::Map<_, _>>()});
        Self { text: object.to_string(), selected, uid }
    }

    pub fn value(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

impl Key {
    fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        Self { kind: text(&object["kind"]), namespace: text(&metadata["namespace"]), name: text(&metadata["name"]) }
    }
}

impl Change {
    /// What a watch with a selector says of it: to it, an object that no longer matches is deleted.
    fn seen_through(&self, selector: &Selector) -> Option<Event> {
        let matching = |object: &Option<Arc<Object>>| object.clone().filter(|o| selector.matches(&o.selected));
        match (matching(&self.before), matching(&self.after)) {
            (None, None) => None,
            (None, Some(after)) => Some(("ADDED", after)),
            (Some(_), Some(after)) => Some(("MODIFIED", after)),
            (Some(before), None) => {
                let mut last = before.value();
                last["metadata"]["resourceVersion"] = json!(self.version.to_string());
                Some(("DELETED", Arc::new(Object::new(&last, before.uid))))
            }
        }
    }
}

/// What the real server adds to every object.
fn complete(object: &mut Value, version: u64, uid: u64) {
    let api_version = object["apiVersion"].clone();
    let Some(metadata) = object["metadata"].as_object_mut() else { return };
    metadata.insert("resourceVersion".into(), json!(version.to_string()));
    metadata.insert("uid".into(), json!(format!("9d6b7f0e-2f5c-4c1b-8a44-{uid:012}")));
    metadata.insert("generation".into(), json!(1));
    metadata.insert("creationTimestamp".into(), json!("2026-11-25T10:00:00Z"));
    metadata.entry("managedFields").or_insert_with(|| {
        json!([{
            "manager": "kube-controller-manager",
            "operation": "Update",
            "apiVersion": api_version,
            "time": "2026-11-25T10:00:00Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:ports": {}}},
        }])
    });
}
