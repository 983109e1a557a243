//! What a table and its columns were called before: so that batches that were made under the names of before still find their place, and what the application has dropped
//! is passed over.
//!
//! Nodes migrate each at its own time, and batches that were made before stand in the stream for ever: a node that has dropped or renamed a column must be able to fold them.
//!
//! Invariant: nothing is guessed. A column counts as renamed where the trigger that SQLite rewrote says so, and as dropped where none can have been renamed.

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::known::{Borne, KnownTable, read_known, write_known};
use crate::change::table::{Table, TableKey};
use crate::sqlite::error::SqliteError;
use crate::sqlite::ident::{quote_list, quoted};

/// Names that are remembered of one table: schemas change rarely, and what is older than this has long been folded.
const MOST: usize = 256;

/// The names of before, and the UNIQUE indexes that capture was last made for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Formerly {
    /// Columns by their names of before in lower case: what they are called now, or that they are dropped.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    columns: BTreeMap<String, Option<String>>,
    /// The table's names of before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tables: Vec<String>,
    /// The keys of before, each as a list of quoted names in lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    keys: Vec<String>,
    /// Definitions of UNIQUE indexes that were here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dropped_uniques: Vec<String>,
    /// Definitions of the UNIQUE indexes; `None`: an older program has not noted them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uniques: Option<Vec<String>>,
}

impl Formerly {
    /// What became of a column that is not here under this name: its name now, or `Some(None)` where it was dropped. `None`: it never was here.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<Option<&str>> {
        self.columns
            .get(&name.to_ascii_lowercase())
            .map(Option::as_deref)
    }

    /// Whether the table had this name.
    #[must_use]
    pub fn was_called(&self, table: &str) -> bool {
        self.tables.iter().any(|t| t.eq_ignore_ascii_case(table))
    }

    /// The names that the table had.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        self.tables.iter().map(String::as_str)
    }

    /// Columns that were renamed: what each was called, in lower case, and what it is called now.
    pub fn renamed_columns(&self) -> impl Iterator<Item = (&str, &str)> {
        self.columns
            .iter()
            .filter_map(|(before, now)| Some((before.as_str(), now.as_deref()?)))
    }

    /// What the table and its columns were called, without what is known of its keys and indexes.
    #[must_use]
    pub fn names_only(&self) -> Self {
        Self {
            columns: self.columns.clone(),
            tables: self.tables.clone(),
            ..Self::default()
        }
    }

    /// Columns of the table that were dropped and are here again.
    pub(super) fn dropped_and_back<'t>(&self, table: &'t Table) -> Vec<&'t str> {
        table
            .columns
            .iter()
            .map(|c| c.name.as_str())
            .filter(|name| self.column(name) == Some(None))
            .collect()
    }

    /// That a table had this key, and nothing else.
    pub(crate) fn of_key<'k>(key: impl Iterator<Item = &'k str>) -> Self {
        Self {
            keys: vec![quote_list(key).to_ascii_lowercase()],
            ..Self::default()
        }
    }

    /// The same, with the keys that another has noted.
    pub(super) fn with_keys_of(mut self, other: &Self) -> Self {
        for key in &other.keys {
            if !self.keys.contains(key) {
                self.keys.push(key.clone());
            }
        }
        self
    }

    /// The keys that the table had before, by the names of their columns in lower case.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Vec<String>> {
        self.keys.iter().map(|key| names_in(key))
    }

    /// Whether the table had this key, and was made anew with another.
    #[must_use]
    pub fn had_key<'k>(&self, columns: impl Iterator<Item = &'k str>) -> bool {
        !self.keys.is_empty()
            && self
                .keys
                .contains(&quote_list(columns).to_ascii_lowercase())
    }

    /// The table had this name until now.
    pub(super) fn note_table(&mut self, name: &str) {
        if !self.was_called(name) {
            self.tables.push(name.to_owned());
            if self.tables.len() > MOST {
                self.tables.remove(0);
            }
        }
    }

    /// Forgets names of before that mean another table now.
    pub(super) fn forget_tables(&mut self, mean_another: impl Fn(&str) -> bool) {
        self.tables.retain(|name| !mean_another(name));
    }

    /// Whether a UNIQUE index of this definition was here.
    #[must_use]
    pub fn had_unique(&self, definition: &str) -> bool {
        self.dropped_uniques.iter().any(|u| u == definition)
    }

    /// Whether the UNIQUE indexes are others than capture was made for.
    pub(super) fn has_other_uniques(&self, now: &[String]) -> bool {
        self.uniques.as_ref().is_some_and(|before| before != now)
    }

    /// What is known after a change of the table, which had these columns and this key before. `made_anew`: with another key, so that it is no renamed one.
    pub(super) fn after(
        &self,
        table: &Table,
        columns: &[String],
        key: &[String],
        renamed: Option<&[(String, String)]>,
        made_anew: bool,
    ) -> Self {
        let mut out = self.clone();
        let uniques = table.unique_definitions();
        out.dropped_uniques
            .extend(self.uniques.iter().flatten().cloned());
        out.dropped_uniques.sort_unstable();
        out.dropped_uniques.dedup();
        out.dropped_uniques.retain(|u| !uniques.contains(u));
        out.dropped_uniques.truncate(MOST);
        out.uniques = Some(uniques);
        let is_here = |name: &str| table.column(name).is_some();
        // The triggers' mask leaves the key out, but a table that still bears them has the key that it had, under whatever names.
        let renamed_key: Vec<(&str, &str)> = match &table.key {
            TableKey::Columns(now) if !made_anew && now.len() == key.len() => key
                .iter()
                .map(String::as_str)
                .zip(table.key_names())
                .collect(),
            TableKey::Columns(_) | TableKey::Rowid(_) => Vec::new(),
        };
        let key_now = quote_list(table.key_names()).to_ascii_lowercase();
        let key_before = quote_list(key.iter().map(String::as_str)).to_ascii_lowercase();
        if made_anew && !key.is_empty() && key_before != key_now {
            out.keys.push(key_before);
            if out.keys.len() > MOST {
                out.keys.remove(0);
            }
        }
        out.keys.retain(|k| *k != key_now);
        let gone: Vec<&String> = columns.iter().filter(|c| !is_here(c)).collect();
        let is_new = |name: &str| {
            !columns
                .iter()
                .map(String::as_str)
                .chain(renamed_key.iter().map(|(_, now)| *now))
                .any(|known| known.eq_ignore_ascii_case(name))
        };
        let new = table.columns.iter().any(|c| is_new(&c.name));
        for name in gone {
            let to = renamed_key
                .iter()
                .copied()
                .chain(
                    renamed
                        .iter()
                        .copied()
                        .flatten()
                        .map(|(before, now)| (before.as_str(), now.as_str())),
                )
                .find(|(before, _)| before.eq_ignore_ascii_case(name))
                .map(|(_, now)| now.to_owned())
                .filter(|now| is_here(now));
            if to.is_none() && renamed.is_none() && new {
                // Made anew with other columns: it may have been renamed.
                continue;
            }
            for followed in out.columns.values_mut() {
                if followed
                    .as_ref()
                    .is_some_and(|f| f.eq_ignore_ascii_case(name))
                {
                    followed.clone_from(&to);
                }
            }
            out.columns.insert(name.to_ascii_lowercase(), to);
        }
        out.columns.retain(|name, _| !is_here(name));
        while out.columns.len() > MOST {
            out.columns.pop_first();
        }
        out
    }

    /// What is stored behind the names of the columns.
    pub(super) fn stored(&self) -> String {
        // Maps and lists of text: writing them to memory cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads it; nothing is known where an older program wrote nothing, or a newer one something else.
    pub(super) fn read(stored: &str) -> Self {
        serde_json::from_str(stored).unwrap_or_default()
    }
}

/// Notes in a database of ours, in which nothing is captured, that a table had a key.
///
/// # Errors
/// SQLite's.
pub(crate) fn remember_key(
    conn: &Connection,
    table: &str,
    former: &Formerly,
) -> Result<(), SqliteError> {
    let before = read_known(conn)?.remove(&table.to_ascii_lowercase());
    let mut known = KnownTable::left_out(before.as_ref());
    known.formerly = known.formerly.with_keys_of(former);
    write_known(conn, table, &known)
}

/// The columns that the update trigger tells apart, by their names when it was made and now: SQLite has rewritten the names in the comparison, and left the names of the
/// stand-ins. `None` where there is no such trigger.
pub(super) fn renamed_columns(borne: &Borne<'_>) -> Option<Vec<(String, String)>> {
    let trigger = borne.trigger("update")?;
    // The mask comes last: a comparison of each column, and behind them the stand-ins, in the same order.
    let mask = trigger
        .sql
        .get(trigger.sql.rfind("(SELECT count(*) +")?..)?;
    let now = names_before(mask, " IS NOT NEW.");
    let before = names_behind(mask, "NULL AS ");
    // There are stand-ins for `OLD` and for `NEW`.
    (before.len() == 2 * now.len()).then(|| before.into_iter().zip(now).collect())
}

/// The quoted names that stand directly behind `what`, which is not looked for inside of names.
fn names_behind(text: &str, what: &str) -> Vec<String> {
    quoted_names(text)
        .filter(|(before, ..)| before.ends_with(what))
        .map(|(_, name, _)| name)
        .collect()
}

/// The quoted names that stand directly before `what`.
fn names_before(text: &str, what: &str) -> Vec<String> {
    quoted_names(text)
        .filter(|(.., behind)| behind.starts_with(what))
        .map(|(_, name, _)| name)
        .collect()
}

/// All quoted names, each with the text before and behind it.
fn quoted_names(text: &str) -> impl Iterator<Item = (&str, String, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (before, _) = rest.split_once('"')?;
        let (name, behind) = quoted(rest.get(before.len()..)?)?;
        rest = behind;
        Some((before, name, behind))
    })
}

/// The names in a list of quoted ones.
pub(super) fn names_in(list: &str) -> Vec<String> {
    quoted_names(list).map(|(_, name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::capture::fixture::captured;
    use crate::capture::install;

    fn after(conn: &Connection, sql: &str) -> Formerly {
        conn.execute_batch(sql).unwrap();
        let now = install::refresh(conn, &|_| true, false).unwrap();
        now.tables[0].formerly.clone()
    }

    #[test]
    fn names_with_quotes_and_commas_are_read_back() {
        let names = ["a", "b, \"c", "\"", "d\"\", \"e"];
        let list = crate::sqlite::ident::quote_list(names);
        assert_eq!(names_in(&list), names);
        assert!(names_in("").is_empty());
    }

    #[test]
    fn renamed_dropped_and_renamed_again() {
        let conn =
            captured("CREATE TABLE t(k TEXT PRIMARY KEY, a, \"b\"\", (OLD.\"\"x\", c, d UNIQUE)");
        let now = after(
            &conn,
            "ALTER TABLE t RENAME COLUMN a TO \"a 2\"; ALTER TABLE t DROP COLUMN c; ALTER TABLE t RENAME COLUMN d TO d2; ALTER TABLE t RENAME COLUMN k TO key;
             ALTER TABLE t ADD COLUMN e",
        );
        assert_eq!(now.column("A"), Some(Some("a 2")));
        assert_eq!(now.column("c"), Some(None));
        assert_eq!(now.column("d"), Some(Some("d2")));
        assert_eq!(now.column("k"), Some(Some("key")));
        assert_eq!(now.column("b\", (OLD.\"x"), None);
        assert_eq!(now.column("never"), None);
        let now = after(
            &conn,
            "ALTER TABLE t RENAME COLUMN \"a 2\" TO a3; ALTER TABLE t RENAME TO u; ALTER TABLE u ADD COLUMN c",
        );
        assert_eq!(
            (now.column("a"), now.column("a 2")),
            (Some(Some("a3")), Some(Some("a3")))
        );
        assert_eq!(now.column("c"), None, "it is here again");
        assert!(now.was_called("T") && !now.was_called("u"));
        let now = after(&conn, "ALTER TABLE u DROP COLUMN a3");
        assert_eq!(
            (now.column("a"), now.column("a3")),
            (Some(None), Some(None))
        );
    }

    #[test]
    fn a_renamed_key_is_no_other_one_whatever_the_triggers_tell() {
        let wide: Vec<String> = (0..70).map(|i| format!("c{i}")).collect();
        for more in [String::new(), format!(", {}", wide.join(", "))] {
            let conn = captured(&format!(
                "CREATE TABLE m(a, b{more}, PRIMARY KEY(a, b)); INSERT INTO m(a, b) VALUES(1, 2)"
            ));
            let now = after(
                &conn,
                "ALTER TABLE m RENAME COLUMN a TO a2; ALTER TABLE m RENAME TO n",
            );
            assert!(!now.had_key(["a", "b"].into_iter()));
            assert_eq!(now.column("a"), Some(Some("a2")));
            let now = after(
                &conn,
                "CREATE TABLE x(a2, b, k PRIMARY KEY); INSERT INTO x SELECT a2, b, 1 FROM n; DROP TABLE n; ALTER TABLE x RENAME TO n",
            );
            assert!(now.had_key(["a2", "b"].into_iter()));
        }
    }

    #[test]
    fn a_table_made_anew_with_other_columns_tells_nothing() {
        let conn = captured("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)");
        let anew = |columns: &str| {
            format!(
                "CREATE TABLE n(id INTEGER PRIMARY KEY, {columns}); DROP TABLE t; ALTER TABLE n RENAME TO t"
            )
        };
        let now = after(&conn, &anew("a, c"));
        assert_eq!(now.column("b"), None);
        let now = after(&conn, &anew("a"));
        assert_eq!(now.column("c"), Some(None), "nothing can have been renamed");
    }
}
