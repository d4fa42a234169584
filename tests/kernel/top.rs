//! `ipvsd top` on a kernel: as lines, and on a terminal.

use crate::lab::{run, trial};
use crate::program::{Daemon, IPVSD, ipvsd, stdout};
use ipvsd::server::INSPECTION_NAME;
use libtest_mimic::Trial;
use nix::pty::{Winsize, openpty};
use std::fs::File;
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("top::lines_say_what_ipvsadm_says", lines),
        trial("top::a_terminal_shows_it_until_q_and_is_left_as_it_was", terminal),
        trial("top::a_signal_ends_it_and_leaves_the_terminal_as_it_was", signal),
        trial("top::it_ends_when_its_terminal_goes_whether_or_not_it_hears_of_it", gone),
        trial("top::a_quiet_table_costs_a_slow_line_next_to_nothing", slow_line),
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

/// As when somebody closes the window, or the line breaks. What ignores SIGHUP, as the first process of a container does,
/// notices it by itself.
fn gone() {
    populate();
    let size = Winsize { ws_row: 20, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    for launcher in ["", "trap '' HUP; "] {
        // Copies, as these are not closed in the programs that others start.
        let [master, slave] = {
            let terminal = openpty(Some(&size), None).unwrap();
            [&terminal.master, &terminal.slave].map(|end| end.try_clone().unwrap())
        };
        let stdio = || slave.try_clone().unwrap();
        let script = format!("{launcher}exec {IPVSD} top");
        let mut top = Command::new("setsid")
            .args(["--ctty", "bash", "-c", &script])
            .env("TERM", "xterm")
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap();
        let (mut screen, mut shown) = (File::from(master), String::new());
        drop(slave);
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
