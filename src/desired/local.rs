//! What the endpoints on this node mean beyond its virtual servers: what load balancers are told that ask for them, and
//! which Services want for them.

use crate::model::Family;
use crate::state::ObjectName;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What a load balancer is told that asks at a Service's `healthCheckNodePort`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Where it asks, by TCP.
    pub port: u16,
    /// For each family in which the Service is proxied, how many addresses of ready endpoints this node has, over all
    /// ports. None means that this node should get no traffic.
    pub local_endpoints: BTreeMap<Family, usize>,
}

/// Which of a Service's two traffic policies is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Traffic {
    /// `internalTrafficPolicy`.
    Internal,
    /// `externalTrafficPolicy`.
    External,
}

/// What concerns one Service here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalPart {
    /// Only of a Service that has a port for it.
    pub health_check: Option<HealthCheck>,
    /// For which traffic the policy is `Local`, an endpoint would be there, and this node has none.
    pub unserved: BTreeSet<(Traffic, Family)>,
}

/// What concerns all of them, kept up to date Service by Service.
#[derive(Clone, Debug, Default)]
pub struct Locals {
    /// By Service.
    health_checks: BTreeMap<ObjectName, HealthCheck>,
    /// How often `health_checks` changed.
    revision: u64,
    /// The Services that have no local endpoint where they need one.
    unserved: HashMap<(Traffic, Family), HashSet<ObjectName>>,
}

impl Locals {
    /// Takes in what concerns a Service now; nothing concerns one that is gone.
    pub fn put(&mut self, service: &ObjectName, part: LocalPart) {
        let known = self.health_checks.get(service);
        if known != part.health_check.as_ref() {
            self.revision += 1;
            match part.health_check {
                Some(check) => drop(self.health_checks.insert(service.clone(), check)),
                None => drop(self.health_checks.remove(service)),
            }
        }
        for (kind, services) in &mut self.unserved {
            if !part.unserved.contains(kind) {
                services.remove(service);
            }
        }
        for kind in part.unserved {
            self.unserved.entry(kind).or_default().insert(service.clone());
        }
    }

    /// The answers to load balancers.
    pub fn health_checks(&self) -> &BTreeMap<ObjectName, HealthCheck> {
        &self.health_checks
    }

    /// Differs from an earlier value if [`Locals::health_checks`] may be different from then.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many Services have an endpoint in a family, but none on this node where their policy wants one.
    pub fn unserved(&self, traffic: Traffic, family: Family) -> usize {
        self.unserved.get(&(traffic, family)).map_or(0, HashSet::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(port: Option<u16>, endpoints: usize, unserved: &[(Traffic, Family)]) -> LocalPart {
        let local_endpoints = BTreeMap::from([(Family::Ipv4, endpoints)]);
        LocalPart {
            health_check: port.map(|port| HealthCheck { port, local_endpoints }),
            unserved: unserved.iter().copied().collect(),
        }
    }

    #[test]
    fn the_revision_tells_whether_health_checks_changed() {
        let mut locals = Locals::default();
        let web = ObjectName::new("default", "web");
        for (why, port, endpoints, revision) in [
            ("without a health check there is nothing to tell", None, 0, 0),
            ("a new one", Some(32_000), 1, 1),
            ("the same again", Some(32_000), 1, 1),
            ("another endpoint", Some(32_000), 2, 2),
            ("another port", Some(32_001), 2, 3),
            ("gone", None, 0, 4),
            ("gone for long", None, 0, 4),
        ] {
            locals.put(&web, part(port, endpoints, &[]));
            assert_eq!(
                (locals.revision(), locals.health_checks().len()),
                (revision, usize::from(port.is_some())),
                "{why}"
            );
        }
    }

    #[test]
    fn services_without_local_endpoints_are_counted_by_policy_and_family() {
        let mut locals = Locals::default();
        let [web, db] = ["web", "db"].map(|name| ObjectName::new("default", name));
        let (inside, outside) = ((Traffic::Internal, Family::Ipv4), (Traffic::External, Family::Ipv6));
        let counts = |locals: &Locals| [inside, outside].map(|(traffic, family)| locals.unserved(traffic, family));
        for (service, unserved, wanted) in [
            (&web, &[inside, outside][..], [1, 1]),
            (&db, &[inside], [2, 1]),
            (&db, &[inside], [2, 1]),
            (&web, &[outside], [1, 1]),
            (&db, &[], [0, 1]),
            (&web, &[], [0, 0]),
        ] {
            locals.put(service, part(None, 0, unserved));
            assert_eq!(counts(&locals), wanted);
        }
    }
}
