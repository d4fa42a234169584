//! Netfilter's rules, by the programs iptables-save and iptables-restore: one run of the first for a look at a family, one
//! of the second to put it right.
//!
//! The rules are the same for all Services, so this happens at the start, and when a look finds them changed. What they
//! are is in [`rules`], how they are compared in [`saved`] and put right in `repair`. What kube-proxy left is known by
//! [`leftovers`], also in the [`other`] back end. `backend` runs the programs.

mod backend;
pub mod counts;
mod input;
pub mod leftovers;
mod nat;
pub mod other;
mod repair;
pub mod rules;
pub mod saved;
pub mod table;
mod taken_back;

use super::nfacct;
use crate::model::netfilter::RuleSettings;
use crate::model::{Family, Leftover};
pub use backend::{Backend, Blame, Failed, in_use};
use counts::Counts;
use leftovers::{Held, Leftovers, Shared};
use other::Other;
use saved::Saved;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use table::SETTINGS_AT;
use taken_back::TakenBack;

/// The programs, and how this node's print our rules.
#[derive(Debug)]
pub struct Iptables {
    backend: Backend,
    /// What our rules looked like after they were set, where a version of iptables does not print them as they were given.
    printed: BTreeMap<Family, (Saved, RuleSettings)>,
    other: Other,
    /// How many rules of ours there are.
    counts: Arc<Counts>,
}

/// What a look at a family's rules shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The settings of our rules; none if they are not whole, or cannot be read.
    pub settings: Option<RuleSettings>,
    /// Where kube-proxy left something.
    pub leftovers: BTreeSet<Leftover>,
    /// Chains of kube-proxy's that cannot go.
    pub held: BTreeSet<Held>,
    /// Whether kube-proxy's ipvs mode wrote last, and so has the sets that ipvsd has too.
    pub has_kube_proxys_sets: bool,
}

impl Iptables {
    /// Finds the programs. Where both kinds are there, those are used that the node's other rules were made with: rules of
    /// one kind would all be passed before those of the other.
    pub fn find() -> Self {
        let backend = Backend::find();
        Self { backend, printed: BTreeMap::new(), other: Other::than(backend), counts: Arc::default() }
    }

    /// Which kind is used.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// All rules of a family as they are.
    ///
    /// # Errors
    /// The program's.
    pub fn save(&self, family: Family) -> Result<Saved, Failed> {
        self.backend.save(family)
    }

    /// Gives an input to the program, which takes all of a table or nothing.
    ///
    /// # Errors
    /// The program's.
    pub fn restore(&self, family: Family, input: &str) -> Result<(), Failed> {
        self.backend.restore(family, input)?;
        self.counts.restored(family, input);
        Ok(())
    }

    /// How many rules of ours there are, as of what was last read and written.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Whether rules can count packets by name: whether the program and the kernel both have the match. Changes nothing.
    pub fn can_count(&self) -> bool {
        self.backend.has_match("nfacct", &format!("--nfacct-name {}", nfacct::INVALID))
    }

    fn settings(&self, family: Family, saved: &Saved) -> Option<RuleSettings> {
        let printed = self.printed.get(&family);
        let as_printed = || printed.filter(|(ours, _)| saved.ours(family) == *ours).map(|(_, settings)| *settings);
        saved.settings(family).or_else(as_printed)
    }

    /// Looks at a family's rules.
    pub fn look(&mut self, family: Family, saved: &Saved) -> Look {
        self.counts.found(family, saved);
        let mut look = self.other.look(family);
        look.settings = self.settings(family, saved);
        look.has_kube_proxys_sets = TakenBack::find(saved) == Some(TakenBack::ByIpvs);
        look.note(Leftover::Rules(family), Leftovers::find(saved, family, whose_shared(saved)));
        look
    }

    /// Makes a family's rules those of `settings`.
    ///
    /// # Errors
    /// A program cannot be run or fails; each table is then as it was, or as it should be.
    pub fn set(&mut self, family: Family, settings: RuleSettings) -> Result<(), Failed> {
        let repair = self.backend.save(family)?.repair(&settings, family);
        self.restore(family, &repair)?;
        let saved = self.backend.save(family)?;
        self.counts.found(family, &saved);
        self.printed.remove(&family);
        if saved.settings(family) != Some(settings) {
            self.printed.insert(family, (saved.ours(family), settings));
        }
        Ok(())
    }

    /// Takes a family's rules away.
    ///
    /// # Errors
    /// As [`Iptables::set`].
    pub fn remove(&mut self, family: Family) -> Result<(), Failed> {
        self.printed.remove(&family);
        match self.backend.save(family)?.removal(family) {
            removal if removal.is_empty() => Ok(()),
            removal => self.restore(family, &removal),
        }
    }

    /// Takes away what kube-proxy left, if that is rules.
    ///
    /// # Errors
    /// As [`Iptables::set`].
    pub fn clear(&mut self, leftover: Leftover) -> Result<(), Failed> {
        match leftover {
            Leftover::Rules(family) => self.backend.clear(family, whose_shared),
            Leftover::OtherRules(family) => self.other.clear(family),
            Leftover::Table(_) => Ok(()),
        }
    }
}

impl Look {
    fn note(&mut self, place: Leftover, found: Leftovers<'_>) {
        self.leftovers.extend((!found.is_empty()).then_some(place));
        self.held.append(&mut found.into_held());
    }
}

/// The chains that kube-proxy has too are ours once ours stand beside them, until it writes over them.
fn whose_shared(saved: &Saved) -> Shared {
    let (table, chain) = SETTINGS_AT;
    let is_ours = saved.has_chain(table, chain) && TakenBack::find(saved).is_none();
    if is_ours { Shared::Ours } else { Shared::KubeProxys }
}
