//! Times as Kubernetes writes them, in UTC.

use std::fmt::{self, Display};
use std::time::Duration;

const SECONDS_OF_A_DAY: u64 = 24 * 60 * 60;

/// 1970-01-01 was a Thursday.
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A time since 1970-01-01T00:00:00Z by RFC 3339, with as many decimals as are needed (Go's `RFC3339Nano`).
pub fn rfc3339(since_unix_epoch: Duration) -> impl Display {
    fmt::from_fn(move |f| {
        let seconds = since_unix_epoch.as_secs();
        let (year, month, day) = date(seconds / SECONDS_OF_A_DAY);
        write!(f, "{year:04}-{month:02}-{day:02}T{}", time_of_day(seconds))?;
        let nanoseconds = since_unix_epoch.subsec_nanos();
        if nanoseconds > 0 {
            write!(f, ".{}", format!("{nanoseconds:09}").trim_end_matches('0'))?;
        }
        f.write_str("Z")
    })
}

/// The same as date(1) gives it (Go's `UnixDate`).
pub fn unix_date(since_unix_epoch: Duration) -> impl Display {
    fmt::from_fn(move |f| {
        let seconds = since_unix_epoch.as_secs();
        let days = seconds / SECONDS_OF_A_DAY;
        let (year, month, day) = date(days);
        let name = |names: &[&'static str], index: u64| {
            usize::try_from(index).ok().and_then(|index| names.get(index).copied()).unwrap_or_default()
        };
        let (weekday, month) = (name(&WEEKDAYS, days % 7), name(&MONTHS, month.saturating_sub(1)));
        write!(f, "{weekday} {month} {day:>2} {} UTC {year}", time_of_day(seconds))
    })
}

fn time_of_day(seconds: u64) -> impl Display {
    let of_day = seconds % SECONDS_OF_A_DAY;
    fmt::from_fn(move |f| write!(f, "{:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60))
}

/// Year, month and day, so many days after 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    // Years are counted from March, so that a leap day is the last of its year, and in eras of 400 years, after which
    // the Gregorian calendar repeats. 719,468 days lie between 0000-03-01 and 1970-01-01.
    let days = days.saturating_add(719_468);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Five months from March on have 153 days, wherever one begins to count.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (400 * era + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_go_writes_it() {
        for (seconds, nanoseconds, wanted) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_400, 0, "2000-02-29T00:00:00Z"),
            (1_582_934_400, 100_000_000, "2020-02-29T00:00:00.1Z"),
            (1_709_251_199, 999_999_999, "2024-02-29T23:59:59.999999999Z"),
            (1_767_225_599, 1, "2025-12-31T23:59:59.000000001Z"),
            (1_795_600_800, 12_300_000, "2026-11-25T10:00:00.0123Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(Duration::new(seconds, nanoseconds)).to_string(), wanted);
        }
    }

    #[test]
    fn a_date_is_written_as_date_writes_it() {
        for (seconds, wanted) in [
            (0, "Thu Jan  1 00:00:00 UTC 1970"),
            (951_782_400, "Tue Feb 29 00:00:00 UTC 2000"),
            (1_795_600_800, "Wed Nov 25 10:00:00 UTC 2026"),
        ] {
            assert_eq!(unix_date(Duration::from_secs(seconds)).to_string(), wanted);
        }
    }

    #[test]
    fn days_follow_each_other_for_two_thousand_years() {
        let mut previous = date(0);
        for day in 1..730_000 {
            let next = date(day);
            let (year, month, day) = previous;
            let follows = next == (year, month, day + 1)
                || day >= 28 && next == (year, month + 1, 1)
                || (month, day) == (12, 31) && next == (year + 1, 1, 1);
            assert!(follows, "{next:?} after {previous:?}");
            previous = next;
        }
    }

    #[test]
    fn no_time_makes_it_panic() {
        rfc3339(Duration::MAX).to_string();
    }
}
