//! Events of the three kinds in, changes of the State out. Pure.
//!
//! Nothing comes out before Services and EndpointSlices have been listed completely and the Node is known (or nobody
//! waits for it any longer): half of a cluster would have virtual servers without destinations, and a Node that comes
//! late would move endpoints from one zone to another. Then everything comes out at once. Later a list is swapped in
//! whole when it is complete, and single events pass at once.

use super::collection::{Collection, Words};
use super::kind::Kind;
use super::object::Event;
use super::this_node::ThisNode;
use super::triggers::Triggers;
use super::{News, Notice};
use crate::state::{Change, Problem};
use std::mem;
use std::time::{Instant, SystemTime};

/// What is known of the cluster besides what the State has.
#[derive(Debug)]
pub(super) struct Fold {
    services: Collection,
    slices: Collection,
    node: ThisNode,
    triggers: Triggers,
    /// Whether the first batch may come out, or is out.
    is_open: bool,
    /// The last [`Change::Doubt`] that was told.
    is_in_doubt: bool,
    /// Changes and notices since the last call of [`Fold::news`].
    changes: Vec<Change>,
    notices: Vec<Notice>,
    /// When the first event after it came.
    received: Option<Instant>,
}

impl Fold {
    /// `started` is when this process began.
    pub(super) fn new(started: SystemTime) -> Self {
        Self {
            services: Collection::new(Words { gone: Change::ServiceGone, only: Change::OnlyServices }),
            slices: Collection::new(Words { gone: Change::EndpointSliceGone, only: Change::OnlyEndpointSlices }),
            node: ThisNode::default(),
            triggers: Triggers::new(started),
            is_open: false,
            is_in_doubt: false,
            changes: Vec::new(),
            notices: Vec::new(),
            received: None,
        }
    }

    /// Takes in an event that came at `now`.
    pub(super) fn take(&mut self, kind: Kind, event: Event, now: Instant) {
        self.received.get_or_insert(now);
        match kind {
            Kind::Services => self.changes.extend(fold_in(&mut self.services, event)),
            Kind::EndpointSlices => {
                self.triggers.note(&event);
                self.changes.extend(fold_in(&mut self.slices, event));
            }
            Kind::Node => self.take_node(event),
        }
        self.open(now);
    }

    /// Whether only the Node is missing for the first batch.
    pub(super) fn waits_for_node(&self) -> bool {
        !self.is_open && self.services.is_held() && self.slices.is_held()
    }

    /// Goes on without the Node, which could not be read up to `now`.
    pub(super) fn waive_node(&mut self, now: Instant) {
        self.node.waive();
        self.open(now);
    }

    /// What came of the events since the last call, if anything did.
    pub(super) fn news(&mut self, now: Instant) -> Option<News> {
        if !self.is_open {
            return None;
        }
        let is_in_doubt = self.services.is_in_doubt() || self.slices.is_in_doubt();
        if mem::replace(&mut self.is_in_doubt, is_in_doubt) != is_in_doubt {
            self.changes.push(Change::Doubt(is_in_doubt));
        }
        let news = News {
            changes: mem::take(&mut self.changes),
            problems: self.changed_problems(),
            notices: mem::take(&mut self.notices),
            received: self.received.take().unwrap_or(now),
            triggers: self.triggers.take(),
        };
        let says_something = !news.changes.is_empty() || news.problems.is_some() || !news.notices.is_empty();
        says_something.then_some(news)
    }

    fn open(&mut self, now: Instant) {
        if self.waits_for_node() && self.node.is_known_enough() {
            self.is_open = true;
            self.received = Some(now);
            self.notices.extend((!self.node.has_addresses()).then_some(Notice::NodeUnknown));
            self.changes.extend(self.node.known().cloned().map(Change::NodeObject));
            self.changes.extend(self.services.pass_on());
            self.changes.extend(self.slices.pass_on());
        }
    }

    /// All problems, if they may be others than before.
    fn changed_problems(&mut self) -> Option<Vec<Problem>> {
        let has_changed = [self.services.take_changed(), self.slices.take_changed(), self.node.take_changed()];
        let all = || self.services.problems().chain(self.slices.problems()).chain(self.node.problem()).cloned();
        has_changed.contains(&true).then(|| all().collect())
    }

    fn take_node(&mut self, event: Event) {
        let (news, notice) = self.node.take(event);
        self.notices.extend(notice);
        if self.is_open {
            self.changes.extend(news.map(Change::NodeObject));
        }
    }
}

fn fold_in(collection: &mut Collection, event: Event) -> Vec<Change> {
    match event {
        Event::ListBegins => collection.begin(),
        Event::Listed(object) => collection.list(object),
        Event::ListEnds => return collection.end(),
        Event::Changed(object) => return collection.change(object).into_iter().collect(),
        Event::Gone(object) => {
            return object.name.and_then(|name| collection.remove(name)).into_iter().collect();
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests;
