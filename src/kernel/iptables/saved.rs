//! What `iptables-save` prints, and what of it is ours. Pure.

use super::rules::tables;
use super::table::{Chain, Jump, SETTINGS_AT, Table};
use crate::kernel::nat::chain;
use crate::model::Family;
use crate::model::netfilter::{Balancing, RuleSettings};
use std::collections::BTreeMap;

/// Settings whose rules are in all the chains that there can be of ours.
const MOST: RuleSettings =
    RuleSettings { balancing: Balancing::Nat { is_liberal: false, counts: false }, ..RuleSettings::DEFAULT };

/// The rules of one family as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Rules without the `-A CHAIN` that begins them, by table and chain.
    pub(super) chains: BTreeMap<(String, String), Vec<String>>,
}

impl Saved {
    /// Reads what the program printed. Lines that say nothing of chains or rules are passed over.
    pub fn parse(text: &str) -> Self {
        let mut saved = Self::default();
        let mut table = "";
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name;
            } else if let Some(declared) = line.strip_prefix(':') {
                let name = declared.split(' ').next().unwrap_or_default();
                saved.chains.entry((table.to_owned(), name.to_owned())).or_default();
            } else if let Some((name, rule)) = line.strip_prefix("-A ").and_then(|rule| rule.split_once(' ')) {
                saved.chains.entry((table.to_owned(), name.to_owned())).or_default().push(as_written(rule));
            }
        }
        saved
    }

    /// How many rules there are, whose ever they are.
    pub fn count_rules(&self) -> usize {
        self.chains.values().map(Vec::len).sum()
    }

    /// Whether ipvsd's virtual servers are looked up here.
    pub fn balances(&self) -> bool {
        self.has_chain("nat", "IPVSD-DISPATCH")
    }

    /// Whether a chain's name in a table begins like this.
    pub fn has_chains(&self, table: &str, beginning: &str) -> bool {
        self.chains.keys().any(|(of, name)| of == table && name.starts_with(beginning))
    }

    /// Whether there is a chain of this name in a table.
    pub fn has_chain(&self, table: &str, name: &str) -> bool {
        self.rules(table, name).is_some()
    }

    /// The chains of a table with their rules, in the order of their names.
    pub fn chains<'a>(&'a self, table: &str) -> impl Iterator<Item = (&'a str, &'a [String])> {
        let from = (table.to_owned(), String::new());
        let here = self.chains.range(from..).take_while(move |((of, _), _)| of == table);
        here.map(|((_, name), rules)| (name.as_str(), rules.as_slice()))
    }

    /// The settings that these rules are the whole result of; none if anything is missing, added or changed.
    pub fn settings(&self, family: Family) -> Option<RuleSettings> {
        let settings = self.noted_settings()?;
        let is_whole = |table: &Table| {
            let has_chain = |chain: &Chain| self.rules(table.name, chain.name) == Some(&chain.rules);
            let has_jump = |jump: &Jump| self.count(table.name, jump) == 1;
            let has_root = |name: &&str| self.has_chain(table.name, name);
            table.chains.iter().all(has_chain) && table.jumps.iter().all(has_jump) && table.roots.iter().all(has_root)
        };
        tables(&settings, family).iter().all(is_whole).then_some(settings)
    }

    /// What the rules themselves say that they were made for.
    fn noted_settings(&self) -> Option<RuleSettings> {
        let (table, name) = SETTINGS_AT;
        let rule = self.rules(table, name)?.first()?;
        rule.strip_prefix("-m comment --comment \"")?.strip_suffix('"')?.parse().ok()
    }

    /// The chains of a table whose names begin like this, with their rules.
    pub fn chains_named(&self, table: &str, prefix: &str) -> impl Iterator<Item = (&str, &[String])> {
        let begun = self.chains.range((table.to_owned(), prefix.to_owned())..);
        let begun = begun.take_while(move |((of, name), _)| of == table && name.starts_with(prefix));
        begun.map(|((_, name), rules)| (name.as_str(), rules.as_slice()))
    }

    /// The chains that are ours by their names, each with its table and rules.
    pub fn chains_of_ours(&self, family: Family) -> impl Iterator<Item = (&'static str, &str, &[String])> {
        tables(&MOST, family).into_iter().flat_map(|table| {
            let is_named = |name: &str| table.chains.iter().any(|chain| chain.name == name);
            let ours = self.chains(table.name).filter(|(name, _)| name.starts_with(chain::PREFIX) || is_named(name));
            ours.map(|(name, rules)| (table.name, name, rules)).collect::<Vec<_>>()
        })
    }

    /// What of it is ours: the contents of our chains, and the jumps.
    pub fn ours(&self, family: Family) -> Self {
        let mut ours = Self::default();
        for table in tables(&MOST, family) {
            let mut take = |name: &str, keep: &dyn Fn(&String) -> bool| {
                let rules = self.rules(table.name, name).into_iter().flatten().filter(|rule| keep(rule)).cloned();
                ours.chains.entry((table.name.into(), name.into())).or_default().extend(rules);
            };
            table.chains.iter().for_each(|chain| take(chain.name, &|_| true));
            for jump in &table.jumps {
                take(jump.from, &|rule| *rule == jump.rule);
            }
        }
        ours
    }

    /// The rules of a chain, if there is one of this name in a table.
    pub fn rules(&self, table: &str, chain: &str) -> Option<&Vec<String>> {
        self.chains.get(&(table.to_owned(), chain.to_owned()))
    }

    /// How often a jump stands in a table.
    pub(super) fn count(&self, table: &str, jump: &Jump) -> usize {
        self.rules(table, jump.from).into_iter().flatten().filter(|rule| **rule == jump.rule).count()
    }
}

/// A rule as it is given to `iptables-restore`: `iptables-save` prints two spaces where its other half takes one or two.
fn as_written(printed: &str) -> String {
    printed.trim_end().replace("--nfacct-name  ", "--nfacct-name ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_says_nothing() {
        for text in ["", "*", ":", "-A", "-A x", "*mangle\n:IPVSD-PREROUTING - [0:0]\n-A IPVSD-PREROUTING -m x"] {
            assert_eq!(Saved::parse(text).settings(Family::Ipv4), None);
        }
    }
}
