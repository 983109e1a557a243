//! What this node's app has committed up to one moment: the last change-log row of each table, read in one snapshot; and whether all of
//! it has come back from the stream.
//!
//! Invariant: it works while the app goes on writing, since only rows up to the marks are looked at, and ids only rise.

use rusqlite::Connection;

use crate::capture::{Captured, CapturedTable};
use crate::change::operation::ChangeKind;
use crate::planted::planted;
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

    /// Whether nothing was pending.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
    /// nothing that would ever be sent; one that was renamed has taken its change log along.
    ///
    /// # Errors
    /// SQLite's.
    pub fn clear(&mut self, reader: &Connection, captured: &Captured) -> Result<bool, SqliteError> {
        if planted!(PhantomSnapshot) {
            return Ok(true);
        }
        let mut left = Vec::new();
        for (name, id) in std::mem::take(&mut self.0) {
            let Some(table) = captured.table_meant(&name).filter(|t| !t.log.is_empty()) else {
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::change::position::NodeId;
    use crate::change::value::OwnedValue;
    use crate::replica::Replica;
    use crate::replica::lifecycle::OpenOptions;
    use crate::replica::resend::Resend;
    use crate::sqlite::connection::open_reader;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn replica(path: &Path) -> (Replica, Connection) {
        let app = Connection::open(path).unwrap();
        app.execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE t(a, b, PRIMARY KEY(a, b)); CREATE TABLE u(id INTEGER PRIMARY KEY)",
        )
        .unwrap();
        let options = OpenOptions {
            node_id: NodeId(1),
            publish: true,
            include: vec![],
            exclude: vec![],
            fire_triggers: Some(Vec::new()),
        };
        let replica = Replica::open(path, &options, PATIENCE, &|| false).unwrap();
        (replica, app)
    }

    #[test]
    fn only_what_was_there_at_the_moment_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.db");
        let (replica, app) = replica(&path);
        let reader = open_reader(&path).unwrap();
        let captured = replica.captured();
        let mut none = Marks::now(&reader, captured).unwrap().unwrap();
        assert!(none.clear(&reader, captured).unwrap());

        app.execute_batch("INSERT INTO t VALUES(1, 2), (3, 4); INSERT INTO u VALUES(1)")
            .unwrap();
        let mut marks = Marks::now(&reader, captured).unwrap().unwrap();
        // The app goes on.
        app.execute_batch("INSERT INTO t VALUES(5, 6)").unwrap();
        assert!(!marks.clear(&reader, captured).unwrap());
        let (t, u) = (
            &captured.table("t").unwrap().log,
            &captured.table("u").unwrap().log,
        );
        app.execute_batch(&format!(
            "DELETE FROM {t} WHERE id = 1; UPDATE {u} SET type = 3"
        ))
        .unwrap();
        assert!(!marks.clear(&reader, captured).unwrap());
        assert_eq!(marks, Marks::up_to(vec![("t".to_owned(), 2)]));
        app.execute_batch(&format!("DELETE FROM {t} WHERE id = 2"))
            .unwrap();
        assert!(marks.clear(&reader, captured).unwrap());

        app.execute_batch("CREATE TABLE v(id INTEGER PRIMARY KEY)")
            .unwrap();
        assert_eq!(Marks::now(&reader, captured).unwrap(), None);
    }

    #[test]
    fn a_renamed_table_keeps_its_mark() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.db");
        let (mut replica, app) = replica(&path);
        let reader = open_reader(&path).unwrap();
        app.execute_batch("INSERT INTO t VALUES(1, 2)").unwrap();
        let mut marks = Marks::now(&reader, replica.captured()).unwrap().unwrap();
        app.execute_batch("ALTER TABLE t RENAME TO t2").unwrap();
        assert!(replica.make_capture_current(PATIENCE, &|| false).unwrap());
        assert!(!marks.clear(&reader, replica.captured()).unwrap());
        let log = &replica.captured().table("t2").unwrap().log;
        app.execute_batch(&format!("DELETE FROM {log}")).unwrap();
        assert!(marks.clear(&reader, replica.captured()).unwrap());
    }

    #[test]
    fn rows_are_sent_again_all_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.db");
        let (mut replica, app) = replica(&path);
        let key = |a, b| vec![OwnedValue::Integer(a), OwnedValue::Text(Box::from(b))];
        let rows = ("T".to_owned(), vec![key(1, &b"x"[..]), key(2, b"\xff")]);
        let unknown = ("nowhere".to_owned(), vec![]);
        let refused = replica.resend(&[rows.clone(), unknown], PATIENCE, &|| false);
        assert!(matches!(refused, Ok(Resend::NotCaptured(t)) if t == "nowhere"));
        assert_eq!(replica.pending_changes().unwrap(), 0);
        let logged = replica.resend(&[rows], PATIENCE, &|| false).unwrap();
        assert!(
            matches!(logged, Resend::Logged(m) if m == Marks::up_to(vec![("t".to_owned(), 2)]))
        );
        let log = &replica.captured().table("t").unwrap().log;
        let whole: i64 = app
            .query_row(
                &format!("SELECT count(*) FROM {log} WHERE type = 4 AND typeof(val_a) = 'integer' AND typeof(val_b) = 'text' AND stamp BETWEEN 0 AND 2147483647 AND generation = 1"),
                [],
                |r| r.get(0),
            )
            .unwrap();
        assert_eq!(whole, 2);
        // Who holds the lock is waited for, and not for ever.
        app.execute_batch("BEGIN IMMEDIATE").unwrap();
        let locked = replica.resend(&[], Duration::from_millis(5), &|| false);
        assert!(matches!(locked, Ok(Resend::Locked)));
    }
}
