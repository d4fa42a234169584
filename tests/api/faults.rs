//! Everything that can go wrong between us and an API server: afterwards the State equals the truth, and meanwhile
//! nothing was withdrawn that is there.

use crate::api_server::{Answer, ApiServer, Fault, Kick, Streams, Verb};
use crate::follower::{Follower, timing};
use crate::objects::{node, service, slice};
use ipvsd::source::kube::{Kind, Timing};
use std::time::Duration;

const SERVICES: usize = 5;

/// A cluster of a few Services, and a client that knows it.
fn known_cluster(streams: Streams) -> (ApiServer, Follower) {
    let server = ApiServer::start();
    server.set_streams(streams);
    server.put(node("a"));
    for last in 0..SERVICES {
        server.put(service(&format!("web-{last}"), last));
        server.put(slice(&format!("web-{last}"), &[1, 2]));
    }
    let follower = Follower::with_timing(&server, Timing { answer: Duration::from_secs(2), ..timing() });
    follower.until_equal_to(&server);
    // A list is followed by a watch, and only that one can be kicked.
    server.wait_for_watches(3);
    (server, follower)
}

/// Changes something of everything, waits until it is known, and checks that only what was deleted was withdrawn.
fn recovers(server: &ApiServer, follower: &Follower, round: u8, what: &str) {
    server.put(service(&format!("new-{round}"), 100 + usize::from(round)));
    server.put(slice(&format!("web-{}", round % 4), &[round]));
    server.delete("Service", "default", &format!("new-{}", round.wrapping_sub(1)));
    follower.until(&format!("it recovers from {what}"), |seen| seen.equals(server));
    let deleted: Vec<_> = (0..round).map(|round| format!("new-{round}")).collect();
    assert_eq!(follower.seen().withdrawn, deleted, "{what}");
}

#[test]
fn whatever_happens_to_a_watch_nothing_is_missed_and_nothing_is_withdrawn() {
    for streams in [Streams::Sent, Streams::Refused] {
        let (server, follower) = known_cluster(streams);
        let kicks = [
            Kick::Bookmark,
            Kick::Error(410),
            Kick::Error(500),
            Kick::End,
            Kick::Cut,
            Kick::CutWithinLine,
            Kick::Garbage,
        ];
        for (round, kick) in (0..).zip(kicks) {
            server.kick(kick);
            recovers(&server, &follower, round, &format!("{kick:?}"));
        }
    }
}

#[test]
fn whatever_is_answered_to_a_request_nothing_is_missed_and_nothing_is_withdrawn() {
    let answers = [
        Answer::Status(410, None),
        Answer::Status(429, Some(0)),
        Answer::Status(500, None),
        Answer::Status(503, None),
        Answer::Status(401, None),
        Answer::Status(403, None),
        Answer::Status(404, None),
        Answer::Page(502),
        Answer::Slow(Duration::from_millis(30)),
        Answer::CutAfter(0),
        Answer::CutAfter(150),
        Answer::CutAfter(1500),
        Answer::Garbage,
        Answer::EndAtOnce,
    ];
    for streams in [Streams::Sent, Streams::Refused] {
        let (server, follower) = known_cluster(streams);
        for (round, answer) in (0..).zip(answers) {
            // To the watch that is taken up again and to the list that may be needed then.
            server.fault(Fault::once(answer).verb(Verb::Watch).times(3));
            server.fault(Fault::once(answer).verb(Verb::List).times(3));
            server.kick(if round % 2 == 0 { Kick::Cut } else { Kick::Error(410) });
            recovers(&server, &follower, round, &format!("{answer:?}"));
            server.heal();
        }
    }
}

#[test]
fn a_server_that_hangs_is_given_up_and_asked_again() {
    let (server, follower) = known_cluster(Streams::Refused);
    server.fault(Fault::once(Answer::Hang).times(3));
    server.kick(Kick::Error(410));
    recovers(&server, &follower, 0, "a request without an answer");
    follower.until("it is said", |seen| seen.was_told(Kind::Services, "said nothing for 2 s"));
    follower.until("it is over", |seen| seen.is_well(Kind::Services));
}

#[test]
fn a_watch_that_is_half_dead_is_noticed() {
    let server = ApiServer::start();
    server.put(node("a"));
    let quick = Timing { watch: Duration::from_secs(1), answer: Duration::from_millis(500), ..timing() };
    let follower = Follower::with_timing(&server, quick);
    follower.until_equal_to(&server);
    server.wait_for_watches(3);
    server.kick(Kick::Hang);
    server.put(service("web", 1));
    follower.until_equal_to(&server);
}

#[test]
fn a_server_that_comes_back_with_another_cluster_replaces_it_in_one_news() {
    let (mut server, follower) = known_cluster(Streams::Sent);
    let news = follower.seen().news.len();
    server.stop();
    follower.until("it is noticed", |seen| seen.was_told(Kind::Services, "cannot be reached"));
    assert_eq!(follower.seen().withdrawn.len(), 0);
    server.delete("Service", "default", "web-0");
    server.delete("EndpointSlice", "default", "web-0-1");
    server.put(service("new", 10));
    server.compact();
    server.resume();
    follower.until_equal_to(&server);
    assert_eq!(follower.seen().withdrawn, ["web-0"]);
    let seen = follower.seen();
    let of_services: Vec<_> = seen.news[news..].iter().flatten().filter(|word| word.contains("Service")).collect();
    assert_eq!(
        of_services,
        ["Service new", "Service web-1", "Service web-2", "Service web-3", "Service web-4", "5 Services"]
    );
}

#[test]
fn what_a_watch_has_lost_is_listed_at_once() {
    let server = ApiServer::start();
    server.put(node("a"));
    let patient = Timing { first_retry: Duration::from_secs(600), longest_retry: Duration::from_secs(600), ..timing() };
    let follower = Follower::with_timing(&server, patient);
    follower.until_equal_to(&server);
    server.wait_for_watches(3);
    server.kick(Kick::Error(410));
    server.put(service("web", 1));
    follower.until_equal_to(&server);
    assert!(follower.seen().readings.is_empty(), "that is no trouble");
}

#[test]
fn the_rest_of_a_list_that_expired_is_no_list() {
    let server = ApiServer::start();
    server.set_streams(Streams::Refused);
    server.put(node("a"));
    for last in 0..600 {
        server.put(service(&format!("web-{last}"), last));
    }
    let follower = Follower::of(&server);
    follower.until_equal_to(&server);
    server.wait_for_watches(3);
    server.fault(Fault { only_next_pages: true, ..Fault::once(Answer::Status(410, None)).times(2) });
    server.kick(Kick::Error(410));
    follower.until("the fault was met", |_| server.is_healed());
    recovers(&server, &follower, 0, "an expired list");
}

#[test]
fn trouble_is_told_with_its_cause_and_its_end() {
    let (mut server, follower) = known_cluster(Streams::Sent);
    assert!(follower.seen().readings.is_empty());
    server.stop();
    for kind in Kind::ALL {
        follower.until("it is told", |seen| seen.was_told(kind, "the API server cannot be reached: "));
    }
    server.fault(Fault::once(Answer::Status(503, None)).times(30));
    server.resume();
    for kind in Kind::ALL {
        follower.until("the new cause is told", |seen| {
            seen.was_told(kind, "the API server answers 503: a fault was asked for")
        });
    }
    server.heal();
    follower.until("it is over", |seen| Kind::ALL.into_iter().all(|kind| seen.is_well(kind)));
}

#[test]
fn a_server_that_asks_for_time_gets_it() {
    let (server, follower) = known_cluster(Streams::Sent);
    server.fault(Fault::once(Answer::Status(429, Some(1))).resource("services"));
    server.kick(Kick::Cut);
    follower.until("the fault was met", |_| server.is_healed());
    let begun = std::time::Instant::now();
    recovers(&server, &follower, 0, "429");
    assert!(begun.elapsed() >= Duration::from_millis(900), "asked again after {:?}", begun.elapsed());
}
