//! Histories of a cluster as two connections tell them, and what must hold whatever they are.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// What happens to one kind of object, or to the connection that tells of it.
#[derive(Clone, Copy, Debug)]
enum Act {
    Put(u8, Thing),
    Delete(u8),
    /// The connection is lost: a list begins anew.
    Relist,
    /// A piece of the list arrives, or its end.
    Arrive,
}

fn act() -> impl Strategy<Value = Act> {
    let thing = prop_oneof![
        6 => (1..200_u16).prop_map(Thing::Good),
        1 => Just(Thing::Bad),
        1 => Just(Thing::NotOurs),
    ];
    prop_oneof![
        4 => (0..NAMES, thing).prop_map(|(number, thing)| Act::Put(number, thing)),
        2 => (0..NAMES).prop_map(Act::Delete),
        1 => Just(Act::Relist),
        6 => Just(Act::Arrive),
    ]
}

/// One kind of object in the cluster, the connection that tells of it, and what the reader must know of it.
struct Told {
    kind: Kind,
    truth: BTreeMap<u8, Thing>,
    /// What was there when the list began and has not arrived; none where the connection watches.
    rest: Option<Vec<(u8, Thing)>>,
    /// What the list had when it began.
    listed: BTreeMap<u8, Thing>,
    /// What happened since then, for when it is complete.
    later: Vec<(u8, Option<Thing>)>,
    /// What is known after the last complete list and what was told since.
    known: BTreeMap<u8, u16>,
    /// Names that were ever not there.
    ever_gone: BTreeSet<u8>,
}

impl Told {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            truth: BTreeMap::new(),
            rest: Some(Vec::new()),
            listed: BTreeMap::new(),
            later: Vec::new(),
            known: BTreeMap::new(),
            ever_gone: BTreeSet::new(),
        }
    }

    /// Lets something happen, and returns what the connection says of it.
    fn act(&mut self, act: Act, is_open: bool) -> Vec<Event> {
        match act {
            Act::Put(number, thing) => {
                self.truth.insert(number, thing);
                self.happen(number, Some(thing))
            }
            Act::Delete(number) if self.truth.remove(&number).is_some() => self.happen(number, None),
            Act::Delete(_) => vec![],
            Act::Relist => {
                self.rest = Some(self.truth.iter().map(|(number, thing)| (*number, *thing)).collect());
                self.listed = self.truth.clone();
                self.later.clear();
                vec![Event::ListBegins]
            }
            Act::Arrive => self.arrive(is_open),
        }
    }

    fn happen(&mut self, number: u8, thing: Option<Thing>) -> Vec<Event> {
        if !matches!(thing, Some(Thing::Good(_) | Thing::Bad)) {
            self.ever_gone.insert(number);
        }
        if self.rest.is_some() {
            self.later.push((number, thing));
            return vec![];
        }
        self.learn(number, thing);
        vec![self.event(number, thing)]
    }

    fn arrive(&mut self, is_open: bool) -> Vec<Event> {
        let Some(rest) = &mut self.rest else { return vec![] };
        if let Some((number, thing)) = rest.pop() {
            return vec![Event::Listed(object(self.kind, number, thing))];
        }
        self.rest = None;
        // Before anything was told, the reader has no older version to keep.
        self.known.retain(|number, _| is_open && self.listed.contains_key(number));
        for (number, thing) in self.listed.clone() {
            self.learn(number, Some(thing));
        }
        let later = mem::take(&mut self.later);
        let told = later.iter().map(|(number, thing)| self.event(*number, *thing)).collect::<Vec<_>>();
        later.into_iter().for_each(|(number, thing)| self.learn(number, thing));
        [Event::ListEnds].into_iter().chain(told).collect()
    }

    fn learn(&mut self, number: u8, thing: Option<Thing>) {
        match thing {
            Some(Thing::Good(edition)) => _ = self.known.insert(number, edition),
            Some(Thing::Bad) => {}
            Some(Thing::NotOurs) | None => _ = self.known.remove(&number),
        }
    }

    fn event(&self, number: u8, thing: Option<Thing>) -> Event {
        match thing {
            Some(thing) => Event::Changed(object(self.kind, number, thing)),
            None => Event::Gone(object(self.kind, number, Thing::NotOurs)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn the_state_is_the_last_complete_list_and_what_came_after_it(
        acts in vec((prop_oneof![Just(0_usize), Just(1)], act()), 0..120),
    ) {
        let mut reader = Reader::with_node();
        let mut told = [Told::new(Kind::Services), Told::new(Kind::EndpointSlices)];
        for (of, act) in acts {
            let is_open = reader.fold.is_open;
            let before = reader.editions(told[of].kind);
            let events = told[of].act(act, is_open);
            reader.all(told[of].kind, events);
            if reader.fold.is_open {
                for told in &told {
                    prop_assert_eq!(&reader.editions(told.kind), &told.known, "{:?}", act);
                }
            } else {
                prop_assert_eq!(reader.news.len(), 0);
            }
            let after = reader.editions(told[of].kind);
            let vanished = before.keys().filter(|number| !after.contains_key(number));
            for number in vanished {
                prop_assert!(told[of].ever_gone.contains(number), "{} vanished by {:?}", number, act);
            }
        }
    }
}
