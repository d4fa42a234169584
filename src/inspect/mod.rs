//! Answers what people and programs ask of a running daemon, and what can be told from the kernel alone.
//!
//! A [`Question`] is answered by [`answer`] from what the reconciler knows; the answers are values with a form in JSON
//! ([`form`], [`overview`], [`service`], [`status`], [`wanted`]), so that who asks has the same types. [`differences()`] compares what is
//! wanted with what was found, [`flow`] says what becomes of a packet, [`check`] whether the node is fit. Pure; how questions travel is `server`'s and
//! `daemon`'s.

pub mod check;
pub mod differences;
pub mod flow;
pub mod form;
pub mod overview;
pub mod service;
pub mod status;
mod trouble;
pub mod wanted;

use crate::desired::Moment;
use crate::model::VirtualServerKey;
use crate::reconcile::View;
use crate::state::{EndpointSlice, ObjectName, Problem};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;
use trouble::Troubles;

pub use differences::differences;
pub use overview::Overview;
pub use service::ServiceAnswer;
pub use status::{LastPass, Status};
pub use wanted::Wanted;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// How the daemon is.
    Status,
    /// The same for people, with the ways in that have this text.
    Overview(String),
    /// How a Service was decided.
    Service(ObjectName),
    /// The same of the Service that has a virtual server.
    ServiceAt(VirtualServerKey),
    /// Which virtual servers are whose.
    Owners,
    /// What endpoints are called.
    Endpoints,
    /// What the kernel should hold.
    Wanted,
}

/// A virtual server and the Service that has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// Which virtual server.
    #[serde(flatten)]
    pub server: form::Server,
    /// `NAMESPACE/NAME`.
    pub service: String,
    /// The name of the Service's port; empty for the only one.
    pub port_name: String,
    /// The port's protocol, which a mark does not tell.
    pub port_protocol: form::Protocol,
    /// Whether something is wrong with the Service, or could not be done of the virtual server.
    #[serde(default)]
    pub in_trouble: bool,
}

/// An endpoint that has a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedEndpoint {
    /// Where it is.
    pub address: IpAddr,
    /// The target port.
    pub port: u16,
    /// `NAMESPACE/NAME` of the pod, as a rule.
    pub pod: String,
}

/// What is answered.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To [`Question::Status`].
    Status(Box<Status>),
    /// To [`Question::Overview`].
    Overview(Box<Overview>),
    /// To [`Question::Service`] and [`Question::ServiceAt`].
    Service(Box<ServiceAnswer>),
    /// To [`Question::Owners`].
    Owners(Vec<Owner>),
    /// To [`Question::Endpoints`].
    Endpoints(Vec<NamedEndpoint>),
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
    /// Why IPVS does not balance where it is asked for; none where what is asked for does.
    pub fallback: Option<&'a str>,
}

/// The answer; none where there is no such Service.
pub fn answer(question: &Question, subject: &Subject<'_>) -> Option<Answer> {
    let of_service = |name| ServiceAnswer::of(name, subject).map(|answer| Answer::Service(Box::new(answer)));
    match question {
        Question::Status => Some(Answer::Status(Box::new(Status::of(subject)))),
        Question::Overview(text) => Some(Answer::Overview(Box::new(Overview::of(subject, text)))),
        Question::Service(name) => of_service(name),
        Question::ServiceAt(key) => subject.view.plan.owner(key).and_then(of_service),
        Question::Owners => Some(Answer::Owners(owners(subject).collect())),
        Question::Endpoints => Some(Answer::Endpoints(endpoints(&subject.view).collect())),
        Question::Wanted => Some(Answer::Wanted(Box::new(Wanted::of(&subject.view)))),
    }
}

fn owners<'a>(subject: &Subject<'a>) -> impl Iterator<Item = Owner> + use<'a> {
    let (View { plan, state, .. }, troubles) = (subject.view, Troubles::of(subject));
    plan.keys().filter_map(move |key| {
        let (owner, (name, protocol)) = (plan.owner(&key)?, plan.port(&key)?);
        let is_wrong = state.service(owner).is_some_and(|service| troubles.has(service, state));
        let in_trouble = is_wrong || troubles.is_failing(&key);
        let (service, port_name) = (owner.to_string(), name.to_owned());
        Some(Owner { server: key.into(), service, port_name, port_protocol: protocol.into(), in_trouble })
    })
}

/// Those of the Services that have virtual servers.
fn endpoints<'a>(view: &View<'a>) -> impl Iterator<Item = NamedEndpoint> + 'a {
    let (plan, state) = (view.plan, view.state);
    let owners: BTreeSet<_> = plan.keys().filter_map(|key| plan.owner(&key)).collect();
    owners.into_iter().flat_map(|owner| state.slices(owner)).flat_map(named)
}

fn named(slice: &EndpointSlice) -> impl Iterator<Item = NamedEndpoint> {
    slice.endpoints.iter().enumerate().flat_map(|(index, endpoint)| {
        let pod = slice.names.name(index).map(|name| format!("{}/{name}", slice.name.namespace));
        let at = move |port: u16| Some(NamedEndpoint { address: endpoint.address, port, pod: pod.clone()? });
        slice.ports.iter().filter_map(move |port| at(port.port))
    })
}
