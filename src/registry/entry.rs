//! What a node says of its schema, and what two nodes differ in.

use serde::{Deserialize, Serialize};

use crate::capture::Captured;
use crate::change::table::{Table, TableKey};

/// Bytes of tables that an entry holds at most: below any server's `max_payload`, and enough for some thousand tables.
const MOST_BYTES: usize = 200 << 10;

/// One node's entry. Fields may be added; none changes its meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The node.
    pub node_id: u64,
    /// Hash of what replication knows of the schema; equal on nodes that have the same.
    pub schema_hash: String,
    /// The hash before the last change; empty if there was none.
    #[serde(default)]
    pub previous_hash: String,
    /// The program's version.
    #[serde(default)]
    pub harmonylite_version: String,
    /// When this was written, by the node's clock (RFC 3339, UTC).
    #[serde(default)]
    pub updated_at: String,
    /// How far the node has folded the stream.
    #[serde(default)]
    pub position: u64,
    /// Changes of it that have not come back from the stream.
    #[serde(default)]
    pub pending: u64,
    /// What its schema lacks, while that pauses it.
    #[serde(default)]
    pub waits_for: Option<String>,
    /// Its tables, as many as fit.
    #[serde(default)]
    pub tables: Vec<TableEntry>,
    /// How many did not.
    #[serde(default)]
    pub tables_omitted: usize,
}

/// What others must know of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableEntry {
    /// Its name.
    pub name: String,
    /// Its columns, without generated ones.
    pub columns: Vec<String>,
    /// Its key's columns; empty: the rowid.
    pub key: Vec<String>,
    /// What its UNIQUE indexes demand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uniques: Vec<String>,
}

impl TableEntry {
    /// Of a table.
    #[must_use]
    pub fn of(table: &Table) -> Self {
        let key = match &table.key {
            TableKey::Columns(_) => table.key_names(),
            TableKey::Rowid(_) => Vec::new(),
        };
        Self {
            name: table.name.clone(),
            columns: table.columns.iter().map(|c| c.name.clone()).collect(),
            key: key.into_iter().map(str::to_owned).collect(),
            uniques: table.unique_definitions(),
        }
    }

    fn bytes(&self) -> usize {
        let names = self.columns.iter().chain(&self.key).chain(&self.uniques);
        // Quotes, commas and what is escaped.
        names.map(|n| 2 * n.len() + 4).sum::<usize>() + 2 * self.name.len() + 64
    }
}

impl Entry {
    /// What is captured here; who it is and when is the caller's to add.
    #[must_use]
    pub fn of(captured: &Captured) -> Self {
        let mut tables: Vec<TableEntry> = Vec::new();
        let mut bytes = 0;
        for table in captured.tables.iter().map(|t| TableEntry::of(&t.table)) {
            bytes += table.bytes();
            if bytes > MOST_BYTES {
                break;
            }
            tables.push(table);
        }
        Self {
            node_id: 0,
            schema_hash: captured.schema_hash(),
            previous_hash: String::new(),
            harmonylite_version: env!("CARGO_PKG_VERSION").to_owned(),
            updated_at: String::new(),
            position: 0,
            pending: 0,
            waits_for: None,
            tables_omitted: captured.tables.len() - tables.len(),
            tables,
        }
    }

    /// In what the other node's schema differs from this one: a sentence for each table, column, key or index.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        if self.schema_hash == other.schema_hash {
            return Vec::new();
        }
        let mut out = Vec::new();
        for table in &self.tables {
            match find(&other.tables, &table.name) {
                Some(theirs) => table.differences(theirs, &mut out),
                None if other.tables_omitted == 0 => {
                    out.push(format!("lacks table \"{}\"", table.name));
                }
                None => {}
            }
        }
        if self.tables_omitted == 0 {
            let more = other
                .tables
                .iter()
                .filter(|t| find(&self.tables, &t.name).is_none());
            out.extend(more.map(|t| format!("has table \"{}\", which is not here", t.name)));
        }
        if out.is_empty() {
            out.push(
                "differs in the order of columns, the case of names, or tables that are not listed"
                    .to_owned(),
            );
        }
        out
    }
}

impl TableEntry {
    fn differences(&self, theirs: &Self, out: &mut Vec<String>) {
        let name = &self.name;
        let has =
            |columns: &[String], c: &String| columns.iter().any(|o| o.eq_ignore_ascii_case(c));
        for c in self.columns.iter().filter(|c| !has(&theirs.columns, c)) {
            out.push(format!("lacks column \"{c}\" of table \"{name}\""));
        }
        for c in theirs.columns.iter().filter(|c| !has(&self.columns, c)) {
            out.push(format!(
                "has column \"{c}\" of table \"{name}\", which is not here"
            ));
        }
        let same_key = self.key.len() == theirs.key.len()
            && self
                .key
                .iter()
                .zip(&theirs.key)
                .all(|(a, b)| a.eq_ignore_ascii_case(b));
        if !same_key {
            out.push(format!(
                "has another key of table \"{name}\": {} (here: {})",
                key_words(&theirs.key),
                key_words(&self.key)
            ));
        }
        for u in self.uniques.iter().filter(|u| !theirs.uniques.contains(u)) {
            out.push(format!("lacks a UNIQUE index of table \"{name}\" on {u}"));
        }
        for u in theirs.uniques.iter().filter(|u| !self.uniques.contains(u)) {
            out.push(format!(
                "has a UNIQUE index of table \"{name}\" on {u}, which is not here"
            ));
        }
    }
}

fn find<'t>(tables: &'t [TableEntry], name: &str) -> Option<&'t TableEntry> {
    tables.iter().find(|t| t.name.eq_ignore_ascii_case(name))
}

fn key_words(key: &[String]) -> String {
    if key.is_empty() {
        "the rowid".to_owned()
    } else {
        key.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::install;

    fn entry(sql: &str) -> Entry {
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        conn.execute_batch(sql).unwrap();
        Entry::of(&install::describe_only(&conn, &|_| true, &mut Default::default()).unwrap())
    }

    #[test]
    fn what_differs_is_named() {
        let here = entry("CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b); CREATE TABLE u(v);");
        assert!(here.differences(&here.clone()).is_empty());
        let there =
            entry("CREATE TABLE T(id, a, c, PRIMARY KEY(id)); CREATE TABLE w(x, PRIMARY KEY(x));");
        let said = here.differences(&there);
        for expected in [
            "lacks column \"b\" of table \"t\"",
            "has column \"c\" of table \"t\", which is not here",
            "lacks a UNIQUE index of table \"t\" on (\"a\" COLLATE BINARY)",
            "lacks table \"u\"",
            "has table \"w\", which is not here",
        ] {
            assert!(said.iter().any(|s| s == expected), "{expected}: {said:?}");
        }
        let rekeyed =
            entry("CREATE TABLE t(id, a UNIQUE, b, PRIMARY KEY(id, b)); CREATE TABLE u(v);");
        assert_eq!(
            here.differences(&rekeyed),
            ["has another key of table \"t\": id, b (here: id)"]
        );
    }

    #[test]
    fn entries_are_bounded_and_those_of_later_versions_are_read() {
        let columns: Vec<String> = (0..40)
            .map(|i| format!("a_rather_long_column_name_{i}"))
            .collect();
        let sql: String = (0..1000)
            .map(|i| {
                format!(
                    "CREATE TABLE t{i}(id INTEGER PRIMARY KEY, {});",
                    columns.join(", ")
                )
            })
            .collect();
        let large = entry(&sql);
        let bytes = serde_json::to_vec(&large).unwrap();
        assert!(bytes.len() < MOST_BYTES + 1024, "{}", bytes.len());
        assert_eq!(large.tables.len() + large.tables_omitted, 1000);
        assert!(large.tables_omitted > 0);
        let later = r#"{"node_id": 7, "schema_hash": "x", "something": {"new": 1}}"#;
        let read: Entry = serde_json::from_str(later).unwrap();
        assert_eq!((read.node_id, read.tables.len()), (7, 0));
        assert_eq!(large.differences(&read).len(), large.tables.len());
    }
}
