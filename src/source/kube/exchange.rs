//! One request and the bytes of its answer, with a bound on every wait: a connection can be half dead, with nobody who
//! would say so.

use super::failure::Failure;
use bytes::Bytes;
use http::header::{ACCEPT, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use std::time::Duration;
use tokio::time::timeout;
use tower::BoxError;

/// The longest explanation of an error that is read, in bytes.
const EXPLANATION: usize = 16 << 10;

/// An answer of status 200, of which the body is still to come.
#[derive(Debug)]
pub(super) struct Answer(Body);

/// Sends a request and waits for the head of the answer.
pub(super) async fn send(client: &Client, request: Request<Vec<u8>>, patience: Duration) -> Result<Answer, Failure> {
    let mut request = request.map(Body::from);
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    let sent = timeout(patience, client.send(request)).await.map_err(|_| Failure::Silent(patience))?;
    let (head, body) = sent.map_err(|error| Failure::Unreachable(cause(error)))?.into_parts();
    if head.status.is_success() {
        return Ok(Answer(body));
    }
    let text = Answer(body).beginning(patience).await;
    Err(refusal(head.status.as_u16(), &text, retry_after(&head.headers)))
}

impl Answer {
    /// The next bytes, none at the end.
    pub(super) async fn next(&mut self, patience: Duration) -> Result<Option<Bytes>, Failure> {
        loop {
            let frame = timeout(patience, self.0.frame()).await.map_err(|_| Failure::Silent(patience))?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(Failure::Broken(Some(cause(error)))),
                // What is no data are trailers, which the API does not use.
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// As many bytes as an explanation needs, or those that came before the connection failed.
    async fn beginning(mut self, patience: Duration) -> Vec<u8> {
        let mut beginning = Vec::new();
        while beginning.len() < EXPLANATION {
            let Ok(Some(bytes)) = self.next(patience).await else { break };
            beginning.extend_from_slice(&bytes);
        }
        beginning
    }

    /// All bytes.
    pub(super) async fn whole(mut self, patience: Duration) -> Result<Vec<u8>, Failure> {
        let mut whole = Vec::new();
        while let Some(bytes) = self.next(patience).await? {
            whole.extend_from_slice(&bytes);
        }
        Ok(whole)
    }
}

/// `kube` wraps the errors of the connection in ones that repeat them.
fn cause(error: kube::Error) -> BoxError {
    match error {
        kube::Error::Service(cause) => cause,
        other => Box::new(other),
    }
}

/// The API server explains itself with a Status; what stands in between may send any text.
fn refusal(code: u16, text: &[u8], retry_after: Option<Duration>) -> Failure {
    match serde_json::from_slice::<Status>(text) {
        Ok(status) => Failure::refused(code, &status.message, retry_after),
        Err(_) => Failure::refused(code, String::from_utf8_lossy(text).trim(), retry_after),
    }
}

/// The API server gives seconds; the header's other form, a date, is not used by it.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}
