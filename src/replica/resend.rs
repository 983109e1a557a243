//! Sending rows again that the app has not changed: their keys are logged as if it had.
//!
//! Invariant: one write transaction for all of them, with the stamps and generation of now, so that they travel and win or lose like any change of
//! this node; the scan reads their values, and sends a delete where a row is not there.

use std::time::Duration;

use super::Replica;
use crate::capture::{CapturedTable, triggers};
use crate::change::operation::ChangeKind;
use crate::change::value::OwnedValue;
use crate::changelog::marks::Marks;
use crate::sqlite::connection;
use crate::sqlite::error::{Doing, SqliteError};

/// Rows of one table: its name, and the values of each key.
pub type RowsOf = (String, Vec<Vec<OwnedValue>>);

/// What became of rows that were to be sent again.
#[derive(Debug)]
pub enum Resend {
    /// They are logged; when nothing up to the marks is pending any more, all have come back from the stream.
    Logged(Marks),
    /// The database's lock could not be had in time.
    Locked,
    /// This table is not captured here, so that nothing of it can be sent.
    NotCaptured(String),
}

impl Replica {
    /// Logs these rows whole, all or none.
    ///
    /// # Errors
    /// SQLite's; nothing is logged then.
    pub fn resend(
        &mut self,
        rows: &[RowsOf],
        patience: Duration,
        stop: &dyn Fn() -> bool,
    ) -> Result<Resend, SqliteError> {
        if !connection::begin_immediate(&self.conn, patience, stop)? {
            return Ok(Resend::Locked);
        }
        let logged = self.log_rows(rows);
        if let Ok(Resend::Logged(_)) = logged {
            let committed = self
                .conn
                .execute_batch("COMMIT")
                .doing("commit the rows that are to be sent again");
            if let Err(e) = committed {
                connection::rollback(&self.conn);
                return Err(e);
            }
        } else {
            connection::rollback(&self.conn);
        }
        logged
    }

    fn log_rows(&self, rows: &[RowsOf]) -> Result<Resend, SqliteError> {
        let mut marks = Vec::new();
        // A log of an older schema would be asked for columns that it does not have: capture is made current in a moment.
        if connection::schema_version(&self.conn)? != self.captured.schema_version {
            return Ok(Resend::Locked);
        }
        for (name, keys) in rows {
            let Some(table) = self.captured.table(name).filter(|t| !t.log.is_empty()) else {
                return Ok(Resend::NotCaptured(name.clone()));
            };
            if let Some(last) = log_whole(&self.conn, table, keys)? {
                marks.push((table.table.name.clone(), last));
            }
        }
        Ok(Resend::Logged(Marks::up_to(marks)))
    }
}

/// Logs rows of one table; the last id.
fn log_whole(
    conn: &rusqlite::Connection,
    table: &CapturedTable,
    keys: &[Vec<OwnedValue>],
) -> Result<Option<i64>, SqliteError> {
    let sql = triggers::log_change(&table.table, ChangeKind::Rewritten, table.generation);
    let doing = || format!("log rows of table \"{}\" again", table.table.name);
    let mut statement = conn.prepare_cached(&sql).doing_with(doing)?;
    let mut last = None;
    for key in keys.iter().filter(|key| key.len() == table.table.key_len()) {
        last = Some(
            statement
                .insert(rusqlite::params_from_iter(key.iter()))
                .doing_with(doing)?,
        );
    }
    Ok(last)
}
