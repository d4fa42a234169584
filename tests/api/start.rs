//! The first news: everything at once, and not before everything is there.

use crate::api_server::{Answer, ApiServer, Fault, Streams, Verb};
use crate::follower::{Follower, timing};
use crate::objects::{NODE, node, service, slice, with};
use ipvsd::source::kube::{Kind, Notice, Timing};
use serde_json::json;
use std::time::Duration;

#[test]
fn the_first_news_is_the_whole_cluster_and_all_of_it_is_said_to_be_all() {
    let server = ApiServer::start();
    server.put(node("a"));
    for (name, last) in [("web", 1), ("api", 2)] {
        server.put(service(name, last));
        server.put(slice(name, &[1, 2]));
    }
    let follower = Follower::of(&server);
    follower.until_equal_to(&server);
    assert_eq!(
        follower.seen().news,
        [[
            "1 API server",
            "Node in a",
            "Service api",
            "Service web",
            "2 Services",
            "EndpointSlice api-1",
            "EndpointSlice web-1",
            "2 EndpointSlices"
        ]]
    );
}

#[test]
fn nothing_is_said_while_one_of_the_lists_is_not_complete() {
    for (resource, kind) in [("services", Kind::Services), ("endpointslices", Kind::EndpointSlices)] {
        let server = ApiServer::start();
        server.put(node("a"));
        server.put(service("web", 1));
        server.put(slice("web", &[1]));
        server.fault(Fault::once(Answer::Status(500, None)).resource(resource).times(1000));
        let follower = Follower::of(&server);
        follower.until("reading fails again and again", |seen| {
            seen.readings.iter().filter(|(of, failure)| *of == kind && failure.is_some()).count() > 3
        });
        assert_eq!(follower.seen().news.len(), 0);
        // What changes meanwhile is in the first news too.
        server.put(service("late", 2));
        server.heal();
        follower.until_equal_to(&server);
        assert_eq!(follower.seen().news.len(), 1, "{resource}");
        assert!(follower.seen().is_well(kind));
    }
}

#[test]
fn a_list_of_many_pages_is_one_news() {
    let server = ApiServer::start();
    server.set_streams(Streams::Refused);
    server.put(node("a"));
    for last in 0..1100 {
        server.put(service(&format!("web-{last}"), last));
    }
    let follower = Follower::of(&server);
    follower.until_equal_to(&server);
    assert_eq!(follower.seen().news.len(), 1);
    let pages =
        server.records().into_iter().filter(|record| record.verb == Verb::List && record.resource == "services");
    let limits: Vec<_> = pages.map(|record| record.parameter("limit").to_owned()).collect();
    assert_eq!(limits, ["500", "500", "500"]);
}

#[test]
fn a_node_that_is_there_is_in_the_first_news() {
    let server = ApiServer::start();
    server.put(service("web", 1));
    server.put(node("b"));
    let follower = Follower::of(&server);
    follower.until_equal_to(&server);
    assert_eq!(follower.seen().news, [["1 API server", "Node in b", "Service web", "1 Services", "0 EndpointSlices"]]);
    assert_eq!(follower.seen().notices, []);
}

#[test]
fn a_node_that_is_not_there_yet_is_not_waited_for() {
    let server = ApiServer::start();
    server.put(service("web", 1));
    let follower = Follower::of(&server);
    follower.until_equal_to(&server);
    assert_eq!(follower.seen().news, [["1 API server", "Service web", "1 Services", "0 EndpointSlices"]]);
    assert_eq!(follower.seen().notices, [Notice::NodeUnknown]);
    server.put(with(node("a"), "/status/addresses", json!([])));
    follower.until("the Node is told", |seen| seen.state.node_object().zone.as_deref() == Some("a"));
}

#[test]
fn a_node_that_cannot_be_read_is_waited_for_only_a_while() {
    let server = ApiServer::start();
    server.put(service("web", 1));
    server.fault(Fault::once(Answer::Status(503, None)).resource("nodes").times(3));
    let follower = Follower::with_timing(&server, Timing { node: Duration::from_millis(50), ..timing() });
    follower.until_equal_to(&server);
    assert_eq!(follower.seen().news, [["1 API server", "Service web", "1 Services", "0 EndpointSlices"]]);
    assert_eq!(follower.seen().notices, [Notice::NodeUnknown]);
    server.put(node("a"));
    follower.until("the Node is told", |seen| seen.state.node_object().zone.as_deref() == Some("a"));
}

#[test]
fn what_a_node_says_changes_with_it_and_stays_when_it_is_deleted() {
    let server = ApiServer::start();
    server.put(node("a"));
    let follower = Follower::of(&server);
    follower.until("the first news is there", |seen| !seen.news.is_empty());
    server.put(with(node("a"), "/status/conditions", json!([{"type": "Ready", "status": "True"}])));
    server.put(with(node("a"), "/spec/taints", json!([{"key": "ToBeDeletedByClusterAutoscaler"}])));
    follower.until("the taint is seen", |seen| !seen.state.node_object().is_eligible);
    assert_eq!(follower.seen().news.len(), 2, "a heartbeat is no news");
    server.delete("Node", "", NODE);
    follower.until("the end is told", |seen| seen.notices == [Notice::NodeGone]);
    assert_eq!(follower.seen().state.node_object().zone.as_deref(), Some("a"));
}
