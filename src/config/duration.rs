//! Durations as Go writes them (`1m30s`, `250ms`, `0`), which is how kube-proxy's flags and files have them.

use std::time::Duration;

/// Units, the longer name of two that begin alike first.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("\u{b5}s", 1e-6),
    ("\u{3bc}s", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];

/// A text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration: write 30s, 1m30s, 250ms or 0")]
pub struct InvalidDuration(pub String);

/// Reads a duration: numbers, each with a unit, added up; `0` alone needs none. Never negative.
///
/// # Errors
/// [`InvalidDuration`] for anything else.
pub fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    let invalid = || InvalidDuration(text.to_owned());
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (part, after) = leading_part(rest).ok_or_else(invalid)?;
        total = total.checked_add(part).ok_or_else(invalid)?;
        rest = after;
    }
    if text.is_empty() { Err(invalid()) } else { Ok(total) }
}

/// The first number with its unit, and what follows.
fn leading_part(text: &str) -> Option<(Duration, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, rest) = text.split_at_checked(digits)?;
    let (unit, seconds) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit))?;
    let number: f64 = number.parse().ok()?;
    Some((Duration::try_from_secs_f64(number * seconds).ok()?, rest.strip_prefix(unit)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let cases = [
            ("0", 0),
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("250ms", 250),
            ("24h0m0s", 86_400_000),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "5", "-1s", "s", "1x", "1s ", "1..5s", "999999999999999999999h", "1m s"] {
            assert_eq!(parse(text), Err(InvalidDuration(text.into())));
        }
    }
}
