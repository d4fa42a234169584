//! Services and slices as an API server has them, on the node of [`GoldenRig`], and short words for who answers.

use crate::golden_rig::{FAMILIES, From, GoldenRig, To, by_cluster_cidr, service};
use crate::objects::NODE;
use ipvsd::desired::NetfilterSettings;
use ipvsd::model::{Family, Protocol};
use ipvsd::source::convert::{self, Context, Rules};
use ipvsd::state::{Change, ObjectName, Origin};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// A network in one kernel answers in less than a millisecond, and what is dropped is waited for in vain. The second
/// wait is for a machine that was busy with something else.
const PATIENCE: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(600)];

/// A node that knows its pods by their addresses.
pub fn rig() -> GoldenRig {
    GoldenRig::new(NetfilterSettings { detect_local: by_cluster_cidr(), ..NetfilterSettings::default() })
}

/// The Service of [`service`](crate::golden_rig::service) with this number, as a load balancer with one port for each
/// protocol, and what `spec` says otherwise.
pub fn balanced(number: u8, spec: &Value) -> Value {
    let same = service(number, Protocol::Tcp);
    let node_port = same.ports[0].node_port;
    let port = |name, protocol| json!({"name": name, "port": 80, "protocol": protocol, "nodePort": node_port});
    let mut whole = json!({
        "type": "LoadBalancer",
        "clusterIP": same.cluster_ips[0],
        "clusterIPs": same.cluster_ips,
        "ipFamilies": ["IPv4", "IPv6"],
        "externalIPs": same.external_ips,
        "internalTrafficPolicy": "Cluster",
        "externalTrafficPolicy": "Cluster",
        "ports": [port("tcp", "TCP"), port("udp", "UDP"), port("sctp", "SCTP")],
    });
    for (field, value) in spec.as_object().unwrap() {
        whole[field] = value.clone();
    }
    let ingress: Vec<_> = same.load_balancer_ips.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": &*same.name.name, "namespace": "default"},
        "spec": whole,
        "status": {"loadBalancer": {"ingress": ingress}},
    })
}

/// The slices of both families of that Service. Reads `1:local 2:leaving`: backends by number, and what is said of them.
pub fn slices(rig: &GoldenRig, number: u8, words: &str) -> Vec<Value> {
    FAMILIES.map(|family| slice(rig, (number, "a"), family, words)).into()
}

/// One slice, with a suffix to its name.
pub fn slice(rig: &GoldenRig, (number, suffix): (u8, &str), family: Family, words: &str) -> Value {
    let service = format!("s{number}");
    let port = |name, protocol| json!({"name": name, "port": 8080, "protocol": protocol});
    let endpoints: Vec<_> = words.split_whitespace().map(|word| endpoint(rig, family, word)).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-{}-{suffix}", family.name().to_lowercase()),
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": family.name(),
        "ports": [port("tcp", "TCP"), port("udp", "UDP"), port("sctp", "SCTP")],
        "endpoints": endpoints,
    })
}

fn endpoint(rig: &GoldenRig, family: Family, word: &str) -> Value {
    let (number, marks) = word.split_once(':').unwrap_or((word, ""));
    let index = number.parse::<usize>().unwrap() - 1;
    let conditions =
        |ready, serving, terminating| json!({"ready": ready, "serving": serving, "terminating": terminating});
    let mut endpoint = json!({
        "addresses": [address(rig, index, family)],
        "conditions": conditions(true, true, false),
        "nodeName": "worker-2",
    });
    for mark in marks.split(',').filter(|mark| !mark.is_empty()) {
        match mark {
            "local" => endpoint["nodeName"] = NODE.into(),
            "unready" => endpoint["conditions"] = conditions(false, false, false),
            "leaving" => endpoint["conditions"] = conditions(false, true, true),
            "dying" => endpoint["conditions"] = conditions(false, false, true),
            "published" => endpoint["conditions"] = conditions(true, false, true),
            "here" => endpoint["hints"]["forNodes"] = json!([{"name": NODE}]),
            "elsewhere" => endpoint["hints"]["forNodes"] = json!([{"name": "worker-2"}]),
            zone => endpoint["hints"]["forZones"] = json!([{"name": zone.strip_prefix("zone-").unwrap()}]),
        }
    }
    endpoint
}

/// Of a backend, by its index.
pub fn address(rig: &GoldenRig, index: usize, family: Family) -> IpAddr {
    let addresses = rig.network.backends[index].addresses;
    if family == Family::Ipv4 { addresses.ipv4.into() } else { addresses.ipv6.into() }
}

/// Programs objects; one that is not for this proxy is one that is gone.
pub fn put(rig: &mut GoldenRig, objects: impl IntoIterator<Item = Value>) {
    let context = Context::new(Rules::Api, NODE);
    let changes: Vec<_> = objects.into_iter().map(|object| change(object, &context)).collect();
    rig.program(changes);
}

fn change(object: Value, context: &Context) -> Change {
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    if object["kind"] == "Service" {
        let raw = serde_json::from_value(object).unwrap();
        let found = convert::service(&raw, &Origin::Api, context).unwrap();
        let gone = Change::ServiceGone(ObjectName::new("default", &name));
        return found.map_or(gone, |found| Change::Service(found.object.into()));
    }
    let raw = serde_json::from_value(object).unwrap();
    Change::EndpointSlice(convert::endpoint_slice(&raw, &Origin::Api, context).unwrap().unwrap().object.into())
}

/// Where the Service of this number is.
pub fn target(rig: &GoldenRig, number: u8, to: To, family: Family) -> SocketAddr {
    rig.target(&service(number, Protocol::Tcp), to, family)
}

/// Who answers datagrams: the numbers of backends, or `refused`, or `silence`.
pub fn who(rig: &GoldenRig, from: From, target: SocketAddr) -> String {
    let mut found = BTreeSet::new();
    for _ in 0..4 {
        found.insert(who_once(rig, from, target));
        if found.contains("silence") {
            // Which costs time each time.
            break;
        }
    }
    found.into_iter().collect::<Vec<_>>().join(" ")
}

fn who_once(rig: &GoldenRig, from: From, target: SocketAddr) -> String {
    let answers = PATIENCE.iter().map(|patience| who_within(*patience, rig, (from, target)));
    let mut heard = answers.skip_while(|answer| answer == "silence");
    heard.next().unwrap_or_else(|| "silence".to_owned())
}

fn who_within(patience: Duration, rig: &GoldenRig, (from, target): (From, SocketAddr)) -> String {
    let ask = || {
        let everywhere: SocketAddr = if target.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(everywhere)?;
        socket.set_read_timeout(Some(patience))?;
        socket.connect(target)?;
        socket.send(b"who\n")?;
        let mut answer = [0; 100];
        let length = socket.recv(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    };
    let answer: std::io::Result<String> = rig.namespace(from).run(|| Ok(ask())).unwrap();
    match answer.map_err(|error| error.kind()) {
        Ok(answer) => answer.trim_start_matches("backend-").split(' ').next().unwrap().to_owned(),
        // A datagram of the node's own is not even sent.
        Err(ErrorKind::ConnectionRefused) => "refused".to_owned(),
        Err(ErrorKind::PermissionDenied) if from == From::Node => "refused".to_owned(),
        Err(ErrorKind::WouldBlock | ErrorKind::TimedOut) => "silence".to_owned(),
        Err(other) => other.to_string(),
    }
}
