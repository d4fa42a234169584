//! `ipvsd top` on a kernel: as lines, and on a terminal.

use crate::lab::{run, trial};
use crate::program::{IPVSD, ipvsd, stdout};
use libtest_mimic::Trial;
use std::io::Write;
use std::process::{Command, Stdio};

/// This subject's tests.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("top::lines_say_what_ipvsadm_says", lines),
        trial("top::a_terminal_shows_it_until_q_and_is_left_as_it_was", terminal),
        trial("top::a_signal_ends_it_and_leaves_the_terminal_as_it_was", signal),
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
    assert_eq!(lines[0].join(" "), "2 virtual servers, 2 draining or refusing, by name");
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
    for wanted in ["10.96.0.1:80", "10.1.0.2:8080", "weight 0", INTO_THE_OTHER_SCREEN, OUT_OF_IT] {
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

fn no_terminal() {
    let output = ipvsd(&["top"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--batch"));
}
