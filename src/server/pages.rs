//! The server for everybody who looks: metrics, the configuration, what this process is, and what it does now.

use super::answer::{self, Answer};
use super::clock::Clock;
use super::http::Handler;
use super::page::{Known, Page};
use super::zpages;
use crate::health::{SharedHealth, Time};
use crate::metrics::{self, Metrics};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::HeaderValue;
use http::{Method, Request, StatusCode};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Changes the verbosity of the log to a level of `-v`.
pub type SetVerbosity = Arc<dyn Fn(i32) + Send + Sync>;

/// Tells what goes through Services, in the format of metrics; none if it cannot be had now.
pub type Traffic = Arc<dyn Fn() -> BoxFuture<'static, Option<Arc<String>>> + Send + Sync>;

/// What the pages are made of.
pub struct MetricsPages {
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// For `/metrics` too, if it is asked for.
    pub traffic: Option<Traffic>,
    /// Knows how long changes have been waiting.
    pub health: SharedHealth,
    /// The one that `health` is told by.
    pub clock: Clock,
    /// When the process started.
    pub started: Time,
    /// The word on `/proxyMode`.
    pub mode: &'static str,
    /// The configuration in force, as JSON, for `/configz`.
    pub configz: Arc<dyn Fn() -> String + Send + Sync>,
    /// Answers `/`.
    pub page: Page,
    /// Flags with their values, for `/flagz`.
    pub flags: BTreeMap<String, String>,
    /// Given if `/debug/flags/v` may be used (`enableProfiling`).
    pub set_verbosity: Option<SetVerbosity>,
}

impl MetricsPages {
    /// Answers for these pages.
    pub fn handler(self) -> Handler {
        let pages = Arc::new(self);
        Arc::new(move |request| {
            let pages = Arc::clone(&pages);
            Box::pin(async move {
                match request.uri().path() {
                    "/" => pages.page.answer(&request, || pages.known()).await,
                    "/metrics" => pages.metrics().await,
                    _ => pages.answer(&request),
                }
            })
        })
    }

    fn known(&self) -> Known {
        let now = (self.clock)();
        Known {
            mode: self.mode,
            up: now.monotonic.saturating_sub(self.started.monotonic),
            health: self.health.report(now),
            queue_age: self.health.queue_age(now),
            latencies: self.metrics.latencies(),
        }
    }

    /// What goes through Services comes first in time, since the other metrics tell how that went.
    async fn metrics(&self) -> Answer {
        let traffic = match &self.traffic {
            Some(traffic) => traffic().await,
            None => None,
        };
        let text = self.metrics.render(self.health.queue_age((self.clock)()));
        exposition(text.map(|text| text + traffic.as_deref().map_or("", String::as_str)))
    }

    fn answer(&self, request: &Request<Bytes>) -> Answer {
        match request.uri().path() {
            "/metrics/slis" => exposition(self.metrics.render_slis()),
            "/healthz" | "/healthz/ping" => {
                self.metrics.pinged();
                answer::text(StatusCode::OK, "ok")
            }
            "/proxyMode" => answer::text(StatusCode::OK, self.mode),
            "/configz" => answer::json(StatusCode::OK, (self.configz)()),
            "/flagz" => zpages::answer(request, || zpages::flagz(&self.flags)),
            "/statusz" => zpages::answer(request, || zpages::statusz(self.started, (self.clock)())),
            "/debug/flags/v" => match &self.set_verbosity {
                Some(set) => verbosity(request, set),
                None => answer::not_found(),
            },
            _ => answer::not_found(),
        }
    }
}

impl fmt::Debug for MetricsPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsPages").field("mode", &self.mode).field("flags", &self.flags).finish_non_exhaustive()
    }
}

fn exposition(text: Result<String, metrics::Error>) -> Answer {
    match text {
        Ok(text) => answer::answer(StatusCode::OK, HeaderValue::from_static(metrics::CONTENT_TYPE), text),
        Err(error) => answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn verbosity(request: &Request<Bytes>, set: &SetVerbosity) -> Answer {
    if request.method() != Method::PUT {
        // Not 405, as one should think: clients know Kubernetes' answer.
        return answer::text(StatusCode::NOT_ACCEPTABLE, "only PUT is understood here\n");
    }
    let body = String::from_utf8_lossy(request.body());
    match body.trim().parse() {
        Ok(level) => {
            set(level);
            answer::text(StatusCode::OK, format!("the log's verbosity is {level} now\n"))
        }
        Err(error) => answer::text(StatusCode::BAD_REQUEST, format!("{body:?} is no verbosity: {error}\n")),
    }
}
