//! The other end of the inspection socket: asks a daemon, if one is there and can be believed.

use super::inspection::is_trusted;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use nix::unistd::User;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::io;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

/// Longer than the daemon waits for its reconciler, so that it is the daemon who says why there is no answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two attempts to get into the line of those who ask, which is full.
const PAUSE: Duration = Duration::from_millis(100);

/// What is wanted of 30,000 Services is a tenth of it.
const LONGEST_ANSWER: usize = 256 << 20;

/// The user of the systemd unit.
const USER: &str = "ipvsd";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("no ipvsd runs in this network namespace")]
    NoDaemon,
    /// Somebody has taken the name who may not.
    #[error("what answers in ipvsd's name is a process of user {0}, which is not believed")]
    Stranger(u32),
    /// The daemon knows no such thing.
    #[error("{0}")]
    Unknown(String),
    /// The daemon does not take what it is given.
    #[error("{0}")]
    NotTaken(String),
    /// The daemon has no answer.
    #[error("ipvsd answers with {0}: {1}")]
    Refused(StatusCode, String),
    /// The answer did not come in time.
    #[error("ipvsd does not answer within {} s", PATIENCE.as_secs())]
    Late,
    /// The socket failed.
    #[error("the socket of ipvsd failed")]
    Io(#[source] io::Error),
    /// What came is not HTTP.
    #[error("the answer of ipvsd cannot be received")]
    Http(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer is none that we know.
    #[error("the answer of ipvsd is not understood; is the daemon of another version?")]
    NotUnderstood(#[source] serde_json::Error),
}

/// Asks the daemon at an abstract name for what is at a path.
///
/// # Errors
/// There is no daemon, or no answer.
pub async fn ask<T: DeserializeOwned>(name: &str, path: &str) -> Result<T, AskError> {
    exchange(name, (Method::GET, path, "")).await
}

/// Gives the daemon at an abstract name a text for what is at a path. Returns what is there then.
///
/// # Errors
/// There is no daemon, or it does not take the text.
pub async fn put<T: DeserializeOwned>(name: &str, path: &str, text: &str) -> Result<T, AskError> {
    exchange(name, (Method::PUT, path, text)).await
}

async fn exchange<T: DeserializeOwned>(name: &str, asked: (Method, &str, &str)) -> Result<T, AskError> {
    let body = timeout(PATIENCE, answer(name, asked)).await.map_err(|_| AskError::Late)??;
    serde_json::from_slice(&body).map_err(AskError::NotUnderstood)
}

/// The process of the daemon at an abstract name, as this process sees it; none where there is none, or none that can be
/// seen from here.
pub async fn daemon_process(name: &str) -> Option<u32> {
    let stream = timeout(PAUSE, connected(name)).await.ok()?.ok()?;
    let process = stream.peer_cred().ok()?.pid()?;
    u32::try_from(process).ok().filter(|process| *process > 0)
}

async fn answer(name: &str, (method, path, text): (Method, &str, &str)) -> Result<Bytes, AskError> {
    let stream = connected(name).await.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => AskError::NoDaemon,
        _ => AskError::Io(error),
    })?;
    let peer = stream.peer_cred().map_err(AskError::Io)?.uid();
    if !is_trusted(peer) && !is_daemons(peer) {
        return Err(AskError::Stranger(peer));
    }
    let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let request = Request::builder().method(method).uri(path).header("Host", "ipvsd").header("Connection", "close");
    let request = request.body(Full::new(Bytes::copy_from_slice(text.as_bytes()))).map_err(failed)?;
    let answered = async {
        let answer = requests.send_request(request).await.map_err(failed)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await.map_err(AskError::Http)?;
        Ok((status, body.to_bytes()))
    };
    // The connection does the work of the request; how it ends is told by the answer.
    let (answered, _told_by_the_answer) = tokio::join!(answered, connection);
    let (status, body) = answered?;
    match status {
        StatusCode::OK => Ok(body),
        StatusCode::NOT_FOUND => Err(AskError::Unknown(reason(&body))),
        StatusCode::BAD_REQUEST => Err(AskError::NotTaken(reason(&body))),
        status => Err(AskError::Refused(status, reason(&body))),
    }
}

/// Waits for a place in the line without blocking: whoever has the name may let it be full for ever.
async fn connected(name: &str) -> io::Result<UnixStream> {
    let address = format!("\0{name}");
    loop {
        match UnixStream::connect(&address).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(PAUSE).await,
            connected => return connected,
        }
    }
}

fn is_daemons(user: u32) -> bool {
    User::from_name(USER).is_ok_and(|found| found.is_some_and(|found| found.uid.as_raw() == user))
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> AskError {
    AskError::Http(Box::new(error))
}

fn reason(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Reason {
        error: String,
    }
    serde_json::from_slice(body).map_or_else(|_| "no reason is given".into(), |reason: Reason| reason.error)
}
