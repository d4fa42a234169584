//! What `ipvsd explain --flow` says of the packets of the golden table, in the table's words.

use crate::golden_rig::{From, GoldenRig};
use ipvsd::inspect::flow::{self, Flow, Outcome, World};
use ipvsd::kernel::{Kernel, Observation, Scope};
use ipvsd::model::{Family, Protocol};
use ipvsd::state::Node;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// What there is to explain from: what the kernel holds, and the node.
pub struct Explained {
    kernel: Observation,
    node: Node,
}

impl Explained {
    /// Reads the rig's kernel.
    pub fn of(rig: &mut GoldenRig) -> Self {
        let node = rig.reconciler().state().node().clone();
        let mode = rig.mode();
        let observe = || Ok(mode.kernel().observe(Scope::All)?);
        Self { kernel: rig.network.node.run(observe).unwrap(), node }
    }

    /// What becomes of a packet, in the words of the table.
    pub fn outcome(
        &self,
        rig: &GoldenRig,
        (from, family): (From, Family),
        (protocol, target): (Protocol, SocketAddr),
    ) -> String {
        let flow = Flow {
            source: (from != From::Node).then(|| rig.own_address(from, family)),
            device: device(from).map(str::to_owned),
            target,
            protocol,
        };
        let world = World { model: &self.kernel.model, foreign: &self.kernel.foreign, node: &self.node };
        match flow::explain(&flow, &world).unwrap().outcome {
            Outcome::Balanced(_, _, ways) => in_words(rig, &ways),
            Outcome::Delivered => "none".into(),
            other => format!("{other:?}"),
        }
    }
}

/// The node's end of the client's cable.
fn device(from: From) -> Option<&'static str> {
    match from {
        From::Pod => Some("backend-3"),
        From::Endpoint => Some("backend-1"),
        From::External => Some("client"),
        From::Node => None,
    }
}

fn in_words(rig: &GoldenRig, ways: &[flow::Way]) -> String {
    let backends = &rig.network.backends;
    let index = |way: &flow::Way| {
        backends.iter().position(|host| {
            [host.addresses.ipv4.into(), host.addresses.ipv6.into()].contains(&way.destination.address)
        })
    };
    let which = match ways.iter().map(index).collect::<Vec<_>>()[..] {
        [Some(0), Some(1)] => "all",
        [Some(0)] => "loc",
        _ => return format!("{ways:?}"),
    };
    match ways.iter().map(|way| way.is_masqueraded).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()[..] {
        [false] => which.into(),
        [true] => format!("{which}+"),
        _ => format!("{ways:?}"),
    }
}
