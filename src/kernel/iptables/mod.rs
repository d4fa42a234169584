//! Netfilter's rules, by the programs iptables-save and iptables-restore: one run of the first for a look at a family, one
//! of the second to put it right.
//!
//! The rules are the same for all Services, so this happens at the start, and when a look finds them changed. What they
//! are is in [`rules`], how they are compared in [`saved`]. What kube-proxy left is known by [`leftovers`], also in the [`other`]
//! back end.

pub mod counts;
pub mod leftovers;
mod nat;
pub mod other;
pub mod rules;
pub mod saved;

use super::program::{self, ProgramError};
use super::{modules, nfacct};
use crate::model::netfilter::RuleSettings;
use crate::model::{Family, Leftover};
use counts::Counts;
use leftovers::{Held, Leftovers, Shared, TakenBack};
use other::Other;
use rules::SETTINGS_AT;
use saved::Saved;
use std::collections::{BTreeMap, BTreeSet};
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

/// The programs, and how this node's print our rules.
#[derive(Debug)]
pub struct Iptables {
    backend: Backend,
    /// What our rules looked like after they were set, where a version of iptables does not print them as they were given.
    printed: BTreeMap<Family, (Saved, RuleSettings)>,
    other: Other,
    /// How many rules of ours there are.
    counts: Arc<Counts>,
}

/// What a look at a family's rules shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The settings of our rules; none if they are not whole, or cannot be read.
    pub settings: Option<RuleSettings>,
    /// Where kube-proxy left something.
    pub leftovers: BTreeSet<Leftover>,
    /// Chains of kube-proxy's that cannot go.
    pub held: BTreeSet<Held>,
    /// Whether kube-proxy's ipvs mode wrote last, and so has the sets that ipvsd has too.
    pub has_kube_proxys_sets: bool,
}

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

impl Iptables {
    /// Finds the programs. Where both kinds are there, those are used that the node's other rules were made with: rules of
    /// one kind would all be passed before those of the other.
    pub fn find() -> Self {
        let backend = Backend::find();
        Self { backend, printed: BTreeMap::new(), other: Other::than(backend), counts: Arc::default() }
    }

    /// Which kind is used.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// All rules of a family as they are.
    ///
    /// # Errors
    /// The program's.
    pub fn save(&self, family: Family) -> Result<Saved, Failed> {
        self.backend.save(family)
    }

    /// Gives an input to the program, which takes all of a table or nothing.
    ///
    /// # Errors
    /// The program's.
    pub fn restore(&self, family: Family, input: &str) -> Result<(), Failed> {
        self.backend.restore(family, input)?;
        self.counts.restored(family, input);
        Ok(())
    }

    /// How many rules of ours there are, as of what was last read and written.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Whether rules can count packets by name: whether the program and the kernel both have the match. Changes nothing.
    pub fn can_count(&self) -> bool {
        self.backend.has_match("nfacct", &format!("--nfacct-name {}", nfacct::INVALID))
    }

    fn settings(&self, family: Family, saved: &Saved) -> Option<RuleSettings> {
        let printed = self.printed.get(&family);
        let as_printed = || printed.filter(|(ours, _)| saved.ours(family) == *ours).map(|(_, settings)| *settings);
        saved.settings(family).or_else(as_printed)
    }

    /// Looks at a family's rules.
    pub fn look(&mut self, family: Family, saved: &Saved) -> Look {
        self.counts.found(family, saved);
        let mut look = self.other.look(family);
        look.settings = self.settings(family, saved);
        look.has_kube_proxys_sets = TakenBack::find(saved) == Some(TakenBack::ByIpvs);
        look.note(Leftover::Rules(family), Leftovers::find(saved, family, whose_shared(saved)));
        look
    }

    /// Makes a family's rules those of `settings`.
    ///
    /// # Errors
    /// A program cannot be run or fails; each table is then as it was, or as it should be.
    pub fn set(&mut self, family: Family, settings: RuleSettings) -> Result<(), Failed> {
        let repair = self.backend.save(family)?.repair(&settings, family);
        self.restore(family, &repair)?;
        let saved = self.backend.save(family)?;
        self.counts.found(family, &saved);
        self.printed.remove(&family);
        if saved.settings(family) != Some(settings) {
            self.printed.insert(family, (saved.ours(family), settings));
        }
        Ok(())
    }

    /// Takes a family's rules away.
    ///
    /// # Errors
    /// As [`Iptables::set`].
    pub fn remove(&mut self, family: Family) -> Result<(), Failed> {
        self.printed.remove(&family);
        match self.backend.save(family)?.removal(family) {
            removal if removal.is_empty() => Ok(()),
            removal => self.restore(family, &removal),
        }
    }

    /// Takes away what kube-proxy left, if that is rules.
    ///
    /// # Errors
    /// As [`Iptables::set`].
    pub fn clear(&mut self, leftover: Leftover) -> Result<(), Failed> {
        match leftover {
            Leftover::Rules(family) => self.backend.clear(family, whose_shared),
            Leftover::OtherRules(family) => self.other.clear(family),
            Leftover::Table(_) => Ok(()),
        }
    }
}

impl Look {
    fn note(&mut self, place: Leftover, found: Leftovers<'_>) {
        self.leftovers.extend((!found.is_empty()).then_some(place));
        self.held.append(&mut found.into_held());
    }
}

/// The chains that kube-proxy has too are ours once ours stand beside them, until it writes over them.
fn whose_shared(saved: &Saved) -> Shared {
    let (table, chain) = SETTINGS_AT;
    let is_ours = saved.has_chain(table, chain) && TakenBack::find(saved).is_none();
    if is_ours { Shared::Ours } else { Shared::KubeProxys }
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
    fn find() -> Self {
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

    fn save(self, family: Family) -> Result<Saved, Failed> {
        let output = run(&self.program(family, "save"), &[], "")?;
        Ok(Saved::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    fn restore(self, family: Family, input: &str) -> Result<(), Failed> {
        run(&self.program(family, "restore"), &["--noflush", "-w", LOCK_SECONDS], input).map(drop)
    }

    /// Whether the program knows a match with this option, and the kernel too: the program only warns where that has not.
    fn has_match(self, name: &str, option: &str) -> bool {
        let input = format!("*filter\n-A INPUT -m {name} {option}\nCOMMIT\n");
        let program = self.program(Family::Ipv4, "restore");
        let tried = run(&program, &["--noflush", "--test", "-w", LOCK_SECONDS], &input);
        tried.is_ok_and(|output| !String::from_utf8_lossy(&output.stderr).contains(name))
    }

    /// Takes away what kube-proxy left.
    fn clear(self, family: Family, shared: impl Fn(&Saved) -> Shared) -> Result<(), Failed> {
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
