//! The server for load balancers and kubelets: `/healthz` and `/livez`.

use super::answer;
use super::clock::Clock;
use super::http::{Handler, at_once};
use crate::health::SharedHealth;
use crate::metrics::Metrics;
use std::sync::Arc;

/// Answers `/healthz` and `/livez`, whatever the method, and counts the answers.
pub fn healthz(health: SharedHealth, metrics: Arc<Metrics>, clock: Clock) -> Handler {
    at_once(move |request| {
        let report = || health.report(clock());
        let (told, count): (_, fn(&Metrics, u16)) = match request.uri().path() {
            "/healthz" => (report().healthz(), Metrics::healthz),
            "/livez" => (report().livez(), Metrics::livez),
            _ => return answer::not_found(),
        };
        let status = answer::health(told.is_good);
        count(&metrics, status.as_u16());
        answer::json(status, told.body)
    })
}
