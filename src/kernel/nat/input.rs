//! The input of iptables-restore that writes virtual servers, and which of its lines is of which.

use crate::model::VirtualServerKey;
use std::fmt::Arguments;

/// What iptables-restore is given.
#[derive(Debug, Default)]
pub struct Input {
    /// All lines.
    pub text: String,
    /// The virtual server that each line is of, if it is of one.
    owners: Vec<Option<VirtualServerKey>>,
}

impl Input {
    /// The first line of a virtual server.
    pub fn first_of(&self, key: &VirtualServerKey) -> Option<&str> {
        let index = self.owners.iter().position(|owner| owner.as_ref() == Some(key))?;
        self.text.lines().nth(index)
    }

    /// The text of a line and the virtual server that it is of, by the number that iptables-restore has for it.
    pub fn at(&self, line: usize) -> Option<(&str, Option<VirtualServerKey>)> {
        let index = line.checked_sub(1)?;
        Some((self.text.lines().nth(index)?, *self.owners.get(index)?))
    }

    /// Adds a line that is of a virtual server, or of none.
    pub(super) fn line(&mut self, owner: Option<VirtualServerKey>, text: Arguments<'_>) {
        self.text += &format!("{text}\n");
        self.owners.push(owner);
    }
}
