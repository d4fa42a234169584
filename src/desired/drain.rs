//! Draining: a destination that goes keeps its connections until they end or a deadline passes.
//!
//! A departing destination stays at weight 0: it takes no new connections. It is removed when it has none left, or
//! at the deadline, when `expire_nodest_conn` ends what remains. UDP has no connections to wait for and goes at
//! once. What is wanted again is simply no longer departing.
//!
//! A virtual server nobody wants any more goes with its last destination; until then it refuses new connections, as one
//! without endpoints does. If that cut connections it lingers: IPVS lets their next packets pass, and only while their
//! address is this node's does the kernel answer these with a reset.
//!
//! After a restart the departing are found in the kernel, like everything else; their time starts anew.

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
    /// Since when each has been departing. Written by [`Drains::keep`] alone.
    departing: BTreeMap<(VirtualServerKey, DestinationKey), Moment>,
    /// The virtual servers nobody wants whose connections were cut, and until when they stay. Written there too.
    lingering: BTreeMap<VirtualServerKey, Moment>,
}

/// The circumstances of one decision.
#[derive(Clone, Copy, Debug)]
pub struct Occasion<'a> {
    /// When it is taken.
    pub now: Moment,
    /// How long a departing destination of the virtual server may take in all.
    pub timeout: Duration,
    /// How long a virtual server nobody wants stays after connections were cut.
    pub linger: Duration,
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
        let (mut departing, mut has_cut) = (Destinations::default(), false);
        for (destination, spec) in found.map(|found| &found.destinations).into_iter().flatten() {
            let is_wanted = wanted.is_some_and(|wanted| wanted.destinations.contains_key(destination));
            let idle = spec.weight == 0 && occasion.counted.is_some_and(|c| !c.contains_key(&(key, *destination)));
            if is_wanted || idle || key.protocol() == Some(Protocol::Udp) {
                continue;
            }
            if self.waits((key, *destination), occasion) {
                departing.insert(*destination, spec.drained());
            } else {
                has_cut = true;
            }
        }
        self.forget_others(key, &departing);
        let Some(leftover) = found.filter(|_| wanted.is_none()) else {
            self.lingering.remove(&key);
            return wanted.map(|wanted| with_departing(wanted, departing));
        };
        if has_cut {
            self.lingering.insert(key, occasion.now.saturating_add(occasion.linger));
        }
        let stays = self.lingers(key, occasion.now) || !departing.is_empty();
        stays.then(|| Cow::Owned(VirtualServer { spec: leftover.spec.as_ours(), destinations: departing }))
    }

    /// The virtual servers that have departing destinations or linger, each once, in order.
    pub fn virtual_servers(&self) -> BTreeSet<VirtualServerKey> {
        self.departing.keys().map(|(key, _)| *key).chain(self.lingering.keys().copied()).collect()
    }

    /// The departing destinations, each with since when it has been departing.
    pub fn departing(&self) -> impl Iterator<Item = (VirtualServerKey, DestinationKey, Moment)> {
        self.departing.iter().map(|((key, destination), since)| (*key, *destination, *since))
    }

    /// The virtual servers that stay because connections were cut.
    pub fn lingering_servers(&self) -> impl Iterator<Item = VirtualServerKey> {
        self.lingering.keys().copied()
    }

    /// How many destinations are departing.
    pub fn len(&self) -> usize {
        self.departing.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.departing.is_empty()
    }

    /// How many virtual servers linger.
    pub fn lingering(&self) -> usize {
        self.lingering.len()
    }

    /// Whether a departing destination's time is not over; it starts when it is first seen departing.
    fn waits(&mut self, which: (VirtualServerKey, DestinationKey), occasion: Occasion<'_>) -> bool {
        let since = *self.departing.entry(which).or_insert(occasion.now);
        occasion.now < since.saturating_add(occasion.timeout)
    }

    /// Whether a virtual server nobody wants stays for those whose connections were cut.
    fn lingers(&mut self, key: VirtualServerKey, now: Moment) -> bool {
        let lingers = self.lingering.get(&key).is_some_and(|end| now < *end);
        if !lingers {
            self.lingering.remove(&key);
        }
        lingers
    }

    fn forget_others(&mut self, key: VirtualServerKey, departing: &Destinations) {
        let of_key: Vec<_> = self.of(key).filter(|destination| !departing.contains_key(destination)).collect();
        for destination in of_key {
            self.departing.remove(&(key, destination));
        }
    }

    fn of(&self, key: VirtualServerKey) -> impl Iterator<Item = DestinationKey> {
        let first = DestinationKey { address: std::net::Ipv4Addr::UNSPECIFIED.into(), port: 0 };
        self.departing.range((key, first)..).take_while(move |((k, _), _)| *k == key).map(|((_, d), _)| *d)
    }
}

/// What is wanted, with the departing.
fn with_departing(wanted: &VirtualServer, departing: Destinations) -> Cow<'_, VirtualServer> {
    if departing.is_empty() {
        return Cow::Borrowed(wanted);
    }
    let destinations = wanted.destinations.iter().map(|(key, spec)| (*key, *spec)).chain(departing).collect();
    Cow::Owned(VirtualServer { spec: wanted.spec, destinations })
}
