//! What balances in a test: IPVS, or netfilter's rules of one of the two kinds.

use crate::lab::{run, trial};
use ipvsd::desired::NetfilterSettings;
use ipvsd::kernel::linux::Linux;
use ipvsd::model::netfilter::Balancing;
use libtest_mimic::Trial;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

/// What balances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "no kernel has all of them")]
pub enum Mode {
    Ipvs,
    /// Rules of the tables of before.
    Legacy,
    /// Rules of nf_tables.
    Nft,
}

/// Whether this kernel has SCTP; many are built without.
pub fn has_sctp() -> bool {
    socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), SockProtocol::Sctp).is_ok()
}

/// A test that holds whatever balances, and its name.
pub type Test = (&'static str, fn(Mode));

/// The tests of a subject where `mode` balances.
pub fn trials(subject: &str, mode: Mode, tests: &[Test]) -> Vec<Trial> {
    let of_mode = |(name, test): &Test| {
        let test = *test;
        let of_mode = if mode == Mode::Ipvs { String::new() } else { format!("{}::", mode.name()) };
        trial(&format!("{subject}::{of_mode}{name}"), move || test(mode))
    };
    tests.iter().map(of_mode).collect()
}

impl Mode {
    /// As it stands in the names of tests; those where IPVS balances do without.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipvs => "ipvs",
            Self::Legacy => "legacy",
            Self::Nft => "nft",
        }
    }

    /// The kernel of this thread's network namespace, whose other rules are of the mode's kind.
    pub fn kernel(self) -> Linux {
        self.prepare();
        match self {
            Self::Ipvs => Linux::open().unwrap().with_netfilter().unwrap(),
            Self::Legacy | Self::Nft => Linux::open_nat().unwrap(),
        }
    }

    /// Leaves in this thread's network namespace what says which kind of rules the node has.
    pub fn prepare(self) {
        if self != Self::Ipvs {
            // As kubelet makes it. That it is there already is as well.
            let hint = "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n";
            let restore = self.program("iptables", "restore");
            run("sh", &["-c", &format!("printf '{hint}' | {restore} --noflush")]);
        }
    }

    /// The flags that ask for it, where the program is called ipvsd.
    pub fn flags(self) -> &'static [&'static str] {
        if self == Self::Ipvs { &[] } else { &["--proxy-mode", "iptables"] }
    }

    /// What netfilter is told.
    pub fn settings(self, settings: NetfilterSettings) -> NetfilterSettings {
        let balancing =
            if self == Self::Ipvs { Balancing::Ipvs } else { Balancing::Nat { is_liberal: false, counts: true } };
        NetfilterSettings { balancing, ..settings }
    }

    /// How many connections to two endpoints reach both: by turns, or by chance that fails once in four million times.
    pub fn enough(self) -> usize {
        if self == Self::Ipvs { 4 } else { 23 }
    }

    /// All that is programmed, for people.
    pub fn state(self) -> String {
        let servers = if self == Self::Ipvs { run("ipvsadm", &["-Sn"]) } else { String::new() };
        servers + &run("ipset", &["save"]) + &self.rules() + &run(&self.program("ip6tables", "save"), &[])
    }

    /// The IPv4 rules.
    pub fn rules(self) -> String {
        run(&self.program("iptables", "save"), &[])
    }

    /// The program that changes single rules of this kind.
    pub fn command(self, name: &str) -> String {
        self.program(name, "").trim_end_matches('-').to_owned()
    }

    /// A program for rules of this kind.
    pub fn program(self, name: &str, verb: &str) -> String {
        match self {
            Self::Ipvs => format!("{name}-{verb}"),
            Self::Legacy => format!("{name}-legacy-{verb}"),
            Self::Nft => format!("{name}-nft-{verb}"),
        }
    }
}
