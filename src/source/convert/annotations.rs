//! ipvsd's own annotations: how a Service's connections are scheduled, how long they outlast their endpoints, and how
//! heavy endpoints are.

use super::address;
use super::raw::Strings;
use super::{Rejected, Rules};
use crate::model::duration::{self, InvalidDuration};
use crate::model::{SchedulerFlags, SchedulerName};
use crate::state::{Endpoint, Scheduling};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

const PREFIX: &str = "ipvsd.io/";
/// On a Service: the scheduler's name.
const SCHEDULER: &str = "ipvsd.io/scheduler";
/// On a Service: what `sh` and `mh` do besides hashing the address.
const SCHEDULER_FLAGS: &str = "ipvsd.io/scheduler-flags";
/// On a Service: how long a departing endpoint may keep its connections; as the flag `--drain-timeout` for all.
const DRAIN_TIMEOUT: &str = "ipvsd.io/drain-timeout";
/// On an EndpointSlice: the endpoints' shares.
const WEIGHTS: &str = "ipvsd.io/weights";

/// Whether a Service has any annotation of ours that means nothing.
pub(super) fn known_on_service(annotations: &Strings) -> Result<(), Rejected> {
    only_known(annotations, &[SCHEDULER, SCHEDULER_FLAGS, DRAIN_TIMEOUT])
}

/// The Service's choice of how long its departing endpoints may keep their connections, if it makes one.
pub(super) fn drain_timeout(annotations: &Strings) -> Result<Option<Duration>, Rejected> {
    let timeout = text(annotations, DRAIN_TIMEOUT).map(duration::parse).transpose();
    timeout.map_err(|error: InvalidDuration| rejected(DRAIN_TIMEOUT, error.to_string()))
}

/// The Service's choice of a scheduler, if it makes one.
pub(super) fn scheduling(annotations: &Strings) -> Result<Option<Scheduling>, Rejected> {
    let flags = text(annotations, SCHEDULER_FLAGS);
    let Some(name) = text(annotations, SCHEDULER) else {
        return match flags {
            None => Ok(None),
            Some(_) => Err(rejected(SCHEDULER_FLAGS, format!("needs {SCHEDULER} to be sh or mh"))),
        };
    };
    let scheduler: SchedulerName = name.parse().map_err(|error| rejected(SCHEDULER, format!("{error}")))?;
    match flags {
        None => Ok(Some(Scheduling::with_usual_flags(scheduler))),
        Some(text) => Ok(Some(Scheduling { scheduler, flags: scheduler_flags(scheduler, text)? })),
    }
}

fn scheduler_flags(scheduler: SchedulerName, text: &str) -> Result<SchedulerFlags, Rejected> {
    let mut flags = SchedulerFlags::default();
    for word in words(text) {
        let flag = match word {
            "port" => SchedulerFlags::PORT,
            "fallback" => SchedulerFlags::FALLBACK,
            _ => return Err(rejected(SCHEDULER_FLAGS, format!("{word:?} is not a flag: port and fallback are"))),
        };
        flags = flags.with(flag);
    }
    if flags != SchedulerFlags::default() && !scheduler.takes_hash_flags() {
        return Err(rejected(SCHEDULER_FLAGS, format!("the scheduler {scheduler} has no flags: sh and mh have")));
    }
    Ok(flags)
}

/// The endpoints' shares as an EndpointSlice's annotation gives them.
pub(super) struct Weights {
    named: BTreeMap<IpAddr, u16>,
    others: u16,
}

impl Default for Weights {
    fn default() -> Self {
        Self { named: BTreeMap::new(), others: 1 }
    }
}

impl Weights {
    /// Reads `ADDRESS=WEIGHT` and `*=WEIGHT`, separated by commas.
    pub(super) fn of(annotations: &Strings) -> Result<Self, Rejected> {
        only_known(annotations, &[WEIGHTS])?;
        let mut weights = Self::default();
        let mut seen = BTreeSet::new();
        for word in text(annotations, WEIGHTS).into_iter().flat_map(words) {
            let (name, weight) = word
                .split_once('=')
                .ok_or_else(|| rejected(WEIGHTS, format!("{word:?} is not of the form ADDRESS=WEIGHT or *=WEIGHT")))?;
            let (name, weight) = (name.trim(), weight_of(weight.trim())?);
            let address = match name {
                "*" => None,
                _ => Some(address::address(name).map_err(|why| rejected(WEIGHTS, why.to_string()))?),
            };
            if !seen.insert(address) {
                return Err(rejected(WEIGHTS, format!("{name} has two weights")));
            }
            match address {
                Some(address) => _ = weights.named.insert(address, weight),
                None => weights.others = weight,
            }
        }
        Ok(weights)
    }

    /// The share of one endpoint.
    pub(super) fn weight(&self, address: IpAddr) -> u16 {
        self.named.get(&address).copied().unwrap_or(self.others)
    }

    /// In a manifest a weight for nobody is a slip. Through the API it is not: a controller writes the endpoints,
    /// a person the annotation, and pods come and go.
    pub(super) fn check(&self, endpoints: &[Endpoint], rules: Rules) -> Result<(), Rejected> {
        if rules == Rules::Api || self.named.is_empty() {
            return Ok(());
        }
        let present: BTreeSet<IpAddr> = endpoints.iter().map(|endpoint| endpoint.address).collect();
        match self.named.keys().find(|address| !present.contains(address)) {
            Some(address) => Err(rejected(WEIGHTS, format!("{address} is not the address of an endpoint here"))),
            None => Ok(()),
        }
    }
}

/// Weights are `atomic_t` in the kernel, but every tool (ipvsadm, keepalived) stops at 65535.
fn weight_of(text: &str) -> Result<u16, Rejected> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let weight = digits.then(|| text.parse().ok()).flatten();
    weight.ok_or_else(|| rejected(WEIGHTS, format!("{text:?} is not a weight: 0 to 65535 are")))
}

/// A misspelt annotation would otherwise do nothing and say nothing.
fn only_known(annotations: &Strings, known: &[&str]) -> Result<(), Rejected> {
    match annotations.keys().find(|key| key.starts_with(PREFIX) && !known.contains(&key.as_str())) {
        Some(key) => Err(rejected(key, format!("unknown annotation: here ipvsd knows {}", enumeration(known)))),
        None => Ok(()),
    }
}

/// `a, b and c`.
fn enumeration(words: &[&str]) -> String {
    match words {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => words.concat(),
    }
}

fn text<'a>(annotations: &'a Strings, key: &str) -> Option<&'a str> {
    annotations.get(key).map(|value| value.as_deref().unwrap_or_default().trim())
}

/// The parts of a comma list; an empty text has none.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(move |_| !text.is_empty())
}

fn rejected(annotation: &str, message: String) -> Rejected {
    Rejected::new(format!("metadata.annotations[{annotation}]"), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> Strings {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), Some((*value).to_owned()))).collect()
    }

    #[test]
    fn schedulers_and_their_flags() {
        let (port, fallback) = (SchedulerFlags::PORT, SchedulerFlags::FALLBACK);
        for (scheduler, flags, wanted) in [
            ("rr", None, SchedulerFlags::default()),
            (" wrr ", None, SchedulerFlags::default()),
            ("rr", Some(""), SchedulerFlags::default()),
            ("sh", None, SchedulerFlags::default()),
            ("mh", None, port),
            ("mh", Some(""), SchedulerFlags::default()),
            ("sh", Some("fallback"), fallback),
            ("mh", Some("port, fallback"), port.with(fallback)),
            ("my_sched", None, SchedulerFlags::default()),
        ] {
            let mut pairs = vec![(SCHEDULER, scheduler)];
            pairs.extend(flags.map(|flags| (SCHEDULER_FLAGS, flags)));
            let found = scheduling(&annotations(&pairs)).unwrap().unwrap();
            assert_eq!((found.scheduler.as_str(), found.flags), (scheduler.trim(), wanted), "{pairs:?}");
        }
        assert_eq!(scheduling(&annotations(&[("example.com/scheduler", "x")])).unwrap(), None);
    }

    #[test]
    fn bad_schedulers_say_why() {
        let flags = "metadata.annotations[ipvsd.io/scheduler-flags]";
        for (pairs, field, message) in [
            (
                vec![(SCHEDULER, "Round Robin")],
                "metadata.annotations[ipvsd.io/scheduler]",
                "\"Round Robin\" is not a scheduler name: 1 to 15 characters of a-z, 0-9, _ and - are",
            ),
            (vec![(SCHEDULER_FLAGS, "port")], flags, "needs ipvsd.io/scheduler to be sh or mh"),
            (
                vec![(SCHEDULER, "rr"), (SCHEDULER_FLAGS, "port")],
                flags,
                "the scheduler rr has no flags: sh and mh have",
            ),
            (
                vec![(SCHEDULER, "mh"), (SCHEDULER_FLAGS, "port,,fallback")],
                flags,
                "\"\" is not a flag: port and fallback are",
            ),
        ] {
            assert_eq!(scheduling(&annotations(&pairs)).unwrap_err(), Rejected::new(field, message));
        }
    }

    #[test]
    fn a_misspelt_annotation_of_a_service_is_told() {
        assert_eq!(known_on_service(&annotations(&[(DRAIN_TIMEOUT, "x"), ("example.com/x", "y")])), Ok(()));
        let message = "unknown annotation: here ipvsd knows ipvsd.io/scheduler, ipvsd.io/scheduler-flags and \
                       ipvsd.io/drain-timeout";
        let wanted = Rejected::new("metadata.annotations[ipvsd.io/sheduler]", message);
        assert_eq!(known_on_service(&annotations(&[("ipvsd.io/sheduler", "mh")])), Err(wanted));
    }

    #[test]
    fn drain_timeouts_are_durations() {
        assert_eq!(drain_timeout(&annotations(&[])), Ok(None));
        for (text, seconds) in [("0", 0), ("0s", 0), (" 30s ", 30), ("1m30s", 90), ("24h", 86_400)] {
            let found = drain_timeout(&annotations(&[(DRAIN_TIMEOUT, text)])).unwrap();
            assert_eq!(found, Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "30", "off", "-1s", "1 m", "never"] {
            let message = format!("{text:?} is not a duration: write 30s, 1m30s, 250ms or 0");
            let wanted = Rejected::new("metadata.annotations[ipvsd.io/drain-timeout]", message);
            assert_eq!(drain_timeout(&annotations(&[(DRAIN_TIMEOUT, text)])), Err(wanted));
        }
    }

    #[test]
    fn weights_go_to_named_addresses_and_to_the_others() {
        for (text, of_one, of_two) in [
            ("", 1, 1),
            ("10.0.0.1=5", 5, 1),
            ("*=0, 010.0.0.1 = 65535", 65535, 0),
            ("10.0.0.1=2,10.0.0.2=3,*=9", 2, 3),
        ] {
            let weights = Weights::of(&annotations(&[(WEIGHTS, text)])).unwrap();
            let found = ["10.0.0.1", "10.0.0.2"].map(|address| weights.weight(address.parse().unwrap()));
            assert_eq!(found, [of_one, of_two], "{text}");
        }
    }

    #[test]
    fn bad_weights_say_why() {
        for (text, message) in [
            ("10.0.0.1", "\"10.0.0.1\" is not of the form ADDRESS=WEIGHT or *=WEIGHT"),
            ("10.0.0.1=1,", "\"\" is not of the form ADDRESS=WEIGHT or *=WEIGHT"),
            ("10.0.0.1=65536", "\"65536\" is not a weight: 0 to 65535 are"),
            ("10.0.0.1=", "\"\" is not a weight: 0 to 65535 are"),
            ("10.0.0.1=-1", "\"-1\" is not a weight: 0 to 65535 are"),
            ("10.0.0=1", "\"10.0.0\" is not an IP address"),
            ("*=1,*=2", "* has two weights"),
            ("10.0.0.1=1,10.0.0.01=1", "10.0.0.01 has two weights"),
        ] {
            let found = Weights::of(&annotations(&[(WEIGHTS, text)])).err().unwrap();
            assert_eq!(found, Rejected::new("metadata.annotations[ipvsd.io/weights]", message), "{text}");
        }
    }
}
