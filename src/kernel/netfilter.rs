//! Netfilter's part of the kernel: sets by `ipset`, rules by `iptables`, virtual servers by `nat` where there is no IPVS,
//! kube-proxy's tables by `nftables`; and what their errors mean.

use super::ipset::{Header, Sets};
use super::iptables::counts::Counts;
use super::iptables::saved::Saved;
use super::iptables::{Blame, Failed, Iptables};
use super::nat::Nat;
use super::netlink::{Answer, Counters};
use super::nfacct;
use super::nftables::Tables;
use super::{Cause, Errno, Failure, Observation, ObserveError, Scope};
use crate::model::netfilter::SetKey;
use crate::model::{Family, Leftover, Model, Op, Phase, VirtualServer, VirtualServerKey};
use std::io;
use std::sync::Arc;

/// Sets and rules of this thread's network namespace.
pub struct Netfilter {
    sets: Sets,
    iptables: Iptables,
    tables: Tables,
    /// None where IPVS has the virtual servers.
    nat: Option<Nat>,
    /// Whether rules were found that balance.
    balanced: bool,
}

/// kube-proxy's table in its nftables mode, one in each family (`kube-proxy/.../nftables/proxier.go`).
const KUBE_PROXY_TABLE: &str = "kube-proxy";

impl Netfilter {
    /// Opens sockets for sets and tables, and finds the programs for rules.
    ///
    /// # Errors
    /// No socket.
    pub fn open() -> io::Result<Self> {
        let (sets, tables) = (Sets::open()?, Tables::open()?);
        Ok(Self { sets, iptables: Iptables::find(), tables, nat: None, balanced: false })
    }

    /// The same, with virtual servers too.
    pub fn with_nat(self) -> Self {
        Self { nat: Some(Nat::default()), ..self }
    }

    /// Whether rules balance, wanted or of before.
    pub fn balances(&self) -> bool {
        self.nat.is_some() || self.balanced
    }

    /// Whether rules can count packets by name here. Changes nothing.
    pub fn can_count(&self) -> bool {
        nfacct::are_there() && self.iptables.can_count()
    }

    /// How many rules of ours there are, as of what was last read and written.
    pub fn rule_counts(&self) -> &Arc<Counts> {
        self.iptables.counts()
    }

    /// What talking about sets and tables has cost.
    pub fn counters(&self) -> Counters {
        self.sets.counters() + self.tables.counters()
    }

    /// Reads all sets and rules, and what kube-proxy left. Rules that cannot be read are not known to be whole: whoever wants
    /// them sets them, and is told why that fails, while IPVS is programmed all the same.
    ///
    /// # Errors
    /// Any failure to read all sets, or virtual servers.
    pub fn observe(&mut self, into: &mut Observation) -> Result<(), ObserveError> {
        for key in SetKey::all() {
            into.model.sets.extend(self.sets.read(key)?.map(|set| (key, set)));
        }
        self.balanced = false;
        for family in [Family::Ipv4, Family::Ipv6] {
            self.observe_rules(family, into)?;
        }
        let tables = self.tables.families_with(KUBE_PROXY_TABLE).into_iter().map(Leftover::Table);
        into.model.kube_proxy_leftovers.extend(tables);
        Ok(())
    }

    fn observe_rules(&mut self, family: Family, into: &mut Observation) -> Result<(), ObserveError> {
        let saved = self.save(family)?;
        let nothing = Saved::default();
        let mut look = self.iptables.look(family, saved.as_ref().unwrap_or(&nothing));
        if let Some(nat) = &mut self.nat {
            let is_clean = nat.note(family, saved.as_ref());
            look.settings = look.settings.filter(|_| is_clean);
        }
        self.balanced |= saved.as_ref().is_some_and(Saved::balances);
        into.model.rules.extend(look.settings.map(|settings| (family, settings)));
        into.model.kube_proxy_leftovers.append(&mut look.leftovers);
        into.held.append(&mut look.held);
        into.kube_proxys_sets.extend(look.has_kube_proxys_sets.then_some(family));
        Ok(())
    }

    /// The virtual servers of a scope as they were last read, with what was applied since.
    pub fn virtual_servers(&self, scope: Scope<'_>, into: &mut Model) {
        let Some(nat) = &self.nat else { return };
        let copy = |(key, server): (&VirtualServerKey, &VirtualServer)| (*key, server.clone());
        match scope {
            Scope::All | Scope::Outline => into.virtual_servers.extend(nat.virtual_servers().map(copy)),
            Scope::VirtualServers(keys) => {
                let found = keys.iter().filter_map(|key| Some((key, nat.get(key)?)));
                into.virtual_servers.extend(found.map(copy));
            }
        }
    }

    /// Rules of a family as they are. Without the program there are none of ours; and where IPVS has the virtual servers, a
    /// reading may fail.
    fn save(&self, family: Family) -> Result<Option<Saved>, ObserveError> {
        match self.iptables.save(family) {
            Ok(saved) => Ok(Some(saved)),
            Err(failed) if self.nat.is_some() && failed.blame != Blame::Missing => Err(ObserveError::Program(failed)),
            Err(_) => Ok(None),
        }
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

    /// Applies operations on virtual servers and destinations, and returns what failed.
    pub fn apply_to_virtual_servers<'o>(&mut self, ops: impl IntoIterator<Item = (usize, &'o Op)>) -> Vec<Failure> {
        let Self { iptables, nat, .. } = self;
        let mut restore = |family, input: &str| iptables.restore(family, input);
        nat.as_mut().map(|nat| nat.apply(ops, &mut restore)).unwrap_or_default()
    }

    fn apply_to_sets<'o>(&mut self, ops: impl IntoIterator<Item = (usize, &'o Op)>) -> Vec<Failure> {
        let (mut failures, mut possible) = (Vec::new(), Vec::new());
        for (index, op) in ops {
            if let Op::CreateSet(key, _) = op {
                self.sets.make_room(*key);
            }
            match op.set().and_then(|key| Some((key, self.sets.other(key)?))) {
                Some((key, found)) => failures.push(Failure { index, cause: other_type(key, found) }),
                None => possible.push((index, op)),
            }
        }
        self.sets.apply(possible, |(index, op), answer| match answer {
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
            Op::RemoveLeftover(leftover) => {
                self.iptables.clear(*leftover).map_err(Cause::Rules)?;
                // Where rules balance they go on counting what kube-proxy's did.
                if self.nat.is_none() {
                    nfacct::remove_unused();
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn apply_to_rules(&mut self, op: &Op) -> Result<(), Failed> {
        let Self { iptables, nat, .. } = self;
        match op {
            Op::SetRules(family, settings) => {
                if settings.counts() {
                    nfacct::make();
                }
                iptables.set(*family, *settings)?;
                if !settings.counts() {
                    nfacct::remove_unused();
                }
                let mut restore = |family, input: &str| iptables.restore(family, input);
                nat.as_mut().map_or(Ok(()), |nat| nat.rules_set(*family, &mut restore))
            }
            Op::RemoveRules(family) => {
                iptables.remove(*family)?;
                if let Some(nat) = nat {
                    nat.rules_removed(*family);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn other_type(key: SetKey, found: &Header) -> Cause {
    Cause::SetOfOtherType { found: found.to_string().into(), wanted: Header::wanted(key).to_string().into() }
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
