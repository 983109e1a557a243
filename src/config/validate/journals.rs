//! `[journals]`.

use super::checker::{Checker, YEAR_MS};
use crate::config::JournalsConfig;
use crate::config::file::Journals;

/// Past this a journal in the app's database is no journal but a second database.
const CONFLICTS_MOST: i64 = 10_000_000;
/// Health counts them every second.
const DEAD_LETTERS_MOST: i64 = 100_000;
/// One message of the largest size that NATS recommends (8 MiB).
const BYTES_LEAST: i64 = 8 << 20;
/// Shorter than a person takes to look is as good as none.
const AGE_LEAST_MS: i64 = 60_000;
/// Ten years: longer is no age but a wish to keep all.
const AGE_MOST_MS: i64 = 10 * YEAR_MS;

pub(super) fn journals(check: &mut Checker<'_>, file: Journals, config: &mut JournalsConfig) {
    let Journals {
        max_conflicts,
        max_conflict_age,
        max_dead_letters,
        max_dead_letter_age,
        max_dead_letter_bytes,
    } = file;
    check.number(
        "journals.max_conflicts",
        max_conflicts,
        1..=CONFLICTS_MOST,
        &mut config.max_conflicts,
    );
    check.millis(
        "journals.max_conflict_age",
        max_conflict_age,
        AGE_LEAST_MS..=AGE_MOST_MS,
        &mut config.max_conflict_age,
    );
    check.number(
        "journals.max_dead_letters",
        max_dead_letters,
        1..=DEAD_LETTERS_MOST,
        &mut config.max_dead_letters,
    );
    check.millis(
        "journals.max_dead_letter_age",
        max_dead_letter_age,
        AGE_LEAST_MS..=AGE_MOST_MS,
        &mut config.max_dead_letter_age,
    );
    check.number(
        "journals.max_dead_letter_bytes",
        max_dead_letter_bytes,
        BYTES_LEAST..=i64::MAX,
        &mut config.max_dead_letter_bytes,
    );
}
