//! Two nodes, each with its own IPVS, its own daemon and two pods, and a client, on one network.
//!
//! ```text
//!   client 192.0.2.2 ---+--- node-1 192.0.2.11 --- pod-1-1, pod-1-2
//!                       +--- node-2 192.0.2.12 --- pod-2-1, pod-2-2
//! ```
//! The addresses of pod K on node N end in `10.244.NK.2` and `fd00:244:NK::2`. The nodes know the ways to each other's
//! pods, and the client knows them too, so that what a node lets out to the wrong place gets its answer past that node.

use crate::golden_rig::FAMILIES;
use crate::lab::run;
use crate::program::{IPVSD, PATIENCE};
use ipvsd::demo::backend::{Backend, Port};
use ipvsd::demo::client::{Answer, Request};
use ipvsd::demo::daemon::Daemon;
use ipvsd::demo::manifests::Directory;
use ipvsd::demo::namespace::Namespace;
use ipvsd::demo::wait::wait_for;
use ipvsd::model::{Family, Protocol};
use serde_json::Value;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{self, Command};

/// Everything that runs. Dropped from top to bottom.
pub struct Lan {
    daemons: Vec<Daemon>,
    _backends: Vec<Backend>,
    directory: Directory,
    pub client: Namespace,
    pub nodes: [Namespace; 2],
    /// By node, then by their own number.
    pub pods: [[Namespace; 2]; 2],
    switch: Namespace,
}

/// Settings of every namespace.
const HOST: [(&str, &str); 6] = [
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/icmp_ratelimit", "0"),
];
const ROUTER: [(&str, &str); 3] =
    [("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1"), ("net/ipv6/icmp/ratelimit", "0")];

impl Lan {
    /// The network, with a server in each pod and on each node, and no daemon yet.
    pub fn new() -> Self {
        let new = || {
            let namespace = Namespace::new().unwrap();
            namespace.set(&HOST).unwrap();
            namespace
        };
        let pods = [[new(), new()], [new(), new()]];
        let lan = Self {
            daemons: Vec::new(),
            _backends: Vec::new(),
            directory: Directory::new().unwrap(),
            client: new(),
            nodes: [new(), new()],
            pods,
            switch: new(),
        };
        lan.nodes.iter().for_each(|node| node.set(&ROUTER).unwrap());
        lan.connect();
        let _backends = lan.serve();
        Self { _backends, ..lan }
    }

    /// Starts a daemon on each node, which finds these objects.
    pub fn start(&mut self, objects: &[Value]) {
        objects.iter().for_each(|object| self.put(object));
        let own = self.directory.beside("own.yaml");
        fs::write(&own, "netfilter: true\n").unwrap();
        for (node, name) in self.nodes.iter().zip(["node-1", "node-2"]) {
            let mut command = Command::new(IPVSD);
            command.args(["run", "--hostname-override", name, "--cluster-cidr", "10.244.0.0/16,fd00:244::/32"]);
            command.arg("--ipvsd-config").arg(&own).arg("--manifests").arg(self.directory.manifests());
            self.daemons.push(Daemon::start(node, &mut command, &self.directory.beside(name)).unwrap());
        }
    }

    /// Writes an object, over its former self.
    pub fn put(&self, object: &Value) {
        let name = format!("{}-{}.json", object["kind"], object["metadata"]["name"]).replace('"', "");
        self.directory.put(&name, &object.to_string()).unwrap();
    }

    /// Waits for what must come soon.
    pub fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let came = wait_for(PATIENCE, || {
            self.daemons.iter_mut().try_for_each(Daemon::check)?;
            Ok(is_so(self).then_some(()))
        });
        let logs = || self.daemons.iter().map(Daemon::log).collect::<Vec<_>>().join("\n");
        came.unwrap().unwrap_or_else(|| panic!("waited in vain until {what}. The daemons said:\n{}", logs()));
    }

    /// Has the client send packets for an address to one of the nodes, as a load balancer does.
    pub fn lead(&self, address: IpAddr, node: usize) {
        let (gateway, prefix) = (node_address(node, Family::of(address)), if address.is_ipv4() { 32 } else { 128 });
        let route = format!("route replace {address}/{prefix} via {gateway}");
        ip(&self.client, &route);
    }

    fn connect(&self) {
        ip(&self.switch, "link add lan type bridge\nlink set lan up");
        let hosts = [(&self.client, 2), (&self.nodes[0], 11), (&self.nodes[1], 12)];
        for (namespace, last) in hosts {
            let (port, addresses) =
                (format!("port-{last}"), [format!("192.0.2.{last}/24"), format!("fd00:2::{last}/64")]);
            cable((&self.switch, &port), (namespace, "eth0"), &addresses);
            ip(&self.switch, &format!("link set {port} master lan"));
        }
        for (node, pods) in self.pods.iter().enumerate() {
            for (pod, namespace) in pods.iter().enumerate() {
                self.connect_pod(namespace, (node, pod));
            }
        }
    }

    fn connect_pod(&self, namespace: &Namespace, (node, pod): (usize, usize)) {
        let [four, six] = FAMILIES.map(|family| pod_address((node, pod), family));
        let name = format!("pod-{}", pod + 1);
        cable((&self.nodes[node], &name), (namespace, "eth0"), &[format!("{four}/24"), format!("{six}/64")]);
        let gateways = FAMILIES.map(|family| in_pod_network((node, pod), family, 1));
        ip(
            &self.nodes[node],
            &format!("address add {}/24 dev {name}\naddress add {}/64 dev {name} nodad", gateways[0], gateways[1]),
        );
        ip(namespace, &format!("route add default via {}\nroute add default via {}", gateways[0], gateways[1]));
        let ways = FAMILIES.map(|family| node_address(node, family));
        let networks = format!("route add {four}/32 via {}\nroute add {six}/128 via {}", ways[0], ways[1]);
        ip(&self.client, &networks);
        ip(&self.nodes[1 - node], &networks);
    }

    fn serve(&self) -> Vec<Backend> {
        let ports = [Port::Http(8080), Port::Udp(8080)];
        let pods = self.pods.iter().enumerate().flat_map(|(node, pods)| {
            pods.iter().enumerate().map(move |(pod, namespace)| (format!("pod-{}-{}", node + 1, pod + 1), namespace))
        });
        let nodes = self.nodes.iter().enumerate().map(|(node, namespace)| (format!("node-{}", node + 1), namespace));
        pods.chain(nodes).map(|(name, namespace)| Backend::start(&name, namespace, &ports).unwrap()).collect()
    }
}

/// Of a node by its index.
pub fn node_address(node: usize, family: Family) -> IpAddr {
    let last = 11 + node;
    let text = match family {
        Family::Ipv4 => format!("192.0.2.{last}"),
        Family::Ipv6 => format!("fd00:2::{last}"),
    };
    text.parse().unwrap()
}

/// Of a pod by the indices of its node and its own.
pub fn pod_address(pod: (usize, usize), family: Family) -> IpAddr {
    in_pod_network(pod, family, 2)
}

/// The last number is the pod's or its gateway's.
fn in_pod_network((node, pod): (usize, usize), family: Family, last: u8) -> IpAddr {
    let network = (node + 1) * 10 + pod + 1;
    let text = match family {
        Family::Ipv4 => format!("10.244.{network}.{last}"),
        Family::Ipv6 => format!("fd00:244:{network}::{last}"),
    };
    text.parse().unwrap()
}

/// Asks once by HTTP.
pub fn ask(from: &Namespace, target: SocketAddr) -> io::Result<Answer> {
    from.run(|| Ok(Request::new(Protocol::Tcp, target).send())).unwrap()
}

fn cable((here, name): (&Namespace, &str), (there, inside): (&Namespace, &str), addresses: &[String; 2]) {
    // The process's own file, which is open to the program that it starts.
    let namespace = format!("/proc/{}/fd/{}", process::id(), there.as_fd().as_raw_fd());
    ip(here, &format!("link add {name} type veth peer name {inside} netns {namespace}\nlink set {name} up"));
    let [four, six] = addresses;
    ip(there, &format!("address add {four} dev {inside}\naddress add {six} dev {inside} nodad\nlink set {inside} up"));
}

/// Runs lines of `ip` in a namespace.
fn ip(namespace: &Namespace, lines: &str) {
    namespace.run(|| Ok(run("bash", &["-ec", &format!("ip -batch - <<'end'\n{lines}\nend")]))).unwrap();
}
