//! What the kernel should hold by what the daemon knows, whole; in JSON and back.

use super::form::{self, Malformed, VirtualServer};
use crate::desired::routes::{self, Standing};
use crate::model::netfilter::{Mark, Member, RuleSettings, Set, SetKey, SetKind};
use crate::model::{Family, Model, RouteSpec, VirtualServerKey};
use crate::reconcile::View;
use crate::state::Node;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// What the kernel should hold, before what drains is added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Form")]
pub struct Wanted {
    /// Virtual servers, sets and rules; and the routes that go with these virtual servers.
    pub model: Model,
    /// Those of the virtual servers that no Service asks for, kept because some input cannot be read.
    pub inherited: BTreeSet<VirtualServerKey>,
    /// Virtual servers that were ours when they were last seen: one that is foreign now was edited by hand.
    pub ours: BTreeSet<VirtualServerKey>,
    /// Whether some input cannot be read: then members of sets stay, whoever asks for them.
    pub in_doubt: bool,
    /// Whether the way from 127.0.0.1 should be there; none where it should and cannot be had.
    pub localhost_path: Option<bool>,
    /// How long a destination that departs may take, where its Service does not say it.
    pub drain_timeout: Duration,
    /// How long where it does.
    pub drain_timeouts: BTreeMap<VirtualServerKey, Duration>,
    /// How long a virtual server nobody wants stays after connections were cut.
    pub linger: Duration,
    /// Those that stay for this reason.
    pub lingering: BTreeSet<VirtualServerKey>,
    /// Addresses that are another node's own, which get no route.
    pub elsewhere: BTreeSet<IpAddr>,
    /// The node's facts that routes depend on.
    pub node: Node,
}

impl Wanted {
    /// What is wanted now.
    pub fn of(view: &View<'_>) -> Self {
        let mut wanted = Self {
            ours: view.found.model.virtual_servers.keys().copied().collect(),
            in_doubt: view.state.is_in_doubt(),
            drain_timeout: view.options.drain_timeout,
            drain_timeouts: drain_timeouts(view),
            linger: view.options.linger,
            elsewhere: elsewhere(view),
            lingering: view.drains.lingering_servers().collect(),
            node: view.state.node().clone(),
            ..Self::default()
        };
        wanted.add_virtual_servers(view);
        let keys: Vec<_> = wanted.model.virtual_servers.keys().copied().collect();
        wanted.model.routes = routes(view, &keys).collect();
        wanted.model.rules = view.rules();
        let has_way = view.is_localhost_wanted && view.is_localhost_usable;
        wanted.localhost_path = (has_way || !view.is_localhost_wanted).then_some(has_way);
        wanted.add_sets(view);
        wanted
    }

    fn add_virtual_servers(&mut self, view: &View<'_>) {
        let kept = view.inherited.into_iter().flat_map(|inherited| inherited.keys());
        let keys: BTreeSet<_> = view.plan.keys().chain(kept).collect();
        for key in keys {
            let planned = view.plan.virtual_server(&key);
            let standing = match view.inherited {
                Some(inherited) => inherited.standing(&key, planned).map(|server| server.into_owned()),
                None => planned.cloned(),
            };
            if standing.is_some() && planned.is_none() {
                self.inherited.insert(key);
            }
            self.model.virtual_servers.extend(standing.map(|server| (key, server)));
        }
    }

    fn add_sets(&mut self, view: &View<'_>) {
        let claims = &view.plan.netfilter().claims;
        for key in SetKey::all().filter(|key| self.model.rules.contains_key(&key.family)) {
            let members = if key.kind == SetKind::Vips {
                let of_family = self.model.routes.keys().filter(|vip| Family::of(**vip) == key.family);
                of_family.map(|vip| (Member::Address(*vip), None)).collect()
            } else {
                claims.members(key)
            };
            self.model.sets.insert(key, Set::with(key.kind, members));
        }
    }
}

fn elsewhere(view: &View<'_>) -> BTreeSet<IpAddr> {
    let keys = view.plan.keys().chain(view.found.model.virtual_servers.keys().copied());
    keys.filter_map(|key| key.address()).filter(|address| view.is_elsewhere(*address)).collect()
}

fn drain_timeouts(view: &View<'_>) -> BTreeMap<VirtualServerKey, Duration> {
    let keys = view.plan.keys().chain(view.found.model.virtual_servers.keys().copied());
    keys.filter_map(|key| Some((key, view.plan.drain_timeout(&key)?))).collect()
}

/// The routes that go with virtual servers of these keys.
pub fn routes<'a>(view: &View<'a>, keys: &[VirtualServerKey]) -> impl Iterator<Item = (IpAddr, RouteSpec)> + use<'a> {
    let view = *view;
    let (found, plan, node) = (&view.found.model, view.plan, view.state.node());
    let addresses: BTreeSet<IpAddr> = keys.iter().filter_map(VirtualServerKey::address).collect();
    addresses.into_iter().filter_map(move |address| {
        let is_vip = plan.serves(address..=address)
            || found.routes.contains_key(&address)
            || found.is_on_kube_proxy_device(address);
        let is_elsewhere = view.is_elsewhere(address);
        let route = routes::route(address, Standing { is_served: true, is_vip, is_elsewhere }, node);
        route.map(|route| (address, route))
    })
}

/// A [`Wanted`] in JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Form {
    virtual_servers: Vec<VirtualServer>,
    inherited: Vec<form::Server>,
    ours: Vec<form::Server>,
    routes: Vec<form::Route>,
    rules: BTreeMap<form::Family, String>,
    sets: Vec<SetForm>,
    in_doubt: bool,
    localhost_path: Option<bool>,
    drain_timeout_milliseconds: u64,
    drain_timeouts: Vec<DrainTimeout>,
    linger_milliseconds: u64,
    lingering: Vec<form::Server>,
    elsewhere: BTreeSet<IpAddr>,
    node: NodeForm,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct DrainTimeout {
    #[serde(flatten)]
    server: form::Server,
    milliseconds: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct SetForm {
    name: String,
    members: Vec<MemberForm>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct MemberForm {
    member: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeForm {
    addresses: BTreeSet<IpAddr>,
    #[serde(rename = "primaryIPv4")]
    primary_ipv4: Option<IpAddr>,
    #[serde(rename = "primaryIPv6")]
    primary_ipv6: Option<IpAddr>,
}

impl Serialize for Wanted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Form::from(self).serialize(serializer)
    }
}

impl From<&Wanted> for Form {
    fn from(wanted: &Wanted) -> Self {
        let Wanted { model, node, .. } = wanted;
        let timeout = |(key, timeout): (&VirtualServerKey, &Duration)| DrainTimeout {
            server: (*key).into(),
            milliseconds: milliseconds(*timeout),
        };
        let servers = |keys: &BTreeSet<VirtualServerKey>| keys.iter().copied().map(form::Server::from).collect();
        let virtual_servers = model.virtual_servers.iter();
        Self {
            virtual_servers: virtual_servers.map(|(key, server)| VirtualServer::of(*key, server)).collect(),
            inherited: servers(&wanted.inherited),
            ours: servers(&wanted.ours),
            routes: model.routes.iter().map(|(address, route)| (*address, *route).into()).collect(),
            rules: model.rules.iter().map(|(family, rules)| ((*family).into(), rules.to_string())).collect(),
            sets: model.sets.iter().map(SetForm::from).collect(),
            in_doubt: wanted.in_doubt,
            localhost_path: wanted.localhost_path,
            drain_timeout_milliseconds: milliseconds(wanted.drain_timeout),
            drain_timeouts: wanted.drain_timeouts.iter().map(timeout).collect(),
            linger_milliseconds: milliseconds(wanted.linger),
            lingering: servers(&wanted.lingering),
            elsewhere: wanted.elsewhere.clone(),
            node: NodeForm {
                addresses: node.addresses.clone(),
                primary_ipv4: node.primary_ipv4,
                primary_ipv6: node.primary_ipv6,
            },
        }
    }
}

impl From<(&SetKey, &Set)> for SetForm {
    fn from((key, set): (&SetKey, &Set)) -> Self {
        let member = |(member, mark): (&Member, &Option<Mark>)| MemberForm {
            member: member.to_string(),
            mark: mark.map(Mark::bits),
        };
        Self { name: key.name(), members: set.members.iter().map(member).collect() }
    }
}

impl TryFrom<Form> for Wanted {
    type Error = Malformed;

    fn try_from(form: Form) -> Result<Self, Malformed> {
        let rules = |(family, text): (form::Family, String)| {
            let settings: RuleSettings = text.parse().map_err(|_| Malformed(text, "what rules depend on"))?;
            Ok((family.into(), settings))
        };
        let servers = |servers: Vec<form::Server>| servers.into_iter().map(VirtualServerKey::from).collect();
        let timeout = |one: DrainTimeout| (one.server.into(), Duration::from_millis(one.milliseconds));
        let NodeForm { addresses, primary_ipv4, primary_ipv6 } = form.node;
        Ok(Self {
            model: Model {
                virtual_servers: form.virtual_servers.iter().map(VirtualServer::to_model).collect::<Result<_, _>>()?,
                routes: form.routes.into_iter().map(form::Route::into).collect(),
                sets: form.sets.into_iter().map(set).collect::<Result<_, _>>()?,
                rules: form.rules.into_iter().map(rules).collect::<Result<_, _>>()?,
                ..Model::default()
            },
            inherited: servers(form.inherited),
            ours: servers(form.ours),
            in_doubt: form.in_doubt,
            localhost_path: form.localhost_path,
            drain_timeout: Duration::from_millis(form.drain_timeout_milliseconds),
            drain_timeouts: form.drain_timeouts.into_iter().map(timeout).collect(),
            linger: Duration::from_millis(form.linger_milliseconds),
            lingering: servers(form.lingering),
            elsewhere: form.elsewhere,
            node: Node { addresses, primary_ipv4, primary_ipv6 },
        })
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn set(form: SetForm) -> Result<(SetKey, Set), Malformed> {
    let key = SetKey::all().find(|key| key.name() == form.name);
    let key = key.ok_or(Malformed(form.name, "the name of a set"))?;
    let member = |MemberForm { member, mark }: MemberForm| {
        let found = form::member(key.kind, &member).ok_or(Malformed(member, "a member of its set"))?;
        Ok((found, mark.and_then(Mark::from_bits)))
    };
    let members = form.members.into_iter().map(member).collect::<Result<_, _>>()?;
    Ok((key, Set::with(key.kind, members)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_form_of_what_is_wanted_is_refused() {
        let good = serde_json::to_value(Wanted::default()).unwrap();
        assert_eq!(serde_json::from_value::<Wanted>(good.clone()).unwrap(), Wanted::default());
        for (pointer, bad) in [
            ("/sets", r#"[{"name": "NOBODY", "members": []}]"#),
            ("/sets", r#"[{"name": "KUBE-CLUSTER-IP", "members": [{"member": "10.0.0.1"}]}]"#),
            ("/sets", r#"[{"name": "KUBE-CLUSTER-IP", "members": [{"member": "10.0.0.1,tcp:80,10.0.0.1"}]}]"#),
            ("/rules", r#"{"IPv4": "masquerade"}"#),
            ("/routes", r#"[{"address": "10.0.0"}]"#),
            ("/inDoubt", "1"),
        ] {
            let mut value = good.clone();
            *value.pointer_mut(pointer).unwrap() = serde_json::from_str(bad).unwrap();
            assert!(serde_json::from_value::<Wanted>(value).is_err(), "{pointer} {bad}");
        }
    }
}
