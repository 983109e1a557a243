//! Names of our objects in the application's database.

use crate::change::table::Table;
use crate::sqlite::ident::quote;
use crate::sqlite::introspect::OWN_PREFIX;

/// The view over all change logs that the troubleshooting guide counts pending changes with.
pub const GLOBAL_VIEW: &str = "__harmonylite___global_change_log";
/// The same view under the name that the Go program's code uses.
pub const GLOBAL_VIEW_ALIAS: &str = "__harmonylite___change_log_global";

/// The change log of a table.
#[must_use]
pub fn change_log(table: &str) -> String {
    // A table called "_global" would have the view's name; with the mark, "_global~" would have that of its log, and so on.
    let marked = table.trim_end_matches('~').eq_ignore_ascii_case("_global");
    let mark = if marked { "~" } else { "" };
    format!("{OWN_PREFIX}{table}{mark}_change_log")
}

/// The notes of rows that a REPLACE may be about to remove. No trigger's name ends like it, whatever the table is called.
#[must_use]
pub fn notes(table: &str) -> String {
    format!("{OWN_PREFIX}{table}_displaced_rows")
}

/// The UNIQUE values that rows had before the app changed them, until the change is sent and back.
#[must_use]
pub fn former_values(table: &str) -> String {
    format!("{OWN_PREFIX}{table}{FORMER_VALUES}")
}

/// How the names of those tables end.
pub const FORMER_VALUES: &str = "_former_values";

/// A trigger on a table.
#[must_use]
pub fn trigger(table: &str, what: &str) -> String {
    format!("{OWN_PREFIX}{table}_{what}")
}

/// The change log's columns for the key, quoted.
#[must_use]
pub fn key_columns(table: &Table) -> Vec<String> {
    let names = table.key_names();
    names.iter().map(|k| quote(&key_column(k))).collect()
}

/// The change log's column for a key column.
#[must_use]
pub fn key_column(column: &str) -> String {
    format!("val_{column}")
}
