//! Sizes, rates, durations and points in time as people write and read them.
//!
//! A size is a whole number with a unit: `10MiB` (1024 based), `5MB` (1000 based), `64k`
//! (one letter is 1024 based, as `dd` and rsync have it), or plain bytes. Letter case
//! does not matter. A rate is a size a second.

use std::fmt;
use std::time::Duration;

/// Why text is no size, rate or duration. Its message fits behind the flag's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitError(String);

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UnitError {}

fn error<T>(text: &str) -> Result<T, UnitError> {
    Err(UnitError(text.to_owned()))
}

const KILO: [&str; 6] = ["k", "m", "g", "t", "p", "e"];

/// Bytes.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split_number(text, "a size is a whole number and a unit: 10MiB, 5MB, 64k")?;
    let unit = unit.to_ascii_lowercase();
    let Some(factor) = size_factor(&unit) else {
        return error("the unit of a size is k, M, G, T (1024 based), KiB, MiB … or kB, MB … (1000 based)");
    };
    number.checked_mul(factor).ok_or_else(|| UnitError("the size is too large".to_owned()))
}

/// Bytes a second; `/s` may follow the unit.
pub fn parse_rate(text: &str) -> Result<u64, UnitError> {
    let size = text.strip_suffix("/s").unwrap_or(text);
    match parse_size(size)? {
        0 => error("a rate of zero would never end"),
        rate => Ok(rate),
    }
}

/// `2s`, `5m`, `500ms`, `1h`, `1d`, or plain seconds.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split_number(text, "a duration is a whole number and a unit: 2s, 5m, 500ms, 1h")?;
    let seconds: u64 = match unit.to_ascii_lowercase().as_str() {
        "ms" => return Ok(Duration::from_millis(number)),
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return error("the unit of a duration is ms, s, m, h or d"),
    };
    match number.checked_mul(seconds) {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => error("the duration is too long"),
    }
}

fn split_number<'a>(text: &'a str, expected: &str) -> Result<(u64, &'a str), UnitError> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let unit = unit.trim_start_matches(' ');
    if digits.is_empty() {
        return error(expected);
    }
    if unit.starts_with(['.', ',']) {
        return error("a fraction is not taken: use a smaller unit");
    }
    match digits.parse() {
        Ok(number) => Ok((number, unit)),
        Err(_) => error("the number is too large"),
    }
}

fn size_factor(unit: &str) -> Option<u64> {
    if matches!(unit, "" | "b") {
        return Some(1);
    }
    let power = KILO.iter().position(|letter| unit.starts_with(letter))? + 1;
    let base: u64 = match &unit[1..] {
        "" | "ib" | "i" => 1024,
        "b" => 1000,
        _ => return None,
    };
    base.checked_pow(u32::try_from(power).ok()?)
}

/// `5.0 GiB`, `416 MiB`, `12 B`.
pub fn human_size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut size = 1024u128;
    let tenths = |size: u128| (u128::from(bytes) * 10 + size / 2) / size;
    // What rounds up to 1024 of a unit is one of the next.
    while tenths(size) >= 10_240 - 5 && unit + 1 < KILO.len() {
        unit += 1;
        size *= 1024;
    }
    let tenths = tenths(size);
    let letter = KILO[unit].to_ascii_uppercase();
    if tenths >= 1000 {
        format!("{} {letter}iB", (tenths + 5) / 10)
    } else {
        format!("{}.{} {letter}iB", tenths / 10, tenths % 10)
    }
}

/// `416 MiB/s`, of `bytes` in `time`.
pub fn human_rate(bytes: u64, time: Duration) -> String {
    let milliseconds = time.as_millis().max(1);
    let rate = u128::from(bytes) * 1000 / milliseconds;
    format!("{}/s", human_size(u64::try_from(rate).unwrap_or(u64::MAX)))
}

/// `0.4 s`, `12.3 s`, `5 min 3 s`, `2 h 5 min`.
pub fn human_duration(time: Duration) -> String {
    let tenths = (time.as_millis() + 50) / 100;
    let seconds = (time.as_millis() + 500) / 1000;
    if tenths < 600 {
        format!("{}.{} s", tenths / 10, tenths % 10)
    } else if seconds < 3600 {
        format!("{} min {} s", seconds / 60, seconds % 60)
    } else {
        format!("{} h {} min", seconds / 3600, seconds / 60 % 60)
    }
}

/// `0:12`, `1:02:03`, for a time that counts down.
pub fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// `2026-03-01 12:00:05 UTC`, of seconds since the epoch.
pub fn utc_time(seconds: u64) -> String {
    let days = seconds / 86_400;
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Days since 1970-01-01 as a date of the Gregorian calendar, counted in years that begin
/// in March, so that the leap day is a year's last.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days.saturating_add(719_468);
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("64k", 64 << 10),
            ("64K", 64 << 10),
            ("64KiB", 64 << 10),
            ("64Ki", 64 << 10),
            ("64kB", 64_000),
            ("10MiB", 10 << 20),
            ("10 MiB", 10 << 20),
            ("5MB", 5_000_000),
            ("1g", 1 << 30),
            ("2T", 2 << 40),
            ("3PiB", 3 << 50),
            ("15E", 15 << 60),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in
            ["", "k", "-1", "+1", "1.5M", "1,5M", "10x", "10MiBs", "1kk", "16E", "99999999999999999999", " 1"]
        {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates() {
        assert_eq!(parse_rate("5MB"), Ok(5_000_000));
        assert_eq!(parse_rate("1m/s"), Ok(1 << 20));
        assert!(parse_rate("0").is_err());
        assert!(parse_rate("/s").is_err());
    }

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("0", 0),
            ("30", 30_000),
            ("2s", 2000),
            ("500ms", 500),
            ("5m", 300_000),
            ("5min", 300_000),
            ("1h", 3_600_000),
            ("1D", 86_400_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "s", "-2s", "1.5s", "2 weeks", "2w", "99999999999999999999s", "18446744073709551615h"]
        {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10 << 20, "10.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (416 << 20, "416 MiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (1023 << 10, "1023 KiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
        assert_eq!(human_rate(416 << 20, Duration::from_secs(1)), "416 MiB/s");
        assert_eq!(human_rate(1, Duration::ZERO), "1000 B/s");
    }

    #[test]
    fn times_for_people() {
        for (milliseconds, text) in [
            (0, "0.0 s"),
            (440, "0.4 s"),
            (12_345, "12.3 s"),
            (59_949, "59.9 s"),
            (59_950, "1 min 0 s"),
            (303_000, "5 min 3 s"),
            (7_500_000, "2 h 5 min"),
        ] {
            assert_eq!(human_duration(Duration::from_millis(milliseconds)), text);
        }
        assert_eq!(clock(Duration::from_secs(12)), "0:12");
        assert_eq!(clock(Duration::from_secs(3723)), "1:02:03");
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_772_366_405, "2026-03-01 12:00:05 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
        ] {
            assert_eq!(utc_time(seconds), text);
        }
    }

    proptest! {
        #[test]
        fn no_text_and_no_number_panics(text in ".{0,24}", number in any::<u64>(), milliseconds in any::<u64>()) {
            let _ = (parse_size(&text), parse_rate(&text), parse_duration(&text));
            let time = Duration::from_millis(milliseconds);
            let shown = (human_size(number), human_rate(number, time), human_duration(time), clock(time));
            prop_assert!(!shown.0.is_empty());
            prop_assert!(utc_time(number).ends_with(" UTC"));
        }

        #[test]
        fn whole_sizes_are_read_back(number in 0u64..1024, power in 0usize..6) {
            let letter = KILO[power];
            let bytes = number.checked_mul(1024u64.pow(power as u32 + 1));
            prop_assert_eq!(parse_size(&format!("{number}{letter}")).ok(), bytes);
        }
    }
}
