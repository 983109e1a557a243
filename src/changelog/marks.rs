//! What this node's app has committed up to one moment: the last change-log row of each table, read in one snapshot; and whether all of
//! it has come back from the stream.
//!
//! Invariant: it works while the app goes on writing, since only rows up to the marks are looked at, and ids only rise.

use rusqlite::Connection;

use crate::capture::{Captured, CapturedTable};
use crate::change::operation::ChangeKind;
use crate::sqlite::connection::{rollback, schema_version};
use crate::sqlite::error::{Doing, SqliteError};

/// The last change-log row of each table, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks(Vec<(String, i64)>);

impl Marks {
    /// Marks up to these change-log rows, by table.
    #[must_use]
    pub fn up_to(rows: Vec<(String, i64)>) -> Self {
        Self(rows)
    }

    /// The marks of this moment; `None` where the schema has changed since `captured` was read: capture is about to be made current, and may
    /// log rows then that are committed already.
    ///
    /// # Errors
    /// SQLite's.
    pub fn now(reader: &Connection, captured: &Captured) -> Result<Option<Self>, SqliteError> {
        reader
            .execute_batch("BEGIN")
            .doing("begin to read the change logs")?;
        let marks = Self::in_snapshot(reader, captured);
        rollback(reader);
        marks
    }

    fn in_snapshot(reader: &Connection, captured: &Captured) -> Result<Option<Self>, SqliteError> {
        if schema_version(reader)? != captured.schema_version {
            return Ok(None);
        }
        let mut marks = Vec::new();
        for table in captured.tables.iter().filter(|t| !t.log.is_empty()) {
            let last: Option<i64> = reader
                .prepare_cached(&format!("SELECT max(id) FROM {}", table.log))
                .and_then(|mut s| s.query_row([], |r| r.get(0)))
                .doing_with(|| looking(table))?;
            marks.extend(last.map(|id| (table.table.name.clone(), id)));
        }
        Ok(Some(Self(marks)))
    }

    /// Forgets the tables of which nothing up to the mark is pending any more; whether none is left. A table that is not captured any more has
    /// nothing that would ever be sent.
    ///
    /// # Errors
    /// SQLite's.
    pub fn clear(&mut self, reader: &Connection, captured: &Captured) -> Result<bool, SqliteError> {
        let mut left = Vec::new();
        for (name, id) in std::mem::take(&mut self.0) {
            let Some(table) = captured.table(&name).filter(|t| !t.log.is_empty()) else {
                continue;
            };
            let sql = format!(
                "SELECT EXISTS(SELECT 1 FROM {} WHERE id <= ?1 AND type <> {})",
                table.log,
                ChangeKind::Done.code()
            );
            let pending: Result<bool, SqliteError> = reader
                .prepare_cached(&sql)
                .and_then(|mut s| s.query_row([id], |r| r.get(0)))
                .doing_with(|| looking(table));
            match pending {
                Ok(false) => {}
                Ok(true) => left.push((name, id)),
                Err(e) => return Err(e),
            }
        }
        self.0 = left;
        Ok(self.0.is_empty())
    }
}

fn looking(table: &CapturedTable) -> String {
    format!("look into the change log of table \"{}\"", table.table.name)
}
