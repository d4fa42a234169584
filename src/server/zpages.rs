//! The z-pages of Kubernetes' components, `/flagz` and `/statusz`, in their plain-text form.
//!
//! Each begins with a line of its name and a warning to programs. The structured form, which a client asks for with
//! `Accept: application/json;v=...;g=config.k8s.io;as=...`, is not offered: such a request gets 406.

use super::answer::{self, Answer};
use crate::health::{Time, timestamp};
use bytes::Bytes;
use http::header::ACCEPT;
use http::{Request, StatusCode};
use std::collections::BTreeMap;

/// Second line of each.
const WARNING: &str = "Warning: this is for people to read; its form may change at any time.";

/// What else is worth a look, on the same server.
const PATHS: &str = "/configz /flagz /healthz /metrics /statusz";

/// The page, if the client takes plain text.
pub fn answer(request: &Request<Bytes>, page: impl Fn() -> String) -> Answer {
    if takes_text(request) {
        answer::text(StatusCode::OK, page())
    } else {
        answer::text(StatusCode::NOT_ACCEPTABLE, "only text/plain is offered here\n")
    }
}

/// All flags with their values.
pub fn flagz(flags: &BTreeMap<String, String>) -> String {
    let flags: String = flags.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    format!("\nipvsd flags\n{WARNING}\n\n{flags}")
}

/// What this process is, and since when.
pub fn statusz(started: Time, now: Time) -> String {
    let up = now.monotonic.saturating_sub(started.monotonic).as_secs();
    let (hours, minutes, seconds) = (up / 3600, up / 60 % 60, up % 60);
    let version = env!("CARGO_PKG_VERSION");
    let since = started.since_unix_epoch;
    format!(
        "\nipvsd statusz\n{WARNING}\n\nStarted: {}\nUp: {hours} hr {minutes:02} min {seconds:02} sec\n\
         Binary version: {version}\nPaths: {PATHS}\n",
        timestamp::unix_date(since)
    )
}

fn takes_text(request: &Request<Bytes>) -> bool {
    let values = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges = values.flat_map(|value| value.split(',')).map(|range| range.split(';').next().unwrap_or_default());
    let mut types = ranges.map(str::trim).filter(|name| !name.is_empty()).peekable();
    // Who says nothing takes everything.
    types.peek().is_none()
        || types.any(|name| ["text/plain", "text/*", "*/*"].iter().any(|text| name.eq_ignore_ascii_case(text)))
}
