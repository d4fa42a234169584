//! The inspection socket: has the reconciler's thread answer what is asked there, and sees to it that one ipvsd alone is at
//! work in a network namespace, whose sign is the socket's name.

use super::message::{Asked, Message};
use super::service_manager::{start_takes_longer, tell_status};
use super::socket_file::listen_at;
use super::{Ended, runtime};
use crate::server::{
    Ask, ClaimError, Handler, INSPECTION_NAME, LogFilter, OtherDaemon, Unanswered, claim, inspection, serve_inspection,
};
use std::convert::Infallible;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

/// How long an answer waits for the end of a pass: longer than a start with 30,000 Services takes.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long whoever has the socket's name may take to answer as an ipvsd does. A daemon has a thread for that alone.
const SILENCE: Duration = Duration::from_secs(20);

/// Between two attempts to have the socket's name from somebody who is no ipvsd.
const RETRY: Duration = Duration::from_secs(5);

/// Between two looks whether another ipvsd has ended.
const LOOK: Duration = Duration::from_secs(1);

/// Serves the socket on a thread of its own as long as the process lives, so that it answers whatever else goes on.
/// Nothing of the kernel may be changed before, and nothing after, another daemon was found. Somebody else who has the
/// name keeps nobody from working. The same answers are given at the file `path`.
///
/// # Errors
/// No runtime, or no thread; inside, the daemon that has the place already.
pub fn start(ask: Ask, log: LogFilter, path: Option<&Path>) -> anyhow::Result<Result<(), OtherDaemon>> {
    let runtime = runtime()?;
    let claimed = match runtime.block_on(claim(INSPECTION_NAME, SILENCE)) {
        Err(ClaimError::OtherDaemon(other)) => return Ok(Err(other)),
        claimed => claimed,
    };
    let handler = inspection(ask, log);
    if let Some(path) = path {
        runtime.block_on(serve_file(path, Arc::clone(&handler)));
    }
    thread::Builder::new().name("inspection".into()).spawn(move || runtime.block_on(serve(claimed, handler)))?;
    Ok(Ok(()))
}

/// Serves a file on a task of its own, if it can be had: no command depends on it.
async fn serve_file(path: &Path, handler: Handler) {
    match listen_at(path).await {
        Ok(listener) => {
            tokio::spawn(async {
                let Err(error) = serve_inspection(listener, handler).await;
                warn!("the file of the inspection socket is not served: {error}");
            });
        }
        Err(error) => {
            info!("the inspection socket has no file, only its name: {}: {error}", path.display());
        }
    }
}

/// Waits until another daemon has ended, or until a signal.
///
/// # Errors
/// No runtime, or no signals.
pub fn wait(other: OtherDaemon) -> anyhow::Result<Ended> {
    runtime()?.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        select! {
            () = end_of(other) => Ok(Ended::OtherDaemonEnded),
            _ = terminate.recv() => Ok(Ended::Stopped),
            _ = interrupt.recv() => Ok(Ended::Stopped),
        }
    })
}

/// Says once of each daemon that it is in the place.
async fn end_of(mut other: OtherDaemon) {
    loop {
        error!("{other}: nothing is done here until it ends, and then this one takes over");
        tell_status(&format!("waits: {other}"));
        let told = other;
        while other == told {
            start_takes_longer();
            sleep(LOOK).await;
            match claim(INSPECTION_NAME, SILENCE).await {
                Err(ClaimError::OtherDaemon(found)) => other = found,
                Ok(_) | Err(_) => return,
            }
        }
    }
}

/// Has the reconciler's thread answer.
pub fn ask(wheel: Sender<Message>) -> Ask {
    Arc::new(move |question| {
        let (reply, answer) = oneshot::channel();
        let sent = wheel.send(Message::Question(Asked { question, reply }));
        Box::pin(async move {
            // A wheel that is gone takes the process along; where there is none nothing is known.
            sent.map_err(|_| Unanswered::Busy)?;
            match timeout(PATIENCE, answer).await {
                Ok(Ok(answer)) => answer.ok_or(Unanswered::Unknown),
                Ok(Err(_)) | Err(_) => Err(Unanswered::Busy),
            }
        })
    })
}

async fn serve(mut claimed: Result<UnixListener, ClaimError>, handler: Handler) -> Infallible {
    let mut trouble = None;
    loop {
        let error = match claimed {
            Ok(listener) => {
                note_well(trouble.take());
                let Err(error) = serve_inspection(listener, Arc::clone(&handler)).await;
                error.into()
            }
            Err(error) => error,
        };
        let text = error.to_string();
        if trouble.as_ref() != Some(&text) {
            note_trouble(&error);
        }
        trouble = Some(text);
        sleep(RETRY).await;
        claimed = claim(INSPECTION_NAME, SILENCE).await;
    }
}

fn note_well(trouble: Option<String>) {
    match trouble {
        Some(_) => info!("explain and diff are answered from now on"),
        None => debug!("explain and diff are answered"),
    }
}

fn note_trouble(error: &ClaimError) {
    match error {
        ClaimError::OtherDaemon(other) => {
            error!("{other}, and each removes what the other makes: end one of them");
        }
        _ => warn!("explain and diff find no answer here: {error}"),
    }
}
