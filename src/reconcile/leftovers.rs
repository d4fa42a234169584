//! What kube-proxy's iptables and nftables modes left on this node: when it may go, how often it is removed, and what there
//! is to say about it.
//!
//! It goes when everything of ours stands that it stands in for. A kube-proxy that still runs writes its rules again; that
//! is noticed, said, and not answered for ever.

use crate::diff::Steps;
use crate::kernel::Cause;
use crate::model::{Family, Leftover, Model, Op, Phase};
use crate::state::{Origin, Problem};
use std::collections::{BTreeMap, BTreeSet};

/// How often the same is removed. The first time is the takeover; a kube-proxy that was about to end may write once more,
/// and one that was started again by mistake may take a minute to be stopped.
const MOST_REMOVALS: u32 = 3;

/// What was removed so far, and what came back.
#[derive(Debug, Default)]
pub(super) struct Clearing {
    /// How often each was removed.
    removed: BTreeMap<Leftover, u32>,
    /// What the last whole reading found though it had been removed.
    returned: BTreeSet<Leftover>,
}

impl Clearing {
    /// Takes in what a whole reading found.
    pub fn note_found(&mut self, found: &Model) {
        self.returned =
            found.kube_proxy_leftovers.iter().copied().filter(|leftover| self.removals(*leftover) > 0).collect();
    }

    /// Takes in that an operation succeeded.
    pub fn note_done(&mut self, op: &Op) {
        if let Op::RemoveLeftover(leftover) = op {
            *self.removed.entry(*leftover).or_default() += 1;
        }
    }

    /// Compares what was found with what may go: what is replaced by ours, and has not come back too often.
    pub fn decide(&self, found: &Model, is_replaced: impl Fn(Family) -> bool, steps: &mut Steps) {
        let stays = |leftover: Leftover| !is_replaced(leftover.family()) || self.gives_up(leftover);
        steps.kube_proxy_leftovers(&found.kube_proxy_leftovers, stays);
    }

    /// What came back.
    pub fn problems(&self) -> impl Iterator<Item = Problem> {
        let message = |leftover: &Leftover| {
            let what_now = if self.gives_up(*leftover) {
                "they stay until ipvsd is started anew"
            } else {
                "they are removed again, a few times"
            };
            format!(
                "{leftover} came back after they were removed: a kube-proxy still runs on this node, and must be stopped; \
                 {what_now}"
            )
        };
        self.returned.iter().map(move |leftover| on_this_node(message(leftover)))
    }

    fn gives_up(&self, leftover: Leftover) -> bool {
        self.removals(leftover) >= MOST_REMOVALS
    }

    fn removals(&self, leftover: Leftover) -> u32 {
        self.removed.get(&leftover).copied().unwrap_or_default()
    }
}

/// A problem with what is there beside us.
pub(super) fn on_this_node(message: String) -> Problem {
    Problem { origin: Origin::Node, object: None, field: String::new(), message }
}

/// Operations in the order of their phases, cut where it depends on failures whether to go on.
#[derive(Debug, Default)]
pub(super) struct Stages {
    /// What comes first, which is all if kube-proxy left nothing.
    pub first: Vec<Op>,
    /// Rules of families that kube-proxy's rules still serve.
    pub rules: Vec<Op>,
    /// What takes away kube-proxy's rules and tables.
    pub clearing: Vec<Op>,
    /// Our rules and sets that go, which kube-proxy's rules may have been in the way of.
    pub last: Vec<Op>,
    /// What takes away kube-proxy's device.
    pub relieving: Vec<Op>,
}

impl Stages {
    /// Cuts operations that are sorted by phase. `found` is the kernel before them.
    pub fn of(ops: Vec<Op>, found: &Model) -> Self {
        let mut stages = Self::default();
        for op in ops {
            let is_of_takeover = !stages.rules.is_empty() || !stages.clearing.is_empty();
            let stage = match (op.phase(), &op) {
                (_, Op::SetRules(family, _)) if is_served_by_rules(*family, found) => &mut stages.rules,
                (Phase::Clear, _) => &mut stages.clearing,
                (Phase::Unrule | Phase::Unset, _) if is_of_takeover => &mut stages.last,
                (Phase::Relieve, _) => &mut stages.relieving,
                _ => &mut stages.first,
            };
            stage.push(op);
        }
        stages
    }
}

/// Whether kube-proxy's rules translate the addresses of Services until ours replace them: virtual servers must stand by then,
/// or new connections would find neither. With the device it was in ipvs mode, and they stand.
fn is_served_by_rules(family: Family, found: &Model) -> bool {
    found.kube_proxy_leftovers.contains(&Leftover::Rules(family)) && found.kube_proxy_device.is_none()
}

/// Whether something of the family that an operation clears failed, and kube-proxy's rules stand in for it.
pub(super) fn failures_need(clearing: &Op, failed: &[(Op, Cause)]) -> bool {
    let stands_in = |op: &Op| op.phase().is_of_what_comes() && op.family() == clearing.family();
    failed.iter().any(|(op, _)| stands_in(op))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::netfilter::{Capacity, RuleSettings, SetKey, SetKind};
    use crate::model::{Protocol, RouteSpec, VirtualServerKey};
    use std::net::IpAddr;

    const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn ops() -> Vec<Op> {
        let set = SetKey { kind: SetKind::ClusterIp, family: Family::Ipv4 };
        let mut ops = vec![
            Op::CreateSet(set, Capacity::LEAST),
            Op::SetRules(Family::Ipv4, RuleSettings::default()),
            Op::SetRules(Family::Ipv6, RuleSettings::default()),
            Op::AddRoute(VIP, RouteSpec::default()),
            Op::RemoveVirtualServer(VirtualServerKey::new(VIP, 80, Protocol::Tcp)),
            Op::RemoveLeftover(Leftover::Rules(Family::Ipv4)),
            Op::DestroySet(set),
            Op::RemoveKubeProxyDevice,
        ];
        ops.sort_by_key(Op::phase);
        ops
    }

    fn kinds(ops: &[Op]) -> Vec<(&'static str, Option<Family>)> {
        ops.iter().map(|op| (op.kind(), op.family())).collect()
    }

    #[test]
    fn rules_that_replace_kube_proxys_come_after_what_serves_in_their_place() {
        let left = [Leftover::Rules(Family::Ipv4), Leftover::Table(Family::Ipv6)].into();
        let found = Model { kube_proxy_leftovers: left, ..Model::default() };
        let stages = Stages::of(ops(), &found);
        let (four, six) = (Some(Family::Ipv4), Some(Family::Ipv6));
        assert_eq!(
            kinds(&stages.first),
            [("create set", four), ("set rules", six), ("remove virtual server", four), ("add route", four)]
        );
        assert_eq!(kinds(&stages.rules), [("set rules", four)]);
        assert_eq!(kinds(&stages.clearing), [("remove kube-proxy's rules", four)]);
        assert_eq!(kinds(&stages.last), [("destroy set", four)]);
        assert_eq!(kinds(&stages.relieving), [("remove kube-proxy's device", None)]);
    }

    #[test]
    fn after_the_ipvs_mode_rules_come_before_virtual_servers() {
        let kube_proxy_device = Some(BTreeSet::new());
        let kube_proxy_leftovers = [Leftover::Rules(Family::Ipv4)].into();
        let stages = Stages::of(ops(), &Model { kube_proxy_device, kube_proxy_leftovers, ..Model::default() });
        assert_eq!(stages.rules, []);
    }

    #[test]
    fn where_kube_proxy_left_nothing_all_is_one_stage() {
        let ops: Vec<_> =
            ops().into_iter().filter(|op| op.phase() != Phase::Clear && op.phase() != Phase::Relieve).collect();
        assert_eq!(Stages::of(ops.clone(), &Model::default()).first, ops);
    }

    #[test]
    fn only_a_failure_of_the_same_family_that_leaves_something_missing_keeps_what_stands_in_for_it() {
        let clearing = |family| Op::RemoveLeftover(Leftover::Table(family));
        for op in ops() {
            let failed = [(op, Cause::SetFull)];
            assert!(!failures_need(&clearing(Family::Ipv6), &failed) || op.family() == Some(Family::Ipv6), "{op}");
            let is_missing = op.phase().is_of_what_comes() && op.family() == Some(Family::Ipv4);
            assert_eq!(failures_need(&clearing(Family::Ipv4), &failed), is_missing, "{op}");
        }
    }
}
