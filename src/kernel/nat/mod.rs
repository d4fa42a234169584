//! Virtual servers as netfilter's own rules, for kernels without IPVS: each is some rules in one of a fixed number of
//! chains, which choose a destination and translate to it. Connections are kept by connection tracking.
//!
//! [`chain`] says in which chain a virtual server is, [`rule`] and [`server`] what its rules are, [`table`] what is written
//! for a change, [`entry`] what is printed. Here operations become such changes, and what fails is found and told.

pub mod chain;
pub mod entry;
mod input;
pub mod rule;
pub mod server;
pub mod table;

use super::iptables::saved::Saved;
use super::iptables::{Blame, Failed};
use super::{Cause, Errno, Failure};
use crate::model::op::Refusal;
use crate::model::{Family, Model, Op, VirtualServer, VirtualServerKey};
use input::Input;
use std::collections::BTreeMap;
use table::{Changes, Table};

/// How often in one [`Nat::apply`] an input that was refused is tried again in parts: where everything is refused it ends.
const ATTEMPTS: usize = 64;

/// Writes an input to the rules of a family.
pub type Restore<'a> = &'a mut dyn FnMut(Family, &str) -> Result<(), Failed>;

/// The virtual servers of both families, as they were last read, with what was written since.
#[derive(Debug)]
pub struct Nat {
    tables: BTreeMap<Family, Table>,
}

impl Default for Nat {
    fn default() -> Self {
        Self { tables: [Family::Ipv4, Family::Ipv6].map(|family| (family, Table::empty(family))).into() }
    }
}

impl Nat {
    /// Takes in what was found of a family, nothing if it cannot have rules, and returns whether it is as it should be.
    pub fn note(&mut self, family: Family, saved: Option<&Saved>) -> bool {
        let read = saved.map_or_else(|| Table::empty(family), |saved| Table::read(family, saved.chains("nat")));
        let is_clean = read.is_clean();
        self.tables.insert(family, read);
        is_clean
    }

    /// The virtual servers that are there.
    pub fn virtual_servers(&self) -> impl Iterator<Item = (&VirtualServerKey, &VirtualServer)> {
        self.tables.values().flat_map(Table::virtual_servers)
    }

    /// A virtual server that is there.
    pub fn get(&self, key: &VirtualServerKey) -> Option<&VirtualServer> {
        self.tables.get(&key.family())?.get(key)
    }

    /// The rules that are the same for all Services were set: what they have is there, and what was found to be wrong in
    /// the chains beside them is put right too.
    ///
    /// # Errors
    /// The program's.
    pub fn rules_set(&mut self, family: Family, restore: Restore<'_>) -> Result<(), Failed> {
        let Some(table) = self.tables.get_mut(&family) else { return Ok(()) };
        table.has_refuse_now();
        if !table.is_clean() {
            restore(family, &table.input(&Changes::new()).text)?;
            table.written(Changes::new());
        }
        Ok(())
    }

    /// All chains of a family were removed.
    pub fn rules_removed(&mut self, family: Family) {
        self.tables.insert(family, Table::empty(family));
    }

    /// Applies operations on virtual servers and destinations with one input for a family, and returns what failed.
    pub fn apply<'o>(&mut self, ops: impl IntoIterator<Item = (usize, &'o Op)>, restore: Restore<'_>) -> Vec<Failure> {
        let mut failures = Vec::new();
        let mut folded = Folded::default();
        for (index, op) in ops {
            if let Err(refusal) = folded.take(index, op, |key| self.get(key).cloned()) {
                let errno = if refusal == Refusal::Exists { Errno::EEXIST } else { Errno::ENOENT };
                failures.push(Failure { index, cause: Cause::OutOfDate(errno) });
            }
        }
        for (family, table) in &mut self.tables {
            let mut restore = |input: &Input| restore(*family, &input.text);
            for (key, failed) in write(table, folded.changes(*family), &mut restore) {
                let of_key = folded.indices.get(&key).into_iter().flatten();
                failures.extend(of_key.map(|index| Failure { index: *index, cause: Cause::Rules(failed.clone()) }));
            }
        }
        failures
    }
}

/// What operations come to, virtual server by virtual server.
#[derive(Default)]
struct Folded {
    /// Those that are touched, as they will be.
    after: Model,
    /// The operations on each that is touched, by index.
    indices: BTreeMap<VirtualServerKey, Vec<usize>>,
}

impl Folded {
    /// Takes in an operation if it is on a virtual server, which is `now` as it says if it was not touched before.
    fn take(
        &mut self,
        index: usize,
        op: &Op,
        now: impl FnOnce(&VirtualServerKey) -> Option<VirtualServer>,
    ) -> Result<(), Refusal> {
        let Some(key) = op.virtual_server() else { return Ok(()) };
        if !self.indices.contains_key(&key) {
            self.after.virtual_servers.extend(now(&key).map(|server| (key, server)));
        }
        let of_key = self.indices.entry(key).or_default();
        self.after.apply(op)?;
        of_key.push(index);
        Ok(())
    }

    fn changes(&self, family: Family) -> Changes {
        let of_family = self.indices.iter().filter(|(key, indices)| key.family() == family && !indices.is_empty());
        of_family.map(|(key, _)| (*key, self.after.virtual_servers.get(key).cloned())).collect()
    }
}

/// Writes changes, all of them at once if they can be, and returns those that cannot.
///
/// A table of netfilter is changed as a whole or not at all. So an input that is refused is tried again without the virtual
/// server that it was refused for, or in halves where nobody says for which one.
fn write(
    table: &mut Table,
    changes: Changes,
    restore: &mut dyn FnMut(&Input) -> Result<(), Failed>,
) -> Vec<(VirtualServerKey, Failed)> {
    let mut failed = Vec::new();
    let mut attempts = ATTEMPTS;
    // The legacy programs name the last line for whatever the kernel refuses, and all of them the wrong one at times.
    let mut names_lines = true;
    let mut waiting = vec![changes];
    while let Some(mut part) = waiting.pop() {
        if part.is_empty() {
            continue;
        }
        let input = table.input(&part);
        let Err(error) = restore(&input) else {
            names_lines &= part.len() > 1 || waiting.is_empty();
            table.written(part);
            continue;
        };
        let line = if let Blame::Input { line } = error.blame { line.and_then(|line| input.at(line)) } else { None };
        attempts = attempts.saturating_sub(1);
        if part.len() == 1 || attempts == 0 || !matches!(error.blame, Blame::Input { .. }) {
            // The legacy programs name the end of it for whatever the kernel refuses.
            let of_rule = line.filter(|(_, owner)| owner.is_some()).map(|(text, _)| text);
            let at = |key: &VirtualServerKey| of_rule.or_else(|| input.first_of(key)).or(line.map(|(text, _)| text));
            failed.extend(part.keys().map(|key| (*key, at(key).map_or(error.clone(), |text| error.at(text)))));
            continue;
        }
        let culprit = line.and_then(|(_, owner)| owner).filter(|owner| names_lines && part.contains_key(owner));
        let suspects = match culprit {
            Some(culprit) => part.remove(&culprit).map(|server| (culprit, server)).into_iter().collect(),
            None => split(&mut part),
        };
        waiting.push(part);
        waiting.push(suspects);
    }
    failed
}

/// Takes the second half out.
fn split(part: &mut Changes) -> Changes {
    let middle = part.keys().nth(part.len() / 2).copied();
    middle.map(|middle| part.split_off(&middle)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DestinationKey, DestinationSpec, Persistence, Protocol};

    fn key(n: u8) -> VirtualServerKey {
        VirtualServerKey::new(format!("10.96.0.{n}").parse().unwrap(), 80, Protocol::Tcp)
    }

    fn destination(n: u8) -> DestinationKey {
        DestinationKey { address: format!("10.244.0.{n}").parse().unwrap(), port: 80 }
    }

    fn one() -> DestinationSpec {
        DestinationSpec::masquerading(1)
    }

    /// A virtual server that the kernel does not take, as its persistence ends at once.
    fn bad() -> crate::model::VirtualServerSpec {
        server::spec(Some(Persistence { timeout: 0, prefix: 32 }))
    }

    fn additions(numbers: impl IntoIterator<Item = u8>, bad_ones: &[u8]) -> Vec<Op> {
        let spec = |n: u8| if bad_ones.contains(&n) { bad() } else { server::spec(None) };
        let both = |n| [Op::AddVirtualServer(key(n), spec(n)), Op::AddDestination(key(n), destination(n), one())];
        numbers.into_iter().flat_map(both).collect()
    }

    /// A restore that refuses what has a persistence of 0 seconds, and names the line or not. Also counts its runs.
    struct Refusing {
        names_lines: bool,
        runs: usize,
    }

    impl Refusing {
        fn apply(&mut self, nat: &mut Nat, ops: &[Op]) -> Vec<Failure> {
            nat.apply((0..).zip(ops), &mut |_, input| {
                self.runs += 1;
                let bad = input.lines().position(|line| line.contains("--seconds 0 "));
                let line = bad.filter(|_| self.names_lines).map(|index| index + 1);
                bad.map_or(Ok(()), |_| Err(failed(Blame::Input { line })))
            })
        }
    }

    fn failed(blame: Blame) -> Failed {
        Failed { program: "restore".into(), reason: "refused".into(), blame }
    }

    fn held(nat: &Nat) -> Vec<VirtualServerKey> {
        nat.virtual_servers().map(|(key, _)| *key).collect()
    }

    #[test]
    fn what_is_refused_costs_only_itself() {
        for names_lines in [true, false] {
            let (mut nat, mut restore) = (Nat::default(), Refusing { names_lines, runs: 0 });
            let ops = additions(0..200, &[77, 140]);
            let failures = restore.apply(&mut nat, &ops);
            let mut indices: Vec<_> = failures.iter().map(|failure| failure.index).collect();
            indices.sort_unstable();
            assert_eq!(indices, [154, 155, 280, 281]);
            assert_eq!(held(&nat).len(), 198);
            assert!(restore.runs < 40, "{}", restore.runs);
            if names_lines {
                assert_eq!(restore.runs, 5);
                assert!(failures[0].cause.to_string().contains("-A IPVSD-ADDRESS-"), "{}", failures[0].cause);
            }
        }
    }

    #[test]
    fn where_everything_is_refused_it_ends() {
        let (mut nat, mut runs) = (Nat::default(), 0);
        let ops = additions(0..200, &[]);
        let failures = nat.apply((0..).zip(&ops), &mut |_, _| {
            runs += 1;
            Err(failed(Blame::Input { line: None }))
        });
        assert_eq!((failures.len(), held(&nat).len()), (400, 0));
        assert!(runs <= 2 * ATTEMPTS, "{runs}");
    }

    #[test]
    fn a_program_that_cannot_run_is_not_asked_twice() {
        let (mut nat, mut runs) = (Nat::default(), 0);
        let failures = nat.apply((0..).zip(&additions(0..9, &[])), &mut |_, _| {
            runs += 1;
            Err(failed(Blame::Circumstances))
        });
        assert_eq!((failures.len(), runs), (18, 1));
    }

    #[test]
    fn operations_on_what_is_not_as_thought_are_out_of_date() {
        let mut nat = Nat::default();
        let mut restore = Refusing { names_lines: true, runs: 0 };
        assert_eq!(restore.apply(&mut nat, &additions([1], &[])), []);
        let ops = [
            Op::AddVirtualServer(key(1), server::spec(None)),
            Op::AddDestination(key(1), destination(1), one()),
            Op::RemoveDestination(key(1), destination(9)),
            Op::RemoveVirtualServer(key(2)),
            Op::AddDestination(key(1), destination(2), one()),
        ];
        let failures = restore.apply(&mut nat, &ops);
        assert!(failures.iter().all(|failure| matches!(failure.cause, Cause::OutOfDate(_))), "{failures:?}");
        assert_eq!(failures.iter().map(|failure| failure.index).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(nat.get(&key(1)).unwrap().destinations.len(), 2);
    }

    #[test]
    fn what_is_as_it_was_costs_no_run() {
        let (mut nat, mut restore) = (Nat::default(), Refusing { names_lines: true, runs: 0 });
        assert_eq!(restore.apply(&mut nat, &[]), []);
        assert_eq!(restore.apply(&mut nat, &[Op::RemoveVirtualServer(key(1))]).len(), 1);
        assert_eq!(restore.runs, 0);
    }
}
