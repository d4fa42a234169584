//! What the JSON is, and that docs/inspection.md says so.

use super::*;
use crate::kernel::connections::parse;
use crate::kernel::ipvs::sync::{SyncDaemon, SyncRole};
use crate::kernel::ipvs::{Info, Timeouts, Tunnel};
use crate::kernel::ownership;
use crate::model::{DestinationKey, Family, Protocol, VirtualServerKey};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

fn server(identity: ipvs::Identity, flags: u32) -> VirtualServerEntry {
    let stats = ipvs::Stats { connections: 3, byte_rate_out: 9, ..ipvs::Stats::default() };
    VirtualServerEntry {
        identity,
        scheduler: "mh".into(),
        persistence_engine: None,
        flags,
        timeout: 60,
        netmask: 0xffff_ff00,
        stats,
    }
}

fn destination(forwarding: Option<Forwarding>) -> DestinationEntry {
    DestinationEntry {
        key: DestinationKey { address: [10, 1, 0, 1].into(), port: 8080 },
        forwarding,
        weight: 1,
        upper_threshold: 20,
        lower_threshold: 10,
        active: 4,
        inactive: 5,
        persistent: 6,
        stats: ipvs::Stats::default(),
        tunnel: Tunnel::default(),
    }
}

fn printed(virtual_servers: Vec<(VirtualServerEntry, Vec<DestinationEntry>)>) -> String {
    let table = Table { info: Info { version: 0x01_02_01, connection_table_size: 4096 }, virtual_servers };
    let mut names = Names::default();
    names.services.insert(
        VirtualServerKey::new([10, 0, 0, 9].into(), 80, Protocol::Tcp),
        ("default/web:http".into(), String::new()),
    );
    names.pods.insert(DestinationKey { address: [10, 1, 0, 9].into(), port: 80 }, "default/web-0".into());
    text_of(|out| print(out, &table, &names).unwrap())
}

fn text_of(print: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut text = Vec::new();
    print(&mut text);
    String::from_utf8(text).unwrap()
}

/// The names of the fields in the order of the text, one a line as they are printed.
fn names(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| Some(line.trim().strip_prefix('"')?.split_once("\": ")?.0)).collect()
}

#[test]
fn identity_comes_first_and_destinations_last() {
    let identity = ipvs::Identity::Address { address: [10, 0, 0, 1].into(), port: 80, protocol: 6 };
    let text = printed(vec![(server(identity, ownership::tagged(0x11)), vec![destination(None)])]);
    let stats = "stats connections packetsIn packetsOut bytesIn bytesOut connectionsPerSecond packetsInPerSecond \
                 packetsOutPerSecond bytesInPerSecond bytesOutPerSecond";
    let expected = format!(
        "connectionTableSize virtualServers protocol address port scheduler schedulerFlags fallback hashPort \
         onePacket persistence \
         timeoutSeconds prefix persistenceEngine managed {stats} destinations address port forwarding tunnel weight \
         upperThreshold lowerThreshold activeConnections inactiveConnections persistentConnections {stats}"
    );
    assert_eq!(names(&text).join(" "), expected);
}

#[test]
fn values_are_words_numbers_and_nulls() {
    let identity = ipvs::Identity::Address { address: [10, 0, 0, 1].into(), port: 80, protocol: 6 };
    let destinations = [Some(Forwarding::DirectRouting), None].map(destination).into();
    let text = printed(vec![(server(identity, ownership::tagged(0x11)), destinations)]);
    let listing: Value = serde_json::from_str(&text).unwrap();
    let first = &listing["virtualServers"][0];
    assert_eq!(listing["connectionTableSize"], 4096);
    assert_eq!((&first["protocol"], &first["address"]), (&"TCP".into(), &"10.0.0.1".into()));
    assert_eq!(
        (&first["managed"], &first["hashPort"], &first["fallback"]),
        (&true.into(), &true.into(), &false.into())
    );
    assert_eq!(first["persistence"], serde_json::json!({"timeoutSeconds": 60, "prefix": 24}));
    assert_eq!((&first["stats"]["connections"], &first["stats"]["bytesOutPerSecond"]), (&3.into(), &9.into()));
    let forwarding = ["route".into(), Value::Null];
    assert_eq!([0, 1].map(|index| first["destinations"][index]["forwarding"].clone()), forwarding);
}

#[test]
fn marks_and_other_protocols_are_shown_too() {
    let mark = ipvs::Identity::Mark { mark: 7, family: Family::Ipv6 };
    let unbalanced = ipvs::Identity::Address { address: [10, 0, 0, 1].into(), port: 0, protocol: 47 };
    let text = printed(vec![(server(mark, 0), vec![]), (server(unbalanced, 0), vec![])]);
    let listing: Value = serde_json::from_str(&text).unwrap();
    let [mark, unbalanced] = [0, 1].map(|index| &listing["virtualServers"][index]);
    assert_eq!((&mark["mark"], &mark["family"], mark.get("address")), (&7.into(), &"IPv6".into(), None));
    assert_eq!((&unbalanced["protocol"], unbalanced.get("mark")), (&47.into(), None));
    assert_eq!((&mark["persistence"], &mark["managed"]), (&Value::Null, &false.into()));
}

#[test]
fn names_are_there_where_they_are_known() {
    let identity = |last| ipvs::Identity::Address { address: [10, 0, 0, last].into(), port: 80, protocol: 6 };
    let pod = DestinationKey { address: [10, 1, 0, 9].into(), port: 80 };
    let pod = DestinationEntry { key: pod, ..destination(None) };
    let text = printed(vec![(server(identity(9), 0), vec![pod, destination(None)]), (server(identity(8), 0), vec![])]);
    let listing: Value = serde_json::from_str(&text).unwrap();
    let [known, unknown] = [0, 1].map(|index| &listing["virtualServers"][index]);
    assert_eq!((&known["service"], unknown.get("service")), (&"default/web:http".into(), None));
    assert_eq!(known["destinations"][0]["pod"], "default/web-0");
    assert_eq!(known["destinations"][1].get("pod"), None);
}

#[test]
fn tunnels_say_how_they_wrap() {
    let identity = ipvs::Identity::Mark { mark: 7, family: Family::Ipv4 };
    let tunnels = [(0, 0, 0), (1, 6080, 1), (2, 0, 2), (3, 9, 3)].map(|(kind, port, flags)| DestinationEntry {
        tunnel: Tunnel { kind, port, flags },
        ..destination(Some(Forwarding::Tunnel))
    });
    let listing: Value = serde_json::from_str(&printed(vec![(server(identity, 0), tunnels.into())])).unwrap();
    let tunnel = |index: usize| listing["virtualServers"][0]["destinations"][index]["tunnel"].clone();
    assert_eq!(tunnel(0), serde_json::json!({"kind": "ipip", "port": null, "checksum": "none"}));
    assert_eq!(tunnel(1), serde_json::json!({"kind": "gue", "port": 6080, "checksum": "full"}));
    assert_eq!(tunnel(2), serde_json::json!({"kind": "gre", "port": null, "checksum": "remote"}));
    assert_eq!(tunnel(3), serde_json::json!({"kind": null, "port": null, "checksum": null}));
}

const CONNECTION: &str = "UDP 0A000001 0000 0A000001 13C4 0A010001 13C4 NONE 57 sip 3848@example.com";

#[test]
fn connections_are_one_a_line_and_none_is_an_empty_list() {
    let text = |lines: &[&str]| {
        text_of(|out| print_connections(out, lines.iter().map(|line| Ok(parse(line).unwrap()))).unwrap())
    };
    assert_eq!(text(&[]), "{\n  \"connections\": [\n  ]\n}\n");
    let two = text(&[CONNECTION, "TCP 0A000001 8A7C 0A000001 0050 0A010001 1F90 ESTABLISHED 897"]);
    assert_eq!(two.lines().count(), 6);
    let listing: Value = serde_json::from_str(&two).unwrap();
    let address = |address: &str, port: u16| serde_json::json!({"address": address, "port": port});
    let [template, connection] = [0, 1].map(|index| &listing["connections"][index]);
    assert_eq!((&template["client"], &template["virtual"]), (&address("10.0.0.1", 0), &address("10.0.0.1", 5060)));
    assert_eq!(
        (&template["persistenceEngine"], &template["persistenceData"]),
        (&"sip".into(), &"3848@example.com".into())
    );
    assert_eq!((&connection["destination"], &connection["expiresSeconds"]), (&address("10.1.0.1", 8080), &897.into()));
    assert_eq!((&connection["state"], &connection["persistenceEngine"]), (&"ESTABLISHED".into(), &Value::Null));
}

/// The fields of every object that is ever printed, by the name of the field that has it; those of the outermost by
/// an empty name.
fn given() -> BTreeMap<String, BTreeSet<String>> {
    let mark = ipvs::Identity::Mark { mark: 7, family: Family::Ipv4 };
    let address = ipvs::Identity::Address { address: [10, 0, 0, 9].into(), port: 80, protocol: 6 };
    let pod = DestinationKey { address: [10, 1, 0, 9].into(), port: 80 };
    let pod = DestinationEntry { key: pod, ..destination(Some(Forwarding::Tunnel)) };
    let daemon = SyncDaemon {
        role: SyncRole::Backup,
        interface: "eth0".into(),
        sync_id: 1,
        max_length: 1472,
        group: None,
        port: 8848,
        ttl: 1,
    };
    let mut given = BTreeMap::new();
    for text in [
        printed(vec![(server(mark, 0), vec![]), (server(address, 1), vec![pod])]),
        text_of(|out| print_connections(out, [Ok(parse(CONNECTION).unwrap())]).unwrap()),
        text_of(|out| print_timeouts(out, Timeouts::default()).unwrap()),
        text_of(|out| print_sync_daemons(out, &[daemon]).unwrap()),
    ] {
        collect("", &serde_json::from_str(&text).unwrap(), &mut given);
    }
    given
}

fn collect(name: &str, value: &Value, into: &mut BTreeMap<String, BTreeSet<String>>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| collect(name, value, into)),
        Value::Object(fields) => {
            into.entry(name.to_owned()).or_default().extend(fields.keys().cloned());
            fields.iter().for_each(|(name, value)| collect(name, value, into));
        }
        _ => {}
    }
}

/// The same by the document: a sentence that ends with a colon names objects, the table under it has their fields.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let document = include_str!("../../../../docs/inspection.md");
    let section = document.split("\n## JSON\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let quoted = |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let mut documented = BTreeMap::<String, BTreeSet<String>>::new();
    let mut objects = Vec::new();
    for line in section.lines() {
        if line.ends_with(':') {
            objects = quoted(line);
        } else if let Some(cell) = line.strip_prefix("| `").and_then(|line| line.split(" | ").next()) {
            for object in &objects {
                documented.entry(object.clone()).or_default().extend(quoted(&format!("`{cell}")));
            }
        }
    }
    documented
}

#[test]
fn the_document_has_every_field_and_no_other() {
    let mut given = given();
    let outermost = given.remove("").unwrap();
    given.insert("ipvsd list --json".into(), outermost);
    assert_eq!(documented(), given);
}
