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
    let by_rules = settings.balances_by_nat().then(|| Scheduling::with_usual_flags(SchedulerName::RANDOM));
    let chosen = service.scheduling.filter(|_| missing_scheduler(service, settings).is_none());
    let is_shared = settings.shares_affinity && service.scheduling.is_none() && service.affinity.is_some();
    let shared = || by_client(settings).filter(|_| is_shared);
    let Scheduling { scheduler, flags } = by_rules.or(chosen).or_else(shared).unwrap_or(settings.scheduling);
    // Each client for itself: the longest prefix.
    let persistence = service.affinity.map(|timeout| Persistence { timeout, prefix: family.bits() });
    VirtualServerSpec { scheduler, flags, persistence }
}

/// The settings of the virtual server that has the endpoints of the whole cluster for clients on this node.
///
/// With persistence a virtual server by mark does not translate ports (`ip_vs_sched_persist`: a template of a mark has
/// none). So there a client keeps its endpoint by hashing its address, which is stable as long as the endpoints are.
/// Netfilter's rules have no such limit.
pub fn short_circuit_spec(spec: VirtualServerSpec, settings: &Settings) -> VirtualServerSpec {
    if spec.persistence.is_none() || settings.balances_by_nat() {
        return spec;
    }
    let Scheduling { scheduler, flags } = by_client(settings).unwrap_or(BY_CLIENT_WITHOUT_MAGLEV);
    VirtualServerSpec { scheduler, flags, persistence: None }
}

/// Virtual servers with the same destinations choose the same one for the same client, so that affinity, which the kernel
/// has for each virtual server alone, begins alike by whichever way of a port a client comes first. `mh` hardly heeds the
/// order in which destinations were added; with `sh` it decides, and no two virtual servers need have the same.
/// Without the flag, clients of a destination that drains would be refused.
fn by_client(settings: &Settings) -> Option<Scheduling> {
    let has_maglev = !settings.unavailable.contains(&SchedulerName::MH);
    has_maglev.then_some(Scheduling { scheduler: SchedulerName::MH, flags: SchedulerFlags::FALLBACK })
}

/// Where the kernel lacks `mh`, one virtual server by itself has affinity with this.
const BY_CLIENT_WITHOUT_MAGLEV: Scheduling =
    Scheduling { scheduler: SchedulerName::SH, flags: SchedulerFlags::FALLBACK };

/// The scheduler a Service asks for and the kernel cannot load.
pub fn missing_scheduler(service: &Service, settings: &Settings) -> Option<SchedulerName> {
    service.scheduling.map(|own| own.scheduler).filter(|name| settings.unavailable.contains(name))
}

/// A virtual server that masquerades to `chosen` by weight.
pub fn virtual_server(spec: VirtualServerSpec, chosen: &Chosen) -> VirtualServer {
    let destination = |(key, weight): (&DestinationKey, &u16)| (*key, DestinationSpec::masquerading((*weight).into()));
    VirtualServer { spec, destinations: chosen.iter().map(destination).collect() }
}
