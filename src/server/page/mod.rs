//! The page for people at `/` of the metrics server: what the node does now.
//!
//! The reconciler says it ([`Overview`]), if it can soon; health and latencies are known without it. `view` makes HTML of
//! it, which needs no script and loads nothing.

mod html;
mod view;

use super::answer::{self, Answer};
use super::questions::Ask;
use crate::inspect::{self, Overview, Question};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{Request, StatusCode};
use std::fmt;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout};
pub(super) use view::Known;
use view::View;

/// How long the page waits for the reconciler.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two questions, whoever asks: what the page costs the reconciler has a limit.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest text that is looked for, in characters.
const LONGEST_TEXT: usize = 100;

/// Nothing may be loaded or run and nobody may put the page into a frame; the hash is that of `style.css`.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'sha256-Jx/1pQUImfjwmPqyQ+0Cq9ICjtusUbrniQ7Fs/GO+YE='; form-action 'self'; \
     base-uri 'none'; frame-ancestors 'none'",
);

/// What the page says besides what is known without it.
pub struct Page {
    node: String,
    reason: String,
    ask: Ask,
    /// When the reconciler may be asked again.
    next: Mutex<Instant>,
}

impl Page {
    /// The page of a node, which balances as it does for a reason, half a sentence, and whose reconciler is asked.
    pub fn new(node: String, reason: String, ask: Ask) -> Self {
        Self { node, reason, ask, next: Mutex::new(Instant::now()) }
    }

    /// The page with what `?q=` looks for. What is `known` is asked last, so that it is as of the answer.
    pub(super) async fn answer(&self, request: &Request<Bytes>, known: impl FnOnce() -> Known) -> Answer {
        let text = looked_for(request.uri().query().unwrap_or_default());
        let overview = self.overview(text.clone()).await;
        let view =
            View { node: &self.node, known: known(), reason: &self.reason, overview: overview.as_deref(), text: &text };
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        [
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ]
        .into_iter()
        .fold(answer::answer(StatusCode::OK, html, view.html()), |answer, (name, value)| {
            answer::with_header(answer, name, value)
        })
    }

    /// None if the reconciler is busy for longer than a person waits.
    async fn overview(&self, text: String) -> Option<Box<Overview>> {
        let asked = async {
            let mut next = self.next.lock().await;
            sleep_until(*next).await;
            let answer = (self.ask)(Question::Overview(text)).await;
            *next = Instant::now() + PAUSE;
            answer
        };
        match timeout(PATIENCE, asked).await {
            Ok(Ok(inspect::Answer::Overview(overview))) => Some(overview),
            _ => None,
        }
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("node", &self.node).field("reason", &self.reason).finish_non_exhaustive()
    }
}

fn looked_for(query: &str) -> String {
    let text = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "q");
    text.map(|(_, text)| text.trim().chars().take(LONGEST_TEXT).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_for_is_in_the_query() {
        for (query, text) in [
            ("", ""),
            ("q=", ""),
            ("q=shop%2Fweb", "shop/web"),
            ("a=1&q=+%5Bfd00%3A%3A1%5D%3A80+&q=other", "[fd00::1]:80"),
            ("q=%ff%00%", "\u{fffd}\0%"),
            ("Q=web", ""),
        ] {
            assert_eq!(looked_for(query), text, "{query}");
        }
        assert_eq!(looked_for(&format!("q={}", "é".repeat(1000))).chars().count(), LONGEST_TEXT);
    }
}
