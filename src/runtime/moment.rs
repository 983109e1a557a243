//! The time in the names of files that are kept for people.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Now, in UTC, as `20261121T184659`.
#[must_use]
pub fn compact() -> String {
    let now = OffsetDateTime::now_utc()
        .format(&Rfc3339)
        .unwrap_or_default();
    now.chars()
        .take_while(|c| *c != '.')
        .filter(char::is_ascii_alphanumeric)
        .collect()
}

/// Now, in UTC, to the second, as `2026-11-21T18:46:59Z`.
#[must_use]
pub fn now() -> String {
    let now = OffsetDateTime::now_utc();
    let whole = now.replace_nanosecond(0).unwrap_or(now);
    whole.format(&Rfc3339).unwrap_or_default()
}
