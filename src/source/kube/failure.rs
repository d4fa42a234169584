//! Why reading from the API server failed, and what to do about it.

use super::connection::AccessError;
use std::time::Duration;
use tower::BoxError;

/// Longest text of an answer that is repeated in the log: a proxy's error page is no message.
const MESSAGE_LENGTH: usize = 300;

/// Why a list or a watch failed. What was read before stays in force.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no way to the API server.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The request did not get through.
    #[error("the API server cannot be reached")]
    Unreachable(#[source] BoxError),
    /// Nothing came for so long.
    #[error("the API server said nothing for {} s", .0.as_secs())]
    Silent(Duration),
    /// The answer is an error.
    #[error("the API server answers {code}: {message}")]
    Refused {
        /// The HTTP status, or the code of an error within a watch.
        code: u16,
        /// The API server's words.
        message: String,
        /// How long it wants not to be asked.
        retry_after: Option<Duration>,
    },
    /// The answer ended before its end.
    #[error("the connection to the API server broke off")]
    Broken(#[source] Option<BoxError>),
    /// A list that was asked for as a stream stopped before its end.
    #[error("the API server did not say that its list is complete")]
    Endless,
    /// The answer as a whole is not what the API has. (What is wrong with one object costs only that one.)
    #[error("the API server's answer cannot be understood")]
    Garbled(#[from] serde_json::Error),
}

impl Failure {
    /// An answer with an error, in one short line.
    pub(super) fn refused(code: u16, message: &str, retry_after: Option<Duration>) -> Self {
        let message = message.chars().take(MESSAGE_LENGTH).map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self::Refused { code, message, retry_after }
    }

    /// Whether the place where reading stopped is no longer known to the server, as happens after a while without a
    /// connection: 410; or not known yet, where one of several servers is behind.
    pub(super) fn has_expired(&self) -> bool {
        match self {
            Self::Refused { code, message, .. } => *code == 410 || message.contains("Too large resource version"),
            _ => false,
        }
    }

    /// Whether everything must be listed again, because what was read so far may have a gap.
    pub(super) fn needs_a_list(&self) -> bool {
        self.has_expired() || matches!(self, Self::Garbled(_))
    }

    /// Whether the server does not send lists as streams: it says so where they are switched off (`WatchList` is off by
    /// default up to Kubernetes 1.33, but for 1.32), and older than 1.27 it overlooks what it is asked for.
    pub(super) fn refuses_streams(&self) -> bool {
        matches!(self, Self::Refused { code: 400 | 422, .. } | Self::Endless)
    }

    /// Whether files should be read again for the next request: a token or certificate may have been renewed.
    pub(super) fn asks_for_new_credentials(&self) -> bool {
        matches!(self, Self::Access(_) | Self::Unreachable(_) | Self::Refused { code: 401, .. })
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        if let Self::Refused { retry_after, .. } = self { *retry_after } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_short_line() {
        let failure = Failure::refused(502, &format!("<html>\n<h1>Bad</h1>\u{1b}[2K{}", "x".repeat(1000)), None);
        let line = failure.to_string();
        assert!(line.starts_with("the API server answers 502: <html> <h1>Bad</h1> [2Kxxx"), "{line}");
        assert!(line.len() < 350 && !line.contains(char::is_control));
    }

    #[test]
    fn failures_are_told_apart_by_what_they_ask_for() {
        let refused = |code, message| Failure::refused(code, message, None);
        let garbled = || Failure::from(serde_json::from_str::<u8>("x").unwrap_err());
        for (failure, expired, list, streams, credentials) in [
            (refused(410, "too old resource version"), true, true, false, false),
            (refused(504, "Timeout: Too large resource version: 9, current: 7"), true, true, false, false),
            (refused(422, "sendInitialEvents: Forbidden"), false, false, true, false),
            (refused(401, "Unauthorized"), false, false, false, true),
            (refused(403, "forbidden"), false, false, false, false),
            (refused(500, ""), false, false, false, false),
            (garbled(), false, true, false, false),
            (Failure::Endless, false, false, true, false),
            (Failure::Broken(None), false, false, false, false),
            (Failure::Unreachable("refused".into()), false, false, false, true),
        ] {
            let found = (
                failure.has_expired(),
                failure.needs_a_list(),
                failure.refuses_streams(),
                failure.asks_for_new_credentials(),
            );
            assert_eq!(found, (expired, list, streams, credentials), "{failure}");
        }
    }
}
