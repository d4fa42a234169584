//! Who may name whom: reads the sources and holds them to the table of docs/architecture.md.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test stops at what it did not expect"
)]

#[path = "support/files.rs"]
mod files;

use files::{below, is_rust, root};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module, the modules of this crate it may name, and what of the outside it must not name.
struct Layer {
    module: &'static str,
    may_name: &'static [&'static str],
    never: &'static [&'static str],
}

/// Whatever touches the world or reads a clock.
const EFFECTS: &[&str] = &[
    "tokio",
    "kube",
    "neli",
    "netlink",
    "rtnetlink",
    "nix",
    "libc",
    "inotify",
    "tracing",
    "anyhow",
    "std::fs",
    "std::process",
    "std::env",
    "std::io",
    "std::thread",
    "Instant",
    "SystemTime",
];
const NETLINK: &[&str] = &["kube", "neli", "netlink_", "rtnetlink"];

const LAYERS: &[Layer] = &[
    Layer { module: "model", may_name: &[], never: EFFECTS },
    Layer { module: "state", may_name: &["model"], never: EFFECTS },
    Layer { module: "desired", may_name: &["model", "state"], never: EFFECTS },
    Layer { module: "diff", may_name: &["model"], never: EFFECTS },
    Layer { module: "source", may_name: &["model", "state"], never: &["neli", "std::process", "anyhow"] },
    Layer { module: "kernel", may_name: &["model"], never: &["kube", "tokio", "anyhow", "tracing"] },
    Layer {
        module: "reconcile",
        may_name: &["model", "state", "desired", "diff", "kernel"],
        never: &["kube", "neli", "netlink_", "rtnetlink", "nix", "tokio", "anyhow"],
    },
    Layer {
        module: "inspect",
        may_name: &["model", "state", "desired", "diff", "kernel", "reconcile"],
        never: EFFECTS,
    },
    Layer { module: "health", may_name: &["model"], never: EFFECTS },
    Layer {
        module: "metrics",
        may_name: &["kernel", "model", "reconcile"],
        never: &["kube", "neli", "netlink_", "rtnetlink", "nix", "tokio", "tracing", "anyhow", "Instant", "SystemTime"],
    },
    Layer {
        module: "server",
        may_name: &["desired", "health", "inspect", "metrics", "model", "state"],
        never: &["kube", "neli", "netlink_", "rtnetlink", "tracing", "anyhow", "std::fs", "std::process", "std::env"],
    },
    Layer { module: "config", may_name: &["model", "state", "desired", "kernel", "reconcile"], never: NETLINK },
    Layer { module: "demo", may_name: &["kernel", "model"], never: &["kube", "neli"] },
    Layer {
        module: "cli",
        may_name: &[
            "config",
            "daemon",
            "demo",
            "desired",
            "inspect",
            "kernel",
            "model",
            "reconcile",
            "server",
            "state",
        ],
        never: NETLINK,
    },
];

#[test]
fn every_module_names_only_what_it_may() {
    let mut broken = Vec::new();
    for (file, text) in sources() {
        let module = file.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        let Some(layer) = LAYERS.iter().find(|layer| layer.module == module) else { continue };
        for (number, line) in code_lines(&text) {
            for other in named_modules(line).filter(|name| *name != layer.module && !layer.may_name.contains(name)) {
                broken.push(format!("src/{}:{number} names crate::{other}", file.display()));
            }
            for outside in layer.never.iter().filter(|outside| names(line, outside)) {
                broken.push(format!("src/{}:{number} names {outside}", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "the layers of docs/architecture.md are broken:\n{}", broken.join("\n"));
}

#[test]
fn the_document_has_the_same_table() {
    let document = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    for Layer { module, may_name, .. } in LAYERS {
        let row = document.lines().find(|line| line.starts_with(&format!("| `{module}` |")));
        let cell = row.unwrap_or_else(|| panic!("no row for {module}")).split('|').nth(2).unwrap();
        let mut named: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
        named.sort_unstable();
        let mut may_name = may_name.to_vec();
        may_name.sort_unstable();
        assert_eq!(named, may_name, "{module}");
    }
}

#[test]
fn every_file_that_the_document_names_is_there() {
    let document = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let words = document.split(['`', '(', ')']).map(|word| word.trim_start_matches("../"));
    let named: Vec<_> = words.filter(|word| word.starts_with("src/") || word.starts_with("tests/")).collect();
    assert!(named.len() > 50, "the files' names were not found");
    let is_missing = |word: &&&str| !word.contains("NAME") && !root().join(word).exists();
    let missing: Vec<_> = named.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "docs/architecture.md names what is not there: {missing:?}");
}

#[test]
fn every_module_is_in_the_table_or_may_name_everything() {
    let known: Vec<_> = LAYERS.iter().map(|layer| layer.module).chain(["daemon", "lib", "main"]).collect();
    let found = sources()
        .into_keys()
        .map(|file| file.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned());
    let unknown: Vec<_> = found.filter(|module| !known.contains(&module.as_str())).collect();
    assert!(unknown.is_empty(), "no layer is given for {unknown:?}");
}

#[test]
fn no_file_names_one_that_names_it_in_turn() {
    let texts: BTreeMap<_, _> = sources().into_iter().map(|(file, text)| (module_of(&file), text)).collect();
    let names = |(module, text): (&String, &String)| {
        let code: Vec<_> = code_lines(text).map(|(_, line)| line).collect();
        let files = named_paths(module, &code.join(" ")).into_iter().filter_map(|path| file_of(&path, &texts));
        (module.clone(), files.filter(|other| !is_around(module, other)).collect::<BTreeSet<_>>())
    };
    let mut left: BTreeMap<String, BTreeSet<String>> = texts.iter().map(names).collect();
    // Those that name nobody who is left are in no ring; what remains in the end is in one, or names one.
    loop {
        let free: BTreeSet<_> =
            left.iter().filter(|(_, named)| named.is_empty()).map(|(module, _)| module.clone()).collect();
        if free.is_empty() {
            break;
        }
        left.retain(|module, _| !free.contains(module));
        left.values_mut().for_each(|named| named.retain(|other| !free.contains(other)));
    }
    assert!(left.is_empty(), "these name each other, or lead to such: {left:#?}");
}

#[test]
fn a_file_with_parts_is_in_the_folder_of_its_parts() {
    for folder in ["src", "tests", "benches"] {
        let files: BTreeSet<_> = below(folder).into_iter().filter(|file| is_rust(file)).collect();
        let parents = files.iter().filter_map(|file| Some(file.parent()?.with_extension("rs")));
        let beside: BTreeSet<_> = parents.filter(|parent| files.contains(parent)).collect();
        assert!(beside.is_empty(), "in {folder}/, these belong beside their parts, as mod.rs or main.rs: {beside:?}");
    }
}

#[test]
fn every_file_begins_by_saying_its_job() {
    let silent: Vec<_> =
        sources().into_iter().filter(|(_, text)| !text.starts_with("//! ")).map(|(file, _)| file).collect();
    assert!(silent.is_empty(), "these files do not begin with `//!`: {silent:?}");
}

/// Paths below `src/` and their texts.
fn sources() -> BTreeMap<PathBuf, String> {
    let files = below("src").into_iter().filter(|file| is_rust(file));
    files.map(|file| (file.clone(), fs::read_to_string(root().join("src").join(file)).unwrap())).collect()
}

/// Numbered lines that are neither comment nor test.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    numbered
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// A file's module, such as `kernel::ipvs`.
fn module_of(file: &Path) -> String {
    let path = file.with_extension("").to_str().unwrap().replace('/', "::");
    path.strip_suffix("::mod").unwrap_or(&path).to_owned()
}

/// What a module names by `crate::` and `super::`, as paths from the root.
fn named_paths(module: &str, code: &str) -> Vec<String> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut paths = Vec::new();
    for start in code.match_indices("crate::").chain(code.match_indices("super::")).map(|(at, _)| at) {
        let before = &code[..start];
        if before.ends_with("::") || before.chars().next_back().is_some_and(word) {
            continue;
        }
        let mut base: Vec<_> = module.split("::").collect();
        let mut rest = &code[start..];
        while let Some(above) = rest.strip_prefix("super::") {
            base.pop();
            rest = above;
        }
        if let Some(path) = rest.strip_prefix("crate::") {
            base.clear();
            rest = path;
        }
        let end = rest.find(|c| !word(c) && c != ':').unwrap_or(rest.len());
        base.extend(rest[..end].split("::").filter(|part| !part.is_empty()));
        let group = rest[end..].strip_prefix('{').map_or("", |group| group.split('}').next().unwrap());
        let items = group.split(',').map(|item| item.trim().split(|c| !word(c)).next().unwrap());
        paths.extend(items.map(|item| [&base[..], &[item]].concat().join("::")));
    }
    paths
}

/// The longest beginning of a path that is a file.
fn file_of(path: &str, files: &BTreeMap<String, String>) -> Option<String> {
    let mut path = path.trim_end_matches("::");
    while !files.contains_key(path) {
        path = path.rsplit_once("::")?.0;
    }
    Some(path.to_owned())
}

/// Whether one of two modules is inside the other, or both are one.
fn is_around(one: &str, other: &str) -> bool {
    let inside = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    inside(one, other) || inside(other, one)
}

/// The X of each `crate::X` in a line.
fn named_modules(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(""))
}

/// Whether a line uses a path or name, as a word of its own or followed by `::` (or any ending after `_`).
fn names(line: &str, what: &str) -> bool {
    line.match_indices(what).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + what.len()..].chars().next();
        let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '"');
        let is_path =
            what.ends_with('_') || line[at + what.len()..].starts_with("::") || !word(after) && line.contains("use ");
        !word(before) && before != Some(':') && is_path
    })
}
