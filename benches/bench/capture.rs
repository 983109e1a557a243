//! What capture costs the app: the same work on two databases, one of them with our triggers. No daemon runs.
//!
//! The two take turns in slices of some ten milliseconds, each long enough for several checkpoints of the WAL, so that whatever else the machine does
//! hits both alike.

use std::path::Path;
use std::time::Duration;

use harmonylite::change::position::NodeId;
use harmonylite::replica::Replica;
use harmonylite::replica::lifecycle::OpenOptions;

use super::Wanted;
use super::app::App;
use super::report::{Report, Row, Target};

/// Work on rows from an id on.
type Work = fn(&App, i64, i64) -> Duration;

const SLICES: i64 = 20;
const SINGLE: i64 = 2_500;
const BULK: i64 = 100_000;

/// All three rows.
pub fn run(wanted: &Wanted, report: &mut Report) {
    let rows: [(&str, i64, Work, f64); 3] = [
        (
            "capture: inserts, 1 row a transaction",
            SINGLE,
            |app, from, rows| app.insert(from, rows, 1),
            1.6,
        ),
        (
            "capture: inserts, 1,000 rows a transaction",
            BULK,
            |app, from, rows| app.insert(from, rows, 1000),
            1.5,
        ),
        (
            "capture: sequential updates, 1,000 rows a transaction",
            BULK,
            |app, _, rows| app.update(1, rows, 1000),
            2.0,
        ),
    ];
    for (name, slice, work, most) in rows.into_iter().filter(|(name, ..)| wanted.row(name)) {
        let mut row = Row::new(
            name,
            "rows/s",
            "the same database without capture",
            Target::Slowdown(most),
        );
        for _ in 0..wanted.rounds {
            let [plain, captured] = measure(slice, work);
            row.round(plain, captured);
        }
        report.add(row);
    }
}

fn measure(slice: i64, work: Work) -> [f64; 2] {
    let folder = tempfile::tempdir().unwrap();
    let apps = ["plain.db", "captured.db"].map(|name| {
        let app = App::open(&folder.path().join(name));
        app.insert(1, BULK, 1000);
        app
    });
    install(&folder.path().join("captured.db"));
    let mut took = [Duration::ZERO; 2];
    for i in 0..SLICES {
        for (app, took) in apps.iter().zip(&mut took) {
            *took += work(app, BULK + 1 + i * slice, slice);
        }
    }
    let rows = SLICES * slice;
    let pending: i64 = apps[1]
        .conn
        .query_row(
            "SELECT count(*) FROM __harmonylite___global_change_log",
            [],
            |r| r.get(0),
        )
        .unwrap();
    assert_eq!(pending, rows, "capture was not at work");
    took.map(|t| rows as f64 / t.as_secs_f64())
}

/// Installs the triggers as the daemon does.
fn install(path: &Path) {
    let options = OpenOptions {
        node_id: NodeId(1),
        publish: true,
        include: Vec::new(),
        exclude: Vec::new(),
        fire_triggers: Some(Vec::new()),
    };
    let replica = Replica::open(path, &options, Duration::from_secs(5), &|| false).unwrap();
    assert_eq!(replica.captured().tables.len(), 2);
}
