//! The text that `iptables-restore` is given, line by line.

use std::fmt::Arguments;

/// Adds a line.
pub(super) fn line(text: &mut String, what: Arguments<'_>) {
    *text += &format!("{what}\n");
}
