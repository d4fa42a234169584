//! Gathers what there is to know of a node for `ipvsd check`. Changes nothing and loads nothing: what would make the kernel
//! load a module is not asked.

use super::look::{IPTABLES, IPVS, look_for, open};
use super::runtime;
use crate::config::{self, Config};
use crate::inspect::check::{Daemon, Facts, Mode, Module, Silence};
use crate::inspect::{Status, Wanted, differences};
use crate::kernel::iptables::{self, Backend};
use crate::kernel::linux::Linux;
use crate::kernel::node_setup::{self, NodeSetup};
use crate::kernel::{Observation, modules, sysctl};
use crate::model::{Family, SchedulerName, VirtualServerKey};
use crate::server::{self, AskError, INSPECTION_NAME};
use crate::source::node::NodeWatch;
use crate::state::Node;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The bit of `CAP_NET_ADMIN` (linux/capability.h).
const NET_ADMIN: u32 = 12;

const NO_IPVS: &str = "the module ip_vs is not loaded";

/// Chains of kube-proxy's iptables mode that no other mode makes.
const OF_IPTABLES_MODE: [&str; 2] = ["KUBE-SVC-", "KUBE-SEP-"];

/// What there is to know of this node; also whether it is as the configuration asks, if that is one `of_a_daemon`.
///
/// # Errors
/// No runtime.
pub fn survey(config: &Config, of_a_daemon: bool) -> anyhow::Result<Facts> {
    let scheduler = config.settings.scheduling.scheduler;
    let setup = if of_a_daemon { config.node } else { NodeSetup::default() };
    let may_program = may_program();
    let asked = async { (node_facts().await, ask().await, server::daemon_process(INSPECTION_NAME).await) };
    let (node, daemon, process) = runtime()?.block_on(asked);
    let mode = match &daemon {
        Ok((status, _)) => mode_of_daemon(status),
        Err(_) => mode_to_be(config, rules_balance()),
    };
    let name = if matches!(mode, Mode::Iptables | Mode::Fallback(_)) { IPTABLES } else { IPVS };
    let mut kernel = match (may_program, has_ipvs() || name == IPTABLES) {
        (true, true) => open(name).map_err(|error| error.to_string()),
        (false, _) => Err("it takes CAP_NET_ADMIN to read it".to_owned()),
        (_, false) => Err(NO_IPVS.to_owned()),
    };
    Ok(Facts {
        may_program,
        modules: module_facts((mode != Mode::Iptables).then_some(scheduler)),
        mode,
        settings: kernel.as_mut().map_err(|why| why.clone()).and_then(|kernel| settings(&setup, kernel)),
        kernel: kernel.and_then(|_| observed(name, &BTreeSet::new())),
        node: node.unwrap_or_default(),
        forwards_ipv6: sysctl::forwards_ipv6(Path::new(sysctl::ROOT)),
        strict_devices: strict_devices(Path::new("/proc/sys/net/ipv4/conf")),
        iptables: iptables_facts(),
        kube_proxies: kube_proxies(process),
        connections: tracked(),
        daemon: daemon.map(|(status, wanted)| Daemon {
            status,
            differences: wanted.as_ref().and_then(|wanted| count(name, wanted)),
        }),
    })
}

fn mode_of_daemon(status: &Status) -> Mode {
    match (status.mode.as_str(), &status.fallback) {
        (_, Some(why)) => Mode::Fallback(why.clone()),
        (IPTABLES, None) => Mode::Iptables,
        _ => Mode::Ipvs,
    }
}

/// What a daemon of this configuration would balance by. Rules that stand are what does, whatever it says.
fn mode_to_be(config: &Config, rules_balance: bool) -> Mode {
    let can_have_ipvs = has_ipvs() || modules::could_be_loaded("ip_vs");
    match &config.mode {
        config::Mode::Iptables => Mode::Iptables,
        config::Mode::Ipvs { .. } if can_have_ipvs && rules_balance => Mode::Iptables,
        config::Mode::Ipvs { .. } if can_have_ipvs => Mode::Ipvs,
        config::Mode::Ipvs { fallback: Some(_), .. } => Mode::Fallback(NO_IPVS.into()),
        config::Mode::Ipvs { fallback: None, .. } => Mode::Nothing(NO_IPVS.into()),
    }
}

fn rules_balance() -> bool {
    let mut in_use = iptables::in_use(Family::Ipv4).into_iter().filter_map(|(_, saved)| saved);
    in_use.any(|saved| saved.balances())
}

fn has_ipvs() -> bool {
    modules::is_there("ip_vs") || Path::new("/proc/net/ip_vs").exists()
}

fn may_program() -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).is_some_and(|bits| bits >> NET_ADMIN & 1 == 1)
}

/// The modules that balancing needs, those of IPVS with a scheduler of it.
fn module_facts(scheduler: Option<SchedulerName>) -> Vec<(String, Module)> {
    let of_ipvs = scheduler.map(|scheduler| ["ip_vs".to_owned(), format!("ip_vs_{scheduler}")]);
    let names = of_ipvs.into_iter().flatten().chain(["nf_conntrack".to_owned()]);
    let fact = |name: String| {
        let module = match () {
            () if modules::is_there(&name) => Module::Loaded,
            () if modules::could_be_loaded(&name) => Module::Loadable,
            () => Module::Missing,
        };
        (name, module)
    };
    names.map(fact).collect()
}

fn settings(setup: &NodeSetup, kernel: &mut Linux) -> Result<Vec<node_setup::Difference>, String> {
    node_setup::survey(setup, kernel).map_err(|error| error.to_string())
}

fn observed(mode: &str, ours: &BTreeSet<VirtualServerKey>) -> Result<Observation, String> {
    look_for(mode, ours).map_err(|error| format!("{error:#}"))
}

async fn node_facts() -> Option<Node> {
    NodeWatch::open().await.ok()?.read().await.ok()
}

/// What the daemon of this network namespace says, and what it wants if it can tell.
async fn ask() -> Result<(Status, Option<Wanted>), Silence> {
    let status = server::ask(INSPECTION_NAME, "/v1/status").await;
    let status: Status =
        status.map_err(|error| Silence { hangs: matches!(error, AskError::Late), why: error.to_string() })?;
    let wanted: Result<Wanted, AskError> = server::ask(INSPECTION_NAME, "/v1/wanted").await;
    let wanted = wanted.ok().filter(|_| status.informed);
    Ok((status, wanted))
}

fn count(mode: &str, wanted: &Wanted) -> Option<usize> {
    Some(differences(wanted, &observed(mode, &wanted.ours).ok()?).len())
}

/// The devices that are strict; what is said of all of them counts if it is more.
fn strict_devices(conf: &Path) -> Vec<String> {
    let value = |name: &str| {
        let text = fs::read_to_string(conf.join(name).join("rp_filter")).unwrap_or_default();
        text.trim().parse::<u8>().unwrap_or_default()
    };
    let names =
        fs::read_dir(conf).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let devices = names.filter(|name| !["all", "default", "lo"].contains(&name.as_str()));
    let all = value("all");
    let mut strict: Vec<_> = devices.filter(|name| value(name).max(all) == 1).collect();
    strict.sort();
    strict
}

fn iptables_facts() -> Vec<(&'static str, Option<(usize, bool)>)> {
    let name = |backend| match backend {
        Backend::Nft => "nf_tables",
        Backend::Legacy => "legacy",
        Backend::Usual => "iptables",
    };
    let used = iptables::in_use(Family::Ipv4).into_iter();
    let counted = used.map(|(backend, saved)| {
        let rules = saved.map(|saved| {
            let is_kube_proxys = OF_IPTABLES_MODE.iter().any(|beginning| saved.has_chains("nat", beginning));
            (saved.count_rules(), is_kube_proxys)
        });
        (name(backend), rules)
    });
    counted.collect()
}

/// Processes of that name in this network namespace; of other containers they are seen only from the host's view. The
/// daemon that answers may have the name as well.
fn kube_proxies(daemon: Option<u32>) -> Vec<u32> {
    let here = fs::read_link("/proc/thread-self/ns/net").ok();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_another = |number: &u32| {
        let of = |what: &str| format!("/proc/{number}/{what}");
        let is_called_so = fs::read_to_string(of("comm")).is_ok_and(|name| name.trim() == "kube-proxy");
        is_called_so && Some(*number) != daemon && here.is_some() && fs::read_link(of("ns/net")).ok() == here
    };
    numbers.filter(is_another).collect()
}

fn tracked() -> Option<(u64, u64)> {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/netfilter/{name}")).ok()?.trim().parse().ok();
    Some((read("nf_conntrack_count")?, read("nf_conntrack_max")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_strict_by_itself_or_by_what_is_said_of_all() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, value: &str| {
            fs::create_dir_all(directory.path().join(name)).unwrap();
            fs::write(directory.path().join(name).join("rp_filter"), format!("{value}\n")).unwrap();
        };
        for (name, value) in [("all", "0"), ("default", "1"), ("lo", "1"), ("eth0", "1"), ("eth1", "2"), ("eth2", "0")]
        {
            put(name, value);
        }
        assert_eq!(strict_devices(directory.path()), ["eth0"]);
        put("all", "1");
        assert_eq!(strict_devices(directory.path()), ["eth0", "eth2"]);
        put("all", "2");
        assert_eq!(strict_devices(directory.path()), [""; 0]);
        assert_eq!(strict_devices(Path::new("/nowhere")), [""; 0]);
    }
}
