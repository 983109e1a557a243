//! What an application does: one table of six columns, written in transactions of a given size.
//!
//! It stands for the user's application, so it uses SQLite as any program would, and nothing of ours.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use super::error::{BenchError, Done};
use crate::runtime::Shutdown;

/// The application's schema.
pub const SCHEMA: &str = "CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT, kind TEXT, amount REAL, quantity INTEGER, note TEXT);
    CREATE TABLE probes(id INTEGER PRIMARY KEY, v INTEGER);";

/// What it inserts.
pub const INSERT: &str = "INSERT INTO items VALUES(?1, ?2, ?3, ?4, ?5, ?6)";

/// The same, as whoever catches up by hand would do it.
pub const UPSERT: &str = "INSERT INTO items VALUES(?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT(id) DO UPDATE SET
    name = excluded.name, kind = excluded.kind, amount = excluded.amount, quantity = excluded.quantity, note = excluded.note";

/// How long the application waits for the write lock.
const BUSY: Duration = Duration::from_secs(30);

/// How much is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// So many rows.
    Rows(i64),
    /// As many as come in so long.
    Time(Duration),
}

/// What was written.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// Rows.
    pub rows: i64,
    /// In how long.
    pub took: Duration,
}

impl Written {
    /// Rows a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.rows as f64 / self.took.as_secs_f64()
    }
}

/// An application's connection.
pub struct App {
    /// The connection, for whatever else.
    pub conn: Connection,
    stop: Shutdown,
}

impl App {
    /// Opens a database: WAL, `synchronous = NORMAL`, as an application with an eye on speed has it. The schema is made where the file is new.
    ///
    /// # Errors
    /// SQLite's.
    pub fn open(path: &Path, stop: &Shutdown) -> Done<Self> {
        let new = !path.exists();
        let conn = Connection::open(path)?;
        conn.busy_timeout(BUSY)?;
        conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
        if new {
            conn.execute_batch(SCHEMA)?;
        }
        conn.set_prepared_statement_cache_capacity(32);
        Ok(Self {
            conn,
            stop: stop.clone(),
        })
    }

    /// Writes rows of `items` with ids from `from` on, each `stride` above the last, `size` a transaction.
    ///
    /// # Errors
    /// SQLite's; that the benchmark was stopped.
    pub fn put(
        &self,
        sql: &str,
        from: i64,
        stride: i64,
        amount: Amount,
        size: i64,
    ) -> Done<Written> {
        let mut stmt = self.conn.prepare_cached(sql)?;
        self.transactions(amount, size, |i| {
            let id = from + i * stride;
            stmt.execute(params![
                id,
                format!("item {id}"),
                "tool",
                id as f64 * 0.25,
                id % 1000,
                "a note of some length, as they are"
            ])?;
            Ok(())
        })
    }

    /// Inserts so many rows.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn insert(&self, from: i64, rows: i64, size: i64) -> Done<Written> {
        self.put(INSERT, from, 1, Amount::Rows(rows), size)
    }

    /// Updates one column of rows with rising ids from `from` on, beginning anew after `of` rows, `size` a transaction.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn update(&self, from: i64, of: i64, amount: Amount, size: i64) -> Done<Written> {
        let mut stmt = self
            .conn
            .prepare_cached("UPDATE items SET quantity = quantity + 1 WHERE id = ?1")?;
        self.transactions(amount, size, |i| {
            stmt.execute([from + i % of])?;
            Ok(())
        })
    }

    /// Runs `row` for 0, 1, 2, … in transactions of `size`.
    ///
    /// # Errors
    /// Those of `row`; that the benchmark was stopped.
    pub fn transactions(
        &self,
        amount: Amount,
        size: i64,
        mut row: impl FnMut(i64) -> Done<()>,
    ) -> Done<Written> {
        let mut begin = self.conn.prepare_cached("BEGIN IMMEDIATE")?;
        let mut commit = self.conn.prepare_cached("COMMIT")?;
        let started = Instant::now();
        let mut done = 0;
        loop {
            let left = match amount {
                Amount::Rows(rows) => rows - done,
                Amount::Time(time) if started.elapsed() < time => size,
                Amount::Time(_) => 0,
            };
            if left <= 0 {
                break;
            }
            if self.stop.is_requested() {
                return Err(BenchError::Stopped);
            }
            // One statement is its own transaction, as applications do it.
            if size > 1 {
                begin.execute([])?;
            }
            let now = size.min(left);
            for i in done..done + now {
                row(i)?;
            }
            if size > 1 {
                commit.execute([])?;
            }
            done += now;
        }
        Ok(Written {
            rows: done,
            took: started.elapsed(),
        })
    }

    /// One number of a query.
    ///
    /// # Errors
    /// SQLite's.
    pub fn integer(&self, sql: &str) -> Done<i64> {
        let mut stmt = self.conn.prepare_cached(sql)?;
        Ok(stmt.query_row([], |r| r.get(0))?)
    }

    /// The highest id of a table, 0 if it is empty.
    ///
    /// # Errors
    /// SQLite's.
    pub fn highest(&self, table: &str) -> Done<i64> {
        self.integer(&format!("SELECT coalesce(max(id), 0) FROM {table}"))
    }

    /// Whether a table has a row.
    ///
    /// # Errors
    /// SQLite's.
    pub fn has(&self, table: &str, id: i64) -> Done<bool> {
        let sql = format!("SELECT EXISTS(SELECT 1 FROM {table} WHERE id = ?1)");
        let mut stmt = self.conn.prepare_cached(&sql)?;
        Ok(stmt.query_row([id], |r| r.get(0))?)
    }

    /// Changes that have not come back from the stream.
    ///
    /// # Errors
    /// SQLite's.
    pub fn pending(&self) -> Done<i64> {
        self.integer("SELECT count(*) FROM __harmonylite___global_change_log")
    }
}

/// Several writers at once.
pub struct Writers<'a> {
    /// The database.
    pub path: &'a Path,
    /// How many.
    pub clients: usize,
    /// Rows a transaction.
    pub size: i64,
    /// Ids from here on.
    pub from: i64,
}

/// What several writers have written.
pub struct Together {
    /// How much each.
    pub each: Vec<i64>,
    /// The last id of each.
    pub last: Vec<i64>,
    /// All of them, until the last was ready.
    pub all: Written,
}

impl Writers<'_> {
    /// Lets each insert its own amount; that of the first where `amounts` has too few.
    ///
    /// # Errors
    /// As [`App::put`].
    pub fn run(&self, amounts: &[Amount], stop: &Shutdown) -> Done<Together> {
        let stride = i64::try_from(self.clients).unwrap_or(i64::MAX);
        let usual = amounts.first().copied().unwrap_or(Amount::Rows(0));
        let started = Instant::now();
        let ended: Vec<Done<Written>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..stride)
                .map(|client| {
                    let amount = usize::try_from(client).ok().and_then(|c| amounts.get(c));
                    let amount = amount.copied().unwrap_or(usual);
                    scope.spawn(move || {
                        let app = App::open(self.path, stop)?;
                        app.put(INSERT, self.from + client, stride, amount, self.size)
                    })
                })
                .collect();
            let join = |t: std::thread::ScopedJoinHandle<'_, Done<Written>>| t.join();
            threads
                .into_iter()
                .map(|t| join(t).unwrap_or(Err(BenchError::Thread)))
                .collect()
        });
        let took = started.elapsed();
        let each = ended
            .into_iter()
            .map(|w| Ok(w?.rows))
            .collect::<Done<Vec<i64>>>()?;
        let last = each.iter().zip(self.from..);
        Ok(Together {
            last: last.map(|(rows, at)| at + (rows - 1) * stride).collect(),
            all: Written {
                rows: each.iter().sum(),
                took,
            },
            each,
        })
    }
}
