//! What ipvsd has in one table: chains of its own, and jumps into them from the kernel's.

/// What there is in one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// `mangle`, `nat` or `filter`.
    pub name: &'static str,
    /// Chains that are ours as a whole.
    pub chains: Vec<Chain>,
    /// Chains that must be there for these to lead to, and whose rules are not for the settings to say.
    pub roots: Vec<&'static str>,
    /// Rules of ours in the kernel's chains, in the order in which they should stand.
    pub jumps: Vec<Jump>,
}

/// A chain with all its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// At most 28 characters (`XT_EXTENSION_MAXNAMELEN`).
    pub name: &'static str,
    /// Without the `-A NAME` that begins them.
    pub rules: Vec<String>,
}

/// A rule in a chain of the kernel's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jump {
    /// `PREROUTING` and so on.
    pub from: &'static str,
    /// Without the `-A PREROUTING` that begins it.
    pub rule: String,
}

/// The chain whose first rule has the settings as its comment, and the chain's table.
pub const SETTINGS_AT: (&str, &str) = ("mangle", "IPVSD-PREROUTING");
