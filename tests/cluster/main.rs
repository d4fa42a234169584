//! The source for Kubernetes against a real API server. `KUBEBUILDER_ASSETS` names the directory that has `etcd` and
//! `kube-apiserver`; without it, everything here shows as ignored.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "../support/kubernetes/mod.rs"]
mod kubernetes;

use ipvsd::source::kube::{Events, Kind, Occurrence};
use kubernetes::control_plane::{self, ControlPlane};
use kubernetes::follower::{Follower, settings};
use kubernetes::objects::{NODE, node, service, slice, with};
use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};
use std::process::ExitCode;

fn main() -> ExitCode {
    let trial = |name: &str, test: fn()| {
        let run = move || {
            test();
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(control_plane::assets().is_none())
    };
    let trials = vec![
        trial("a_cluster_is_followed_by_streams", || is_followed(&ControlPlane::start(&[STREAMS]))),
        trial("a_cluster_is_followed_by_pages", || is_followed(&ControlPlane::start(&[PAGES]))),
        trial("a_restart_of_the_api_server_withdraws_nothing", a_restart_withdraws_nothing),
        trial("events_are_written_and_strangers_are_refused", events_are_written_and_strangers_are_refused),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

const STREAMS: &str = "--feature-gates=WatchList=true";
const PAGES: &str = "--feature-gates=WatchList=false";

/// More than a page of Services.
const MANY: usize = 520;

/// With the rights of kube-proxy, and no others.
fn follower_of(plane: &ControlPlane) -> Follower {
    Follower::start(settings(plane.kubeconfig("system:kube-proxy")))
}

fn is_followed(plane: &ControlPlane) {
    plane.put(&node("a"));
    for last in 1..MANY {
        plane.put(&service(&format!("web-{last}"), last));
    }
    plane.put(&slice("web-1", &[1, 2]));
    let follower = follower_of(plane);
    follower.until_equal_to(plane);
    assert_eq!(follower.seen().news.len(), 1);
    // The API server has one of its own.
    assert_eq!(follower.seen().services.len(), MANY);
    changes_are_followed(plane, &follower);
    assert_eq!(follower.seen().readings.len(), 0, "{:?}", follower.seen().readings);
}

fn changes_are_followed(plane: &ControlPlane, follower: &Follower) {
    plane.put(&slice("web-1", &[2, 3]));
    let balanced = with(service("web-2", 2), "/spec/type", json!("LoadBalancer"));
    plane.put(&balanced);
    plane.put_status(&with(balanced, "/status/loadBalancer", json!({"ingress": [{"ip": "203.0.113.7"}]})));
    follower.until_equal_to(plane);
    plane.delete(&service("web-3", 3));
    follower.until("what is deleted is gone", |seen| seen.withdrawn == ["web-3"]);
    let label = "service.kubernetes.io/service-proxy-name";
    plane.put(&with(service("web-4", 4), "/metadata/labels", json!({label: "other"})));
    follower.until("what another proxy gets is gone", |seen| seen.withdrawn == ["web-3", "web-4"]);
    plane.put(&service("web-4", 4));
    plane.put(&node("b"));
    follower.until_equal_to(plane);
    follower.until("the node moves", |seen| seen.state.node_object().zone.as_deref() == Some("b"));
}

fn a_restart_withdraws_nothing() {
    let mut plane = ControlPlane::start(&[]);
    plane.put(&node("a"));
    plane.put(&service("web", 1));
    plane.put(&slice("web", &[1, 2]));
    let follower = follower_of(&plane);
    follower.until_equal_to(&plane);
    plane.restart_api_server();
    plane.put(&service("more", 2));
    follower.until_equal_to(&plane);
    for kind in Kind::ALL {
        follower.until("all is well", |seen| seen.is_well(kind));
    }
    assert_eq!(follower.seen().withdrawn.len(), 0);
}

fn events_are_written_and_strangers_are_refused() {
    let plane = ControlPlane::start(&[]);
    let proxy = settings(plane.kubeconfig("system:kube-proxy"));
    let (events, writer) = Events::new(proxy.access, NODE, proxy.observer);
    events.write(Occurrence::Starting);
    // The same again becomes a series.
    events.write(Occurrence::Starting);
    drop(events);
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(writer.run());
    let written = plane.get("/apis/events.k8s.io/v1/events");
    // The API server writes some of its own.
    let ours = |event: &&Value| event["reportingController"] == "kube-proxy";
    let ours: Vec<_> = written["items"].as_array().unwrap().iter().filter(ours).collect();
    assert_eq!(ours.len(), 1, "{written:#}");
    assert_eq!((&ours[0]["reason"], &ours[0]["series"]["count"]), (&json!("Starting"), &json!(2)));

    let stranger = Follower::start(settings(plane.kubeconfig("nobody")));
    let words = "the API server answers 403: services is forbidden: User \"nobody\" cannot";
    stranger.until("it is refused", |seen| seen.was_told(Kind::Services, words));
    assert_eq!(stranger.seen().news.len(), 0);
}
