//! A changed configuration file starts the program anew in place: the same process, and no connection notices.

use super::rig::{IPVS, METRICS, Rig, get, in_default, on_node_of_network};
use crate::contract::ip;
use crate::lab::{run, trial};
use crate::objects::{node, service, slice};
use crate::traffic_rig::{self, VIPS};
use ipvsd::demo::client::Conversation;
use ipvsd::demo::network::Network;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("cluster::another_configuration_is_in_force_at_once_and_connections_survive_it", in_place),
        trial("cluster::a_configuration_that_is_renamed_or_swapped_by_a_link_is_seen", renamed_or_swapped),
        trial("cluster::a_configuration_that_is_not_good_or_not_another_changes_nothing", not_good),
    ]
}

/// What the tests change.
fn with_scheduler(text: &str, name: &str) -> String {
    assert_eq!(text.matches("scheduler: \"").count(), 1);
    let (before, rest) = text.split_once("scheduler: \"").unwrap();
    let (_, after) = rest.split_once('"').unwrap();
    format!("{before}scheduler: \"{name}\"{after}")
}

fn objects() -> Vec<Value> {
    vec![node("a"), service("web", 1), slice("web", &[1, 2])]
}

/// The process that has the metrics server: its name, and its number in ss's words.
fn process() -> String {
    let sockets = run("ss", &["-Hltnp", "sport", "=", ":10249"]);
    let (_, rest) = sockets.split_once("users:").unwrap_or_else(|| panic!("nobody has it: {sockets}"));
    rest.split(",fd=").next().unwrap().to_owned()
}

fn in_place() {
    on_node_of_network(survive);
}

fn survive(network: &Network) {
    let client = &network.client.namespace;
    let mut rig = Rig::here(&[IPVS]);
    rig.server.put(node("a"));
    let objects = traffic_rig::slices("web", &network.backends);
    let objects = [vec![traffic_rig::service("web", json!({"ipFamilies": ["IPv4", "IPv6"]}))], objects].concat();
    objects.into_iter().for_each(|object| rig.server.put(in_default(object)));
    rig.start();
    rig.until_true();
    let mut conversation = client.run(|| Ok(Conversation::start((ip(VIPS[0]), 90).into())?)).unwrap();
    let backend = conversation.say("before").unwrap();
    let process_before = process();

    let text = fs::read_to_string(&rig.config).unwrap();
    fs::write(&rig.config, with_scheduler(&text, "lc")).unwrap();
    rig.node.scheduler = Some("lc");
    rig.until_true();
    assert_eq!(conversation.say("after").unwrap(), backend);
    rig.until("it serves again", |_| get(METRICS, "/configz").is_some_and(|(_, body)| body.contains("\"lc\"")));
    assert_eq!(process(), process_before);
    rig.server.put(service("new", 5));
    rig.server.put(slice("new", &[7]));
    rig.until_true();
    assert_eq!(rig.operations("remove destination") + rig.operations("remove virtual server"), 0.0);
}

/// In the ways of editors and of the kubelet, which keeps a ConfigMap behind a link that it swaps.
fn renamed_or_swapped() {
    let mut rig = Rig::new(&[IPVS]);
    objects().into_iter().for_each(|object| rig.server.put(object));
    let text = fs::read_to_string(&rig.config).unwrap();
    let mount = rig.directory.path().join("mount");
    fs::create_dir(&mount).unwrap();
    swap(&mount, "..first", &text);
    symlink("..data/config.conf", mount.join("config.conf")).unwrap();
    rig.config = mount.join("config.conf");
    rig.start();
    rig.until_true();

    swap(&mount, "..second", &with_scheduler(&text, "sh"));
    rig.node.scheduler = Some("sh");
    rig.until_true();
    swap(&mount, "..third", &with_scheduler(&text, "wrr"));
    rig.node.scheduler = Some("wrr");
    rig.until_true();

    let beside = mount.join("beside");
    fs::write(&beside, with_scheduler(&text, "lc")).unwrap();
    fs::rename(beside, &rig.config).unwrap();
    rig.node.scheduler = Some("lc");
    rig.until_true();
    assert_eq!(starts(&rig), 4);
}

/// Puts a text in a new directory and lets `..data` lead there.
fn swap(mount: &Path, directory: &str, text: &str) {
    fs::create_dir(mount.join(directory)).unwrap();
    fs::write(mount.join(directory).join("config.conf"), text).unwrap();
    symlink(directory, mount.join("..data_tmp")).unwrap();
    fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
}

fn not_good() {
    let mut rig = Rig::settled(&[IPVS], objects());
    let text = fs::read_to_string(&rig.config).unwrap();
    fs::write(&rig.config, &text).unwrap();
    fs::write(&rig.config, format!("# The same in other words.\n{text}")).unwrap();
    let bad = text.replace("mode: ipvs", "mode: nftables").replace("minSyncPeriod: 0s", "minSyncPeriod: 5x");
    fs::write(&rig.config, bad).unwrap();
    rig.until("it is counted", |rig| rig.metric("ipvsd_config_rejected_total") == Some(1.0));
    rig.until_said(&["the configuration changed and is not good", "\"5x\" is not a duration"]);
    fs::remove_file(&rig.config).unwrap();
    rig.until("it is counted", |rig| rig.metric("ipvsd_config_rejected_total") == Some(2.0));
    rig.server.put(service("more", 2));
    rig.until_true();
    fs::write(&rig.config, &text).unwrap();
    assert_eq!(starts(&rig), 1);
    fs::write(&rig.config, with_scheduler(&text, "lc")).unwrap();
    rig.node.scheduler = Some("lc");
    rig.until_true();
    assert_eq!(starts(&rig), 2);
}

/// How often the program began.
fn starts(rig: &Rig) -> usize {
    rig.log().matches("started input=").count()
}
