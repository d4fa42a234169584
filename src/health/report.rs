//! What is told about the proxy's health: the answers on `/healthz` and `/livez`, field for field kube-proxy's.

use super::Time;
use super::timestamp::rfc3339;
use crate::model::Family;
use std::collections::BTreeMap;

/// The state of health at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The moment.
    pub now: Time,
    /// Whether load balancers may send to this node.
    pub node_eligible: bool,
    /// Each family that is served.
    pub families: BTreeMap<Family, FamilyReport>,
}

/// One family's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyReport {
    /// When it was last up to date.
    pub last_updated: Time,
    /// Nothing of it has been waiting for too long.
    pub is_healthy: bool,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200 if so, else 503.
    pub is_good: bool,
    /// JSON, without a newline at the end.
    pub body: String,
}

impl Report {
    /// Whether every family is healthy. What the node is eligible for does not count.
    pub fn is_healthy(&self) -> bool {
        self.families.values().all(|family| family.is_healthy)
    }

    /// The answer for load balancers: good if healthy and the node is eligible.
    pub fn healthz(&self) -> Answer {
        let is_good = self.is_healthy() && self.node_eligible;
        let eligible = format!(r#""nodeEligible":{},"#, self.node_eligible);
        Answer { is_good, body: self.body(is_good, &eligible) }
    }

    /// The answer for whoever restarts a proxy that hangs: good if healthy.
    pub fn livez(&self) -> Answer {
        let is_good = self.is_healthy();
        Answer { is_good, body: self.body(is_good, "") }
    }

    fn body(&self, is_good: bool, eligible: &str) -> String {
        let latest = self.families.values().map(|family| family.last_updated.since_unix_epoch).max();
        // Before kube-proxy counted what waits, the time of the last sync was all it told, and a good answer has to
        // go on looking recent.
        let now = self.now.since_unix_epoch;
        let last_updated = if is_good { now } else { latest.unwrap_or(now) };
        let mut body = format!(
            r#"{{"lastUpdated":"{}","currentTime":"{}",{eligible}"healthy":{}"#,
            rfc3339(last_updated),
            rfc3339(now),
            self.is_healthy(),
        );
        body += &self.status();
        body + "}"
    }

    /// The member `status`, which is left out where no family is served.
    fn status(&self) -> String {
        let mut status = String::new();
        for (family, FamilyReport { last_updated, is_healthy }) in &self.families {
            let separator = if status.is_empty() { r#","status":{"# } else { "," };
            let last_updated = rfc3339(last_updated.since_unix_epoch);
            let name = family.name();
            status += &format!(r#"{separator}"{name}":{{"lastUpdated":"{last_updated}","healthy":{is_healthy}}}"#);
        }
        if !status.is_empty() {
            status.push('}');
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// 2026-11-25T10:00:00Z.
    const TEN: u64 = 1_795_600_800;

    fn at(seconds: u64, nanoseconds: u32) -> Time {
        Time { monotonic: Duration::ZERO, since_unix_epoch: Duration::new(TEN + seconds, nanoseconds) }
    }

    fn report(node_eligible: bool, ipv4: bool) -> Report {
        let families = BTreeMap::from([
            (Family::Ipv4, FamilyReport { last_updated: at(1, 500_000_000), is_healthy: ipv4 }),
            (Family::Ipv6, FamilyReport { last_updated: at(2, 120), is_healthy: true }),
        ]);
        Report { now: at(60, 0), node_eligible, families }
    }

    #[test]
    fn the_answers_are_kube_proxys_byte_for_byte() {
        let status = |ipv4| {
            format!(
                r#""status":{{"IPv4":{{"lastUpdated":"2026-11-25T10:00:01.5Z","healthy":{ipv4}}},"IPv6":{{"lastUpdated":"2026-11-25T10:00:02.00000012Z","healthy":true}}}}"#
            )
        };
        let now = r#""currentTime":"2026-11-25T10:01:00Z""#;
        let recent = r#""lastUpdated":"2026-11-25T10:01:00Z""#;
        let old = r#""lastUpdated":"2026-11-25T10:00:02.00000012Z""#;
        for (eligible, ipv4, healthz, livez) in [
            (true, true, recent, recent),
            (true, false, old, old),
            (false, true, old, recent),
            (false, false, old, old),
        ] {
            let report = report(eligible, ipv4);
            let rest = status(ipv4);
            let wanted = format!(r#"{{{healthz},{now},"nodeEligible":{eligible},"healthy":{ipv4},{rest}}}"#);
            assert_eq!(report.healthz(), Answer { is_good: eligible && ipv4, body: wanted });
            let wanted = format!(r#"{{{livez},{now},"healthy":{ipv4},{rest}}}"#);
            assert_eq!(report.livez(), Answer { is_good: ipv4, body: wanted });
        }
    }

    #[test]
    fn without_a_family_there_is_no_status() {
        let report = Report { families: BTreeMap::new(), ..report(true, true) };
        let wanted =
            r#"{"lastUpdated":"2026-11-25T10:01:00Z","currentTime":"2026-11-25T10:01:00Z","healthy":true}"#.to_owned();
        assert_eq!(report.livez(), Answer { is_good: true, body: wanted });
    }

    #[test]
    fn the_answers_are_json() {
        for body in [report(true, true).healthz().body, report(false, false).livez().body] {
            serde_json::from_str::<serde_json::Value>(&body).unwrap();
        }
    }
}
