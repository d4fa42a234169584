//! What kube-proxy left among the rules of one family: which chains and jumps are its own, and what takes them away.
//! Pure.
//!
//! Known is what kube-proxy made, by name and text. Kubelet's are never among them: `KUBE-FIREWALL`, `KUBE-KUBELET-CANARY`,
//! `KUBE-IPTABLES-HINT` and, of kubelets before 1.28, `KUBE-MARK-DROP` (`kubelet_network_linux.go`).

use super::input::line;
use super::rules::tables;
use super::saved::Saved;
use super::table::Table;
use crate::model::Family;
use crate::model::netfilter::RuleSettings;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};

/// Chains of kube-proxy's iptables mode that its ipvs mode, and so ipvsd, has not (`kube-proxy/.../iptables/proxier.go`).
const CHAINS: [(&str, &str); 7] = [
    ("mangle", "KUBE-PROXY-CANARY"),
    ("nat", "KUBE-PROXY-CANARY"),
    ("nat", "KUBE-NODEPORTS"),
    ("filter", "KUBE-PROXY-CANARY"),
    ("filter", "KUBE-NODEPORTS"),
    ("filter", "KUBE-SERVICES"),
    ("filter", "KUBE-EXTERNAL-SERVICES"),
];

/// How the names of its chains in nat begin that are for one port of a Service or one endpoint; a hash follows. The last
/// is of versions before 1.24.
const PREFIXES: [&str; 6] = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-", "KUBE-XLB-"];

/// The hash: the first characters of a SHA-256 in base32.
const HASH_LENGTH: usize = 16;

/// Table, chain and comment of each jump of its iptables and ipvs modes, from whichever of the kernel's chains.
const JUMPS: [(&str, &str, &str); 11] = [
    ("nat", "KUBE-SERVICES", "kubernetes service portals"),
    ("nat", "KUBE-POSTROUTING", "kubernetes postrouting rules"),
    ("filter", "KUBE-SERVICES", "kubernetes service portals"),
    ("filter", "KUBE-EXTERNAL-SERVICES", "kubernetes externally-visible service portals"),
    ("filter", "KUBE-NODEPORTS", "kubernetes health check service ports"),
    ("filter", "KUBE-FORWARD", "kubernetes forwarding rules"),
    ("filter", "KUBE-PROXY-FIREWALL", "kubernetes load balancer firewall"),
    ("filter", "KUBE-PROXY-FIREWALL", "kube-proxy firewall rules"),
    ("filter", "KUBE-NODE-PORT", "kubernetes health check rules"),
    ("filter", "KUBE-IPVS-FILTER", "kubernetes ipvs access filter"),
    ("filter", "KUBE-IPVS-OUT-FILTER", "kubernetes ipvs access filter"),
];

/// What many of the jumps match besides: first packets.
const FIRST_PACKETS: &str = "-m conntrack --ctstate NEW ";

/// The kernel's chains.
pub(super) const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// Chains of nat that kubelets before 1.28 keep as well, and that plugins for host ports lead into the first of.
const MARKING: [&str; 2] = ["KUBE-MARK-MASQ", "KUBE-POSTROUTING"];
/// Where it is, such a kubelet is.
const OF_OLD_KUBELETS: &str = "KUBE-MARK-DROP";

/// What kube-proxy left in each table.
#[derive(Debug, Default)]
pub struct Leftovers<'a> {
    tables: BTreeMap<&'static str, InTable<'a>>,
    held: BTreeSet<Held>,
}

/// What kube-proxy left in one table.
#[derive(Debug, Default)]
struct InTable<'a> {
    /// Chains that go.
    chains: BTreeSet<&'a str>,
    /// Chains that somebody else's rules lead into, and that are only emptied.
    emptied: BTreeSet<&'a str>,
    /// Rules of the kernel's chains that go, each with its chain.
    jumps: Vec<(&'a str, &'a str)>,
}

/// A chain of kube-proxy's that cannot go: it has been emptied, and somebody else's rule leads into it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    family: Family,
    table: &'static str,
    chain: String,
    /// As `iptables-save` prints it.
    rule: String,
}

impl Display for Held {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { family, table, chain, rule } = self;
        write!(f, "kube-proxy's chain {chain} ({table}, {family}) is empty and stays, for a rule leads into it: {rule}")
    }
}

/// Whose the chains are that ipvsd and kube-proxy have both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// ipvsd's, whose rules stand here.
    Ours,
    /// kube-proxy's.
    KubeProxys,
}

impl<'a> Leftovers<'a> {
    /// Looks through the rules of a family.
    pub fn find(saved: &'a Saved, family: Family, shared: Shared) -> Self {
        let mut search = Search { saved, own: tables(&RuleSettings::default(), family), shared, spares_marking: false };
        search.spares_marking = search.others_mark();
        let mut found = Self::default();
        for table in ["mangle", "nat", "filter"] {
            let (found_here, held) = search.look_through(table);
            if !found_here.is_empty() {
                found.tables.insert(table, found_here);
            }
            let held = held.into_iter().map(|(chain, rule)| Held { family, table, chain: chain.to_owned(), rule });
            found.held.extend(held);
        }
        found
    }

    /// Whether there is nothing to be done.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Chains that are empty already and cannot go.
    pub fn into_held(self) -> BTreeSet<Held> {
        self.held
    }

    /// What `iptables-restore` is given to take it all away, in one transaction for each table.
    pub fn removal(&self) -> String {
        let mut text = String::new();
        for (table, InTable { chains, emptied, jumps }) in &self.tables {
            line(&mut text, format_args!("*{table}"));
            chains.iter().chain(emptied).for_each(|chain| line(&mut text, format_args!(":{chain} - [0:0]")));
            jumps.iter().for_each(|(from, rule)| line(&mut text, format_args!("-D {from} {rule}")));
            chains.iter().for_each(|chain| line(&mut text, format_args!("-X {chain}")));
            line(&mut text, format_args!("COMMIT"));
        }
        text
    }
}

impl InTable<'_> {
    fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.emptied.is_empty() && self.jumps.is_empty()
    }
}

/// What is looked through, and what is known before.
struct Search<'a> {
    saved: &'a Saved,
    /// ipvsd's chains and jumps.
    own: [Table; 3],
    shared: Shared,
    /// Whether [`MARKING`] is used by others.
    spares_marking: bool,
}

impl<'a> Search<'a> {
    /// What there is in a table, and the chains that others hold though they are empty, each with a rule that leads there.
    fn look_through(&self, table: &str) -> (InTable<'a>, BTreeMap<&'a str, String>) {
        let mut found = InTable::default();
        let is_kube_proxys = |name: &&str| self.is_kube_proxys(table, name);
        found.chains = self.saved.chains(table).map(|(name, _)| name).filter(is_kube_proxys).collect();
        let mut held = BTreeMap::new();
        for (from, rules) in self.saved.chains(table).filter(|(name, _)| !found.chains.contains(name)) {
            for rule in rules {
                let Some(to) = target(rule) else { continue };
                let is_its_own = found.chains.contains(to);
                if (is_its_own || self.shared == Shared::Ours) && self.is_jump(table, from, rule) {
                    found.jumps.push((from, rule.as_str()));
                } else if is_its_own {
                    held.entry(to).or_insert_with(|| format!("-A {from} {rule}"));
                }
            }
        }
        found.chains.retain(|chain| !held.contains_key(chain));
        let mut has_rules = |chain: &&str| self.saved.rules(table, chain).is_some_and(|rules| !rules.is_empty());
        found.emptied = held.keys().copied().filter(&mut has_rules).collect();
        held.retain(|chain, _| !found.emptied.contains(chain));
        (found, held)
    }

    fn is_kube_proxys(&self, table: &str, name: &str) -> bool {
        CHAINS.contains(&(table, name))
            || (table == "nat" && is_of_service(name))
            || (self.shared == Shared::KubeProxys
                && self.has_own(table, name)
                && !(self.spares_marking && MARKING.contains(&name)))
    }

    /// Whether a rule of this chain is a jump of kube-proxy's, and none of ours.
    fn is_jump(&self, table: &str, from: &str, rule: &str) -> bool {
        let own = self.own_table(table).into_iter().flat_map(|table| &table.jumps);
        if own.into_iter().any(|jump| jump.from == from && jump.rule == rule) {
            return self.shared == Shared::KubeProxys;
        }
        let rule = rule.replacen(FIRST_PACKETS, "", 1);
        let is_so = |to: &str, comment: &str| rule == format!("-m comment --comment \"{comment}\" -j {to}");
        BUILT_IN.contains(&from) && JUMPS.iter().any(|(of, to, comment)| *of == table && is_so(to, comment))
    }

    fn has_own(&self, table: &str, name: &str) -> bool {
        self.own_table(table).is_some_and(|table| table.chains.iter().any(|chain| chain.name == name))
    }

    fn own_table(&self, name: &str) -> Option<&Table> {
        self.own.iter().find(|table| table.name == name)
    }

    /// Whether somebody else has or uses the chains that mark for masquerading.
    fn others_mark(&self) -> bool {
        let is_others =
            |name: &str| !is_of_service(name) && !self.has_own("nat", name) && !CHAINS.contains(&("nat", name));
        let mut others = self.saved.chains("nat").filter(|(name, _)| is_others(name)).flat_map(|(_, rules)| rules);
        self.saved.rules("nat", OF_OLD_KUBELETS).is_some() || others.any(|rule| target(rule) == Some(MARKING[0]))
    }
}

/// Whether a chain of nat is for one port of a Service or one endpoint.
pub(super) fn is_of_service(name: &str) -> bool {
    let is_base32 = |byte: u8| matches!(byte, b'A'..=b'Z' | b'2'..=b'7');
    let mut hashes = PREFIXES.iter().filter_map(|prefix| name.strip_prefix(prefix));
    hashes.any(|hash| hash.len() == HASH_LENGTH && hash.bytes().all(is_base32))
}

/// The chain that a rule leads into, if it ends with one.
pub(super) fn target(rule: &str) -> Option<&str> {
    let (before, to) = rule.rsplit_once(' ')?;
    let (_, verb) = before.rsplit_once(' ').unwrap_or_default();
    let verb = if verb.is_empty() { before } else { verb };
    ["-j", "-g"].contains(&verb).then_some(to)
}

#[cfg(test)]
mod tests {
    use super::super::repair::tests::restored;
    use super::*;

    const IPV4: &str = include_str!("../../../tests/fixtures/kube-proxy/iptables.ipv4.txt");
    const IPV6: &str = include_str!("../../../tests/fixtures/kube-proxy/iptables.ipv6.txt");

    /// Of others, with names and comments that are nearly kube-proxy's.
    const OTHERS: &str = "*mangle\n:KUBE-KUBELET-CANARY - [0:0]\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n\
        *nat\n:KUBE-KUBELET-CANARY - [0:0]\n:KUBE-SVC-LKJHGFDSA - [0:0]\n:KUBE-SEP-0189ZFXYZNFOG3QP - [0:0]\n\
        :KUBE-HP-IV37GLCFH35ADVUP - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT\n\
        -A KUBE-HP-IV37GLCFH35ADVUP -j DNAT --to-destination 10.1.1.1\nCOMMIT\n\
        *filter\n:KUBE-SVC-CDGGSHYLG3RE2FKL - [0:0]\n:SOMEBODYS - [0:0]\n\
        -A INPUT -m comment --comment \"kubernetes service portals\" -j SOMEBODYS\n\
        -A SOMEBODYS -m comment --comment \"a name -j KUBE-SERVICES\" -j ACCEPT\nCOMMIT\n";

    fn cleared(saved: &Saved, family: Family, shared: Shared) -> Saved {
        let found = Leftovers::find(saved, family, shared);
        assert!(!found.is_empty());
        let after = restored(saved, &found.removal());
        assert!(Leftovers::find(&after, family, shared).is_empty());
        after
    }

    /// Lines of `text` that are about a chain.
    fn about(text: &str, chain: &str) -> Vec<String> {
        text.lines().filter(|line| line.starts_with('*') || line.contains(chain)).map(str::to_owned).collect()
    }

    /// All chains with rules.
    fn with_rules(saved: &Saved) -> Vec<(&str, &str, &[String])> {
        let tables = ["mangle", "nat", "filter"].into_iter();
        let all = tables.flat_map(|table| saved.chains(table).map(move |(name, rules)| (table, name, rules)));
        all.filter(|(_, _, rules)| !rules.is_empty()).collect()
    }

    #[test]
    fn of_what_kube_proxy_made_only_the_chain_that_kubelet_has_too_is_left() {
        for (family, text) in [(Family::Ipv4, IPV4), (Family::Ipv6, IPV6)] {
            let after = cleared(&Saved::parse(text), family, Shared::KubeProxys);
            let firewall = Saved::parse(&about(text, "KUBE-FIREWALL").join("\n"));
            assert_eq!(with_rules(&after), with_rules(&firewall));
            let all = ["mangle", "nat", "filter"].into_iter().flat_map(|table| after.chains(table));
            let left: Vec<_> = all.map(|(name, _)| name).filter(|name| name.starts_with("KUBE-")).collect();
            assert_eq!(left, ["KUBE-FIREWALL"]);
        }
    }

    #[test]
    fn where_ours_stand_they_stay_whole_beside_what_goes() {
        for (family, text) in [(Family::Ipv4, IPV4), (Family::Ipv6, IPV6)] {
            let settings = RuleSettings::default();
            let before = Saved::parse(&[text, OTHERS].concat());
            let beside = restored(&before, &before.repair(&settings, family));
            let after = cleared(&beside, family, Shared::Ours);
            assert_eq!(after.settings(family), Some(settings));
            let clean = Saved::parse(&[&about(text, "KUBE-FIREWALL").join("\n"), "\n", OTHERS].concat());
            let clean = restored(&clean, &clean.repair(&settings, family));
            assert_eq!(with_rules(&after), with_rules(&clean));
        }
    }

    #[test]
    fn others_chains_and_jumps_are_not_known_as_kube_proxys() {
        let others = Saved::parse(OTHERS);
        for shared in [Shared::Ours, Shared::KubeProxys] {
            assert!(Leftovers::find(&others, Family::Ipv4, shared).is_empty());
        }
        let beside = Saved::parse(&[OTHERS, IPV4].concat());
        let after = cleared(&beside, Family::Ipv4, Shared::KubeProxys);
        for table in ["mangle", "nat", "filter"] {
            assert!(others.chains(table).all(|(name, _)| after.has_chain(table, name)), "{table}");
        }
    }

    #[test]
    fn a_chain_that_somebody_elses_rule_leads_into_is_emptied_and_told_of_once_it_is() {
        let leads =
            "*filter\n-A OUTPUT -j KUBE-SERVICES\nCOMMIT\n*nat\n-A CNI -p tcp -g KUBE-SVC-CDGGSHYLG3RE2FKL\nCOMMIT\n";
        let before = Saved::parse(&[IPV4, leads].concat());
        assert_eq!(Leftovers::find(&before, Family::Ipv4, Shared::KubeProxys).into_held(), BTreeSet::new());
        let after = cleared(&before, Family::Ipv4, Shared::KubeProxys);
        let held = Leftovers::find(&after, Family::Ipv4, Shared::KubeProxys).into_held();
        let told: Vec<_> = held.iter().map(Held::to_string).collect();
        assert_eq!(
            told,
            [
                "kube-proxy's chain KUBE-SERVICES (filter, ipv4) is empty and stays, for a rule leads into it: \
                 -A OUTPUT -j KUBE-SERVICES",
                "kube-proxy's chain KUBE-SVC-CDGGSHYLG3RE2FKL (nat, ipv4) is empty and stays, for a rule leads into it: \
                 -A CNI -p tcp -g KUBE-SVC-CDGGSHYLG3RE2FKL",
            ]
        );
    }

    #[test]
    fn chains_that_mark_for_masquerading_stay_where_others_have_or_use_them() {
        let chains = |saved: &Saved| MARKING.map(|name| saved.has_chain("nat", name));
        for (others, stay) in [
            ("", false),
            ("*nat\n:KUBE-MARK-DROP - [0:0]\nCOMMIT\n", true),
            ("*nat\n-A CNI-HOSTPORT-SETMARK -m mark --mark 0x2000/0x2000 -j KUBE-MARK-MASQ\nCOMMIT\n", true),
        ] {
            let after = cleared(&Saved::parse(&[IPV4, others].concat()), Family::Ipv4, Shared::KubeProxys);
            assert_eq!(chains(&after), [stay; 2], "{others}");
            let jumps = after.rules("nat", "POSTROUTING").unwrap();
            assert_eq!(jumps.len(), usize::from(stay));
        }
    }

    #[test]
    fn jumps_are_known_by_what_they_say_however_old() {
        let jump =
            |states, to, comment| format!("*filter\n-A INPUT {states}-m comment --comment \"{comment}\" -j {to}\n");
        for (states, to, comment, goes) in [
            ("", "KUBE-SERVICES", "kubernetes service portals", true),
            (FIRST_PACKETS, "KUBE-SERVICES", "kubernetes service portals", true),
            (FIRST_PACKETS, "KUBE-PROXY-FIREWALL", "kubernetes load balancer firewall", true),
            (FIRST_PACKETS, "KUBE-PROXY-FIREWALL", "kubernetes service portals", false),
            ("-p tcp ", "KUBE-SERVICES", "kubernetes service portals", false),
        ] {
            let saved = Saved::parse(&jump(states, to, comment));
            assert_eq!(!Leftovers::find(&saved, Family::Ipv4, Shared::Ours).is_empty(), goes, "{states}{to} {comment}");
        }
    }
}
