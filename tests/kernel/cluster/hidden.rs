//! What hides a Service from a proxy and shows it again, said while the daemon runs, as packets of its clients see it.

use super::rig::{IPVS, Rig, in_default, on_node_of_network};
use super::table::ways;
use crate::lab::trial;
use crate::objects::{node, with};
use crate::traffic_rig::{self, VIPS, request};
use ipvsd::demo::network::Network;
use ipvsd::model::Protocol;
use libtest_mimic::Trial;
use serde_json::{Value, json};

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![trial("cluster::what_hides_a_service_and_what_shows_it_again_is_followed", hidden_and_shown)]
}

fn hidden_and_shown() {
    on_node_of_network(follow);
}

fn follow(network: &Network) {
    // Every refusal is to be heard.
    network.node.set(&[("net/ipv4/icmp_ratelimit", "0"), ("net/ipv6/icmp/ratelimit", "0")]).unwrap();
    let mut rig = Rig::here(&[IPVS]);
    rig.server.put(node("a"));
    let web = with(traffic_rig::service("web", json!({})), "/spec/ipFamilies", json!(["IPv4", "IPv6"]));
    let web = in_default(with(web, "/spec/type", json!("ClusterIP")));
    let slices: Vec<_> = traffic_rig::slices("web", &network.backends).into_iter().map(in_default).collect();
    let label = |object: &Value, label: Value| {
        let mut labels = object["metadata"]["labels"].as_object().cloned().unwrap_or_default();
        labels.extend(label.as_object().unwrap().clone());
        with(object.clone(), "/metadata/labels", labels.into())
    };
    let headless = |object| label(object, json!({"service.kubernetes.io/headless": ""}));
    let proxy = |name: &str| label(&web, json!({"service.kubernetes.io/service-proxy-name": name}));
    let external =
        with(with(web.clone(), "/spec/type", json!("ExternalName")), "/spec/externalName", json!("a.example"));
    let external = with(with(external, "/spec/clusterIP", json!("")), "/spec/clusterIPs", json!([]));
    let hidden: Vec<_> = slices.iter().map(headless).collect();
    let steps = [
        ([vec![web.clone()], slices.clone()].concat(), true),
        (vec![proxy("other")], false),
        (vec![web.clone()], true),
        (vec![proxy("")], false),
        (vec![web.clone()], true),
        (hidden, false),
        (slices, true),
        (vec![external], false),
        (vec![web.clone()], true),
    ];
    rig.start();
    for (objects, is_served) in steps {
        objects.into_iter().for_each(|object| rig.server.put(object));
        until_served(&mut rig, network, is_served);
    }
    rig.server.delete("Service", "default", "web");
    until_served(&mut rig, network, false);
    // With the same address.
    rig.server.put(web);
    until_served(&mut rig, network, true);
}

/// Waits until both VIPs answer, or none does.
fn until_served(rig: &mut Rig, network: &Network, is_served: bool) {
    let answers =
        |vip: &str| network.client.namespace.run(|| Ok(request(Protocol::Udp, vip, 80).send().is_ok())).unwrap();
    if is_served {
        rig.until("it is served", |_| VIPS.iter().all(|vip| answers(vip)));
    } else {
        // First by IPVS's word, as silence is waited for.
        rig.until("it is not served", |_| ways(&super::table::table()).is_empty());
        assert!(!VIPS.iter().any(|vip| answers(vip)));
    }
}
