//! What every `Kernel` must do with sets and rules, the fake and Linux alike. Each case begins with none of either.

use crate::contract::{Case, apply, ip, observe};
use ipvsd::kernel::{Cause, Errno, Failure, Kernel};
use ipvsd::model::netfilter::{AddressPort, Capacity, Mark, Member, RuleSettings, SetKey, SetKind};
use ipvsd::model::{Family, Leftover, Model, Op, Protocol};
use std::collections::BTreeMap;

/// The cases by name.
pub const CASES: &[(&str, Case)] = &[
    ("sets_of_every_kind_hold_their_members", sets_of_every_kind_hold_their_members),
    ("members_are_changed_and_removed_one_by_one", members_are_changed_and_removed_one_by_one),
    ("sets_refuse_what_the_kernel_refuses", sets_refuse_what_the_kernel_refuses),
    ("a_set_that_is_full_says_so", a_set_that_is_full_says_so),
    ("a_set_keeps_its_members_when_it_is_resized", a_set_keeps_its_members_when_it_is_resized),
    ("rules_stand_on_sets", rules_stand_on_sets),
    ("what_kube_proxy_did_not_leave_is_removed_already", what_kube_proxy_did_not_leave_is_removed_already),
];

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

pub fn frontend(family: Family, protocol: Protocol, port: u16) -> AddressPort {
    let address = if family == Family::Ipv4 { "10.96.0.1" } else { "fd00:96::1" };
    AddressPort { address: ip(address), protocol, port }
}

/// A set of every kind.
pub fn creations() -> Vec<Op> {
    SetKey::all().map(|key| Op::CreateSet(key, Capacity::LEAST)).collect()
}

/// Some members for each.
pub fn additions() -> Vec<Op> {
    let add = |kind, family, member, mark| Op::AddMember(SetKey { kind, family }, member, mark);
    let mut ops = Vec::new();
    for family in FAMILIES {
        let networks =
            if family == Family::Ipv4 { ["192.0.2.2/32", "10.0.0.0/9"] } else { ["fd00::2/128", "fd00::/64"] };
        let of = |protocol| frontend(family, protocol, 80);
        for kind in [SetKind::ClusterIp, SetKind::NodePortSctp, SetKind::NoLocal] {
            ops.extend(
                [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
                    .map(|protocol| add(kind, family, Member::AddressPort(of(protocol)), None)),
            );
        }
        ops.extend(networks.map(|network| {
            let member = Member::AddressPortNet(of(Protocol::Tcp), network.parse().unwrap());
            add(SetKind::LoadBalancerSourceCidr, family, member, None)
        }));
        let address = of(Protocol::Tcp).address;
        let marked = Mark::new(0xabc, Protocol::Udp);
        ops.extend([
            add(SetKind::Vips, family, Member::Address(address), None),
            add(SetKind::LoopBack, family, Member::AddressPortAddress(of(Protocol::Sctp), address), None),
            add(SetKind::NodePortTcp, family, Member::Port(30_080), None),
            add(SetKind::HealthCheckNodePort, family, Member::Port(u16::MAX), None),
            add(SetKind::ShortCircuit, family, Member::AddressPort(of(Protocol::Udp)), marked),
            add(SetKind::ShortCircuit, family, Member::AddressPort(of(Protocol::Tcp)), None),
        ]);
    }
    ops
}

fn model_of(ops: &[Op]) -> Model {
    let mut model = Model::default();
    ops.iter().for_each(|op| model.apply(op).unwrap());
    model
}

fn sets_of_every_kind_hold_their_members(kernel: &mut dyn Kernel) {
    let ops = [creations(), additions()].concat();
    apply(kernel, &ops);
    assert_eq!(observe(kernel).model.to_string(), model_of(&ops).to_string());
    let removals: Vec<_> = SetKey::all().map(Op::DestroySet).collect();
    apply(kernel, &removals);
    assert_eq!(observe(kernel).model, Model::default());
}

fn members_are_changed_and_removed_one_by_one(kernel: &mut dyn Kernel) {
    let mut ops = [creations(), additions()].concat();
    apply(kernel, &ops);
    let key = SetKey { kind: SetKind::ShortCircuit, family: Family::Ipv4 };
    let [tcp, udp] =
        [Protocol::Tcp, Protocol::Udp].map(|protocol| Member::AddressPort(frontend(Family::Ipv4, protocol, 80)));
    let changes = [
        Op::UpdateMember(key, tcp, Mark::new(1, Protocol::Tcp)),
        Op::UpdateMember(key, udp, Mark::new(2, Protocol::Udp)),
        Op::RemoveMember(SetKey { kind: SetKind::ClusterIp, ..key }, tcp),
        Op::RemoveMember(SetKey { kind: SetKind::NodePortTcp, ..key }, Member::Port(30_080)),
    ];
    apply(kernel, &changes);
    ops.extend(changes);
    assert_eq!(observe(kernel).model.to_string(), model_of(&ops).to_string());
}

fn sets_refuse_what_the_kernel_refuses(kernel: &mut dyn Kernel) {
    let key = SetKey { kind: SetKind::ClusterIp, family: Family::Ipv4 };
    let absent = SetKey { kind: SetKind::NoLocal, ..key };
    let member = |port| Member::AddressPort(frontend(Family::Ipv4, Protocol::Tcp, port));
    apply(kernel, &[Op::CreateSet(key, Capacity::LEAST), Op::AddMember(key, member(1), None)]);
    let before = observe(kernel);
    let ops = [
        Op::CreateSet(key, Capacity::LEAST),
        Op::AddMember(key, member(1), None),
        Op::AddMember(absent, member(1), None),
        Op::UpdateMember(absent, member(1), None),
        Op::ResizeSet(absent, Capacity::LEAST),
        Op::RemoveMember(key, member(2)),
        Op::RemoveMember(absent, member(1)),
        Op::DestroySet(absent),
    ];
    let failures = kernel.apply(&ops);
    assert!(failures.iter().map(|failure| failure.index).eq(0..ops.len()), "{failures:?}");
    for failure in failures {
        assert!(matches!(failure.cause, Cause::OutOfDate(_)), "{}: {:?}", ops[failure.index], failure.cause);
    }
    assert_eq!(observe(kernel), before);
}

fn a_set_that_is_full_says_so(kernel: &mut dyn Kernel) {
    let key = SetKey { kind: SetKind::Vips, family: Family::Ipv4 };
    let member = |last| Member::Address([10, 0, 0, last].into());
    let mut ops = vec![Op::CreateSet(key, Capacity(2))];
    ops.extend((0..4).map(|last| Op::AddMember(key, member(last), None)));
    let full = |index| Failure { index, cause: Cause::SetFull };
    assert_eq!(kernel.apply(&ops), [full(3), full(4)]);
}

fn a_set_keeps_its_members_when_it_is_resized(kernel: &mut dyn Kernel) {
    apply(kernel, &creations());
    apply(kernel, &[Op::SetRules(Family::Ipv4, RuleSettings::default())]);
    let key = SetKey { kind: SetKind::ShortCircuit, family: Family::Ipv4 };
    let member = |port| Member::AddressPort(frontend(Family::Ipv4, Protocol::Tcp, port));
    let ops: Vec<Op> = (1..=600).map(|port| Op::AddMember(key, member(port), Mark::new(port, Protocol::Tcp))).collect();
    apply(kernel, &ops);
    // Between others, in one application.
    let more = Op::AddMember(key, member(601), None);
    apply(kernel, &[Op::AddMember(key, member(602), None), Op::ResizeSet(key, Capacity(131_072)), more]);
    let set = observe(kernel).model.sets.remove(&key).unwrap();
    assert_eq!((set.capacity, set.members.len()), (Capacity(131_072), 602));
    assert!((1..=600).all(|port| set.members[&member(port)] == Mark::new(port, Protocol::Tcp)));
}

fn rules_stand_on_sets(kernel: &mut dyn Kernel) {
    let usual = RuleSettings::default();
    let rules = |settings: &str| -> RuleSettings { settings.parse().unwrap() };
    let failures = kernel.apply(&FAMILIES.map(|family| Op::SetRules(family, usual)));
    assert!(matches!(failures[..], [Failure { cause: Cause::Rules(_), .. }, Failure { cause: Cause::Rules(_), .. }]));
    assert_eq!(observe(kernel).model.rules, BTreeMap::new());

    apply(kernel, &creations());
    for settings in [
        [usual, usual],
        [
            rules("masquerade 0x80000000, all, pods from 10.244.0.0/16"),
            rules("masquerade 0x1, pods from fd00:244::/56"),
        ],
        [rules("masquerade 0x4000, pods on cni0"), rules("masquerade 0x4000, all, pods on veth+")],
    ] {
        let settings: BTreeMap<_, _> = FAMILIES.into_iter().zip(settings).collect();
        let ops: Vec<_> = settings.iter().map(|(family, settings)| Op::SetRules(*family, *settings)).collect();
        apply(kernel, &ops);
        assert_eq!(observe(kernel).model.rules, settings);
    }
    let key = SetKey { kind: SetKind::LoopBack, family: Family::Ipv4 };
    let busy = Failure { index: 0, cause: Cause::Refused(Errno::EBUSY) };
    assert_eq!(kernel.apply(&[Op::DestroySet(key)]), [busy]);
    apply(kernel, &FAMILIES.map(Op::RemoveRules));
    apply(kernel, &SetKey::all().map(Op::DestroySet).collect::<Vec<_>>());
    assert_eq!(observe(kernel).model, Model::default());
}

fn what_kube_proxy_did_not_leave_is_removed_already(kernel: &mut dyn Kernel) {
    let places = [Leftover::Rules, Leftover::OtherRules, Leftover::Table];
    let ops: Vec<_> =
        places.iter().flat_map(|place| FAMILIES.map(|family| Op::RemoveLeftover(place(family)))).collect();
    apply(kernel, &ops);
    assert_eq!(observe(kernel).model, Model::default());
}
