//! ipvsadm and `ipvsd list` side by side, compared to the byte though counters and clocks go on meanwhile.

use crate::lab::run;
use crate::program::{PATIENCE, ipvsd, stdout};
use ipvsd::demo::wait::wait_for;
use std::io::Write;
use std::process::{Command, Stdio};

/// The options, one by one.
pub fn words(options: &str) -> Vec<&str> {
    options.split_ascii_whitespace().collect()
}

/// What ipvsadm prints.
pub fn ipvsadm(options: &str) -> String {
    run("ipvsadm", &words(options))
}

/// What `ipvsd list` prints.
pub fn list(options: &str) -> String {
    stdout(&ipvsd(&[&["list"], &words(options)[..]].concat()), 0)
}

/// Gives the table to `ipvsadm -R`, line by line: it says nothing of lines that it does not understand.
pub fn restore(rules: &str) {
    let mut ipvsadm = Command::new("ipvsadm").arg("-R").stdin(Stdio::piped()).spawn().expect("it is there");
    ipvsadm.stdin.take().expect("a pipe").write_all(rules.as_bytes()).expect("it reads");
    assert!(ipvsadm.wait().expect("it runs").success(), "{rules}");
}

/// The same bytes. Counters go on, so ipvsadm has to have said the same before and after. So do the clocks of
/// connections, each of which ticks in its own time: they have to be between ipvsadm's.
pub fn assert_same(options: &str) -> String {
    let same = wait_for(PATIENCE, || {
        let (before, ours, after) = (ipvsadm(options), list(options), ipvsadm(options));
        let ((rest, early), (rest_after, late)) = (without_clocks(&before), without_clocks(&after));
        Ok((rest == rest_after && no_later(&late, &early)).then_some((rest, ours, early, late)))
    });
    let (theirs, ours, early, late) = same.expect("nothing fails").expect("a moment of rest");
    let (rest, clocks) = without_clocks(&ours);
    assert_eq!(rest, theirs, "{options}");
    assert!(no_later(&late, &clocks) && no_later(&clocks, &early), "{options}: {late:?}, {clocks:?}, {early:?}");
    ours
}

/// Whether each of these clocks, which count down, shows no more than the other.
fn no_later(clocks: &[String], others: &[String]) -> bool {
    clocks.iter().zip(others).all(|(clock, other)| clock <= other)
}

/// A listing with a sign in the place of each connection's clock, and what they show.
fn without_clocks(text: &str) -> (String, Vec<String>) {
    let mut clocks = Vec::new();
    let mut rest = String::new();
    for word in text.split_inclusive([' ', '\n']) {
        let is_digit = |at: usize| word.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
        let is_clock = word.len() == 6 && word.as_bytes()[2] == b':' && [0, 1, 3, 4].into_iter().all(is_digit);
        if is_clock {
            clocks.push(word.trim_end().to_owned());
        }
        rest += if is_clock { "mm:ss " } else { word };
    }
    (rest, clocks)
}
