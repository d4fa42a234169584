//! Feature gates: which of them can be changed, and what is in effect.

mod names;

use names::{DEPRECATED, TABLES};
use std::collections::BTreeMap;

/// The gate that turns on all alpha features which are not named.
const ALL_ALPHA: &str = "AllAlpha";
/// The gate that turns off (or on) all beta features which are not named.
const ALL_BETA: &str = "AllBeta";

/// The gates as they are in effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates {
    /// Those that were set.
    set: BTreeMap<String, bool>,
}

/// A gate that cannot be set so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// Its name.
    pub name: String,
    /// What it was set to.
    pub on: bool,
    /// Why it cannot be.
    pub why: &'static str,
}

/// What a gate is when nobody sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    /// Cannot be set to the other value.
    Locked(bool),
    /// Off, and what [`ALL_ALPHA`] is about.
    Alpha,
    /// What [`ALL_BETA`] is about.
    Beta(bool),
    /// Only ever set by its own name.
    Single(bool),
}

impl FeatureGates {
    /// The gates in effect when `wanted` are set.
    ///
    /// # Errors
    /// Each gate that there is not, or that cannot be changed.
    pub fn new(wanted: &BTreeMap<String, bool>) -> Result<Self, Vec<Objection>> {
        let wrong: Vec<_> = wanted.iter().filter_map(|(name, on)| objection(name, *on)).collect();
        if wrong.is_empty() { Ok(Self { set: wanted.clone() }) } else { Err(wrong) }
    }

    /// Whether a feature is on. One that nobody knows is off.
    pub fn enabled(&self, name: &str) -> bool {
        let set = |name| self.set.get(name).copied();
        match gate(name) {
            Some(Gate::Locked(on)) => on,
            Some(Gate::Alpha) => set(name).or(set(ALL_ALPHA)).unwrap_or(false),
            Some(Gate::Beta(default)) => set(name).or(set(ALL_BETA)).unwrap_or(default),
            Some(Gate::Single(default)) => set(name).unwrap_or(default),
            None => false,
        }
    }

    /// All of them: name, stage as Kubernetes calls it (empty for what is no longer a trial), and whether it is on.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        TABLES.iter().flat_map(move |(names, gate)| {
            names.iter().map(move |name| (*name, stage(name, *gate), self.enabled(name)))
        })
    }
}

fn objection(name: &str, on: bool) -> Option<Objection> {
    let why = match gate(name) {
        None => "there is no such feature gate",
        Some(Gate::Locked(true)) if !on => "this feature gate is locked to true",
        Some(Gate::Locked(false)) if on => "this feature gate is locked to false",
        Some(_) => return None,
    };
    Some(Objection { name: name.to_owned(), on, why })
}

fn gate(name: &str) -> Option<Gate> {
    TABLES.iter().find_map(|(names, gate)| names.contains(&name).then_some(*gate))
}

fn stage(name: &str, gate: Gate) -> &'static str {
    match gate {
        _ if DEPRECATED.contains(&name) => "DEPRECATED",
        _ if name == ALL_ALPHA => "ALPHA",
        _ if name == ALL_BETA => "BETA",
        Gate::Alpha => "ALPHA",
        Gate::Beta(_) => "BETA",
        Gate::Locked(_) | Gate::Single(_) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gates(wanted: &[(&str, bool)]) -> Result<FeatureGates, Vec<String>> {
        let objections = FeatureGates::new(&wanted.iter().map(|(name, on)| ((*name).to_owned(), *on)).collect());
        objections.map_err(|all| all.iter().map(|one| format!("{} {}: {}", one.name, one.on, one.why)).collect())
    }

    #[test]
    fn gates_are_on_or_off_as_in_kube_proxy() {
        let default = gates(&[]).unwrap();
        for (name, on) in [
            ("AllowServiceExternalIPs", true),
            ("ComponentFlagz", true),
            ("NativeHistograms", false),
            ("PreferSameTrafficDistribution", true),
            ("LoggingAlphaOptions", false),
            ("LoggingBetaOptions", true),
            ("KubeProxyIPVS", true),
            ("Nonsense", false),
        ] {
            assert_eq!(default.enabled(name), on, "{name}");
        }
    }

    #[test]
    fn a_name_counts_more_than_the_gates_for_many() {
        let gates = gates(&[
            ("AllAlpha", true),
            ("AllBeta", false),
            ("NativeHistograms", false),
            ("ComponentFlagz", true),
            ("AllowServiceExternalIPs", false),
        ])
        .unwrap();
        for (name, on) in [
            ("NativeHistograms", false),
            ("LoggingAlphaOptions", true),
            ("ComponentFlagz", true),
            ("ComponentStatusz", false),
            ("AllowServiceExternalIPs", false),
            ("MultiCIDRServiceAllocator", true),
        ] {
            assert_eq!(gates.enabled(name), on, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_set_is_named_each_by_itself() {
        assert_eq!(
            gates(&[("Nonsense", true), ("MultiCIDRServiceAllocator", false), ("GitRepoVolumeDriver", true)]),
            Err(vec![
                "GitRepoVolumeDriver true: this feature gate is locked to false".into(),
                "MultiCIDRServiceAllocator false: this feature gate is locked to true".into(),
                "Nonsense true: there is no such feature gate".into(),
            ])
        );
        assert!(gates(&[("MultiCIDRServiceAllocator", true), ("NFTablesProxyMode", true)]).is_ok());
    }
}
