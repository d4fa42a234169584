//! Where an endpoint is, and whose clients it is meant for.

use super::context::{Context, Rules};
use super::raw::{RawEndpoint, RawHint};
use super::{Rejected, claim, plain};
use crate::state::{NodeHint, Whereabouts, Zones};
use std::collections::HashMap;
use std::sync::Arc;

/// How many zones, and how many nodes, the API server takes for one endpoint.
const HINTS_MAX: usize = 8;
/// The API server's limit for the value of a label, which a zone's name is.
const LABEL_VALUE_MAX: usize = 63;

/// Where an endpoint is and whom it is for, as this node sees it.
pub(super) struct Place {
    pub node: Whereabouts,
    pub node_hint: NodeHint,
    pub zones: Option<Arc<Zones>>,
}

/// Of an endpoint; what is wrong names the field within it.
pub(super) fn place(raw: &RawEndpoint, context: &Context) -> Result<Place, Rejected> {
    if context.rules == Rules::Manifest {
        check(raw)?;
    }
    let node_name = Some(&*context.node_name).filter(|name| !name.is_empty());
    Ok(Place {
        node: match (node_name, raw.node_name.as_deref().filter(|name| !name.is_empty())) {
            (Some(here), Some(name)) if name == here => Whereabouts::Here,
            (Some(_), Some(_)) => Whereabouts::Elsewhere,
            _ => Whereabouts::Unsaid,
        },
        node_hint: match node_name {
            _ if raw.hints.for_nodes.is_empty() => NodeHint::None,
            Some(here) if names(&raw.hints.for_nodes).any(|name| name == here) => NodeHint::Here,
            _ => NodeHint::Elsewhere,
        },
        zones: Zones::new(names(&raw.hints.for_zones)).map(|zones| context.shared(zones)),
    })
}

fn names(hints: &[RawHint]) -> impl Iterator<Item = &str> {
    hints.iter().map(|hint| hint.name.as_deref().unwrap_or_default())
}

fn check(raw: &RawEndpoint) -> Result<(), Rejected> {
    if let Some(name) = &raw.node_name {
        plain("nodeName", name)?;
    }
    distinct(&raw.hints.for_zones, "hints.forZones", zone)?;
    distinct(&raw.hints.for_nodes, "hints.forNodes", plain)
}

/// At most eight names, each `good` and no two the same.
fn distinct(hints: &[RawHint], field: &str, good: impl Fn(&str, &str) -> Result<(), Rejected>) -> Result<(), Rejected> {
    if hints.len() > HINTS_MAX {
        return Err(Rejected::new(field, format!("has {} entries: at most {HINTS_MAX} may be", hints.len())));
    }
    let mut taken = HashMap::new();
    for (index, name) in names(hints).enumerate() {
        let path = format!("{field}[{index}].name");
        if name.is_empty() {
            return Err(Rejected::new(path, "missing"));
        }
        good(&path, name)?;
        if let Some(first) = claim(&mut taken, name, index) {
            return Err(Rejected::new(path, format!("{name:?} is taken by {field}[{first}]")));
        }
    }
    Ok(())
}

/// A zone's name is the value of a label of nodes.
fn zone(field: &str, name: &str) -> Result<(), Rejected> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.len() <= LABEL_VALUE_MAX && name.bytes().all(allowed) {
        return Ok(());
    }
    let message =
        format!("{name:?} is not a zone: at most {LABEL_VALUE_MAX} characters of a-z, A-Z, 0-9, -, _ and . are");
    Err(Rejected::new(field, message))
}
