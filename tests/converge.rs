//! The laws: a diff leads from what is found to what is wanted; whatever happens in between, the kernel ends up
//! holding what the cluster says, nothing foreign is touched, and the cost is that of the change.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at what it did not expect"
)]

mod support;

use ipvsd::desired::{Locals, Plan, Traffic};
use ipvsd::diff::diff;
use ipvsd::kernel::Errno;
use ipvsd::kernel::fake::FakeKernel;
use ipvsd::model::{Family, LocalhostPath, Model, Op, Protocol, VirtualServerKey};
use ipvsd::reconcile::{Options, Reconciler, Takeover};
use ipvsd::state::{Change, State};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;
use support::flows;
use support::oracle::Cluster;
use support::oracle::netfilter::comparable;
use support::{arbitrary, settle};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn applying_the_diff_gives_what_is_wanted(wanted in arbitrary::model(), found in arbitrary::found_model()) {
        let ops = diff(&wanted, &found);
        prop_assert!(ops.is_sorted_by_key(Op::phase));
        let mut result = found;
        for op in &ops {
            prop_assert_eq!(result.apply(op), Ok(()), "{}", op);
        }
        prop_assert_eq!(result, wanted);
    }

    #[test]
    fn nothing_differs_from_itself(model in arbitrary::model()) {
        prop_assert_eq!(diff(&model, &model), vec![]);
    }

    #[test]
    fn no_step_of_a_diff_exposes_an_address_before_its_virtual_servers_are_complete(
        wanted in arbitrary::model(), found in arbitrary::model(),
    ) {
        let mut model = found.clone();
        for op in diff(&wanted, &found) {
            if let Op::AddRoute(vip, _) = op {
                for (key, server) in wanted.virtual_servers.iter().filter(|(key, _)| key.address() == Some(vip)) {
                    let now = &model.virtual_servers[key];
                    prop_assert!(server.destinations.iter().all(|(d, spec)| now.destinations.get(d) == Some(spec)));
                }
            }
            model.apply(&op).unwrap();
        }
    }

    /// The same changes in one go and one by one make the same plan (but for who came first to an address).
    #[test]
    fn the_plan_does_not_depend_on_the_way_to_it(
        changes in arbitrary::changes(true), settings in arbitrary::settings(),
    ) {
        let (mut stepwise, mut whole) = (Plan::default(), Plan::default());
        let mut state = State::default();
        for change in changes {
            state.apply(change);
            let dirty = state.take_dirty();
            stepwise.update(&state, &settings, dirty);
        }
        state.touch(|_| true);
        let all = state.take_dirty();
        whole.update(&state, &settings, all);
        // Which mark a port has depends on who came first.
        let by_address = |plan: &Plan| plan.keys().filter(|key| key.address().is_some()).collect::<Vec<_>>();
        prop_assert_eq!(by_address(&stepwise), by_address(&whole));
        prop_assert_eq!(stepwise.keys().count(), whole.keys().count());
        for key in by_address(&whole).into_iter().filter(|key| whole.owner(key) == stepwise.owner(key)) {
            prop_assert_eq!(stepwise.virtual_server(&key), whole.virtual_server(&key));
        }
        for family in [Family::Ipv4, Family::Ipv6] {
            prop_assert_eq!(stepwise.locals().health_checks(family), whole.locals().health_checks(family));
        }
        prop_assert_eq!(unserved(stepwise.locals()), unserved(whole.locals()));
    }

    /// Whatever the cluster does, whoever meddles and whatever fails meanwhile.
    #[test]
    fn the_kernel_converges(
        rounds in prop::collection::vec((arbitrary::changes(false), arbitrary::model(), any::<u8>()), 1..5),
        foreign in prop::collection::btree_set(arbitrary::virtual_server_key(), 0..4),
        settings in arbitrary::settings(),
    ) {
        let kernel = FakeKernel { foreign: foreign.clone(), ..FakeKernel::default() };
        let takeover = Takeover::AllBut(vec![]);
        let options = Options { drain_timeout: Duration::from_secs(5), takeover, ..Options::default() };
        let has_netfilter = settings.netfilter.is_some();
        let mut reconciler = Reconciler::new(kernel, settings.clone(), options);
        let mut cluster = Cluster::new(settings);
        let mut now = Duration::ZERO;
        for (changes, mess, trouble) in rounds {
            changes.iter().cloned().for_each(|change| cluster.take(change));
            reconciler.take(changes);
            if has_netfilter {
                reconciler.kernel_mut().model.sets.extend(mess.sets.clone());
                reconciler.kernel_mut().model.rules.extend(mess.rules.clone());
                reconciler.kernel_mut().model.localhost_path = mess.localhost_path.map(|_| LocalhostPath::Broken);
            }
            let kernel = reconciler.kernel_mut();
            kernel.flows.extend(flows::through(&kernel.model));
            kernel.flows.extend(flows::past(&cluster.model(&["rr", "wrr", "mh"], &foreign), &kernel.model));
            meddle(reconciler.kernel_mut(), mess, trouble);
            reconciler.pass(now);
            reconciler.kernel_mut().refuses = |_| None;
            reconciler.kernel_mut().keeps_flows = false;
            now = settle(&mut reconciler, now);
            let wanted = cluster.model(&["rr", "wrr", "mh"], &foreign);
            let found = reconciler.kernel().model.clone();
            prop_assert_eq!(comparable(found).to_string(), comparable(wanted).to_string());
            prop_assert_eq!(&reconciler.kernel().foreign, &foreign);
            let FakeKernel { flows, model, .. } = reconciler.kernel();
            let stale = flows.iter().find(|flow| flows::is_served(flow, model) && !flows::stands(flow, model));
            prop_assert_eq!(stale, None);
            let locals = reconciler.locals();
            for family in [Family::Ipv4, Family::Ipv6] {
                prop_assert_eq!(locals.health_checks(family), &cluster.health_checks(family));
            }
            prop_assert_eq!(unserved(locals), POLICIES.map(|(traffic, family)| cluster.unserved(traffic, family)));
        }
    }

    /// The timer's reading is in parts, and what somebody changed is put right by it all the same.
    #[test]
    fn a_check_in_parts_finds_what_differs(
        changes in arbitrary::changes(true), mess in arbitrary::model(), settings in arbitrary::settings(),
    ) {
        let options = Options { drain_timeout: Duration::ZERO, ..Options::default() };
        let mut reconciler = Reconciler::new(FakeKernel::default(), settings, options);
        reconciler.take(changes);
        let now = settle(&mut reconciler, Duration::ZERO);
        let before = reconciler.kernel().clone();
        let destinations = mess.virtual_servers.values().flat_map(|server| &server.destinations);
        for (server, (key, spec)) in reconciler.kernel_mut().model.virtual_servers.values_mut().zip(destinations) {
            server.destinations.insert(*key, *spec);
        }
        let now = settle(&mut reconciler, now);
        let after = reconciler.kernel();
        prop_assert_eq!(after.model.to_string(), before.model.to_string());
        prop_assert!(after.cost.outlines > before.cost.outlines);
        prop_assert_eq!(after.cost.full_readings, before.cost.full_readings);
        prop_assert!(now > Duration::ZERO);
    }

    #[test]
    fn a_change_costs_its_own_operations_and_no_reading(
        changes in arbitrary::changes(false), more in arbitrary::changes(false), settings in arbitrary::settings(),
    ) {
        let options = Options { drain_timeout: Duration::ZERO, ..Options::default() };
        let mut kernel = FakeKernel::default();
        kernel.schedulers.insert("nosuch".parse().unwrap());
        let mut reconciler = Reconciler::new(kernel, settings, options);
        reconciler.take(changes);
        reconciler.pass(Duration::ZERO);
        let before = reconciler.kernel().clone();
        reconciler.pass(Duration::from_millis(1));
        prop_assert_eq!(reconciler.kernel().cost, before.cost, "no change, no request");

        reconciler.take(more.into_iter().filter(|change| !matches!(change, Change::Node(_))));
        reconciler.pass(Duration::from_millis(2));
        let after = reconciler.kernel();
        let fewest = diff(&after.model, &before.model).len();
        prop_assert_eq!(after.cost.operations - before.cost.operations, fewest);
        prop_assert!(after.cost.applications <= before.cost.applications + 1);
        prop_assert_eq!(after.cost.full_readings, 1);
        prop_assert_eq!(after.cost.scoped_readings, 0);
        let searches = after.cost.flow_searches - before.cost.flow_searches;
        let about_flows = diff(&after.model, &before.model).iter().any(flows::may_leave_some);
        prop_assert!(searches <= 2 * usize::from(about_flows));
    }

    #[test]
    fn a_change_forgets_the_flows_that_lead_nowhere_and_no_others(
        changes in arbitrary::changes(false), more in arbitrary::changes(false), settings in arbitrary::settings(),
    ) {
        let options = Options { drain_timeout: Duration::ZERO, ..Options::default() };
        let mut reconciler = Reconciler::new(FakeKernel::default(), settings.clone(), options);
        let mut cluster = Cluster::new(settings);
        changes.iter().chain(&more).cloned().for_each(|change| cluster.take(change));
        reconciler.take(changes);
        settle(&mut reconciler, Duration::ZERO);
        let kernel = reconciler.kernel_mut();
        let before: BTreeSet<_> = flows::through(&kernel.model)
            .chain(flows::past(&cluster.model(&["rr", "wrr", "mh"], &BTreeSet::new()), &kernel.model))
            .chain(flows::of_others(&kernel.model))
            .collect();
        kernel.flows = before.clone();
        reconciler.take(more);
        settle(&mut reconciler, Duration::from_secs(1));
        let FakeKernel { flows: left, model, .. } = reconciler.kernel();
        for flow in before {
            let is_ours = flow.frontend.protocol != Protocol::Tcp && flow.client.port() != flows::OTHERS;
            prop_assert_eq!(left.contains(&flow), !is_ours || flows::stands(&flow, model), "{:?}", flow);
        }
    }
}

const POLICIES: [(Traffic, Family); 4] = [
    (Traffic::Internal, Family::Ipv4),
    (Traffic::Internal, Family::Ipv6),
    (Traffic::External, Family::Ipv4),
    (Traffic::External, Family::Ipv6),
];

fn unserved(locals: &Locals) -> [usize; 4] {
    POLICIES.map(|(traffic, family)| locals.unserved(traffic, family))
}

/// Somebody else changes things that are ours, and the kernel has a bad moment.
fn meddle(kernel: &mut FakeKernel, mess: Model, trouble: u8) {
    if trouble % 5 == 2 {
        kernel.untagged = kernel.model.virtual_servers.keys().copied().collect();
    }
    for (key, server) in mess.virtual_servers {
        if !kernel.foreign.contains(&key) && !kernel.untagged.contains(&key) {
            kernel.model.virtual_servers.insert(key, server);
        }
    }
    kernel.model.routes.extend(mess.routes);
    if trouble % 5 == 1 {
        kernel.model = Model::default();
    }
    if trouble % 7 == 3 {
        // kube-proxy was here, and has what is ours for its own.
        let foreign: BTreeSet<_> = kernel.foreign.iter().filter_map(VirtualServerKey::address).collect();
        let others = |key: &&VirtualServerKey| key.address().is_none_or(|address| !foreign.contains(&address));
        kernel.untagged = kernel.model.virtual_servers.keys().filter(others).copied().collect();
        let vips = kernel.untagged.iter().filter_map(VirtualServerKey::address).collect();
        kernel.model.kube_proxy_device = Some(vips);
    }
    kernel.unreadable = usize::from(trouble % 3);
    kernel.refuses = match trouble % 4 {
        0 => |op| matches!(op, Op::AddDestination(..)).then_some(Errno::ENOMEM),
        1 => |op| {
            let refused =
                matches!(op, Op::RemoveVirtualServer(..) | Op::AddRoute(..) | Op::CreateSet(..) | Op::RemoveMember(..));
            refused.then_some(Errno::EINVAL)
        },
        2 => {
            |op| matches!(op, Op::AddVirtualServer(..) | Op::AddMember(..) | Op::SetRules(..)).then_some(Errno::ENOBUFS)
        }
        _ => |_| None,
    };
    kernel.keeps_flows = trouble % 6 == 4;
}
