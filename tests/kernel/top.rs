//! `ipvsd top` on a kernel: as lines, and on a terminal.

use crate::lab::{run, trial};
use crate::program::{Daemon, IPVSD, ipvsd, stdout};
use ipvsd::server::INSPECTION_NAME;
use libtest_mimic::Trial;
use nix::poll::{PollFd, PollFlags, poll};
use nix::pty::{Winsize, openpty};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("top::lines_say_what_ipvsadm_says", lines),
        trial("top::a_terminal_shows_it_until_q_and_is_left_as_it_was", terminal),
        trial("top::a_signal_ends_it_and_leaves_the_terminal_as_it_was", signal),
        trial("top::it_ends_when_its_terminal_goes_whether_or_not_it_hears_of_it", gone),
        trial("top::a_quiet_table_costs_a_slow_line_next_to_nothing", slow_line),
        trial("top::keys_are_answered_over_a_slow_line_while_everything_changes", slow_line_with_traffic),
        trial("top::services_have_names_and_trouble_is_marked", named),
        trial("top::a_daemon_that_is_busy_is_not_waited_for", busy),
        trial("top::what_is_no_terminal_is_told_of_batch", no_terminal),
    ]
}

fn populate() {
    run("ipvsadm", &["-A", "-t", "10.96.0.1:80", "-s", "rr"]);
    run("ipvsadm", &["-a", "-t", "10.96.0.1:80", "-r", "10.1.0.1:8080", "-m"]);
    run("ipvsadm", &["-a", "-t", "10.96.0.1:80", "-r", "10.1.0.2:8080", "-m", "-w", "0"]);
    run("ipvsadm", &["-A", "-u", "[fd00::1]:53", "-s", "wrr"]);
}

fn lines() {
    populate();
    let shown = stdout(&ipvsd(&["top", "--batch", "--sort", "name"]), 0);
    let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0].join(" "), "2 virtual servers, 2 draining, refusing or in error, by name");
    assert_eq!(lines[2], ["tcp", "10.96.0.1:80", "rr", "2", "0", "0", "0", "0", "0", "draining"]);
    assert_eq!(lines[3], ["udp", "[fd00::1]:53", "wrr", "0", "0", "0", "0", "0", "0", "refusing"]);
    let thrice = stdout(&ipvsd(&["top", "-b", "-n", "3", "-d", "0.1", "--filter", "fd00"]), 0);
    assert_eq!(thrice.matches("[fd00::1]:53").count(), 3, "{thrice}");
}

/// What a terminal of 120 columns gets when these keys are pressed, one after the other, in `ipvsd top`.
fn on_a_terminal(keys: &[&str], command: &str) -> String {
    let mut script = Command::new("script")
        .args(["--quiet", "--return", "--command", &format!("stty cols 120 rows 20; {command}"), "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .env("TERM", "xterm")
        .spawn()
        .unwrap();
    let mut input = script.stdin.take().unwrap();
    for key in keys {
        input.write_all(key.as_bytes()).unwrap();
    }
    let output = script.wait_with_output().unwrap();
    drop(input);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{shown}");
    shown
}

const INTO_THE_OTHER_SCREEN: &str = "\u{1b}[?1049h";
/// The key with the arrow to the right. (A terminal makes another key of Enter until the program takes it over.)
const RIGHT: &str = "\u{1b}[C";
const OUT_OF_IT: &str = "\u{1b}[?1049l";

fn terminal() {
    populate();
    let shown = on_a_terminal(&[RIGHT, "q"], &format!("{IPVSD} top --sort name; stty -a"));
    for wanted in ["10.96.0.1:80", "10.1.0.2:8080", "WEIGHT", INTO_THE_OTHER_SCREEN, OUT_OF_IT] {
        assert!(shown.contains(wanted), "{wanted:?} in {shown:?}");
    }
    let settings = shown.rsplit(OUT_OF_IT).next().unwrap();
    assert!(settings.contains(" icanon") && settings.contains(" echo "), "{settings}");
}

fn signal() {
    populate();
    let shown = on_a_terminal(&[], &format!("timeout --foreground 1 {IPVSD} top; stty -a"));
    let settings = shown.rsplit(OUT_OF_IT).next().unwrap();
    assert!(settings.contains(" icanon") && settings.contains(" echo "), "{shown:?}");
}

/// `ipvsd top` on a terminal of its own, of which this is the other end.
fn top_on(launcher: &str, arguments: &str) -> (Child, File) {
    let size = Winsize { ws_row: ROWS, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    // Copies, as these are not closed in the programs that others start.
    let [master, slave] = {
        let terminal = openpty(Some(&size), None).unwrap();
        [&terminal.master, &terminal.slave].map(|end| end.try_clone().unwrap())
    };
    let stdio = || slave.try_clone().unwrap();
    let top = Command::new("setsid")
        .args(["--ctty", "bash", "-c", &format!("{launcher}exec {IPVSD} top {arguments}")])
        .env("TERM", "xterm")
        .stdin(stdio())
        .stdout(stdio())
        .stderr(stdio())
        .spawn()
        .unwrap();
    (top, File::from(master))
}

const ROWS: u16 = 20;

/// As when somebody closes the window, or the line breaks. What ignores SIGHUP, as the first process of a container does,
/// notices it by itself.
fn gone() {
    populate();
    for launcher in ["", "trap '' HUP; "] {
        let ((mut top, mut screen), mut shown) = (top_on(launcher, ""), String::new());
        while !shown.contains("10.96.0.1:80") {
            let mut bytes = [0; 4096];
            let count = screen.read(&mut bytes).unwrap();
            shown += &String::from_utf8_lossy(&bytes[..count]);
        }
        drop(screen);
        let end = Instant::now() + Duration::from_secs(10);
        while top.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "{launcher}: it goes on without a terminal, {}", top.kill().is_ok());
            sleep(Duration::from_millis(20));
        }
    }
}

/// What a person sees behind a line of 8 kB/s on which keys take 300 ms.
struct SlowLine {
    terminal: File,
    /// All that came.
    shown: Vec<u8>,
}

impl SlowLine {
    const TENTH: Duration = Duration::from_millis(100);
    /// So much comes in a tenth of a second.
    const PIECE: usize = 800;

    fn press(&mut self, keys: &str) {
        for _ in 0..3 {
            self.wait();
        }
        self.terminal.write_all(keys.as_bytes()).unwrap();
    }

    /// A tenth of a second; whether something came.
    fn wait(&mut self) -> bool {
        let begun = Instant::now();
        let mut bytes = [0; Self::PIECE];
        let mut terminal = [PollFd::new(self.terminal.as_fd(), PollFlags::POLLIN)];
        let count = match poll(&mut terminal, 100_u16).unwrap() {
            0 => 0,
            // An error is the end of the program.
            _ => (&self.terminal).read(&mut bytes).unwrap_or_default(),
        };
        self.shown.extend_from_slice(&bytes[..count]);
        sleep(Self::TENTH.saturating_sub(begun.elapsed()));
        count > 0
    }

    /// How many bytes come until the screen is as wanted.
    fn bytes_until(&mut self, wanted: impl Fn(&[String]) -> bool) -> usize {
        let (before, end) = (self.shown.len(), Instant::now() + Duration::from_secs(120));
        while !wanted(&self.screen()) {
            assert!(Instant::now() < end, "not answered:\n{}", self.screen().join("\n"));
            self.wait();
        }
        self.shown.len() - before
    }

    /// The lines of the terminal: what was written where. Colours and modes are passed over.
    fn screen(&self) -> Vec<String> {
        let (mut lines, mut at) = (vec![vec![' '; 120]; ROWS.into()], (0, 0));
        let text = String::from_utf8_lossy(&self.shown);
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            if letter != '\u{1b}' {
                lines
                    .get_mut(at.0)
                    .and_then(|line: &mut Vec<char>| line.get_mut(at.1))
                    .into_iter()
                    .for_each(|c| *c = letter);
                at.1 += 1;
                continue;
            }
            // All sequences here are `ESC [ numbers letter`, and of them `H` alone moves.
            let sequence: String = letters.by_ref().skip(1).take_while(|c| !c.is_ascii_alphabetic()).collect();
            let end = text.len() - letters.as_str().len();
            if text.as_bytes()[end - 1] == b'H' {
                let mut numbers = sequence.split(';').map(|number| number.parse().unwrap_or(1) - 1);
                at = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
            }
        }
        lines.into_iter().map(String::from_iter).collect()
    }
}

/// What is measured is bytes: those that a key waits for are those that were on their way, so they tell of a backlog.
fn slow_line_with_traffic() {
    for address in ["10.96.1.1/24", "10.1.0.1"] {
        run("ip", &["addr", "add", address, "dev", "lo"]);
    }
    for number in 1..=200 {
        let address = format!("10.96.1.{number}:53");
        run("ipvsadm", &["-A", "-u", &address, "-s", "rr"]);
        run("ipvsadm", &["-a", "-u", &address, "-r", "10.1.0.1:53", "-m"]);
    }
    let (done, is_done) = mpsc::channel::<()>();
    // Each packet is a connection to IPVS: what is busiest changes with every look.
    let clients = thread::spawn(move || {
        let mut number = 0_u8;
        while is_done.recv_timeout(Duration::from_millis(5)) == Err(mpsc::RecvTimeoutError::Timeout) {
            number = number.wrapping_mul(5).wrapping_add(73);
            UdpSocket::bind("0.0.0.0:0")
                .unwrap()
                .send_to(b"?", (Ipv4Addr::from([10, 96, 1, number % 200 + 1]), 53))
                .unwrap();
        }
    });
    const SCREEN: usize = 120 * ROWS as usize;
    let (mut top, terminal) = top_on("", "--interval 1");
    let mut line = SlowLine { terminal, shown: Vec::new() };
    let counts = |screen: &[String], text: &str| screen.iter().filter(|line| line.contains(text)).count();
    line.bytes_until(|screen| counts(screen, "10.96.1.") > 10);
    // Some looks later, so that what is too much for the line has come together.
    for _ in 0..80 {
        line.wait();
    }
    let mut waited = vec![line.shown.len() / 9];
    line.press("/1.177");
    waited.push(line.bytes_until(|screen| counts(screen, "filter: 1.177_") == 1 && counts(screen, "10.96.1.") == 1));
    line.press("\u{1b}");
    waited.push(line.bytes_until(|screen| counts(screen, "10.96.1.") > 10));
    line.press("a\u{1b}[C");
    waited.push(line.bytes_until(|screen| counts(screen, "10.1.0.1:53") == 1 && counts(screen, "WEIGHT") == 1));
    line.press("q");
    let before = line.shown.len();
    while line.wait() || top.try_wait().unwrap().is_none() {}
    waited.push(line.shown.len() - before);
    assert!(String::from_utf8_lossy(&line.shown).contains(OUT_OF_IT) && top.wait().unwrap().success());
    drop(done);
    clients.join().unwrap();
    assert!(waited[0] < SCREEN, "{waited:?}: of a look there is only what changed");
    assert!(waited.iter().all(|bytes| *bytes < 3 * SCREEN), "{waited:?} bytes, where a screen is {SCREEN}");
}

fn slow_line() {
    populate();
    let sent = |looks: &str| on_a_terminal(&[], &format!("{IPVSD} top -d 0.1 -n {looks}")).len();
    let (once, often) = (sent("1"), sent("21"));
    assert!(once < 4_000 && often < once + 20 * 50, "{once} bytes for a screen, {often} with 20 more looks");
}

/// A Service that is served, and one that wants the same address besides its own.
const MANIFESTS: &str = "\
{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: old}, spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: sold},
 spec: {clusterIP: 10.96.0.2, externalIPs: [10.96.0.1], ports: [{port: 80}]}}
";

fn named() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("shop.yaml"), MANIFESTS).unwrap();
    let mut daemon = Daemon::start(IPVSD, &["run", "--manifests", directory.path().to_str().unwrap()]);
    daemon.wait_for("programmed");
    let shown = stdout(&ipvsd(&["top", "--batch", "--sort", "name"]), 0);
    let lines: Vec<Vec<&str>> = shown.lines().skip(2).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!([lines[0][0], lines[0][2], lines[0][10]], ["shop/old", "10.96.0.1:80", "refusing"]);
    assert_eq!([lines[1][0], lines[1][2], lines[1][10]], ["shop/sold", "10.96.0.2:80", "error"]);
}

/// Something that has the daemon's name and never answers.
fn busy() {
    populate();
    let name = SocketAddr::from_abstract_name(INSPECTION_NAME).unwrap();
    let _silent = UnixListener::bind_addr(&name).unwrap();
    let begun = Instant::now();
    let shown = on_a_terminal(&["q"], &format!("{IPVSD} top"));
    assert!(shown.contains("10.96.0.1:80"), "{shown:?}");
    stdout(&ipvsd(&["top", "--batch"]), 0);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

fn no_terminal() {
    let output = ipvsd(&["top"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--batch"));
}
