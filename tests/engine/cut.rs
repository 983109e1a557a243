//! A long change log is cut into batches at committed states: after each batch a follower has what was committed at that point, whatever the workload.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::support::engine::Node;
use harmonylite::apply::incoming::{self, Incoming};
use harmonylite::change::position::Sequence;
use harmonylite::changelog::commit_points::CommitPoint;
use harmonylite::publish::outbox::Outbox;
use rusqlite::Connection;

const SCHEMA: &str = "
    PRAGMA foreign_keys = ON;
    CREATE TABLE plain(id INTEGER PRIMARY KEY, a, b);
    CREATE TABLE users(id INTEGER PRIMARY KEY, email TEXT UNIQUE, name TEXT);
    CREATE TABLE words(word TEXT PRIMARY KEY COLLATE NOCASE, n) WITHOUT ROWID;
    CREATE TABLE parents(id INTEGER PRIMARY KEY, v);
    CREATE TABLE children(id INTEGER PRIMARY KEY, parent REFERENCES parents(id) ON DELETE CASCADE ON UPDATE CASCADE, v);
    CREATE TABLE pairs(a, b, v, PRIMARY KEY(a, b));";

const TABLES: [&str; 6] = ["plain", "users", "words", "parents", "children", "pairs"];

/// One statement of an application. `many`: keys from which it chooses.
fn statement(r: &mut StdRng, many: i64) -> String {
    let (k, l, v) = (
        r.random_range(1..=many),
        r.random_range(1..=many),
        r.random_range(0..1000),
    );
    match r.random_range(0..17) {
        0..=2 => format!("INSERT OR REPLACE INTO plain VALUES({k}, {v}, {l})"),
        3 => format!("UPDATE plain SET a = {v} WHERE id = {k}"),
        4 => format!("DELETE FROM plain WHERE id = {k}"),
        5 => format!("UPDATE OR IGNORE plain SET id = {l} WHERE id = {k}"),
        6 => format!("INSERT OR REPLACE INTO users VALUES({k}, 'mail {l}', {v})"),
        7 => format!("UPDATE OR REPLACE users SET email = 'mail {l}' WHERE id = {k}"),
        8 => format!("UPDATE users SET name = {v} WHERE id = {k}"),
        9 => format!("INSERT OR REPLACE INTO words VALUES('word {k}', {v})"),
        10 => format!("UPDATE words SET word = upper(word), n = {v} WHERE word = 'WORD {k}'"),
        11 => format!("INSERT OR IGNORE INTO parents VALUES({k}, {v})"),
        12 => format!(
            "INSERT OR REPLACE INTO children SELECT {l}, id, {v} FROM parents WHERE id = {k}"
        ),
        13 => format!("DELETE FROM parents WHERE id = {k}"),
        14 => format!("UPDATE OR IGNORE parents SET id = {l} WHERE id = {k}"),
        15 => format!("INSERT OR REPLACE INTO pairs VALUES({k}, 'x', {v})"),
        _ => format!("UPDATE OR REPLACE pairs SET a = {l} + 0.0 WHERE a = {k}"),
    }
}

/// All rows of all tables.
fn rows(conn: &Connection) -> Vec<String> {
    let mut out = Vec::new();
    for table in TABLES {
        let mut stmt = conn
            .prepare_cached(&format!("SELECT * FROM {table} ORDER BY 1, 2"))
            .unwrap();
        let columns = stmt.column_count();
        let mut rows = stmt.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let row: Vec<String> = (0..columns)
                .map(|c| format!("{:?}", row.get_ref(c).unwrap()))
                .collect();
            out.push(format!("{table}: {}", row.join(" ")));
        }
    }
    out
}

struct Run {
    writer: Node,
    reader: Node,
    /// Another connection of the application.
    app: Connection,
    log: Vec<bytes::Bytes>,
    /// What was committed at points, by their ids.
    committed: HashMap<Vec<i64>, Vec<String>>,
    cuts: u64,
}

impl Run {
    fn new(goal: u64) -> Self {
        let mut writer = Node::new(1, SCHEMA);
        writer.cutter.set_goal(goal);
        let app = Connection::open(writer.replica.path()).unwrap();
        app.execute_batch("PRAGMA foreign_keys = ON; PRAGMA synchronous = OFF")
            .unwrap();
        Self {
            writer,
            reader: Node::new(2, SCHEMA),
            app,
            log: Vec::new(),
            committed: HashMap::new(),
            cuts: 0,
        }
    }

    fn transaction(&self, r: &mut StdRng, many: i64) {
        self.app.execute_batch("BEGIN IMMEDIATE").unwrap();
        for _ in 0..r.random_range(1..8) {
            // One that is refused leaves the others.
            let _ = self.app.execute_batch(&statement(r, many));
        }
        self.app.execute_batch("COMMIT").unwrap();
    }

    fn point(&self) -> CommitPoint {
        let captured = self.writer.replica.captured();
        let point = CommitPoint::now(self.writer.reader(), captured);
        point.unwrap().unwrap()
    }

    fn note(&mut self) {
        let point = self.point();
        self.committed.insert(point.ids().to_vec(), rows(&self.app));
        self.writer.cutter.points().note(point);
    }

    /// One batch goes to the follower; whether there is more.
    fn batch(&mut self, why: &str) -> bool {
        // Where this scan sees the log's end, a later one may end.
        let now = self.point();
        self.committed.insert(now.ids().to_vec(), rows(&self.app));
        let scanned = self.writer.scan_once();
        if let Some(batch) = scanned.batch {
            self.log.push(Outbox::new(batch).commit().unwrap());
            let last = self.messages(self.log.len() - 1);
            assert_eq!(self.reader.apply(&last).consumed, 1);
        }
        let expected = match &scanned.cut {
            Some(cut) => {
                self.cuts += 1;
                self.committed
                    .get(cut.ids())
                    .expect("a point that was noted")
                    .clone()
            }
            None => rows(&self.app),
        };
        let found = rows(self.reader.app());
        let differs = |a: &[String], b: &[String]| -> Vec<String> {
            a.iter().filter(|row| !b.contains(row)).cloned().collect()
        };
        if found != expected {
            panic!(
                "{why}, batch {}: there {:?}, committed {:?}",
                self.log.len(),
                differs(&found, &expected),
                differs(&expected, &found)
            );
        }
        scanned.cut.is_some()
    }

    /// What stands in the stream behind a position.
    fn messages(&self, behind: usize) -> Vec<Incoming> {
        let log = self.log.iter().enumerate().skip(behind);
        log.map(|(i, bytes)| incoming::open(Sequence(i as u64 + 1), bytes))
            .collect()
    }

    /// What was sent comes back.
    fn echoes(&mut self) {
        let at = usize::try_from(self.writer.replica.position().sequence.0).unwrap();
        let messages = self.messages(at);
        self.writer.apply(&messages);
    }
}

/// A random workload; how many batches were cut.
fn random(seed: u64) -> u64 {
    let r = &mut StdRng::seed_from_u64(seed);
    let goal = r.random_range(1..20);
    let many = [30, 300, 3000][r.random_range(0..3)];
    let why = format!("seed {seed}, goal {goal}, {many} keys");
    let mut run = Run::new(goal);
    for _ in 0..6 {
        for _ in 0..r.random_range(1..40) {
            run.transaction(r, many);
            if r.random_bool(0.7) {
                run.note();
            }
        }
        // Not all of it, most times: what is left is read on from.
        for _ in 0..r.random_range(1..20) {
            if !run.batch(&why) {
                break;
            }
            if r.random_bool(0.3) {
                run.transaction(r, many);
                run.note();
            }
            if r.random_bool(0.2) {
                run.echoes();
            }
        }
    }
    while run.batch(&why) {}
    run.echoes();
    let both = (rows(&run.app), rows(run.reader.app()));
    assert_eq!((run.writer.pending(), both.0), (0, both.1), "{why}");
    run.cuts
}

#[test]
fn a_follower_has_committed_states_alone() {
    let cuts: u64 = (1..=10).map(random).sum();
    assert!(cuts > 100, "{cuts}");
}

/// The test above is worth something.
#[cfg(feature = "planted-bugs")]
#[test]
fn a_batch_that_ends_anywhere_is_noticed() {
    use harmonylite::planted::{Bug, plant};
    plant(Some(Bug::CutAnywhere));
    let found = (1..=10).find(|seed| std::panic::catch_unwind(|| random(*seed)).is_err());
    plant(None);
    assert!(found.is_some());
}

#[test]
fn a_row_that_each_transaction_changes_lets_nothing_be_cut() {
    let mut run = Run::new(5);
    for n in 0..100 {
        run.app
            .execute_batch(&format!(
                "BEGIN; INSERT INTO plain VALUES({n}, 0, 0); INSERT OR REPLACE INTO words VALUES('Counter', {n}); COMMIT"
            ))
            .unwrap();
        run.note();
    }
    assert!(!run.batch("a counter"));
    assert_eq!(run.log.len(), 1);
    // Without it each point will do.
    for n in 100..200 {
        run.app
            .execute_batch(&format!("INSERT INTO plain VALUES({n}, 0, 0)"))
            .unwrap();
        run.note();
    }
    while run.batch("no counter") {}
    assert_eq!(run.log.len(), 1 + 20);
}

#[test]
fn points_of_before_a_new_life_are_of_no_use() {
    let mut run = Run::new(5);
    for n in 0..50 {
        run.app
            .execute_batch(&format!("INSERT INTO plain VALUES({n}, 0, 0)"))
            .unwrap();
        run.note();
    }
    // A restore may have entered rows among those that were there, and begins anew.
    run.writer.new_life();
    assert!(!run.batch("a new life"));
}
