//! Two daemons in one network namespace with different inputs: the whole program, in the mode iptables. One works at a
//! time, and nobody else keeps it from working.

use crate::lab::{run, trial};
use crate::objects::{service, slice};
use crate::program::{IPVSD, PATIENCE};
use ipvsd::demo::daemon::Daemon;
use ipvsd::demo::namespace::Namespace;
use ipvsd::demo::wait::wait_for;
use ipvsd::server::INSPECTION_NAME;
use libtest_mimic::Trial;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::{Builder, TempDir};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("two_daemons::the_second_waits_and_takes_over_when_the_first_is_killed", the_second_waits),
        trial("two_daemons::of_many_that_start_at_the_same_moment_one_works", at_the_same_moment),
        trial("two_daemons::one_pass_beside_a_daemon_is_refused", one_pass_is_refused),
        trial("two_daemons::who_takes_the_name_keeps_nobody_from_working", who_takes_the_name),
        trial("two_daemons::a_changed_configuration_does_not_wait_for_itself", starts_anew_in_place),
    ]
}

const FOUND: &str = "another ipvsd runs in this network namespace (process ";
/// Several sync periods of the daemons here, and looks of one that waits.
const WHILE: Duration = Duration::from_secs(3);

/// An input with one Service, whose endpoint is numbered.
struct Input {
    directory: TempDir,
    number: u8,
}

impl Input {
    fn new(number: u8) -> Self {
        // Another user reads it as well.
        let directory = Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
        let input = Self { directory, number };
        fs::create_dir(input.manifests()).unwrap();
        for object in [service("web", number.into()), slice("web", &[number])] {
            let file = format!("{}.json", object["kind"].as_str().unwrap());
            fs::write(input.manifests().join(file), object.to_string()).unwrap();
        }
        fs::write(input.configuration(), "").unwrap();
        input
    }

    fn manifests(&self) -> PathBuf {
        self.directory.path().join("manifests")
    }

    /// ipvsd's own.
    fn configuration(&self) -> PathBuf {
        self.directory.path().join("own.yaml")
    }

    fn command(&self, launcher: &[&str]) -> Command {
        let words = [launcher, &[IPVSD, "run", "--proxy-mode", "iptables", "--iptables-sync-period", "1s"]].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("--manifests").arg(self.manifests());
        command.arg("--ipvsd-config").arg(self.configuration());
        command
    }

    fn start_with(&self, command: &mut Command) -> Daemon {
        Daemon::start(&Namespace::here().unwrap(), command, &self.directory.path().join("log")).unwrap()
    }

    fn start(&self) -> Daemon {
        self.start_with(&mut self.command(&[]))
    }

    fn is_programmed(&self) -> bool {
        run("iptables-save", &["-t", "nat"]).contains(&format!("--to-destination 10.1.0.{}:8080", self.number))
    }

    fn wait_for_rules(&self, daemon: &mut Daemon) {
        until(daemon, "its Service is programmed", |_| self.is_programmed());
    }
}

fn until(daemon: &mut Daemon, what: &str, is_so: impl Fn(&Daemon) -> bool) {
    let came = wait_for(PATIENCE, || {
        daemon.check()?;
        Ok(is_so(daemon).then_some(()))
    });
    assert!(came.unwrap().is_some(), "waited in vain until {what}; it said:\n{}", daemon.log());
}

fn says(daemon: &Daemon, text: &str) -> bool {
    daemon.log().contains(text)
}

/// That for some time nothing of one input goes and nothing of the other comes.
fn only(there: &Input, absent: &Input) {
    let end = Instant::now() + WHILE;
    while Instant::now() < end {
        assert!(there.is_programmed() && !absent.is_programmed());
    }
}

fn the_second_waits() {
    let [old, new] = [1, 2].map(Input::new);
    let mut first = old.start();
    old.wait_for_rules(&mut first);
    let manager = UnixDatagram::bind(new.directory.path().join("notify")).unwrap();
    manager.set_nonblocking(true).unwrap();
    let mut command = new.command(&[]);
    command.env("NOTIFY_SOCKET", new.directory.path().join("notify"));
    let mut second = new.start_with(command.args(["--healthz-bind-address", "127.0.0.1:10999"]));
    until(&mut second, "it finds the first", |second| says(second, FOUND));
    let log = second.log();
    let (number, rest) = log.split_once(FOUND).unwrap().1.split_once(')').unwrap();
    assert!(rest.starts_with(": nothing is done here until it ends, and then this one takes over\n"), "{log}");
    let words = fs::read_to_string(format!("/proc/{number}/cmdline")).unwrap();
    assert!(words.contains(old.manifests().to_str().unwrap()), "{number} is not the first: {words}");

    only(&old, &new);
    assert_eq!(second.log(), log, "it says it once");
    assert!(log.contains(" ERROR ") && !says(&first, "ipvsd runs"), "{log}{}", first.log());
    let is_healthy = || TcpStream::connect("127.0.0.1:10999").is_ok();
    let mut message = [0; 512];
    let mut hear =
        || manager.recv(&mut message).ok().map(|length| String::from_utf8_lossy(&message[..length]).into_owned());
    assert_eq!(hear().unwrap(), format!("STATUS=waits: {FOUND}{number})\n"));
    let told: Vec<_> = std::iter::from_fn(hear).collect();
    let goes_on_waiting = |message: &String| message == "EXTEND_TIMEOUT_USEC=90000000\n";
    assert!(told.len() > 1 && told.iter().all(goes_on_waiting), "it is not ready: {told:?}");
    assert!(!is_healthy());

    // A third one ends as it is told to, while it waits.
    let mut third = new.start_with(&mut new.command(&[]));
    until(&mut third, "it finds the first", |third| third.log().matches(FOUND).count() == 2);
    let begun = Instant::now();
    assert!(third.stop().unwrap().success());
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    only(&old, &new);

    let begun = Instant::now();
    first.kill().unwrap();
    new.wait_for_rules(&mut second);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    until(&mut second, "it is ready and healthy", |_| is_healthy() && manager.recv(&mut [0; 512]).is_ok());
    only(&new, &old);
}

fn at_the_same_moment() {
    let inputs = [1, 2, 3, 4].map(Input::new);
    let mut daemons = inputs.each_ref().map(Input::start);
    let waiting = |daemons: &[Daemon]| daemons.iter().filter(|daemon| says(daemon, FOUND)).count();
    assert!(wait_for(PATIENCE, || Ok((waiting(&daemons) == 3).then_some(()))).unwrap().is_some());
    let works = daemons.iter().position(|daemon| !says(daemon, FOUND)).unwrap();
    inputs[works].wait_for_rules(&mut daemons[works]);
    only(&inputs[works], &inputs[(works + 1) % 4]);
    for (number, daemon) in daemons.iter_mut().enumerate() {
        daemon.check().unwrap();
        assert!(number == works || !says(daemon, "programmed"), "{}", daemon.log());
    }
}

fn one_pass_is_refused() {
    let [old, new] = [1, 2].map(Input::new);
    let mut first = old.start();
    old.wait_for_rules(&mut first);
    // A daemon of root's answers nobody else, but a daemon it is.
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    for launcher in [&[][..], &nobody] {
        let output = new.command(launcher).arg("--once").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("ipvsd: nothing was changed: {FOUND}")), "{said}");
    }
    only(&old, &new);
    first.kill().unwrap();
    let output = new.command(&[]).arg("--once").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(new.is_programmed() && !old.is_programmed());
}

fn who_takes_the_name() {
    let script = r#"socket(S, AF_UNIX, SOCK_STREAM, 0); bind(S, pack("Sa*", AF_UNIX, "\0NAME")) or die; listen(S, 5);
        $| = 1; print "ready\n"; sleep 600;"#;
    let script = script.replace("NAME", INSPECTION_NAME);
    let mut process = Command::new("setpriv");
    process.args(["--reuid=65534", "--regid=65534", "--clear-groups", "perl", "-MSocket", "-e", &script]);
    let mut stranger = process.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(stranger.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let input = Input::new(1);
    let mut daemon = input.start();
    input.wait_for_rules(&mut daemon);
    let why = "explain and diff find no answer here: a process of user 65534 has the socket's name";
    assert!(says(&daemon, why), "{}", daemon.log());
    stranger.kill().and_then(|()| stranger.wait()).unwrap();
    until(&mut daemon, "it has the name", |daemon| says(daemon, "explain and diff are answered from now on"));
}

fn starts_anew_in_place() {
    let [old, new] = [1, 2].map(Input::new);
    let mut daemon = old.start();
    old.wait_for_rules(&mut daemon);
    fs::write(old.configuration(), "serviceMetrics: services\n").unwrap();
    until(&mut daemon, "it starts anew", |daemon| says(daemon, "the configuration changed"));
    let started = |daemon: &Daemon| daemon.log().matches("mode iptables, as asked").count() == 2;
    until(&mut daemon, "it has started anew", started);
    assert!(!says(&daemon, "another") && !says(&daemon, "no answer"), "{}", daemon.log());
    only(&old, &new);
}
