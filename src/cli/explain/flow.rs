//! What becomes of a packet: read from the kernel, with the names that a daemon knows.

use super::ask;
use super::target::FlowText;
use super::text::line;
use crate::daemon::{self, Look};
use crate::inspect::flow::{self, Client, Explanation, Flow, Outcome, Step, Way, World};
use crate::inspect::{ServiceAnswer, form};
use crate::model::{Protocol, VirtualServerKey, VirtualServerSpec};
use crate::state::OneLine;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What there is to show of a packet.
struct Explained {
    flow: Flow,
    explanation: Explanation,
    /// `NAMESPACE/NAME` of the Service it is for; none if it is for none, or without a daemon.
    service: Option<String>,
    /// The names of the Service's endpoints, as far as they have any.
    names: BTreeMap<SocketAddr, String>,
}

/// Explains a flow; whether somebody gets it, and what is to be printed.
pub fn explain(text: &FlowText, device: Option<String>, json: bool) -> anyhow::Result<(bool, String)> {
    let FlowText { source, target, protocol } = *text;
    let Look { kernel, node, mut linux } = daemon::look()?;
    let device = match (device, source) {
        (Some(device), _) => Some(device),
        (None, Some(source)) => linux.device_towards(source)?,
        (None, None) => None,
    };
    let flow = Flow { source, device, target, protocol };
    let world = World { model: &kernel.model, foreign: &kernel.foreign, node: &node };
    let explanation = flow::explain(&flow, &world)?;
    let service: Option<ServiceAnswer> = ask(&format!("/v1/service-at/{protocol}/{}/{}", target.ip(), target.port()))?;
    let names = service.as_ref().map(names).unwrap_or_default();
    let service = service.map(|service| format!("{}/{}", service.namespace, service.name));
    let is_served = matches!(explanation.outcome, Outcome::Balanced(..));
    let explained = Explained { flow, explanation, service, names };
    Ok((is_served, if json { explained.in_json()? } else { explained.in_text() }))
}

fn names(service: &ServiceAnswer) -> BTreeMap<SocketAddr, String> {
    let endpoints = service.ports.iter().flat_map(|port| &port.endpoints);
    let name =
        |one: &crate::inspect::service::Endpoint| Some((SocketAddr::new(one.address, one.port), one.name.clone()?));
    endpoints.filter_map(name).collect()
}

impl Explained {
    fn in_text(&self) -> String {
        let Self { flow, explanation: Explanation { source, client, steps, outcome }, service, .. } = self;
        let mut text = String::new();
        let service = service.as_ref().map(|name| format!(", Service {}", OneLine(name))).unwrap_or_default();
        line(&mut text, format_args!("{} {source} -> {}{service}", flow.protocol, flow.target));
        let device = flow.device.as_ref().map(|device| format!(", by device {}", OneLine(device)));
        line(&mut text, format_args!("from {}{}", client_words(*client), device.unwrap_or_default()));
        steps.iter().for_each(|step| rule(&mut text, step));
        match outcome {
            Outcome::Forwarded => line(&mut text, format_args!("=> forwarded: it is for no address of this node")),
            Outcome::Delivered => line(
                &mut text,
                format_args!("=> no virtual server takes it: a process of the node gets it, if one listens there"),
            ),
            Outcome::Dropped => line(&mut text, format_args!("=> dropped by the last rule above")),
            Outcome::Refused => line(&mut text, format_args!("=> refused by the last rule above")),
            Outcome::Foreign(key) => line(&mut text, format_args!("=> {key} takes it, which ipvsd did not make")),
            Outcome::Unserved(key, spec) => line(
                &mut text,
                format_args!("=> {key} {spec} takes it and refuses it: no destination takes new connections"),
            ),
            Outcome::Balanced(key, spec, ways) => self.balanced(&mut text, (*key, *spec), ways),
        }
        text
    }

    fn balanced(&self, text: &mut String, (key, spec): (VirtualServerKey, VirtualServerSpec), ways: &[Way]) {
        line(text, format_args!("=> {key} {spec} takes it and gives it to one of"));
        for way in ways {
            let at = SocketAddr::new(way.destination.address, way.destination.port);
            let name = self.names.get(&at).map(|name| format!(" {}", OneLine(name))).unwrap_or_default();
            let seen = match way.is_masqueraded {
                true => "the node as its client".to_owned(),
                false => format!("{} as its client", self.explanation.source),
            };
            line(text, format_args!("  {at}{name} weight {}, which sees {seen}", way.weight));
        }
        // The rules on the way out are the same for most.
        let mut told: Vec<&[Step]> = Vec::new();
        for way in ways.iter().filter(|way| !way.steps.is_empty()) {
            if !told.contains(&&way.steps[..]) {
                line(text, format_args!("on the way to {}", way.destination));
                way.steps.iter().for_each(|step| rule(text, step));
                told.push(&way.steps);
            }
        }
    }

    fn in_json(&self) -> serde_json::Result<String> {
        let Self { flow, explanation: Explanation { source, client, steps, outcome }, service, names } = self;
        let (word, server, ways) = match outcome {
            Outcome::Forwarded => ("forwarded", None, &[][..]),
            Outcome::Delivered => ("delivered", None, &[][..]),
            Outcome::Dropped => ("dropped", None, &[][..]),
            Outcome::Refused => ("refused", None, &[][..]),
            Outcome::Foreign(key) => ("foreign", Some(*key), &[][..]),
            Outcome::Unserved(key, _) => ("unserved", Some(*key), &[][..]),
            Outcome::Balanced(key, _, ways) => ("balanced", Some(*key), &ways[..]),
        };
        let client = match client {
            Client::Node => "node",
            Client::Pod => "pod",
            Client::Outside => "outside",
            Client::Unknown => "unknown",
        };
        let protocol = Protocol::name(flow.protocol);
        let whole = json!({
            "protocol": protocol,
            "source": source,
            "address": flow.target.ip(),
            "port": flow.target.port(),
            "client": client,
            "device": flow.device,
            "service": service,
            "rules": steps.iter().map(step_in_json).collect::<Vec<_>>(),
            "outcome": word,
            "virtualServer": server.map(form::Server::from),
            "destinations": ways.iter().map(|way| way_in_json(way, names)).collect::<Vec<_>>(),
        });
        Ok(serde_json::to_string_pretty(&whole)? + "\n")
    }
}

fn rule(text: &mut String, step: &Step) {
    let Step { hook, table, chain, rule, effect } = step;
    line(text, format_args!("  {} {table} {chain}: {rule}", hook.name()));
    line(text, format_args!("    {effect}"));
}

fn client_words(client: Client) -> &'static str {
    match client {
        Client::Node => "the node itself",
        Client::Pod => "a pod of this node",
        Client::Outside => "outside, or a pod of another node",
        Client::Unknown => "elsewhere: the rules do not know pods of this node",
    }
}

fn step_in_json(step: &Step) -> Value {
    let Step { hook, table, chain, rule, effect } = step;
    json!({ "hook": hook.name(), "table": table, "chain": chain, "rule": rule, "effect": effect })
}

fn way_in_json(way: &Way, names: &BTreeMap<SocketAddr, String>) -> Value {
    let at = SocketAddr::new(way.destination.address, way.destination.port);
    json!({
        "address": at.ip(),
        "port": at.port(),
        "name": names.get(&at),
        "weight": way.weight,
        "masqueraded": way.is_masqueraded,
        "rules": way.steps.iter().map(step_in_json).collect::<Vec<_>>(),
    })
}
