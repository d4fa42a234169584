//! Durations as Go writes and reads them (`1m30s`, `250ms`, `0`), which is how kube-proxy's flags and files have them,
//! and annotations of Services.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::time::Duration;

/// Units and their nanoseconds, the longer name of two that begin alike first.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
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
    let duration: GoDuration = text.parse()?;
    duration.to_std().ok_or_else(|| InvalidDuration(text.to_owned()))
}

/// A duration as Go has it: 64 bits of nanoseconds, which may be negative. In text it is Go's, both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(i64);

impl GoDuration {
    /// No time, which kube-proxy's fields take for "not set".
    pub const ZERO: Self = Self(0);

    /// So many seconds.
    pub const fn from_secs(seconds: u32) -> Self {
        Self(seconds as i64 * 1_000_000_000)
    }

    /// So many nanoseconds.
    pub const fn from_nanos(nanoseconds: i64) -> Self {
        Self(nanoseconds)
    }

    /// All of it, in nanoseconds.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// The same, unless it is negative.
    pub fn to_std(self) -> Option<Duration> {
        u64::try_from(self.0).ok().map(Duration::from_nanos)
    }
}

impl FromStr for GoDuration {
    type Err = InvalidDuration;

    /// A sign, then numbers that each have a unit, added up. Digits beyond a nanosecond are dropped.
    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        read(text).map(Self).ok_or_else(|| InvalidDuration(text.to_owned()))
    }
}

fn read(text: &str) -> Option<i64> {
    let (negative, magnitude) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if magnitude == "0" {
        return Some(0);
    }
    let mut rest = magnitude;
    let mut total = 0_u128;
    while !rest.is_empty() {
        let (part, after) = leading_part(rest)?;
        total = total.checked_add(part)?;
        rest = after;
    }
    if magnitude.is_empty() {
        return None;
    }
    let total = i128::try_from(total).ok()?;
    i64::try_from(if negative { -total } else { total }).ok()
}

/// The nanoseconds of the first number with its unit, and what follows.
fn leading_part(text: &str) -> Option<(u128, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, rest) = text.split_at_checked(end)?;
    let (name, unit) = UNITS.iter().find(|(name, _)| rest.starts_with(name))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let nanoseconds = digits(whole)?.checked_mul(u128::from(*unit))?.checked_add(part_of(*unit, fraction)?)?;
    Some((nanoseconds, rest.strip_prefix(name)?))
}

/// `0.fraction` of a unit. An hour has 13 digits of nanoseconds, so what comes after the 20th changes nothing.
fn part_of(unit: u64, fraction: &str) -> Option<u128> {
    let counted = fraction.get(..20).unwrap_or(fraction);
    let scale = 10_u128.pow(u32::try_from(counted.len()).ok()?);
    // A second point in the number is refused here.
    digits(fraction)?;
    Some(digits(counted)? * u128::from(unit) / scale)
}

/// The value of decimal digits; of none it is 0. Too many to count are as good as the largest number.
fn digits(text: &str) -> Option<u128> {
    text.bytes().try_fold(0_u128, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u128::from(byte - b'0'))?;
        Some(value.saturating_mul(10).saturating_add(digit))
    })
}

impl Display for GoDuration {
    /// As Go's `Duration.String`: hours, minutes and seconds from the largest that is there; below a second the
    /// largest unit that leaves no leading zero.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let nanoseconds = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        match nanoseconds {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanoseconds}ns"),
            1_000..1_000_000 => write!(f, "{}\u{b5}s", Decimal(nanoseconds, 1_000)),
            1_000_000..1_000_000_000 => write!(f, "{}ms", Decimal(nanoseconds, 1_000_000)),
            _ => clock(f, nanoseconds),
        }
    }
}

fn clock(f: &mut Formatter<'_>, nanoseconds: u64) -> fmt::Result {
    let (minutes, rest) = (nanoseconds / 60_000_000_000, nanoseconds % 60_000_000_000);
    if minutes >= 60 {
        write!(f, "{}h", minutes / 60)?;
    }
    if minutes > 0 {
        write!(f, "{}m", minutes % 60)?;
    }
    write!(f, "{}s", Decimal(rest, 1_000_000_000))
}

/// So many parts of a unit that has a power of ten of them, without trailing zeros.
struct Decimal(u64, u64);

impl Display for Decimal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / self.1, self.0 % self.1);
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        let width = self.1.ilog10() as usize;
        write!(f, "{whole}.{}", format!("{fraction:0width$}").trim_end_matches('0'))
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let cases = [
            ("0", 0),
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            (".5s", 500),
            ("5.s", 5_000),
            ("+250ms", 250),
            ("24h0m0s", 86_400_000),
            ("2000\u{b5}s", 2),
            ("0.0015000000000000000000000000000000000000000000s", 1),
        ];
        for (text, milliseconds) in cases {
            let read = parse(text).unwrap();
            assert_eq!(read.as_millis(), milliseconds, "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        let too_long = "99999999999999999999999999999999999999999999h";
        for text in ["", "5", "-1s", "s", "1x", "1s ", "1..5s", ".s", "1.5.5s", too_long, "2562048h", "1m s", "+", "-"]
        {
            assert_eq!(parse(text), Err(InvalidDuration(text.into())));
        }
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5\u{b5}s"),
            (250_000_000, "250ms"),
            (1_000_000_000, "1s"),
            (60_000_000_000, "1m0s"),
            (86_400_000_000_000, "24h0m0s"),
            (3_601_000_000_001, "1h0m1.000000001s"),
            (-5_000_000_000, "-5s"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(GoDuration(nanoseconds).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(nanoseconds: i64) {
            prop_assert_eq!(GoDuration(nanoseconds).to_string().parse(), Ok(GoDuration(nanoseconds)));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+]?([0-9.]{0,40}(ns|us|s|m|h|x)?){0,4}") {
            _ = text.parse::<GoDuration>();
        }
    }
}
