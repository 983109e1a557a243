//! An app that reads and writes in a loop while its database is restored.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

use crate::harness::Node;
use crate::harness::wait::Done;
use crate::harness::{Cluster, eventually};
use crate::snapshots::{TRIMMED, position, stream_first};

const ROWS: i64 = 100_000;

/// Entries, and what each transaction says of them in two other tables.
const SCHEMA: &str = "
    CREATE TABLE entries(id INTEGER PRIMARY KEY, amount INTEGER, filler);
    CREATE TABLE totals(id INTEGER PRIMARY KEY, entries INTEGER, amount INTEGER);
    CREATE TABLE history(round INTEGER PRIMARY KEY, amount INTEGER);
    CREATE TABLE mine(id INTEGER PRIMARY KEY, v);
    INSERT INTO totals VALUES(1, 0, 0);
";

/// One transaction that changes every table but `mine`.
fn round(app: &Connection, round: i64, rows: i64) {
    app.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {rows})
           INSERT INTO entries(amount, filler) SELECT n % 97, hex(n) FROM c;
         UPDATE entries SET amount = amount + {round} WHERE id % 30 = {round} % 30;
         DELETE FROM entries WHERE id % 5000 = {round} % 5000;
         UPDATE totals SET entries = (SELECT count(*) FROM entries), amount = (SELECT sum(amount) FROM entries);
         INSERT INTO history VALUES({round}, (SELECT sum(amount) FROM entries));
         COMMIT"
    ))
    .unwrap();
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(e, _) if matches!(e.code, ErrorCode::DatabaseBusy))
}

/// What a reader sees of one moment: whether the tables fit together, and the last round.
fn look(app: &Connection) -> rusqlite::Result<(bool, i64)> {
    app.query_row(
        "SELECT (SELECT count(*) FROM entries) = t.entries
            AND coalesce((SELECT sum(amount) FROM entries), 0) = t.amount
            AND coalesce((SELECT amount FROM history ORDER BY round DESC LIMIT 1), 0) = t.amount,
            coalesce((SELECT max(round) FROM history), 0)
         FROM totals AS t",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

/// In several statements of one read transaction, as an app with an ORM does.
fn look_step_by_step(app: &Connection) -> rusqlite::Result<bool> {
    app.execute_batch("BEGIN")?;
    let one = |sql: &str| app.query_row(sql, [], |row| row.get::<_, i64>(0));
    let seen = (|| {
        let totals = (
            one("SELECT entries FROM totals")?,
            one("SELECT amount FROM totals")?,
        );
        let entries = (
            one("SELECT count(*) FROM entries")?,
            one("SELECT coalesce(sum(amount), 0) FROM entries")?,
        );
        Ok(totals == entries)
    })();
    app.execute_batch("COMMIT")?;
    seen
}

#[test]
fn an_app_sees_only_whole_states_while_its_database_is_restored() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    for node in &mut cluster.nodes {
        node.sections.push_str(TRIMMED);
        node.start_replicating();
    }
    let writes = cluster[0].app();
    round(&writes, 1, ROWS / 2);
    cluster.converge();
    cluster[1].stop();
    round(&writes, 2, ROWS / 2);
    round(&writes, 3, ROWS / 2);
    let mut last = 3;
    eventually("the stream is trimmed past it", || {
        last += 1;
        round(&writes, last, 1);
        std::thread::sleep(Duration::from_millis(500));
        stream_first(&cluster, "harmonylite-changes-1") > position(&cluster[1]) + 1
    });
    let last = AtomicI64::new(last);
    let mut late = cluster.nodes.split_off(1);
    let (ended, reads, written) = (Done::default(), AtomicU64::new(0), AtomicU64::new(0));
    let there = Node::in_folder(2, "", &late[0].folder);
    std::thread::scope(|scope| {
        let _end = ended.on_drop();
        for step_by_step in [false, true] {
            let (ended, reads, there) = (&ended, &reads, &there);
            scope.spawn(move || {
                let app = there.app();
                app.busy_timeout(Duration::ZERO).unwrap();
                while !ended.is_said() {
                    let whole = match step_by_step {
                        true => look_step_by_step(&app),
                        false => look(&app).map(|(whole, _)| whole),
                    };
                    match whole {
                        Ok(whole) => assert!(whole, "a reader saw half a state"),
                        Err(e) => assert!(is_busy(&e), "{e}"),
                    }
                    if !app.is_autocommit() {
                        app.execute_batch("ROLLBACK").unwrap();
                    }
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            let app = there.app();
            app.busy_timeout(Duration::ZERO).unwrap();
            while !ended.is_said() {
                match app.execute("INSERT INTO mine(v) VALUES('x')", []) {
                    Ok(_) => written.fetch_add(1, Ordering::Relaxed),
                    Err(e) => {
                        assert!(is_busy(&e), "{e}");
                        0
                    }
                };
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        // The leader's app goes on too: its snapshots hold what is not in the stream yet.
        let (ended, last, first) = (&ended, &last, &cluster[0]);
        scope.spawn(move || {
            let app = first.app();
            while !ended.is_said() {
                round(&app, last.fetch_add(1, Ordering::Relaxed) + 1, 1);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let taken = || first.log().matches("was taken and verified").count();
        let before = taken();
        eventually("snapshots are taken meanwhile", || taken() > before + 1);
        let late = &mut late[0];
        late.start_replicating();
        let log = late.log();
        assert!(log.contains("restored from the snapshot"), "{log}");
        let restored_at = last.load(Ordering::Relaxed);
        eventually("it has caught up with what was written meanwhile", || {
            look(&there.app()).unwrap().1 > restored_at
        });
    });
    cluster.nodes.extend(late);
    let last = last.into_inner();
    eventually("it has caught up", || {
        look(&there.app()).unwrap() == (true, last)
    });
    let (reads, written) = (reads.into_inner(), written.into_inner());
    assert!(
        reads > 10 && written > 10,
        "{reads} reads, {written} writes"
    );
    let dump = cluster.converge();
    assert_eq!(dump["mine"].len() as u64, written);
    assert!(dump["entries"].len() as i64 > ROWS);
    cluster.assert_running();
}
