//! Checking single values: what is wrong is collected, so that all of it can be told at once.

use super::duration::GoDuration;
use crate::model::address;
use crate::state::OneLine;
use ipnet::IpNet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A field with a value that it cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value} {message}")]
pub struct InvalidField {
    /// Its path in kube-proxy's file, such as `ipvs.syncPeriod`.
    pub field: String,
    /// The value as it is written.
    pub value: String,
    /// What it must be.
    pub message: String,
}

/// What was found while values were checked.
#[derive(Debug, Default)]
pub struct Checks {
    /// What is wrong.
    pub invalid: Vec<InvalidField>,
    /// What is good and has no effect, or another than one may think.
    pub notices: Vec<String>,
}

impl Checks {
    /// A value is wrong.
    pub fn refuse(&mut self, field: &str, value: impl Display, message: impl Into<String>) {
        let value = OneLine(value).to_string();
        let value = if value.is_empty() { "\"\"".to_owned() } else { value };
        self.invalid.push(InvalidField { field: field.to_owned(), value, message: message.into() });
    }

    /// The operator should know something.
    pub fn note(&mut self, notice: String) {
        self.notices.push(notice);
    }

    /// A duration longer than 0.
    pub fn positive(&mut self, field: &str, value: GoDuration) -> Duration {
        if value <= GoDuration::ZERO {
            self.refuse(field, value, "must be longer than 0");
        }
        value.to_std().unwrap_or_default()
    }

    /// A duration of 0 or more.
    pub fn not_negative(&mut self, field: &str, value: GoDuration) -> Duration {
        if value < GoDuration::ZERO {
            self.refuse(field, value, "must not be less than 0");
        }
        value.to_std().unwrap_or_default()
    }

    /// A duration where 0 means that nobody says any.
    pub fn timeout(&mut self, field: &str, value: GoDuration) -> Option<Duration> {
        Some(self.not_negative(field, value)).filter(|timeout| !timeout.is_zero())
    }

    /// A whole number within limits; none if it is not.
    pub fn within<T: TryFrom<i32>>(&mut self, field: &str, value: i32, limits: RangeInclusive<i32>) -> Option<T> {
        if limits.contains(&value) {
            return T::try_from(value).ok();
        }
        let message = match (limits.start(), limits.end()) {
            (0, &i32::MAX) => "must not be less than 0".to_owned(),
            (least, most) => format!("must be {least} to {most}"),
        };
        self.refuse(field, value, message);
        None
    }

    /// A CIDR; none if it is not one.
    pub fn cidr(&mut self, field: &str, text: &str) -> Option<IpNet> {
        let cidr = address::range(text);
        if cidr.is_none() {
            self.refuse(field, format_args!("{text:?}"), "must be a CIDR such as 10.100.0.0/16 or fde4:8dba:82e1::/48");
        }
        cidr
    }

    /// A text that must be there.
    pub fn not_empty(&mut self, field: &str, text: &str) {
        if text.is_empty() {
            self.refuse(field, text, "must not be empty");
        }
    }
}
