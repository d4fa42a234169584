//! Has the reconciler's thread answer what is asked at the inspection socket.

use super::wheel::Message;
use crate::inspect::{Answer, Question};
use crate::server::{Ask, INSPECTION_NAME, InspectionServer, LogFilter, Unanswered, inspection};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{debug, info, warn};

/// How long an answer waits for the end of a pass: longer than a start with 30,000 Services takes.
const PATIENCE: Duration = Duration::from_secs(15);

/// Between two attempts to have the socket's name.
const RETRY: Duration = Duration::from_secs(5);

/// A question, and where its answer goes; none where there is no such Service.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub question: Question,
    /// Closed when nobody waits any more.
    pub reply: oneshot::Sender<Option<Answer>>,
}

/// Serves the inspection socket on a task of its own, as long as the runtime lives.
pub fn start(ask: Ask, log: LogFilter) {
    let mut trouble = None;
    let told = move |binding: io::Result<()>| note(binding, &mut trouble);
    let server = InspectionServer { name: INSPECTION_NAME.to_owned(), retry: RETRY };
    let handler = inspection(ask, log);
    tokio::spawn(async move { server.run(handler, told).await });
}

/// Has the reconciler's thread answer.
pub fn ask(wheel: Sender<Message>) -> Ask {
    Arc::new(move |question| {
        let (reply, answer) = oneshot::channel();
        let sent = wheel.send(Message::Question(Asked { question, reply }));
        Box::pin(async move {
            // A wheel that is gone takes the process along.
            sent.map_err(|_| Unanswered::Busy)?;
            match timeout(PATIENCE, answer).await {
                Ok(Ok(answer)) => answer.ok_or(Unanswered::Unknown),
                Ok(Err(_)) | Err(_) => Err(Unanswered::Busy),
            }
        })
    })
}

/// Says once what is wrong with the socket, and when it is well.
fn note(binding: io::Result<()>, trouble: &mut Option<String>) {
    match binding {
        Ok(()) if trouble.take().is_some() => info!("explain and diff are answered from now on"),
        Ok(()) => debug!("explain and diff are answered"),
        Err(error) => {
            let text = match error.kind() {
                io::ErrorKind::AddrInUse => "another process answers in this network namespace".to_owned(),
                _ => error.to_string(),
            };
            if trouble.as_ref() != Some(&text) {
                warn!("explain and diff find no answer here: {text}");
            }
            *trouble = Some(text);
        }
    }
}
