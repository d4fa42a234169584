//! The text of the rules: chains, and jumps into them, exactly as `iptables-save` prints them.
//!
//! A packet to a VIP goes PREROUTING (mangle, nat), INPUT (filter), IPVS, and from there as one with its destination's
//! address through OUTPUT and POSTROUTING (mangle, nat). One of the node's own begins in OUTPUT (mangle, nat), where IPVS
//! takes it before filter's rules. The answer goes through FORWARD or INPUT, where IPVS turns it back.
//!
//! | table | decides |
//! |---|---|
//! | mangle | who may use a frontend's endpoints on other nodes (by a mark that IPVS heeds); the node's own access by source ranges |
//! | nat | who is masqueraded, by a bit of the mark; that nobody else's rules translate a VIP |
//! | filter | access by source ranges; what of the node can be reached by a VIP's address |
//!
//! Where these rules balance themselves, `nat` beside this file says what is different.
//!
//! Chains and rules are those of kube-proxy's ipvs mode where they serve the same purpose; `docs/decisions.md` says what
//! differs.

use super::nat;
use super::table::{Chain, Jump, SETTINGS_AT, Table};
use crate::model::Family;
use crate::model::localhost::{FAR_ADDRESS, FAR_DEVICE, NEAR_ADDRESS, NEAR_DEVICE};
use crate::model::netfilter::{Balancing, LocalPods, RuleSettings, SetKey, SetKind, mark};

/// All rules of a family.
pub fn tables(settings: &RuleSettings, family: Family) -> [Table; 3] {
    let writer = Writer { settings, family };
    let tables = [writer.mangle(), writer.nat(), writer.filter()];
    match settings.balancing {
        Balancing::Ipvs => tables,
        Balancing::Nat { is_liberal, counts } => {
            nat::Entry { family, is_liberal, counts, localhost: settings.localhost }.amend(tables)
        }
    }
}

struct Writer<'a> {
    settings: &'a RuleSettings,
    family: Family,
}

impl Writer<'_> {
    fn mangle(&self) -> Table {
        let ours = format!("-m mark --mark {:#x}/{:#x}", mark::TAG, mark::MASK);
        // In the first packet of a connection only, as nat sees no other: on later ones the bit would stay, and make
        // the packets of a tunnel that carry them look as if they should be masqueraded.
        let first = "-m addrtype --src-type LOCAL -m conntrack ! --ctstatus CONFIRMED";
        let short_circuit = format!("-j SET --map-set {} dst,dst --map-mark", self.set(SetKind::ShortCircuit));
        let mut prerouting = vec![format!("-m comment --comment \"{}\"", self.settings)];
        prerouting.extend(self.is_local_pod("").map(|pod| format!("{pod} {short_circuit}")));
        let from_localhost = || format!("-s {NEAR_ADDRESS}/32 -i {FAR_DEVICE} {short_circuit}");
        prerouting.extend(self.settings.localhost.then(from_localhost));
        Table {
            name: "mangle",
            chains: vec![
                chain(SETTINGS_AT.1, prerouting),
                chain(
                    "IPVSD-OUTPUT",
                    vec![
                        format!("{} -j IPVSD-SOURCE-RANGES", self.in_set(SetKind::LoadBalancerFirewall, "dst,dst")),
                        short_circuit,
                    ],
                ),
                chain("IPVSD-SOURCE-RANGES", self.source_ranges()),
                chain(
                    "IPVSD-POSTROUTING",
                    vec![
                        format!("{ours} {first} -j MARK --set-xmark {:#x}/0xffffffff", self.bit()),
                        format!("{ours} -j MARK --set-xmark 0x0/0xffffffff"),
                    ],
                ),
            ],
            roots: vec![],
            jumps: vec![
                jump("PREROUTING", "ipvsd short circuit of pods", SETTINGS_AT.1),
                jump("OUTPUT", "ipvsd short circuit of the node", "IPVSD-OUTPUT"),
                jump("POSTROUTING", "ipvsd takes marks off", "IPVSD-POSTROUTING"),
            ],
        }
    }

    fn nat(&self) -> Table {
        let bit = self.bit();
        Table {
            name: "nat",
            chains: vec![
                chain("IPVSD-LOCALHOST", self.localhost()),
                chain("KUBE-SERVICES", self.services()),
                chain(
                    "KUBE-LOAD-BALANCER",
                    vec![
                        format!("{} -j RETURN", self.in_set(SetKind::LoadBalancerLocal, "dst,dst")),
                        "-j KUBE-MARK-MASQ".into(),
                    ],
                ),
                chain("KUBE-NODE-PORT", self.node_ports()),
                chain("KUBE-MARK-MASQ", vec![format!("-j MARK --set-xmark {bit:#x}/{bit:#x}")]),
                chain("KUBE-POSTROUTING", self.masquerading()),
            ],
            roots: vec![],
            jumps: vec![
                jump("PREROUTING", "kubernetes service portals", "KUBE-SERVICES"),
                jump("OUTPUT", "ipvsd node ports on localhost", "IPVSD-LOCALHOST"),
                jump("OUTPUT", "kubernetes service portals", "KUBE-SERVICES"),
                jump("POSTROUTING", "kubernetes postrouting rules", "KUBE-POSTROUTING"),
            ],
        }
    }

    /// What the node sends to node ports on its loopback addresses goes out by the near end. Those without endpoints are
    /// not in the sets: from there nothing could be refused, as the far address is none that the node can send from. Sets
    /// of ports alone do not match SCTP; its set is asked with the client's address, which is 127.0.0.1 whatever loopback
    /// address it asks for, unless it chose another.
    fn localhost(&self) -> Vec<String> {
        let protocols = [
            ("tcp", SetKind::LocalhostTcp, "dst"),
            ("udp", SetKind::LocalhostUdp, "dst"),
            ("sctp", SetKind::LocalhostSctp, "src,dst"),
        ];
        let rule = |(protocol, kind, direction)| {
            let is_node_port = self.in_set(kind, direction);
            format!("-d 127.0.0.0/8 -p {protocol} {is_node_port} -j DNAT --to-destination {FAR_ADDRESS}")
        };
        let wanted = protocols.into_iter().filter(|_| self.settings.localhost);
        wanted.map(rule).collect()
    }

    fn masquerading(&self) -> Vec<String> {
        let bit = self.bit();
        let mut rules = Vec::new();
        if self.settings.localhost {
            rules.push(format!("-o {NEAR_DEVICE} -j SNAT --to-source {NEAR_ADDRESS}"));
            rules.push(format!("-s {NEAR_ADDRESS}/32 -j MASQUERADE --random-fully"));
        }
        rules.push(format!("{} -j MASQUERADE", self.in_set(SetKind::LoopBack, "dst,dst,src")));
        rules.push(format!("-m mark ! --mark {bit:#x}/{bit:#x} -j RETURN"));
        // Taken off, so that a packet that comes by once more in a tunnel is left alone.
        rules.push(format!("-j MARK --set-xmark {bit:#x}/0x0"));
        rules.push("-j MASQUERADE --random-fully".into());
        rules
    }

    /// Who is masqueraded. Traffic to a VIP ends here: what follows, host ports of pods for instance, is for addresses of
    /// the node, and to the kernel a VIP is one.
    fn services(&self) -> Vec<String> {
        let loopback = match self.family {
            Family::Ipv4 => "127.0.0.0/8",
            Family::Ipv6 => "::1/128",
        };
        let mut rules = vec![format!("-s {loopback} -j RETURN")];
        let cluster_ip = self.in_set(SetKind::ClusterIp, "dst,dst");
        rules.push(if self.settings.masquerade_all {
            format!("{cluster_ip} -j KUBE-MARK-MASQ")
        } else if let Some(not_local) = self.is_local_pod("! ") {
            format!("{not_local} {cluster_ip} -j KUBE-MARK-MASQ")
        } else {
            // The node's own, if it has the VIP itself as its source.
            format!("{} -j KUBE-MARK-MASQ", self.in_set(SetKind::ClusterIp, "src,dst"))
        });
        rules.push(format!("{} -j KUBE-MARK-MASQ", self.in_set(SetKind::ExternalIp, "dst,dst")));
        rules.push(format!("{} -j KUBE-LOAD-BALANCER", self.in_set(SetKind::LoadBalancer, "dst,dst")));
        rules.extend(VIP_SETS.map(|kind| format!("{} -j ACCEPT", self.in_set(kind, "dst,dst"))));
        rules.push("-m addrtype --dst-type LOCAL -j KUBE-NODE-PORT".into());
        rules
    }

    fn node_ports(&self) -> Vec<String> {
        let protocols = [
            ("tcp", "dst", SetKind::NodePortLocalTcp, SetKind::NodePortTcp),
            ("udp", "dst", SetKind::NodePortLocalUdp, SetKind::NodePortUdp),
            ("sctp", "dst,dst", SetKind::NodePortLocalSctp, SetKind::NodePortSctp),
        ];
        let rules = protocols.map(|(protocol, direction, local, all)| {
            [
                format!("-p {protocol} {} -j RETURN", self.in_set(local, direction)),
                format!("-p {protocol} {} -j KUBE-MARK-MASQ", self.in_set(all, direction)),
            ]
        });
        rules.into_iter().flatten().collect()
    }

    fn filter(&self) -> Table {
        let health_checks = format!("-p tcp {}", self.in_set(SetKind::HealthCheckNodePort, "dst"));
        // Those with a mark are on their way to the endpoints of the whole cluster.
        let no_local = format!(
            "-m mark ! --mark {:#x}/{:#x} -m conntrack --ctstate NEW {}",
            mark::TAG,
            mark::MASK,
            self.in_set(SetKind::NoLocal, "dst,dst")
        );
        Table {
            name: "filter",
            chains: vec![
                chain("KUBE-FORWARD", self.forwarding()),
                chain("KUBE-NODE-PORT", self.let_in(&health_checks)),
                chain(
                    "KUBE-PROXY-FIREWALL",
                    vec![
                        format!(
                            "{} -j KUBE-SOURCE-RANGES-FIREWALL",
                            self.in_set(SetKind::LoadBalancerFirewall, "dst,dst")
                        ),
                        // One whose connection was cut is to hear of it.
                        format!(
                            "-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN {no_local} -j REJECT --reject-with tcp-reset"
                        ),
                        format!("{no_local} -j DROP"),
                    ],
                ),
                chain("KUBE-SOURCE-RANGES-FIREWALL", self.source_ranges()),
                chain("KUBE-IPVS-FILTER", self.around_vips(&health_checks)),
                // Where kube-proxy has a rule for each load-balancer IP that the node may not use.
                chain("KUBE-IPVS-OUT-FILTER", vec![]),
            ],
            roots: vec![],
            jumps: vec![
                jump("FORWARD", "kubernetes forwarding rules", "KUBE-FORWARD"),
                jump("INPUT", "kubernetes ipvs access filter", "KUBE-IPVS-FILTER"),
                jump("INPUT", "kube-proxy firewall rules", "KUBE-PROXY-FIREWALL"),
                jump("INPUT", "kubernetes health check rules", "KUBE-NODE-PORT"),
            ],
        }
    }

    fn forwarding(&self) -> Vec<String> {
        let bit = self.bit();
        let mut rules = Vec::new();
        if self.settings.localhost {
            // What the node itself sends ends behind our devices. From elsewhere nobody gets there, nor on from there.
            rules.extend([NEAR_DEVICE, FAR_DEVICE].map(|device| format!("-i {device} -j DROP")));
            rules.push(format!("-o {NEAR_DEVICE} -j DROP"));
        }
        rules.push(format!("-m mark --mark {bit:#x}/{bit:#x} -j ACCEPT"));
        rules.push("-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT".into());
        rules
    }

    /// What comes in whatever rules of others say that follow. To those who allow all that comes in by `lo`, ours is lo.
    fn let_in(&self, health_checks: &str) -> Vec<String> {
        let mut rules = vec![format!("{health_checks} -j ACCEPT")];
        if self.settings.localhost {
            rules.push(format!("-s {NEAR_ADDRESS}/32 -i {FAR_DEVICE} -j ACCEPT"));
            rules.push(format!("-i {NEAR_DEVICE} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"));
        }
        rules
    }

    /// Who may use a load-balancer IP with source ranges.
    fn source_ranges(&self) -> Vec<String> {
        vec![
            format!("{} -j RETURN", self.in_set(SetKind::LoadBalancerSourceCidr, "dst,dst,src")),
            format!("{} -j RETURN", self.in_set(SetKind::LoadBalancerSourceIp, "dst,dst,src")),
            "-j DROP".into(),
        ]
    }

    /// A VIP has its frontends, health checks and an answer to ping; the node's other ports are not to be reached by it.
    fn around_vips(&self, health_checks: &str) -> Vec<String> {
        let (echo, reject) = match self.family {
            Family::Ipv4 => ("-p icmp -m icmp --icmp-type 8", "icmp-port-unreachable"),
            Family::Ipv6 => ("-p ipv6-icmp -m icmp6 --icmpv6-type 128", "icmp6-port-unreachable"),
        };
        let mut rules: Vec<_> =
            VIP_SETS.iter().map(|kind| format!("{} -j RETURN", self.in_set(*kind, "dst,dst"))).collect();
        rules.push(format!("{health_checks} -j RETURN"));
        rules.push(format!("{echo} -j RETURN"));
        let vips = self.in_set(SetKind::Vips, "dst");
        // An ICMP message does not end a connection that stands: without a reset, one that was cut would hang.
        rules.push(format!("-p tcp -m conntrack --ctstate NEW {vips} -j REJECT --reject-with tcp-reset"));
        rules.push(format!("-m conntrack --ctstate NEW {vips} -j REJECT --reject-with {reject}"));
        rules
    }

    /// A match for packets of this node's pods, or with `! ` for all others.
    fn is_local_pod(&self, not: &str) -> Option<String> {
        match self.settings.local_pods {
            LocalPods::Unknown => None,
            LocalPods::From(network) => Some(format!("{not}-s {network}")),
            LocalPods::Device(name) => Some(format!("{not}-i {name}")),
            LocalPods::DevicePrefix(name) => Some(format!("{not}-i {name}+")),
        }
    }

    fn in_set(&self, kind: SetKind, direction: &str) -> String {
        format!("-m set --match-set {} {direction}", self.set(kind))
    }

    fn set(&self, kind: SetKind) -> String {
        SetKey { kind, family: self.family }.name()
    }

    fn bit(&self) -> u32 {
        self.settings.masquerade_bit.bits()
    }
}

/// The sets that have the frontends on VIPs.
const VIP_SETS: [SetKind; 4] =
    [SetKind::ClusterIp, SetKind::LoadBalancer, SetKind::ExternalIp, SetKind::ExternalIpLocal];

fn chain(name: &'static str, rules: Vec<String>) -> Chain {
    Chain { name, rules }
}

fn jump(from: &'static str, comment: &str, to: &str) -> Jump {
    Jump { from, rule: format!("-m comment --comment \"{comment}\" -j {to}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain_of(settings: &str, family: Family, name: &str) -> Vec<String> {
        let tables = tables(&settings.parse().unwrap(), family);
        let chain = tables.into_iter().flat_map(|table| table.chains).find(|chain| chain.name == name);
        chain.unwrap().rules
    }

    #[test]
    fn who_is_masqueraded_at_cluster_ips_depends_on_the_settings() {
        for (settings, rule) in [
            ("masquerade 0x4000", "-m set --match-set KUBE-CLUSTER-IP src,dst -j KUBE-MARK-MASQ"),
            ("masquerade 0x4000, all, pods on cni0", "-m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ"),
            (
                "masquerade 0x4000, pods from 10.244.0.0/16",
                "! -s 10.244.0.0/16 -m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ",
            ),
            (
                "masquerade 0x4000, pods on veth+",
                "! -i veth+ -m set --match-set KUBE-CLUSTER-IP dst,dst -j KUBE-MARK-MASQ",
            ),
        ] {
            assert_eq!(chain_of(settings, Family::Ipv4, "KUBE-SERVICES")[1], rule);
        }
    }

    #[test]
    fn pods_that_cannot_be_told_have_no_short_circuit() {
        assert_eq!(chain_of("masquerade 0x1", Family::Ipv4, SETTINGS_AT.1).len(), 1);
        let rules = chain_of("masquerade 0x1, pods on cni0", Family::Ipv6, SETTINGS_AT.1);
        assert_eq!(rules[1], "-i cni0 -j SET --map-set IPVSD-6-SHORT-CIRCUIT dst,dst --map-mark");
    }

    #[test]
    fn node_ports_on_localhost_have_their_rules_only_where_they_are_wanted() {
        let about = |settings: &str| {
            let chains = tables(&settings.parse().unwrap(), Family::Ipv4).into_iter().flat_map(|table| table.chains);
            let rules =
                chains.flat_map(|chain| chain.rules.into_iter().map(move |rule| format!("{} {rule}", chain.name)));
            rules
                .filter(|rule| ["ipvsd-lo", "169.254.", "127.0.0.0/8 -p"].iter().any(|part| rule.contains(part)))
                .collect::<Vec<_>>()
        };
        assert_eq!(about("masquerade 0x4000"), [""; 0]);
        assert_eq!(
            about("masquerade 0x4000, localhost"),
            [
                "IPVSD-PREROUTING -s 169.254.255.118/32 -i ipvsd-lo1 -j SET --map-set IPVSD-SHORT-CIRCUIT dst,dst --map-mark",
                "IPVSD-LOCALHOST -d 127.0.0.0/8 -p tcp -m set --match-set IPVSD-LOCALHOST-TCP dst -j DNAT --to-destination 169.254.255.119",
                "IPVSD-LOCALHOST -d 127.0.0.0/8 -p udp -m set --match-set IPVSD-LOCALHOST-UDP dst -j DNAT --to-destination 169.254.255.119",
                "IPVSD-LOCALHOST -d 127.0.0.0/8 -p sctp -m set --match-set IPVSD-LOCALHOST-SCTP src,dst -j DNAT --to-destination 169.254.255.119",
                "KUBE-POSTROUTING -o ipvsd-lo0 -j SNAT --to-source 169.254.255.118",
                "KUBE-POSTROUTING -s 169.254.255.118/32 -j MASQUERADE --random-fully",
                "KUBE-FORWARD -i ipvsd-lo0 -j DROP",
                "KUBE-FORWARD -i ipvsd-lo1 -j DROP",
                "KUBE-FORWARD -o ipvsd-lo0 -j DROP",
                "KUBE-NODE-PORT -s 169.254.255.118/32 -i ipvsd-lo1 -j ACCEPT",
                "KUBE-NODE-PORT -i ipvsd-lo0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            ]
        );
    }

    #[test]
    fn the_masquerade_bit_is_the_one_of_the_settings() {
        assert_eq!(
            chain_of("masquerade 0x80000000", Family::Ipv4, "KUBE-MARK-MASQ"),
            ["-j MARK --set-xmark 0x80000000/0x80000000"]
        );
        let all = tables(&"masquerade 0x2".parse().unwrap(), Family::Ipv6);
        assert!(!format!("{all:?}").contains("0x4000"));
    }
}
