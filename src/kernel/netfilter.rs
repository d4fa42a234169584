//! Netfilter's part of the kernel: sets by `ipset`, rules by `iptables`, kube-proxy's tables by `nftables`; and what their
//! errors mean.

use super::ipset::Sets;
use super::iptables::{Failed, Iptables};
use super::netlink::{Answer, Counters};
use super::nftables::Tables;
use super::{Cause, Errno, Failure, Forgotten, Kernel, Observation, ObserveError, Scope};
use crate::model::netfilter::SetKey;
use crate::model::{Family, Kept, Leftover, Op, Phase};
use std::io;

/// Sets and rules of this thread's network namespace.
pub struct Netfilter {
    sets: Sets,
    iptables: Iptables,
    tables: Tables,
}

/// kube-proxy's table in its nftables mode, one in each family (`kube-proxy/.../nftables/proxier.go`).
const KUBE_PROXY_TABLE: &str = "kube-proxy";

impl Netfilter {
    /// Opens sockets for sets and tables, and finds the programs for rules.
    ///
    /// # Errors
    /// No socket.
    pub fn open() -> io::Result<Self> {
        Ok(Self { sets: Sets::open()?, iptables: Iptables::find(), tables: Tables::open()? })
    }

    /// What talking about sets and tables has cost.
    pub fn counters(&self) -> Counters {
        self.sets.counters() + self.tables.counters()
    }

    /// Reads all sets and rules, and what kube-proxy left. Rules that cannot be read are not known to be whole: whoever wants
    /// them sets them, and is told why that fails, while virtual servers are programmed all the same.
    ///
    /// # Errors
    /// Any failure to read all sets.
    pub fn observe(&mut self, into: &mut Observation) -> Result<(), ObserveError> {
        let Observation { model, held, .. } = into;
        for key in SetKey::all() {
            model.sets.extend(self.sets.read(key)?.map(|set| (key, set)));
        }
        for family in [Family::Ipv4, Family::Ipv6] {
            let mut look = self.iptables.observe(family);
            model.rules.extend(look.settings.map(|settings| (family, settings)));
            model.kube_proxy_leftovers.append(&mut look.leftovers);
            held.append(&mut look.held);
        }
        let tables = self.tables.families_with(KUBE_PROXY_TABLE).into_iter().map(Leftover::Table);
        model.kube_proxy_leftovers.extend(tables);
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
            Phase::Clear => {
                let failed = |(index, op)| self.clear(op).err().map(|cause| Failure { index, cause });
                ops.into_iter().filter_map(failed).collect()
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

    fn clear(&mut self, op: &Op) -> Result<(), Cause> {
        match op {
            Op::RemoveLeftover(Leftover::Table(family)) => {
                self.tables.remove(KUBE_PROXY_TABLE, *family).map_err(Cause::Refused)
            }
            Op::RemoveLeftover(leftover) => self.iptables.clear(*leftover).map_err(Cause::Rules),
            _ => Ok(()),
        }
    }

    fn apply_to_rules(&mut self, op: &Op) -> Result<(), Failed> {
        match op {
            Op::SetRules(family, settings) => self.iptables.set(*family, *settings),
            Op::RemoveRules(family) => self.iptables.remove(*family),
            _ => Ok(()),
        }
    }
}

/// Netfilter as a kernel of its own, for where there is no IPVS. It can be cleaned up.
pub struct Alone(pub Netfilter);

impl Kernel for Alone {
    fn observe(&mut self, scope: Scope<'_>) -> Result<Observation, ObserveError> {
        let mut observation = Observation::default();
        if let Scope::All = scope {
            self.0.observe(&mut observation)?;
        }
        Ok(observation)
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<Failure> {
        let mut failures = Vec::new();
        let mut start = 0;
        for run in ops.chunk_by(|one, next| one.phase() == next.phase()) {
            let ops = (start..).zip(run);
            match run.first().map(Op::phase) {
                Some(phase) if phase.is_of_netfilter() => failures.extend(self.0.apply(phase, ops)),
                _ => failures.extend(ops.map(|(index, _)| Failure { index, cause: NO_IPVS })),
            }
            start += run.len();
        }
        failures.sort_unstable_by_key(|failure| failure.index);
        failures
    }

    /// Without virtual servers no flow came to lead anywhere.
    fn forget_flows(&mut self, _: Family, _: &Kept) -> Forgotten {
        Forgotten::default()
    }
}

/// What the rest of the kernel is asked for where there is no IPVS.
const NO_IPVS: Cause = Cause::Refused(Errno::EOPNOTSUPP);

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
