//! Counts requests for whoever wants to know: a layer around the HTTP client.

use http::{Method, Request, Response};
use kube::client::Body;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tower::Service;

/// A request to the API server and how it went, up to the head of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// GET, POST, PATCH.
    pub method: Method,
    /// The API server's host and port, as the URL has them.
    pub host: Arc<str>,
    /// The HTTP status of the answer, none where there was no answer.
    pub code: Option<u16>,
    /// From the request to the head of the answer.
    pub took: Duration,
}

/// Is called after every request; must not block.
#[derive(Clone)]
pub struct RequestObserver(Arc<dyn Fn(Exchange) + Send + Sync>);

impl RequestObserver {
    /// An observer that calls `note`.
    pub fn new(note: impl Fn(Exchange) + Send + Sync + 'static) -> Self {
        Self(Arc::new(note))
    }
}

impl Default for RequestObserver {
    /// One that takes no notice.
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for RequestObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestObserver")
    }
}

/// An HTTP client with an observer.
#[derive(Clone, Debug)]
pub(super) struct Observed<S> {
    pub client: S,
    pub host: Arc<str>,
    pub observer: RequestObserver,
}

impl<S, B> Service<Request<Body>> for Observed<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.client.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut unanswered = Unanswered {
            method: request.method().clone(),
            host: Arc::clone(&self.host),
            code: None,
            begun: Instant::now(),
            observer: self.observer.clone(),
        };
        let answer = self.client.call(request);
        Box::pin(async move {
            let answer = answer.await;
            unanswered.note(answer.as_ref().ok().map(|answer| answer.status().as_u16()));
            answer
        })
    }
}

/// Tells the observer when it is dropped, so that a request that somebody stopped waiting for counts too.
struct Unanswered {
    method: Method,
    host: Arc<str>,
    code: Option<u16>,
    begun: Instant,
    observer: RequestObserver,
}

impl Unanswered {
    /// By reference, so that the future holds all of it and not only the code.
    fn note(&mut self, code: Option<u16>) {
        self.code = code;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        (self.observer.0)(Exchange {
            method: self.method.clone(),
            host: Arc::clone(&self.host),
            code: self.code,
            took: self.begun.elapsed(),
        });
    }
}
