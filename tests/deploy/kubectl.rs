//! Where there is a kubectl, it does with the manifests what a user would have it do, without a cluster.

use crate::objects::again;
use crate::support::deployment::{Document, containers, path};
use serde_json::Value;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn kustomize_makes_complete_objects_in_one_namespace() {
    let Some(kubectl) = kubectl() else { return };
    let built = run(Command::new(kubectl).args(["kustomize"]).arg(path("deploy/kustomize/cluster")));
    let values: Vec<Value> = serde_saphyr::from_multiple(&built).unwrap();
    let documents = values.into_iter().map(|value| Document { file: "kustomize".into(), value });
    let documents: Vec<_> = documents.collect();
    assert_eq!(documents.len(), 5);
    for document in &documents {
        assert_eq!(again(document).as_ref(), Some(&document.value));
        let of_cluster = document.kind().starts_with("Cluster");
        assert_eq!(document.text("/metadata/namespace"), if of_cluster { "" } else { "kube-system" });
    }
    let named = |kind: &str| documents.iter().find(|document| document.kind() == kind).unwrap();
    let (map, set) = (named("ConfigMap"), named("DaemonSet"));
    assert_eq!(set.text("/spec/template/spec/volumes/0/configMap/name"), map.text("/metadata/name"));
    let keys: Vec<_> = map.value["data"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["config.yaml", "kubeconfig.yaml"]);
    let image = format!("ipvsd:{}", env!("CARGO_PKG_VERSION"));
    assert!(containers(&set.value).iter().all(|container| container["image"] == *image));
}

#[test]
fn the_patches_turn_what_kubeadm_made_into_what_they_promise() {
    let Some(kubectl) = kubectl() else { return };
    let directory = tempfile::tempdir().unwrap();
    let with_image = patched(&kubectl, &path("tests/deploy/kubeadm.yaml"), "image.yaml");
    let file = directory.path().join("with-image.yaml");
    std::fs::write(&file, &with_image).unwrap();
    let least = patched(&kubectl, &file, "least-privilege.yaml");
    let [before, image, least] = [crate::support::deployment::read("tests/deploy/kubeadm.yaml"), with_image, least]
        .map(|text| serde_saphyr::from_str::<Value>(&text).unwrap());

    let mut expected = before;
    expected["spec"]["template"]["spec"]["containers"][0]["image"] = image_name().into();
    assert_eq!(image, expected, "only the image is another");

    let pod = &least["spec"]["template"]["spec"];
    let volumes: Vec<_> = pod["volumes"].as_array().unwrap().iter().map(|volume| &volume["name"]).collect();
    assert_eq!(volumes, ["kube-proxy", "xtables-lock", "lib-modules"]);
    let [init, daemon] = containers(&least)[..] else { panic!("{least}") };
    assert_eq!((&init["image"], &daemon["image"]), (&image_name().into(), &image_name().into()));
    assert_eq!(daemon["command"], expected["spec"]["template"]["spec"]["containers"][0]["command"]);
    let mounts: Vec<_> = daemon["volumeMounts"].as_array().unwrap().iter().map(|mount| &mount["mountPath"]).collect();
    assert_eq!(mounts, ["/var/lib/kube-proxy", "/run/xtables.lock"]);
}

fn image_name() -> String {
    format!("ipvsd:{}", env!("CARGO_PKG_VERSION"))
}

fn patched(kubectl: &Path, object: &Path, patch: &str) -> String {
    let patch = path("deploy/kustomize/kubeadm").join(patch);
    run(Command::new(kubectl).args(["patch", "--local", "-o", "yaml", "-f"]).arg(object).arg("--patch-file").arg(patch))
}

/// Debian 12 has none that could do this, so its absence is no failure anywhere.
fn kubectl() -> Option<PathBuf> {
    let assets = env::var_os("KUBEBUILDER_ASSETS").map(|assets| Path::new(&assets).join("kubectl"));
    let found = assets.into_iter().chain([PathBuf::from("kubectl")]).find(|program| {
        Command::new(program).args(["version", "--client"]).output().is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        eprintln!("NOT CHECKED: no kubectl in PATH or KUBEBUILDER_ASSETS");
    }
    found
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
