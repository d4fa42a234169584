//! Trouble that lasts: said once when it comes, once when its cause changes, and once when it is over.

use crate::state::OneLine;
use std::error::Error;
use tracing::{info, warn};

/// What trouble with reading a source means.
pub const STAYS: &str = "what it said before stays in force";

/// The trouble with reading something.
#[derive(Debug)]
pub struct Trouble {
    /// What is read.
    what: &'static str,
    /// What it means that it cannot be read.
    meaning: &'static str,
    /// Why it could not be read the last time.
    said: Option<String>,
}

impl Trouble {
    /// No trouble yet with reading `what`; `meaning` says what it would lead to.
    pub fn with(what: &'static str, meaning: &'static str) -> Self {
        Self { what, meaning, said: None }
    }

    /// Takes in a reading, and gives it back if it came about.
    pub fn note<T, E: Error>(&mut self, reading: Result<T, E>) -> Option<T> {
        self.note_error(reading.as_ref().err());
        reading.ok()
    }

    /// Takes in how a reading ended.
    pub fn note_error(&mut self, error: Option<&impl Error>) {
        let now = error.map(|error| OneLine(error_with_causes(error)).to_string());
        match &now {
            Some(text) if now != self.said => warn!("{} cannot be read, {}: {text}", self.what, self.meaning),
            None if self.said.is_some() => info!("{} can be read again", self.what),
            _ => {}
        }
        self.said = now;
    }
}

/// An error with all that led to it.
fn error_with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
