//! How one Service was decided: its ways in, its endpoints with what became of each, and what the kernel should hold.

use super::Subject;
use super::form::{self, Drain, Family, Protocol, VirtualServer};
use super::status::drains;
use super::wanted;
use crate::desired::endpoints::Verdict;
use crate::desired::explained::{ExplainedEndpoint, ExplainedPort, explain};
use crate::desired::frontends::{Field, Frontend};
use crate::model::VirtualServerKey;
use crate::reconcile::View;
use crate::state::{ObjectName, ObjectRef, Problem, State, TrafficPolicy};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// How a Service was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAnswer {
    /// Of the Service.
    pub namespace: String,
    /// Of the Service.
    pub name: String,
    /// Its ports, each in each family that it is proxied in.
    pub ports: Vec<Port>,
    /// What the kernel should hold for it, by address and by mark.
    pub virtual_servers: Vec<VirtualServer>,
    /// Which of its VIPs should be local by a route.
    pub routes: Vec<form::Route>,
    /// What departs from its virtual servers.
    pub drains: Vec<Drain>,
    /// What is wrong with it or its slices, a sentence each.
    pub problems: Vec<String>,
}

/// A port in one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Empty for the only one.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// The Service's.
    pub port: u16,
    /// The family of all that follows.
    pub family: Family,
    /// Its ways in.
    pub frontends: Vec<Way>,
    /// All its endpoints.
    pub endpoints: Vec<Endpoint>,
    /// How many endpoints are in slices that have no port of this name and protocol.
    pub endpoints_without_port: usize,
}

/// A way in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Way {
    /// The VIP, or the node's address.
    pub address: IpAddr,
    /// The port there.
    pub port: u16,
    /// What asks for it.
    pub kind: Kind,
    /// The path of the field that asks for it.
    pub field: String,
    /// Whose endpoints it may lead to.
    pub policy: Policy,
    /// The Service that has it instead, as `NAMESPACE/NAME`; null if this one has it.
    pub holder: Option<String>,
    /// Whether somebody else's virtual server is in the way.
    pub foreign: bool,
}

/// What kind of way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    ClusterIp,
    ExternalIp,
    LoadBalancerIp,
    NodePort,
}

/// A traffic policy, as Kubernetes writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Policy {
    Cluster,
    Local,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Where connections go.
    pub address: IpAddr,
    /// The port there.
    pub port: u16,
    /// `targetRef.name`: the pod's.
    pub name: Option<String>,
    /// Its share.
    pub weight: u16,
    /// Whether it is on this node.
    pub local: bool,
    /// Whether it gets traffic by the policy `Cluster`, and from clients on this node; null where nobody asks.
    pub cluster: Option<Judgement>,
    /// Whether it gets traffic by the policy `Local`; null where nobody asks.
    pub local_policy: Option<Judgement>,
}

/// [`Verdict`] in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "as in `Verdict`")]
pub enum Judgement {
    Chosen,
    LastResort,
    OnOtherNode,
    ForOtherNodes,
    ForOtherZones,
    NotReady,
    Terminating,
}

impl Judgement {
    /// Whether it gets traffic.
    pub fn is_chosen(self) -> bool {
        matches!(self, Self::Chosen | Self::LastResort)
    }
}

impl ServiceAnswer {
    /// How the Service of this name was decided; none if there is none.
    pub fn of(name: &ObjectName, subject: &Subject<'_>) -> Option<Self> {
        let view = &subject.view;
        let service = view.state.service(name)?;
        let keys = view.plan.keys_of(name);
        let server = |key: &VirtualServerKey| Some(VirtualServer::of(*key, view.plan.virtual_server(key)?));
        let is_of = |drain: &Drain| keys.contains(&drain.server.into());
        let problems = subject.problems.iter().filter(|problem| is_about(problem, name, view.state));
        Some(Self {
            namespace: name.namespace.to_string(),
            name: name.name.to_string(),
            ports: explain(service, view.state, view.settings).iter().map(|port| Port::of(port, name, view)).collect(),
            virtual_servers: keys.iter().filter_map(server).collect(),
            routes: wanted::routes(view, keys).map(form::Route::from).collect(),
            drains: drains(view, subject.now).filter(is_of).collect(),
            problems: problems.map(ToString::to_string).collect(),
        })
    }
}

impl ServiceAnswer {
    /// All ways in, each with the virtual server that serves it.
    pub fn ways(&self) -> impl Iterator<Item = (form::Server, &Way)> {
        self.ports.iter().flat_map(|port| {
            let server =
                |way: &Way| form::Server::Address { protocol: port.protocol, address: way.address, port: way.port };
            port.frontends.iter().map(move |way| (server(way), way))
        })
    }
}

/// Whether a problem is one of a Service, or of one of its slices.
fn is_about(problem: &Problem, service: &ObjectName, state: &State) -> bool {
    match &problem.object {
        Some(ObjectRef::Service(name)) => name == service,
        Some(ObjectRef::EndpointSlice(name)) => state.slices(service).any(|slice| slice.name == *name),
        None => false,
    }
}

impl Port {
    fn of(port: &ExplainedPort<'_>, service: &ObjectName, view: &View<'_>) -> Self {
        Self {
            name: port.port.name.to_string(),
            protocol: port.port.protocol.into(),
            port: port.port.port,
            family: port.family.into(),
            frontends: port.frontends.iter().filter_map(|frontend| Way::of(frontend, service, view)).collect(),
            endpoints: port.endpoints.iter().map(Endpoint::of).collect(),
            endpoints_without_port: port.without_port,
        }
    }
}

impl Way {
    /// Every frontend has an address.
    fn of(frontend: &Frontend, service: &ObjectName, view: &View<'_>) -> Option<Self> {
        let VirtualServerKey::Address { address, port, .. } = frontend.key else { return None };
        let holder = view.plan.owner(&frontend.key).filter(|owner| *owner != service);
        Some(Self {
            address,
            port,
            kind: frontend.field.into(),
            field: frontend.field.to_string(),
            policy: frontend.policy.into(),
            holder: holder.map(ToString::to_string),
            foreign: view.found.foreign.contains(&frontend.key),
        })
    }
}

impl Endpoint {
    fn of(explained: &ExplainedEndpoint<'_>) -> Self {
        let ExplainedEndpoint { key, endpoint, name, cluster, local } = *explained;
        Self {
            address: key.address,
            port: key.port,
            name: name.map(str::to_owned),
            weight: endpoint.weight,
            local: endpoint.is_local(),
            cluster: cluster.map(Judgement::from),
            local_policy: local.map(Judgement::from),
        }
    }
}

impl From<Field> for Kind {
    fn from(field: Field) -> Self {
        match field {
            Field::ClusterIp(_) => Self::ClusterIp,
            Field::ExternalIp(_) => Self::ExternalIp,
            Field::LoadBalancerIp(_) => Self::LoadBalancerIp,
            Field::NodePort(_) => Self::NodePort,
        }
    }
}

impl From<TrafficPolicy> for Policy {
    fn from(policy: TrafficPolicy) -> Self {
        match policy {
            TrafficPolicy::Cluster => Self::Cluster,
            TrafficPolicy::Local => Self::Local,
        }
    }
}

impl From<Verdict> for Judgement {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Chosen => Self::Chosen,
            Verdict::LastResort => Self::LastResort,
            Verdict::OnOtherNode => Self::OnOtherNode,
            Verdict::ForOtherNodes => Self::ForOtherNodes,
            Verdict::ForOtherZones => Self::ForOtherZones,
            Verdict::NotReady => Self::NotReady,
            Verdict::Terminating => Self::Terminating,
        }
    }
}
