//! What an application does: one table of six columns, written in transactions of a given size.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

/// The application's schema.
pub const SCHEMA: &str = "CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT, kind TEXT, amount REAL, quantity INTEGER, note TEXT);
    CREATE TABLE probes(id INTEGER PRIMARY KEY, v INTEGER);";

/// An application's connection.
pub struct App {
    /// The connection, for whatever else.
    pub conn: Connection,
}

impl App {
    /// Opens a database, made where there is none: WAL, `synchronous = NORMAL`, as an application with an eye on speed has it.
    pub fn open(path: &Path) -> Self {
        let new = !path.exists();
        let conn = Connection::open(path).unwrap();
        conn.busy_timeout(Duration::from_secs(30)).unwrap();
        conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
            .unwrap();
        if new {
            conn.execute_batch(SCHEMA).unwrap();
        }
        conn.set_prepared_statement_cache_capacity(32);
        Self { conn }
    }

    /// Inserts rows with ids from `from` on, `size` a transaction; says how long it took.
    pub fn insert(&self, from: i64, rows: i64, size: i64) -> Duration {
        self.put(
            "INSERT INTO items VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
            from,
            rows,
            size,
        )
    }

    /// Upserts rows, as whoever catches up by hand would.
    pub fn upsert(&self, from: i64, rows: i64, size: i64) -> Duration {
        self.put(
            "INSERT INTO items VALUES(?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT(id) DO UPDATE SET
             name = excluded.name, kind = excluded.kind, amount = excluded.amount, quantity = excluded.quantity, note = excluded.note",
            from,
            rows,
            size,
        )
    }

    fn put(&self, sql: &str, from: i64, rows: i64, size: i64) -> Duration {
        let mut stmt = self.conn.prepare_cached(sql).unwrap();
        let started = Instant::now();
        self.transactions(rows, size, |i| {
            let id = from + i;
            stmt.execute(params![
                id,
                format!("item {id}"),
                "tool",
                id as f64 * 0.25,
                id % 1000,
                "a note of some length, as they are"
            ])
            .unwrap();
        });
        started.elapsed()
    }

    /// Updates one column of rows with rising ids, `size` a transaction.
    pub fn update(&self, from: i64, rows: i64, size: i64) -> Duration {
        let mut stmt = self
            .conn
            .prepare_cached("UPDATE items SET quantity = quantity + 1 WHERE id = ?1")
            .unwrap();
        let started = Instant::now();
        self.transactions(rows, size, |i| {
            assert_eq!(stmt.execute([from + i]).unwrap(), 1);
        });
        started.elapsed()
    }

    fn transactions(&self, rows: i64, size: i64, mut row: impl FnMut(i64)) {
        let mut begin = self.conn.prepare_cached("BEGIN IMMEDIATE").unwrap();
        let mut commit = self.conn.prepare_cached("COMMIT").unwrap();
        let mut done = 0;
        while done < rows {
            // One statement is its own transaction, as applications do it.
            if size > 1 {
                begin.execute([]).unwrap();
            }
            for i in done..(done + size).min(rows) {
                row(i);
            }
            if size > 1 {
                commit.execute([]).unwrap();
            }
            done += size;
        }
    }

    /// The highest id of a table, 0 if it is empty.
    pub fn highest(&self, table: &str) -> i64 {
        let mut stmt = self
            .conn
            .prepare_cached(&format!("SELECT coalesce(max(id), 0) FROM {table}"))
            .unwrap();
        stmt.query_row([], |r| r.get(0)).unwrap()
    }

    /// How many rows a table has.
    pub fn count(&self, table: &str) -> i64 {
        self.conn
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get(0))
            .unwrap()
    }

    /// Waits until a daemon has installed its triggers.
    pub fn wait_for_capture(&self, deadline: Duration) {
        let started = Instant::now();
        let sql = "SELECT EXISTS(SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND name GLOB '__harmonylite__items*')";
        while !self
            .conn
            .query_row(sql, [], |r| r.get::<_, bool>(0))
            .unwrap()
        {
            assert!(started.elapsed() < deadline, "no capture was installed");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until a table has this id.
    pub fn wait_for(&self, table: &str, id: i64, deadline: Duration) -> bool {
        let started = Instant::now();
        while self.highest(table) < id {
            if started.elapsed() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        true
    }
}
