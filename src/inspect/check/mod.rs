//! Whether a node is fit for balancing, and what to do where it is not. Decides by [`Facts`]; who reads them is the caller.

mod daemon;
mod facts;
mod finding;
mod kernel;

use crate::kernel::node_setup::Difference;
pub use facts::{Daemon, Facts, Mode, Module, Silence};
pub use finding::{Finding, Level};

/// What is to be said of a node, subject by subject.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![rights(facts), mode(facts)];
    found.extend(modules(facts));
    found.extend(settings(facts));
    found.extend(daemon::findings(facts));
    found.extend(kernel::findings(facts));
    found.extend(kube_proxy(facts));
    found.push(iptables(facts));
    found.extend(paths(facts));
    found.extend(connections(facts));
    found
}

fn rights(facts: &Facts) -> Finding {
    match facts.may_program {
        true => Finding::ok("rights", "this process may program the network"),
        false => Finding::bad("rights", "CAP_NET_ADMIN is missing: the kernel cannot be read", "run it as root"),
    }
}

fn mode(facts: &Facts) -> Finding {
    match &facts.mode {
        Mode::Ipvs => Finding::ok("mode", "IPVS balances"),
        Mode::Iptables => Finding::ok("mode", "iptables rules balance, as asked"),
        Mode::Fallback(why) => {
            let message = format!("iptables rules balance, because there is no IPVS: {why}");
            let advice = "leave it so, or load ip_vs and restart ipvsd; --move-to-ipvs spares the restart";
            Finding::warning("mode", message, advice)
        }
        Mode::Nothing(why) => {
            let message =
                format!("nothing can balance: {why}, and --ipvs-fallback forbids iptables rules in its place");
            Finding::bad("mode", message, "load ip_vs, or allow the fallback")
        }
    }
}

fn modules(facts: &Facts) -> Vec<Finding> {
    let finding = |(name, module): &(String, Module)| match module {
        Module::Loaded => Finding::ok("modules", format!("{name} is loaded")),
        Module::Loadable => {
            let message = format!("{name} is not loaded, and can be");
            Finding::warning("modules", message, format!("`ipvsd run` loads it where it may; else `modprobe {name}`"))
        }
        Module::Missing => {
            let message = format!("{name} is not loaded, and modprobe does not find it");
            if name.starts_with("ip_vs") && matches!(facts.mode, Mode::Fallback(_)) {
                return Finding::warning("modules", message, "only IPVS needs it: see mode");
            }
            let advice = "install a kernel with IPVS, or its modules; all is well if it is built into this kernel";
            Finding::bad("modules", message, advice)
        }
    };
    facts.modules.iter().map(finding).collect()
}

fn settings(facts: &Facts) -> Vec<Finding> {
    let advice = "`ipvsd run --init-only` sets it, with the configuration of the daemon";
    match &facts.settings {
        Ok(differences) if differences.is_empty() => vec![Finding::ok("settings", "all are as they should be")],
        Ok(differences) => {
            let finding = |difference: &Difference| {
                let of = if difference.is_required { Finding::bad } else { Finding::warning };
                of("settings", difference.to_string(), advice)
            };
            differences.iter().map(finding).collect()
        }
        Err(error) => vec![Finding::bad("settings", error, "see mode and rights; /proc/sys must be there")],
    }
}

fn kube_proxy(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for process in &facts.kube_proxies {
        let message = format!("another kube-proxy runs here, as process {process}");
        found.push(Finding::bad("kube-proxy", message, "stop one of the two: each corrects what the other made"));
    }
    if facts.kernel.as_ref().is_ok_and(|kernel| kernel.model.kube_proxy_device.is_some()) {
        let message = "the device kube-ipvs0 of kube-proxy's ipvs mode is there";
        let advice = "a daemon takes over what is on it and removes it, once kube-proxy is gone; docs/migration.md";
        found.push(Finding::warning("kube-proxy", message, advice));
    }
    for (backend, _) in
        facts.iptables.iter().filter(|(_, rules)| rules.is_some_and(|(_, is_kube_proxys)| is_kube_proxys))
    {
        let message =
            format!("rules of kube-proxy's iptables mode stand ({backend}), and take packets before ipvsd does");
        found.push(Finding::bad("kube-proxy", message, "run `kube-proxy --cleanup` of the version that made them"));
    }
    if found.is_empty() {
        found.push(Finding::ok("kube-proxy", "no other one runs here, as far as can be seen"));
    }
    found
}

fn iptables(facts: &Facts) -> Finding {
    let used: Vec<_> = facts.iptables.iter().filter(|(_, rules)| rules.is_none_or(|(count, _)| count > 0)).collect();
    let text = |(name, rules): &&(&str, Option<(usize, bool)>)| match rules {
        Some((count, _)) => format!("{name}: {count} rules"),
        None => format!("{name}: rules that cannot be read"),
    };
    let texts: Vec<_> = used.iter().map(text).collect();
    match (&used[..], texts.join(", ")) {
        ([], _) => Finding::ok("iptables", "no rules of anybody"),
        ([(_, Some(_))], texts) => Finding::ok("iptables", texts),
        ([_], texts) => Finding::warning("iptables", texts, "install iptables of this kind, or see its rights"),
        (_, texts) => {
            let advice = "all rules of one are passed before those of the other: move everybody to one of them";
            Finding::warning("iptables", format!("both back ends are in use, {texts}"), advice)
        }
    }
}

fn paths(facts: &Facts) -> Option<Finding> {
    let devices = facts.strict_devices.join(", ");
    let message = format!("rp_filter is strict on {devices}: what comes by another way than answers go is dropped");
    let advice = "set net.ipv4.conf.DEVICE.rp_filter=2 where packets to VIPs may come by several ways";
    (!facts.strict_devices.is_empty()).then(|| Finding::warning("rp_filter", message, advice))
}

fn connections(facts: &Facts) -> Option<Finding> {
    let (count, most) = facts.connections.filter(|(_, most)| *most > 0)?;
    let message = format!("netfilter tracks {count} connections of at most {most}");
    let advice = "raise net.netfilter.nf_conntrack_max: when it is full new connections are dropped";
    Some(match count.saturating_mul(100) / most {
        0..75 => Finding::ok("conntrack", message),
        75..95 => Finding::warning("conntrack", message, advice),
        _ => Finding::bad("conntrack", message, advice),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::Status;
    use crate::inspect::status::{NodeForm, PassForm};
    use crate::kernel::Observation;
    use crate::kernel::sysctl::Setting;
    use crate::model::netfilter::{AddressPort, Member, Set, SetKey, SetKind};
    use crate::model::{
        Family, Protocol, SchedulerFlags, SchedulerName, VirtualServer, VirtualServerKey, VirtualServerSpec,
    };
    use crate::state::Node;
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    fn status() -> Status {
        let pass = PassForm { seconds_ago: 3, milliseconds: 12, failures: vec![], unread: None };
        let nothing =
            NodeForm { addresses: vec![], primary: vec![], object_addresses: vec![], zone: None, pod_cidrs: vec![] };
        Status {
            version: "1".into(),
            mode: "ipvs".into(),
            fallback: None,
            informed: true,
            services: 2,
            endpoint_slices: 2,
            virtual_servers: 4,
            destinations: 8,
            inherited: 0,
            draining: 0,
            drains: vec![],
            last_pass: Some(pass),
            node: nothing,
            netfilter: Default::default(),
            problems: vec![],
        }
    }

    fn good() -> Facts {
        Facts {
            may_program: true,
            mode: Mode::Ipvs,
            modules: vec![("ip_vs".into(), Module::Loaded)],
            settings: Ok(vec![]),
            kernel: Ok(Observation::default()),
            node: Node { addresses: [[192, 0, 2, 1].into()].into(), ..Node::default() },
            iptables: vec![("nft", Some((30, false)))],
            connections: Some((10, 100)),
            daemon: Ok(Daemon { status: status(), differences: Some(0) }),
            forwards_ipv6: false,
            strict_devices: vec![],
            kube_proxies: vec![],
        }
    }

    /// The findings that are not well, as `LEVEL SUBJECT`.
    fn unwell(facts: &Facts) -> Vec<String> {
        let found = findings(facts).into_iter().filter(|one| one.level != Level::Ok);
        found.map(|one| format!("{} {}", one.level, one.subject)).collect()
    }

    fn silence(hangs: bool) -> Result<Daemon, Silence> {
        Err(Silence { hangs, why: "none".into() })
    }

    #[test]
    fn a_node_that_is_fit_has_nothing_but_good_lines_without_advice() {
        let found = findings(&good());
        assert!(found.iter().all(|one| one.level == Level::Ok && one.advice.is_none()), "{found:?}");
        let subjects: Vec<_> = found.iter().map(|one| one.subject).collect();
        assert_eq!(
            subjects,
            [
                "rights",
                "mode",
                "modules",
                "settings",
                "daemon",
                "differences",
                "kernel",
                "kube-proxy",
                "iptables",
                "conntrack"
            ]
        );
    }

    type Fault = fn(&mut Facts);

    #[test]
    fn each_fault_has_its_line() {
        let faults: [(Fault, &[&str]); 21] = [
            (|facts| facts.may_program = false, &["bad rights"]),
            (|facts| facts.mode = Mode::Iptables, &[]),
            (
                |facts| {
                    facts.mode = Mode::Fallback("no".into());
                    facts.modules = [("ip_vs", Module::Missing), ("nf_conntrack", Module::Missing)]
                        .map(|(name, module)| (name.into(), module))
                        .into();
                },
                &["warning mode", "warning modules", "bad modules"],
            ),
            (|facts| facts.mode = Mode::Nothing("no".into()), &["bad mode"]),
            (|facts| facts.modules[0].1 = Module::Loadable, &["warning modules"]),
            (|facts| facts.modules[0].1 = Module::Missing, &["bad modules"]),
            (|facts| facts.settings = Err("no".into()), &["bad settings"]),
            (|facts| facts.kernel = Err("no".into()), &["bad kernel"]),
            (|facts| facts.daemon = silence(false), &["warning daemon"]),
            (|facts| facts.daemon = silence(true), &["bad daemon"]),
            (|facts| facts.daemon.as_mut().unwrap().differences = Some(2), &["bad differences"]),
            (|facts| facts.daemon.as_mut().unwrap().differences = None, &[]),
            (|facts| facts.daemon.as_mut().unwrap().status.informed = false, &["bad daemon"]),
            (|facts| facts.daemon.as_mut().unwrap().status.inherited = 1, &["warning daemon"]),
            (|facts| facts.daemon.as_mut().unwrap().status.problems = vec!["p".into()], &["warning problem"]),
            (
                |facts| facts.daemon.as_mut().unwrap().status.last_pass.as_mut().unwrap().unread = Some("no".into()),
                &["bad daemon"],
            ),
            (
                |facts| facts.daemon.as_mut().unwrap().status.last_pass.as_mut().unwrap().failures = vec!["no".into()],
                &["bad daemon"],
            ),
            (|facts| facts.kube_proxies = vec![7], &["bad kube-proxy"]),
            (|facts| facts.iptables.push(("legacy", Some((1, true)))), &["bad kube-proxy", "warning iptables"]),
            (|facts| facts.strict_devices = vec!["eth0".into()], &["warning rp_filter"]),
            (|facts| facts.connections = Some((99, 100)), &["bad conntrack"]),
        ];
        for (fault, wanted) in faults {
            let mut facts = good();
            fault(&mut facts);
            assert_eq!(unwell(&facts), wanted);
        }
    }

    #[test]
    fn what_differs_is_bad_only_where_balancing_needs_it() {
        let difference = |is_required| Difference {
            setting: Setting { path: "/proc/sys/x", value: "1".into() },
            found: Some("0".into()),
            is_required,
        };
        let facts = Facts { settings: Ok(vec![difference(true), difference(false)]), ..good() };
        assert_eq!(unwell(&facts), ["bad settings", "warning settings"]);
    }

    #[test]
    fn vips_on_devices_others_virtual_servers_and_ipv6_that_is_not_forwarded_are_told() {
        let own: IpAddr = [192, 0, 2, 1].into();
        let mut kernel = Observation::default();
        for kind in [SetKind::ClusterIp, SetKind::LoadBalancer, SetKind::ExternalIp] {
            let at = AddressPort { address: own, protocol: Protocol::Tcp, port: 80 };
            let set = Set { members: [(Member::AddressPort(at), None)].into(), ..Set::default() };
            kernel.model.sets.insert(SetKey { kind, family: Family::Ipv4 }, set);
        }
        kernel.model.kube_proxy_device = Some(BTreeSet::new());
        kernel.foreign.insert(VirtualServerKey::new([10, 0, 0, 1].into(), 80, Protocol::Tcp));
        let spec =
            VirtualServerSpec { scheduler: SchedulerName::RR, flags: SchedulerFlags::default(), persistence: None };
        let server = VirtualServer { spec, destinations: Default::default() };
        let six = VirtualServerKey::new("fd00::1".parse().unwrap(), 80, Protocol::Tcp);
        kernel.model.virtual_servers.insert(six, server);
        let facts = Facts { kernel: Ok(kernel), ..good() };
        assert_eq!(
            unwell(&facts),
            ["warning foreign", "bad forwarding", "bad addresses", "warning addresses", "warning kube-proxy"]
        );
        assert!(
            findings(&facts)
                .iter()
                .any(|one| one.message == "1 virtual servers of ipvsd, of which 1 have nowhere to send connections")
        );
    }
}
