//! Compares sets and rules.

use super::pairs;
use crate::model::netfilter::{Mark, Member, RuleSettings, Set, SetKey};
use crate::model::{Family, Op};

/// The operations for a set.
pub fn set(key: SetKey, wanted: Option<&Set>, found: Option<&Set>, ops: &mut Vec<Op>) {
    let Some(wanted) = wanted else {
        // The kernel takes the members along.
        ops.extend(found.map(|_| Op::DestroySet(key)));
        return;
    };
    match found {
        None => ops.push(Op::CreateSet(key, wanted.capacity)),
        Some(found) if found.capacity != wanted.capacity => ops.push(Op::ResizeSet(key, wanted.capacity)),
        Some(_) => {}
    }
    let none = Default::default();
    let found = found.map_or(&none, |found| &found.members);
    pairs(&wanted.members, found, |which, wanted, found| {
        ops.extend(member((key, *which), wanted.copied(), found.copied()));
    });
}

/// The operation for a member: each side's mark, if it has the member.
pub fn member(
    (key, member): (SetKey, Member),
    wanted: Option<Option<Mark>>,
    found: Option<Option<Mark>>,
) -> Option<Op> {
    match (wanted, found) {
        (Some(mark), None) => Some(Op::AddMember(key, member, mark)),
        (Some(mark), Some(old)) if mark != old => Some(Op::UpdateMember(key, member, mark)),
        (None, Some(_)) => Some(Op::RemoveMember(key, member)),
        _ => None,
    }
}

/// The operation for the rules of a family.
pub fn rules(family: Family, wanted: Option<&RuleSettings>, found: Option<&RuleSettings>) -> Option<Op> {
    match (wanted, found) {
        (Some(settings), found) if found != Some(settings) => Some(Op::SetRules(family, *settings)),
        (None, Some(_)) => Some(Op::RemoveRules(family)),
        _ => None,
    }
}
