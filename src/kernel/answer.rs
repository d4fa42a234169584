//! What an answer to a question means: the value in it, or why there is none.

use super::ObserveError;
use super::netlink::{Answer, Malformed};

/// The value in an answer that should have one.
pub fn data<T>(
    what: &'static str,
    answer: Answer<'_>,
    decode: impl FnOnce(&[u8]) -> Result<T, Malformed>,
) -> Result<T, ObserveError> {
    match answer {
        Answer::Data(payload) => decode(payload).map_err(malformed(what)),
        Answer::Refused(errno) => Err(ObserveError::Refused { what, errno }),
        Answer::Lost(errno) => Err(ObserveError::Io { what, source: errno.into() }),
    }
}

/// A value that is not as it should be, in an answer about `what`.
pub fn malformed(what: &'static str) -> impl FnOnce(Malformed) -> ObserveError {
    move |Malformed(detail)| ObserveError::Malformed { what, detail }
}
