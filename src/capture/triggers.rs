//! The SQL text of change logs and triggers: pure functions from a table to its statements.
//!
//! What they keep true:
//! - one row per changed row, with the key exactly as stored (no declared type, so no affinity) and no copy of the row;
//! - an id and a random stamp together are a change's identity, which no older copy of the file can repeat;
//! - a changed key is a delete of the old and an insert of the new, however it was changed (also through `rowid`);
//! - an update that touches a UNIQUE index is a whole row: only such a write can remove another row, and what it carries must
//!   not depend on columns that somebody else changes meanwhile;
//! - the UNIQUE values that such an update changes are kept, so that a row that must yield them to another node's can have its former ones back;
//! - rows that REPLACE removes, for which SQLite fires no delete trigger, are noted before and logged after, if they are gone;
//! - a column that the app may drop is named only where its absence is no error, since SQLite refuses to drop what a trigger cannot do without.

use super::droppable::{Kind, in_key, survives_drop};
use super::layout;
use super::unique_sql::collides_with_new;
use crate::change::operation::ChangeKind;
use crate::change::table::{Affinity, Column, Table, TableKey};
use crate::planted::planted;
use crate::sqlite::ident::{quote, text};
use crate::sqlite::row_sql::same_key;

/// Notes that are kept at most. A note is needed only until the statement that made it has changed its row; an upsert or an `OR IGNORE` leaves
/// its note behind. More than one statement's notes matter only when a trigger of the app writes to the same table in between.
const NOTES_KEPT: usize = 16;

/// What the rows that are in the table are called beside `NEW` and `OLD`, and how they get that name in a FROM clause: it is the table's own, but for a table that
/// is itself called so and would hide the trigger's row.
fn here(table: &Table) -> (String, String) {
    let on = quote(&table.name);
    let hides = ["new", "old"]
        .iter()
        .any(|name| table.name.eq_ignore_ascii_case(name));
    if hides {
        ("here".to_owned(), format!("{on} AS here"))
    } else {
        (on.clone(), on)
    }
}

/// A statement that creates an object of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// `table`, `trigger` or `view`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// The table that a trigger is on; of any other object its own name.
    pub on: String,
    /// Its `CREATE` statement, exactly as SQLite keeps it.
    pub sql: String,
}

/// The change log of a table, and its notes if it has UNIQUE indexes.
#[must_use]
pub fn tables(table: &Table) -> Vec<Object> {
    let keys = layout::key_columns(table);
    let keys = keys.join(", ");
    let log = layout::change_log(&table.name);
    let mut out = vec![Object {
        kind: "table",
        sql: format!(
            "CREATE TABLE {}(id INTEGER PRIMARY KEY, {keys}, type, mask, generation, stamp)",
            quote(&log)
        ),
        on: log.clone(),
        name: log,
    }];
    if !table.uniques.is_empty() {
        let notes = layout::notes(&table.name);
        out.push(Object {
            kind: "table",
            sql: format!(
                "CREATE TABLE {}(id INTEGER PRIMARY KEY, {keys})",
                quote(&notes)
            ),
            on: notes.clone(),
            name: notes,
        });
    }
    let former: Vec<String> = former_names(table, "");
    if !former.is_empty() {
        let kept = layout::former_values(&table.name);
        out.push(Object {
            kind: "table",
            sql: format!(
                "CREATE TABLE {}(id INTEGER PRIMARY KEY, {})",
                quote(&kept),
                former.join(", ")
            ),
            on: kept.clone(),
            name: kept,
        });
    }
    out
}

/// Positions of the columns whose former values are kept: those that UNIQUE indexes depend on. None where
/// they are too many.
#[must_use]
pub fn former_columns(table: &Table) -> Vec<usize> {
    /// More than a mask has would be a copy of the row, at every change.
    const MOST: usize = crate::change::operation::ColumnMask::MAX_COLUMNS;
    let mut columns = table.unique_columns();
    columns.retain(|c| match &table.key {
        TableKey::Columns(key) => key.iter().all(|(k, _)| k != c),
        TableKey::Rowid(_) => true,
    });
    if table.uniques.is_empty() || columns.len() > MOST {
        columns.clear();
    }
    columns
}

/// Those columns as names of the table that keeps them (`row` empty), or as values of a row.
fn former_names(table: &Table, row: &str) -> Vec<String> {
    former_columns(table)
        .iter()
        .filter_map(|c| table.columns.get(*c))
        .map(|c| match row {
            "" => quote(&layout::key_column(&c.name)),
            row => format!("{row}.{}", quote(&c.name)),
        })
        .collect()
}

/// Keeps what the UNIQUE columns were before an update. It fires right after the trigger that has logged the update: the newest row of the log is that.
fn keep_former(table: &Table) -> String {
    let kept = quote(&layout::former_values(&table.name));
    let log = quote(&layout::change_log(&table.name));
    // A constraint that fails here would fail the app's statement. Ids never come twice; if one did, OR REPLACE would pass over it.
    let values: Vec<String> = former_names(table, "OLD")
        .iter()
        .map(|value| survives_drop(table, value, Kind::Value))
        .collect();
    format!(
        "INSERT OR REPLACE INTO {kept}(id, {}) VALUES((SELECT max(id) FROM {log}), {});",
        former_names(table, "").join(", "),
        values.join(", "),
    )
}

/// Column names for `UPDATE OF`.
fn names(table: &Table, columns: &[usize]) -> String {
    let names: Vec<String> = columns
        .iter()
        .filter_map(|c| table.columns.get(*c))
        .map(|c| quote(&c.name))
        .collect();
    names.join(", ")
}

/// Which statements can change the key. A trigger that a statement cannot concern costs it nothing. SQLite asks nobody whether a column of `UPDATE OF` exists, and compares it with what
/// the statement says: a rowid has three names of its own. A column with one of those names takes it with it when it is renamed, so there it is any statement.
fn update_of_key(table: &Table) -> String {
    const ALIASES: [&str; 3] = ["rowid", "oid", "_rowid_"];
    let mut names: Vec<String> = table.key_names().iter().map(|k| quote(k)).collect();
    if table.integer_key || matches!(table.key, TableKey::Rowid(_)) {
        let taken = |c: &Column| ALIASES.iter().any(|a| c.name.eq_ignore_ascii_case(a));
        if table.columns.iter().any(taken) {
            return "UPDATE".to_owned();
        }
        names.extend(ALIASES.map(str::to_owned));
    }
    format!("UPDATE OF {}", names.join(", "))
}

/// The triggers of a table. Those that are to fire first come last, since SQLite fires newer ones first.
#[must_use]
pub fn triggers(table: &Table, generation: i64) -> Vec<Object> {
    let on = quote(&table.name);
    let same_key = key_is_same(table);
    let make = |what: &str, head: String, body: String| {
        let name = layout::trigger(&table.name, what);
        let sql = format!("CREATE TRIGGER {} {head} BEGIN {body} END", quote(&name));
        Object {
            kind: "trigger",
            name,
            on: table.name.clone(),
            sql,
        }
    };
    let log = |row: &str, kind: ChangeKind| {
        insert_log(table, row, &kind.code().to_string(), "0", generation)
    };
    let mut out = Vec::new();
    let notes = !table.uniques.is_empty() && !planted!(DisplacedNotCaptured);
    // A statement that does not set them pays nothing for them. (Only the key can be set by another name.)
    let update_of_uniques = format!("UPDATE OF {}", names(table, &table.unique_columns()));

    let mut gone = log("OLD", ChangeKind::Delete);
    if notes {
        gone.push_str(&format!(
            " DELETE FROM {} WHERE {};",
            quote(&layout::notes(&table.name)),
            note_is_of("OLD", table)
        ));
        let head = |event: &str| {
            format!(
                "AFTER {event} ON {on} WHEN EXISTS(SELECT 1 FROM {})",
                quote(&layout::notes(&table.name))
            )
        };
        out.push(make(
            "insert_displaced",
            head("INSERT"),
            log_displaced(table, generation),
        ));
        out.push(make(
            "update_displaced",
            head(&update_of_uniques),
            log_displaced(table, generation),
        ));
    }
    out.push(make("delete", format!("AFTER DELETE ON {on}"), gone));
    if !former_columns(table).is_empty() {
        let of = names(table, &former_columns(table));
        let touched: Vec<String> = former_columns(table)
            .iter()
            .filter_map(|&i| table.columns.get(i))
            .map(changed)
            .collect();
        out.push(make(
            "update_former",
            format!(
                "AFTER UPDATE OF {of} ON {on} WHEN {same_key} AND {}",
                survives_drop(table, &format!("({})", touched.join(" OR ")), Kind::Number)
            ),
            keep_former(table),
        ));
    }
    out.push(make(
        "rekey",
        format!(
            "AFTER {} ON {on} WHEN NOT ({same_key})",
            update_of_key(table)
        ),
        format!(
            "{} {}",
            log("OLD", ChangeKind::Delete),
            log("NEW", ChangeKind::Whole)
        ),
    ));
    out.push(make(
        "update",
        format!("AFTER UPDATE ON {on} WHEN {same_key}"),
        insert_log(
            table,
            "NEW",
            &update_kind(table),
            &update_mask(table),
            generation,
        ),
    ));
    out.push(make(
        "insert",
        format!("AFTER INSERT ON {on}"),
        log("NEW", ChangeKind::Whole),
    ));
    if notes {
        out.push(make(
            "insert_notes",
            format!("BEFORE INSERT ON {on}"),
            note_displaced(table, &not_the_new_row(table)),
        ));
        out.push(make(
            "update_notes",
            format!("BEFORE {update_of_uniques} ON {on}"),
            note_displaced(table, &format!("NOT ({})", row_is("OLD", table))),
        ));
    }
    out
}

/// The views over all change logs. A compound SELECT holds 500 terms, so many tables are gathered in groups.
#[must_use]
pub fn views(tables: &[&Table]) -> Vec<Object> {
    const TERMS: usize = 400;
    let view = |name: &str, sql: String| Object {
        kind: "view",
        name: name.to_owned(),
        on: name.to_owned(),
        sql: format!("CREATE VIEW {} AS {sql}", quote(name)),
    };
    let term = |t: &&Table| {
        format!(
            "SELECT id, {} AS table_name, CASE type WHEN {} THEN 'delete' WHEN {} THEN 'insert' ELSE 'update' END AS type FROM {} WHERE type <> {}",
            text(&t.name),
            ChangeKind::Delete.code(),
            ChangeKind::Whole.code(),
            quote(&layout::change_log(&t.name)),
            ChangeKind::Done.code()
        )
    };
    let mut out = Vec::new();
    let mut terms: Vec<String> = tables.iter().map(term).collect();
    if terms.is_empty() {
        terms.push("SELECT NULL AS id, NULL AS table_name, NULL AS type WHERE 0".to_owned());
    }
    if terms.len() > TERMS {
        let mut groups = Vec::new();
        for (i, group) in terms.chunks(TERMS).enumerate() {
            let name = format!("{}_{}", layout::GLOBAL_VIEW, i + 1);
            groups.push(format!("SELECT id, table_name, type FROM {}", quote(&name)));
            out.push(view(&name, group.join(" UNION ALL ")));
        }
        terms = groups;
    }
    out.push(view(layout::GLOBAL_VIEW, terms.join(" UNION ALL ")));
    out.push(view(
        layout::GLOBAL_VIEW_ALIAS,
        format!(
            "SELECT id, table_name, type FROM {}",
            quote(layout::GLOBAL_VIEW)
        ),
    ));
    out
}

/// Logs every row that is there as inserted: for a table that appears while others are captured already.
#[must_use]
pub fn log_all_rows(table: &Table, generation: i64) -> String {
    let keys: Vec<String> = table.key_names().iter().map(|k| quote(k)).collect();
    format!(
        "INSERT INTO {} SELECT {}, {}, 0, {generation}, {STAMP} FROM {}",
        log_columns(table),
        keys.join(", "),
        ChangeKind::Whole.code(),
        quote(&table.name)
    )
}

/// Logs a change of one row as a trigger would. Parameters: the key.
#[must_use]
pub fn log_change(table: &Table, kind: ChangeKind, generation: i64) -> String {
    log_one(table, kind, "0", generation)
}

/// Logs an update of some columns of one row as a trigger would. Parameters: the key, then the mask.
#[must_use]
pub fn log_cells(table: &Table, generation: i64) -> String {
    let mask = format!("?{}", table.key_len() + 1);
    log_one(table, ChangeKind::Cells, &mask, generation)
}

fn log_one(table: &Table, kind: ChangeKind, mask: &str, generation: i64) -> String {
    let keys: Vec<String> = (1..=table.key_len()).map(|i| format!("?{i}")).collect();
    format!(
        "INSERT INTO {} VALUES({}, {}, {mask}, {generation}, {STAMP})",
        log_columns(table),
        keys.join(", "),
        kind.code()
    )
}

/// 31 random bits: a positive number of at most four bytes, measured as cheap as none.
pub(super) const STAMP: &str = "random() & 2147483647";

pub(super) fn log_columns(table: &Table) -> String {
    let keys = layout::key_columns(table);
    format!(
        "{}({}, type, mask, generation, stamp)",
        quote(&layout::change_log(&table.name)),
        keys.join(", ")
    )
}

fn insert_log(table: &Table, row: &str, kind: &str, mask: &str, generation: i64) -> String {
    let keys: Vec<String> = table
        .key_names()
        .iter()
        .map(|k| format!("{row}.{}", quote(k)))
        .collect();
    format!(
        "INSERT INTO {} VALUES({}, {kind}, {mask}, {generation}, {STAMP});",
        log_columns(table),
        keys.join(", ")
    )
}

/// A delete for each noted row that is gone, and its note away.
fn log_displaced(table: &Table, generation: i64) -> String {
    let notes = quote(&layout::notes(&table.name));
    let noted = layout::key_columns(table);
    let gone = format!(
        "NOT EXISTS(SELECT 1 FROM {} WHERE {})",
        here(table).1,
        note_matches_row(table)
    );
    format!(
        "INSERT INTO {} SELECT {}, {}, 0, {generation}, {STAMP} FROM {notes} WHERE {gone}; DELETE FROM {notes} WHERE {gone};",
        log_columns(table),
        noted.join(", "),
        ChangeKind::Delete.code(),
    )
}

/// Notes the rows that stand in the way of `NEW`.
fn note_displaced(table: &Table, other_row: &str) -> String {
    let notes = quote(&layout::notes(&table.name));
    let (row, from) = here(table);
    let noted = layout::key_columns(table);
    let keys: Vec<String> = table
        .key_names()
        .iter()
        .map(|k| format!("{row}.{}", quote(k)))
        .collect();
    let mut out = String::new();
    for index in &table.uniques {
        out.push_str(&format!(
            "INSERT INTO {notes}({}) SELECT {} FROM {from} WHERE {} AND {other_row} AND NOT EXISTS(SELECT 1 FROM {notes} WHERE {}); ",
            noted.join(", "),
            keys.join(", "),
            collides_with_new(table, index),
            note_matches_row(table)
        ));
    }
    out.push_str(&format!(
        "DELETE FROM {notes} WHERE id <= (SELECT max(id) FROM {notes}) - {NOTES_KEPT};"
    ));
    out
}

// A note's columns have no collation of their own, and a key's columns may have another than the key: each comparison says the key's.

fn note_matches_row(table: &Table) -> String {
    let notes = quote(&layout::notes(&table.name));
    let row = here(table).0;
    same_key(
        table,
        "=",
        |k| format!("{row}.{}", quote(k)),
        |k| format!("{notes}.{}", quote(&layout::key_column(k))),
    )
}

fn note_is_of(row: &str, table: &Table) -> String {
    same_key(
        table,
        "IS",
        |k| quote(&layout::key_column(k)),
        |k| format!("{row}.{}", quote(k)),
    )
}

fn row_is(row: &str, table: &Table) -> String {
    let stored = here(table).0;
    same_key(
        table,
        "IS",
        |k| format!("{stored}.{}", quote(k)),
        |k| format!("{row}.{}", quote(k)),
    )
}

/// Before an insert an automatic key still reads as -1: then any row may be in the way.
fn not_the_new_row(table: &Table) -> String {
    let not_new = format!("NOT ({})", row_is("NEW", table));
    match &table.key {
        TableKey::Rowid(_) => format!(
            "({} = -1 OR {not_new})",
            conjunction(table, |k| format!("NEW.{}", quote(k)))
        ),
        TableKey::Columns(_) if table.integer_key => format!(
            "({} = -1 OR {not_new})",
            conjunction(table, |k| format!("NEW.{}", quote(k)))
        ),
        TableKey::Columns(_) => not_new,
    }
}

fn conjunction(table: &Table, part: impl Fn(&str) -> String) -> String {
    let parts: Vec<String> = table.key_names().iter().map(|k| part(k)).collect();
    parts.join(" AND ")
}

fn key_is_same(table: &Table) -> String {
    match &table.key {
        TableKey::Rowid(name) => format!("OLD.{0} IS NEW.{0}", quote(name)),
        TableKey::Columns(columns) => {
            let parts: Vec<String> = columns
                .iter()
                .filter_map(|(i, _)| table.columns.get(*i))
                .map(|c| format!("NOT {}", changed(c)))
                .collect();
            parts.join(" AND ")
        }
    }
}

/// Whether an update changed a column's stored value. Columns with an affinity hold equal numbers in one storage class only; a column
/// without one can change from 1 to 1.0. (SQLite finds 0.0 and -0.0 equal: a documented limit.)
fn changed(column: &Column) -> String {
    let c = quote(&column.name);
    match column.affinity {
        Affinity::Blob => format!(
            "(OLD.{c} IS NOT NEW.{c} COLLATE BINARY OR typeof(OLD.{c}) IS NOT typeof(NEW.{c}))"
        ),
        Affinity::Text | Affinity::Numeric | Affinity::Integer | Affinity::Real => {
            format!("(OLD.{c} IS NOT NEW.{c} COLLATE BINARY)")
        }
    }
}

fn update_kind(table: &Table) -> String {
    let whole = ChangeKind::Rewritten.code();
    if table.is_wide() {
        return whole.to_string();
    }
    let touched: Vec<String> = table
        .unique_columns()
        .iter()
        .filter_map(|&i| table.columns.get(i))
        .map(changed)
        .collect();
    if touched.is_empty() || planted!(UniqueAsCells) {
        ChangeKind::Cells.code().to_string()
    } else {
        let kind = format!(
            "CASE WHEN {} THEN {whole} ELSE {} END",
            touched.join(" OR "),
            ChangeKind::Cells.code()
        );
        survives_drop(table, &kind, Kind::Number)
    }
}

fn update_mask(table: &Table) -> String {
    if table.is_wide() {
        return "0".to_owned();
    }
    // `|` and `<<` bind alike in SQLite, so every term has its parentheses.
    let parts: Vec<String> = table
        .columns
        .iter()
        .enumerate()
        .filter(|(i, _)| !in_key(table, *i))
        .map(|(i, c)| {
            if i == 0 {
                changed(c)
            } else {
                format!("({} << {i})", changed(c))
            }
        })
        .collect();
    if parts.is_empty() {
        "0".to_owned()
    } else {
        survives_drop(table, &parts.join(" | "), Kind::Number)
    }
}
