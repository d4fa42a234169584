//! Answers, with the headers that Go's programs give them.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use http_body_util::Full;

/// What a handler gives back.
pub type Answer = Response<Full<Bytes>>;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// Plain text.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    with_header(answer(status, TEXT, body), X_CONTENT_TYPE_OPTIONS, NOSNIFF)
}

/// JSON.
pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    with_header(answer(status, JSON, body), X_CONTENT_TYPE_OPTIONS, NOSNIFF)
}

/// Why there is no answer, as an object with `error`.
pub fn error(status: StatusCode, message: &str) -> Answer {
    json(status, serde_json::json!({ "error": message }).to_string())
}

/// There is no such page.
pub fn not_found() -> Answer {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// 200 or 503, as health is asked for.
pub fn health(is_good: bool) -> StatusCode {
    if is_good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// A body of some other media type.
pub fn answer(status: StatusCode, media_type: HeaderValue, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    with_header(answer, CONTENT_TYPE, media_type)
}

/// The same answer with one more header.
pub fn with_header(mut answer: Answer, name: HeaderName, value: HeaderValue) -> Answer {
    answer.headers_mut().insert(name, value);
    answer
}
