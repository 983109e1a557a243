//! Keeps capture current when the application changes its schema.
//!
//! The application's writers wait for the write lock, so how long it is held depends on what has changed, not on how many tables there are: the schema is read, compared and its triggers are
//! looked at in a transaction that only reads; under the lock only the differences are written, if the schema is still the same one. What was found out about a table or a trigger is
//! remembered by its text. Many new tables are captured in several transactions.
//!
//! Invariants: what is known of capture (`Replica::captured`) is changed by the last of these transactions only, so until then the schema counts as another one; a table that was captured by one before is
//! whole by itself: log, triggers and mark have come together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Replica;
use crate::capture::app_triggers::{self, AppTriggers, Surroundings, Verdicts};
use crate::capture::prepare::Prepared;
use crate::capture::{Captured, install, remove};
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::introspect::Familiar;
use crate::sqlite::{concerns, connection};
use crate::state::unsure;

/// How long one transaction may hold the write lock to capture new tables, and how long it is left alone after it.
const HOLD: Duration = Duration::from_millis(25);
const REST: Duration = Duration::from_millis(5);

/// What makes the next change of the schema cheap.
#[derive(Default)]
pub struct Current {
    familiar: Familiar,
    verdicts: Verdicts,
    ready: Option<Ready>,
}

/// How much was looked at since the database was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookedAt {
    /// Definitions of tables that were read.
    pub tables: u64,
    /// Triggers of the application that were compiled.
    pub triggers: u64,
}

/// What was found out before the write lock was taken.
struct Ready {
    prepared: Prepared,
    /// `None`: not known before something is renamed, or none fires at all.
    triggers: Option<AppTriggers>,
}

impl Replica {
    /// How much of the schema was looked at since the database was opened.
    #[must_use]
    pub fn looked_at(&self) -> LookedAt {
        LookedAt {
            tables: self.current.familiar.examined(),
            triggers: self.current.verdicts.compiled(),
        }
    }

    /// Makes capture current after a change of the schema, in transactions of its own. `Ok(false)`: the lock could not be had in time.
    ///
    /// # Errors
    /// SQLite's.
    pub fn refresh_capture(
        &mut self,
        patience: Duration,
        stop: &dyn Fn() -> bool,
    ) -> Result<bool, SqliteError> {
        self.prepare_capture();
        while let Some(ready) = self
            .current
            .ready
            .take_if(|ready| ready.prepared.new_tables() > 0)
        {
            if !self.capture_new_tables(ready, patience, stop)? {
                return Ok(false);
            }
            std::thread::sleep(REST);
        }
        let done = self.write(patience, stop, "commit the capture triggers", |replica| {
            replica.refresh_capture_here()
        });
        self.current.ready = None;
        done.map(|done| done.is_some())
    }

    /// As [`Replica::refresh_capture`], where the schema is another than the one that capture was made for.
    ///
    /// # Errors
    /// SQLite's.
    pub fn make_capture_current(
        &mut self,
        patience: Duration,
        stop: &dyn Fn() -> bool,
    ) -> Result<bool, SqliteError> {
        Ok(self.capture_is_current()? || self.refresh_capture(patience, stop)?)
    }

    /// Whether the schema is the one that capture was made for.
    pub(super) fn capture_is_current(&self) -> Result<bool, SqliteError> {
        Ok(connection::schema_version(&self.conn)? == self.captured.schema_version)
    }

    /// Finds out what is to be done, without the write lock. What cannot be found out now is found out, or fails, under the lock.
    fn prepare_capture(&mut self) {
        self.current.ready = None;
        if !self.publish {
            return;
        }
        let read = self.conn.execute_batch("BEGIN").doing("read the schema");
        let ready = read.and_then(|()| {
            let first = self.captures_first()?;
            let ready = self.look(first)?;
            // Nothing is applied before capture is current, so they may be there already.
            if let Some(triggers) = &ready.triggers {
                app_triggers::put(&self.conn, &triggers.copies)?;
            }
            self.conn
                .execute_batch("COMMIT")
                .doing("end reading the schema")?;
            Ok(ready)
        });
        match ready {
            Ok(ready) => self.current.ready = Some(ready),
            Err(e) => {
                connection::rollback(&self.conn);
                tracing::debug!(error = %e, "the schema could not be read ahead of the write lock");
            }
        }
    }

    /// Whether nothing was ever captured here.
    fn captures_first(&self) -> Result<bool, SqliteError> {
        Ok(!self.opened && !self.was_captured()?)
    }

    /// Reads the schema and decides what is to be done. Call it inside a transaction.
    fn look(&mut self, first: bool) -> Result<Ready, SqliteError> {
        let (filter, conn) = (&self.filter, &self.conn);
        let wanted = |t: &str| filter.wants(conn, t);
        let mut prepared = Prepared::read(conn, &wanted, first, &mut self.current.familiar)?;
        let triggers = match prepared.captured() {
            Some(captured) => self.decide_triggers(captured)?,
            None => None,
        };
        Ok(Ready { prepared, triggers })
    }

    /// Which of the application's triggers are to fire here; `None`: none at all.
    fn decide_triggers(&mut self, captured: &Captured) -> Result<Option<AppTriggers>, SqliteError> {
        let Some(named) = &self.fire_triggers else {
            return Ok(None);
        };
        let around = Surroundings {
            replicated: &|t| captured.table(t).is_some(),
            virtual_tables: &captured.virtual_tables,
            named,
            before: &self.captured.triggers,
        };
        app_triggers::decide(&mut self.conn, around, &mut self.current.verdicts).map(Some)
    }

    /// Captures as many new tables as there is time for, in a transaction of its own. `Ok(false)`: the lock could not be had in time.
    fn capture_new_tables(
        &mut self,
        mut ready: Ready,
        patience: Duration,
        stop: &dyn Fn() -> bool,
    ) -> Result<bool, SqliteError> {
        let done = self.write(
            patience,
            stop,
            "commit the capture of new tables",
            |replica| {
                let version = connection::schema_version(&replica.conn)?;
                if !ready.prepared.fits(version, replica.captures_first()?) {
                    return Ok(None);
                }
                let since = Instant::now();
                let before = unsure::read(&replica.conn)?;
                let tables = ready
                    .prepared
                    .carry_out_new_tables(&replica.conn, &|| since.elapsed() < HOLD)?;
                let now = unsure::read(&replica.conn)?;
                Ok::<_, SqliteError>(Some((tables, before, now)))
            },
        );
        let Some(done) = done? else {
            return Ok(false);
        };
        if let Some((tables, before, now)) = done {
            self.unsure.note(&before, &now);
            for table in &tables {
                self.in_flight.forget_table(table);
            }
            if ready.prepared.new_tables() > 0 {
                self.current.ready = Some(ready);
                return Ok(true);
            }
        }
        self.prepare_capture();
        Ok(true)
    }

    /// Whether capture was ever installed here.
    pub(crate) fn was_captured(&self) -> Result<bool, SqliteError> {
        self.conn
            .query_row(
                "SELECT EXISTS(SELECT 1 FROM __harmonylite__tables)",
                [],
                |r| r.get(0),
            )
            .doing("read the captured tables")
    }

    /// As [`Replica::refresh_capture`], inside a write transaction.
    pub(crate) fn refresh_capture_here(&mut self) -> Result<(), SqliteError> {
        let first = self.captures_first()?;
        self.refresh_capture_as(first)
    }

    /// Inside a write transaction; `first`: the rows that are there are on the account of the stream, not to be logged.
    pub(crate) fn refresh_capture_as(&mut self, first: bool) -> Result<(), SqliteError> {
        self.plans.clear();
        self.pending.clear();
        // Change logs may be made anew.
        self.ahead = None;
        if first {
            // Those that are out of sight may be of tables that have just come.
            app_triggers::drop_copies(&self.conn)?;
        }
        let mut triggers = None;
        let mut captured = if self.publish {
            let version = connection::schema_version(&self.conn)?;
            let ready = self.current.ready.take();
            let ready = match ready.filter(|r| r.prepared.fits(version, first)) {
                Some(ready) => ready,
                None => self.look(first)?,
            };
            triggers = ready.triggers;
            if ready.prepared.renames() {
                // SQLite renames nothing while there is a trigger whose table has another name by now.
                app_triggers::drop_copies(&self.conn)?;
            }
            let before = unsure::read(&self.conn)?;
            let captured = ready.prepared.carry_out(&self.conn)?;
            self.unsure.note(&before, &unsure::read(&self.conn)?);
            captured
        } else {
            self.unsure.note(&[], &[]);
            remove::remove_capture(&self.conn)?;
            let (filter, conn) = (&self.filter, &self.conn);
            let wanted = |t: &str| filter.wants(conn, t);
            install::describe_only(conn, &wanted, &mut self.current.familiar)?
        };
        for table in &captured.new_logs {
            self.in_flight.forget_table(table);
        }
        if triggers.is_none() {
            triggers = self.decide_triggers(&captured)?;
        }
        if let Some(triggers) = triggers {
            app_triggers::put(&self.conn, &triggers.copies)?;
            captured.set_triggers(triggers);
        }
        for (before, now) in &captured.renamed {
            self.in_flight.rename_table(before, now);
        }
        for warning in captured
            .warnings
            .iter()
            .filter(|w| !self.captured.warnings.contains(w))
        {
            tracing::warn!("{warning}");
        }
        for (table, reason) in captured
            .refused
            .iter()
            .filter(|r| !self.captured.refused.contains(r))
        {
            tracing::error!("{}", concerns::refusal(table, reason));
        }
        self.captured = Arc::new(captured);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::position::NodeId;
    use crate::replica::lifecycle::OpenOptions;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// A node with this many tables, each with a trigger that fires here; the application's connection, and the folder.
    fn node(tables: usize) -> (Replica, rusqlite::Connection, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let app = rusqlite::Connection::open(&path).unwrap();
        app.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE seen(id INTEGER PRIMARY KEY)")
            .unwrap();
        for n in 0..tables {
            add_table(&app, n);
        }
        let replica = open(&path);
        (replica, app, folder)
    }

    fn open(path: &std::path::Path) -> Replica {
        let options = OpenOptions {
            node_id: NodeId(1),
            publish: true,
            include: Vec::new(),
            exclude: vec!["seen".to_owned(), "other".to_owned()],
            fire_triggers: Some(Vec::new()),
        };
        Replica::open(path, &options, PATIENCE, &|| false).unwrap()
    }

    fn add_table(app: &rusqlite::Connection, n: usize) {
        app.execute_batch(&format!(
            "CREATE TABLE t{n}(id INTEGER PRIMARY KEY, a, b UNIQUE); CREATE TRIGGER g{n} AFTER INSERT ON t{n} BEGIN INSERT INTO seen VALUES(NULL); END"
        ))
        .unwrap();
    }

    fn version(app: &rusqlite::Connection) -> i64 {
        connection::schema_version(app).unwrap()
    }

    /// What a change of the schema costs: definitions read, triggers compiled, and objects of ours made or dropped, each of which raises the version by one.
    fn cost(replica: &mut Replica, app: &rusqlite::Connection, sql: &str) -> (u64, u64, i64) {
        app.execute_batch(sql).unwrap();
        let (before, looked_at) = (version(app), replica.looked_at());
        assert!(replica.make_capture_current(PATIENCE, &|| false).unwrap());
        let after = replica.looked_at();
        (
            after.tables - looked_at.tables,
            after.triggers - looked_at.triggers,
            version(app) - before,
        )
    }

    #[test]
    fn what_a_change_costs_does_not_depend_on_how_many_tables_there_are() {
        let costs = [3, 40].map(|tables| {
            let (mut replica, app, _folder) = node(tables);
            let mut of = |sql: &str| cost(&mut replica, &app, sql);
            let costs = [
                of("CREATE INDEX i ON t1(a)"),
                of("CREATE TABLE one(id INTEGER PRIMARY KEY)"),
                of("ALTER TABLE t2 ADD COLUMN c"),
                of("CREATE TRIGGER more AFTER DELETE ON t0 BEGIN DELETE FROM seen; END"),
                of("DROP TABLE one"),
            ];
            assert_eq!(replica.captured().tables.len(), tables);
            assert_eq!(replica.captured().triggers.len(), tables + 1);
            costs
        });
        assert_eq!(costs[0], costs[1]);
        let [index, table, column, trigger, dropped] = costs[0];
        assert_eq!(index, (1, 1, 0), "a plain index is nothing to us");
        assert_eq!((table.0, table.1), (1, 0));
        // Its trigger is compiled anew with it.
        assert_eq!((column.0, column.1), (1, 1));
        assert_eq!((trigger.0, trigger.1), (0, 1));
        assert_eq!((dropped.0, dropped.1), (0, 0));
    }

    #[test]
    fn triggers_are_copied_anew_where_what_they_name_has_changed() {
        let (mut replica, app, _folder) = node(3);
        let names = |replica: &Replica| -> Vec<String> {
            let copies = replica.captured().triggers.iter();
            copies.map(|c| c.name.clone()).collect()
        };
        assert_eq!(names(&replica), ["g0", "g1", "g2"]);
        // It cannot be compiled any more, and the others can.
        cost(
            &mut replica,
            &app,
            "DROP TABLE seen; CREATE TABLE other(id INTEGER PRIMARY KEY); CREATE TRIGGER g9 AFTER INSERT ON t0 BEGIN DELETE FROM other; END",
        );
        assert_eq!(names(&replica), ["g9"]);
        cost(
            &mut replica,
            &app,
            "CREATE TABLE seen(id INTEGER PRIMARY KEY); DROP TRIGGER g1; CREATE TRIGGER g1 AFTER UPDATE ON t1 BEGIN DELETE FROM seen; END",
        );
        assert_eq!(names(&replica), ["g0", "g2", "g9", "g1"]);
        cost(
            &mut replica,
            &app,
            "ALTER TABLE t2 RENAME TO t22; DROP TABLE t0",
        );
        assert_eq!(names(&replica), ["g2", "g1"]);
        let there: Vec<String> = replica
            .conn
            .prepare("SELECT tbl_name FROM temp.sqlite_schema WHERE type = 'trigger' ORDER BY name")
            .unwrap()
            .query_map([], |r| r.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(there, ["t1", "t22"]);
    }

    #[test]
    fn many_new_tables_are_captured_whole_one_after_the_other() {
        let (mut replica, app, _folder) = node(2);
        for n in 10..15 {
            add_table(&app, n);
            app.execute_batch(&format!("INSERT INTO t{n}(a) VALUES(1)"))
                .unwrap();
        }
        replica.prepare_capture();
        let mut ready = replica.current.ready.take().unwrap();
        assert_eq!(ready.prepared.new_tables(), 5);
        // As many as there is time for; then the application writes, and the daemon is killed.
        let two: Vec<String> = (0..2)
            .flat_map(|_| {
                replica.conn.execute_batch("BEGIN IMMEDIATE").unwrap();
                let done = ready
                    .prepared
                    .carry_out_new_tables(&replica.conn, &|| false);
                replica.conn.execute_batch("COMMIT").unwrap();
                done.unwrap()
            })
            .collect();
        assert_eq!(two, ["t14", "t13"]);
        app.execute_batch("INSERT INTO t14(a) VALUES(2); INSERT INTO t12(a) VALUES(2)")
            .unwrap();
        drop(replica);
        let replica = open(app.path().unwrap().as_ref());
        assert_eq!(replica.captured().tables.len(), 7);
        let pending = replica.pending_by_table().unwrap();
        let of = |table: &str| pending.iter().find(|(t, _)| t == table).map(|(_, n)| *n);
        assert_eq!([of("t14"), of("t13")], [Some(2), Some(1)]);
        assert_eq!(
            [of("t12"), of("t11"), of("t10")],
            [Some(2), Some(1), Some(1)]
        );
    }
}
