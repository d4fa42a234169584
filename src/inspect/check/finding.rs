//! A line of the check: what was looked at, how it is and what to do.

use serde::Serialize;
use std::fmt;

/// A line of the check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: &'static str,
    /// How it is.
    pub level: Level,
    /// What was found.
    pub message: String,
    /// What to do; nothing where all is well.
    pub advice: Option<String>,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It may be on purpose, or hurts some.
    Warning,
    /// Balancing does not work as it should.
    Bad,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Bad => "bad",
        })
    }
}

impl Finding {
    pub(super) fn ok(subject: &'static str, message: impl Into<String>) -> Self {
        Self { subject, level: Level::Ok, message: message.into(), advice: None }
    }

    pub(super) fn warning(subject: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { subject, level: Level::Warning, message: message.into(), advice: Some(advice.into()) }
    }

    pub(super) fn bad(subject: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Bad, ..Self::warning(subject, message, advice) }
    }
}
