//! What the containers may do on the node.

use crate::support::deployment::{Document, NODE, command_lines, containers, documents};
use serde_json::{Value, json};

/// What legacy iptables takes turns by.
const LOCK: &str = "/run/xtables.lock";

#[test]
fn a_container_that_stays_has_the_networks_capabilities_and_can_get_no_other() {
    let mut seen = 0;
    for Document { file, value } in daemon_sets() {
        for container in staying(&value).into_iter().filter(|container| container.get("securityContext").is_some()) {
            let expected = json!({
                "privileged": false,
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]},
            });
            assert_eq!(container["securityContext"], expected, "{}", file.display());
            seen += 1;
        }
    }
    assert_eq!(seen, 2, "in the base, and in the patch for kubeadm");
}

#[test]
fn only_a_container_that_ends_is_privileged_and_it_has_no_credentials() {
    for Document { file, value } in daemon_sets() {
        let ending: Vec<&Value> = list(&value, "/spec/template/spec/initContainers").collect();
        for container in &ending {
            let words = container["command"].as_array().into_iter().chain(container["args"].as_array()).flatten();
            assert!(words.filter_map(Value::as_str).any(|word| word == "--init-only"), "{}", file.display());
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        }
        if file.starts_with("deploy/kustomize/base") {
            assert_eq!(value.pointer("/spec/template/spec/automountServiceAccountToken"), Some(&json!(false)));
            let mounts = |container: &Value| mounted(container).contains(&"api".to_owned());
            assert!(!ending.iter().any(|container| mounts(container)) && staying(&value).into_iter().all(mounts));
        }
    }
}

#[test]
fn everything_but_iptables_lock_is_mounted_read_only_and_of_the_node_only_that_and_its_modules() {
    for Document { file, value } in daemon_sets() {
        for mount in containers(&value).into_iter().flat_map(|container| list(container, "/volumeMounts")) {
            let is_harmless = mount["readOnly"] == true || mount["$patch"] == "delete" || mount["mountPath"] == LOCK;
            assert!(is_harmless, "{}: {mount}", file.display());
        }
        let of_node = list(&value, "/spec/template/spec/volumes").filter_map(|volume| volume.pointer("/hostPath/path"));
        assert!(of_node.into_iter().all(|path| path == "/lib/modules" || path == LOCK), "{}", file.display());
        let containers = containers(&value);
        assert!(containers.iter().all(|container| container.get("ports").is_none()), "the network is the host's");
    }
}

#[test]
fn every_system_call_filter_is_the_runtimes_own() {
    for Document { file, value } in daemon_sets() {
        let profile = value.pointer("/spec/template/spec/securityContext/seccompProfile/type");
        let only_an_image = file.ends_with("image.yaml");
        assert_eq!(profile, (!only_an_image).then_some(&json!("RuntimeDefault")), "{}", file.display());
    }
}

#[test]
fn the_pod_is_where_the_node_is_and_stays_there() {
    let daemon_set = daemon_sets().into_iter().find(|set| set.file.starts_with("deploy/kustomize/base")).unwrap();
    for (pointer, expected) in [
        ("/spec/template/spec/hostNetwork", json!(true)),
        ("/spec/template/spec/dnsPolicy", json!("Default")),
        ("/spec/template/spec/nodeSelector", json!({"kubernetes.io/os": "linux"})),
        ("/spec/template/spec/tolerations", json!([{"operator": "Exists"}])),
        ("/spec/template/spec/priorityClassName", json!("system-node-critical")),
        ("/spec/updateStrategy/rollingUpdate", json!({"maxUnavailable": "10%"})),
        ("/spec/template/metadata/labels", daemon_set.value["spec"]["selector"]["matchLabels"].clone()),
    ] {
        assert_eq!(daemon_set.value.pointer(pointer), Some(&expected), "{pointer}");
    }
}

#[test]
fn a_probe_asks_what_kube_proxy_answers_on_its_usual_port() {
    let daemon_set = daemon_sets().into_iter().find(|set| set.file.starts_with("deploy/kustomize/base")).unwrap();
    let [container] = staying(&daemon_set.value)[..] else { panic!("one container stays") };
    for (probe, path) in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/healthz")] {
        assert_eq!(container[probe]["httpGet"], json!({"path": path, "port": 10256}), "{probe}");
    }
    let patience =
        |probe: &str| container[probe]["periodSeconds"].as_u64().zip(container[probe]["failureThreshold"].as_u64());
    let seconds = |probe: &str| patience(probe).map(|(period, failures)| period * failures).unwrap();
    assert!(seconds("startupProbe") >= 60, "a node that boots is slow");
    assert!(seconds("livenessProbe") >= 30 && seconds("readinessProbe") >= 10);
}

#[test]
fn every_command_line_says_which_node_it_is_and_names_a_mounted_configuration() {
    let in_containers: Vec<_> = command_lines().into_iter().filter(|line| line.file.starts_with("deploy")).collect();
    assert_eq!(in_containers.len(), 3);
    for line in in_containers {
        assert!(line.words.contains(&format!("--hostname-override={NODE}")), "{line:?}");
        let configuration = line.words.iter().find_map(|word| word.strip_prefix("--config=")).unwrap();
        let folder = configuration.rsplit_once('/').unwrap().0;
        let document = daemon_sets().into_iter().find(|set| set.file == line.file).unwrap();
        let mounts = containers(&document.value).into_iter().flat_map(|container| list(container, "/volumeMounts"));
        assert!(mounts.into_iter().any(|mount| mount["mountPath"] == folder), "{line:?}");
    }
}

fn daemon_sets() -> Vec<Document> {
    let found: Vec<_> = documents().into_iter().filter(|document| document.kind() == "DaemonSet").collect();
    assert_eq!(found.len(), 3);
    found
}

fn staying(object: &Value) -> Vec<&Value> {
    list(object, "/spec/template/spec/containers").collect()
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn mounted(container: &Value) -> Vec<String> {
    list(container, "/volumeMounts").map(|mount| mount["name"].as_str().unwrap().to_owned()).collect()
}
