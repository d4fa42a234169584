//! What the server can do wrong.

use super::{Record, Verb};
use std::time::Duration;

/// Wrong answers to some requests.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Only to requests with this verb.
    pub verb: Option<Verb>,
    /// Only to requests for this resource.
    pub resource: Option<&'static str>,
    /// Only to requests for the next page of a list.
    pub only_next_pages: bool,
    /// What is answered.
    pub answer: Answer,
    /// How often; then it is over.
    pub times: usize,
}

/// A wrong answer.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// A Status with this code, and the header Retry-After with so many seconds.
    Status(u16, Option<u64>),
    /// An error page, as a proxy would send it.
    Page(u16),
    /// No answer at all, while the connection stays open.
    Hang,
    /// A pause before the head and before every piece of the body.
    Slow(Duration),
    /// The connection is cut after so many bytes of the body.
    CutAfter(usize),
    /// A body that is no JSON, and goes on for ever in the case of a watch.
    Garbage,
    /// A watch that ends, in good order, right after its head.
    EndAtOnce,
}

/// What can be done to watches while they run.
#[derive(Clone, Copy, Debug)]
pub enum Kick {
    /// Sends a bookmark.
    Bookmark,
    /// Sends an error with this code, and ends.
    Error(u16),
    /// Ends in good order.
    End,
    /// Cuts the connection.
    Cut,
    /// Sends the beginning of an event and cuts the connection.
    CutWithinLine,
    /// Sends a line that is no JSON.
    Garbage,
    /// Sends nothing any more, but keeps the connection open.
    Hang,
}

impl Fault {
    /// An answer to the next request, whatever it is.
    pub fn once(answer: Answer) -> Self {
        Self { verb: None, resource: None, only_next_pages: false, answer, times: 1 }
    }

    /// The same to requests with this verb only.
    pub fn verb(self, verb: Verb) -> Self {
        Self { verb: Some(verb), ..self }
    }

    /// The same to requests for this resource only.
    pub fn resource(self, resource: &'static str) -> Self {
        Self { resource: Some(resource), ..self }
    }

    /// The same so often.
    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    fn applies_to(&self, record: &Record) -> bool {
        self.times > 0
            && self.verb.is_none_or(|verb| verb == record.verb)
            && self.resource.is_none_or(|resource| resource == record.resource)
            && (!self.only_next_pages || record.query.contains_key("continue"))
    }
}

/// The wrong answer that a request gets, which then counts as given.
pub fn take(faults: &mut Vec<Fault>, record: &Record) -> Option<Answer> {
    let fault = faults.iter_mut().find(|fault| fault.applies_to(record))?;
    fault.times -= 1;
    let answer = fault.answer;
    faults.retain(|fault| fault.times > 0);
    Some(answer)
}
