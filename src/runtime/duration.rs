//! Times as people write them: `30s`, `500ms`, `2m`, `1h`.

use std::time::Duration;

/// A time; a number without a unit is in seconds. `None` where it is none.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
    match unit.trim() {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3600),
        _ => None,
    }
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
}
