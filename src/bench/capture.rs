//! What capture costs the application: the same work on three databases, one with our triggers, one with a trigger that does nothing, one without any. No daemon runs.
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

/// What SQLite itself asks for a trigger, whatever is in it.
const EMPTY: &str = "CREATE TRIGGER items_inserted AFTER INSERT ON items BEGIN SELECT 1; END;
    CREATE TRIGGER items_updated AFTER UPDATE ON items BEGIN SELECT 1; END;";

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
        let mut floor = Baseline::new("the same table with an empty trigger");
        for round in 0..bench.options.rounds {
            bench.round(name, round);
            let [plain, empty, captured] = measure(bench, slice, work)?;
            row.round(plain, captured);
            floor.values.push(empty);
        }
        row.floor = Some(floor);
        report.rows.push(row);
    }
    Ok(())
}

/// Rows a second: plain, with an empty trigger, captured.
fn measure(bench: &Bench, slice: i64, work: Work) -> Done<[f64; 3]> {
    let folder = bench.folder()?;
    let path = |name: &str| folder.path().join(name);
    let open = |name: &str| -> Done<App> {
        let app = App::open(&path(name), &bench.stop)?;
        app.insert(1, THERE, 1000)?;
        Ok(app)
    };
    let (plain, empty, captured) = (open("plain.db")?, open("empty.db")?, open("captured.db")?);
    empty.conn.execute_batch(EMPTY)?;
    install(&path("captured.db"))?;
    let before = captured.pending()?;
    let mut took = [Duration::ZERO; 3];
    let mut from = THERE + 1;
    let mut rows = 0;
    while took.iter().all(|t| *t < bench.options.duration) {
        for (app, took) in [&plain, &empty, &captured].into_iter().zip(&mut took) {
            *took += work(app, from, slice)?.took;
        }
        from += slice;
        rows += slice;
    }
    if captured.pending()? - before != rows {
        return Err(BenchError::Command {
            what: "capture",
            said: "not every change is in the change log".to_owned(),
        });
    }
    Ok(took.map(|t| rows as f64 / t.as_secs_f64()))
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
