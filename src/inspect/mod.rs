//! Answers what people and programs ask of a running daemon, and what can be told from the kernel alone.
//!
//! A [`Question`] is answered by [`answer`] from what the reconciler knows; the answers are values with a form in JSON
//! ([`form`], [`service`], [`status`], [`wanted`]), so that who asks has the same types. [`differences()`] compares what is
//! wanted with what was found, [`flow`] says what becomes of a packet, [`check`] whether the node is fit. Pure; how questions travel is `server`'s and
//! `daemon`'s.

pub mod check;
pub mod differences;
pub mod flow;
pub mod form;
pub mod service;
pub mod status;
pub mod wanted;

use crate::desired::{Moment, Plan};
use crate::model::VirtualServerKey;
use crate::reconcile::View;
use crate::state::{ObjectName, Problem};
use serde::{Deserialize, Serialize};

pub use differences::differences;
pub use service::ServiceAnswer;
pub use status::{LastPass, Status};
pub use wanted::Wanted;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// How the daemon is.
    Status,
    /// How a Service was decided.
    Service(ObjectName),
    /// The same of the Service that has a virtual server.
    ServiceAt(VirtualServerKey),
    /// Which virtual servers are whose.
    Owners,
    /// What the kernel should hold.
    Wanted,
}

/// A virtual server and the Service that has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Which virtual server.
    #[serde(flatten)]
    pub server: form::Server,
    /// `NAMESPACE/NAME`.
    pub service: String,
}

/// What is answered.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To [`Question::Status`].
    Status(Box<Status>),
    /// To [`Question::Service`] and [`Question::ServiceAt`].
    Service(Box<ServiceAnswer>),
    /// To [`Question::Owners`].
    Owners(Vec<Owner>),
    /// To [`Question::Wanted`].
    Wanted(Box<Wanted>),
}

/// What answers are made of.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// What the reconciler knows.
    pub view: View<'a>,
    /// Everything that is wrong with the input.
    pub problems: &'a [Problem],
    /// When it is asked.
    pub now: Moment,
    /// Whether the input is known.
    pub is_informed: bool,
    /// The last pass; none before the first.
    pub last_pass: Option<&'a LastPass>,
}

/// The answer; none where there is no such Service.
pub fn answer(question: &Question, subject: &Subject<'_>) -> Option<Answer> {
    let of_service = |name| ServiceAnswer::of(name, subject).map(|answer| Answer::Service(Box::new(answer)));
    match question {
        Question::Status => Some(Answer::Status(Box::new(Status::of(subject)))),
        Question::Service(name) => of_service(name),
        Question::ServiceAt(key) => subject.view.plan.owner(key).and_then(of_service),
        Question::Owners => Some(Answer::Owners(owners(subject.view.plan).collect())),
        Question::Wanted => Some(Answer::Wanted(Box::new(Wanted::of(&subject.view)))),
    }
}

fn owners(plan: &Plan) -> impl Iterator<Item = Owner> {
    plan.keys().filter_map(|key| Some(Owner { server: key.into(), service: plan.owner(&key)?.to_string() }))
}
