//! The directory as a whole: what is read again, what a change of files changes, what single files can break.

use super::*;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A Service and its EndpointSlice of two endpoints, as YAML.
fn pair(number: usize) -> String {
    let (high, low) = (number / 250, number % 250 + 1);
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web-{number}\n  namespace: shop\n  labels:\n    app: web\n\
         spec:\n  clusterIP: 10.0.{high}.{low}\n  ports:\n  - name: http\n    port: 80\n    targetPort: 8080\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-{number}-1\n  \
         namespace: shop\n  labels:\n    kubernetes.io/service-name: web-{number}\naddressType: IPv4\nports:\n\
         - name: http\n  port: 8080\nendpoints:\n- addresses:\n  - 10.1.{high}.{low}\n  conditions:\n    \
         ready: true\n- addresses:\n  - 10.2.{high}.{low}\n  conditions:\n    ready: true\n"
    )
}

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = TempDir::new().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

/// The problems of an update, each as its text without the directory.
fn problems(update: &Update, directory: &TempDir) -> Vec<String> {
    let prefix = format!("{}/", directory.path().display());
    update.problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
}

/// The changes of an update, as words such as `+web-1` and `-web-1`.
fn words(update: &Update) -> String {
    let word = |change: &Change| match change {
        Change::Service(service) => format!("+{}", service.name.name),
        Change::EndpointSlice(slice) => format!("+{}", slice.name.name),
        Change::ServiceGone(name) | Change::EndpointSliceGone(name) => format!("-{}", name.name),
        Change::Doubt(in_doubt) => format!("doubt={in_doubt}"),
        other => panic!("manifests do not know {other:?}"),
    };
    update.changes.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_reading_tells_what_differs_from_the_last() {
    let directory = directory(&[("b.yaml", &pair(1)), ("a.yml", &pair(2)), ("notes.txt", "a: ["), (".a.yaml", "a: [")]);
    let mut manifests = Manifests::new(directory.path(), "node-1");
    assert_eq!(words(&manifests.load().unwrap()), "+web-2 +web-2-1 +web-1 +web-1-1");
    assert_eq!(manifests.load().unwrap(), Update::default());
    fs::write(directory.path().join("b.yaml"), pair(1).replace("10.1.0.2", "10.1.0.3")).unwrap();
    fs::remove_file(directory.path().join("a.yml")).unwrap();
    let update = manifests.load().unwrap();
    let mut found: Vec<&str> = words(&update).leak().split(' ').collect();
    found.sort_unstable();
    assert_eq!(found, ["+web-1-1", "-web-2", "-web-2-1"]);
}

#[test]
fn only_files_that_changed_are_read_again() {
    let directory = directory(&[("a.yaml", &pair(1)), ("b.yaml", &pair(2))]);
    sleep(Duration::from_millis(250));
    let mut manifests = Manifests::new(directory.path(), "node-1");
    manifests.load().unwrap();
    let parsed = |manifests: &Manifests, name: &str| Arc::as_ptr(&manifests.files[OsStr::new(name)].file);
    let before = ["a.yaml", "b.yaml"].map(|name| parsed(&manifests, name));
    // Of the same size, which only the times tell apart.
    fs::write(directory.path().join("b.yaml"), pair(3)).unwrap();
    assert_eq!(words(&manifests.load().unwrap()).len(), "-web-2 -web-2-1 +web-3 +web-3-1".len());
    assert_eq!(parsed(&manifests, "a.yaml"), before[0]);
    assert_ne!(parsed(&manifests, "b.yaml"), before[1]);
}

#[test]
fn a_change_within_a_tick_of_the_clock_is_seen() {
    let directory = directory(&[("a.yaml", "")]);
    let mut manifests = Manifests::new(directory.path(), "node-1");
    for number in 1..50 {
        fs::write(directory.path().join("a.yaml"), pair(number % 9)).unwrap();
        assert!(words(&manifests.load().unwrap()).contains(&format!("+web-{}", number % 9)));
    }
}

#[test]
fn a_file_that_cannot_be_read_costs_no_other() {
    let directory = directory(&[("z.yaml", &pair(1)), ("latin.yaml", "")]);
    let path = |name: &str| directory.path().join(name);
    fs::write(path("latin.yaml"), b"\na: caf\xe9").unwrap();
    fs::create_dir(path("directory.yaml")).unwrap();
    symlink("loop.yaml", path("loop.yaml")).unwrap();
    symlink("nowhere", path("dangling.yaml")).unwrap();
    nix::unistd::mkfifo(&path("fifo.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::File::create(path("huge.yaml")).unwrap().set_len(files::FILE_SIZE_MAX + 1).unwrap();
    let update = Manifests::new(directory.path(), "node-1").load().unwrap();
    assert_eq!(words(&update), "+web-1 +web-1-1 doubt=true");
    assert_eq!(
        problems(&update, &directory),
        [
            "dangling.yaml: cannot be read: No such file or directory (os error 2)",
            "directory.yaml: cannot be read: it is a directory",
            "fifo.yaml: cannot be read: it is not a regular file",
            "huge.yaml: larger than 64 MiB, the most that is read",
            "latin.yaml: not UTF-8 text at line 2, byte 7 of the file",
            "loop.yaml: cannot be read: Too many levels of symbolic links (os error 40)",
        ]
    );
}

#[test]
fn an_unreadable_file_keeps_its_objects() {
    let directory = directory(&[("a.yaml", &pair(1))]);
    let mut manifests = Manifests::new(directory.path(), "node-1");
    manifests.load().unwrap();
    fs::write(directory.path().join("a.yaml"), b"\xff").unwrap();
    let update = manifests.load().unwrap();
    assert_eq!((words(&update).as_str(), update.problems.len()), ("doubt=true", 1));
    fs::write(directory.path().join("a.yaml"), pair(1)).unwrap();
    let update = manifests.load().unwrap();
    assert_eq!((words(&update).as_str(), update.problems.len()), ("doubt=false", 0));
}

#[test]
fn a_directory_that_cannot_be_read_changes_nothing() {
    let directory = directory(&[("a.yaml", &pair(1))]);
    let (here, away) = (directory.path().join("here"), directory.path().join("away"));
    fs::create_dir(&here).unwrap();
    fs::copy(directory.path().join("a.yaml"), here.join("a.yaml")).unwrap();
    let mut manifests = Manifests::new(&here, "node-1");
    manifests.load().unwrap();
    fs::rename(&here, &away).unwrap();
    let error = manifests.load().unwrap_err();
    assert_eq!(error.to_string(), format!("the manifests in {} cannot be read", here.display()));
    fs::rename(&away, &here).unwrap();
    assert_eq!(manifests.load().unwrap(), Update::default());
}

/// As when a file system is no longer mounted there. What the user empties is empty.
#[test]
fn another_directory_that_is_empty_changes_nothing() {
    let root = directory(&[]);
    let (here, away) = (root.path().join("here"), root.path().join("away"));
    fs::create_dir(&here).unwrap();
    let mut manifests = Manifests::new(&here, "node-1");
    assert_eq!(words(&manifests.load().unwrap()), "", "at the start it means what it says");
    fs::write(here.join("a.yaml"), pair(1)).unwrap();
    assert_eq!(words(&manifests.load().unwrap()), "+web-1 +web-1-1");
    fs::rename(&here, &away).unwrap();
    fs::create_dir(&here).unwrap();
    let error = manifests.load().unwrap_err();
    assert!(error.to_string().ends_with("/here is another directory than before and has no manifest"), "{error}");
    assert_eq!(manifests.problems_with(&error).len(), 1);
    assert!(manifests.load().is_err(), "nor later");
    fs::write(here.join("b.yaml"), pair(1)).unwrap();
    assert_eq!(words(&manifests.load().unwrap()), "+web-1 +web-1-1", "read elsewhere");
    fs::remove_file(here.join("b.yaml")).unwrap();
    assert_eq!(words(&manifests.load().unwrap()).split(' ').count(), 2, "both are gone");
}

#[test]
fn of_a_file_that_is_being_written_nothing_is_believed() {
    let directory = directory(&[("a.yaml", &pair(1)), ("b.yaml", &pair(2))]);
    let mut manifests = Manifests::new(directory.path(), "node-1");
    manifests.load().unwrap();
    for name in ["a.yaml", "b.yaml", "c.yaml"] {
        fs::write(directory.path().join(name), "").unwrap();
    }
    let written = ["a.yaml", "c.yaml"].map(|name| FileId::at(&directory.path().join(name)).unwrap());
    let update = manifests.load_unless(|file| written.contains(&file)).unwrap();
    let gone: Vec<_> = update.changes.iter().filter(|change| !matches!(change, Change::Doubt(true))).collect();
    assert_eq!((gone.len(), update.changes.len()), (2, 3), "nobody knows what c.yaml has: {:?}", update.changes);
    assert!(words(&update).contains("-web-2-1") && update.problems.is_empty(), "{update:?}");
    assert!(words(&manifests.load().unwrap()).contains("-web-1-1"));
}

#[test]
fn of_two_files_with_the_same_object_the_first_by_name_stays() {
    let directory = directory(&[("b.yaml", &pair(1)), ("a.yaml", &pair(1))]);
    let update = Manifests::new(directory.path(), "node-1").load().unwrap();
    assert_eq!(words(&update), "+web-1 +web-1-1");
    let first = format!("the first is in {}", directory.path().join("a.yaml").display());
    for problem in &update.problems {
        assert!(problem.message.contains(&first), "{problem}");
    }
    assert_eq!(update.problems.len(), 2);
}

/// In a release build it is the full size of the requirement and takes a second or two in all.
#[test]
fn a_large_directory_is_read_whole_and_then_not_again() {
    let size = if cfg!(debug_assertions) { 300 } else { 10_000 };
    let pairs: Vec<String> = (0..size).map(pair).collect();
    let documents: Vec<&str> = pairs.iter().flat_map(|pair| pair.split("---\n")).collect();
    let item = |document: &&str| format!("- {}", document.replace('\n', "\n  "));
    let list =
        format!("apiVersion: v1\nkind: List\nitems:\n{}", documents.iter().map(item).collect::<Vec<_>>().join("\n"));
    let four = pairs.chunks(size / 4).map(|chunk| chunk.join("---\n")).collect();
    let single = documents.iter().map(|document| (*document).to_owned()).collect();
    let value: serde_json::Value = serde_saphyr::from_str_with_options(&list, parse::yaml_options()).unwrap();
    for (what, ending, files) in [
        ("one list", "yaml", vec![list]),
        ("four files", "yaml", four),
        ("a file each", "yaml", single),
        ("JSON", "json", vec![value.to_string()]),
    ] {
        let directory = TempDir::new().unwrap();
        for (number, text) in files.iter().enumerate() {
            fs::write(directory.path().join(format!("{number:05}.{ending}")), text).unwrap();
        }
        sleep(Duration::from_millis(250));
        let mut manifests = Manifests::new(directory.path(), "node-1");
        let [first, second] = [(); 2].map(|()| {
            let started = Instant::now();
            (manifests.load().unwrap(), started.elapsed())
        });
        assert_eq!((first.0.problems, first.0.changes.len()), (vec![], 2 * size), "{what}");
        assert_eq!(second.0, Update::default(), "{what}");
        println!("{size} Services and EndpointSlices, {what}: {:?}, again {:?}", first.1, second.1);
    }
}

proptest! {
    #[test]
    fn no_bytes_in_files_make_it_panic(files in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 3)) {
        let directory = TempDir::new().unwrap();
        for (bytes, name) in files.iter().zip(["a.yaml", "b.yml", "c.json"]) {
            fs::write(directory.path().join(name), bytes).unwrap();
        }
        let changes = Manifests::new(directory.path(), "node-1").load().unwrap().changes;
        prop_assert!(changes.iter().all(|change| matches!(change, Change::Doubt(true))), "{:?}", changes);
    }
}

#[test]
fn doubt_is_about_objects_of_which_no_good_version_is_known() {
    let bad = pair(1).replace("port: 80", "port: 80000");
    let cases = [
        ("a bad object that was never good", "", bad.as_str(), "doubt=true"),
        ("a bad object that was good before", &pair(1), &bad, ""),
        ("what cannot be read", "", "a: [", "doubt=true"),
        ("a misspelt kind", "", "{apiVersion: v1, kind: Servise, metadata: {name: web}}", "doubt=true"),
        ("another kind", "", "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}}", ""),
    ];
    for (case, before, now, expected) in cases {
        let directory = directory(&[("a.yaml", before)]);
        let mut manifests = Manifests::new(directory.path(), "node-1");
        manifests.load().unwrap();
        fs::write(directory.path().join("a.yaml"), now).unwrap();
        assert_eq!(words(&manifests.load().unwrap()), expected, "{case}");
    }
}
