//! One Service: what the daemon says of it, beside what the kernel holds.

use super::explained::{Explained, InKernel};
use super::target::Target;
use super::{ask, text};
use crate::cli::complain;
use crate::daemon::{self, Look};
use crate::inspect::{ServiceAnswer, differences, form};
use crate::kernel::ipvs::{DestinationEntry, VirtualServerEntry};
use crate::kernel::linux::Linux;
use crate::model::netfilter::{AddressPort, Member, SetKey, SetKind};
use crate::model::{Family, Model, Op, Protocol, VirtualServer, VirtualServerKey};
use crate::server::AskError;
use anyhow::bail;
use serde_json::json;
use std::net::SocketAddr;

/// Explains a Service; whether all is well, and what is to be printed.
pub fn explain(target: &Target, json: bool) -> anyhow::Result<(bool, String)> {
    let explained = match target {
        Target::Service { namespace, name, port } => {
            match super::ask_daemon(&format!("/v1/services/{namespace}/{name}")) {
                Err(AskError::Unknown(reason)) => {
                    complain(format_args!("{namespace}/{name}: {reason}"));
                    return Ok((false, String::new()));
                }
                Err(AskError::NoDaemon) => bail!("{}, and so names are not known; {WITHOUT}", AskError::NoDaemon),
                service => of_service(service?, port.as_deref())?,
            }
        }
        Target::At(target, protocol) => at(*target, *protocol)?,
    };
    let Explained { service, kernel, differences } = &explained;
    // Where nobody knows a Service there is only what the kernel has.
    let is_known = service.as_ref().map_or(!kernel.is_empty(), |service| service.problems.is_empty());
    let is_well = differences.is_empty() && is_known;
    Ok((is_well, if json { in_json(&explained)? } else { text::service(&explained) }))
}

/// What works without a daemon.
const WITHOUT: &str = "`ipvsd explain ADDRESS:PORT/PROTOCOL`, `ipvsd explain --flow` and `ipvsd list` look at the \
                       kernel alone, `ipvsd diff --manifests` also at manifests";

/// The Service that is reached there, or else what the kernel has there.
fn at(target: SocketAddr, protocol: Protocol) -> anyhow::Result<Explained> {
    let (address, port) = (target.ip(), target.port());
    if let Some(service) = ask(&format!("/v1/service-at/{protocol}/{address}/{port}"))? {
        return of_service(service, None);
    }
    let Look { kernel, mut linux, .. } = daemon::look()?;
    let key = SetKey { kind: SetKind::ShortCircuit, family: Family::of(address) };
    let member = Member::AddressPort(AddressPort { address, protocol, port });
    let mark = kernel.model.sets.get(&key).and_then(|set| *set.members.get(&member)?);
    let by_mark = mark.map(|mark| VirtualServerKey::Mark { mark: mark.bits(), family: key.family });
    let keys: Vec<_> = [VirtualServerKey::new(address, port, protocol)].into_iter().chain(by_mark).collect();
    let kernel = linux.entries(&keys)?.iter().filter_map(InKernel::of).collect();
    Ok(Explained { service: None, kernel, differences: Vec::new() })
}

fn of_service(mut service: ServiceAnswer, port: Option<&str>) -> anyhow::Result<Explained> {
    if let Some(port) = port {
        keep_port(&mut service, port)?;
    }
    let mut linux = Linux::open_as_found()?;
    let keys: Vec<_> = service.virtual_servers.iter().map(|server| VirtualServerKey::from(server.server)).collect();
    let entries = linux.entries(&keys)?;
    // Others' are left alone, and so differ from nothing.
    let mut comparable = service.clone();
    let foreign: Vec<_> = service.ways().filter(|(_, way)| way.foreign).map(|(server, _)| server).collect();
    comparable.virtual_servers.retain(|server| !foreign.contains(&server.server));
    let mut found = Model { routes: linux.routes()?, ..Model::default() };
    for (server, destinations) in &entries {
        found.virtual_servers.extend(in_model(server, destinations)?);
    }
    let differences = differences::of_service(&comparable, &found)?;
    Ok(Explained { service: Some(service), kernel: entries.iter().filter_map(InKernel::of).collect(), differences })
}

/// Leaves what is of a port, by its number or name.
fn keep_port(service: &mut ServiceAnswer, port: &str) -> anyhow::Result<()> {
    service.ports.retain(|one| one.name == port || one.port.to_string() == port);
    if service.ports.is_empty() {
        bail!("Service {}/{} has no port {port}", service.namespace, service.name);
    }
    let servers: Vec<_> = service.ways().map(|(server, _)| server).collect();
    let ends: Vec<_> =
        service.ports.iter().flat_map(|port| &port.endpoints).map(|one| (one.address, one.port)).collect();
    let is_of_port = |server: &form::VirtualServer| match server.server {
        form::Server::Address { .. } => servers.contains(&server.server),
        // It has the endpoints of its port.
        form::Server::Mark { .. } => server.destinations.iter().all(|one| ends.contains(&(one.address, one.port))),
    };
    service.virtual_servers.retain(is_of_port);
    let kept: Vec<_> = service.virtual_servers.iter().map(|server| server.server).collect();
    service.drains.retain(|drain| kept.contains(&drain.server));
    Ok(())
}

/// None for one of a protocol that IPVS does not balance.
fn in_model(
    server: &VirtualServerEntry,
    destinations: &[DestinationEntry],
) -> anyhow::Result<Option<(VirtualServerKey, VirtualServer)>> {
    let Some(key) = server.identity.key() else { return Ok(None) };
    let strange = |malformed: crate::kernel::netlink::Malformed| anyhow::anyhow!("{key}: {}", malformed.0);
    let spec = server.spec().map_err(strange)?;
    let destination = |entry: &DestinationEntry| Ok((entry.key, entry.spec().map_err(strange)?));
    let destinations = destinations.iter().map(destination).collect::<anyhow::Result<_>>()?;
    Ok(Some((key, VirtualServer { spec, destinations })))
}

fn in_json(explained: &Explained) -> serde_json::Result<String> {
    let Explained { service, kernel, differences } = explained;
    let differences: Vec<_> = differences.iter().map(Op::to_string).collect();
    let whole = json!({ "service": service, "kernel": kernel, "differences": differences });
    Ok(serde_json::to_string_pretty(&whole)? + "\n")
}
