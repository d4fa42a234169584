//! Chains in a kernel that takes only what iptables-restore would: what is written is what is read.

use super::*;
use crate::model::{DestinationKey, DestinationSpec, Protocol};
use proptest::prelude::*;

/// Enough of iptables-restore for what is given to it here.
#[derive(Clone, Debug, Default, PartialEq)]
struct Kernel(BTreeMap<String, Vec<String>>);

impl Kernel {
    fn restore(&mut self, input: &Input) {
        for line in input.text.lines() {
            match line.split_once(' ') {
                None => assert!(["*nat", "COMMIT"].contains(&line)),
                Some(("-A", rule)) => {
                    let (chain, rule) = rule.split_once(' ').unwrap();
                    let (_, target) = rule.rsplit_once("-j ").unwrap_or_default();
                    assert!(!target.starts_with("IPVSD-") || self.0.contains_key(target), "{line}");
                    self.0.get_mut(chain).unwrap().push(rule.to_owned());
                }
                Some(("-X", chain)) => {
                    assert_eq!(self.0.remove(chain), Some(vec![]), "{line}");
                    let leads = |rule: &String| rule.ends_with(&format!("-j {chain}"));
                    assert!(!self.0.values().flatten().any(leads), "{line}");
                }
                Some((declared, _)) => drop(self.0.insert(declared.trim_start_matches(':').to_owned(), vec![])),
            }
        }
    }

    fn read(&self) -> Table {
        Table::read(Family::Ipv4, self.0.iter().map(|(name, rules)| (name.as_str(), rules.as_slice())))
    }
}

fn key(n: u16) -> VirtualServerKey {
    let port = if n.is_multiple_of(3) { 80 } else { 30_000 + n };
    VirtualServerKey::new(format!("10.96.{}.{}", n / 256, n % 256).parse().unwrap(), port, Protocol::Tcp)
}

fn server(weights: &[u32]) -> VirtualServer {
    let destination = |(i, weight): (usize, &u32)| {
        let key = DestinationKey { address: format!("10.244.0.{i}").parse().unwrap(), port: 80 };
        (key, DestinationSpec::masquerading(*weight))
    };
    VirtualServer { spec: server::spec(None), destinations: weights.iter().enumerate().map(destination).collect() }
}

fn held(table: &Table) -> BTreeMap<VirtualServerKey, VirtualServer> {
    table.virtual_servers().map(|(key, server)| (*key, server.clone())).collect()
}

fn with(keys: impl IntoIterator<Item = u16>) -> (Kernel, Table) {
    let changes: Changes = keys.into_iter().map(|n| (key(n), Some(server(&[1, 1])))).collect();
    let (mut kernel, mut table) = (Kernel::default(), Table::empty(Family::Ipv4));
    kernel.restore(&table.input(&changes));
    table.written(changes);
    (kernel, table)
}

/// kube-proxy has three chains for each Service, 30,000 here, and has a packet pass one rule for each.
#[test]
fn however_many_services_there_are_they_are_in_so_many_chains_and_a_packet_passes_few_rules() {
    let vip = |n: u16| {
        let [high, low] = n.to_be_bytes();
        VirtualServerKey::new([10, 96, high, low].into(), 80, Protocol::Tcp)
    };
    for (services, most_chains, most_passed) in [(10, 16, 16), (10_000, 300, 128)] {
        let changes: Changes = (0..services).map(|n| (vip(n), Some(server(&[1, 1])))).collect();
        let (mut kernel, table) = (Kernel::default(), Table::empty(Family::Ipv4));
        kernel.restore(&table.input(&changes));
        let rules = |chain: Chain| kernel.0.get(&chain.name()).map_or(0, Vec::len);
        let up = |n| std::iter::successors(Some(Chain::of(&vip(n))), |chain| chain.parent());
        let longest = (0..services).map(|n| up(n).map(rules).sum::<usize>()).max().unwrap();
        let chains = kernel.0.len();
        assert!(chains <= most_chains && longest <= most_passed, "{services}: {chains} chains, {longest} rules");
    }
}

#[test]
fn a_change_writes_one_leaf() {
    let (_, table) = with(0..2000);
    let input = table.input(&[(key(3), Some(server(&[1])))].into());
    let declared: Vec<_> = input.text.lines().filter(|line| line.starts_with(':')).collect();
    assert_eq!(declared, [":IPVSD-ADDRESS-03 - [0:0]"]);
    assert!(input.text.lines().count() < 20, "{}", input.text);
    let of_changed = |line: usize| input.at(line).is_some_and(|(_, owner)| owner == Some(key(3)));
    assert_eq!((1..30).filter(|line| of_changed(*line)).count(), 1);
    assert_eq!(input.at(1), Some(("*nat", None)));
    assert_eq!((input.at(0), input.at(99)), (None, None));
}

#[test]
fn the_first_and_the_last_of_a_leaf_bring_and_take_the_ways_there() {
    let (mut kernel, mut table) = with([3]);
    let names: Vec<_> = kernel.0.keys().map(String::as_str).collect();
    assert_eq!(names, ["IPVSD-ADDRESS", "IPVSD-ADDRESS-0", "IPVSD-ADDRESS-03", REFUSE]);
    let gone: Changes = [(key(3), None)].into();
    kernel.restore(&table.input(&gone));
    table.written(gone);
    let names: Vec<_> = kernel.0.keys().map(String::as_str).collect();
    assert_eq!(names, ["IPVSD-ADDRESS", REFUSE]);
    assert!(kernel.read().is_clean() && kernel.read().virtual_servers().next().is_none());
}

#[test]
fn anything_missing_added_or_doubled_is_unclean_and_put_right() {
    let (whole, _) = with(0..40);
    for (name, rules) in whole.0.iter().filter(|(name, _)| *name != REFUSE) {
        for at in 0..rules.len() {
            let mut broken = [whole.clone(), whole.clone(), whole.clone()];
            let edit: [fn(&mut Vec<String>, usize); 3] = [
                |rules, at| drop(rules.remove(at)),
                |rules, at| rules.insert(at, rules[at].clone()),
                |rules, at| rules.insert(at, "-j ACCEPT".into()),
            ];
            for (broken, edit) in broken.iter_mut().zip(edit) {
                edit(broken.0.get_mut(name).unwrap(), at);
                let mut table = broken.read();
                let wanted = held(&whole.read());
                let found = held(&table);
                let missing: Changes = wanted
                    .iter()
                    .filter(|(key, server)| found.get(key) != Some(server))
                    .map(|(k, s)| (*k, Some(s.clone())))
                    .collect();
                assert!(!table.is_clean() || !missing.is_empty(), "{name} {at}");
                broken.restore(&table.input(&missing));
                table.written(missing);
                assert_eq!(*broken, whole, "{name} {at}");
            }
        }
    }
}

#[test]
fn after_a_flush_everything_is_missing() {
    let (whole, _) = with(0..40);
    let mut flushed = whole.clone();
    flushed.0.values_mut().for_each(Vec::clear);
    let mut table = flushed.read();
    assert!(held(&table).is_empty() && !table.is_clean());
    let all: Changes = held(&whole.read()).into_iter().map(|(key, server)| (key, Some(server))).collect();
    flushed.restore(&table.input(&all));
    table.written(all);
    assert_eq!(flushed, whole);
}

#[test]
fn what_nobody_asks_for_in_a_chain_of_ours_goes() {
    let (whole, _) = with([3]);
    let mut littered = whole.clone();
    for name in ["IPVSD-ADDRESS-9", "IPVSD-ADDRESS-99", "IPVSD-PORT-7"] {
        littered.0.insert(name.into(), vec!["-j ACCEPT".into()]);
    }
    let table = littered.read();
    assert!(!table.is_clean());
    littered.restore(&table.input(&Changes::new()));
    let roots = ["IPVSD-PORT"].map(|root| littered.0.remove(root));
    assert_eq!(roots, [Some(vec![])]);
    assert_eq!(littered, whole);
}

#[test]
fn a_chain_that_somebody_leads_into_is_emptied_and_stays() {
    let (mut kernel, _) = with([3, 6]);
    for (name, rule) in [("KUBE-OTHER", "-d 203.0.113.9 -j IPVSD-ADDRESS-03"), ("CNI", "-g IPVSD-ADDRESS-9A")] {
        kernel.0.insert(name.into(), vec![rule.into()]);
    }
    kernel.0.insert("IPVSD-ADDRESS-9A".into(), vec![]);
    let mut table = kernel.read();
    assert!(table.is_clean(), "{table:?}");
    let gone: Changes = [(key(3), None)].into();
    let input = table.input(&gone);
    assert!(!input.text.contains("-X"), "{}", input.text);
    kernel.restore(&input);
    table.written(gone);
    assert_eq!(kernel.0["IPVSD-ADDRESS-03"], [""; 0]);
    assert!(!kernel.0["IPVSD-ADDRESS-0"].iter().any(|rule| rule.ends_with("-03")));
    assert!(kernel.read().is_clean());
    assert_eq!(held(&kernel.read()), held(&table));
    kernel.0.remove("KUBE-OTHER");
    kernel.0.remove("CNI");
    assert!(!kernel.read().is_clean());
    kernel.restore(&kernel.read().input(&Changes::new()));
    assert_eq!(kernel, with([6]).0);
}

proptest! {
    #[test]
    fn after_any_changes_the_kernel_holds_what_was_said(
        steps in prop::collection::vec(prop::collection::btree_map(0_u16..600, prop::option::of(prop::collection::vec(0_u32..3, 0..3)), 0..12), 1..6),
    ) {
        let (mut kernel, mut table) = (Kernel::default(), Table::empty(Family::Ipv4));
        for step in steps {
            let changes: Changes = step.into_iter().map(|(n, weights)| (key(n), weights.map(|weights| server(&weights)))).collect();
            kernel.restore(&table.input(&changes));
            table.written(changes);
            let read = kernel.read();
            prop_assert!(read.is_clean());
            prop_assert_eq!(held(&read), held(&table));
        }
    }
}
