//! What the directory says, with the memory that keeps a slip from taking down what works.
//!
//! The rule: an object that becomes bad keeps its last good version. A problem that names an object keeps that
//! one; a problem that does not, say a syntax error, keeps every object that its file gave before and that is
//! nowhere now. An object that is cleanly gone is gone, and so are those of a file that is gone.

use super::contents::{Doubt, Entry, File, Object};
use crate::state::{Change, ObjectName, ObjectRef, Origin, Problem};
use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The objects in force, and what is wrong with the input.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    objects: HashMap<ObjectRef, Held>,
    /// Whether some object may be missing because it could never be read.
    in_doubt: bool,
    /// Everything that is wrong now, in the order of files and documents.
    pub problems: Vec<Problem>,
}

/// An object in force.
#[derive(Clone, Debug)]
struct Held {
    object: Object,
    /// The path of the file that names it now or, if it is kept because that file is unclear, named it last.
    file: Arc<str>,
    /// Its place in the order of reading; the kept ones of unclear files come last.
    place: usize,
}

impl Merged {
    /// The changes that lead from `self` to `next`: what goes, then what comes in the order of reading, which
    /// decides who has an address that two Services want.
    pub fn changes_to(&self, next: &Self) -> Vec<Change> {
        let gone = self.objects.keys().filter(|name| !next.objects.contains_key(name)).map(departure);
        let is_new = |name, held: &Held| self.objects.get(name).is_none_or(|known| known.object != held.object);
        let mut come: Vec<&Held> =
            next.objects.iter().filter(|(name, held)| is_new(*name, held)).map(|(_, held)| held).collect();
        come.sort_unstable_by_key(|held| held.place);
        let doubt = (self.in_doubt != next.in_doubt).then_some(Change::Doubt(next.in_doubt));
        gone.chain(come.into_iter().map(|held| held.object.arrival())).chain(doubt).collect()
    }

    fn hold(&mut self, name: ObjectRef, object: Object, file: &Arc<str>) {
        let held = Held { object, file: Arc::clone(file), place: self.objects.len() };
        self.objects.insert(name, held);
    }
}

fn departure(object: &ObjectRef) -> Change {
    match object {
        ObjectRef::Service(name) => Change::ServiceGone(name.clone()),
        ObjectRef::EndpointSlice(name) => Change::EndpointSliceGone(name.clone()),
    }
}

/// What is in force after reading `files`, which come in the order of their names.
pub fn merge<F: Borrow<File>>(previous: &Merged, files: impl IntoIterator<Item = F>) -> Merged {
    let files: Vec<F> = files.into_iter().collect();
    let files: Vec<&File> = files.iter().map(Borrow::borrow).collect();
    let mut merge = Merge::new(previous, files.iter().map(|file| file.entries.len()).sum());
    for file in files {
        for entry in &file.entries {
            merge.entry(entry, &file.path);
        }
    }
    merge.keep_what_is_in_doubt();
    merge.next
}

struct Merge<'a> {
    previous: &'a Merged,
    next: Merged,
    /// Where each name was read first, but for those whose object is in `next` as it was read.
    claimed: HashMap<ObjectRef, Origin>,
    /// Paths of files that may hold any object unseen.
    unclear: HashSet<Arc<str>>,
    /// Paths of files with names that may be any kind of object.
    unclear_names: HashSet<(Arc<str>, ObjectName)>,
}

impl<'a> Merge<'a> {
    fn new(previous: &'a Merged, size: usize) -> Self {
        let next = Merged { objects: HashMap::with_capacity(size), ..Merged::default() };
        Self { previous, next, claimed: HashMap::new(), unclear: HashSet::new(), unclear_names: HashSet::new() }
    }

    fn entry(&mut self, entry: &Entry, file: &Arc<str>) {
        match entry {
            Entry::Object(object) => {
                let name = object.reference();
                if self.is_first(&name, object.origin()) {
                    self.next.hold(name, object.clone(), file);
                }
            }
            Entry::NotOurs(name, origin) => _ = self.claim(name, origin),
            Entry::Bad(name, problem) => {
                self.next.problems.push(Problem::clone(problem));
                if self.claim(name, &problem.origin) {
                    match self.previous.objects.get(name) {
                        Some(held) => self.next.hold(name.clone(), held.object.clone(), file),
                        None => self.next.in_doubt = true,
                    }
                }
            }
            Entry::Slip(problem) => self.next.problems.push(Problem::clone(problem)),
            Entry::Unseen => self.next.in_doubt = true,
            Entry::Unclear(problem, doubt) => {
                self.next.problems.push(Problem::clone(problem));
                match doubt {
                    Doubt::AnyOfTheFile => _ = self.unclear.insert(Arc::clone(file)),
                    Doubt::Named(name) => _ = self.unclear_names.insert((Arc::clone(file), name.clone())),
                    Doubt::Nothing => {}
                }
            }
        }
    }

    /// Gives a name to whoever says it first.
    fn claim(&mut self, name: &ObjectRef, origin: &Origin) -> bool {
        let is_first = self.is_first(name, origin);
        if is_first {
            self.claimed.insert(name.clone(), origin.clone());
        }
        is_first
    }

    fn first(&self, name: &ObjectRef) -> Option<&Origin> {
        self.claimed.get(name).or_else(|| self.next.objects.get(name).map(|held| held.object.origin()))
    }

    /// Whether nobody said the name before; to others than the first it is a problem.
    fn is_first(&mut self, name: &ObjectRef, origin: &Origin) -> bool {
        let Some(first) = self.first(name) else { return true };
        self.next.problems.push(Problem {
            origin: origin.clone(),
            object: Some(name.clone()),
            field: String::new(),
            message: format!("a second one, not used: the first is in {first}"),
        });
        false
    }

    fn keep_what_is_in_doubt(&mut self) {
        if self.unclear.is_empty() && self.unclear_names.is_empty() {
            return;
        }
        self.next.in_doubt = true;
        let mut kept: Vec<(&ObjectRef, &Held)> = self.previous.objects.iter().collect();
        kept.retain(|(name, held)| self.first(name).is_none() && self.in_doubt(name, held));
        kept.sort_unstable_by_key(|(_, held)| held.place);
        for (name, held) in kept {
            self.next.hold(name.clone(), held.object.clone(), &held.file);
        }
    }

    fn in_doubt(&self, object: &ObjectRef, held: &Held) -> bool {
        let (ObjectRef::Service(name) | ObjectRef::EndpointSlice(name)) = object;
        self.unclear.contains(&held.file) || self.unclear_names.contains(&(Arc::clone(&held.file), name.clone()))
    }
}

#[cfg(test)]
mod tests;
