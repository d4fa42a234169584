//! What converting depends on besides the object: whose rules hold, and which node this is.

use super::{Converted, Outcome, Rejected};
use crate::state::{ObjectRef, Origin, Zones};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Who checked an object before it got here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// Nobody: a manifest. ipvsd does what the API server would have done, defaults and validation.
    Manifest,
    /// The API server. What it lets through and kube-proxy skips is skipped without a word.
    Api,
}

/// What a source converts with, for as long as it lives.
#[derive(Debug)]
pub struct Context {
    pub(super) rules: Rules,
    /// This node's, as `nodeName` and `hints.forNodes` have it. Never changes within a process.
    pub(super) node_name: Box<str>,
    /// The zones of endpoints' hints, so that equal sets are kept once: a cluster has few, and an endpoint each.
    zones: Mutex<HashSet<Arc<Zones>>>,
}

impl Context {
    /// How many sets of zones are kept to be shared. No cluster has so many; further ones are not shared.
    const ZONES_MAX: usize = 1024;

    /// For objects under `rules`, read by the node of this name.
    pub fn new(rules: Rules, node_name: &str) -> Self {
        Self { rules, node_name: node_name.into(), zones: Mutex::default() }
    }

    /// The one copy of these zones.
    pub(super) fn shared(&self, zones: Zones) -> Arc<Zones> {
        let mut known = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known.get(&zones) {
            return Arc::clone(same);
        }
        let zones = Arc::new(zones);
        if known.len() < Self::ZONES_MAX {
            known.insert(Arc::clone(&zones));
        }
        zones
    }
}

/// One object on its way.
pub(super) struct Conversion<'a> {
    pub context: &'a Context,
    /// Where the object was read.
    pub origin: &'a Origin,
    /// What is wrong with parts that it is served without.
    slips: Vec<Rejected>,
}

impl<'a> Conversion<'a> {
    pub fn new(context: &'a Context, origin: &'a Origin) -> Self {
        Self { context, origin, slips: Vec::new() }
    }

    pub fn rules(&self) -> Rules {
        self.context.rules
    }

    /// Something wrong that concerns ipvsd alone, so that the API server let it pass and nobody else minds: it costs
    /// an object of the API only the part in question, and a manifest's the object.
    pub fn forgive(&mut self, wrong: Rejected) -> Result<(), Rejected> {
        match self.context.rules {
            Rules::Manifest => Err(wrong),
            Rules::Api => {
                self.slips.push(wrong);
                Ok(())
            }
        }
    }

    /// What came of `object`.
    pub fn finish<T>(self, object: ObjectRef, result: Result<Option<T>, Rejected>) -> Outcome<T> {
        match result {
            Ok(None) => Ok(None),
            Ok(Some(found)) => {
                let slips = self.slips.into_iter();
                let problems = slips.map(|slip| slip.problem(self.origin, Some(object.clone()))).collect();
                Ok(Some(Converted { object: found, problems }))
            }
            Err(rejected) => Err(rejected.problem(self.origin, Some(object))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_zones_are_kept_once_and_not_without_end() {
        let context = Context::new(Rules::Api, "node-1");
        let zones = |name: &str| context.shared(Zones::new([name]).unwrap());
        assert!(Arc::ptr_eq(&zones("a"), &zones("a")));
        (0..Context::ZONES_MAX).for_each(|number| drop(zones(&number.to_string())));
        assert!(!Arc::ptr_eq(&zones("late"), &zones("late")));
        assert!(Arc::ptr_eq(&zones("a"), &zones("a")));
    }
}
