//! What is logged, as it is looked at and changed from outside while the program runs.

use super::answer::{self, Answer};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Puts a filter in force, or says in a sentence why it is none.
type Put = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// The filter of this process's log; clones are the same.
#[derive(Clone)]
pub struct LogFilter {
    /// What is in force, as it was written. Held while another one is put, so that it says what is so.
    text: Arc<Mutex<String>>,
    put: Arc<Put>,
}

/// What is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The filter in force: a level, or `module=level` pairs.
    pub filter: String,
}

impl LogFilter {
    /// The filter that is in force as `text`; `put` puts others.
    pub fn new(text: String, put: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { text: Arc::new(Mutex::new(text)), put: Arc::new(put) }
    }

    /// What is in force.
    pub fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another one in force.
    ///
    /// # Errors
    /// Why it is none; then nothing is different.
    pub fn put(&self, text: &str) -> Result<(), String> {
        let mut current = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        (self.put)(text)?;
        text.clone_into(&mut current);
        Ok(())
    }

    /// Answers `GET`, and `PUT` of a filter.
    pub(super) fn answer(&self, request: &Request<Bytes>) -> Answer {
        match *request.method() {
            Method::GET => {}
            Method::PUT => {
                if let Err(why) = self.put(String::from_utf8_lossy(request.body()).trim()) {
                    return answer::error(StatusCode::BAD_REQUEST, &why);
                }
            }
            _ => return answer::error(StatusCode::METHOD_NOT_ALLOWED, "only GET and PUT are answered here"),
        }
        answer::json(StatusCode::OK, serde_json::json!(Told { filter: self.text() }).to_string())
    }
}

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogFilter").field("text", &self.text()).finish_non_exhaustive()
    }
}
