//! How many rules there are in our chains, and how many were written last: known from what is read and written anyway, so
//! that a change costs the lines that it has and no listing.

use super::saved::Saved;
use crate::model::Family;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The tables that have rules of ours, as iptables calls them.
pub const TABLES: [&str; 3] = ["mangle", "nat", "filter"];

/// The numbers of both families. The kernel's thread writes them, any thread reads.
#[derive(Debug, Default)]
pub struct Counts(Mutex<BTreeMap<Family, OfFamily>>);

/// Rules of a family, table by table.
#[derive(Debug, Default)]
struct OfFamily {
    /// In each chain of ours, by table and name.
    chains: BTreeMap<(&'static str, String), usize>,
    /// Written by the last pass that wrote any.
    written: BTreeMap<&'static str, usize>,
    /// Whether what is written next belongs to another pass than `written`.
    is_over: bool,
}

impl Counts {
    /// How many rules our chains in a table have.
    pub fn rules(&self, family: Family, table: &str) -> usize {
        let counts = self.lock();
        let chains = counts.get(&family).into_iter().flat_map(|of_family| &of_family.chains);
        chains.filter(|((of, _), _)| *of == table).map(|(_, rules)| rules).sum()
    }

    /// How many rules of ours the last pass that wrote any wrote into a table.
    pub fn written(&self, family: Family, table: &str) -> usize {
        let counts = self.lock();
        counts.get(&family).and_then(|of_family| of_family.written.get(table)).copied().unwrap_or_default()
    }

    /// A pass is over: what is written from now on is another one's.
    pub fn pass_over(&self) {
        self.lock().values_mut().for_each(|of_family| of_family.is_over = true);
    }

    /// The rules of a family were read.
    pub(super) fn found(&self, family: Family, saved: &Saved) {
        let counted = |(table, name, rules): (_, &str, &[String])| ((table, name.to_owned()), rules.len());
        let chains = saved.chains_of_ours(family).map(counted).collect();
        self.lock().entry(family).or_default().chains = chains;
    }

    /// The program did what it was given, which was only about chains of ours.
    pub(super) fn restored(&self, family: Family, input: &str) {
        let mut counts = self.lock();
        let OfFamily { chains, written, is_over } = counts.entry(family).or_default();
        if std::mem::take(is_over) {
            written.clear();
        }
        let mut table = "";
        for line in input.lines() {
            let name = || line.split(' ').nth(1).unwrap_or_default().to_owned();
            match line.split_at_checked(1) {
                Some(("*", name)) => table = TABLES.into_iter().find(|known| *known == name).unwrap_or_default(),
                Some((":", declared)) => {
                    let name = declared.split(' ').next().unwrap_or_default();
                    chains.insert((table, name.to_owned()), 0);
                }
                _ if line.starts_with("-A ") => {
                    *chains.entry((table, name())).or_default() += 1;
                    *written.entry(table).or_default() += 1;
                }
                _ if line.starts_with("-X ") => drop(chains.remove(&(table, name()))),
                _ => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Family, OfFamily>> {
        // Nothing can panic while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::iptables::repair::tests::restored;

    const OTHERS: &str = "*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SVC-A - [0:0]\n-A PREROUTING -j KUBE-SVC-A\n\
        -A KUBE-SVC-A -j RETURN\nCOMMIT\n*filter\n:KUBE-FIREWALL - [0:0]\n-A KUBE-FIREWALL -j DROP\nCOMMIT\n";

    fn of(counts: &Counts, number: fn(&Counts, Family, &str) -> usize) -> [usize; 3] {
        TABLES.map(|table| number(counts, Family::Ipv4, table))
    }

    #[test]
    fn what_was_written_is_counted_like_what_is_read_afterwards() {
        let before = Saved::parse(OTHERS);
        let (written, read) = (Counts::default(), Counts::default());
        written.found(Family::Ipv4, &before);
        assert_eq!(of(&written, Counts::rules), [0; 3]);
        let leaf = "*nat\n:IPVSD-ADDRESS-1 - [0:0]\n-A IPVSD-ADDRESS-1 -d 10.96.0.1/32 -j IPVSD-REFUSE\nCOMMIT\n";
        let settings = "masquerade 0x4000, localhost, nat, counted".parse().unwrap();
        let all = restored(&before, &before.repair(&settings, Family::Ipv4));
        for input in [&before.repair(&settings, Family::Ipv4), leaf, leaf] {
            written.restored(Family::Ipv4, input);
        }
        read.found(Family::Ipv4, &restored(&all, leaf));
        assert_eq!(of(&written, Counts::rules), of(&read, Counts::rules));
        assert!(of(&read, Counts::rules).iter().all(|rules| *rules > 2));
        written.restored(Family::Ipv4, &all.removal(Family::Ipv4));
        written.restored(Family::Ipv4, "*nat\n:IPVSD-ADDRESS-1 - [0:0]\n-X IPVSD-ADDRESS-1\nCOMMIT\n");
        assert_eq!(of(&written, Counts::rules), [0; 3]);
    }

    #[test]
    fn the_last_pass_is_the_last_that_wrote_rules_at_all() {
        let counts = Counts::default();
        let one = "*nat\n:IPVSD-ADDRESS - [0:0]\n-A IPVSD-ADDRESS -j IPVSD-ADDRESS-1\nCOMMIT\n";
        let two = "*filter\n:KUBE-FORWARD - [0:0]\n-A KUBE-FORWARD -j DROP\n-A KUBE-FORWARD -j DROP\n\
            -I FORWARD 1 -j KUBE-FORWARD\nCOMMIT\n";
        counts.restored(Family::Ipv4, one);
        counts.restored(Family::Ipv4, two);
        assert_eq!(of(&counts, Counts::written), [0, 1, 2], "one pass may write more than once");
        counts.pass_over();
        counts.pass_over();
        assert_eq!(of(&counts, Counts::written), [0, 1, 2]);
        counts.restored(Family::Ipv4, one);
        assert_eq!(of(&counts, Counts::written), [0, 1, 0]);
        assert_eq!(of(&counts, Counts::rules), [0, 1, 2]);
    }
}
