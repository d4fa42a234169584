//! Holds `docs/features.md` to the code: every feature has its row, every test that a row names is there, and nothing is
//! promised without one.

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
use std::collections::BTreeSet;
use std::fs;

/// How many features there are.
const FEATURES: usize = 113;
const ANSWERS: [&str; 4] = ["Y", "N", "P", "-"];

/// A row of the tables.
struct Row {
    number: usize,
    /// kube-proxy's in its modes ipvs and iptables, then ipvsd's.
    answers: [String; 3],
    /// Without what marks them as code.
    tests: Vec<String>,
    note: String,
}

#[test]
fn every_feature_has_one_row_in_order() {
    let numbers: Vec<_> = rows().iter().map(|row| row.number).collect();
    assert_eq!(numbers, (1..=FEATURES).collect::<Vec<_>>());
}

#[test]
fn every_answer_is_one_of_four_words() {
    for row in rows() {
        assert!(
            row.answers.iter().all(|answer| ANSWERS.contains(&answer.as_str())),
            "{} {:?}",
            row.number,
            row.answers
        );
    }
}

#[test]
fn every_yes_is_shown_by_a_test() {
    let promised: Vec<_> =
        rows().iter().filter(|row| row.answers[2] == "Y" && row.tests.is_empty()).map(number).collect();
    assert!(promised.is_empty(), "rows {promised:?} promise and show nothing");
}

#[test]
fn what_kube_proxy_has_and_ipvsd_has_not_is_explained() {
    let lacks = |row: &&Row| row.answers[2] != "Y" && row.answers[..2].contains(&"Y".to_owned());
    let silent: Vec<_> = rows().iter().filter(lacks).filter(|row| row.note.is_empty()).map(number).collect();
    assert!(silent.is_empty(), "rows {silent:?} say no and not why");
}

#[test]
fn every_test_that_a_row_names_is_there() {
    let known = tests();
    assert!(known.len() > 400, "the tests were not found");
    let unknown: Vec<_> = rows().into_iter().flat_map(|row| row.tests).filter(|name| !known.contains(name)).collect();
    assert!(unknown.is_empty(), "there are no such tests: {unknown:#?}");
}

fn number(row: &Row) -> usize {
    row.number
}

fn rows() -> Vec<Row> {
    let document = fs::read_to_string(root().join("docs/features.md")).unwrap();
    let is_row = |line: &&str| line.starts_with("| ") && line[2..].starts_with(|c: char| c.is_ascii_digit());
    document.lines().filter(is_row).map(row).collect()
}

fn row(line: &str) -> Row {
    let cells: Vec<_> = line.split('|').map(str::trim).collect();
    let [_, number, _, ipvs, iptables, ours, tests, note, _] = cells[..] else { panic!("not seven cells: {line}") };
    Row {
        number: number.parse().unwrap(),
        answers: [ipvs, iptables, ours].map(str::to_owned),
        tests: tests.split('`').skip(1).step_by(2).map(str::to_owned).collect(),
        note: note.to_owned(),
    }
}

/// The names of all tests: functions, trials of the programs that run their tests themselves, and scenarios.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in ["src", "tests"] {
        for file in below(folder) {
            let path = root().join(folder).join(&file);
            if is_rust(&file) {
                let text = fs::read_to_string(path).unwrap();
                names.extend(functions(&text).chain(trials(&text)).map(str::to_owned));
                names.extend(of_modes(&text));
            } else if path.parent().unwrap().ends_with("scenarios") {
                names.insert(path.file_name().unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    names
}

/// What comes after an attribute that makes it a test.
fn functions(text: &str) -> impl Iterator<Item = &str> {
    let after_attributes = text.split("#[test]\n").skip(1).chain(text.split("#[tokio::test").skip(1));
    after_attributes.filter_map(|rest| rest.split_once("fn ")?.1.split('(').next())
}

/// `trial("...", ...)`, on however many lines, and `trial_with("what it needs", "...", ...)`.
fn trials(text: &str) -> impl Iterator<Item = &str> {
    let calls = ["trial(", "trial_with("].into_iter().enumerate().flat_map(|(before, call)| {
        text.split(call).skip(1).map(move |arguments| arguments.split('"').nth(1 + 2 * before))
    });
    calls.flatten()
}

/// `("...", function)` in the table of a subject whose tests run in several modes.
fn of_modes(text: &str) -> Vec<String> {
    let table = text.split_once("let tests: &[Test] = &[").and_then(|(_, rest)| rest.split_once("];"));
    let Some((entries, rest)) = table else { return Vec::new() };
    let subject = rest.split_once("mode::trials(\"").and_then(|(_, rest)| rest.split('"').next());
    let Some(subject) = subject else { return Vec::new() };
    entries.split("(\"").skip(1).map(|entry| format!("{subject}::{}", entry.split('"').next().unwrap())).collect()
}
