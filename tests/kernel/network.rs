//! The network of demo and traffic tests carries traffic as they expect, shown with `ipvsadm` in the daemon's place.

use crate::lab::{run, trial};
use ipvsd::demo::backend::{Backend, Port};
use ipvsd::demo::client::{Conversation, Request};
use ipvsd::demo::network::Network;
use ipvsd::model::Protocol;
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    vec![trial("network::ipvs_balances_between_its_namespaces", ipvs_balances_between_its_namespaces)]
}

fn ipvs_balances_between_its_namespaces() {
    let network = Network::build(2).unwrap();
    let ports = [Port::Http(8080), Port::SctpHttp(8080), Port::Udp(8080), Port::Lines(9090)];
    let _backends: Vec<_> =
        network.backends.iter().map(|host| Backend::start(&host.name, &host.namespace, &ports).unwrap()).collect();
    network
        .node
        .run(|| {
            run("sysctl", &["-qw", "net.ipv4.vs.conntrack=1"]);
            run("ip", &["route", "add", "local", "203.0.113.10", "dev", "lo", "table", "local"]);
            run("ip", &["route", "add", "local", "fd00:113::10", "dev", "lo", "table", "local"]);
            for protocol in ["-t", "-u", "--sctp-service"] {
                for (vip, hosts) in [
                    ("203.0.113.10:80", ["10.244.1.2:8080", "10.244.2.2:8080"]),
                    ("[fd00:113::10]:80", ["[fd00:244:1::2]:8080", "[fd00:244:2::2]:8080"]),
                ] {
                    run("ipvsadm", &["-A", protocol, vip, "-s", "rr"]);
                    for host in hosts {
                        run("ipvsadm", &["-a", protocol, vip, "-r", host, "-m"]);
                    }
                }
            }
            Ok(())
        })
        .unwrap();
    network
        .client
        .namespace
        .run(|| {
            for target in ["203.0.113.10:80", "[fd00:113::10]:80"] {
                let target = target.parse().unwrap();
                for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                    let request = Request::new(protocol, target);
                    let spread = request.spread(4).unwrap_or_else(|error| panic!("{request:?}: {error}"));
                    assert_eq!(
                        spread.into_iter().collect::<Vec<_>>(),
                        [("backend-1".into(), 2), ("backend-2".into(), 2)]
                    );
                    let source = request.send().unwrap().source;
                    assert!(source == network.client.addresses.ipv4 || source == network.client.addresses.ipv6);
                }
            }
            let mut conversation = Conversation::start((network.backends[0].addresses.ipv6, 9090).into())?;
            assert_eq!(conversation.say("hello")?, "backend-1");
            assert_eq!(conversation.say("again")?, "backend-1");
            Ok(())
        })
        .unwrap();
}
