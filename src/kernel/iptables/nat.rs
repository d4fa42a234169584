//! What is different in the rules where netfilter balances in IPVS's place: nat leads packets to the chains of virtual
//! servers ([`crate::kernel::nat`]), so that behind it they have their endpoint's address.
//!
//! What was to be decided by the VIP in filter INPUT is decided before nat, or is about packets that found nobody. Those are
//! refused by a mark, which the chains of virtual servers have put on them: that an address is a node port's is known there
//! alone.

use super::table::{Chain, Jump, SETTINGS_AT, Table};
use crate::kernel::nat::chain::{PORTS, Tree};
use crate::kernel::nat::rule::{REFUSE, has_mark};
use crate::kernel::nfacct;
use crate::model::Family;
use crate::model::localhost::{FAR_DEVICE, NEAR_ADDRESS};
use crate::model::netfilter::{SetKey, SetKind};

/// The mark of packets that are to be refused: none of a virtual server's, and no single bit, as those of others are.
const REFUSED: u32 = 0x1010;

/// The rules of a family where netfilter balances.
pub struct Entry {
    /// The family.
    pub family: Family,
    /// Whether connection tracking calls nothing invalid.
    pub is_liberal: bool,
    /// Whether packets are counted by name.
    pub counts: bool,
    /// Whether node ports are on 127.0.0.1.
    pub localhost: bool,
}

impl Entry {
    /// Makes tables for IPVS such ones as do without.
    pub fn amend(&self, mut tables: [Table; 3]) -> [Table; 3] {
        for table in &mut tables {
            match table.name {
                "mangle" => self.amend_mangle(table),
                "nat" => self.amend_nat(table),
                _ => self.amend_filter(table),
            }
        }
        tables
    }

    fn amend_mangle(&self, table: &mut Table) {
        let ranges = self.in_set(SetKind::LoadBalancerFirewall);
        let check = format!("-m conntrack --ctstate NEW {ranges} -j IPVSD-SOURCE-RANGES");
        with_chain(table, SETTINGS_AT.1, |rules| rules.insert(1, check));
    }

    /// Those with a mark of a short circuit first: who is masqueraded there, mangle has decided. Then VIPs, where translation
    /// ends in any case, and the node's other addresses.
    fn amend_nat(&self, table: &mut Table) {
        // The last match, so that what is counted is what is translated: the first packet of each connection.
        with_chain(table, "IPVSD-LOCALHOST", |rules| {
            let count =
                |rule: &mut String| *rule = rule.replacen(" -j", &format!("{} -j", self.count(nfacct::LOCALHOST)), 1);
            rules.iter_mut().for_each(count);
        });
        with_chain(table, "KUBE-SERVICES", |rules| {
            let first = rules.iter().position(|rule| !rule.ends_with("-j RETURN")).unwrap_or_default();
            rules.insert(first, format!("{} -j {}", has_mark(), Tree::Mark.name()));
            for rule in rules.iter_mut() {
                if let Some(vip) = rule.strip_suffix("-j ACCEPT") {
                    *rule = format!("{vip}-j IPVSD-VIP");
                }
            }
            rules.push("-m addrtype --dst-type LOCAL -j IPVSD-DISPATCH".into());
        });
        table.chains.extend(dispatch());
        table.roots = Tree::ALL.map(Tree::name).into();
    }

    fn amend_filter(&self, table: &mut Table) {
        if self.localhost {
            // What goes on from there was translated here; all else is dropped behind.
            let accept = format!("-s {NEAR_ADDRESS}/32 -i {FAR_DEVICE} -m conntrack --ctstate DNAT -j ACCEPT");
            with_chain(table, "KUBE-FORWARD", |rules| rules.insert(0, accept));
        }
        if !self.is_liberal {
            // Else an answer that is out of the window would reach the client from the endpoint's address, which the client
            // does not know and resets: https://github.com/kubernetes/kubernetes/issues/74839
            let drop = format!("-m conntrack --ctstate INVALID{} -j DROP", self.count(nfacct::INVALID));
            with_chain(table, "KUBE-FORWARD", |rules| rules.insert(0, drop));
        }
        let refuse = format!("-m mark --mark {REFUSED:#x} -j REJECT --reject-with {}", self.refusal());
        let vips = [SetKind::ClusterIp, SetKind::LoadBalancer, SetKind::ExternalIp, SetKind::ExternalIpLocal];
        let unserved = vips.map(|kind| {
            let vip = self.in_set(kind);
            format!("-m conntrack --ctstate NEW {vip} -j REJECT --reject-with {}", self.refusal())
        });
        with_chain(table, "KUBE-PROXY-FIREWALL", |rules| {
            rules.push(refuse.clone());
            rules.extend(unserved);
        });
        // Before connection tracking knows the node's own, so that the next one is looked at anew.
        table.chains.push(Chain { name: "IPVSD-OUTPUT", rules: vec![refuse] });
        let rule = "-m comment --comment \"ipvsd refuses the node\" -j IPVSD-OUTPUT".into();
        table.jumps.push(Jump { from: "OUTPUT", rule });
    }

    /// The match that counts what has come so far in this counter, if there may be one, and a space before it.
    fn count(&self, counter: &str) -> String {
        if self.counts { format!(" -m nfacct --nfacct-name {counter}") } else { String::new() }
    }

    fn refusal(&self) -> &'static str {
        match self.family {
            Family::Ipv4 => "icmp-port-unreachable",
            Family::Ipv6 => "icmp6-port-unreachable",
        }
    }

    fn in_set(&self, kind: SetKind) -> String {
        format!("-m set --match-set {} dst,dst", SetKey { kind, family: self.family }.name())
    }
}

/// The way to the trees of virtual servers, and what becomes of packets that nobody is there for.
fn dispatch() -> [Chain; 3] {
    let (first, last) = PORTS;
    let by_port = |protocol| format!("-p {protocol} -m {protocol} --dport {first}:{last} -j {}", Tree::Port.name());
    let by_address = format!("-j {}", Tree::Address.name());
    let refuse = format!("-j MARK --set-xmark {REFUSED:#x}/0xffffffff");
    [
        Chain { name: "IPVSD-VIP", rules: vec!["-j IPVSD-DISPATCH".into(), "-j ACCEPT".into()] },
        Chain { name: "IPVSD-DISPATCH", rules: vec![by_port("tcp"), by_port("udp"), by_address] },
        Chain { name: REFUSE, rules: vec![refuse, "-j ACCEPT".into()] },
    ]
}

fn with_chain(table: &mut Table, name: &str, edit: impl FnOnce(&mut Vec<String>)) {
    if let Some(chain) = table.chains.iter_mut().find(|chain| chain.name == name) {
        edit(&mut chain.rules);
    }
}

#[cfg(test)]
mod tests {
    use crate::kernel::iptables::rules::tables;
    use crate::model::Family;

    fn chain(settings: &str, table: &str, name: &str) -> Vec<String> {
        let mut tables = tables(&settings.parse().unwrap(), Family::Ipv4).into_iter();
        let chains = tables.find(|found| found.name == table).unwrap().chains;
        chains.into_iter().find(|chain| chain.name == name).map(|chain| chain.rules).unwrap_or_default()
    }

    #[test]
    fn short_circuits_come_before_masquerading_and_vips_end_in_the_dispatch() {
        let rules = chain("masquerade 0x4000, nat, pods on cni0", "nat", "KUBE-SERVICES");
        let at = |text: &str| rules.iter().position(|rule| rule.contains(text)).unwrap();
        let order = ["-j RETURN", "-j IPVSD-MARK", "-j KUBE-MARK-MASQ", "-j IPVSD-VIP", "-j KUBE-NODE-PORT"].map(at);
        assert!(order.is_sorted(), "{rules:#?}");
        assert!(!rules.iter().any(|rule| rule.ends_with("ACCEPT")));
        assert_eq!(rules.last().unwrap(), "-m addrtype --dst-type LOCAL -j IPVSD-DISPATCH");
    }

    #[test]
    fn source_ranges_are_looked_up_before_nat() {
        let rules = chain("masquerade 0x4000, nat", "mangle", "IPVSD-PREROUTING");
        let check =
            "-m conntrack --ctstate NEW -m set --match-set KUBE-LOAD-BALANCER-FW dst,dst -j IPVSD-SOURCE-RANGES";
        assert_eq!(rules, ["-m comment --comment \"masquerade 0x4000, nat\"", check]);
    }

    #[test]
    fn what_is_invalid_is_dropped_unless_nothing_is() {
        let first = |settings| chain(settings, "filter", "KUBE-FORWARD").remove(0);
        assert_eq!(first("masquerade 0x4000, nat"), "-m conntrack --ctstate INVALID -j DROP");
        assert_eq!(first("masquerade 0x4000, liberal nat"), "-m mark --mark 0x4000/0x4000 -j ACCEPT");
    }

    #[test]
    fn packets_are_counted_by_kube_proxys_names_right_before_what_is_done_with_them() {
        let all = |settings: &str| {
            let tables = tables(&settings.parse().unwrap(), Family::Ipv4).into_iter().flat_map(|table| table.chains);
            tables.flat_map(|chain| chain.rules).filter(|rule| rule.contains("nfacct")).collect::<Vec<_>>()
        };
        assert_eq!(all("masquerade 0x4000, localhost, nat"), [""; 0]);
        let counted = all("masquerade 0x4000, localhost, nat, counted");
        assert_eq!(counted.len(), 4);
        let invalid = "-m conntrack --ctstate INVALID -m nfacct --nfacct-name ct_state_invalid_dropped_pkts -j DROP";
        assert_eq!(counted[3], invalid);
        let localhost = "-m set --match-set IPVSD-LOCALHOST-TCP dst -m nfacct --nfacct-name localhost_nps_accepted_pkts \
             -j DNAT --to-destination 169.254.255.119";
        assert!(counted[0].ends_with(localhost), "{}", counted[0]);
        assert_eq!(all("masquerade 0x4000, liberal nat, counted"), [""; 0]);
    }

    #[test]
    fn what_comes_from_127_0_0_1_is_let_through_once_it_is_translated() {
        let forward = chain("masquerade 0x4000, localhost, liberal nat", "filter", "KUBE-FORWARD");
        assert_eq!(forward[0], "-s 169.254.255.118/32 -i ipvsd-lo1 -m conntrack --ctstate DNAT -j ACCEPT");
        assert!(forward[1..].contains(&"-i ipvsd-lo1 -j DROP".to_owned()));
    }

    #[test]
    fn with_ipvs_there_is_none_of_it() {
        let text = format!("{:?}", tables(&"masquerade 0x4000, pods on cni0".parse().unwrap(), Family::Ipv6));
        for of_nat in ["IPVSD-VIP", "IPVSD-DISPATCH", "IPVSD-REFUSE", "INVALID", "0x1010"] {
            assert!(!text.contains(of_nat), "{of_nat}");
        }
    }
}
