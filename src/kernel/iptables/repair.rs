//! What `iptables-restore` is given to make a family's rules those of some settings, or to take them away. Pure.

use super::input::line;
use super::rules::tables;
use super::saved::Saved;
use super::table::{Chain, Jump, Table};
use super::taken_back::TakenBack;
use crate::kernel::nat::chain;
use crate::model::Family;
use crate::model::netfilter::{Balancing, RuleSettings};
use std::collections::BTreeSet;

impl Saved {
    /// What makes these rules those of `settings`, in one transaction for each table: our chains get their rules, and
    /// jumps that are missing are put first. Chains that these settings have no use for go.
    ///
    /// Where netfilter balances, filter refuses what nat has not translated. So it comes after nat, and is the first to go
    /// when IPVS balances again: else packets would be refused in between.
    pub fn repair(&self, settings: &RuleSettings, family: Family) -> String {
        let mut text = String::new();
        let mut tables = tables(settings, family);
        if settings.balancing == Balancing::Ipvs && self.balances() {
            tables.reverse();
        }
        for table in tables {
            line(&mut text, format_args!("*{}", table.name));
            let useless = self.useless(&table);
            let missing = table.roots.iter().filter(|root| !self.has_chain(table.name, root)).copied();
            for name in table.chains.iter().map(|chain| chain.name).chain(missing).chain(useless.iter().copied()) {
                line(&mut text, format_args!(":{name} - [0:0]"));
            }
            for Chain { name, rules } in &table.chains {
                rules.iter().for_each(|rule| line(&mut text, format_args!("-A {name} {rule}")));
            }
            // Each before those that are there already.
            for jump in table.jumps.iter().rev() {
                match self.count(table.name, jump) {
                    0 => line(&mut text, format_args!("-I {} 1 {}", jump.from, jump.rule)),
                    count => delete(&mut text, jump, count - 1),
                }
            }
            let is_left = |from: &str| !table.chains.iter().any(|chain| chain.name == from);
            for (from, rule) in self.jumps_to(table.name, &useless).filter(|(from, _)| is_left(from)) {
                line(&mut text, format_args!("-D {from} {rule}"));
            }
            useless.iter().for_each(|name| line(&mut text, format_args!("-X {name}")));
            line(&mut text, format_args!("COMMIT"));
        }
        text
    }

    /// Chains of ours that are there and not in a table as it should be.
    fn useless(&self, table: &Table) -> Vec<&str> {
        let ours = self.chains_named(table.name, chain::PREFIX).map(|(name, _)| name);
        let holds_servers = |name: &str| !table.roots.is_empty() && chain::Chain::from_name(name).is_some();
        let has_use = |name: &str| holds_servers(name) || table.chains.iter().any(|chain| chain.name == name);
        ours.filter(|name| !has_use(name)).collect()
    }

    /// What takes our rules away, but for chains that kube-proxy has taken back; empty if there are none.
    pub fn removal(&self, family: Family) -> String {
        let mut text = String::new();
        let taken_back = TakenBack::find(self);
        for table in tables(&RuleSettings::default(), family) {
            let (kept, usual): (Vec<_>, Vec<_>) = (table.chains.iter().map(|chain| chain.name))
                .filter(|name| self.has_chain(table.name, name))
                .partition(|name| taken_back.is_some_and(|by| by.has(table.name, name)));
            let ours = self.chains_named(table.name, chain::PREFIX).map(|(name, _)| name);
            let chains: BTreeSet<_> = usual.into_iter().chain(ours).collect();
            let chains: Vec<_> = chains.into_iter().collect();
            if chains.is_empty() {
                continue;
            }
            line(&mut text, format_args!("*{}", table.name));
            chains.iter().for_each(|name| line(&mut text, format_args!(":{name} - [0:0]")));
            let is_left = |rule: &str| taken_back.is_some_and(|by| by.leaves(rule));
            let left = self.jumps_to(table.name, &kept).filter(|(_, rule)| is_left(rule));
            for (from, rule) in self.jumps_to(table.name, &chains).chain(left) {
                line(&mut text, format_args!("-D {from} {rule}"));
            }
            chains.iter().for_each(|name| line(&mut text, format_args!("-X {name}")));
            line(&mut text, format_args!("COMMIT"));
        }
        text
    }

    /// The rules of a table outside of these chains that lead into one of them, ours or those that kube-proxy left.
    fn jumps_to<'a>(&'a self, table: &str, chains: &[&str]) -> impl Iterator<Item = (&'a str, &'a str)> {
        let leads = |rule: &str| rule.rsplit_once(" -j ").is_some_and(|(_, to)| chains.contains(&to));
        let others = self.chains(table).filter(|(name, _)| !chains.contains(name));
        let rules = others.flat_map(|(name, rules)| rules.iter().map(move |rule| (name, rule.as_str())));
        rules.filter(move |(_, rule)| leads(rule)).collect::<Vec<_>>().into_iter()
    }
}

fn delete(text: &mut String, jump: &Jump, count: usize) {
    for _ in 0..count {
        line(text, format_args!("-D {} {}", jump.from, jump.rule));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Also a jump of kube-proxy's that is none of ours.
    const WITH_KUBE_PROXYS: &str = "*filter\n-A FORWARD -m comment --comment \"kube-proxy firewall rules\" -j KUBE-PROXY-FIREWALL\n\
                                    :KUBE-PROXY-FIREWALL - [0:0]\nCOMMIT\n";

    const OTHERS: &str = "# Generated by somebody\n*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
                          -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT\nCOMMIT\n";

    fn settings() -> RuleSettings {
        "masquerade 0x4000, all, pods from 10.244.0.0/16".parse().unwrap()
    }

    /// What a table is after `restore`: enough of iptables-restore for what is given to it here.
    pub(in crate::kernel::iptables) fn restored(before: &Saved, restore: &str) -> Saved {
        let mut after = before.clone();
        let mut table = String::new();
        for line in restore.lines() {
            let chain = |name: &str| (table.clone(), name.to_owned());
            let chains = &mut after.chains;
            let words: Vec<_> = line.splitn(3, ' ').collect();
            match words[..] {
                ["COMMIT"] => {}
                [name] => name.trim_start_matches('*').clone_into(&mut table),
                [declared, "-", _] => drop(chains.insert(chain(declared.trim_start_matches(':')), vec![])),
                ["-A", name, rule] => chains.entry(chain(name)).or_default().push(rule.to_owned()),
                ["-I", name, rule] => {
                    let rule = rule.strip_prefix("1 ").unwrap();
                    chains.entry(chain(name)).or_default().insert(0, rule.to_owned());
                }
                ["-D", name, rule] => {
                    let rules = chains.get_mut(&chain(name)).unwrap();
                    let at = rules.iter().position(|found| found == rule).unwrap();
                    rules.remove(at);
                }
                ["-X", name] => assert_eq!(chains.remove(&chain(name)), Some(vec![])),
                _ => panic!("{line}"),
            }
        }
        after
    }

    #[test]
    fn filter_comes_after_nat_only_where_it_refuses_what_nat_leaves() {
        let order = |found: &Saved, settings: &str| {
            let text = found.repair(&settings.parse().unwrap(), Family::Ipv4);
            text.lines().filter_map(|line| line.strip_prefix('*')).map(str::to_owned).collect::<Vec<_>>()
        };
        let (ipvs, nat) = ("masquerade 0x4000", "masquerade 0x4000, nat");
        let balancing = restored(&Saved::default(), &Saved::default().repair(&nat.parse().unwrap(), Family::Ipv4));
        assert_eq!(order(&Saved::default(), ipvs), ["mangle", "nat", "filter"]);
        assert_eq!(order(&balancing, nat), ["mangle", "nat", "filter"]);
        assert_eq!(order(&balancing, ipvs), ["filter", "nat", "mangle"]);
    }

    #[test]
    fn what_a_repair_makes_is_known_again() {
        for family in [Family::Ipv4, Family::Ipv6] {
            let before = Saved::parse(OTHERS);
            assert_eq!(before.settings(family), None);
            let after = restored(&before, &before.repair(&settings(), family));
            assert_eq!(after.settings(family), Some(settings()));
            assert_eq!(restored(&after, &after.repair(&settings(), family)), after);
            assert_eq!(after.ours(family).settings(family), Some(settings()));
        }
    }

    #[test]
    fn other_settings_replace_what_is_there() {
        let before = restored(&Saved::default(), &Saved::default().repair(&settings(), Family::Ipv4));
        let other = RuleSettings::default();
        let after = restored(&before, &before.repair(&other, Family::Ipv4));
        assert_eq!(after.settings(Family::Ipv4), Some(other));
    }

    #[test]
    fn anything_missing_added_or_doubled_is_noticed_and_put_right() {
        let whole = restored(&Saved::parse(OTHERS), &Saved::parse(OTHERS).repair(&settings(), Family::Ipv4));
        for (key, rules) in whole.ours(Family::Ipv4).chains {
            for rule in rules {
                let mut missing = whole.clone();
                let chain = missing.chains.get_mut(&key).unwrap();
                chain.retain(|found| *found != rule);
                let mut doubled = whole.clone();
                doubled.chains.get_mut(&key).unwrap().push(rule.clone());
                for broken in [missing, doubled] {
                    assert_eq!(broken.settings(Family::Ipv4), None, "{key:?} {rule}");
                    let repaired = restored(&broken, &broken.repair(&settings(), Family::Ipv4));
                    assert_eq!(repaired.settings(Family::Ipv4), Some(settings()), "{key:?} {rule}");
                }
            }
        }
    }

    #[test]
    fn a_removal_leaves_what_others_made() {
        let before = Saved::parse(OTHERS);
        let with_kube_proxys = Saved::parse(&[OTHERS, WITH_KUBE_PROXYS].concat());
        let with_ours = restored(&with_kube_proxys, &with_kube_proxys.repair(&settings(), Family::Ipv4));
        let mut after = restored(&with_ours, &with_ours.removal(Family::Ipv4));
        // The kernel's own chains are always there.
        after.chains.retain(|_, rules| !rules.is_empty());
        assert_eq!(after.chains.into_values().collect::<Vec<_>>(), [["-m addrtype --dst-type LOCAL -j CNI-HOSTPORT"]]);
        assert_eq!(before.removal(Family::Ipv4), "");
    }
}
