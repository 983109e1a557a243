//! Lengths of time as people write them.

use std::time::Duration;

/// Reads `90s`, `15m`, `12h`, `30d`; `None` for anything else, also for what is longer than a thousand years.
pub(super) fn parse(text: &str) -> Option<Duration> {
    /// Past it, times since 1970 would not be times any more.
    const LONGEST: u64 = 1000 * 366 * 24 * 3600;
    let unit = text.chars().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return None,
    };
    let digits = text.strip_suffix(unit)?;
    // Digits only: parse would take a plus sign.
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let whole = digits.parse::<u64>().ok()?.checked_mul(seconds)?;
    (whole <= LONGEST).then(|| Duration::from_secs(whole))
}

#[cfg(test)]
mod tests {
    use super::parse;
    use std::time::Duration;

    #[test]
    fn times_are_a_number_and_a_unit() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("12h", 43_200), ("0d", 0)] {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)));
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
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
