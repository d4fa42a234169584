//! Which of kube-proxy's modes wrote over the chains that ipvsd has too, and whose they are since. Pure.

use super::leftovers::{is_of_service, target};
use super::saved::Saved;

/// Chains of kube-proxy's iptables mode that ipvsd has too.
const COMMON: [(&str, &str); 5] = [
    ("nat", "KUBE-SERVICES"),
    ("nat", "KUBE-POSTROUTING"),
    ("nat", "KUBE-MARK-MASQ"),
    ("filter", "KUBE-FORWARD"),
    ("filter", "KUBE-PROXY-FIREWALL"),
];

/// The one jump into them that this mode of kube-proxy has not.
const OF_IPVS_MODE: &str = "-m comment --comment \"kube-proxy firewall rules\" -j KUBE-PROXY-FIREWALL";

/// What a rule in `KUBE-FORWARD` has of kube-proxy's, in its iptables and ipvs modes, and none of ipvsd's.
const ITS_COMMENT: &str = "--comment \"kubernetes forwarding rules\"";

/// The mode of kube-proxy's that wrote last over ipvsd's chains, which it does to all that both have at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakenBack {
    /// iptables.
    ByRules,
    /// ipvs.
    ByIpvs,
}

impl TakenBack {
    /// Looks for what only kube-proxy writes: jumps to its Services, and a comment that it has in both modes.
    pub fn find(saved: &Saved) -> Option<Self> {
        let leads = |rule: &String| target(rule).is_some_and(|to| to == "KUBE-NODEPORTS" || is_of_service(to));
        let is_its = |rule: &String| rule.contains(ITS_COMMENT);
        let has = |table, chain, is_meant: &dyn Fn(&String) -> bool| {
            saved.rules(table, chain).is_some_and(|rules| rules.iter().any(is_meant))
        };
        if has("nat", "KUBE-SERVICES", &leads) {
            Some(Self::ByRules)
        } else {
            has("filter", "KUBE-FORWARD", &is_its).then_some(Self::ByIpvs)
        }
    }

    /// Whether a chain that ipvsd has too is kube-proxy's.
    pub fn has(self, table: &str, chain: &str) -> bool {
        match self {
            Self::ByRules => COMMON.contains(&(table, chain)),
            Self::ByIpvs => chain.starts_with("KUBE-"),
        }
    }

    /// Whether a rule that leads into such a chain is ipvsd's all the same.
    pub fn leaves(self, rule: &str) -> bool {
        self == Self::ByRules && rule == OF_IPVS_MODE
    }
}

#[cfg(test)]
mod tests {
    use super::super::leftovers::BUILT_IN;
    use super::super::repair::tests::restored;
    use super::*;
    use crate::model::Family;
    use crate::model::netfilter::RuleSettings;

    const IPV4: &str = include_str!("../../../tests/fixtures/kube-proxy/iptables.ipv4.txt");
    const IPV6: &str = include_str!("../../../tests/fixtures/kube-proxy/iptables.ipv6.txt");
    const IPVS_IPV4: &str = include_str!("../../../tests/fixtures/kube-proxy/ipvs.ipv4.txt");
    const IPVS_IPV6: &str = include_str!("../../../tests/fixtures/kube-proxy/ipvs.ipv6.txt");

    #[test]
    fn what_kube_proxy_wrote_over_ours_stays_whole_when_ours_goes() {
        let by_rules = &["-m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD"][..];
        let by_ipvs = &[
            "-m comment --comment \"kubernetes ipvs access filter\" -j KUBE-IPVS-FILTER",
            "-m comment --comment \"kube-proxy firewall rules\" -j KUBE-PROXY-FIREWALL",
            "-m comment --comment \"kubernetes health check rules\" -j KUBE-NODE-PORT",
            by_rules[0],
        ];
        for (family, text, kept_jumps) in [
            (Family::Ipv4, IPV4, by_rules),
            (Family::Ipv6, IPV6, by_rules),
            (Family::Ipv4, IPVS_IPV4, by_ipvs),
            (Family::Ipv6, IPVS_IPV6, by_ipvs),
        ] {
            let ours = restored(&Saved::default(), &Saved::default().repair(&RuleSettings::default(), family));
            let lines = text.lines().filter(|line| !line.starts_with('#') && !line.ends_with("ACCEPT [0:0]"));
            // It makes no jump a second time.
            let is_jump = |line: &&str| BUILT_IN.iter().any(|name| line.starts_with(&format!("-A {name} ")));
            let chains: Vec<_> = lines.clone().filter(|line| !is_jump(line)).collect();
            let taken_back = restored(&ours, &chains.join("\n"));
            let after = restored(&taken_back, &taken_back.removal(family));
            let wanted = restored(&Saved::default(), &lines.collect::<Vec<_>>().join("\n"));
            for table in ["mangle", "nat", "filter"] {
                let kube_proxys = |saved: &Saved| -> Vec<_> {
                    let chains = saved.chains(table).filter(|(name, _)| !BUILT_IN.contains(name));
                    chains.map(|(name, rules)| (name.to_owned(), rules.to_vec())).collect()
                };
                assert_eq!(kube_proxys(&after), kube_proxys(&wanted), "{table}");
            }
            let jumps: Vec<_> = BUILT_IN.iter().filter_map(|name| after.rules("filter", name)).flatten().collect();
            assert_eq!(jumps, kept_jumps);
            assert_eq!(after.rules("nat", "PREROUTING").map(Vec::len), Some(1));
        }
    }
}
