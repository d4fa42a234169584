//! What the node does now, for people: how the daemon is, what is wrong, and the ways in of the Services somebody looks
//! for. As long as a page, however many Services there are.
//!
//! Whoever reads it need not be root. It has what Services say, which everybody in the cluster may read, and neither
//! endpoints' addresses and names nor the values of bad fields.

use super::Subject;
use super::form::Server;
use super::service::{Kind, Policy};
use super::status::Status;
use super::trouble::Troubles;
use crate::desired::Settings;
use crate::desired::frontends::{self, Frontend};
use crate::model::VirtualServerKey;
use crate::reconcile::View;
use crate::state::{OneLine, Problem, Service, State};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

/// Lines that are told; of more only the number is.
const LINES: usize = 200;

/// The same of problems.
const PROBLEMS: usize = 50;

/// What the node does now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// How the daemon is.
    pub status: Status,
    /// Operations that the last pass could not do, how many of each kind.
    pub failed: BTreeMap<String, usize>,
    /// Fields that are not, or not wholly, followed, and whose they are; the first fifty.
    pub concerns: Vec<Concern>,
    /// Ways in of the Services that are looked for, or the first two hundred.
    pub lines: Vec<Line>,
    /// How many there are of these.
    pub matching: usize,
}

/// Something in the input that is not, or not wholly, followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Concern {
    /// The path of the field; empty where no field is to blame.
    pub field: String,
    /// The kind and the name of the object, or where it was read if that is not known.
    pub object: String,
}

/// A way in to a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// `NAMESPACE/NAME`.
    pub service: String,
    /// The port's name; empty for the only one.
    pub port: String,
    /// What asks for it.
    pub kind: Kind,
    /// Where it is.
    #[serde(flatten)]
    pub server: Server,
    /// Whose endpoints it may lead to.
    pub policy: Policy,
    /// The scheduler's name in the kernel.
    pub scheduler: Option<String>,
    /// For how many seconds a client keeps its destination; none is not at all.
    pub affinity_seconds: Option<u32>,
    /// Destinations that get new connections.
    pub serving: usize,
    /// Destinations that depart.
    pub draining: usize,
    /// The Service that has it instead, as `NAMESPACE/NAME`; none if this one has it.
    pub holder: Option<String>,
    /// Whether somebody else's virtual server is in the way.
    pub foreign: bool,
    /// Whether something is wrong with the Service, or was not done of it.
    pub in_trouble: bool,
}

impl Overview {
    /// What there is now, with the ways in that have a text in the Service's name, `NAMESPACE/NAME`, or in their
    /// `ADDRESS:PORT`.
    pub fn of(subject: &Subject<'_>, text: &str) -> Self {
        let failed = subject.last_pass.iter().flat_map(|pass| pass.failed());
        let mut overview = Self {
            status: Status::of(subject),
            failed: failed.map(|(kind, count)| (kind.to_owned(), count)).collect(),
            concerns: subject.problems.iter().take(PROBLEMS).map(Concern::of).collect(),
            lines: Vec::new(),
            matching: 0,
        };
        let about = About { view: subject.view, draining: draining(&subject.view), troubles: Troubles::of(subject) };
        for (service, frontend) in found(&subject.view, text) {
            overview.matching += 1;
            if overview.lines.len() < LINES {
                overview.lines.extend(Line::of(service, &frontend, &about));
            }
        }
        overview
    }
}

impl Concern {
    fn of(problem: &Problem) -> Self {
        let object = problem.object.as_ref().map_or_else(|| problem.origin.to_string(), ToString::to_string);
        Self { field: OneLine(&problem.field).to_string(), object: OneLine(object).to_string() }
    }
}

/// What lines are made of.
struct About<'a> {
    view: View<'a>,
    draining: HashMap<VirtualServerKey, usize>,
    troubles: Troubles<'a>,
}

fn draining(view: &View<'_>) -> HashMap<VirtualServerKey, usize> {
    let mut draining = HashMap::new();
    view.drains.departing().for_each(|(key, ..)| *draining.entry(key).or_default() += 1);
    draining
}

/// All ways in with the text, in the order of Services' names.
fn found<'a>(view: &View<'a>, text: &str) -> impl Iterator<Item = (&'a Service, Frontend)> {
    let (state, settings) = (view.state, view.settings);
    let text = text.trim().to_lowercase();
    state.services().flat_map(move |service| {
        let is_named = service.name.to_string().contains(&text);
        let mut ways = ways(service, state, settings);
        ways.retain(|way| is_named || address(&way.key).is_some_and(|at| at.to_string().contains(&text)));
        ways.into_iter().map(move |way| (service, way))
    })
}

fn ways(service: &Service, state: &State, settings: &Settings) -> Vec<Frontend> {
    let ports = service.ports.iter().enumerate();
    ports.flat_map(|port| frontends::of_port(service, port, state, settings)).collect()
}

fn address(key: &VirtualServerKey) -> Option<SocketAddr> {
    match *key {
        VirtualServerKey::Address { address, port, .. } => Some(SocketAddr::new(address, port)),
        VirtualServerKey::Mark { .. } => None,
    }
}

impl Line {
    /// Every frontend is of one of the Service's ports.
    fn of(service: &Service, frontend: &Frontend, about: &About<'_>) -> Option<Self> {
        let (view, key) = (&about.view, &frontend.key);
        let holder = view.plan.owner(key).filter(|owner| **owner != service.name);
        let server = view.plan.virtual_server(key).filter(|_| holder.is_none());
        Some(Self {
            service: OneLine(&service.name).to_string(),
            port: OneLine(&service.ports.get(frontend.port)?.name).to_string(),
            kind: frontend.field.into(),
            server: (*key).into(),
            policy: frontend.policy.into(),
            scheduler: server.map(|server| server.spec.scheduler.as_str().to_owned()),
            affinity_seconds: server.and_then(|server| server.spec.persistence).map(|persistence| persistence.timeout),
            serving: server.map_or(0, |server| server.destinations.values().filter(|one| one.weight > 0).count()),
            draining: about.draining.get(key).copied().unwrap_or(0),
            holder: holder.map(|holder| OneLine(holder).to_string()),
            foreign: view.found.foreign.contains(key),
            in_trouble: about.troubles.has(service, view.state) || about.troubles.is_failing(key),
        })
    }
}
