//! The objects of one kind, as far as they must be kept: a list until it is complete, and after that the names of those
//! that cannot be used. The State has the others.
//!
//! The rule is that of manifests: an object that becomes bad keeps its last good version.

use super::object::{Content, Object};
use crate::state::{Change, ObjectName, Problem};
use std::collections::{BTreeMap, HashSet};
use std::mem;

/// The objects of one kind.
#[derive(Debug)]
pub(super) struct Collection {
    /// The changes that name an object that is gone, and all that are there.
    words: Words,
    /// The list in the making. It replaces what is known when it is complete.
    listing: Option<Listing>,
    known: Known,
}

/// How one kind's objects are spoken of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    pub gone: fn(ObjectName) -> Change,
    pub only: fn(HashSet<ObjectName>) -> Change,
}

#[derive(Debug)]
enum Known {
    /// No list was complete so far.
    Nothing,
    /// The first complete list with what changed since; nobody has been told of it.
    Held(Listing),
    /// Everything was passed on but for what is bad.
    PassedOn(Bad),
}

#[derive(Debug, Default)]
struct Listing {
    /// What each good object leads to.
    good: BTreeMap<ObjectName, Change>,
    bad: Bad,
}

/// Objects that cannot be used as they are.
#[derive(Debug, Default)]
struct Bad {
    named: BTreeMap<ObjectName, BadObject>,
    /// What is wrong with objects that are used all the same, without the part in question.
    slips: BTreeMap<ObjectName, Vec<Problem>>,
    /// Those of which not even the name can be read. While a list has any, it does not say what is gone.
    nameless: Vec<Problem>,
    /// Whether something of this came or went since somebody asked.
    has_changed: bool,
}

#[derive(Debug)]
struct BadObject {
    problem: Problem,
    /// Whether it has been like that since the first list, so that only the kernel can know what it was before.
    was_never_good: bool,
}

impl Collection {
    pub(super) fn new(words: Words) -> Self {
        Self { words, listing: None, known: Known::Nothing }
    }

    /// A list begins. What an earlier one brought that did not come to its end is forgotten.
    pub(super) fn begin(&mut self) {
        self.listing = Some(Listing::default());
    }

    /// An object of the list that began.
    pub(super) fn list(&mut self, object: Object) {
        self.listing.get_or_insert_default().put(object);
    }

    /// The list is complete. Returns what it leads to, unless it is the first.
    pub(super) fn end(&mut self) -> Vec<Change> {
        let listing = self.listing.take().unwrap_or_default();
        let Known::PassedOn(before) = &self.known else {
            self.known = Known::Held(listing);
            return Vec::new();
        };
        let (changes, mut bad) = listing.into_changes(self.words);
        for (name, object) in &mut bad.named {
            object.was_never_good = before.named.get(name).is_some_and(|before| before.was_never_good);
        }
        bad.has_changed |= !before.is_empty();
        self.known = Known::PassedOn(bad);
        changes
    }

    /// An object is new or different. Returns what that leads to, unless all of it is still to be passed on.
    pub(super) fn change(&mut self, object: Object) -> Option<Change> {
        match &mut self.known {
            Known::Nothing => None,
            Known::Held(listing) => {
                listing.put(object);
                None
            }
            Known::PassedOn(bad) => match (object.name.clone(), bad.note(object, false)) {
                (_, Effect::Arrival(change)) => Some(change),
                (Some(name), Effect::Departure) => Some((self.words.gone)(name)),
                _ => None,
            },
        }
    }

    /// An object is gone. While a list is in the making it is gone from that: a list that is sent as a stream may tell
    /// of changes before its end.
    pub(super) fn remove(&mut self, name: ObjectName) -> Option<Change> {
        if let Some(listing) = &mut self.listing {
            listing.remove(&name);
            return None;
        }
        match &mut self.known {
            Known::Nothing => None,
            Known::Held(listing) => {
                listing.remove(&name);
                None
            }
            Known::PassedOn(bad) => {
                bad.remove(&name);
                Some((self.words.gone)(name))
            }
        }
    }

    /// Whether there is a complete list that nobody has been told of.
    pub(super) fn is_held(&self) -> bool {
        matches!(self.known, Known::Held(_))
    }

    /// Everything that is held; from now on changes are returned as they come.
    pub(super) fn pass_on(&mut self) -> Vec<Change> {
        match mem::replace(&mut self.known, Known::Nothing) {
            Known::Held(listing) => {
                let (changes, bad) = listing.into_changes(self.words);
                self.known = Known::PassedOn(bad);
                changes
            }
            other => {
                self.known = other;
                Vec::new()
            }
        }
    }

    /// Whether there may be an object of which only the kernel knows what it was.
    pub(super) fn is_in_doubt(&self) -> bool {
        let bad = self.bad();
        bad.is_some_and(|bad| !bad.nameless.is_empty() || bad.named.values().any(|object| object.was_never_good))
    }

    /// What is wrong with the objects that were passed on, or not because of that.
    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        let bad = self.bad().into_iter();
        bad.flat_map(|bad| {
            let slips = bad.slips.values().flatten();
            bad.nameless.iter().chain(bad.named.values().map(|object| &object.problem)).chain(slips)
        })
    }

    /// Whether the problems may be others than at the last call.
    pub(super) fn take_changed(&mut self) -> bool {
        if let Known::PassedOn(bad) = &mut self.known { mem::take(&mut bad.has_changed) } else { false }
    }

    fn bad(&self) -> Option<&Bad> {
        if let Known::PassedOn(bad) = &self.known { Some(bad) } else { None }
    }
}

impl Listing {
    fn put(&mut self, object: Object) {
        let Some(name) = object.name.clone() else {
            self.bad.note(object, true);
            return;
        };
        let is_unknown = !self.good.contains_key(&name);
        match self.bad.note(object, is_unknown) {
            Effect::Arrival(change) => _ = self.good.insert(name, change),
            Effect::Departure => _ = self.good.remove(&name),
            Effect::Nothing => {}
        }
    }

    fn remove(&mut self, name: &ObjectName) {
        self.good.remove(name);
        self.bad.remove(name);
    }

    /// All good objects, then that there are no others than these and the bad ones.
    fn into_changes(self, words: Words) -> (Vec<Change>, Bad) {
        let Self { good, bad } = self;
        let names = bad.nameless.is_empty().then(|| good.keys().chain(bad.named.keys()).cloned().collect());
        (good.into_values().chain(names.map(words.only)).collect(), bad)
    }
}

/// What an object leads to.
enum Effect {
    Arrival(Change),
    /// It is not, or no longer, ipvsd's.
    Departure,
    /// What was known of it stays.
    Nothing,
}

impl Bad {
    /// Takes in an object and says what it leads to. `is_unknown` says whether no good version of it is known.
    fn note(&mut self, object: Object, is_unknown: bool) -> Effect {
        let Some(name) = object.name else {
            if let Content::Bad(problem) = object.content {
                self.nameless.push(problem);
                self.has_changed = true;
            }
            return Effect::Nothing;
        };
        let before = self.remove(&name);
        if !object.slips.is_empty() {
            self.slips.insert(name.clone(), object.slips);
            self.has_changed = true;
        }
        match object.content {
            Content::Service(service) => Effect::Arrival(Change::Service(service)),
            Content::EndpointSlice(slice) => Effect::Arrival(Change::EndpointSlice(slice)),
            Content::Node(node) => Effect::Arrival(Change::NodeObject(node)),
            Content::NotOurs => Effect::Departure,
            Content::Bad(problem) => {
                let was_never_good = before.map_or(is_unknown, |before| before.was_never_good);
                self.named.insert(name, BadObject { problem, was_never_good });
                self.has_changed = true;
                Effect::Nothing
            }
        }
    }

    fn remove(&mut self, name: &ObjectName) -> Option<BadObject> {
        let removed = self.named.remove(name);
        self.has_changed |= removed.is_some() | self.slips.remove(name).is_some();
        removed
    }

    fn is_empty(&self) -> bool {
        self.named.is_empty() && self.nameless.is_empty() && self.slips.is_empty()
    }
}
