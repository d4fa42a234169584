//! What a daemon says of itself, and whether the kernel holds what it wants.

use super::{Daemon, Facts, Finding, Silence};
use crate::inspect::Status;

/// Of the daemon, its problems and what differs.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let Daemon { status, differences } = match &facts.daemon {
        Ok(daemon) => daemon,
        Err(Silence { hangs: true, why }) => {
            return vec![Finding::bad(
                "daemon",
                why,
                "see its log; what is in the kernel balances, and no change comes",
            )];
        }
        Err(Silence { why, .. }) => {
            return vec![Finding::warning(
                "daemon",
                why,
                "it must run, and root may ask; what is in the kernel balances",
            )];
        }
    };
    let mut found = Vec::new();
    let pass = status.last_pass.as_ref();
    match pass.and_then(|pass| pass.unread.as_ref()) {
        _ if !status.informed => {
            let advice = "look at its log: the cluster or the directory cannot be read";
            found.push(Finding::bad("daemon", "it does not know yet what it should do", advice));
        }
        Some(error) => found.push(Finding::bad("daemon", format!("it cannot read the kernel: {error}"), "see its log")),
        None => found.push(Finding::ok("daemon", summary(status))),
    }
    let failures = pass.into_iter().flat_map(|pass| &pass.failures);
    found.extend(failures.map(|failure| Finding::bad("daemon", failure, "it tries again; see its log")));
    let advice = "correct the object; `ipvsd explain NAMESPACE/SERVICE` shows what is instead";
    found.extend(status.problems.iter().map(|problem| Finding::warning("problem", problem, advice)));
    if status.inherited > 0 {
        let message = format!("{} virtual servers stand only because some input cannot be read", status.inherited);
        found.push(Finding::warning("daemon", message, "see the problems, or the log if there are none"));
    }
    match differences {
        Some(0) => found.push(Finding::ok("differences", "the kernel holds what the daemon wants")),
        Some(count) => {
            let message = format!("the kernel differs by {count} operations from what the daemon wants");
            found.push(Finding::bad("differences", message, "`ipvsd diff` shows them; who else programs this node?"));
        }
        None => {}
    }
    found
}

fn summary(status: &Status) -> String {
    let ago = status.last_pass.as_ref().map_or(String::new(), |pass| {
        format!(", the last pass {} s ago took {} ms", pass.seconds_ago, pass.milliseconds)
    });
    let Status { version, services, virtual_servers, draining, .. } = status;
    format!(
        "ipvsd {version} has {services} Services and {virtual_servers} virtual servers, {draining} destinations drain{ago}"
    )
}
