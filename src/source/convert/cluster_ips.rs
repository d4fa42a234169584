//! In which families a Service is proxied, and its cluster IPs.

use super::address::{BadAddress, address};
use super::context::{Conversion, Rules};
use super::raw::RawServiceSpec;
use super::{Rejected, claim};
use crate::model::Family;
use crate::state::Families;
use std::collections::HashMap;
use std::net::IpAddr;

/// The families and the cluster IPs; no family means that there is nothing to proxy.
pub(super) fn cluster_ips(
    spec: &RawServiceSpec,
    conversion: &mut Conversion<'_>,
) -> Result<(Families, Vec<IpAddr>), Rejected> {
    match conversion.rules() {
        Rules::Api => assigned(spec, conversion),
        Rules::Manifest => {
            let addresses = written(spec)?;
            Ok((families(spec, &addresses)?, addresses))
        }
    }
}

/// As kube-proxy's `GetClusterIPByFamily`: `ipFamilies` says of which family each of `clusterIPs` is; without it
/// there is `clusterIP` alone. A family without one is not proxied, node ports and all.
fn assigned(spec: &RawServiceSpec, conversion: &mut Conversion<'_>) -> Result<(Families, Vec<IpAddr>), Rejected> {
    let listed = spec.ip_families.iter().zip(&spec.cluster_ips).enumerate();
    let mut texts: Vec<(String, &str, Option<Family>)> = listed
        .filter_map(|(index, (name, text))| Some((format!("spec.clusterIPs[{index}]"), &**text, Some(family(name)?))))
        .collect();
    if spec.ip_families.is_empty() {
        texts.extend(spec.cluster_ip.as_deref().map(|text| ("spec.clusterIP".to_owned(), text, None)));
    }
    let (mut families, mut addresses) = (Vec::new(), Vec::new());
    for (field, text, wanted) in texts {
        let found = address(text);
        let (Ok(ip) | Err(BadAddress::Unusable(ip, _))) = found else { continue };
        let family = Family::of(ip);
        if wanted.is_some_and(|wanted| wanted != family) || families.contains(&family) {
            continue;
        }
        families.push(family);
        match found {
            Ok(ip) => addresses.push(ip),
            Err(why) => conversion.forgive(Rejected::new(field, why.to_string()))?,
        }
    }
    Ok((families.into_iter().collect(), addresses))
}

/// `clusterIP` is the first of `clusterIPs`; either may stand alone.
fn written(spec: &RawServiceSpec) -> Result<Vec<IpAddr>, Rejected> {
    let mut addresses: Vec<IpAddr> = Vec::with_capacity(spec.cluster_ips.len());
    for (index, text) in spec.cluster_ips.iter().enumerate() {
        let field = format!("spec.clusterIPs[{index}]");
        let found = address(text).map_err(|why| Rejected::new(&field, why.to_string()))?;
        if addresses.iter().any(|other| Family::of(*other) == Family::of(found)) {
            return Err(Rejected::new(field, format!("{found} is a second address of its family")));
        }
        addresses.push(found);
    }
    let Some(text) = spec.cluster_ip.as_deref().filter(|text| !text.is_empty()) else { return Ok(addresses) };
    let primary = address(text).map_err(|why| Rejected::new("spec.clusterIP", why.to_string()))?;
    match addresses.first() {
        None => Ok(vec![primary]),
        Some(first) if *first == primary => Ok(addresses),
        Some(first) => Err(Rejected::new("spec.clusterIPs[0]", format!("{first} is not {primary}, spec.clusterIP"))),
    }
}

/// Those of `ipFamilies`, in whose order the cluster IPs are; both where it is empty, for nobody assigns them.
fn families(spec: &RawServiceSpec, addresses: &[IpAddr]) -> Result<Families, Rejected> {
    if spec.ip_families.is_empty() {
        return Ok(Families::BOTH);
    }
    let mut taken = HashMap::new();
    let mut families = Vec::with_capacity(spec.ip_families.len());
    for (index, name) in spec.ip_families.iter().enumerate() {
        let rejected = |why| Rejected::new(format!("spec.ipFamilies[{index}]"), why);
        let family = family(name).ok_or_else(|| rejected(format!("{name:?} is not a family: IPv4 and IPv6 are")))?;
        if let Some(first) = claim(&mut taken, family, index) {
            return Err(rejected(format!("{name} is taken by spec.ipFamilies[{first}]")));
        }
        families.push(family);
    }
    match addresses.iter().enumerate().find(|(index, ip)| families.get(*index) != Some(&Family::of(**ip))) {
        Some((index, ip)) => {
            let message = format!("{ip} is not of the family that spec.ipFamilies[{index}] says");
            Err(Rejected::new(format!("spec.clusterIPs[{index}]"), message))
        }
        None => Ok(families.into_iter().collect()),
    }
}

fn family(name: &str) -> Option<Family> {
    [Family::Ipv4, Family::Ipv6].into_iter().find(|family| family.name() == name)
}
