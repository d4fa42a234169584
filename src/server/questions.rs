//! The paths by which a daemon is asked, and its answers as JSON. docs/inspection.md has them for people.

use super::answer::{self, Answer as Response, error};
use super::http::Handler;
use super::log::LogFilter;
use crate::inspect::{Answer, Question, form};
use crate::model::VirtualServerKey;
use crate::state::ObjectName;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, StatusCode};
use std::sync::Arc;
use tokio::task::spawn_blocking;

/// Where the log is asked for its filter, and given another one.
pub const LOG: &str = "/v1/log";

/// Answers a question, or says why there is no answer.
pub type Ask = Arc<dyn Fn(Question) -> BoxFuture<'static, Result<Answer, Unanswered>> + Send + Sync>;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// There is no such Service.
    Unknown,
    /// The reconciler is in the middle of a pass, for long.
    Busy,
}

/// Answers for these paths; what is logged can be changed as well.
pub fn handler(ask: Ask, log: LogFilter) -> Handler {
    Arc::new(move |request| {
        let (ask, log) = (Arc::clone(&ask), log.clone());
        Box::pin(
            async move { if request.uri().path() == LOG { log.answer(&request) } else { respond(request, ask).await } },
        )
    })
}

async fn respond(request: Request<Bytes>, ask: Ask) -> Response {
    if request.method() != Method::GET {
        return error(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered");
    }
    let Some(question) = question(request.uri().path()) else {
        return error(StatusCode::NOT_FOUND, "there is no such question");
    };
    match ask(question).await {
        Ok(answer) => in_json(answer).await,
        Err(Unanswered::Unknown) => error(StatusCode::NOT_FOUND, "there is no such Service"),
        Err(Unanswered::Busy) => {
            error(StatusCode::SERVICE_UNAVAILABLE, "the reconciler is in the middle of a pass that takes long")
        }
    }
}

/// What a path asks.
fn question(path: &str) -> Option<Question> {
    let words: Vec<_> = path.strip_prefix("/v1/")?.split('/').collect();
    match words[..] {
        ["status"] => Some(Question::Status),
        ["owners"] => Some(Question::Owners),
        ["endpoints"] => Some(Question::Endpoints),
        ["wanted"] => Some(Question::Wanted),
        ["services", namespace, name] => Some(Question::Service(ObjectName::new(namespace, name))),
        ["service-at", protocol, address, port] => Some(Question::ServiceAt(VirtualServerKey::new(
            address.parse().ok()?,
            port.parse().ok()?,
            form::protocol_of(protocol)?,
        ))),
        _ => None,
    }
}

/// What is wanted of a large cluster is megabytes of text, which others on this thread do not wait for.
async fn in_json(answer: Answer) -> Response {
    match spawn_blocking(move || serde_json::to_vec(&answer)).await {
        Ok(Ok(text)) => answer::json(StatusCode::OK, text),
        Ok(Err(_)) | Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be written as JSON"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    #[test]
    fn paths_are_questions_or_nothing() {
        let at = |address: &str, protocol| VirtualServerKey::new(address.parse().unwrap(), 53, protocol);
        for (path, wanted) in [
            ("/v1/status", Some(Question::Status)),
            ("/v1/owners", Some(Question::Owners)),
            ("/v1/endpoints", Some(Question::Endpoints)),
            ("/v1/wanted", Some(Question::Wanted)),
            ("/v1/services/shop/web", Some(Question::Service(ObjectName::new("shop", "web")))),
            ("/v1/service-at/udp/10.96.0.10/53", Some(Question::ServiceAt(at("10.96.0.10", Protocol::Udp)))),
            ("/v1/service-at/TCP/fd00::1/53", Some(Question::ServiceAt(at("fd00::1", Protocol::Tcp)))),
            ("/v1/service-at/icmp/10.96.0.10/53", None),
            ("/v1/service-at/tcp/10.96.0.10/66000", None),
            ("/v1/services/shop", None),
            ("/v1/services/shop/web/http", None),
            ("/v2/status", None),
            ("/", None),
        ] {
            assert_eq!(question(path), wanted, "{path}");
        }
    }
}
