//! What the demo does, step by step, and what it prints.

use super::backend::{Backend, Port};
use super::client::{Answer, Request};
use super::daemon::Daemon;
use super::interrupt::Interrupt;
use super::manifests::{DemoService, Directory, HTTP_PORT, HTTP_TARGET, UDP_PORT, UDP_TARGET};
use super::network::{Addresses, Host, Network};
use super::wait::wait_for;
use crate::model::Protocol;
use anyhow::{Context, Result, bail};
use std::env;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

const BACKENDS: u8 = 3;
/// Requests per line of the table: whole rounds of three backends, of two, and of six weights.
const REQUESTS: usize = 12;
/// From a change of the manifests to its effect.
const PATIENCE: Duration = Duration::from_secs(15);

const WEB: DemoService<'_> = DemoService {
    name: "web",
    ipv4: Ipv4Addr::new(10, 96, 0, 10),
    ipv6: Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x10),
    weights: None,
};
const WEIGHTED: DemoService<'_> = DemoService {
    name: "weighted",
    ipv4: Ipv4Addr::new(10, 96, 0, 20),
    ipv6: Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x20),
    weights: Some(&[3, 2, 1]),
};

/// Everything that runs. Dropped from top to bottom: the daemon goes before its manifests and its network.
struct Demo {
    daemon: Daemon,
    directory: Directory,
    _backends: Vec<Backend>,
    network: Network,
    interrupt: Interrupt,
}

/// One line of a table: a frontend, and how many of [`REQUESTS`] each backend should answer.
#[derive(Clone, Debug)]
struct Expectation {
    label: String,
    request: Request,
    counts: Vec<usize>,
}

/// Runs the demo from end to end. Returns whether every backend answered as it should.
///
/// # Errors
/// If a step cannot be done.
pub fn show() -> Result<bool> {
    let mut out = io::stdout().lock();
    let mut demo = Demo::start(&mut out)?;
    let everyone = [expectations(WEB, &[4, 4, 4]), expectations(WEIGHTED, &[6, 4, 2])].concat();
    demo.wait_for_answers(&everyone)?;
    demo.quote(&mut out, &everyone)?;
    writeln!(out, "\n{REQUESTS} requests to each frontend, each on a new connection:\n")?;
    let mut good = demo.table(&mut out, &everyone)?;
    demo.list(&mut out)?;
    writeln!(out, "\nNow backend-{BACKENDS} is taken out of web.yaml:\n")?;
    let remaining = demo.remove_last_backend()?;
    good &= demo.table(&mut out, &remaining)?;
    let status = demo.daemon.stop()?;
    let verdict =
        if good { "Every backend answered as it should." } else { "NOT every backend answered as it should." };
    writeln!(out, "\n{verdict} The daemon ended with {status}; manifests and namespaces go with this program.")?;
    Ok(good && status.success())
}

impl Demo {
    fn start(out: &mut impl Write) -> Result<Self> {
        let interrupt = Interrupt::watch()?;
        let network = Network::build(BACKENDS)?;
        let ports = [Port::Http(HTTP_TARGET), Port::Udp(UDP_TARGET)];
        let start = |host: &Host| Backend::start(&host.name, &host.namespace, &ports);
        let backends = network.backends.iter().map(start).collect::<Result<_>>()?;
        describe(out, &network)?;

        let directory = Directory::new()?;
        for service in [WEB, WEIGHTED] {
            let text = service.manifest(&network.backends);
            directory.put(&format!("{}.yaml", service.name), &text)?;
        }
        writeln!(out, "\nManifests in {}; web.yaml begins with:\n", directory.manifests().display())?;
        let manifest = WEB.manifest(&network.backends);
        let service_and_first_slice = manifest.splitn(3, "---\n").take(2).collect::<Vec<_>>().join("---\n");
        write!(out, "{}", indented(&service_and_first_slice))?;

        // The machine's own `/run` is none of the demo's.
        let settings = directory.beside("ipvsd.yaml");
        fs::write(&settings, "inspectionSocket: ''\n").context("the demo's settings cannot be written")?;
        let mut command = Command::new(env::current_exe()?);
        command.args(["run", "--manifests"]).arg(directory.manifests()).arg("--ipvsd-config").arg(settings);
        let daemon = Daemon::start(&network.node, &mut command, &directory.beside("ipvsd.log"))?;
        writeln!(out, "\nThe node runs: ipvsd run --manifests {}", directory.manifests().display())?;
        Ok(Self { daemon, directory, _backends: backends, network, interrupt })
    }

    fn wait_for_answers(&mut self, expectations: &[Expectation]) -> Result<()> {
        self.wait_until("the virtual servers answer", |demo| {
            demo.in_client(|| Ok(expectations.iter().all(|expectation| expectation.request.send().is_ok())))
        })
    }

    /// Prints an answer as it is.
    fn quote(&self, out: &mut impl Write, expectations: &[Expectation]) -> Result<()> {
        let first = expectations.first().context("there are frontends")?;
        let Answer { name, source } = self.in_client(|| Ok(first.request.send()?))?;
        writeln!(out, "\n{} answers the client: {name} {source}", first.request.target)?;
        Ok(())
    }

    /// Takes the last backend out of the Service `web` while everything runs.
    fn remove_last_backend(&mut self) -> Result<Vec<Expectation>> {
        let (last, others) = self.network.backends.split_last().context("there are backends")?;
        self.directory.put("web.yaml", &WEB.manifest(others))?;
        let gone = last.name.clone();
        let expectations = expectations(WEB, &[6, 6, 0]);
        let whole_round = usize::from(BACKENDS);
        self.wait_until("the backend gets no more requests", |demo| {
            demo.in_client(|| {
                let spreads = expectations.iter().map(|expectation| expectation.request.spread(whole_round));
                Ok(spreads.flatten().all(|spread| !spread.contains_key(&gone)))
            })
        })?;
        Ok(expectations)
    }

    /// Sends the requests and prints who answered. Returns whether it was as expected.
    fn table(&mut self, out: &mut impl Write, expectations: &[Expectation]) -> Result<bool> {
        let names: Vec<_> = self.network.backends.iter().map(|host| host.name.clone()).collect();
        let heads: String = names.iter().map(|name| format!("{name:>11}")).collect();
        writeln!(out, "  {:<44}{heads}", "")?;
        let mut good = true;
        for expectation in expectations {
            self.interrupt.check()?;
            let spread = self.in_client(|| Ok(expectation.request.spread(REQUESTS)?));
            let spread = spread.with_context(|| format!("no answer from {}", expectation.label))?;
            let counts: Vec<_> = names.iter().map(|name| spread.get(name).copied().unwrap_or(0)).collect();
            let columns: String = counts.iter().map(|count| format!("{count:>11}")).collect();
            let as_expected = counts == expectation.counts;
            let remark = if as_expected { String::new() } else { format!("  EXPECTED {:?}", expectation.counts) };
            writeln!(out, "  {:<44}{columns}{remark}", expectation.label)?;
            good &= as_expected;
        }
        Ok(good)
    }

    /// Prints what `ipvsd list` says on the node.
    fn list(&self, out: &mut impl Write) -> Result<()> {
        let mut command = Command::new(env::current_exe()?);
        let output = self.network.node.run(|| Ok(command.arg("list").output()?))?;
        if !output.status.success() {
            bail!("ipvsd list: {}", String::from_utf8_lossy(&output.stderr).trim_end());
        }
        writeln!(
            out,
            "\nThe node's `ipvsd list`, which counts the requests before these too:\n\n{}",
            indented(&String::from_utf8_lossy(&output.stdout)).trim_end()
        )?;
        Ok(())
    }

    fn in_client<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.network.client.namespace.run(work)
    }

    fn wait_until(&mut self, what: &str, is_so: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let came = wait_for(PATIENCE, || {
            self.interrupt.check()?;
            self.daemon.check()?;
            Ok(is_so(self)?.then_some(()))
        })?;
        came.with_context(|| format!("gave up waiting until {what}; the daemon said:\n{}", self.daemon.log()))
    }
}

/// The frontends of a Service: HTTP and UDP on both addresses.
fn expectations(service: DemoService<'_>, counts: &[usize]) -> Vec<Expectation> {
    let addresses: [IpAddr; 2] = [service.ipv4.into(), service.ipv6.into()];
    let ports = [(Protocol::Tcp, "http", HTTP_PORT), (Protocol::Udp, "udp", UDP_PORT)];
    let frontends = addresses.into_iter().flat_map(|address| ports.map(|port| (address, port)));
    frontends
        .map(|(address, (protocol, scheme, port))| {
            let target = SocketAddr::from((address, port));
            let label = format!("{:<20} {scheme}://{target}", format!("{} ({})", service.name, service.scheduling()));
            Expectation { label, request: Request::new(protocol, target), counts: counts.to_vec() }
        })
        .collect()
}

fn describe(out: &mut impl Write, network: &Network) -> io::Result<()> {
    writeln!(out, "Network namespaces, which only this program has:\n")?;
    let line = |name: &str, addresses: Addresses, through: &str| {
        format!("  {name:<10}{:<12}{:<16}{through}", addresses.ipv4.to_string(), addresses.ipv6.to_string())
    };
    writeln!(out, "{}", line("client", network.client.addresses, "its gateway is the node"))?;
    writeln!(out, "{}", line("node", network.client.gateway, "runs ipvsd and forwards"))?;
    for host in &network.backends {
        writeln!(out, "{}", line(&host.name, host.addresses, "answers HTTP and UDP with its name"))?;
    }
    Ok(())
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
