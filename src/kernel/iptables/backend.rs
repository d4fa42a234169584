//! The programs: which of the two kinds is used, how they are run, and what they say when they fail.

use super::leftovers::{Leftovers, Shared};
use super::saved::Saved;
use crate::kernel::modules;
use crate::kernel::program::{self, ProgramError};
use crate::model::Family;
use std::fs;
use std::io;
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

/// What the programs exit with where it is not their input (`enum xtables_exittype` in xtables.h).
const RESOURCE_PROBLEM: i32 = 4;

/// How many seconds a program waits for the lock of the tables, which others hold for moments only.
const LOCK_SECONDS: &str = "10";

/// After so long a program hangs. With the lock that is many times what the rules of 10,000 Services take.
const LIMIT: Duration = Duration::from_secs(60);

/// Which of the two sets of tables in the kernel is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// That which the programs without a suffix use.
    Usual,
    /// nf_tables.
    Nft,
    /// The tables of before.
    Legacy,
}

/// A program that did not do what it was run for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{program}: {reason}")]
pub struct Failed {
    /// Its name.
    pub program: Arc<str>,
    /// What it said, or why it cannot be run.
    pub reason: Arc<str>,
    /// What was to blame.
    pub blame: Blame,
}

/// What a program failed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// What it was given.
    Input {
        /// The line that it named, counted from 1.
        line: Option<usize>,
    },
    /// Where it ran: others held the lock (`RESOURCE_PROBLEM`, xtables.h), it cannot be run, or it hangs.
    Circumstances,
    /// It is not installed.
    Missing,
}

impl Failed {
    /// The same failure, with the text of the line that it was for in place of its number, which says nothing to people and
    /// differs from one attempt to the next.
    pub fn at(&self, line: &str) -> Self {
        let mut words: Vec<_> = self.reason.split(' ').collect();
        if let Some(at) = line_number(&words) {
            words.remove(at);
        }
        Self { reason: format!("{}: {line}", words.join(" ")).into(), ..self.clone() }
    }
}

/// The rules in each of the two sets of tables that the kernel has in use, without loading what it has not; none where a
/// program is missing or fails.
pub fn in_use(family: Family) -> Vec<(Backend, Option<Saved>)> {
    let legacy = match family {
        Family::Ipv4 => "/proc/thread-self/net/ip_tables_names",
        Family::Ipv6 => "/proc/thread-self/net/ip6_tables_names",
    };
    // It names the tables, and is empty or missing where there are none.
    let has_legacy = fs::read_to_string(legacy).is_ok_and(|names| !names.is_empty());
    let has_nft = modules::is_there("nf_tables");
    let there = [(Backend::Nft, has_nft), (Backend::Legacy, has_legacy)].into_iter().filter(|(_, is_there)| *is_there);
    let mut in_use: Vec<_> = there.map(|(backend, _)| (backend, backend.save(family).ok())).collect();
    // What is part of the kernel is nowhere to be seen; it may be asked for where that cannot load anything.
    if !has_nft && !modules::would_be_inserted("nf_tables") {
        in_use.extend(Backend::Nft.save(family).ok().map(|saved| (Backend::Nft, Some(saved))));
    }
    in_use
}

impl Backend {
    pub(super) fn find() -> Self {
        let saved = [Self::Nft, Self::Legacy].map(|backend| (backend, backend.save(Family::Ipv4)));
        let mut counted: Vec<_> =
            saved.iter().filter_map(|(backend, saved)| Some((weight(saved.as_ref().ok()?), *backend))).collect();
        counted.sort_by_key(|(weight, _)| *weight);
        match counted[..] {
            [(less, _), (more, backend)] if less < more => backend,
            _ if Self::Usual.save(Family::Ipv4).is_ok() => Self::Usual,
            [.., (_, backend)] => backend,
            [] => Self::Usual,
        }
    }

    /// The kind that this one is not; none if the usual programs do not say which they are.
    pub(super) fn other(self) -> Option<Self> {
        match self {
            Self::Nft => Some(Self::Legacy),
            Self::Legacy => Some(Self::Nft),
            Self::Usual => {
                let output = run(&self.program(Family::Ipv4, "save"), &["--version"], "").ok()?;
                let version = String::from_utf8_lossy(&output.stdout);
                let kinds = [("nf_tables", Self::Legacy), ("legacy", Self::Nft)];
                kinds.into_iter().find(|(kind, _)| version.contains(kind)).map(|(_, other)| other)
            }
        }
    }

    pub(super) fn save(self, family: Family) -> Result<Saved, Failed> {
        let output = run(&self.program(family, "save"), &[], "")?;
        Ok(Saved::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    pub(super) fn restore(self, family: Family, input: &str) -> Result<(), Failed> {
        run(&self.program(family, "restore"), &["--noflush", "-w", LOCK_SECONDS], input).map(drop)
    }

    /// Whether the program knows a match with this option, and the kernel too: the program only warns where that has not.
    pub(super) fn has_match(self, name: &str, option: &str) -> bool {
        let input = format!("*filter\n-A INPUT -m {name} {option}\nCOMMIT\n");
        let program = self.program(Family::Ipv4, "restore");
        let tried = run(&program, &["--noflush", "--test", "-w", LOCK_SECONDS], &input);
        tried.is_ok_and(|output| !String::from_utf8_lossy(&output.stderr).contains(name))
    }

    /// Takes away what kube-proxy left.
    pub(super) fn clear(self, family: Family, shared: impl Fn(&Saved) -> Shared) -> Result<(), Failed> {
        let saved = self.save(family)?;
        let found = Leftovers::find(&saved, family, shared(&saved));
        if found.is_empty() { Ok(()) } else { self.restore(family, &found.removal()) }
    }

    fn program(self, family: Family, verb: &str) -> String {
        let name = match family {
            Family::Ipv4 => "iptables",
            Family::Ipv6 => "ip6tables",
        };
        match self {
            Self::Usual => format!("{name}-{verb}"),
            Self::Nft => format!("{name}-nft-{verb}"),
            Self::Legacy => format!("{name}-legacy-{verb}"),
        }
    }
}

/// How much the rules in a back end say for its being the one in use: kubelet's chains, which it makes for this very
/// purpose, more than any number of rules.
fn weight(saved: &Saved) -> (bool, usize) {
    let hints = ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"];
    (hints.iter().any(|hint| saved.has_chain("mangle", hint)), saved.count_rules())
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<Output, Failed> {
    run_within(LIMIT, program, arguments, input)
}

fn run_within(limit: Duration, program: &str, arguments: &[&str], input: &str) -> Result<Output, Failed> {
    let failed = |reason: String, blame| Failed { program: program.into(), reason: reason.trim().into(), blame };
    let output = program::output(program, arguments, input.as_bytes(), limit).map_err(|error| match error {
        ProgramError::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            failed("is not installed".into(), Blame::Missing)
        }
        ProgramError::Io(error) => failed(format!("cannot be run: {error}"), Blame::Circumstances),
        killed => failed(killed.to_string(), Blame::Circumstances),
    })?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // What comes of the first mistake fills the rest.
    let said = said.lines().map(str::trim).filter(|line| !line.is_empty()).take(2).collect::<Vec<_>>().join(" ");
    let blame = match (named_line(&said), output.status.code()) {
        (None, Some(RESOURCE_PROBLEM) | None) => Blame::Circumstances,
        // nf_tables says the same of what the kernel refuses, and then names the line.
        (line, _) => Blame::Input { line },
    };
    Err(failed(format!("{}: {said}", output.status), blame))
}

/// The number of the line that a message is about: `line 5 failed`, `line 5: RULE_APPEND failed`, `Error occurred at line:
/// 5`.
fn named_line(said: &str) -> Option<usize> {
    let words: Vec<_> = said.split_whitespace().collect();
    number(words.get(line_number(&words)?)?)
}

/// Which of these words is the number of a line.
fn line_number(words: &[&str]) -> Option<usize> {
    let at = words.iter().position(|word| ["line", "line:"].contains(word))? + 1;
    words.get(at).and_then(|word| number(word)).map(|_| at)
}

fn number(word: &str) -> Option<usize> {
    word.trim_end_matches(':').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_missing_fails_or_hangs_is_named_with_its_reason() {
        let missing = run("ipvsd-no-such-program", &[], "").unwrap_err();
        assert_eq!(missing.to_string(), "ipvsd-no-such-program: is not installed");
        let failing = run("sh", &["-c", "echo why >&2; exit 3"], "").unwrap_err();
        assert_eq!(failing.to_string(), "sh: exit status: 3: why");
        let hanging = run_within(Duration::from_millis(200), "sleep", &["1000"], "").unwrap_err();
        assert_eq!(hanging.to_string(), "sleep: was killed, as it had not ended after 0.2 s");
        assert_eq!(hanging.blame, Blame::Circumstances);
    }

    #[test]
    fn a_back_end_whose_rules_can_be_listed_is_seen() {
        let can_be_listed = Backend::Nft.save(Family::Ipv4).is_ok();
        let is_seen = in_use(Family::Ipv4).iter().any(|(backend, _)| *backend == Backend::Nft);
        assert_eq!(is_seen, can_be_listed);
    }

    #[test]
    fn the_line_that_a_program_names_is_found() {
        for (said, line) in [
            ("iptables-restore: line 5 failed\n", Some(5)),
            (
                "iptables-nft-restore v1.8.9 (nf_tables): \nline 12: RULE_APPEND failed (Invalid argument): rule in chain A",
                Some(12),
            ),
            ("x: Bad IP\n\nError occurred at line: 3\nTry `x -h'", Some(3)),
            ("Another app is currently holding the xtables lock", None),
            ("line of thought", None),
        ] {
            assert_eq!(named_line(said), line, "{said}");
        }
        let failed =
            run("sh", &["-c", "echo 'x:\n\nline 7: ADD failed (why)\nline 9: more' >&2; exit 4"], "").unwrap_err();
        assert_eq!(failed.at("-A B").reason.as_ref(), "exit status: 4: x: line ADD failed (why): -A B");
        let blame = |script: &str| run("sh", &["-c", script], "").unwrap_err().blame;
        assert_eq!(blame("echo line 7 failed >&2; exit 1"), Blame::Input { line: Some(7) });
        assert_eq!(blame("echo line 7 failed >&2; exit 4"), Blame::Input { line: Some(7) });
        assert_eq!(blame("echo somebody has the lock >&2; exit 4"), Blame::Circumstances);
    }

    #[test]
    fn kubelets_chain_outweighs_any_rules() {
        let with = |text: &str| weight(&Saved::parse(text));
        let many = "*nat\n-A PREROUTING -j A\n-A PREROUTING -j B\n";
        assert!(with("*mangle\n:KUBE-KUBELET-CANARY - [0:0]\n") > with(many));
        assert!(with(many) > with("*nat\n-A PREROUTING -j A\n"));
    }
}
