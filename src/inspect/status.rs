//! How the daemon is: what it knows, what it holds, what its last pass came to, what is wrong.

use super::Subject;
use super::form::{Drain, Family};
use crate::desired::{Inherited, Moment};
use crate::model::{Op, VirtualServerKey};
use crate::reconcile::{Report, View};
use crate::state::OneLine;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// Drains that are listed; of more only the number is told.
const DRAINS: usize = 1000;

/// How the daemon is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The program's.
    pub version: String,
    /// What balances: `ipvs` or `iptables`.
    pub mode: String,
    /// Why IPVS does not balance where it is asked for; null where what is asked for does.
    pub fallback: Option<String>,
    /// Whether the input is known. Before that nothing is decided.
    pub informed: bool,
    /// How many Services are known.
    pub services: usize,
    /// How many EndpointSlices are known.
    pub endpoint_slices: usize,
    /// How many virtual servers are wanted.
    pub virtual_servers: usize,
    /// How many destinations these should have.
    #[serde(default)]
    pub destinations: usize,
    /// How many virtual servers stand only because some input cannot be read.
    pub inherited: usize,
    /// How many destinations depart.
    pub draining: usize,
    /// Those, or the first thousand.
    pub drains: Vec<Drain>,
    /// None before the first.
    pub last_pass: Option<PassForm>,
    /// This node.
    pub node: NodeForm,
    /// What netfilter's rules depend on, by family; nothing where ipvsd keeps off netfilter.
    pub netfilter: BTreeMap<Family, String>,
    /// What is wrong with the input, a sentence each.
    pub problems: Vec<String>,
}

/// What the last pass came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PassForm {
    /// Since its end.
    pub seconds_ago: u64,
    /// How long it took.
    pub milliseconds: u64,
    /// Operations that failed, with the reason, since everything was last read and tried.
    pub failures: Vec<String>,
    /// Why the kernel could not be read; null if it could.
    pub unread: Option<String>,
}

/// What is known of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeForm {
    /// On its devices.
    pub addresses: Vec<IpAddr>,
    /// The sources of the node's own traffic.
    pub primary: Vec<IpAddr>,
    /// What the cluster says that its addresses are.
    pub object_addresses: Vec<IpAddr>,
    /// What the cluster says.
    pub zone: Option<String>,
    /// What the cluster says.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
}

/// A pass, as the wheel remembers it.
#[derive(Clone, Debug, Default)]
pub struct LastPass {
    /// When it ended.
    ended: Moment,
    took: Duration,
    /// What failed, by what is said of it.
    failures: BTreeMap<String, Op>,
    unread: Option<String>,
}

impl LastPass {
    /// What is remembered of a pass that ended just now and took so long. What failed `before` it stands until everything
    /// is read and tried again.
    pub fn of(report: &Report, ended: Moment, took: Duration, before: Option<Self>) -> Self {
        let text = |(op, cause): &(Op, _)| OneLine(format_args!("{op}: {cause}")).to_string();
        let standing = before.filter(|_| !report.read_all).map(|before| before.failures).unwrap_or_default();
        let failed = report.failures().map(|failure| (text(failure), failure.0));
        Self {
            ended,
            took,
            failures: standing.into_iter().chain(failed).collect(),
            unread: report.unread.as_ref().map(|error| OneLine(error).to_string()),
        }
    }

    /// Operations that failed, how many of each kind.
    pub fn failed(&self) -> BTreeMap<&'static str, usize> {
        let mut failed = BTreeMap::new();
        self.failures.values().for_each(|op| *failed.entry(op.kind()).or_default() += 1);
        failed
    }

    /// The virtual servers of which something failed.
    pub fn failing(&self) -> BTreeSet<VirtualServerKey> {
        self.failures.values().filter_map(Op::virtual_server).collect()
    }

    fn form(&self, now: Moment) -> PassForm {
        PassForm {
            seconds_ago: now.saturating_sub(self.ended).as_secs(),
            milliseconds: u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            failures: self.failures.keys().cloned().collect(),
            unread: self.unread.clone(),
        }
    }
}

impl Status {
    /// How it is now.
    pub fn of(subject: &Subject<'_>) -> Self {
        let Subject { view, problems, now, is_informed, last_pass, fallback } = *subject;
        let (services, endpoint_slices) = view.state.counts();
        let netfilter = view.rules();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode: if view.settings.balances_by_nat() { "iptables" } else { "ipvs" }.to_owned(),
            fallback: fallback.map(|why| OneLine(why).to_string()),
            informed: is_informed,
            services,
            endpoint_slices,
            virtual_servers: view.plan.virtual_servers().len(),
            destinations: view.plan.virtual_servers().map(|server| server.destinations.len()).sum(),
            inherited: view.inherited.map_or(0, Inherited::len),
            draining: view.drains.len(),
            drains: drains(&view, now).take(DRAINS).collect(),
            last_pass: last_pass.map(|pass| pass.form(now)),
            node: node(&view),
            netfilter: netfilter.into_iter().map(|(family, settings)| (family.into(), settings.to_string())).collect(),
            problems: problems.iter().map(ToString::to_string).collect(),
        }
    }
}

/// The departing destinations.
pub fn drains<'a>(view: &View<'a>, now: Moment) -> impl Iterator<Item = Drain> + use<'a> {
    let (drains, plan, usual) = (view.drains, view.plan, view.options.drain_timeout);
    drains.departing().map(move |(key, destination, since)| {
        let deadline = since.saturating_add(plan.drain_timeout(&key).unwrap_or(usual));
        Drain {
            server: key.into(),
            destination: destination.address,
            destination_port: destination.port,
            seconds_left: deadline.saturating_sub(now).as_secs(),
        }
    })
}

fn node(view: &View<'_>) -> NodeForm {
    let (node, object) = (view.state.node(), view.state.node_object());
    NodeForm {
        addresses: node.addresses.iter().copied().collect(),
        primary: node.primary_ipv4.into_iter().chain(node.primary_ipv6).collect(),
        object_addresses: object.addresses.clone(),
        zone: object.zone.as_deref().map(str::to_owned),
        pod_cidrs: object.pod_cidrs.iter().map(ToString::to_string).collect(),
    }
}
