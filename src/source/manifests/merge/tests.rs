//! The memory's rule, case by case, and its law: what no problem touches is as if read for the first time.

use super::super::parse::{Source, parse};
use super::*;
use crate::source::convert::{Context, Rules};
use proptest::prelude::*;

fn context() -> Context {
    Context::new(Rules::Manifest, "node-1")
}

/// One Service per letter, in the documents of a file; `x` before a letter makes it bad, `?` a syntax error.
fn file(path: &str, words: &str) -> File {
    let documents = words.split_whitespace().map(|word| match word {
        "?" => "a: [\n".to_owned(),
        "~" => "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n".to_owned(),
        _ => match word.split_at(word.len() - 1) {
            ("misspelt-", name) => service(name, "10.0.0.1").replace("kind: Service", "kind: Servce"),
            ("none-", name) => service(name, "None"),
            ("x", name) => service(name, "bad"),
            (version, name) => service(name, &format!("10.0.0.{}", version.parse().unwrap_or(1))),
        },
    });
    let text = documents.collect::<Vec<_>>().join("---\n");
    parse(&[Source { path: path.into(), text: Ok(text) }], &context()).remove(0)
}

fn service(name: &str, cluster_ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: {cluster_ip}, ports: [{{port: 80}}]}}\n"
    )
}

/// The Services in force as words, such as `2a` for `a` at 10.0.0.2, in the order of their names.
fn words(merged: &Merged) -> String {
    let mut words: Vec<(String, String)> = merged.objects.values().map(|held| word(&held.object)).collect();
    words.sort();
    words.into_iter().map(|(name, version)| format!("{version}{name}")).collect::<Vec<_>>().join(" ")
}

fn word(object: &Object) -> (String, String) {
    let Object::Service(service) = object else { panic!("{object:?}") };
    let version = service.cluster_ips[0].to_string().replace("10.0.0.", "");
    (service.name.name.to_string(), version.replace('1', ""))
}

#[test]
fn an_object_that_becomes_bad_keeps_its_last_good_version() {
    for (why, before, now, wanted) in [
        ("a new version replaces", &[("f", "a b")][..], &[("f", "2a b")][..], "2a b"),
        ("a bad one keeps", &[("f", "a b")], &[("f", "xa 2b")], "a 2b"),
        ("a bad one in another file keeps", &[("f", "a"), ("g", "b")], &[("f", ""), ("g", "b xa")], "a b"),
        ("a bad one that never was good is nothing", &[("f", "b")], &[("f", "b xa")], "b"),
        ("cleanly gone is gone", &[("f", "a b")], &[("f", "b")], "b"),
        ("gone although another is bad", &[("f", "a b c")], &[("f", "b xc")], "b c"),
        ("a syntax error keeps what it hides", &[("f", "a b")], &[("f", "? b")], "a b"),
        ("a syntax error keeps nothing of other files", &[("f", "a"), ("g", "b")], &[("f", "?"), ("g", "")], "a"),
        ("a moved object is not kept where it was", &[("f", "a b")], &[("f", "?"), ("g", "2a")], "2a b"),
        ("moved but bad, it is kept", &[("f", "a"), ("g", "b")], &[("f", ""), ("g", "b ?")], "b"),
        ("a file that is gone takes its objects along", &[("f", "a"), ("g", "b")], &[("g", "?")], "b"),
        ("no longer ours is gone", &[("f", "a b")], &[("f", "none-a b ?")], "b"),
        ("a misspelt kind keeps its own name", &[("f", "a b")], &[("f", "misspelt-a")], "a"),
        ("a kind of others keeps nothing", &[("f", "a ~ b")], &[("f", "~ b")], "b"),
    ] {
        let previous = merge(&Merged::default(), before.iter().map(|(path, words)| file(path, words)));
        let found = merge(&previous, now.iter().map(|(path, words)| file(path, words)));
        assert_eq!(words(&found), wanted, "{why}");
    }
}

#[test]
fn what_is_kept_stays_kept_until_the_file_is_clear() {
    let mut merged = merge(&Merged::default(), [file("f", "a b c")]);
    for (now, wanted) in [("b ? c", "a b c"), ("b ?", "a b c"), ("xb ?", "a b c"), ("xb", "b"), ("", "")] {
        merged = merge(&merged, [file("f", now)]);
        assert_eq!(words(&merged), wanted, "{now}");
    }
}

#[test]
fn of_two_with_one_name_the_first_stays() {
    for (files, wanted) in [
        (vec![file("f", "a b 2a")], "a b"),
        (vec![file("f", "a"), file("g", "2a b")], "a b"),
        (vec![file("f", "xa"), file("g", "2a b")], "b"),
        (vec![file("f", "none-a"), file("g", "2a b")], "b"),
    ] {
        let merged = merge(&Merged::default(), &files);
        assert_eq!(words(&merged), wanted);
        let problem = merged.problems.last().unwrap().to_string();
        assert!(
            problem.contains("Service default/a: a second one, not used: the first is in f, document 1"),
            "{problem}"
        );
    }
}

#[test]
fn changes_are_what_differs_in_the_order_of_reading() {
    let text = |changes: Vec<Change>| -> String {
        let word = |change: &Change| match change {
            Change::Service(service) => format!("+{}", service.name.name),
            Change::ServiceGone(name) => format!("-{}", name.name),
            other => panic!("{other:?}"),
        };
        changes.iter().map(word).collect::<Vec<_>>().join(" ")
    };
    let none = Merged::default();
    let first = merge(&none, [file("f", "d c"), file("g", "b a")]);
    assert_eq!(text(none.changes_to(&first)), "+d +c +b +a");
    assert_eq!(text(first.changes_to(&first)), "");
    let second = merge(&first, [file("f", "d xc 2e"), file("g", "b")]);
    assert_eq!(text(first.changes_to(&second)), "-a +e");
    assert_eq!(text(second.changes_to(&none)).len(), "-b -c -d -e".len());
}

fn any_files() -> impl Strategy<Value = Vec<File>> {
    let word = "([23]|x|none-|misspelt-)?[a-f]|\\?|~";
    let words = proptest::collection::vec(word, 0..6).prop_map(|words| words.join(" "));
    proptest::collection::btree_map("[f-h]", words, 0..3)
        .prop_map(|files| files.iter().map(|(path, words)| file(path, words)).collect())
}

proptest! {
    #[test]
    fn what_no_problem_touches_is_as_in_a_fresh_reading(readings in proptest::collection::vec(any_files(), 1..5)) {
        let mut merged = Merged::default();
        for files in readings {
            let next = merge(&merged, &files);
            let fresh = merge(&Merged::default(), &files);
            prop_assert_eq!(&next.problems, &fresh.problems);
            for (name, held) in &fresh.objects {
                prop_assert_eq!(Some(&held.object), next.objects.get(name).map(|held| &held.object));
            }
            for (name, held) in &next.objects {
                let kept = merged.objects.get(name).is_some_and(|before| before.object == held.object);
                prop_assert!(fresh.objects.contains_key(name) || (kept && !next.problems.is_empty()));
            }
            merged = next;
        }
    }
}
