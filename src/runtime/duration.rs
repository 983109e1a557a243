//! Times and ages as people write them: `30s`, `500ms`, `2m`, `1h`, `30d`.

use std::time::Duration;

/// A time; a number without a unit is in seconds. `None` where it is none.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = split(text.trim())?;
    match unit.trim() {
        "ms" => Some(Duration::from_millis(number)),
        "" => Some(Duration::from_secs(number)),
        unit => seconds(number, unit),
    }
}

/// An age, which may have days and always has a unit; `None` where it is none, also for what is longer than a thousand years.
#[must_use]
pub fn parse_age(text: &str) -> Option<Duration> {
    /// Past it, times since 1970 would not be times any more.
    const LONGEST: Duration = Duration::from_secs(1000 * 366 * 24 * 3600);
    let (number, unit) = split(text)?;
    let age = match unit {
        "d" => seconds(number.checked_mul(24)?, "h"),
        unit => seconds(number, unit),
    };
    age.filter(|age| *age <= LONGEST)
}

/// The digits that a text begins with, and what follows.
fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit))
}

fn seconds(number: u64, unit: &str) -> Option<Duration> {
    let each = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    number.checked_mul(each).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_and_without_a_unit() {
        for (text, expected) in [
            ("30s", Some(Duration::from_secs(30))),
            ("7", Some(Duration::from_secs(7))),
            ("500ms", Some(Duration::from_millis(500))),
            (" 2 m ", Some(Duration::from_secs(120))),
            ("1h", Some(Duration::from_secs(3600))),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("1d", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn ages_are_a_number_and_a_unit() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("12h", 43_200), ("0d", 0)] {
            assert_eq!(parse_age(text), Some(Duration::from_secs(seconds)));
        }
        for text in [
            "",
            "s",
            "30",
            "-1d",
            "+1d",
            "1.5h",
            "1w",
            "999999999d",
            "\u{665}d",
        ] {
            assert_eq!(parse_age(text), None, "{text}");
        }
    }
}
