//! What the tests of traffic policies and masquerading stand on: a node with two pods of its own and one on another node,
//! a client outside, and a reconciler that programs the node's kernel, netfilter included.
//!
//! ```text
//! client 192.0.2.2 --- node ---- backend-1, an endpoint on this node
//!                           ---- backend-2, an endpoint that counts as another node's
//!                           ---- backend-3, a pod of this node that is a client
//! ```
//! The way to backend-2 is as to another node: nothing that is sent there comes back by a way around this node, so that
//! what leaks there would be answered, and seen.

use crate::mode::{Mode, has_sctp};
use ipvsd::demo::backend::{Backend, Port};
use ipvsd::demo::client::{Answer, Request};
use ipvsd::demo::namespace::Namespace;
use ipvsd::demo::network::Network;
use ipvsd::desired::{DetectLocal, NetfilterSettings, Settings};
use ipvsd::kernel::linux::Linux;
use ipvsd::model::{Family, Protocol};
use ipvsd::reconcile::{Options, Reconciler, Report};
use ipvsd::state::{Change, Endpoint, EndpointSlice, Node, ObjectName, Service, ServicePort, SlicePort, Whereabouts};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// A pod of this node.
    Pod,
    /// The node itself.
    Node,
    /// A client outside.
    External,
    /// The endpoint on this node.
    Endpoint,
}

/// Where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalIp,
    /// A node port by the node's loopback address.
    Localhost,
}

/// Everything that runs. Dropped from top to bottom.
pub struct GoldenRig {
    mode: Mode,
    reconciler: Reconciler<Linux>,
    settings: Settings,
    now: Duration,
    _backends: Vec<Backend>,
    pub network: Network,
}

impl GoldenRig {
    /// A rig where netfilter has these settings, and nothing is served yet.
    pub fn new(netfilter: NetfilterSettings) -> Self {
        Self::of(Mode::Ipvs, netfilter)
    }

    /// The same where `mode` balances.
    pub fn of(mode: Mode, netfilter: NetfilterSettings) -> Self {
        let netfilter = Some(mode.settings(netfilter));
        Self::of_settings(mode, Settings { netfilter, ..Settings::default() })
    }

    /// The same with any settings.
    pub fn with(settings: Settings) -> Self {
        Self::of_settings(Mode::Ipvs, settings)
    }

    fn of_settings(mode: Mode, settings: Settings) -> Self {
        let network = Network::build(3).unwrap();
        // Refusals are ICMP messages, which are few by default.
        network.node.set(&[("net/ipv4/icmp_ratelimit", "0"), ("net/ipv6/icmp/ratelimit", "0")]).unwrap();
        if mode == Mode::Ipvs {
            network.node.set(&[("net/ipv4/vs/conntrack", "1")]).unwrap();
        }
        let mut ports = vec![Port::Http(8080), Port::Udp(8080)];
        ports.extend(has_sctp().then_some(Port::SctpHttp(8080)));
        let start = |host: &ipvsd::demo::network::Host| Backend::start(&host.name, &host.namespace, &ports).unwrap();
        let backends = network.backends.iter().map(start).collect();
        let reconciler = reconciler(mode, &network, settings.clone());
        Self { mode, reconciler, settings, now: Duration::ZERO, _backends: backends, network }
    }

    /// Puts a reconciler that knows nothing in the place of the one that was there.
    pub fn restart(&mut self) {
        self.reconciler = reconciler(self.mode, &self.network, self.settings.clone());
        self.now = Duration::ZERO;
    }

    /// The same, with other settings of netfilter.
    pub fn restart_with(&mut self, netfilter: NetfilterSettings) {
        self.settings.netfilter = Some(self.mode.settings(netfilter));
        self.restart();
    }

    /// What balances.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// All that is programmed, for people.
    pub fn state(&self) -> String {
        self.network.node.run(|| Ok(self.mode.state())).unwrap()
    }

    /// Takes changes in and programs them; nothing may fail.
    pub fn program(&mut self, changes: impl IntoIterator<Item = Change>) -> Report {
        self.reconciler.take(changes);
        self.pass()
    }

    /// A pass that reads everything.
    pub fn resync(&mut self) -> Report {
        self.now += Duration::from_secs(60);
        self.pass()
    }

    fn pass(&mut self) -> Report {
        self.now += Duration::from_millis(1);
        let (reconciler, now) = (&mut self.reconciler, self.now);
        let report = self.network.node.run(|| Ok(reconciler.pass(now))).unwrap();
        assert!(report.is_good(), "{:?} {:?}", report.failed, report.unread);
        report
    }

    pub fn reconciler(&mut self) -> &mut Reconciler<Linux> {
        &mut self.reconciler
    }

    /// The endpoints: backend-1 on this node, backend-2 on another.
    pub fn slices(&self, service: &Service) -> Vec<Change> {
        self.slices_of(service, &[(0, Whereabouts::Here), (1, Whereabouts::Elsewhere)])
    }

    /// Slices with these backends by index, each with where it is.
    pub fn slices_of(&self, service: &Service, endpoints: &[(usize, Whereabouts)]) -> Vec<Change> {
        let of_family = |family: Family| {
            let endpoints = endpoints.iter().map(|(index, node)| {
                let addresses = self.network.backends[*index].addresses;
                let address = if family == Family::Ipv4 { addresses.ipv4.into() } else { addresses.ipv6.into() };
                Endpoint { node: *node, ..Endpoint::new(address) }
            });
            Change::EndpointSlice(Arc::new(slice(service, family, endpoints.collect())))
        };
        FAMILIES.map(of_family).into()
    }

    /// A slice with one endpoint on this node, wherever it is.
    pub fn slice_to(&self, service: &Service, to: SocketAddr) -> Change {
        let endpoint = Endpoint { node: Whereabouts::Here, ..Endpoint::new(to.ip()) };
        let mut slice = slice(service, Family::of(to.ip()), vec![endpoint]);
        slice.ports[0].port = to.port();
        Change::EndpointSlice(Arc::new(slice))
    }

    /// Sends one request.
    pub fn ask(&self, from: From, protocol: Protocol, target: SocketAddr) -> io::Result<Answer> {
        self.namespace(from).run(|| Ok(Request::new(protocol, target).send())).unwrap()
    }

    pub fn namespace(&self, from: From) -> &Namespace {
        match from {
            From::Pod => &self.network.backends[2].namespace,
            From::Node => &self.network.node,
            From::External => &self.network.client.namespace,
            From::Endpoint => &self.network.backends[0].namespace,
        }
    }

    /// The address that a request carries unless it is masqueraded. The node's own carry its primary address, and
    /// masqueraded ones that of the device they leave by.
    pub fn own_address(&self, from: From, family: Family) -> IpAddr {
        let addresses = match from {
            From::Pod => self.network.backends[2].addresses,
            From::Node => self.network.client.gateway,
            From::External => self.network.client.addresses,
            From::Endpoint => self.network.backends[0].addresses,
        };
        if family == Family::Ipv4 { addresses.ipv4.into() } else { addresses.ipv6.into() }
    }

    /// Where a Service is reached.
    pub fn target(&self, service: &Service, to: To, family: Family) -> SocketAddr {
        let of_family = |addresses: &[IpAddr]| *addresses.iter().find(|one| Family::of(**one) == family).unwrap();
        let port = &service.ports[0];
        let loopback: IpAddr = if family == Family::Ipv4 { [127, 0, 0, 1].into() } else { "::1".parse().unwrap() };
        let node_port = port.node_port.unwrap_or_default();
        match to {
            To::ClusterIp => (of_family(&service.cluster_ips), port.port).into(),
            To::LoadBalancer => (of_family(&service.load_balancer_ips), port.port).into(),
            To::ExternalIp => (of_family(&service.external_ips), port.port).into(),
            To::NodePort => (self.own_address(From::Node, family), node_port).into(),
            To::Localhost => (loopback, node_port).into(),
        }
    }
}

fn reconciler(mode: Mode, network: &Network, settings: Settings) -> Reconciler<Linux> {
    let kernel = network.node.run(|| Ok(mode.kernel())).unwrap();
    let options = Options { drain_timeout: Duration::ZERO, ..Options::default() };
    let mut reconciler = Reconciler::new(kernel, settings, options);
    reconciler.take([Change::Node(node(network))]);
    reconciler
}

/// The node's facts, with the address towards the client as its primary one.
fn node(network: &Network) -> Node {
    let gateways = network.backends.iter().chain([&network.client]).map(|host| host.gateway);
    let addresses = gateways.flat_map(|ends| [IpAddr::from(ends.ipv4), ends.ipv6.into()]).collect();
    let primary = network.client.gateway;
    Node { addresses, primary_ipv4: Some(primary.ipv4.into()), primary_ipv6: Some(primary.ipv6.into()) }
}

/// A Service with everything a Service can have, told from others by its number.
pub fn service(number: u8, protocol: Protocol) -> Service {
    let ip = |text: String| text.parse().unwrap();
    let both = |four: &str, six: &str| vec![ip(format!("{four}.{number}")), ip(format!("{six}::{number}"))];
    let port = ServicePort { name: "".into(), protocol, port: 80, node_port: Some(30_000 + u16::from(number)) };
    Service {
        cluster_ips: both("10.96.0", "fd00:96"),
        external_ips: both("203.0.113", "fd00:113"),
        load_balancer_ips: both("198.51.100", "fd00:51"),
        ports: vec![port],
        ..Service::new(ObjectName::new("default", &format!("s{number}")))
    }
}

/// The Service as news.
pub fn news(service: &Service) -> Change {
    Change::Service(Arc::new(service.clone()))
}

fn slice(service: &Service, family: Family, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let name = ObjectName::new("default", &format!("{}-{family}", service.name.name));
    EndpointSlice {
        ports: vec![SlicePort { name: "".into(), protocol: service.ports[0].protocol, port: 8080 }],
        endpoints,
        ..EndpointSlice::new(name, service.name.clone(), family)
    }
}

/// Pods known by the addresses of all of them.
pub fn by_cluster_cidr() -> DetectLocal {
    DetectLocal::ClusterCidr(vec!["10.244.0.0/16".parse().unwrap(), "fd00:244::/32".parse().unwrap()])
}
