//! The image's recipe: makes what the manifests start, of files that are there.

use crate::support::deployment::{command_lines, documents, path, read};
use std::collections::BTreeSet;

const RECIPE: &str = "deploy/Containerfile";

#[test]
fn the_image_has_every_program_that_a_manifest_starts() {
    let recipe = read(RECIPE);
    let in_containers = command_lines().into_iter().filter(|line| line.file.starts_with("deploy"));
    let started: BTreeSet<String> = in_containers.map(|line| line.words[0].clone()).collect();
    assert_eq!(started, ["/usr/local/bin/ipvsd", "/usr/local/bin/kube-proxy"].map(str::to_owned).into());
    assert!(recipe.contains("COPY --from=build /build/target/release/ipvsd /usr/local/bin/ipvsd\n"));
    assert!(recipe.contains("RUN ln -s ipvsd /usr/local/bin/kube-proxy\n"));
    assert!(recipe.contains("ENTRYPOINT [\"/usr/local/bin/ipvsd\"]\n"));
    assert!(!recipe.lines().any(|line| line.starts_with("USER")), "see base/daemon-set.yaml");
}

#[test]
fn it_is_built_of_files_that_are_there_and_sent_nothing_else() {
    let recipe = read(RECIPE);
    let copies = recipe.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with("--"));
    let copied: BTreeSet<&str> = copies
        .flat_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            words[..words.len() - 1].to_vec()
        })
        .collect();
    assert_eq!(copied.iter().find(|file| !path(file).exists()), None);
    let sent = read("deploy/Containerfile.dockerignore");
    assert!(sent.lines().any(|line| line == "*"));
    assert_eq!(sent.lines().filter_map(|line| line.strip_prefix('!')).collect::<BTreeSet<_>>(), copied);
    // cargo reads the manifest before it builds, and that names files of tests and benchmarks.
    for file in read("Cargo.toml").lines().filter_map(|line| line.strip_prefix("path = \"")) {
        let folder = file.split('/').next().unwrap();
        assert!(copied.contains(folder), "{folder}");
    }
}

#[test]
fn no_image_is_named_by_a_registry_and_ours_has_this_version() {
    let recipe = read(RECIPE);
    let stages: Vec<_> = recipe.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    assert_eq!(stages, ["${BUILDER} AS build", "${RUNTIME}"], "the base images are arguments");
    for argument in recipe.lines().filter_map(|line| line.strip_prefix("ARG ")) {
        assert!(!argument.contains('/'), "{argument}");
    }
    let tagged = format!("ipvsd:{}", env!("CARGO_PKG_VERSION"));
    let mut images: BTreeSet<String> = BTreeSet::new();
    for document in documents() {
        let text = document.value.to_string();
        images.extend(text.split("\"image\":\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
    }
    // The bare name is what kustomize puts the cluster's image for.
    assert_eq!(images, ["ipvsd".to_owned(), tagged].into());
    let cluster = read("deploy/kustomize/cluster/kustomization.yaml");
    assert!(cluster.contains(&format!("newTag: {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn the_builder_has_the_rust_that_the_project_needs() {
    let (recipe, manifest) = (read(RECIPE), read("Cargo.toml"));
    let needed = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(recipe.contains(&format!("ARG BUILDER=rust:{needed}-bookworm\n")), "{needed}");
    assert!(recipe.contains("ARG RUNTIME=debian:bookworm-slim\n"), "the glibc of the builder");
}
