//! What netfilter holds for the virtual servers, as values: sets of frontends and endpoints, and the rules that look
//! into them.
//!
//! Per-object data is in sets alone, so that the rules are few, always the same, and depend on [`RuleSettings`] only.

pub mod mark;
mod rules;
mod set;

pub use mark::Mark;
pub use rules::{Balancing, DeviceName, InvalidRuleSettings, LocalPods, MasqueradeBit, RuleSettings};
pub use set::{AddressPort, Capacity, Member, Set, SetKey, SetKind, SetType};
