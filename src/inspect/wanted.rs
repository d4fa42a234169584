//! What the kernel should hold by what the daemon knows, whole; in JSON and back.

use super::form::{self, Malformed, VirtualServer};
use crate::desired::netfilter::rules;
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
    /// How long a destination that departs may take.
    pub drain_timeout: Duration,
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
            node: view.state.node().clone(),
            ..Self::default()
        };
        wanted.add_virtual_servers(view);
        let keys: Vec<_> = wanted.model.virtual_servers.keys().copied().collect();
        wanted.model.routes = routes(view, &keys).collect();
        wanted.model.rules = rules_of(view);
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

/// The rules that each family should have.
pub fn rules_of(view: &View<'_>) -> BTreeMap<Family, RuleSettings> {
    let localhost = view.is_localhost_wanted && view.is_localhost_usable;
    rules(view.settings.netfilter.as_ref(), view.state, localhost)
}

/// The routes that go with virtual servers of these keys.
pub fn routes<'a>(view: &View<'a>, keys: &[VirtualServerKey]) -> impl Iterator<Item = (IpAddr, RouteSpec)> + use<'a> {
    let (found, plan, node) = (&view.found.model, view.plan, view.state.node());
    let addresses: BTreeSet<IpAddr> = keys.iter().filter_map(VirtualServerKey::address).collect();
    addresses.into_iter().filter_map(move |address| {
        let is_vip = plan.serves(address..=address)
            || found.routes.contains_key(&address)
            || found.is_on_kube_proxy_device(address);
        let route = routes::route(address, Standing { is_served: true, is_vip }, node);
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
    node: NodeForm,
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
        let Wanted { model, inherited, ours, in_doubt, localhost_path, drain_timeout, node } = wanted;
        let servers = |keys: &BTreeSet<VirtualServerKey>| keys.iter().copied().map(form::Server::from).collect();
        let virtual_servers = model.virtual_servers.iter();
        Self {
            virtual_servers: virtual_servers.map(|(key, server)| VirtualServer::of(*key, server)).collect(),
            inherited: servers(inherited),
            ours: servers(ours),
            routes: model.routes.iter().map(|(address, route)| (*address, *route).into()).collect(),
            rules: model.rules.iter().map(|(family, rules)| ((*family).into(), rules.to_string())).collect(),
            sets: model.sets.iter().map(SetForm::from).collect(),
            in_doubt: *in_doubt,
            localhost_path: *localhost_path,
            drain_timeout_milliseconds: u64::try_from(drain_timeout.as_millis()).unwrap_or(u64::MAX),
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
            node: Node { addresses, primary_ipv4, primary_ipv6 },
        })
    }
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
