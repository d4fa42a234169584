//! What the cluster says of this node, over lists and events. It stays in force when the Node object is gone or cannot
//! be read.

use super::Notice;
use super::object::{Content, Event};
use crate::state::{NodeObject, Problem};
use std::mem;

/// The Node of this machine.
#[derive(Debug, Default)]
pub(super) struct ThisNode {
    known: Option<NodeObject>,
    problem: Option<Problem>,
    /// Whether the problem is another than at the last call of [`ThisNode::take_changed`].
    has_changed: bool,
    /// Whether there is such an object.
    is_there: bool,
    /// Whether the list in the making has it; the same as [`ThisNode::is_there`] where none is.
    is_listed: bool,
    /// Whether nobody waits for it any longer: a list was complete, or it takes too long.
    is_waived: bool,
}

impl ThisNode {
    /// Takes in an event. Returns what the Node says if that is news, and what there is to say of its end.
    pub(super) fn take(&mut self, event: Event) -> (Option<NodeObject>, Option<Notice>) {
        let news = match event {
            Event::ListBegins => {
                self.is_listed = false;
                return (None, None);
            }
            Event::Listed(object) => {
                self.is_listed = true;
                return (self.put(object.content), None);
            }
            Event::Changed(object) => {
                self.is_listed = true;
                self.put(object.content)
            }
            Event::Gone(_) => {
                self.is_listed = false;
                None
            }
            Event::ListEnds => {
                self.is_waived = true;
                None
            }
        };
        let was_there = mem::replace(&mut self.is_there, self.is_listed);
        if was_there && !self.is_there {
            self.has_changed |= self.problem.take().is_some();
            return (None, Some(Notice::NodeGone));
        }
        (news, None)
    }

    fn put(&mut self, content: Content) -> Option<NodeObject> {
        match content {
            Content::Node(node) => {
                self.has_changed |= self.problem.take().is_some();
                let is_news = self.known.as_ref() != Some(&node);
                is_news.then(|| self.known.insert(node).clone())
            }
            Content::Bad(problem) => {
                let message = format!("of this node's Node object: {}", problem.message);
                self.problem = Some(Problem { message, ..problem });
                self.has_changed = true;
                None
            }
            _ => None,
        }
    }

    /// What it said last.
    pub(super) fn known(&self) -> Option<&NodeObject> {
        self.known.as_ref()
    }

    /// Whether nothing more is worth waiting for. A Node that is not there, or has no addresses yet, is not: Services
    /// work without it, and what it says later takes effect then.
    pub(super) fn is_known_enough(&self) -> bool {
        self.is_waived
    }

    /// Whether it has said where it can be reached.
    pub(super) fn has_addresses(&self) -> bool {
        self.known.as_ref().is_some_and(|node| !node.addresses.is_empty())
    }

    /// Nobody waits for it any longer.
    pub(super) fn waive(&mut self) {
        self.is_waived = true;
    }

    /// What is wrong with it.
    pub(super) fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }

    /// Whether the problem may be another than at the last call.
    pub(super) fn take_changed(&mut self) -> bool {
        mem::take(&mut self.has_changed)
    }
}
