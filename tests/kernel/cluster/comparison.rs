//! The same cluster by chance, given to kube-proxy in its ipvs mode and to ipvsd: both kernels hold the same, but for
//! what docs/drop-in.md says is meant to differ.

use super::random::{Chance, part};
use super::real::{API, BOTH_FAMILIES, Snapshot, trial_with};
use super::rig::{IPVS, NODE_ADDRESSES, Rig};
use super::table::{Frontend, Table, table};
use super::truth::{Node, truth};
use crate::control_plane::{ControlPlane, assets};
use crate::follower::Truth;
use crate::objects::{NODE, node};
use crate::program::add_addresses;
use crate::relay::Relay;
use ipvsd::demo::daemon::Daemon;
use ipvsd::demo::namespace::Namespace;
use ipvsd::demo::wait::wait_for;
use libtest_mimic::Trial;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![trial_with("kube-proxy", "cluster::kube_proxy_and_ipvsd_make_the_same_of_a_cluster", same)]
}

const SERVICES: usize = 30;
/// kube-proxy starts programs for every step, each of which takes its time in the lab.
const PATIENCE: Duration = Duration::from_secs(180);
/// `IPVSD_SEED` repeats a run.
const SEED: &str = "IPVSD_SEED";

fn same() {
    let seed = std::env::var(SEED).map_or_else(|_| by_the_clock(), |seed| seed.parse().unwrap());
    println!("    {SEED}={seed}");
    let plane = ControlPlane::start(&[BOTH_FAMILIES]);
    fill(&plane, &mut Chance(seed));
    let kubeconfig = plane.kubeconfig_at(API, "system:kube-proxy");
    let [ours, theirs] = [(), ()].map(|()| Namespace::new().unwrap());
    let plane_namespace = || Namespace::here().unwrap();
    let relays = [&ours, &theirs].map(|namespace| {
        let there = plane_namespace();
        namespace
            .run(|| {
                add_addresses(&["192.0.2.1/24", "fd00:2::1/64"]);
                Ok(Relay::start(API, there, plane.address()))
            })
            .unwrap()
    });
    let snapshot = Snapshot::of(&plane);
    let rig = ours.run(|| Ok(with_ipvsd(snapshot, &kubeconfig))).unwrap();
    let count = rig.truth().len();
    assert!(count > SERVICES, "there is enough to compare");
    let intended = differences(&rig, &with_kube_proxy(&theirs, &kubeconfig, &rig)).len();
    println!("    {count} virtual servers, {intended} of them with an intended difference");
    drop(relays);
}

fn by_the_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn fill(plane: &ControlPlane, chance: &mut Chance) {
    plane.put(&node("a"));
    plane.put_status(&node("a"));
    for number in 1..=SERVICES {
        let part = part(number, chance);
        plane.put(&part.service);
        if part.has_status {
            plane.put_status(&part.service);
        }
        part.slices.iter().for_each(|slice| plane.put(slice));
    }
}

/// Up to the point where its kernel is as the oracle says.
fn with_ipvsd(snapshot: Snapshot, kubeconfig: &Path) -> Rig<Snapshot> {
    let mut rig = Rig::on(snapshot, tempfile::tempdir().unwrap(), (kubeconfig, &[IPVS]));
    let addresses = NODE_ADDRESSES.map(|address| address.parse().unwrap()).into();
    rig.node = Node { addresses, zone: Some("a".to_owned()), scheduler: None };
    rig.start();
    rig.until_true();
    rig
}

/// Up to the point where only intended differences are left.
fn with_kube_proxy(namespace: &Namespace, kubeconfig: &Path, rig: &Rig<Snapshot>) -> Table {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(assets().unwrap().join("kube-proxy"));
    command.arg(format!("--kubeconfig={}", kubeconfig.display())).arg(format!("--hostname-override={NODE}"));
    command.args(["--proxy-mode=ipvs", "--conntrack-max-per-core=0", "--cluster-cidr=10.244.0.0/16"]);
    command.args(["--conntrack-tcp-timeout-established=0s", "--conntrack-tcp-timeout-close-wait=0s"]);
    let mut daemon = Daemon::start(namespace, &mut command, &directory.path().join("log")).unwrap();
    let table_there = || namespace.run(|| Ok(table())).unwrap();
    let unexplained = |found: &Table| {
        let all = differences(rig, found).into_iter();
        all.filter(|difference| !difference.is_intended).map(|difference| difference.text).collect::<Vec<_>>()
    };
    let came = wait_for(PATIENCE, || {
        daemon.check()?;
        let found = table_there();
        Ok(unexplained(&found).is_empty().then_some(found))
    });
    came.unwrap().unwrap_or_else(|| {
        let differences = unexplained(&table_there()).join("\n");
        panic!("not meant to differ:\n{differences}\nkube-proxy said:\n{}", daemon.log())
    })
}

/// A virtual server that is not the same.
struct Difference {
    text: String,
    /// Whether docs/drop-in.md says why, under "Intended differences".
    is_intended: bool,
}

fn differences(rig: &Rig<Snapshot>, theirs: &Table) -> Vec<Difference> {
    let (ours, without_local) =
        (rig.truth(), truth(&rig.server.without_local(), &rig.server.objects("EndpointSlice"), &rig.node));
    let all: BTreeSet<&Frontend> = ours.keys().chain(theirs.keys()).collect();
    let differing = all.into_iter().filter(|frontend| ours.get(frontend) != theirs.get(frontend));
    let described = differing.map(|frontend| {
        let (ours, theirs) = (ours.get(frontend), theirs.get(frontend));
        // Where no endpoint is local, kube-proxy does as if the policy were `Cluster`.
        let has_none = ours.is_some_and(|ours| ours.destinations.is_empty());
        let candidates = [ours, without_local.get(frontend).filter(|_| has_none)].map(|one| one.cloned());
        Difference {
            text: format!("{frontend:?}\n  ipvsd: {ours:?}\n  kube-proxy: {theirs:?}"),
            is_intended: theirs.is_some() && candidates.contains(&theirs.cloned()),
        }
    });
    described.collect()
}
