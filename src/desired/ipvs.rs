//! How a Service's connections are spread: scheduler, flags, persistence, and the virtual server made of it all.

use super::Settings;
use super::endpoints::Chosen;
use crate::model::{
    DestinationKey, DestinationSpec, Family, Persistence, SchedulerFlags, SchedulerName, VirtualServer,
    VirtualServerSpec,
};
use crate::state::{Scheduling, Service};

/// The settings of a Service's virtual servers in one family.
pub fn spec(service: &Service, family: Family, settings: &Settings) -> VirtualServerSpec {
    let Scheduling { scheduler, flags } = match service.scheduling {
        Some(own) if missing_scheduler(service, settings).is_none() => own,
        _ => settings.scheduling,
    };
    // Each client for itself: the longest prefix.
    let persistence = service.affinity.map(|timeout| Persistence { timeout, prefix: family.bits() });
    VirtualServerSpec { scheduler, flags, persistence }
}

/// The settings of the virtual server that has the endpoints of the whole cluster for clients on this node.
///
/// With persistence a virtual server by mark does not translate ports (`ip_vs_sched_persist`: a template of a mark has
/// none). So there a client keeps its endpoint by hashing its address, which is stable as long as the endpoints are.
pub fn short_circuit_spec(spec: VirtualServerSpec, settings: &Settings) -> VirtualServerSpec {
    if spec.persistence.is_none() {
        return spec;
    }
    let has_maglev = !settings.unavailable.contains(&SchedulerName::MH);
    let scheduler = if has_maglev { SchedulerName::MH } else { SchedulerName::SH };
    VirtualServerSpec { scheduler, flags: SchedulerFlags::FALLBACK, persistence: None }
}

/// The scheduler a Service asks for and the kernel cannot load.
pub fn missing_scheduler(service: &Service, settings: &Settings) -> Option<SchedulerName> {
    service.scheduling.map(|own| own.scheduler).filter(|name| settings.unavailable.contains(name))
}

/// A virtual server that masquerades to `chosen` by weight.
pub fn virtual_server(spec: VirtualServerSpec, chosen: &Chosen) -> VirtualServer {
    let destination = |(key, weight): (&DestinationKey, &u16)| (*key, DestinationSpec::masquerading((*weight).into()));
    VirtualServer { spec, destinations: chosen.iter().map(destination).collect() }
}
