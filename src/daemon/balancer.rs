//! What balances on this node: IPVS or netfilter's rules, as the operator wants it and the kernel can.
//!
//! That it can is proved by making a virtual server and removing it.

use super::look::{IPTABLES, IPVS};
use super::{node, probe};
use crate::config::{Config, Mode};
use crate::desired::Settings;
use crate::kernel::linux::{Linux, OpenError};
use crate::kernel::{Cause, Kernel, Scope, node_setup, sysctl};
use crate::model::netfilter::Balancing;
use crate::reconcile::Options;
use anyhow::Context;
use std::future;
use std::path::Path;
use std::time::Duration;
use tracing::{info, warn};

/// After how many sync periods it is looked again whether IPVS is there by now: every five minutes, if nothing else is said.
const LOOK: u32 = 10;

/// What balances, and why it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What does.
    pub balancing: Balancing,
    /// Why.
    pub reason: Reason,
}

/// Why something balances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The operator asks for it.
    Asked,
    /// The kernel cannot do what the operator asks for; why.
    Fallback(String),
}

impl Choice {
    /// kube-proxy's name of the mode.
    pub fn mode(&self) -> &'static str {
        match self.balancing {
            Balancing::Ipvs => IPVS,
            Balancing::Nat { .. } => IPTABLES,
        }
    }

    /// The reason in a word.
    pub fn why(&self) -> &'static str {
        match self.reason {
            Reason::Asked => "asked",
            Reason::Fallback(_) => "fallback",
        }
    }

    /// The reason as half a sentence.
    pub fn reason(&self) -> String {
        match &self.reason {
            Reason::Asked => "as asked".into(),
            Reason::Fallback(why) => format!("because there is no IPVS: {why}"),
        }
    }

    /// Why the operator's wish is not fulfilled, if it is not.
    pub fn fallback(&self) -> Option<&str> {
        match &self.reason {
            Reason::Asked => None,
            Reason::Fallback(why) => Some(why),
        }
    }

    /// What the deciding depends on where this balances.
    pub fn settings(&self, config: &Config) -> Settings {
        let mut settings = node::settings(config);
        if let (None, Mode::Ipvs { fallback, .. }) = (&settings.netfilter, &config.mode)
            && self.balancing != Balancing::Ipvs
        {
            settings.netfilter = fallback.clone().map(node::of_families);
        }
        if let Some(netfilter) = &mut settings.netfilter {
            netfilter.balancing = self.balancing;
        }
        settings
    }

    /// How often things happen, and for how long. Where rules balance, connection tracking keeps the connections of what
    /// goes, and there is nothing to wait for.
    pub fn options(&self, config: &Config) -> Options {
        let options = config.options.clone();
        match self.balancing {
            Balancing::Ipvs => options,
            Balancing::Nat { .. } => Options { drain_timeout: Duration::ZERO, linger: Duration::ZERO, ..options },
        }
    }
}

/// Opens what balances without changing anything: whether it can is not known then.
///
/// # Errors
/// When it cannot be opened.
pub fn open(config: &Config) -> Result<(Linux, Choice), OpenError> {
    match &config.mode {
        Mode::Iptables => open_nat(config, Reason::Asked),
        Mode::Ipvs { fallback, .. } => match open_ipvs(config) {
            Err(OpenError::ModuleMissing { loading }) if fallback.is_some() => {
                let why = OpenError::ModuleMissing { loading }.to_string();
                open_nat(config, Reason::Fallback(why))
            }
            opened => Ok((opened?, Choice { balancing: Balancing::Ipvs, reason: Reason::Asked })),
        },
    }
}

/// Opens what balances, proves that it can, and sets what it needs and what the operator wants.
///
/// # Errors
/// When neither what is wanted nor what may stand in for it can balance.
pub fn prepare(config: &Config) -> anyhow::Result<(Linux, Choice)> {
    let fallback = match &config.mode {
        Mode::Iptables => return prepare_nat(config, Reason::Asked),
        Mode::Ipvs { fallback, .. } => fallback,
    };
    let error = match open_ipvs(config).map_err(anyhow::Error::from).and_then(|kernel| proved(config, kernel)) {
        Ok(kernel) => {
            let kernel = set_up(config, kernel)?;
            info!("mode ipvs, as asked");
            return Ok((kernel, Choice { balancing: Balancing::Ipvs, reason: Reason::Asked }));
        }
        Err(error) => error,
    };
    // Without rights nothing can be done; and a scheduler that is missing is not IPVS.
    if matches!(error.downcast_ref(), Some(OpenError::NotPermitted))
        || matches!(error.downcast_ref(), Some(Cause::SchedulerMissing))
    {
        return Err(error);
    }
    if fallback.is_none() {
        return Err(error.context("IPVS is asked for, and nothing else is allowed in its place"));
    }
    prepare_nat(config, Reason::Fallback(format!("{error:#}")))
}

fn open_ipvs(config: &Config) -> Result<Linux, OpenError> {
    let kernel = Linux::open()?;
    if config.settings.netfilter.is_some() { kernel.with_netfilter() } else { Ok(kernel) }
}

fn proved(config: &Config, mut kernel: Linux) -> anyhow::Result<Linux> {
    let scheduler = config.settings.scheduling.scheduler;
    probe::ipvs(&mut kernel, scheduler).with_context(|| {
        format!(
            "this kernel cannot balance with the scheduler {scheduler}; load its module (`modprobe ip_vs_{scheduler}`) \
             or choose another one"
        )
    })?;
    Ok(kernel)
}

fn prepare_nat(config: &Config, reason: Reason) -> anyhow::Result<(Linux, Choice)> {
    let mut kernel = set_up(config, Linux::open_nat()?)?;
    kernel.observe(Scope::All)?;
    probe::nat(&mut kernel).context(
        "this kernel cannot balance by iptables rules either; they need ip_set, xt_set, xt_statistic, xt_recent and NAT",
    )?;
    let choice = nat(config, &kernel, reason);
    match choice.fallback() {
        None => info!("mode iptables, {}", choice.reason()),
        Some(_) => warn!("mode iptables, {}", choice.reason()),
    }
    Ok((kernel, choice))
}

fn set_up(config: &Config, mut kernel: Linux) -> anyhow::Result<Linux> {
    let prepared = node_setup::prepare(&config.node, &mut kernel)?;
    for setting in prepared.set {
        info!("set {setting}");
    }
    for unset in prepared.unset {
        warn!("{unset}: {}", unset.source);
    }
    Ok(kernel)
}

fn open_nat(config: &Config, reason: Reason) -> Result<(Linux, Choice), OpenError> {
    let kernel = Linux::open_nat()?;
    let choice = nat(config, &kernel, reason);
    Ok((kernel, choice))
}

fn nat(config: &Config, kernel: &Linux, reason: Reason) -> Choice {
    let is_liberal = config.node.conntrack.tcp_be_liberal || sysctl::tracks_liberally(Path::new(sysctl::ROOT));
    Choice { balancing: Balancing::Nat { is_liberal, counts: kernel.can_count() }, reason }
}

/// Returns once IPVS can be had that could not at the start; never where it is not missed. Nothing is loaded: a module that
/// somebody loads is what is looked for.
pub async fn ipvs_appeared(config: &Config, choice: &Choice) {
    if choice.fallback().is_none() {
        future::pending::<()>().await;
    }
    let scheduler = config.settings.scheduling.scheduler;
    let is_there = || Linux::open_as_is().is_ok_and(|mut kernel| probe::ipvs(&mut kernel, scheduler).is_ok());
    appeared(LOOK * config.options.intervals.resync, is_there).await;
}

async fn appeared(every: Duration, is_there: impl Fn() -> bool) {
    loop {
        tokio::time::sleep(every).await;
        if is_there() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::kube_proxy::v1alpha1::KubeProxyConfiguration;
    use crate::config::resolve::{Request, resolve};
    use std::cell::Cell;

    fn config(mode: &str, manifests: bool) -> Config {
        let mut effective = KubeProxyConfiguration::with_defaults();
        effective.mode = mode.into();
        effective.set_platform_defaults();
        let drain_timeout = Duration::from_secs(9);
        let manifests = manifests.then(|| "dir".into());
        resolve(Request { effective, manifests, drain_timeout, ..Request::default() }).unwrap()
    }

    fn nat() -> Choice {
        let balancing = Balancing::Nat { is_liberal: false, counts: false };
        Choice { balancing, reason: Reason::Fallback("no such module".into()) }
    }

    fn ipvs() -> Choice {
        Choice { balancing: Balancing::Ipvs, reason: Reason::Asked }
    }

    #[test]
    fn a_choice_has_kube_proxys_word_and_a_reason() {
        assert_eq!((ipvs().mode(), ipvs().why(), ipvs().fallback()), ("ipvs", "asked", None));
        assert_eq!((nat().mode(), nat().why(), nat().fallback()), ("iptables", "fallback", Some("no such module")));
        assert_eq!([ipvs().reason(), nat().reason()], ["as asked", "because there is no IPVS: no such module"]);
    }

    #[test]
    fn rules_that_balance_bring_netfilter_along_and_wait_for_nobody() {
        let config = config("ipvs", true);
        assert_eq!(ipvs().settings(&config).netfilter, None);
        assert_eq!(ipvs().options(&config).drain_timeout, Duration::from_secs(9));
        let settings = nat().settings(&config);
        assert_eq!(settings.netfilter.as_ref().map(|netfilter| netfilter.balancing), Some(nat().balancing));
        assert!(settings.balances_by_nat());
        assert_eq!(nat().options(&config).drain_timeout, Duration::ZERO);
    }

    #[test]
    fn a_cluster_has_netfilter_whatever_balances() {
        for (mode, choice) in [("ipvs", ipvs()), ("ipvs", nat()), ("iptables", nat())] {
            let netfilter = choice.settings(&config(mode, false)).netfilter.unwrap();
            assert_eq!(netfilter.balancing, choice.balancing);
        }
    }

    #[tokio::test]
    async fn ipvs_that_comes_later_is_noticed() {
        let looks = Cell::new(0);
        let is_there = || {
            looks.set(looks.get() + 1);
            looks.get() == 3
        };
        appeared(Duration::from_millis(1), is_there).await;
        assert_eq!(looks.get(), 3);
    }
}
