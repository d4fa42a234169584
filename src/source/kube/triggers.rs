//! When what led to the changes of EndpointSlices happened, for measuring how long it takes to act on it.

use super::fold::Event;
use std::mem;
use std::time::SystemTime;

/// The times that are told, each once.
#[derive(Debug)]
pub(super) struct Triggers {
    /// When this process began: it cannot be blamed for what it was not there for.
    started: SystemTime,
    /// The newest version of any slice so far.
    newest: u64,
    /// The newest version when the last list was complete. A list that has it again brings no news of it.
    floor: u64,
    /// Those of a list that is not complete.
    listed: Vec<SystemTime>,
    ready: Vec<SystemTime>,
}

impl Triggers {
    pub(super) fn new(started: SystemTime) -> Self {
        Self { started, newest: 0, floor: 0, listed: Vec::new(), ready: Vec::new() }
    }

    pub(super) fn note(&mut self, event: &Event) {
        match event {
            Event::ListBegins => self.listed.clear(),
            Event::Listed(object) | Event::Changed(object) => {
                let is_new = object.version > self.floor;
                self.newest = self.newest.max(object.version);
                let trigger = object.trigger.filter(|trigger| is_new && *trigger > self.started);
                let to = if matches!(event, Event::Listed(_)) { &mut self.listed } else { &mut self.ready };
                to.extend(trigger);
            }
            Event::ListEnds => {
                self.floor = self.newest;
                self.ready.append(&mut self.listed);
            }
            Event::Gone(_) => {}
        }
    }

    pub(super) fn take(&mut self) -> Vec<SystemTime> {
        mem::take(&mut self.ready)
    }
}
