//! A bearer token from a file that somebody renews, such as the token of a pod's service account.

use http::header::{AUTHORIZATION, HeaderValue};
use http::{Request, Response};
use kube::client::Body;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tower::Service;

/// An HTTP client that adds the token of a file to its requests. The file is read for each of them: they are few, and
/// a token that was renewed counts at once. (`kube` reads it once a minute, and fails over a newline at its end.)
#[derive(Clone, Debug)]
pub(super) struct Authorized<S> {
    client: S,
    /// None where credentials are no token file.
    token: Option<Arc<TokenFile>>,
}

#[derive(Debug)]
struct TokenFile {
    path: PathBuf,
    /// The last token that could be read. It is used while none can be, as some take the file away after the start.
    last: Mutex<Option<HeaderValue>>,
}

impl<S> Authorized<S> {
    pub(super) fn new(client: S, path: Option<PathBuf>) -> Self {
        let token = path.map(|path| Arc::new(TokenFile { path, last: Mutex::default() }));
        Self { client, token }
    }
}

impl<S, B> Service<Request<Body>> for Authorized<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.client.poll_ready(context)
    }

    /// Without any token the request is sent as it is, and the API server says what it thinks of that.
    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(header) = self.token.as_ref().and_then(|token| token.header()) {
            request.headers_mut().insert(AUTHORIZATION, header);
        }
        self.client.call(request)
    }
}

impl TokenFile {
    fn header(&self) -> Option<HeaderValue> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(header) = fs::read_to_string(&self.path).ok().and_then(|text| bearer(&text)) {
            *last = Some(header);
        }
        last.clone()
    }
}

fn bearer(token: &str) -> Option<HeaderValue> {
    let token = Some(token.trim()).filter(|token| !token.is_empty())?;
    let mut header = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_again_and_again_and_kept_when_it_cannot_be() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let token = TokenFile { path: path.clone(), last: Mutex::default() };
        assert_eq!(token.header(), None);
        for (text, header) in
            [("one", "Bearer one"), ("two\n", "Bearer two"), ("", "Bearer two"), ("a\nb", "Bearer two")]
        {
            fs::write(&path, text).unwrap();
            assert_eq!(token.header().unwrap(), header, "{text:?}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(token.header().unwrap(), "Bearer two");
    }
}
