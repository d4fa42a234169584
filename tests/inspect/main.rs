//! What a daemon says of itself, and how it is asked: the laws that answers obey, a Service told whole, and the socket.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at what it did not expect"
)]

mod flow;
mod service;
mod socket;
#[path = "../support/mod.rs"]
mod support;

use ipvsd::inspect::{Answer, Question, Subject, Wanted, answer, differences};
use ipvsd::kernel::fake::FakeKernel;
use ipvsd::kernel::{Kernel, Observation, Scope};
use ipvsd::model::{Model, Op, VirtualServerKey};
use ipvsd::reconcile::{Options, Reconciler};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;
use support::{arbitrary, settle};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// Whatever somebody else changed meanwhile, and also on the way through JSON.
    #[test]
    fn what_differs_is_what_the_next_whole_pass_would_do(
        changes in arbitrary::changes(true), settings in arbitrary::settings(), mess in arbitrary::model(),
        foreign in prop::collection::btree_set(arbitrary::virtual_server_key(), 0..4), wipes in any::<bool>(),
    ) {
        let kernel = FakeKernel { foreign, ..FakeKernel::default() };
        let has_netfilter = settings.netfilter.is_some();
        let options = Options { drain_timeout: Duration::from_secs(5), ..Options::default() };
        let mut reconciler = Reconciler::new(kernel, settings, options);
        reconciler.take(changes);
        let now = settle(&mut reconciler, Duration::ZERO);
        let wanted = Wanted::of(&reconciler.view());
        prop_assert_eq!(differences(&wanted, &seen(&mut reconciler, &wanted)), vec![]);

        meddle(reconciler.kernel_mut(), mess, (wipes, has_netfilter));
        let told: Wanted = serde_json::from_slice(&serde_json::to_vec(&wanted).unwrap()).unwrap();
        prop_assert_eq!(&told, &wanted);
        let told = in_order(differences(&told, &seen(&mut reconciler, &wanted)));
        prop_assert_eq!(told, in_order(reconciler.preview(now).unwrap()));
    }

    /// To ask is not to change.
    #[test]
    fn an_answer_changes_nothing(changes in arbitrary::changes(true), settings in arbitrary::settings()) {
        let mut reconciler = Reconciler::new(FakeKernel::default(), settings, Options::default());
        reconciler.take(changes);
        let now = settle(&mut reconciler, Duration::ZERO);
        let before = reconciler.kernel().clone();
        for question in questions(&reconciler) {
            let subject =
                Subject { view: reconciler.view(), problems: &[], now, is_informed: true, last_pass: None, fallback: None };
            if let Some(Answer::Service(service)) = answer(&question, &subject) {
                let text = serde_json::to_vec(&service).unwrap();
                prop_assert_eq!(&serde_json::from_slice::<ipvsd::inspect::ServiceAnswer>(&text).unwrap(), &*service);
            }
        }
        prop_assert_eq!(reconciler.kernel().cost, before.cost);
        prop_assert_eq!(reconciler.pass(now).changes(), 0);
    }
}

/// The kernel, read as one reads who knows what was ours.
fn seen(reconciler: &mut Reconciler<FakeKernel>, wanted: &Wanted) -> Observation {
    let mut seen = reconciler.kernel_mut().observe(Scope::All).unwrap();
    let edited: Vec<_> = seen.foreign.intersection(&wanted.ours).copied().collect();
    let mut again = reconciler.kernel_mut().observe(Scope::VirtualServers(&edited)).unwrap();
    seen.foreign.retain(|key| !again.model.virtual_servers.contains_key(key));
    seen.model.virtual_servers.append(&mut again.model.virtual_servers);
    seen
}

/// Somebody else changes things that are ours.
fn meddle(kernel: &mut FakeKernel, mess: Model, (wipes, has_netfilter): (bool, bool)) {
    if wipes {
        kernel.model = Model::default();
    } else {
        kernel.untagged = kernel.model.virtual_servers.keys().copied().step_by(2).collect();
    }
    let foreign: &BTreeSet<VirtualServerKey> = &kernel.foreign;
    let ours =
        mess.virtual_servers.into_iter().filter(|(key, _)| !foreign.contains(key) && !kernel.untagged.contains(key));
    kernel.model.virtual_servers.extend(ours);
    kernel.model.routes.extend(mess.routes);
    if has_netfilter {
        kernel.model.sets.extend(mess.sets);
        kernel.model.rules.extend(mess.rules);
    }
}

/// Within a phase the order says nothing.
fn in_order(mut ops: Vec<Op>) -> Vec<String> {
    ops.sort_by_key(|op| (op.phase(), op.to_string()));
    ops.iter().map(Op::to_string).collect()
}

fn questions(reconciler: &Reconciler<FakeKernel>) -> Vec<Question> {
    let view = reconciler.view();
    let at = view.plan.keys().map(Question::ServiceAt);
    let named = view.plan.keys().filter_map(|key| view.plan.owner(&key).cloned().map(Question::Service));
    [Question::Status, Question::Owners, Question::Wanted].into_iter().chain(at).chain(named).collect()
}
