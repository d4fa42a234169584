//! The text that `iptables-restore` is given, line by line.

use std::fmt::{Arguments, Write};

/// Adds a line.
pub(super) fn line(text: &mut String, what: Arguments<'_>) {
    // Writing to a text cannot fail.
    let _always = writeln!(text, "{what}");
}
