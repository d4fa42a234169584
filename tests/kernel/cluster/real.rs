//! The daemon and the real API server. `KUBEBUILDER_ASSETS` names the directory that has it with `etcd` and `kubectl`;
//! without it these tests show as ignored.

use super::rig::{IPVS, Rig, on_node_of_network};
use super::table::{table, ways};
use super::watcher::Watcher;
use crate::control_plane::{ControlPlane, assets};
use crate::follower::Truth;
use crate::lab::trial;
use crate::objects::{node, service, slice, with};
use crate::relay::Relay;
use crate::traffic_rig::{self, VIPS, requests};
use ipvsd::demo::client::Request;
use ipvsd::demo::namespace::Namespace;
use ipvsd::demo::network::Network;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![trial_with("kubectl", "cluster::a_real_api_server_is_followed_and_its_restart_withdraws_nothing", is_followed)]
}

/// A test that needs a real cluster and one more program of it; ignored where that is not there.
pub fn trial_with(program: &str, name: &str, test: fn()) -> Trial {
    let has_all = assets().is_some_and(|directory| {
        ["etcd", "kube-apiserver", program].iter().all(|program| directory.join(program).exists())
    });
    trial(name, test).with_ignored_flag(!has_all)
}

/// Service addresses of both families.
pub const BOTH_FAMILIES: &str = "--service-cluster-ip-range=10.96.0.0/12,fd00:96::/112";
/// Where daemons find the API server, by way of a relay.
pub const API: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6443);

/// What a control plane has while it cannot be asked.
pub struct Snapshot {
    services: Vec<Value>,
    slices: Vec<Value>,
}

impl Snapshot {
    /// What it has now.
    pub fn of(plane: &ControlPlane) -> Self {
        Self { services: plane.objects("Service"), slices: plane.objects("EndpointSlice") }
    }

    /// Its Services as if nobody asked for the traffic policy `Local`.
    pub fn without_local(&self) -> Vec<Value> {
        let policies = ["/spec/internalTrafficPolicy", "/spec/externalTrafficPolicy"];
        let without =
            |service: Value| policies.iter().fold(service, |object, policy| with(object, policy, json!("Cluster")));
        self.services.iter().cloned().map(without).collect()
    }
}

impl Truth for Snapshot {
    fn objects(&self, kind: &str) -> Vec<Value> {
        if kind == "Service" { self.services.clone() } else { self.slices.clone() }
    }
}

fn is_followed() {
    on_node_of_network(follow);
}

fn follow(network: &Network) {
    let mut plane = ControlPlane::start(&[BOTH_FAMILIES]);
    plane.put(&node("a"));
    plane.put_status(&node("a"));
    let directory = tempfile::tempdir().unwrap();
    let kubectl = Kubectl { kubeconfig: &plane.kubeconfig("admin"), directory: directory.path() };
    let balanced =
        traffic_rig::service("web", json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}));
    let web = [vec![balanced], traffic_rig::slices("web", &network.backends)].concat();
    kubectl.apply(&web);
    kubectl.apply(&[service("stays", 20), slice("stays", &[1, 2]), service("goes", 21), slice("goes", &[3])]);

    let relay = |plane: &ControlPlane| Relay::start(API, Namespace::here().unwrap(), plane.address());
    let kubeconfig = plane.kubeconfig_at(API, "system:kube-proxy");
    let way = relay(&plane);
    let mut rig = Rig::on(Snapshot::of(&plane), tempfile::tempdir().unwrap(), (&kubeconfig, &[IPVS]));
    rig.node.addresses.clear();
    rig.start();
    rig.until_true();
    let send = |request: &Request| network.client.namespace.run(|| Ok(request.spread(4)?)).unwrap();
    for request in requests(&VIPS) {
        assert_eq!(send(&request).into_values().collect::<Vec<_>>(), [2, 2], "{request:?}");
    }

    let watcher = Watcher::start([rig.ways("stays"), rig.ways("web")].into_iter().flatten().collect());
    drop(way);
    plane.restart_api_server();
    kubectl.delete(&[service("goes", 21), slice("goes", &[3])]);
    kubectl
        .apply(&[with(service("stays", 20), "/spec/externalIPs", json!(["203.0.113.9"])), slice("stays", &[1, 2, 4])]);
    kubectl.apply(&[service("new", 22), slice("new", &[5])]);
    rig.until_said(&["Services cannot be read"]);
    rig.server = Snapshot::of(&plane);
    assert_ne!(table(), rig.truth());
    let _way = relay(&plane);
    rig.until_true();
    watcher.finish();

    kubectl.delete(&web);
    rig.server = Snapshot::of(&plane);
    rig.until("web is withdrawn", |rig| ways(&table()) == rig.ways(""));
    for request in requests(&VIPS) {
        assert!(network.client.namespace.run(|| Ok(request.send())).unwrap().is_err(), "{request:?}");
    }
}

/// kubectl with a user's rights.
struct Kubectl<'a> {
    kubeconfig: &'a Path,
    /// For its files.
    directory: &'a Path,
}

impl Kubectl<'_> {
    fn apply(&self, objects: &[Value]) {
        self.run("apply", objects);
    }

    fn delete(&self, objects: &[Value]) {
        self.run("delete", objects);
    }

    fn run(&self, verb: &str, objects: &[Value]) {
        let manifest = self.directory.join("manifest.json");
        fs::write(&manifest, json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()).unwrap();
        let mut command = Command::new(assets().unwrap().join("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig).arg("--cache-dir").arg(self.directory.join("cache"));
        let output = command.args([verb, "-f"]).arg(&manifest).output().unwrap();
        assert!(output.status.success(), "{verb}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
