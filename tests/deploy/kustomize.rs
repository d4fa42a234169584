//! The kustomizations name what is there, and everything that is there is named.

use crate::support::deployment::{self, Document, documents};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The part of kustomize's format that is used here. Anything else would need checks of its own.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "a field that is only read proves that it may be there")]
struct Kustomization {
    api_version: String,
    kind: String,
    namespace: Option<String>,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    images: Vec<Image>,
    #[serde(default)]
    config_map_generator: Vec<Generator>,
    #[serde(default)]
    patches: Vec<Patch>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "as above")]
struct Image {
    name: String,
    new_name: String,
    new_tag: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Generator {
    name: String,
    behavior: Option<String>,
    files: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    path: String,
}

#[test]
fn every_file_is_named_by_the_kustomization_beside_it_and_every_named_file_is_there() {
    let mut named = BTreeSet::new();
    for (folder, kustomization) in kustomizations() {
        named.insert(folder.join("kustomization.yaml"));
        named.extend(files(&kustomization).map(|file| folder.join(file)));
    }
    let there: BTreeSet<PathBuf> = deployment::files("deploy/kustomize").into_iter().collect();
    assert_eq!(named, there);
}

#[test]
fn the_cluster_completes_the_configuration_that_the_daemon_set_mounts() {
    let of = |folder: &str| kustomizations().into_iter().find(|(at, _)| at.ends_with(folder)).unwrap().1;
    let (base, cluster) = (of("base"), of("cluster"));
    let [Generator { name, behavior: None, files: settings }] = &base.config_map_generator[..] else {
        panic!("{base:?}")
    };
    let [Generator { name: same, behavior, files: access }] = &cluster.config_map_generator[..] else {
        panic!("{cluster:?}")
    };
    assert_eq!((same, behavior.as_deref()), (name, Some("merge")));
    assert_eq!([&settings[..], &access[..]].concat(), ["config.yaml", "kubeconfig.yaml"]);
    let [daemon_set] = &deployment::parse("deploy/kustomize/base/daemon-set.yaml".into())[..] else { panic!("one") };
    assert_eq!(daemon_set.text("/spec/template/spec/volumes/0/configMap/name"), name);
    assert_eq!(daemon_set.text("/spec/template/spec/containers/0/volumeMounts/0/mountPath"), "/etc/ipvsd");
}

#[test]
fn the_configurations_name_the_kubeconfig_where_it_is_mounted() {
    for (configuration, kubeconfig) in [
        ("deploy/kustomize/base/config.yaml", "/etc/ipvsd/kubeconfig.yaml"),
        ("systemd/etc/ipvsd/config.yaml", "/etc/ipvsd/kubeconfig.yaml"),
    ] {
        let [document] = &deployment::parse(configuration.into())[..] else { panic!("{configuration}") };
        assert_eq!(document.text("/clientConnection/kubeconfig"), kubeconfig, "{configuration}");
    }
}

#[test]
fn every_kubeconfig_is_complete_and_reaches_no_service() {
    let kubeconfigs: Vec<Document> = documents().into_iter().filter(|document| document.kind() == "Config").collect();
    assert_eq!(kubeconfigs.len(), 2);
    for kubeconfig in kubeconfigs {
        let read: kube::config::Kubeconfig = serde_json::from_value(kubeconfig.value.clone()).unwrap();
        let context = read.contexts[0].context.as_ref().unwrap();
        assert_eq!(read.current_context.as_ref(), Some(&read.contexts[0].name));
        assert_eq!(context.cluster, read.clusters[0].name);
        assert_eq!(context.user.as_ref(), Some(&read.auth_infos[0].name));
        // Nobody may own the name (RFC 6761), so that what was not filled in fails at once.
        assert_eq!(kubeconfig.text("/clusters/0/cluster/server"), "https://api.invalid:6443");
    }
}

fn kustomizations() -> Vec<(PathBuf, Kustomization)> {
    let documents = documents().into_iter().filter(|document| document.file.ends_with("kustomization.yaml"));
    let read = |Document { file, value }: Document| {
        let kustomization = serde_json::from_value(value).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        (file.parent().unwrap().to_owned(), kustomization)
    };
    documents.map(read).collect()
}

/// The files, not the folders, that a kustomization names.
fn files(kustomization: &Kustomization) -> impl Iterator<Item = &Path> {
    let generated = kustomization.config_map_generator.iter().flat_map(|generator| &generator.files);
    let patches = kustomization.patches.iter().map(|patch| &patch.path);
    let all = kustomization.resources.iter().chain(generated).chain(patches);
    all.map(Path::new).filter(|path| path.extension().is_some())
}
