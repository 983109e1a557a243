//! What capture costs the application: the same work on databases side by side, one with our triggers, one without any, and beside them what SQLite asks for less than that: a trigger
//! that does nothing, and one that does the least by which a change can be found and told from others. No daemon runs.
//!
//! They take turns in slices, each long enough for several checkpoints of the write-ahead log, so that whatever else the machine does hits all alike.

use std::path::Path;
use std::time::Duration;

use super::Bench;
use super::app::{Amount, App, Written};
use super::error::{BenchError, Done};
use super::report::Report;
use super::row::{Baseline, Row, Target};
use crate::change::position::NodeId;
use crate::replica::Replica;
use crate::replica::lifecycle::OpenOptions;

pub(super) const INSERT: &str = "capture: inserts, 1 row a transaction";
pub(super) const INSERT_MANY: &str = "capture: inserts, 1,000 rows a transaction";
pub(super) const UPDATE_MANY: &str = "capture: updates, sequential keys, 1,000 a transaction";

/// Less than capture, and what it is called.
const FLOORS: [(&str, &str); 2] = [
    (
        "an empty trigger",
        "CREATE TRIGGER items_inserted AFTER INSERT ON items BEGIN SELECT 1; END;
         CREATE TRIGGER items_updated AFTER UPDATE ON items BEGIN SELECT 1; END;",
    ),
    (
        "a trigger that logs the key and a random number",
        "CREATE TABLE log(id INTEGER PRIMARY KEY, key, stamp);
         CREATE TRIGGER items_inserted AFTER INSERT ON items BEGIN INSERT INTO log(key, stamp) VALUES(NEW.id, random() & 2147483647); END;
         CREATE TRIGGER items_updated AFTER UPDATE ON items BEGIN INSERT INTO log(key, stamp) VALUES(NEW.id, random() & 2147483647); END;",
    ),
];

/// Rows that are there before, and rows that updates go round in.
const THERE: i64 = 100_000;

/// Rows of a slice: some ten to a hundred milliseconds.
const SINGLE: i64 = 2_500;
const BULK: i64 = 50_000;

/// Work on a number of rows from an id on.
type Work = fn(&App, i64, i64) -> Done<Written>;

/// All three rows.
pub(super) fn run(bench: &Bench, report: &mut Report) -> Done<()> {
    let rows: [(&'static str, i64, Work, f64); 3] = [
        (
            INSERT,
            SINGLE,
            |app, from, rows| app.insert(from, rows, 1),
            1.6,
        ),
        (
            INSERT_MANY,
            BULK,
            |app, from, rows| app.insert(from, rows, 1000),
            1.5,
        ),
        (
            UPDATE_MANY,
            BULK,
            |app, _, rows| app.update(1, THERE, Amount::Rows(rows), 1000),
            2.0,
        ),
    ];
    for (name, slice, work, most) in rows {
        if !bench.wants(name) {
            continue;
        }
        let is = "the same table without capture";
        let mut row = Row::new(name, "rows/s", Some(is), Target::Slowdown(most));
        row.floors = FLOORS.map(|(is, _)| Baseline::new(is)).into();
        for round in 0..bench.options.rounds {
            bench.round(name, round);
            let rates = measure(bench, slice, work)?;
            row.round(rates.plain, rates.captured);
            for (floor, rate) in row.floors.iter_mut().zip(rates.floors) {
                floor.values.push(rate);
            }
        }
        report.rows.push(row);
    }
    Ok(())
}

/// Rows a second.
struct Rates {
    plain: f64,
    floors: [f64; FLOORS.len()],
    captured: f64,
}

fn measure(bench: &Bench, slice: i64, work: Work) -> Done<Rates> {
    let folder = bench.folder()?;
    let path = |name: &str| folder.path().join(name);
    let open = |name: &str| -> Done<App> {
        let app = App::open(&path(name), &bench.stop)?;
        app.insert(1, THERE, 1000)?;
        Ok(app)
    };
    let mut apps = vec![open("plain.db")?, open("captured.db")?];
    install(&path("captured.db"))?;
    for (number, (_, sql)) in FLOORS.iter().enumerate() {
        let app = open(&format!("floor-{number}.db"))?;
        app.conn.execute_batch(sql)?;
        apps.push(app);
    }
    let pending = |apps: &[App]| apps.get(1).map_or(Ok(0), App::pending);
    let before = pending(&apps)?;
    let mut took = vec![Duration::ZERO; apps.len()];
    let mut from = THERE + 1;
    let mut rows = 0;
    while took.iter().all(|t| *t < bench.options.duration) {
        for (app, took) in apps.iter().zip(&mut took) {
            *took += work(app, from, slice)?.took;
        }
        from += slice;
        rows += slice;
    }
    if pending(&apps)? - before != rows {
        return Err(BenchError::Command {
            what: "capture",
            said: "not every change is in the change log".to_owned(),
        });
    }
    let mut rates = took.into_iter().map(|t| rows as f64 / t.as_secs_f64());
    let mut next = || rates.next().unwrap_or(f64::NAN);
    Ok(Rates {
        plain: next(),
        captured: next(),
        floors: [next(), next()],
    })
}

/// Installs the triggers as the daemon does.
fn install(path: &Path) -> Done<()> {
    let options = OpenOptions {
        node_id: NodeId(1),
        publish: true,
        include: Vec::new(),
        exclude: Vec::new(),
        fire_triggers: Some(Vec::new()),
    };
    Replica::open(path, &options, Duration::from_secs(5), &|| false)?;
    Ok(())
}
