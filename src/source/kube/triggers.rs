//! When what led to the changes of EndpointSlices happened, for measuring how long it takes to act on it.

use super::object::Event;
use std::mem;
use std::time::SystemTime;

/// The times that are told, each once.
#[derive(Debug)]
pub(super) struct Triggers {
    /// When this process began: it cannot be blamed for what it was not there for.
    started: SystemTime,
    /// The newest version of any slice that was told or was in a complete list. A list that has it again brings no
    /// news.
    newest: u64,
    /// The times of a list that is not complete, and its newest version.
    listed: Vec<SystemTime>,
    newest_listed: u64,
    /// Times to be told.
    ready: Vec<SystemTime>,
}

impl Triggers {
    pub(super) fn new(started: SystemTime) -> Self {
        Self { started, newest: 0, listed: Vec::new(), newest_listed: 0, ready: Vec::new() }
    }

    pub(super) fn note(&mut self, event: &Event) {
        match event {
            Event::ListBegins => self.listed.clear(),
            Event::Listed(object) => {
                self.newest_listed = self.newest_listed.max(object.version);
                let is_new = object.version > self.newest;
                self.listed.extend(object.trigger.filter(|trigger| is_new && *trigger > self.started));
            }
            Event::ListEnds => {
                self.newest = self.newest.max(self.newest_listed);
                self.ready.append(&mut self.listed);
            }
            Event::Changed(object) => {
                self.newest = self.newest.max(object.version);
                self.ready.extend(object.trigger.filter(|trigger| *trigger > self.started));
            }
            Event::Gone(_) => {}
        }
    }

    pub(super) fn take(&mut self) -> Vec<SystemTime> {
        mem::take(&mut self.ready)
    }
}
