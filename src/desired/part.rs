//! What one Service asks of this node's kernel: its part of the plan.

use super::frontends::{self, Field, Frontend};
use super::{Settings, endpoints, ipvs};
use crate::model::{VirtualServer, VirtualServerKey};
use crate::state::{ObjectRef, Problem, Service, State};
use std::collections::BTreeMap;

/// A Service's virtual servers, not yet compared with what others ask for.
#[derive(Debug, Default)]
pub struct Part {
    /// By key, with the field that asks for it.
    pub virtual_servers: BTreeMap<VirtualServerKey, (Field, VirtualServer)>,
    /// What is wrong with the Service as this node sees it.
    pub problems: Vec<Problem>,
}

impl Part {
    /// The part of `service`.
    pub fn of(service: &Service, state: &State, settings: &Settings) -> Self {
        let mut part = Self::default();
        for (index, port) in service.ports.iter().enumerate() {
            let mut made = BTreeMap::new();
            for frontend in frontends::of_port(service, (index, port), state.node()) {
                let family = frontend.key.family();
                let server = made.entry(family).or_insert_with(|| {
                    let slices = state.slices(&service.name);
                    let chosen = endpoints::chosen(slices, (&port.name, port.protocol), family);
                    ipvs::virtual_server(ipvs::spec(service, family, settings), &chosen)
                });
                part.add(service, &frontend, server);
            }
        }
        if let Some(scheduler) = ipvs::missing_scheduler(service, settings) {
            let usual = settings.scheduling.scheduler;
            let message = format!(
                "the kernel cannot load the scheduler {scheduler} (module ip_vs_{scheduler}): {usual} serves instead"
            );
            part.problems.push(problem(service, "metadata.annotations[ipvsd.io/scheduler]".into(), message));
        }
        part
    }

    /// An address listed twice asks twice for the same virtual server, which is no problem; a port that asks for
    /// another port's virtual server is one.
    fn add(&mut self, service: &Service, frontend: &Frontend, server: &VirtualServer) {
        match self.virtual_servers.get(&frontend.key) {
            None => drop(self.virtual_servers.insert(frontend.key, (frontend.field, server.clone()))),
            Some((_, same)) if same == server => {}
            Some((other, _)) => {
                let message = format!("{} is asked for by {other} too, which has it", frontend.key);
                self.problems.push(problem(service, frontend.field.to_string(), message));
            }
        }
    }
}

/// A problem with a Service.
pub fn problem(service: &Service, field: String, message: String) -> Problem {
    let object = Some(ObjectRef::Service(service.name.clone()));
    Problem { origin: service.origin.clone(), object, field, message }
}
