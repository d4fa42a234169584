//! What the endpoints on this node mean beyond its virtual servers: what load balancers are told that ask for them, and
//! which Services want for them.

use crate::model::Family;
use crate::state::ObjectName;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What a load balancer is told that asks at a Service's `healthCheckNodePort`, in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Where it asks, by TCP.
    pub port: u16,
    /// How many addresses of ready endpoints this node has, over all ports of the Service. None means that this node
    /// should get no traffic.
    pub local_endpoints: usize,
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
    /// Only of a Service that has a port for it; one for each family in which it is proxied.
    pub health_checks: BTreeMap<Family, HealthCheck>,
    /// For which traffic the policy is `Local`, an endpoint would be there, and this node has none.
    pub unserved: BTreeSet<(Traffic, Family)>,
}

/// What concerns all of them, kept up to date Service by Service.
#[derive(Clone, Debug, Default)]
pub struct Locals {
    /// The health checks that are answered on IPv4.
    ipv4: BTreeMap<ObjectName, HealthCheck>,
    /// The same for IPv6.
    ipv6: BTreeMap<ObjectName, HealthCheck>,
    /// How often a health check changed.
    revision: u64,
    /// The Services that have no local endpoint where they need one.
    unserved: HashMap<(Traffic, Family), HashSet<ObjectName>>,
}

impl Locals {
    /// Takes in what concerns a Service now; nothing concerns one that is gone.
    pub fn put(&mut self, service: &ObjectName, part: LocalPart) {
        for (family, known) in [(Family::Ipv4, &mut self.ipv4), (Family::Ipv6, &mut self.ipv6)] {
            let check = part.health_checks.get(&family);
            if known.get(service) != check {
                self.revision += 1;
                match check {
                    Some(check) => drop(known.insert(service.clone(), *check)),
                    None => drop(known.remove(service)),
                }
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

    /// The answers to load balancers in a family, by Service.
    pub fn health_checks(&self, family: Family) -> &BTreeMap<ObjectName, HealthCheck> {
        match family {
            Family::Ipv4 => &self.ipv4,
            Family::Ipv6 => &self.ipv6,
        }
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
        let check = |port| (Family::Ipv4, HealthCheck { port, local_endpoints: endpoints });
        LocalPart { health_checks: port.map(check).into_iter().collect(), unserved: unserved.iter().copied().collect() }
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
            let answered =
                locals.health_checks(Family::Ipv4).get(&web).map(|check| (check.port, check.local_endpoints));
            assert_eq!((locals.revision(), answered), (revision, port.map(|port| (port, endpoints))), "{why}");
            assert!(locals.health_checks(Family::Ipv6).is_empty());
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
