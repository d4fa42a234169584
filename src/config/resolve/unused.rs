//! Fields that are set and that nothing here uses: those of other modes, of Windows, and of kube-proxy's past.

use super::Checks;
use crate::config::kube_proxy::v1alpha1::KubeProxyConfiguration;
use serde_json::Value;

/// Fields of no mode of Linux.
const NEVER: [&str; 3] = ["winkernel", "portRange", "windowsRunAsService"];
/// In the ipvs mode: the iptables section's own pace.
const IN_IPVS: [&str; 3] = ["nftables", "iptables.syncPeriod", "iptables.minSyncPeriod"];
/// In the iptables mode.
const IN_IPTABLES: [&str; 2] = ["nftables", "ipvs"];

/// Notes which of them have another value than their default, or than nothing.
pub fn note(config: &KubeProxyConfiguration, checks: &mut Checks) {
    let of_the_mode = if config.mode == "ipvs" { &IN_IPVS[..] } else { &IN_IPTABLES };
    let [given, default, nothing] =
        [config, &KubeProxyConfiguration::with_defaults(), &KubeProxyConfiguration::default()].map(fields);
    let unused = |path: &str| {
        let within = |prefix: &&str| path == *prefix || path.strip_prefix(*prefix).is_some_and(|p| p.starts_with('.'));
        NEVER.iter().chain(of_the_mode).any(within)
    };
    let set: Vec<_> =
        given.iter().filter(|field| unused(&field.0) && !default.contains(field) && !nothing.contains(field)).collect();
    if !set.is_empty() {
        let names: Vec<_> = set.iter().map(|(path, _)| path.as_str()).collect();
        checks.note(format!("set, and not used in mode {}: {}", config.mode, names.join(", ")));
    }
}

/// All fields with their paths.
fn fields(config: &KubeProxyConfiguration) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    let mut open = vec![(String::new(), serde_json::to_value(config).unwrap_or_default())];
    while let Some((path, value)) = open.pop() {
        match value {
            Value::Object(fields) => open.extend(
                fields
                    .into_iter()
                    .map(|(key, value)| (if path.is_empty() { key } else { format!("{path}.{key}") }, value)),
            ),
            value => found.push((path, value)),
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}
