//! What the traffic tests stand on: the demo's network with three backends, the real daemon on its node, and a
//! directory of manifests that a test changes.

use crate::lab::run;
use crate::meanwhile::repeat_while;
use crate::mode::{Mode, has_sctp};
use crate::program::{IPVSD, PATIENCE};
use ipvsd::demo::backend::{Backend, Port};
use ipvsd::demo::client::{Answer, Conversation, Request};
use ipvsd::demo::daemon::Daemon;
use ipvsd::demo::manifests::Directory;
use ipvsd::demo::namespace::Namespace;
use ipvsd::demo::network::{Host, Network};
use ipvsd::demo::wait::wait_for;
use ipvsd::model::Protocol;
use serde_json::{Value, json};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Output};
use std::sync::Mutex;

/// The Service `web` of most tests has these.
pub const VIPS: [&str; 2] = ["10.96.0.10", "fd00:96::10"];
pub const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// What gives the tables of an input to the program `$name` one by one.
const TABLE_BY_TABLE: &str = r#"
table=
while IFS= read -r line; do
    table+=$line$'\n'
    if [ "$line" = COMMIT ]; then
        printf %s "$table" | "$name" "$@" || exit
        sleep 0.3
        table=
    fi
done
"#;

/// Everything that runs. Dropped from top to bottom.
pub struct Rig {
    mode: Mode,
    daemon: Option<Daemon>,
    flags: Vec<&'static str>,
    /// Of daemons that are started from now on, if not this program's.
    path: Option<String>,
    directory: Directory,
    _backends: Vec<Backend>,
    pub network: Network,
}

impl Rig {
    /// A rig whose daemon has these flags and finds what `objects` makes of the backends.
    pub fn new(flags: &[&'static str], objects: impl FnOnce(&[Host]) -> Vec<Value>) -> Self {
        Self::of(Mode::Ipvs, flags, objects)
    }

    /// The same where `mode` balances.
    pub fn of(mode: Mode, flags: &[&'static str], objects: impl FnOnce(&[Host]) -> Vec<Value>) -> Self {
        let network = Network::build(3).unwrap();
        let prepare = || {
            mode.prepare();
            Ok(())
        };
        network.node.run(prepare).unwrap();
        let mut ports = vec![Port::Http(8080), Port::Udp(8080), Port::Lines(9090)];
        ports.extend(has_sctp().then_some(Port::SctpHttp(8080)));
        let start = |host: &Host| Backend::start(&host.name, &host.namespace, &ports).unwrap();
        let backends = network.backends.iter().map(start).collect();
        let directory = Directory::new().unwrap();
        let flags = [flags, mode.flags()].concat();
        let mut rig = Self { mode, daemon: None, flags, path: None, directory, _backends: backends, network };
        for object in objects(&rig.network.backends) {
            rig.put(&object);
        }
        rig.start_daemon();
        rig
    }

    /// Runs a subcommand of the program on the node to its end; `--manifests` is added where `command` wants it.
    pub fn ipvsd(&self, command: &str) -> Output {
        let mut process = Command::new(IPVSD);
        process.arg(command);
        if command == "diff" {
            process.arg("--manifests").arg(self.directory.manifests()).args(&self.flags);
        }
        self.on_node(|| process.output()).unwrap()
    }

    /// Has another mode balance once the daemon is started again.
    pub fn change_mode(&mut self, mode: Mode) {
        let without = self.flags.len() - self.mode.flags().len();
        self.flags.truncate(without);
        self.flags.extend(mode.flags());
        self.mode = mode;
    }

    /// Gives daemons that are started from now on more flags.
    pub fn add_flags(&mut self, flags: &[&'static str]) {
        self.flags.extend(flags);
    }

    /// What balances.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What the daemon said so far.
    pub fn log(&self) -> String {
        self.daemon.as_ref().map(Daemon::log).unwrap_or_default()
    }

    /// Has daemons that are started from now on program netfilter.
    pub fn with_netfilter(&mut self) {
        let own = self.directory.beside("own.yaml");
        std::fs::write(&own, "netfilter: true\n").unwrap();
        // For the rest of the test program, as flags are.
        self.flags.extend(["--ipvsd-config", Box::leak(own.to_str().unwrap().to_owned().into_boxed_str())]);
    }

    /// Has daemons that are started from now on write one table of netfilter after the other with a pause in between, so
    /// that what packets find then is not over in a moment.
    pub fn with_pauses_between_tables(&mut self) {
        self.with_programs(TABLE_BY_TABLE);
    }

    /// Gives daemons that are started from now on a script in place of each program that writes rules, which knows that one
    /// as `$name`.
    pub fn with_programs(&mut self, script: &str) {
        let programs = self.directory.beside("programs");
        std::fs::create_dir_all(&programs).unwrap();
        let path = std::env::var("PATH").unwrap();
        for name in ["iptables", "ip6tables"] {
            for name in ["", "-nft", "-legacy"].map(|backend| format!("{name}{backend}-restore")) {
                let script = format!("#!/bin/bash\nPATH={path:?} name={name}\n{script}");
                let program = programs.join(name);
                std::fs::write(&program, script).unwrap();
                run("chmod", &["+x", program.to_str().unwrap()]);
            }
        }
        self.path = Some(format!("{}:{path}", programs.to_str().unwrap()));
    }

    pub fn start_daemon(&mut self) {
        let mut command = Command::new(IPVSD);
        command.args(["run", "--manifests"]).arg(self.directory.manifests()).args(&self.flags);
        command.envs(self.path.as_ref().map(|path| ("PATH", path)));
        self.daemon = Some(Daemon::start(&self.network.node, &mut command, &self.directory.beside("log")).unwrap());
    }

    /// Ends the daemon with SIGKILL.
    pub fn crash_daemon(&mut self) {
        self.daemon.take().unwrap().kill().unwrap();
    }

    /// Ends the daemon with SIGTERM, and checks that it ends well.
    pub fn stop_daemon(&mut self) {
        let status = self.daemon.take().unwrap().stop().unwrap();
        assert!(status.success(), "{status}");
    }

    /// Starts a daemon that is killed at its `send`-th send of netlink messages.
    pub fn start_daemon_killed_at(&self, send: u32) {
        let inject = format!("inject=sendto:signal=KILL:when={send}");
        let mut command = Command::new("strace");
        command.args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=sendto",
            "-e",
            &inject,
            IPVSD,
            "run",
            "--manifests",
        ]);
        command.arg(self.directory.manifests()).args(&self.flags);
        let output = self.on_node(|| command.output()).unwrap();
        assert!(!output.status.success(), "it was not killed: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Writes a manifest of any text.
    pub fn put_text(&self, name: &str, text: &str) {
        self.directory.put(name, text).unwrap();
    }

    /// Writes an object, over its former self.
    pub fn put(&self, object: &Value) {
        let [kind, name] = [&object["kind"], &object["metadata"]["name"]].map(|text| text.as_str().unwrap());
        self.directory.put(&file_of(kind, name), &object.to_string()).unwrap();
    }

    /// Removes an object.
    pub fn remove(&self, kind: &str, name: &str) {
        std::fs::remove_file(self.directory.manifests().join(file_of(kind, name))).unwrap();
    }

    /// Writes the slices of a Service, with these backends as its endpoints.
    pub fn put_slices<'a>(&self, service: &str, hosts: impl IntoIterator<Item = &'a Host>) {
        for slice in slices(service, hosts) {
            self.put(&slice);
        }
    }

    pub fn in_client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.network.client.namespace.run(|| Ok(work())).unwrap()
    }

    pub fn on_node<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.network.node.run(|| Ok(work())).unwrap()
    }

    pub fn send(&self, request: Request) -> io::Result<Answer> {
        self.in_client(|| request.send())
    }

    /// A long connection to a VIP, and the number of the backend it goes to.
    pub fn converse(&self, vip: &str) -> (Mutex<Conversation>, usize) {
        let target = SocketAddr::from((vip.parse::<IpAddr>().unwrap(), 90));
        let mut conversation = self.in_client(|| Conversation::start(target)).unwrap();
        let name = conversation.say("hello").unwrap();
        let index = self.network.backends.iter().position(|host| host.name == name).unwrap();
        (Mutex::new(conversation), index)
    }

    /// The backend of a long connection answers on it.
    pub fn still_there(&self, (conversation, index): &(Mutex<Conversation>, usize)) {
        assert_eq!(conversation.lock().unwrap().say("still here").unwrap(), self.network.backends[*index].name);
    }

    /// How many of `count` requests each backend answered.
    pub fn spread(&self, request: Request, count: usize) -> [usize; 3] {
        let send = || (0..count).map(|_| request.send()).collect::<io::Result<Vec<_>>>();
        let answers = self.in_client(send).unwrap_or_else(|error| self.fail(&format!("{request:?}: {error}")));
        ["backend-1", "backend-2", "backend-3"].map(|name| answers.iter().filter(|answer| answer.name == name).count())
    }

    /// Waits until each of these is answered.
    pub fn wait_for(&mut self, requests: &[Request]) {
        for request in requests {
            self.wait_until(&format!("{request:?} is answered"), |rig| rig.send(*request).is_ok());
        }
    }

    pub fn wait_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let came = wait_for(PATIENCE, || {
            self.daemon.as_mut().unwrap().check()?;
            Ok(is_so(self).then_some(()))
        });
        came.unwrap().unwrap_or_else(|| self.fail(&format!("waited in vain until {what}")));
    }

    /// What balances: IPVS's table, or IPv4 rules.
    pub fn rules(&self) -> String {
        self.on_node(|| if self.mode == Mode::Ipvs { run("ipvsadm", &["-S", "-n"]) } else { self.mode.rules() })
    }

    fn fail(&self, why: &str) -> ! {
        panic!("{why}\nThe kernel has:\n{}The daemon said:\n{}", self.rules(), self.log());
    }
}

fn file_of(kind: &str, name: &str) -> String {
    format!("{kind}-{name}.json")
}

/// A Service with what `spec` adds to the usual ports; without addresses of its own it has [`VIPS`].
pub fn service(name: &str, spec: Value) -> Value {
    let mut whole = json!({
        "clusterIP": VIPS[0],
        "clusterIPs": VIPS,
        "ports": [
            { "name": "http", "port": 80, "protocol": "TCP" },
            { "name": "udp", "port": 80, "protocol": "UDP" },
            { "name": "sctp", "port": 80, "protocol": "SCTP" },
            { "name": "lines", "port": 90, "protocol": "TCP" },
        ],
    });
    for (field, value) in spec.as_object().unwrap() {
        whole[field] = value.clone();
    }
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": whole })
}

/// `object` with annotations.
pub fn annotated(mut object: Value, annotations: Value) -> Value {
    object["metadata"]["annotations"] = annotations;
    object
}

/// The slices of both families with ready endpoints.
pub fn slices<'a>(service: &str, hosts: impl IntoIterator<Item = &'a Host>) -> Vec<Value> {
    let hosts: Vec<_> = hosts.into_iter().collect();
    let ipv4 = hosts.iter().map(|host| json!({ "addresses": [host.addresses.ipv4] })).collect();
    let ipv6 = hosts.iter().map(|host| json!({ "addresses": [host.addresses.ipv6] })).collect();
    vec![slice(service, "IPv4", ipv4), slice(service, "IPv6", ipv6)]
}

pub fn slice(service: &str, family: &str, endpoints: Vec<Value>) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-{}", family.to_lowercase()),
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": family,
        "ports": [
            { "name": "http", "port": 8080, "protocol": "TCP" },
            { "name": "udp", "port": 8080, "protocol": "UDP" },
            { "name": "sctp", "port": 8080, "protocol": "SCTP" },
            { "name": "lines", "port": 9090, "protocol": "TCP" },
        ],
        "endpoints": endpoints,
    })
}

/// Requests to port 80 of these addresses by all protocols.
pub fn requests(addresses: &[&str]) -> Vec<Request> {
    let protocols = PROTOCOLS.into_iter().filter(|protocol| *protocol != Protocol::Sctp || has_sctp());
    let protocols: Vec<_> = protocols.collect();
    addresses.iter().flat_map(|address| protocols.iter().map(|protocol| request(*protocol, address, 80))).collect()
}

pub fn request(protocol: Protocol, address: &str, port: u16) -> Request {
    let address: IpAddr = address.parse().unwrap();
    Request::new(protocol, SocketAddr::from((address, port)))
}

/// Does `work` while conversations go on and new connections are made, none of which may fail.
pub fn while_answering(rig: &mut Rig, conversations: &[Mutex<Conversation>], work: impl FnOnce(&mut Rig)) {
    let client = rig.in_client(|| Namespace::here().unwrap());
    let talk = || {
        for request in requests(&VIPS) {
            request.send().unwrap_or_else(|error| panic!("{request:?}: {error}"));
        }
        for (number, conversation) in conversations.iter().enumerate() {
            let said = conversation.lock().unwrap().say("meanwhile");
            said.unwrap_or_else(|error| panic!("conversation {number}: {error}"));
        }
    };
    let rounds = repeat_while(&client, talk, || work(rig));
    println!("    {rounds} rounds of requests meanwhile");
}
