//! Objects that cannot be: each costs only itself, and keeps what was known of it before.

use crate::api_server::{ApiServer, Kick};
use crate::follower::{Follower, name};
use crate::objects::{node, service, slice, with};
use serde_json::{Value, json};

/// A Service with a value of the wrong JSON type.
fn bad(name: &str, last: usize) -> Value {
    with(service(name, last), "/spec/ports/0/port", json!("eighty"))
}

fn problems(follower: &Follower) -> Vec<String> {
    follower.seen().problems.iter().map(ToString::to_string).collect()
}

#[test]
fn an_object_that_becomes_bad_keeps_its_last_good_version_also_over_a_list() {
    let server = ApiServer::start();
    server.put(node("a"));
    server.put(service("web", 1));
    server.put(service("other", 2));
    let follower = Follower::of(&server);
    follower.until_equal_to(&server);

    server.put(bad("web", 3));
    follower.until("it is told", |seen| seen.problems.len() == 1);
    assert_eq!(
        problems(&follower),
        ["the API: Service default/web: spec.ports[0].port: invalid type: string \"eighty\", expected a JSON number"]
    );
    server.compact();
    server.kick(Kick::Cut);
    server.put(service("more", 4));
    follower.until("the others are listed again", |seen| seen.services.len() == 3);
    let known = follower.seen().state.service(&name("web")).cloned().unwrap();
    assert_eq!(known.cluster_ips[0].to_string(), "10.96.0.2");
    assert_eq!(problems(&follower).len(), 1);
    assert!(!follower.seen().state.is_in_doubt());

    server.put(service("web", 3));
    follower.until_equal_to(&server);
    assert_eq!(problems(&follower), [""; 0]);
    assert_eq!(follower.seen().withdrawn.len(), 0);
}

#[test]
fn an_object_that_is_used_without_a_part_is_told_and_no_doubt() {
    let server = ApiServer::start();
    server.put(node("a"));
    server.put(with(service("web", 1), "/metadata/annotations", json!({"ipvsd.io/scheduler": "the fastest"})));
    let follower = Follower::of(&server);
    follower.until_equal_to(&server);
    assert_eq!(problems(&follower).len(), 1, "{:?}", problems(&follower));
    assert!(problems(&follower)[0].contains("metadata.annotations[ipvsd.io/scheduler]"), "{:?}", problems(&follower));
    assert!(!follower.seen().state.is_in_doubt());
    server.put(service("other", 2));
    follower.until_equal_to(&server);
    assert_eq!(problems(&follower).len(), 1);
    server.delete("Service", "default", "web");
    follower.until("it is over", |seen| seen.problems.is_empty());
}

#[test]
fn what_was_bad_from_the_start_is_doubt_until_it_is_good_or_gone() {
    let server = ApiServer::start();
    server.put(node("a"));
    server.put(service("web", 1));
    server.put(bad("one", 2));
    server.put(with(slice("web", &[1]), "/endpoints", json!({"addresses": "all"})));
    let follower = Follower::of(&server);
    follower.until("both are told", |seen| seen.problems.len() == 2);
    assert!(follower.seen().state.is_in_doubt());
    server.delete("Service", "default", "one");
    follower.until("one is gone", |seen| seen.problems.len() == 1);
    assert!(follower.seen().state.is_in_doubt());
    server.put(slice("web", &[1]));
    follower.until_equal_to(&server);
    assert!(!follower.seen().state.is_in_doubt());
    assert_eq!(problems(&follower), [""; 0]);
}

#[test]
fn a_list_with_a_thing_that_has_no_name_withdraws_nothing() {
    let server = ApiServer::start();
    server.put(node("a"));
    server.put(service("web", 1));
    let follower = Follower::of(&server);
    follower.until_equal_to(&server);
    server.put(with(service("gone-wrong", 2), "/metadata/name", json!(7)));
    server.delete("Service", "default", "web");
    server.compact();
    server.kick(Kick::Error(410));
    follower.until("it is told", |seen| seen.problems.len() == 1);
    follower.until("what a watch says is gone is gone", |seen| seen.withdrawn == ["web"] || seen.news.len() > 1);
    server.delete("Service", "default", "");
    server.kick(Kick::Error(410));
    follower.until("all is well", |seen| seen.problems.is_empty());
}

#[test]
fn a_bad_node_is_told_and_keeps_what_it_said() {
    let server = ApiServer::start();
    server.put(node("a"));
    let follower = Follower::of(&server);
    follower.until_equal_to(&server);
    server.put(with(node("b"), "/spec/podCIDRs", json!("10.1.0.0/24")));
    follower.until("it is told", |seen| seen.problems.len() == 1);
    assert_eq!(follower.seen().state.node_object().zone.as_deref(), Some("a"));
    server.put(node("b"));
    follower.until("it is over", |seen| seen.problems.is_empty());
    assert_eq!(follower.seen().state.node_object().zone.as_deref(), Some("b"));
}
