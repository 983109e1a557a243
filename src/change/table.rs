//! A table as replication sees it: its columns, its key, and the UNIQUE indexes that let one row remove another.

use super::key::{Collation, KeyBytes, push_normal};
use super::value::Value;

/// How SQLite converts values that are stored in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    /// None: values are stored as they come.
    Blob,
    /// Numbers become text.
    Text,
    /// Numbers stay or become numbers.
    Numeric,
    /// Like numeric.
    Integer,
    /// Integers become reals.
    Real,
}

impl Affinity {
    /// SQLite's rules for a declared type (<https://sqlite.org/datatype3.html>, section 3.1); `ANY` counts only in STRICT tables.
    #[must_use]
    pub fn of_declared(declared: &str, strict: bool) -> Self {
        let t = declared.to_ascii_uppercase();
        if strict && t == "ANY" || t.is_empty() {
            Self::Blob
        } else if t.contains("INT") {
            Self::Integer
        } else if t.contains("CHAR") || t.contains("CLOB") || t.contains("TEXT") {
            Self::Text
        } else if t.contains("BLOB") {
            Self::Blob
        } else if t.contains("REAL") || t.contains("FLOA") || t.contains("DOUB") {
            Self::Real
        } else {
            Self::Numeric
        }
    }

    /// A declared type that has it.
    #[must_use]
    pub const fn declared(self) -> &'static str {
        match self {
            Self::Blob => "",
            Self::Text => "TEXT",
            Self::Numeric => "NUMERIC",
            Self::Integer => "INTEGER",
            Self::Real => "REAL",
        }
    }
}

/// One stored (not generated) column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name, as declared.
    pub name: String,
    /// Its affinity.
    pub affinity: Affinity,
    /// Declared NOT NULL.
    pub not_null: bool,
    /// The text of its DEFAULT clause.
    pub default: Option<String>,
}

/// What identifies a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableKey {
    /// Columns of the primary key, as positions in [`Table::columns`], with the collation of the key's index.
    Columns(Vec<(usize, Collation)>),
    /// The rowid, by a name that no column hides (`rowid`, `_rowid_` or `oid`).
    Rowid(&'static str),
}

/// One term of a UNIQUE index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexTerm {
    /// The column's position in [`Table::columns`], or `None` for an expression or a generated column.
    pub column: Option<usize>,
    /// SQL text: a quoted column name or the expression, without `COLLATE` of the index.
    pub sql: String,
    /// The collation that the index compares by.
    pub collation: String,
}

/// A UNIQUE index or constraint other than the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniqueIndex {
    /// Its name, for people.
    pub name: String,
    /// Its terms.
    pub terms: Vec<IndexTerm>,
    /// The text of its WHERE clause.
    pub predicate: Option<String>,
}

impl UniqueIndex {
    /// What the index demands, in a form that is equal on nodes whose indexes only differ in name.
    #[must_use]
    pub fn definition(&self) -> String {
        let terms: Vec<String> = self
            .terms
            .iter()
            .map(|t| format!("{} COLLATE {}", t.sql, t.collation.to_ascii_uppercase()))
            .collect();
        match &self.predicate {
            Some(p) => format!("({}) WHERE {p}", terms.join(", ")),
            None => format!("({})", terms.join(", ")),
        }
    }

    /// Positions of the columns of `table` that it depends on; all of them when it has an expression or a WHERE clause, since what those read is not
    /// worth guessing.
    #[must_use]
    pub fn columns(&self, table: &Table) -> Vec<usize> {
        if self.is_plain() {
            self.terms.iter().filter_map(|t| t.column).collect()
        } else {
            (0..table.columns.len()).collect()
        }
    }

    /// Whether it is on plain columns only: no expression, no generated column, no WHERE.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.predicate.is_none() && self.terms.iter().all(|t| t.column.is_some())
    }
}

/// A replicated table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name, as declared.
    pub name: String,
    /// Its stored columns in declaration order; generated ones are left out.
    pub columns: Vec<Column>,
    /// What identifies a row.
    pub key: TableKey,
    /// The key is the alias of the rowid (`INTEGER PRIMARY KEY`).
    pub integer_key: bool,
    /// Its UNIQUE indexes besides the key.
    pub uniques: Vec<UniqueIndex>,
}

impl Table {
    /// Whether the table is too wide for a column mask: its updates travel as whole rows.
    #[must_use]
    pub fn is_wide(&self) -> bool {
        self.columns.len() > super::operation::ColumnMask::MAX_COLUMNS
    }

    /// The position of the column of this name, in whatever case.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns
            .iter()
            .position(|c| c.name.eq_ignore_ascii_case(name))
    }

    /// How many values a key has.
    #[must_use]
    pub fn key_len(&self) -> usize {
        match &self.key {
            TableKey::Columns(c) => c.len(),
            TableKey::Rowid(_) => 1,
        }
    }

    /// The key columns' names as they stand in the table; for a rowid key, the name that reaches it.
    #[must_use]
    pub fn key_names(&self) -> Vec<&str> {
        match &self.key {
            TableKey::Columns(c) => c
                .iter()
                .filter_map(|(i, _)| self.columns.get(*i))
                .map(|c| c.name.as_str())
                .collect(),
            TableKey::Rowid(name) => vec![name],
        }
    }

    /// The collation of each key value.
    #[must_use]
    pub fn key_collations(&self) -> Vec<Collation> {
        match &self.key {
            TableKey::Columns(c) => c.iter().map(|(_, c)| *c).collect(),
            TableKey::Rowid(_) => vec![Collation::Binary],
        }
    }

    /// Whether two keys of the same row can differ in bytes (NOCASE, or 1 and 1.0 without affinity).
    #[must_use]
    pub fn key_is_loose(&self) -> bool {
        match &self.key {
            TableKey::Columns(c) => {
                !self.integer_key
                    && c.iter().any(|(i, collation)| {
                        *collation != Collation::Binary
                            || self
                                .columns
                                .get(*i)
                                .is_some_and(|c| c.affinity == Affinity::Blob)
                    })
            }
            TableKey::Rowid(_) => false,
        }
    }

    /// A key in normal form.
    pub fn normal_key<'a>(&self, values: impl IntoIterator<Item = Value<'a>>) -> KeyBytes {
        let mut out = KeyBytes::new();
        match &self.key {
            TableKey::Columns(columns) => {
                for ((_, collation), value) in columns.iter().zip(values) {
                    push_normal(&mut out, &value, *collation);
                }
            }
            TableKey::Rowid(_) => {
                for value in values {
                    push_normal(&mut out, &value, Collation::Binary);
                }
            }
        }
        out
    }

    /// Positions of the columns on which a UNIQUE index depends; all of them when an index has an expression or a
    /// WHERE clause, since what those read is not worth guessing.
    #[must_use]
    pub fn unique_columns(&self) -> Vec<usize> {
        if self.uniques.iter().any(|u| !u.is_plain()) {
            return (0..self.columns.len()).collect();
        }
        let mut out: Vec<usize> = self
            .uniques
            .iter()
            .flat_map(|u| u.terms.iter().filter_map(|t| t.column))
            .collect();
        out.sort_unstable();
        out.dedup();
        out
    }

    /// The definitions of its UNIQUE indexes, sorted.
    #[must_use]
    pub fn unique_definitions(&self) -> Vec<String> {
        let mut out: Vec<String> = self.uniques.iter().map(UniqueIndex::definition).collect();
        out.sort_unstable();
        out.dedup();
        out
    }
}
