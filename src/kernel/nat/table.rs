//! The virtual servers of one family in their chains: what was found, and what to write for a change. Pure.

use super::chain::{self, Chain, Tree};
use super::rule::{REFUSE, Rule};
use super::server;
use crate::model::{Family, VirtualServer, VirtualServerKey};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Arguments;

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

/// What iptables-restore is given.
#[derive(Debug, Default)]
pub struct Input {
    /// All lines.
    pub text: String,
    /// The virtual server that each line is of, if it is of one.
    owners: Vec<Option<VirtualServerKey>>,
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
            let wanted = table.children(chain, &table.leaves.keys().copied().collect());
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
        inner.into_iter().map(|chain| (chain, self.children(chain, leaves))).collect()
    }

    /// The chains right below one, of those above these leaves or among them.
    fn children(&self, chain: Chain, leaves: &BTreeSet<Chain>) -> Vec<Chain> {
        let lineage = leaves.iter().flat_map(|leaf| [Some(*leaf), leaf.parent()]).flatten();
        let children: BTreeSet<Chain> = lineage.filter(|below| below.parent() == Some(chain)).collect();
        children.into_iter().collect()
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

impl Input {
    /// The first line of a virtual server.
    pub fn first_of(&self, key: &VirtualServerKey) -> Option<&str> {
        let index = self.owners.iter().position(|owner| owner.as_ref() == Some(key))?;
        self.text.lines().nth(index)
    }

    /// The text of a line and the virtual server that it is of, by the number that iptables-restore has for it.
    pub fn at(&self, line: usize) -> Option<(&str, Option<VirtualServerKey>)> {
        let index = line.checked_sub(1)?;
        Some((self.text.lines().nth(index)?, *self.owners.get(index)?))
    }

    fn line(&mut self, owner: Option<VirtualServerKey>, text: Arguments<'_>) {
        // Writing to a text cannot fail.
        _ = std::fmt::Write::write_fmt(&mut self.text, text);
        self.text.push('\n');
        self.owners.push(owner);
    }
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
mod tests {
    use super::*;
    use crate::model::{DestinationKey, DestinationSpec, Protocol};
    use proptest::prelude::*;

    /// Enough of iptables-restore for what is given to it here.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Kernel(BTreeMap<String, Vec<String>>);

    impl Kernel {
        fn restore(&mut self, input: &Input) {
            for line in input.text.lines() {
                match line.split_once(' ') {
                    None => assert!(["*nat", "COMMIT"].contains(&line)),
                    Some(("-A", rule)) => {
                        let (chain, rule) = rule.split_once(' ').unwrap();
                        let (_, target) = rule.rsplit_once("-j ").unwrap_or_default();
                        assert!(!target.starts_with("IPVSD-") || self.0.contains_key(target), "{line}");
                        self.0.get_mut(chain).unwrap().push(rule.to_owned());
                    }
                    Some(("-X", chain)) => {
                        assert_eq!(self.0.remove(chain), Some(vec![]), "{line}");
                        let leads = |rule: &String| rule.ends_with(&format!("-j {chain}"));
                        assert!(!self.0.values().flatten().any(leads), "{line}");
                    }
                    Some((declared, _)) => drop(self.0.insert(declared[1..].to_owned(), vec![])),
                }
            }
        }

        fn read(&self) -> Table {
            Table::read(Family::Ipv4, self.0.iter().map(|(name, rules)| (name.as_str(), rules.as_slice())))
        }
    }

    fn key(n: u16) -> VirtualServerKey {
        let port = if n.is_multiple_of(3) { 80 } else { 30_000 + n };
        VirtualServerKey::new(format!("10.96.{}.{}", n / 256, n % 256).parse().unwrap(), port, Protocol::Tcp)
    }

    fn server(weights: &[u32]) -> VirtualServer {
        let destination = |(i, weight): (usize, &u32)| {
            let key = DestinationKey { address: format!("10.244.0.{i}").parse().unwrap(), port: 80 };
            (key, DestinationSpec::masquerading(*weight))
        };
        VirtualServer { spec: server::spec(None), destinations: weights.iter().enumerate().map(destination).collect() }
    }

    fn held(table: &Table) -> BTreeMap<VirtualServerKey, VirtualServer> {
        table.virtual_servers().map(|(key, server)| (*key, server.clone())).collect()
    }

    fn with(keys: impl IntoIterator<Item = u16>) -> (Kernel, Table) {
        let changes: Changes = keys.into_iter().map(|n| (key(n), Some(server(&[1, 1])))).collect();
        let (mut kernel, mut table) = (Kernel::default(), Table::empty(Family::Ipv4));
        kernel.restore(&table.input(&changes));
        table.written(changes);
        (kernel, table)
    }

    #[test]
    fn a_change_writes_one_leaf() {
        let (_, table) = with(0..2000);
        let input = table.input(&[(key(3), Some(server(&[1])))].into());
        let declared: Vec<_> = input.text.lines().filter(|line| line.starts_with(':')).collect();
        assert_eq!(declared, [":IPVSD-ADDRESS-03 - [0:0]"]);
        assert!(input.text.lines().count() < 20, "{}", input.text);
        let of_changed = |line: usize| input.at(line).is_some_and(|(_, owner)| owner == Some(key(3)));
        assert_eq!((1..30).filter(|line| of_changed(*line)).count(), 1);
        assert_eq!(input.at(1), Some(("*nat", None)));
        assert_eq!((input.at(0), input.at(99)), (None, None));
    }

    #[test]
    fn the_first_and_the_last_of_a_leaf_bring_and_take_the_ways_there() {
        let (mut kernel, mut table) = with([3]);
        let names: Vec<_> = kernel.0.keys().map(String::as_str).collect();
        assert_eq!(names, ["IPVSD-ADDRESS", "IPVSD-ADDRESS-0", "IPVSD-ADDRESS-03", REFUSE]);
        let gone: Changes = [(key(3), None)].into();
        kernel.restore(&table.input(&gone));
        table.written(gone);
        let names: Vec<_> = kernel.0.keys().map(String::as_str).collect();
        assert_eq!(names, ["IPVSD-ADDRESS", REFUSE]);
        assert!(kernel.read().is_clean() && kernel.read().virtual_servers().next().is_none());
    }

    #[test]
    fn anything_missing_added_or_doubled_is_unclean_and_put_right() {
        let (whole, _) = with(0..40);
        for (name, rules) in whole.0.iter().filter(|(name, _)| *name != REFUSE) {
            for at in 0..rules.len() {
                let mut broken = [whole.clone(), whole.clone(), whole.clone()];
                let edit: [fn(&mut Vec<String>, usize); 3] = [
                    |rules, at| drop(rules.remove(at)),
                    |rules, at| rules.insert(at, rules[at].clone()),
                    |rules, at| rules.insert(at, "-j ACCEPT".into()),
                ];
                for (broken, edit) in broken.iter_mut().zip(edit) {
                    edit(broken.0.get_mut(name).unwrap(), at);
                    let mut table = broken.read();
                    let wanted = held(&whole.read());
                    let found = held(&table);
                    let missing: Changes = wanted
                        .iter()
                        .filter(|(key, server)| found.get(key) != Some(server))
                        .map(|(k, s)| (*k, Some(s.clone())))
                        .collect();
                    assert!(!table.is_clean() || !missing.is_empty(), "{name} {at}");
                    broken.restore(&table.input(&missing));
                    table.written(missing);
                    assert_eq!(*broken, whole, "{name} {at}");
                }
            }
        }
    }

    #[test]
    fn after_a_flush_everything_is_missing() {
        let (whole, _) = with(0..40);
        let mut flushed = whole.clone();
        flushed.0.values_mut().for_each(Vec::clear);
        let mut table = flushed.read();
        assert!(held(&table).is_empty() && !table.is_clean());
        let all: Changes = held(&whole.read()).into_iter().map(|(key, server)| (key, Some(server))).collect();
        flushed.restore(&table.input(&all));
        table.written(all);
        assert_eq!(flushed, whole);
    }

    #[test]
    fn what_nobody_asks_for_in_a_chain_of_ours_goes() {
        let (whole, _) = with([3]);
        let mut littered = whole.clone();
        for name in ["IPVSD-ADDRESS-9", "IPVSD-ADDRESS-99", "IPVSD-PORT-7"] {
            littered.0.insert(name.into(), vec!["-j ACCEPT".into()]);
        }
        let table = littered.read();
        assert!(!table.is_clean());
        littered.restore(&table.input(&Changes::new()));
        let roots = ["IPVSD-PORT"].map(|root| littered.0.remove(root));
        assert_eq!(roots, [Some(vec![])]);
        assert_eq!(littered, whole);
    }

    #[test]
    fn a_chain_that_somebody_leads_into_is_emptied_and_stays() {
        let (mut kernel, _) = with([3, 6]);
        for (name, rule) in [("KUBE-OTHER", "-d 203.0.113.9 -j IPVSD-ADDRESS-03"), ("CNI", "-g IPVSD-ADDRESS-9A")] {
            kernel.0.insert(name.into(), vec![rule.into()]);
        }
        kernel.0.insert("IPVSD-ADDRESS-9A".into(), vec![]);
        let mut table = kernel.read();
        assert!(table.is_clean(), "{table:?}");
        let gone: Changes = [(key(3), None)].into();
        let input = table.input(&gone);
        assert!(!input.text.contains("-X"), "{}", input.text);
        kernel.restore(&input);
        table.written(gone);
        assert_eq!(kernel.0["IPVSD-ADDRESS-03"], [""; 0]);
        assert!(!kernel.0["IPVSD-ADDRESS-0"].iter().any(|rule| rule.ends_with("-03")));
        assert!(kernel.read().is_clean());
        assert_eq!(held(&kernel.read()), held(&table));
        kernel.0.remove("KUBE-OTHER");
        kernel.0.remove("CNI");
        assert!(!kernel.read().is_clean());
        kernel.restore(&kernel.read().input(&Changes::new()));
        assert_eq!(kernel, with([6]).0);
    }

    proptest! {
        #[test]
        fn after_any_changes_the_kernel_holds_what_was_said(
            steps in prop::collection::vec(prop::collection::btree_map(0_u16..600, prop::option::of(prop::collection::vec(0_u32..3, 0..3)), 0..12), 1..6),
        ) {
            let (mut kernel, mut table) = (Kernel::default(), Table::empty(Family::Ipv4));
            for step in steps {
                let changes: Changes = step.into_iter().map(|(n, weights)| (key(n), weights.map(|weights| server(&weights)))).collect();
                kernel.restore(&table.input(&changes));
                table.written(changes);
                let read = kernel.read();
                prop_assert!(read.is_clean());
                prop_assert_eq!(held(&read), held(&table));
            }
        }
    }
}
