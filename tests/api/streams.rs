//! Lists as streams, and the way back to pages.

use crate::api_server::{ApiServer, Kick, Record, Streams, Verb};
use crate::follower::{Follower, timing};
use crate::objects::{node, service, slice};
use ipvsd::source::kube::Timing;
use std::time::Duration;

fn cluster(streams: Streams) -> ApiServer {
    let server = ApiServer::start();
    server.set_streams(streams);
    server.put(node("a"));
    server.put(service("web", 1));
    server.put(slice("web", &[1]));
    server
}

fn count(server: &ApiServer, what: impl Fn(&Record) -> bool) -> usize {
    server.records().into_iter().filter(what).count()
}

#[test]
fn a_server_that_sends_lists_as_streams_is_asked_for_nothing_else() {
    let server = cluster(Streams::Sent);
    let follower = Follower::of(&server);
    follower.until_equal_to(&server);
    server.put(service("more", 2));
    follower.until_equal_to(&server);
    assert_eq!(count(&server, |record| record.verb == Verb::List), 0);
    assert_eq!(count(&server, |record| record.verb == Verb::Watch), 3);
}

#[test]
fn a_server_that_refuses_streams_is_asked_for_pages_and_not_for_streams_again() {
    let server = cluster(Streams::Refused);
    let follower = Follower::of(&server);
    follower.until_equal_to(&server);
    let streams = count(&server, Record::is_stream);
    assert!((1..=3).contains(&streams), "{streams}");
    server.wait_for_watches(3);
    server.kick(Kick::Error(410));
    server.put(service("more", 2));
    follower.until_equal_to(&server);
    follower.until("everything is listed again", |_| count(&server, |record| record.verb == Verb::List) == 6);
    assert_eq!(count(&server, Record::is_stream), streams);
    assert!(follower.seen().readings.is_empty(), "that is no trouble: {:?}", follower.seen().readings);
}

#[test]
fn a_server_that_overlooks_what_a_stream_is_is_asked_for_pages_after_a_while() {
    let server = cluster(Streams::Overlooked);
    let follower = Follower::with_timing(&server, Timing { answer: Duration::from_millis(400), ..timing() });
    follower.until_equal_to(&server);
    assert_eq!(count(&server, |record| record.verb == Verb::List), 3);
    server.put(service("more", 2));
    follower.until_equal_to(&server);
}
