//! Clients of UDP that keep their socket while a Service changes under them, by real packets: each change must lead them
//! to where a new client is led, masqueraded like it.

use crate::flow_table::{insert, untranslated};
use crate::golden_rig::{FAMILIES, From, GoldenRig, To, by_cluster_cidr, news, service};
use crate::lab::{run, trial};
use crate::program::PATIENCE;
use ipvsd::demo::backend::{Backend, Port};
use ipvsd::demo::client::Request;
use ipvsd::demo::network::Host;
use ipvsd::demo::wait::wait_for;
use ipvsd::desired::NetfilterSettings;
use ipvsd::model::netfilter::AddressPort;
use ipvsd::model::{Family, Protocol};
use ipvsd::state::{Change, Service, TrafficPolicy, Whereabouts};
use libtest_mimic::Trial;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("flows::clients_follow_a_pod_that_is_replaced", || follow(&[Step::One], &[Step::Other])),
        trial("flows::clients_are_refused_when_the_last_endpoint_goes", || follow(&[Step::One], &[Step::None])),
        trial("flows::clients_follow_down_to_no_endpoint_and_up_again", || {
            follow(&[Step::One], &[Step::None, Step::Other]);
            follow(&[Step::One], &[Step::None, Step::One]);
        }),
        trial("flows::clients_from_before_the_first_endpoint_reach_it", || follow(&[Step::None], &[Step::One])),
        trial("flows::clients_from_before_the_service_reach_it", || {
            follow(&[Step::Gone], &[Step::None, Step::One]);
            follow(&[Step::Gone, Step::One], &[Step::Back]);
        }),
        trial("flows::clients_of_a_service_that_comes_back_reach_it", || {
            follow(&[Step::One], &[Step::Gone, Step::Back])
        }),
        trial("flows::clients_follow_a_changed_target_port", || follow(&[Step::One], &[Step::OtherPort])),
        trial("flows::clients_keep_their_endpoint_while_others_come_and_go", clients_keep_their_endpoint),
        trial("flows::clients_keep_an_endpoint_that_is_on_the_node_itself", clients_keep_an_endpoint_on_the_node),
        trial("flows::clients_on_the_node_keep_what_a_mark_led_them_to", clients_led_by_mark),
        trial("flows::clients_from_before_a_start_are_seen_to_at_the_start", clients_from_before_a_start),
        trial("flows::a_pass_without_news_of_udp_asks_for_no_flows", a_pass_without_news_of_udp),
    ]
}

/// What happens to the Service.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// It has one endpoint.
    One,
    /// It has another one, on another node.
    Other,
    /// It has one with another target port.
    OtherPort,
    /// It has both.
    Both,
    /// It has none.
    None,
    /// It goes.
    Gone,
    /// It comes back.
    Back,
}

/// A rig with a UDP Service, and backends that also listen on port 8081, as `NAME-other`. The node has a default route, so
/// that what it and its pods send to a VIP that is not there yet goes somewhere, and is remembered.
fn rig() -> (GoldenRig, Service, Vec<Backend>) {
    let settings = NetfilterSettings { detect_local: by_cluster_cidr(), ..NetfilterSettings::default() };
    let mut rig = GoldenRig::new(settings);
    rig.network.node.set(&[("net/ipv4/vs/expire_nodest_conn", "1")]).unwrap();
    let client = rig.network.client.addresses;
    on_node(&rig, || {
        run("ip", &["route", "add", "default", "via", &client.ipv4.to_string()]);
        run("ip", &["-6", "route", "add", "default", "via", &client.ipv6.to_string()]);
    });
    let others =
        |host: &Host| Backend::start(&format!("{}-other", host.name), &host.namespace, &[Port::Udp(8081)]).unwrap();
    let others = rig.network.backends.iter().map(others).collect();
    let udp = service(1, Protocol::Udp);
    rig.program([news(&udp)]);
    (rig, udp, others)
}

fn on_node<T: Send>(rig: &GoldenRig, work: impl FnOnce() -> T + Send) -> T {
    rig.network.node.run(|| Ok(work())).unwrap()
}

fn make(rig: &mut GoldenRig, service: &Service, step: Step) {
    let changes = match step {
        Step::One => rig.slices_of(service, &[(0, Whereabouts::Here)]),
        Step::Other => rig.slices_of(service, &[(1, Whereabouts::Elsewhere)]),
        Step::Both => rig.slices_of(service, &[(0, Whereabouts::Here), (1, Whereabouts::Elsewhere)]),
        Step::OtherPort => rig.slices_of(service, &[(0, Whereabouts::Here)]).into_iter().map(with_other_port).collect(),
        Step::None => {
            rig.program([news(service)]);
            rig.slices_of(service, &[])
        }
        Step::Gone => vec![Change::ServiceGone(service.name.clone())],
        Step::Back => vec![news(service)],
    };
    rig.program(changes);
}

fn with_other_port(change: Change) -> Change {
    let Change::EndpointSlice(slice) = change else { return change };
    let mut slice = (*slice).clone();
    slice.ports[0].port = 8081;
    Change::EndpointSlice(Arc::new(slice))
}

/// A client with one socket.
struct Client {
    what: String,
    from: From,
    target: SocketAddr,
    socket: UdpSocket,
}

/// Who answered and the source it saw, or that nobody was there.
type Outcome = Result<String, ErrorKind>;

impl Client {
    fn new(rig: &GoldenRig, from: From, target: SocketAddr) -> Self {
        let socket = rig.namespace(from).run(|| {
            let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.connect(target)?;
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
            Ok(socket)
        });
        Self { what: format!("{from:?} to {target}"), from, target, socket: socket.unwrap() }
    }

    /// Sends once.
    fn ask(&self) -> Outcome {
        let mut answer = [0; 100];
        let length = self.socket.send(b"who\n").and_then(|_| self.socket.recv(&mut answer));
        match length {
            Ok(length) => Ok(String::from_utf8_lossy(&answer[..length]).trim().to_owned()),
            // To processes on the node itself a refusal by the firewall is this.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(ErrorKind::ConnectionRefused),
            Err(error) => Err(error.kind()),
        }
    }

    /// Another client like this one.
    fn anew(&self, rig: &GoldenRig) -> Self {
        Self::new(rig, self.from, self.target)
    }
}

/// A client of every kind, by cluster IP and node port, in both families.
fn clients(rig: &GoldenRig, service: &Service) -> Vec<Client> {
    let mut clients = Vec::new();
    for from in [From::Pod, From::Node, From::External] {
        for to in [To::ClusterIp, To::NodePort] {
            clients.extend(FAMILIES.map(|family| Client::new(rig, from, rig.target(service, to, family))));
        }
    }
    clients
}

/// Clients that began after some steps must after some more be where new ones are.
fn follow(before: &[Step], then: &[Step]) {
    let (mut rig, udp, _others) = rig();
    before.iter().for_each(|step| make(&mut rig, &udp, *step));
    let clients = clients(&rig, &udp);
    let began: Vec<Outcome> = clients.iter().map(Client::ask).collect();
    for step in then {
        make(&mut rig, &udp, *step);
        // Without a virtual server the VIP is somewhere else. Else even the next packet gets to somebody who answers.
        let next = clients[0].ask();
        assert!(matches!(step, Step::Gone) || next != Err(ErrorKind::WouldBlock), "{} at {step:?}", clients[0].what);
    }
    for (client, began) in clients.iter().zip(began) {
        let anew = client.anew(&rig).ask();
        if !matches!(then.last(), Some(Step::None)) {
            assert!(anew.is_ok(), "{}, a new one: {anew:?}", client.what);
        }
        // What it was told before may still be there to receive.
        let same = wait_for(PATIENCE, || Ok((client.ask() == anew).then_some(())));
        assert!(
            same.unwrap().is_some(),
            "{}: {began:?}, then {:?}, and a new one: {anew:?}",
            client.what,
            client.ask()
        );
    }
}

fn clients_keep_their_endpoint() {
    let (mut rig, udp, _others) = rig();
    make(&mut rig, &udp, Step::One);
    let clients = clients(&rig, &udp);
    let began: Vec<Outcome> = clients.iter().map(Client::ask).collect();
    for step in [Step::Both, Step::One, Step::Both] {
        make(&mut rig, &udp, step);
        for (client, began) in clients.iter().zip(&began) {
            assert_eq!(&client.ask(), began, "{} at {step:?}", client.what);
        }
    }
}

/// A process of the node's own network: packets to it do not leave the node again.
fn clients_keep_an_endpoint_on_the_node() {
    let (mut rig, udp, _others) = rig();
    let _process = Backend::start("node", &rig.network.node, &[Port::Udp(8080)]).unwrap();
    let on_node = |change: Change| {
        let Change::EndpointSlice(slice) = change else { return change };
        let mut slice = (*slice).clone();
        slice.endpoints[0].address = rig.own_address(From::Node, slice.family);
        Change::EndpointSlice(Arc::new(slice))
    };
    let both: Vec<_> =
        rig.slices_of(&udp, &[(0, Whereabouts::Here), (1, Whereabouts::Elsewhere)]).into_iter().map(on_node).collect();
    let alone: Vec<_> = rig.slices_of(&udp, &[(0, Whereabouts::Here)]).into_iter().map(on_node).collect();
    rig.program(alone.clone());
    let mut clients = clients(&rig, &udp);
    // The process does not choose the address it answers from, and this one is right for those outside only.
    clients.retain(|client| client.from == From::External);
    let began: Vec<Outcome> = clients.iter().map(Client::ask).collect();
    rig.program(both);
    let forgotten: usize = rig.program(alone).flows.iter().map(|(_, forgotten)| forgotten.flows).sum();
    assert_eq!(forgotten, 0, "{began:?}");
    for (client, began) in clients.iter().zip(&began) {
        assert!(began.as_ref().is_ok_and(|answer| answer.starts_with("node ")), "{}: {began:?}", client.what);
        assert_eq!(&client.ask(), began, "{}", client.what);
    }
}

/// With an external policy of `Local` there are two virtual servers for one frontend: what either has is not forgotten.
fn clients_led_by_mark() {
    let (mut rig, udp, _others) = rig();
    let udp = Service { external_policy: TrafficPolicy::Local, ..udp };
    rig.program([news(&udp)]);
    make(&mut rig, &udp, Step::Both);
    let targets = FAMILIES.map(|family| rig.target(&udp, To::LoadBalancer, family));
    let pairs = [From::Pod, From::Node].into_iter().flat_map(|from| targets.map(|target| (from, target)));
    let clients: Vec<_> = pairs.flat_map(|(from, target)| [(); 4].map(|()| Client::new(&rig, from, target))).collect();
    let began: Vec<Outcome> = clients.iter().map(Client::ask).collect();
    let leads_here = |outcome: &&Outcome| outcome.as_ref().unwrap().starts_with("backend-1 ");
    let here = began.iter().filter(leads_here).count();
    assert!((1..began.len()).contains(&here), "{began:?}");
    let slices = rig.slices_of(&udp, &[(1, Whereabouts::Elsewhere)]);
    let forgotten: usize = rig.program(slices).flows.iter().map(|(_, forgotten)| forgotten.flows).sum();
    assert_eq!(forgotten, here);
    for (client, began) in clients.iter().zip(&began) {
        let now = client.ask();
        assert!(now.as_ref().is_ok_and(|answer| answer.starts_with("backend-2 ")), "{}: {now:?}", client.what);
        assert!(leads_here(&began) || now == *began, "{}: {began:?} became {now:?}", client.what);
    }
}

/// Entries that were there before the virtual server, as a node has them that sent before ipvsd ran for the first time.
fn clients_from_before_a_start() {
    let (mut rig, udp, _others) = rig();
    make(&mut rig, &udp, Step::One);
    let clients = clients(&rig, &udp);
    let entry = |client: &Client| untranslated(client.socket.local_addr().unwrap(), of(Protocol::Udp, client.target));
    let mut entries: Vec<_> = clients.iter().map(entry).collect();
    let sctp = service(2, Protocol::Sctp);
    let associations = FAMILIES.map(|family| {
        let target = rig.target(&sctp, To::ClusterIp, family);
        let source = SocketAddr::from((rig.own_address(From::External, family), 40_000));
        entries.push(untranslated(source, of(Protocol::Sctp, target)));
        Request { source: Some(source), ..Request::new(Protocol::Sctp, target) }
    });
    on_node(&rig, || insert(&entries));
    for client in &clients {
        assert_eq!(client.ask(), Err(ErrorKind::WouldBlock), "{}: IPVS could do without", client.what);
    }
    rig.restart();
    let slices = [&udp, &sctp].map(|service| rig.slices_of(service, &[(0, Whereabouts::Here)]));
    rig.program([news(&udp), news(&sctp)].into_iter().chain(slices.into_iter().flatten()));
    for client in &clients {
        let anew = client.anew(&rig).ask();
        let same = wait_for(PATIENCE, || Ok((anew.is_ok() && client.ask() == anew).then_some(())));
        assert!(same.unwrap().is_some(), "{}: {:?}, and a new one: {anew:?}", client.what, client.ask());
    }
    for request in associations {
        let answer = rig.network.client.namespace.run(|| Ok(request.send())).unwrap();
        assert_eq!(answer.unwrap().name, "backend-1", "{request:?}");
    }
}

fn of(protocol: Protocol, target: SocketAddr) -> AddressPort {
    AddressPort { address: target.ip(), protocol, port: target.port() }
}

fn a_pass_without_news_of_udp() {
    let (mut rig, udp, _others) = rig();
    make(&mut rig, &udp, Step::One);
    let tcp = service(3, Protocol::Tcp);
    let slices = rig.slices(&tcp);
    let report = rig.program([news(&tcp)].into_iter().chain(slices));
    assert!(report.changes() > 0 && report.flows.is_empty(), "{report:?}");
    let report = rig.program([Change::ServiceGone(tcp.name)]);
    assert!(report.changes() > 0 && report.flows.is_empty(), "{report:?}");
    assert!(rig.resync().flows.is_empty(), "nothing is new");
    let families: Vec<Family> = rig.program([Change::ServiceGone(udp.name)]).flows.iter().map(|(of, _)| *of).collect();
    assert_eq!(families, FAMILIES);
}
