//! Long histories of everything at once, by chance: changes, faults, a server that goes and comes back.

use crate::api_server::{Answer, ApiServer, Fault, Kick, Streams, Verb};
use crate::follower::{Follower, timing};
use crate::objects::{node, service, slice, with};
use ipvsd::source::kube::Timing;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

/// Something that happens.
#[derive(Clone, Copy, Debug)]
enum Act {
    Service(u8, u8),
    Slice(u8, u8),
    Delete(u8),
    ToAnotherProxy(u8),
    Kick(Kick),
    Fault(Answer),
    /// Forget the past, so that a watch cannot be taken up.
    Compact,
    Restart,
    /// Let the client come up.
    Pause,
}

fn act() -> impl Strategy<Value = Act> {
    let kick = prop_oneof![
        Just(Kick::Bookmark),
        Just(Kick::Error(410)),
        Just(Kick::End),
        Just(Kick::Cut),
        Just(Kick::CutWithinLine),
    ];
    let answer = prop_oneof![
        Just(Answer::Status(410, None)),
        Just(Answer::Status(500, None)),
        Just(Answer::Page(502)),
        Just(Answer::CutAfter(700)),
        Just(Answer::Garbage),
        Just(Answer::EndAtOnce),
    ];
    prop_oneof![
        6 => (0..6_u8, 0..9_u8).prop_map(|(name, version)| Act::Service(name, version)),
        6 => (0..6_u8, 0..9_u8).prop_map(|(name, endpoint)| Act::Slice(name, endpoint)),
        2 => (0..6_u8).prop_map(Act::Delete),
        1 => (0..6_u8).prop_map(Act::ToAnotherProxy),
        3 => kick.prop_map(Act::Kick),
        3 => answer.prop_map(Act::Fault),
        1 => Just(Act::Compact),
        1 => Just(Act::Restart),
        2 => Just(Act::Pause),
    ]
}

/// A cluster to which things happen, with the Services that were ever taken away from it.
struct World {
    server: ApiServer,
    taken: BTreeSet<String>,
}

impl World {
    fn act(&mut self, act: Act) {
        let server = &mut self.server;
        let name = |number| format!("web-{number}");
        match act {
            Act::Service(number, version) => server.put(service(&name(number), usize::from(version))),
            Act::Slice(number, endpoint) => server.put(slice(&name(number), &[1, 100 + endpoint])),
            Act::Delete(number) => {
                self.taken.insert(name(number));
                server.delete("Service", "default", &name(number));
                server.delete("EndpointSlice", "default", &format!("{}-1", name(number)));
            }
            Act::ToAnotherProxy(number) => {
                self.taken.insert(name(number));
                let labels = json!({"service.kubernetes.io/service-proxy-name": "other"});
                server.put(with(service(&name(number), 1), "/metadata/labels", labels));
            }
            Act::Kick(kick) => server.kick(kick),
            Act::Fault(answer) => {
                server.fault(Fault::once(answer).verb(Verb::Watch));
                server.fault(Fault::once(answer).verb(Verb::List));
            }
            Act::Compact => server.compact(),
            Act::Restart => {
                server.stop();
                server.resume();
            }
            Act::Pause => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 0, ..ProptestConfig::with_cases(12) })]

    #[test]
    fn whatever_happens_the_state_becomes_the_truth_and_only_what_was_taken_away_goes(
        acts in vec(act(), 40..80),
        has_streams in any::<bool>(),
    ) {
        let mut world = World { server: ApiServer::start(), taken: BTreeSet::new() };
        world.server.set_streams(if has_streams { Streams::Sent } else { Streams::Refused });
        world.server.put(node("a"));
        let follower = Follower::with_timing(&world.server, Timing { longest_retry: Duration::from_millis(40), ..timing() });
        for act in acts {
            world.act(act);
        }
        world.server.heal();
        follower.until_equal_to(&world.server);
        let seen = follower.seen();
        prop_assert!(seen.withdrawn.iter().all(|name| world.taken.contains(name)), "{:?}", seen.withdrawn);
    }
}
