//! What is known of a cluster as its connections tell of it.

mod histories;

use super::*;
use crate::model::Family;
use crate::source::convert::{Context, Rules};
use crate::source::kube::object::{Content, Object};
use crate::state::{EndpointSlice, NodeObject, ObjectName, ObjectRef, Origin, Service, State};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const STARTED: SystemTime = SystemTime::UNIX_EPOCH;

/// An object in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thing {
    /// In this edition.
    Good(u16),
    Bad,
    NotOurs,
}

fn name(number: u8) -> ObjectName {
    ObjectName::new("default", &format!("o-{number}"))
}

fn object(kind: Kind, number: u8, thing: Thing) -> Object {
    let content = match (thing, kind) {
        (Thing::Good(edition), Kind::Services) => Content::Service(service(number, edition)),
        (Thing::Good(edition), _) => Content::EndpointSlice(slice(number, edition)),
        (Thing::NotOurs, _) => Content::NotOurs,
        (Thing::Bad, _) => Content::Bad(problem(kind, number)),
    };
    Object { name: Some(name(number)), version: 1, trigger: None, content, slips: Vec::new() }
}

fn problem(kind: Kind, number: u8) -> Problem {
    let object = match kind {
        Kind::Services => ObjectRef::Service(name(number)),
        _ => ObjectRef::EndpointSlice(name(number)),
    };
    Problem { origin: Origin::Api, object: Some(object), field: String::new(), message: "bad".into() }
}

fn service(number: u8, edition: u16) -> Arc<Service> {
    let json = serde_json::json!({
        "metadata": {"name": name(number).name.to_string()},
        "spec": {"clusterIP": format!("10.0.{number}.1"), "ports": [{"port": edition}]},
    });
    let raw = serde_json::from_value(json).unwrap();
    let found = crate::source::convert::service(&raw, &Origin::Api, &Context::new(Rules::Api, "node-1"));
    Arc::new(found.unwrap().unwrap().object)
}

/// The slice of the Service with its number.
fn slice(number: u8, edition: u16) -> Arc<EndpointSlice> {
    let json = serde_json::json!({
        "metadata": {
            "name": name(number).name.to_string(),
            "labels": {"kubernetes.io/service-name": name(number).name.to_string()},
        },
        "addressType": Family::Ipv4.name(),
        "ports": [{"name": "", "port": edition}],
    });
    let raw = serde_json::from_value(json).unwrap();
    let found = crate::source::convert::endpoint_slice(&raw, &Origin::Api, &Context::new(Rules::Api, "node-1"));
    Arc::new(found.unwrap().unwrap().object)
}

/// A Node in a zone, with an address.
fn node(zone: &str) -> Object {
    let node = NodeObject {
        zone: Some(zone.into()),
        addresses: vec!["192.0.2.1".parse().unwrap()],
        is_eligible: true,
        ..NodeObject::default()
    };
    Object { name: Some(name(0)), version: 1, trigger: None, content: Content::Node(node), slips: Vec::new() }
}

/// A fold with its clock, and the State that its news lead to.
struct Reader {
    fold: Fold,
    now: Instant,
    state: State,
    news: Vec<News>,
}

impl Reader {
    fn new() -> Self {
        Self { fold: Fold::new(STARTED), now: Instant::now(), state: State::default(), news: Vec::new() }
    }

    /// One that has the Node.
    fn with_node() -> Self {
        let mut reader = Self::new();
        reader.all(Kind::Node, [Event::ListBegins, Event::Listed(node("a")), Event::ListEnds]);
        reader
    }

    /// One that has listed everything; there are no slices.
    fn with_services(things: &[(u8, Thing)]) -> Self {
        let mut reader = Self::with_node();
        reader.list(Kind::EndpointSlices, &[]);
        reader.list(Kind::Services, things);
        reader
    }

    fn take(&mut self, kind: Kind, event: Event) {
        self.now += Duration::from_millis(1);
        self.fold.take(kind, event, self.now);
        self.read();
    }

    fn all(&mut self, kind: Kind, events: impl IntoIterator<Item = Event>) {
        events.into_iter().for_each(|event| self.take(kind, event));
    }

    fn list(&mut self, kind: Kind, things: &[(u8, Thing)]) {
        let listed = things.iter().map(|(number, thing)| Event::Listed(object(kind, *number, *thing)));
        self.all(kind, [Event::ListBegins].into_iter().chain(listed).chain([Event::ListEnds]));
    }

    fn change(&mut self, number: u8, thing: Thing) {
        self.take(Kind::Services, Event::Changed(object(Kind::Services, number, thing)));
    }

    fn read(&mut self) {
        if let Some(news) = self.fold.news(self.now) {
            news.changes.iter().cloned().for_each(|change| self.state.apply(change));
            self.news.push(news);
        }
    }

    /// The editions that the State has of a kind.
    fn editions(&self, kind: Kind) -> BTreeMap<u8, u16> {
        (0..NAMES).filter_map(|number| self.edition(kind, number).map(|edition| (number, edition))).collect()
    }

    fn edition(&self, kind: Kind, number: u8) -> Option<u16> {
        match kind {
            Kind::Services => self.state.service(&name(number)).map(|service| service.ports[0].port),
            _ => self.state.slices(&name(number)).next().map(|slice| slice.ports[0].port),
        }
    }

    /// The problems as told last, as the numbers of their objects.
    fn problems(&self) -> Vec<String> {
        let told = self.news.iter().rev().find_map(|news| news.problems.clone()).unwrap_or_default();
        told.iter().filter_map(|problem| problem.object.as_ref()).map(ToString::to_string).collect()
    }
}

/// How many names there are.
const NAMES: u8 = 4;

#[test]
fn a_list_that_did_not_come_to_its_end_is_forgotten() {
    let mut reader = Reader::with_services(&[(1, Thing::Good(1)), (2, Thing::Good(2))]);
    reader.take(Kind::Services, Event::ListBegins);
    reader.take(Kind::Services, Event::Listed(object(Kind::Services, 3, Thing::Good(3))));
    assert_eq!(reader.news.len(), 1);
    reader.list(Kind::Services, &[(1, Thing::Good(4))]);
    assert_eq!(reader.editions(Kind::Services), BTreeMap::from([(1, 4)]));
}

#[test]
fn what_goes_while_a_list_is_sent_as_a_stream_is_not_in_it() {
    let mut reader = Reader::with_node();
    reader.list(Kind::EndpointSlices, &[]);
    reader.take(Kind::Services, Event::ListBegins);
    reader.take(Kind::Services, Event::Listed(object(Kind::Services, 1, Thing::Good(1))));
    reader.take(Kind::Services, Event::Listed(object(Kind::Services, 2, Thing::Good(2))));
    reader.take(Kind::Services, Event::Gone(object(Kind::Services, 1, Thing::Good(1))));
    reader.take(Kind::Services, Event::ListEnds);
    assert_eq!(reader.editions(Kind::Services), BTreeMap::from([(2, 2)]));
}

#[test]
fn problems_are_told_whole_when_they_change_and_only_then() {
    let mut reader = Reader::with_services(&[(1, Thing::Bad), (2, Thing::Good(2))]);
    assert_eq!(reader.problems(), ["Service default/o-1"]);
    reader.change(3, Thing::Good(3));
    assert_eq!(reader.news.last().unwrap().problems, None);
    reader.change(2, Thing::Bad);
    assert_eq!(reader.problems(), ["Service default/o-1", "Service default/o-2"]);
    reader.list(Kind::Services, &[(1, Thing::Good(1)), (2, Thing::Bad)]);
    assert_eq!(reader.problems(), ["Service default/o-2"]);
    reader.take(Kind::Services, Event::Gone(object(Kind::Services, 2, Thing::Bad)));
    assert_eq!(reader.problems(), [""; 0]);
    assert_eq!(reader.editions(Kind::Services), BTreeMap::from([(1, 1)]));
}

#[test]
fn there_is_doubt_while_an_object_of_the_first_list_was_never_good() {
    let mut reader = Reader::with_services(&[(1, Thing::Bad), (2, Thing::Good(2))]);
    assert!(reader.state.is_in_doubt());
    reader.list(Kind::Services, &[(1, Thing::Bad), (2, Thing::Bad), (3, Thing::Bad)]);
    assert!(reader.state.is_in_doubt());
    reader.change(1, Thing::Good(1));
    assert!(!reader.state.is_in_doubt(), "of 2 a good version is known, and 3 is new");
    reader.change(1, Thing::Bad);
    assert!(!reader.state.is_in_doubt());
}

#[test]
fn an_object_without_a_name_is_a_problem_and_its_list_says_nothing_of_what_is_gone() {
    let mut reader = Reader::with_services(&[(1, Thing::Good(1))]);
    let nameless = Object { name: None, ..object(Kind::Services, 9, Thing::Bad) };
    reader.all(Kind::Services, [Event::ListBegins, Event::Listed(nameless), Event::ListEnds]);
    assert_eq!(reader.editions(Kind::Services), BTreeMap::from([(1, 1)]));
    assert_eq!(reader.problems().len(), 1);
    assert!(reader.state.is_in_doubt());
    reader.list(Kind::Services, &[]);
    assert_eq!(reader.editions(Kind::Services), BTreeMap::new());
    assert_eq!(reader.problems().len(), 0);
    assert!(!reader.state.is_in_doubt());
}

#[test]
fn the_end_of_the_node_is_told_once_and_its_return_is_news() {
    let mut reader = Reader::with_services(&[]);
    let gone = |reader: &Reader| {
        reader.news.iter().flat_map(|news| &news.notices).filter(|notice| **notice == Notice::NodeGone).count()
    };
    reader.all(Kind::Node, [Event::ListBegins, Event::ListEnds, Event::ListBegins, Event::ListEnds]);
    assert_eq!(gone(&reader), 1);
    assert_eq!(reader.state.node_object().zone.as_deref(), Some("a"));
    reader.take(Kind::Node, Event::Changed(node("b")));
    assert_eq!(reader.state.node_object().zone.as_deref(), Some("b"));
    reader.take(Kind::Node, Event::Gone(node("b")));
    assert_eq!(gone(&reader), 2);
}

#[test]
fn news_were_received_when_their_first_event_came_and_the_first_news_when_nothing_was_missing() {
    let mut reader = Reader::with_services(&[(1, Thing::Good(1))]);
    assert_eq!(reader.news[0].received, reader.now);
    let first = reader.now + Duration::from_secs(1);
    for (number, later) in [(2, first), (3, first + Duration::from_secs(1))] {
        reader.fold.take(Kind::Services, Event::Changed(object(Kind::Services, number, Thing::Good(1))), later);
    }
    reader.read();
    assert_eq!(reader.news[1].received, first);
    assert_eq!(reader.news[1].changes.len(), 2);
}

#[test]
fn what_led_to_a_slice_is_told_once_and_only_if_it_was_after_the_start() {
    let mut reader = Reader::with_node();
    reader.list(Kind::Services, &[]);
    let at = |seconds| STARTED + Duration::from_secs(seconds);
    let slice = |number, version, seconds| Object {
        version,
        trigger: Some(at(seconds)),
        ..object(Kind::EndpointSlices, number, Thing::Good(u16::try_from(version).unwrap()))
    };
    let listed = [Event::ListBegins, Event::Listed(slice(1, 7, 0)), Event::Listed(slice(2, 5, 10)), Event::ListEnds];
    reader.all(Kind::EndpointSlices, listed);
    reader.take(Kind::EndpointSlices, Event::Changed(slice(1, 8, 20)));
    // Listed again: one that is known, and one that changed meanwhile.
    let again = [
        Event::ListBegins,
        Event::Listed(slice(3, 9, 30)),
        Event::ListBegins,
        Event::Listed(slice(1, 8, 20)),
        Event::Listed(slice(3, 9, 30)),
        Event::ListEnds,
    ];
    reader.all(Kind::EndpointSlices, again);
    let told: Vec<_> = reader.news.iter().flat_map(|news| news.triggers.clone()).collect();
    assert_eq!(told, [at(10), at(20), at(30)]);
}
