//! Draining: a destination that goes keeps its connections until they end or a deadline passes.
//!
//! A departing destination stays at weight 0: it takes no new connections. It is removed when it has none left, or
//! at the deadline, when `expire_nodest_conn` ends what remains. UDP has no connections to wait for and goes at
//! once. A virtual server nobody wants any more goes with its last destination; until then it refuses new
//! connections, as one without endpoints does. What is wanted again is simply no longer departing.
//!
//! After a restart the departing are found in the kernel, like everything else; their deadline starts anew.

use crate::model::{DestinationKey, Destinations, Protocol, VirtualServer, VirtualServerKey};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A point in time: how long after an epoch of the caller's choosing, on a clock that never goes back.
pub type Moment = Duration;

/// The connections of destinations that have any, as the kernel counted them just now.
pub type Connections = BTreeMap<(VirtualServerKey, DestinationKey), u32>;

/// The departing destinations.
#[derive(Debug, Default)]
pub struct Drains {
    /// When each gives up waiting. Written by [`Drains::keep`] alone.
    deadlines: BTreeMap<(VirtualServerKey, DestinationKey), Moment>,
}

/// The circumstances of one decision.
#[derive(Clone, Copy, Debug)]
pub struct Occasion<'a> {
    /// When it is taken.
    pub now: Moment,
    /// How long a destination that starts departing now may take.
    pub timeout: Duration,
    /// The count that `found` was read with; none if nothing was counted since `found` was last changed.
    pub counted: Option<&'a Connections>,
}

impl Drains {
    /// What should stand in the kernel for `key`, given what is wanted and what is found: the wanted, and the
    /// departing at weight 0.
    pub fn keep<'w>(
        &mut self,
        key: VirtualServerKey,
        (wanted, found): (Option<&'w VirtualServer>, Option<&VirtualServer>),
        occasion: Occasion<'_>,
    ) -> Option<Cow<'w, VirtualServer>> {
        let mut departing = Destinations::default();
        for (destination, spec) in found.map(|found| &found.destinations).into_iter().flatten() {
            let is_wanted = wanted.is_some_and(|wanted| wanted.destinations.contains_key(destination));
            let idle = spec.weight == 0 && occasion.counted.is_some_and(|c| !c.contains_key(&(key, *destination)));
            if !is_wanted && !idle && self.waits((key, *destination), occasion) {
                departing.insert(*destination, spec.drained());
            }
        }
        self.forget_others(key, &departing);
        match (wanted, found) {
            (Some(wanted), _) if departing.is_empty() => Some(Cow::Borrowed(wanted)),
            (Some(wanted), _) => {
                let destinations = wanted.destinations.iter().map(|(key, spec)| (*key, *spec)).chain(departing);
                Some(Cow::Owned(VirtualServer { spec: wanted.spec, destinations: destinations.collect() }))
            }
            (None, Some(found)) if !departing.is_empty() => {
                Some(Cow::Owned(VirtualServer { spec: found.spec.as_ours(), destinations: departing }))
            }
            (None, _) => None,
        }
    }

    /// The virtual servers with departing destinations.
    pub fn virtual_servers(&self) -> BTreeSet<VirtualServerKey> {
        self.deadlines.keys().map(|(key, _)| *key).collect()
    }

    /// How many destinations are departing.
    pub fn len(&self) -> usize {
        self.deadlines.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.deadlines.is_empty()
    }

    /// Whether a departing destination's time is not over; it starts when it is first seen departing.
    fn waits(&mut self, which: (VirtualServerKey, DestinationKey), occasion: Occasion<'_>) -> bool {
        if which.0.protocol() == Some(Protocol::Udp) {
            return false;
        }
        let deadline = *self.deadlines.entry(which).or_insert(occasion.now.saturating_add(occasion.timeout));
        occasion.now < deadline
    }

    fn forget_others(&mut self, key: VirtualServerKey, departing: &Destinations) {
        let of_key: Vec<_> = self.of(key).filter(|destination| !departing.contains_key(destination)).collect();
        for destination in of_key {
            self.deadlines.remove(&(key, destination));
        }
    }

    fn of(&self, key: VirtualServerKey) -> impl Iterator<Item = DestinationKey> {
        let first = DestinationKey { address: std::net::Ipv4Addr::UNSPECIFIED.into(), port: 0 };
        self.deadlines.range((key, first)..).take_while(move |((k, _), _)| *k == key).map(|((_, d), _)| *d)
    }
}
