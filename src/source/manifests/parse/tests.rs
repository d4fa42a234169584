//! Which objects and which problems, word for word, a text gives.

use super::*;
use crate::source::convert::Rules;
use proptest::prelude::*;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.0.0.1, ports: \
                       [{port: 80}]}\n";
const SLICE: &str = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-1, labels: \
                     {kubernetes.io/service-name: web}}\naddressType: IPv4\nports: [{port: 80}]\nendpoints: \
                     [{addresses: [10.1.0.1]}]\n";

fn context() -> Context {
    Context::new(Rules::Manifest, "node-1")
}

/// Each entry in one line: an object as its name and document, a problem as its text.
fn read(path: &str, text: &str) -> Vec<String> {
    let sources = [Source { path: path.into(), text: Ok(text.to_owned()) }];
    parse(&sources, &context()).remove(0).entries.iter().map(line).collect()
}

fn line(entry: &Entry) -> String {
    match entry {
        Entry::Object(object) => format!("{} in {}", object.reference(), object.origin()),
        Entry::NotOurs(name, origin) => format!("not ours: {name} in {origin}"),
        Entry::Bad(name, problem) => {
            assert_eq!(Some(name), problem.object.as_ref());
            problem.to_string()
        }
        Entry::Unclear(problem, doubt) => {
            assert_eq!(problem.object, None);
            format!("{problem} ({doubt:?})")
        }
        Entry::Slip(problem) => problem.to_string(),
        Entry::Unseen => panic!("what is parsed was seen"),
    }
}

#[test]
fn documents_are_read_each_for_itself() {
    let lines = read("web.yaml", &format!("\u{feff}# ours\n---\n{SERVICE}---\n---\na: [\n---\n{SLICE}"));
    assert_eq!(
        lines,
        [
            "Service default/web in web.yaml, document 1",
            "web.yaml, document 3: not YAML: unclosed bracket '[' at line 9, column 4 (AnyOfTheFile)",
            "EndpointSlice default/web-1 in web.yaml, document 4",
        ]
    );
}

#[test]
fn line_ends_of_other_systems_are_read() {
    for end in ["\r\n", "\r"] {
        let lines = read("web.yml", &format!("{SERVICE}---\n{SLICE}").replace('\n', end));
        let wanted =
            ["Service default/web in web.yml, document 1", "EndpointSlice default/web-1 in web.yml, document 2"];
        assert_eq!(lines, wanted, "{end:?}");
    }
}

#[test]
fn json_is_read_by_the_name_of_the_file() {
    let service = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"web"},"spec":{"type":"ExternalName"}}"#;
    let lines = read("web.json", &format!("\u{feff}{service}\n{}\n{{\"a\":,}}{service}", service.replace("web", "db")));
    assert_eq!(
        lines,
        [
            "not ours: Service default/web in web.json, document 1",
            "not ours: Service default/db in web.json, document 2",
            "web.json, document 3: not JSON: expected value at line 3 column 6 (AnyOfTheFile)",
        ]
    );
    assert_eq!(read("web.yaml", service), ["not ours: Service default/web in web.yaml, document 1"]);
}

#[test]
fn a_bad_item_costs_no_other_item() {
    let item = |text: &str| format!("- {}\n", text.trim_end().replace('\n', "\n  "));
    let items = [SERVICE, &SERVICE.replace("port: 80", "port: 0"), "kind: Service", "text", SLICE].map(item).concat();
    assert_eq!(
        read("all.yaml", &format!("apiVersion: v1\nkind: List\nitems:\n{items}")),
        [
            "Service default/web in all.yaml, document 1",
            "all.yaml, document 1: Service default/web: items[1].spec.ports[0].port: 0 is not a port: 1 to 65535 are",
            "all.yaml, document 1: items[2].apiVersion: missing, for Service: ipvsd reads Service and List of v1, and \
         EndpointSlice of discovery.k8s.io/v1 (AnyOfTheFile)",
            "all.yaml, document 1: items[3]: not an object but text: it needs apiVersion, kind and metadata \
         (AnyOfTheFile)",
            "EndpointSlice default/web-1 in all.yaml, document 1",
        ]
    );
}

#[test]
fn items_of_typed_lists_need_not_say_their_kind() {
    let service = "kind: ServiceList\napiVersion: v1\nitems: [{metadata: {name: a}, spec: {clusterIP: None}}]";
    assert_eq!(read("a.yaml", service), ["not ours: Service default/a in a.yaml, document 1"]);
    let slice = "kind: EndpointSliceList\napiVersion: discovery.k8s.io/v1\nitems: [{metadata: {name: a}, addressType: FQDN, metadata: {name: a}}]";
    let duplicate = "not YAML: duplicate mapping key `metadata` is not allowed here at line 3, column 50";
    assert_eq!(read("a.yaml", slice), [format!("a.yaml, document 1: {duplicate} (AnyOfTheFile)")]);
    for empty in ["", "\nitems:", "\nitems: []"] {
        assert_eq!(read("a.yaml", &format!("kind: List\napiVersion: v1{empty}")), [""; 0]);
    }
    let text = "a.yaml, document 1: items: not a sequence (AnyOfTheFile)";
    assert_eq!(read("a.yaml", "kind: List\napiVersion: v1\nitems: {}"), [text]);
}

const READ: &str = "ipvsd reads Service and List of v1, and EndpointSlice of discovery.k8s.io/v1";

#[test]
fn bad_documents_say_why() {
    for (text, wanted) in [
        ("42", "not an object but a number: it needs apiVersion, kind and metadata (AnyOfTheFile)".to_owned()),
        ("- a", "not an object but a sequence: it needs apiVersion, kind and metadata (AnyOfTheFile)".to_owned()),
        (
            "a: b: c",
            "not YAML: mapping values are not allowed in this context at line 1, column 5 (AnyOfTheFile)".to_owned(),
        ),
        ("metadata: {name: web}", format!("kind: missing: {READ} (Named({:?}))", ObjectName::new("default", "web"))),
        (
            "kind: Service\nmetadata: {name: web, namespace: x}",
            format!("apiVersion: missing, for Service x/web: {READ} (Named({:?}))", ObjectName::new("x", "web")),
        ),
        (
            "apiVersion: v1\nkind: Servce\nmetadata: {name: web}",
            format!(
                "kind: Servce default/web of v1 is not read: {READ} (Named({:?}))",
                ObjectName::new("default", "web")
            ),
        ),
        (
            "apiVersion: v2\nkind: Service\nmetadata: {name: web}",
            format!(
                "apiVersion: Service default/web of v2 is not read: {READ} (Named({:?}))",
                ObjectName::new("default", "web")
            ),
        ),
        (
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web}",
            format!("kind: ServiceAccount default/web of v1 is not read: {READ} (Nothing)"),
        ),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}",
            format!("kind: Deployment default/web of apps/v1 is not read: {READ} (Nothing)"),
        ),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: }", "metadata.name: missing (AnyOfTheFile)".to_owned()),
        ("apiVersion: v1\nkind: Service", "metadata.name: missing (AnyOfTheFile)".to_owned()),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: 5}",
            "metadata.name: invalid type: integer `5`, expected a string (AnyOfTheFile)".to_owned(),
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: none",
            "Service default/web: spec: invalid type: string \"none\", expected a mapping".to_owned(),
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: eighty}]}",
            "Service default/web: spec.ports[0].port: invalid type: string \"eighty\", expected a JSON number"
                .to_owned(),
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: web, labels: {a: 1}}",
            "Service default/web: metadata.labels.a: invalid type: integer `1`, expected a string".to_owned(),
        ),
    ] {
        assert_eq!(read("web.yaml", text), [format!("web.yaml, document 1: {wanted}")], "{text}");
    }
}

#[test]
fn a_file_without_a_text_is_one_problem() {
    let source = Source { path: "web.yaml".into(), text: Err("cannot be read: no".into()) };
    let lines: Vec<String> = parse(&[source], &context()).remove(0).entries.iter().map(line).collect();
    assert_eq!(lines, ["web.yaml: cannot be read: no (AnyOfTheFile)"]);
}

#[test]
fn anchors_and_merge_keys_are_read() {
    let slice = SLICE.replace("[{addresses: [10.1.0.1]}]", "[&a {addresses: [10.1.0.1]}, {<<: *a, nodeName: node-2}]");
    assert_eq!(read("a.yaml", &slice), ["EndpointSlice default/web-1 in a.yaml, document 1"]);
}

#[test]
fn what_aliases_multiply_is_bounded() {
    let levels: String =
        (1..12).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(","))).collect();
    let scalar = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), ["*a"; 1000].join(","));
    for bomb in [format!("a0: &a0 [1]\n{levels}"), scalar] {
        let lines = read("bomb.yaml", &bomb);
        assert!(matches!(&lines[..], [line] if line.contains("not YAML")), "{lines:.200?}");
    }
    let deep = "[".repeat(100_000);
    for path in ["deep.yaml", "deep.json"] {
        assert_eq!(read(path, &deep).len(), 1);
    }
}

#[test]
fn what_is_misspelt_is_told_and_a_sequence_is_no_object() {
    let lines = read("web.yaml", &SERVICE.replace("ports:", "sesionAffinity: ClientIP, ports:"));
    let told = "web.yaml, document 1: Service default/web: spec.sesionAffinity: unknown, so it has no effect";
    assert_eq!(lines, [told, "Service default/web in web.yaml, document 1"]);
    let list =
        "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Service, metadata: {name: web}, spec: [A]}]}";
    let told = "a.yaml, document 1: Service default/web: items[0].spec: a sequence, where a mapping is needed";
    assert_eq!(read("a.yaml", list), [told]);
}

/// Above the parser's usual limits of 250,000 nodes and 1,024 documents.
#[test]
fn large_documents_and_many_of_them_are_read() {
    let wide = SERVICE.replace("ports:", &format!("selector: [{}], ports:", vec!["1"; 260_000].join(",")));
    assert_eq!(read("wide.yaml", &wide), ["Service default/web in wide.yaml, document 1"]);
    assert_eq!(read("many.yaml", &"---\n{}\n".repeat(1_500)).len(), 1_500);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let text = String::from_utf8_lossy(&bytes);
        read("a.yaml", &text);
        read("a.json", &text);
    }

    #[test]
    fn no_damage_makes_it_panic(at in 0..SERVICE.len() + SLICE.len(), length in 0..40usize, with in "[-{}\\[\\]:&*!|>%\"' \n\ta0]{0,6}") {
        let mut text: Vec<char> = format!("{SERVICE}---\n{SLICE}").chars().collect();
        let end = text.len().min(at + length);
        text.splice(at.min(end)..end, with.chars());
        read("a.yaml", &text.into_iter().collect::<String>());
    }
}
