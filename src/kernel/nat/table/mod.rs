//! The virtual servers of one family in their chains: what was found, and what to write for a change. Pure.

use super::chain::{self, Chain, Tree};
use super::input::Input;
use super::rule::{REFUSE, Rule};
use super::server;
use crate::model::{Family, VirtualServer, VirtualServerKey};
use std::collections::{BTreeMap, BTreeSet};

/// What virtual servers become; none is one that goes.
pub type Changes = BTreeMap<VirtualServerKey, Option<VirtualServer>>;

/// The virtual servers of a leaf.
type Servers<'a> = BTreeMap<&'a VirtualServerKey, &'a VirtualServer>;

/// The chains of one family as they are in the kernel.
#[derive(Debug)]
pub struct Table {
    family: Family,
    /// The virtual servers in each leaf; no entry is empty.
    leaves: BTreeMap<Chain, BTreeMap<VirtualServerKey, VirtualServer>>,
    /// Chains that do not hold what they should. They are written with the next change.
    unclean: BTreeSet<Chain>,
    /// Chains that somebody else's rules lead into: the kernel does not remove them, and may refuse to have DNAT in them.
    held: BTreeSet<Chain>,
    /// Whether there is the chain that refuses.
    has_refuse: bool,
}

impl Table {
    /// Nothing yet.
    pub fn empty(family: Family) -> Self {
        Self { family, leaves: BTreeMap::new(), unclean: BTreeSet::new(), held: BTreeSet::new(), has_refuse: false }
    }

    /// Reads the chains of the table nat, each with its rules.
    pub fn read<'s>(family: Family, chains: impl Iterator<Item = (&'s str, &'s [String])>) -> Self {
        let mut table = Self::empty(family);
        let mut led_to = BTreeMap::new();
        let (ours, others): (Vec<_>, Vec<_>) = chains.partition(|(name, _)| name.starts_with(chain::PREFIX));
        let led_to_by_others = others.into_iter().flat_map(|(_, rules)| rules).filter_map(|rule| target(rule));
        table.held.extend(led_to_by_others.filter_map(Chain::from_name));
        for (name, rules) in ours {
            table.has_refuse |= name == REFUSE;
            match Chain::from_name(name) {
                Some(leaf) if leaf.is_leaf() => table.read_leaf(leaf, rules),
                Some(inner) => drop(led_to.insert(inner, targets(rules))),
                None => {}
            }
        }
        let roots = Tree::ALL.map(Chain::root);
        let branches = table.leaves.keys().filter_map(|leaf| leaf.parent());
        let inner: BTreeSet<Chain> = branches.chain(roots).chain(led_to.keys().copied()).collect();
        for chain in inner {
            let wanted = children(chain, &table.leaves.keys().copied().collect());
            let is_right = match led_to.get(&chain) {
                Some(found) => *found == ways(&wanted, family).map(|(name, _)| name).collect::<Vec<_>>(),
                None => wanted.is_empty(),
            };
            let is_left_over = wanted.is_empty() && table.may_remove(chain);
            if !is_right || is_left_over {
                table.unclean.insert(chain);
            }
        }
        table
    }

    /// All virtual servers.
    pub fn virtual_servers(&self) -> impl Iterator<Item = (&VirtualServerKey, &VirtualServer)> {
        self.leaves.values().flatten()
    }

    /// A virtual server.
    pub fn get(&self, key: &VirtualServerKey) -> Option<&VirtualServer> {
        self.leaves.get(&Chain::of(key))?.get(key)
    }

    /// Whether every chain holds what it should.
    pub fn is_clean(&self) -> bool {
        self.unclean.is_empty()
    }

    /// The chain that refuses is there now.
    pub fn has_refuse_now(&mut self) {
        self.has_refuse = true;
    }

    /// What makes these changes, and puts right what is unclean. Only chains that are different then are written.
    pub fn input(&self, changes: &Changes) -> Input {
        let contents = self.changed(changes);
        let mut leaves: BTreeSet<Chain> = self.leaves.keys().copied().collect();
        for (leaf, servers) in &contents {
            if servers.is_empty() {
                leaves.remove(leaf)
            } else {
                leaves.insert(*leaf)
            };
        }
        let inner = self.inner(&leaves, &contents.keys().copied().collect());
        let mut input = Input::default();
        input.line(None, format_args!("*nat"));
        if !self.has_refuse {
            input.line(None, format_args!(":{REFUSE} - [0:0]"));
        }
        for chain in contents.keys().chain(inner.keys()) {
            input.line(None, format_args!(":{} - [0:0]", chain.name()));
        }
        for (leaf, servers) in &contents {
            let name = leaf.name();
            for (key, server) in servers {
                for rule in server::rules(key, server) {
                    input.line(Some(**key), format_args!("-A {name} {rule}"));
                }
            }
        }
        self.write_inner(&inner, &mut input);
        let is_empty = |chain: &Chain| match contents.get(chain) {
            Some(servers) => servers.is_empty(),
            None => inner.get(chain).is_some_and(Vec::is_empty),
        };
        let is_gone = |chain: &&Chain| is_empty(chain) && self.may_remove(**chain);
        // Only what nothing leads to any more can go.
        for chain in contents.keys().chain(inner.keys().rev()).filter(is_gone) {
            input.line(None, format_args!("-X {}", chain.name()));
        }
        input.line(None, format_args!("COMMIT"));
        input
    }

    /// These changes, and all that was unclean, are in the kernel now.
    pub fn written(&mut self, changes: Changes) {
        self.unclean.clear();
        self.has_refuse = true;
        for (key, server) in changes {
            let leaf = Chain::of(&key);
            let servers = self.leaves.entry(leaf).or_default();
            match server {
                Some(server) => drop(servers.insert(key, server)),
                None => drop(servers.remove(&key)),
            }
            if servers.is_empty() {
                self.leaves.remove(&leaf);
            }
        }
    }

    /// One rule that is not understood makes all of its chain unclean: who knows what it does to those below it.
    fn read_leaf(&mut self, leaf: Chain, rules: &[String]) {
        let parsed: Option<Vec<Rule>> = rules.iter().map(|rule| Rule::parse(rule, self.family)).collect();
        let mut servers = BTreeMap::new();
        for of_one in parsed.iter().flat_map(|rules| rules.chunk_by(|one, next| one.server == next.server)) {
            match server::from_rules(of_one) {
                Some((key, server)) if Chain::of(&key) == leaf && !servers.contains_key(&key) => {
                    servers.insert(key, server);
                }
                _ => {
                    self.unclean.insert(leaf);
                    return;
                }
            }
        }
        if !servers.is_empty() {
            self.leaves.insert(leaf, servers);
        } else if self.may_remove(leaf) {
            self.unclean.insert(leaf);
        }
    }

    /// Whether a chain goes once nothing is in it.
    fn may_remove(&self, chain: Chain) -> bool {
        chain.parent().is_some() && !self.held.contains(&chain)
    }

    /// The leaves that must be written for these changes, with what is in them then.
    fn changed<'a>(&'a self, changes: &'a Changes) -> BTreeMap<Chain, Servers<'a>> {
        let now = |leaf: Chain| -> Servers<'a> { self.leaves.get(&leaf).into_iter().flatten().collect() };
        let unclean = self.unclean.iter().filter(|chain| chain.is_leaf());
        let mut contents: BTreeMap<_, _> = unclean.map(|leaf| (*leaf, now(*leaf))).collect();
        for (key, server) in changes {
            let leaf = Chain::of(key);
            let servers = contents.entry(leaf).or_insert_with(|| now(leaf));
            match server {
                Some(server) => drop(servers.insert(key, server)),
                None => drop(servers.remove(key)),
            }
        }
        contents
    }

    /// The chains above leaves that must be written so that these leaves are all that is led to, with what is below each.
    fn inner(&self, leaves: &BTreeSet<Chain>, touched: &BTreeSet<Chain>) -> BTreeMap<Chain, Vec<Chain>> {
        let comes_or_goes = |leaf: &&Chain| leaves.contains(leaf) != self.leaves.contains_key(leaf);
        let unclean_leaves = touched.iter().filter(|leaf| self.unclean.contains(leaf));
        let changed = touched.iter().filter(comes_or_goes).chain(unclean_leaves);
        let above = changed.filter_map(|leaf| leaf.parent()).flat_map(|branch| [Some(branch), branch.parent()]);
        let unclean = self.unclean.iter().flat_map(|chain| [Some(*chain), chain.parent()]);
        let inner: BTreeSet<Chain> = above.chain(unclean).flatten().filter(|chain| !chain.is_leaf()).collect();
        inner.into_iter().map(|chain| (chain, children(chain, leaves))).collect()
    }

    fn write_inner(&self, inner: &BTreeMap<Chain, Vec<Chain>>, input: &mut Input) {
        for (chain, children) in inner {
            let name = chain.name();
            for (_, way) in ways(children, self.family) {
                input.line(None, format_args!("-A {name} {way}"));
            }
        }
    }
}

/// The chains right below one, of those above these leaves or among them.
fn children(chain: Chain, leaves: &BTreeSet<Chain>) -> Vec<Chain> {
    let lineage = leaves.iter().flat_map(|leaf| [Some(*leaf), leaf.parent()]).flatten();
    let children: BTreeSet<Chain> = lineage.filter(|below| below.parent() == Some(chain)).collect();
    children.into_iter().collect()
}

/// The rules that lead to these chains, each with the name of the chain.
fn ways(to: &[Chain], family: Family) -> impl Iterator<Item = (String, String)> {
    to.iter().flat_map(move |chain| chain.ways_in(family).into_iter().map(|way| (chain.name(), way)))
}

/// The chains that rules lead to.
fn targets(rules: &[String]) -> Vec<String> {
    rules.iter().map(|rule| target(rule).unwrap_or_default().to_owned()).collect()
}

/// Where a rule leads, which is told by the name, however the rest is printed.
fn target(rule: &str) -> Option<&str> {
    let (_, name) = rule.rsplit_once("-j ").or_else(|| rule.rsplit_once("-g "))?;
    Some(name)
}

#[cfg(test)]
mod tests;
