//! Netfilter's part of the kernel: sets by `ipset`, rules by `iptables`; and what their errors mean.

use super::ipset::Sets;
use super::iptables::{Failed, Iptables};
use super::netlink::{Answer, Counters};
use super::{Cause, Errno, Failure, ObserveError};
use crate::model::netfilter::SetKey;
use crate::model::{Family, Model, Op, Phase};
use std::io;

/// Sets and rules of this thread's network namespace.
pub struct Netfilter {
    sets: Sets,
    iptables: Iptables,
}

impl Netfilter {
    /// Opens a socket for sets, and finds the programs for rules.
    ///
    /// # Errors
    /// No socket.
    pub fn open() -> io::Result<Self> {
        Ok(Self { sets: Sets::open()?, iptables: Iptables::find() })
    }

    /// What talking about sets has cost.
    pub fn counters(&self) -> Counters {
        self.sets.counters()
    }

    /// Reads all sets and rules into a model. Rules that cannot be read are not known to be whole: whoever wants them sets
    /// them, and is told why that fails, while virtual servers are programmed all the same.
    ///
    /// # Errors
    /// Any failure to read all sets.
    pub fn observe(&mut self, into: &mut Model) -> Result<(), ObserveError> {
        for key in SetKey::all() {
            into.sets.extend(self.sets.read(key)?.map(|set| (key, set)));
        }
        for family in [Family::Ipv4, Family::Ipv6] {
            into.rules.extend(self.iptables.observe(family).map(|settings| (family, settings)));
        }
        Ok(())
    }

    /// Applies operations of one phase of sets or rules, and returns what failed.
    pub fn apply<'o>(&mut self, phase: Phase, ops: impl IntoIterator<Item = (usize, &'o Op)>) -> Vec<Failure> {
        match phase {
            Phase::Rules | Phase::Unrule => {
                let failed = |(index, op)| self.apply_to_rules(op).err().map(|failed| (index, failed));
                let failed = ops.into_iter().filter_map(failed);
                failed.map(|(index, failed)| Failure { index, cause: Cause::Rules(failed) }).collect()
            }
            _ => self.apply_to_sets(ops),
        }
    }

    fn apply_to_sets<'o>(&mut self, ops: impl IntoIterator<Item = (usize, &'o Op)>) -> Vec<Failure> {
        let mut failures = Vec::new();
        self.sets.apply(ops, |(index, op), answer| match answer {
            Answer::Data(_) => {}
            Answer::Refused(errno) => failures.push(Failure { index, cause: cause(op, errno) }),
            Answer::Lost(errno) => failures.push(Failure { index, cause: Cause::Unknown(errno) }),
        });
        failures
    }

    fn apply_to_rules(&mut self, op: &Op) -> Result<(), Failed> {
        match op {
            Op::SetRules(family, settings) => self.iptables.set(*family, *settings),
            Op::RemoveRules(family) => self.iptables.remove(*family),
            _ => Ok(()),
        }
    }
}

/// What the kernel's errno means for this operation (`ip_set_create`, `ip_set_ad` and their likes in the kernel).
fn cause(op: &Op, errno: Errno) -> Cause {
    match (op, errno) {
        (Op::AddMember(..) | Op::UpdateMember(..) | Op::ResizeSet(..), Errno::ENOSPC) => Cause::SetFull,
        // Also said of a member to remove that is not there.
        (Op::CreateSet(..) | Op::AddMember(..) | Op::RemoveMember(..), Errno::EEXIST) => Cause::OutOfDate(errno),
        (_, Errno::ENOENT) => Cause::OutOfDate(errno),
        _ => Cause::Refused(errno),
    }
}
