//! What `deploy/` and `systemd/` say, for tests: objects, command lines, configurations, and what the role allows.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// The name that stands for a node's wherever the manifests take it from the kubelet.
pub const NODE: &str = "node-1";

/// One document of a YAML file.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its file, from the root of the repository.
    pub file: PathBuf,
    /// What it says.
    pub value: Value,
}

impl Document {
    /// The text at a JSON pointer; empty where there is none.
    pub fn text(&self, pointer: &str) -> &str {
        self.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// Its kind.
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }
}

/// How a manifest or a unit starts the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// Where it is written, from the root of the repository.
    pub file: PathBuf,
    /// The program and its arguments, with [`NODE`] for the node's name.
    pub words: Vec<String>,
}

/// A path of the repository, on this machine.
pub fn path(relative: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// A file's text.
pub fn read(relative: impl AsRef<Path>) -> String {
    let path = path(relative);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files below a folder of the repository, in order.
pub fn files(folder: &str) -> Vec<PathBuf> {
    let mut folders = vec![path(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let entry = entry.expect("the folder stays").path();
            let list = if entry.is_dir() { &mut folders } else { &mut found };
            list.push(entry);
        }
    }
    found.sort();
    let root = path("");
    found.into_iter().map(|file| file.strip_prefix(&root).expect("below the root").to_owned()).collect()
}

/// Every document of every YAML file that a cluster or a machine is given.
pub fn documents() -> Vec<Document> {
    let files = ["deploy/kustomize", "systemd/etc"].into_iter().flat_map(files);
    files.filter(|file| file.extension().is_some_and(|extension| extension == "yaml")).flat_map(parse).collect()
}

/// The documents of one file of the repository.
pub fn parse(file: PathBuf) -> Vec<Document> {
    let text = read(&file);
    let values: Vec<Value> =
        serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    values.into_iter().map(|value| Document { file: file.clone(), value }).collect()
}

/// Every command line that starts ipvsd: of containers, and of the unit with its drop-in.
pub fn command_lines() -> Vec<CommandLine> {
    let documents = documents();
    let containers = documents.iter().flat_map(|document| {
        containers(&document.value).into_iter().map(|container| (document.file.clone(), command(container)))
    });
    let units = files("systemd").into_iter().flat_map(|file| {
        let commands = if file.starts_with("systemd/etc") { Vec::new() } else { unit_commands(&read(&file)) };
        commands.into_iter().map(move |words| (file.clone(), words))
    });
    let all = containers.chain(units).map(|(file, words)| CommandLine { file, words });
    all.filter(|line| !line.words.is_empty()).collect()
}

/// The texts of every KubeProxyConfiguration, by file.
pub fn configurations() -> Vec<(PathBuf, String)> {
    let documents = documents().into_iter().filter(|document| document.kind() == "KubeProxyConfiguration");
    documents.map(|document| (document.file.clone(), read(&document.file))).collect()
}

/// All containers of an object with a pod template, those that end before the others first.
pub fn containers(object: &Value) -> Vec<&Value> {
    let lists = ["/spec/template/spec/initContainers", "/spec/template/spec/containers"];
    lists.into_iter().filter_map(|list| object.pointer(list)?.as_array()).flatten().collect()
}

/// `command` and `args` as the kubelet gives them to the program; empty if the image decides.
fn command(container: &Value) -> Vec<String> {
    let words = ["command", "args"].into_iter().filter_map(|field| container.get(field)?.as_array()).flatten();
    words.map(|word| word.as_str().expect("words are text").replace("$(NODE_NAME)", NODE)).collect()
}

/// The commands of a unit, without systemd's prefixes; what is reset is left out.
fn unit_commands(unit: &str) -> Vec<Vec<String>> {
    let values = unit.lines().filter_map(|line| line.split_once('=')).filter(|(key, _)| key.starts_with("Exec"));
    let commands = values.map(|(_, command)| command.trim_start_matches(['+', '-', '@', ':', '!']));
    commands.map(|command| command.split_whitespace().map(str::to_owned).collect()).collect()
}

/// What one asks of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is to be done: get, list, watch, create, update, patch, delete, deletecollection.
    pub verb: String,
    /// The API group; empty for the core.
    pub group: String,
    /// The plural, with `/SUBRESOURCE` if one is asked for.
    pub resource: String,
    /// The object, where the request is about one: also a list or watch that selects one by its name.
    pub name: Option<String>,
}

impl Request {
    /// A request as it goes over the wire, path and query in one; none if it is about no resource (`/version`).
    pub fn of_http(method: &str, target: &str) -> Option<Self> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut words = path.split('/').filter(|word| !word.is_empty());
        let group = match words.next()? {
            "api" => "",
            "apis" => words.next()?,
            _ => return None,
        };
        let mut rest: Vec<&str> = words.skip(1).collect();
        // What comes after a namespace is in it; the namespace itself is an object too.
        if rest.first() == Some(&"namespaces") && rest.len() > 2 {
            rest.drain(..2);
        }
        let (plural, object) = (rest.first()?, rest.get(1).copied());
        let resource = rest.get(2).map_or_else(|| (*plural).to_owned(), |part| format!("{plural}/{part}"));
        let name = object.map(str::to_owned).or_else(|| selected_name(query));
        let verb = verb(method, object.is_some(), query)?.to_owned();
        Some(Self { verb, group: group.to_owned(), resource, name })
    }
}

/// The verb by which RBAC knows a method.
fn verb(method: &str, one_object: bool, query: &str) -> Option<&'static str> {
    let watches = query.split('&').any(|part| matches!(part, "watch=true" | "watch=1" | "watch"));
    Some(match (method, one_object) {
        ("GET", _) if watches => "watch",
        ("GET", true) => "get",
        ("GET", false) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => return None,
    })
}

/// The name that `fieldSelector=metadata.name=NAME` selects.
fn selected_name(query: &str) -> Option<String> {
    let selector = query.split('&').find_map(|part| part.strip_prefix("fieldSelector="))?;
    let selector = selector.replace("%3D", "=").replace("%3d", "=").replace("%2C", ",").replace("%2c", ",");
    selector
        .split(',')
        .find_map(|part| part.strip_prefix("metadata.name="))
        .map(|name| name.trim_start_matches('=').to_owned())
}

/// The rules of a Role or ClusterRole.
#[derive(Clone, Debug)]
pub struct Role {
    rules: Vec<Value>,
}

impl Role {
    /// The role that the manifests give ipvsd.
    pub fn of_ipvsd() -> Self {
        let mut roles = documents().into_iter().filter(|document| document.kind() == "ClusterRole");
        let role = roles.next().expect("there is a role");
        assert_eq!(roles.count(), 0, "and only one");
        Self { rules: role.value["rules"].as_array().expect("with rules").clone() }
    }

    /// Whether some rule allows the request, as RBAC decides it.
    pub fn allows(&self, request: &Request) -> bool {
        self.rules.iter().any(|rule| {
            names(rule, "verbs", &request.verb)
                && names(rule, "apiGroups", &request.group)
                && names_resource(rule, &request.resource)
                && names_object(rule, request.name.as_deref())
        })
    }

    /// Whether some rule has a wildcard: for verbs, groups or resources.
    pub fn has_wildcard(&self) -> bool {
        let lists = self.rules.iter().flat_map(|rule| rule.as_object().expect("a rule is a mapping").values());
        lists.filter_map(Value::as_array).flatten().any(|word| word.as_str().is_some_and(|word| word.contains('*')))
    }
}

fn list<'a>(rule: &'a Value, field: &str) -> impl Iterator<Item = &'a str> {
    rule.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn names(rule: &Value, field: &str, what: &str) -> bool {
    list(rule, field).any(|word| word == what || word == "*")
}

/// A rule for `*/status` is one for the status of everything; a rule for `pods` is none for `pods/status`.
fn names_resource(rule: &Value, resource: &str) -> bool {
    let part = resource.split_once('/').map(|(_, part)| format!("*/{part}"));
    names(rule, "resources", resource) || part.is_some_and(|part| names(rule, "resources", &part))
}

/// A rule with names allows only requests that say one of them.
fn names_object(rule: &Value, name: Option<&str>) -> bool {
    let mut allowed = list(rule, "resourceNames").peekable();
    allowed.peek().is_none() || allowed.any(|allowed| Some(allowed) == name)
}
