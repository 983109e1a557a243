use std::path::{Path, PathBuf};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use rusqlite::Connection;

use super::*;

fn judge(database: &Path, log: &Path) -> Option<&'static str> {
    let first = FirstPage::read(std::fs::File::open(database).unwrap())
        .unwrap()
        .expect("a database");
    foreign(&first, std::fs::File::open(log).unwrap()).unwrap()
}

fn log_of(database: &Path) -> PathBuf {
    PathBuf::from(format!("{}-wal", database.display()))
}

/// What a process that is killed at this moment leaves, under another name.
fn left_by_a_kill(database: &Path, to: &Path) -> bool {
    std::fs::copy(database, to).unwrap();
    std::fs::copy(log_of(database), log_of(to)).is_ok()
}

/// One thing that an application may do to its database.
fn step(rng: &mut SmallRng, connections: &[Connection]) {
    let conn = &connections[rng.random_range(0..connections.len())];
    let n = rng.random_range(0..1000);
    let sql = match rng.random_range(0..24) {
        0..=9 => format!("INSERT INTO t(v) VALUES(randomblob({}))", n * 5),
        10..=14 => "UPDATE t SET v = randomblob(9) WHERE id = (SELECT max(id) FROM t)".to_owned(),
        15 => "DELETE FROM t WHERE id % 3 = 0".to_owned(),
        16 => format!("PRAGMA user_version = {n}"),
        17 => format!(
            "CREATE TABLE IF NOT EXISTS t{n}(v); DROP TABLE IF EXISTS t{}",
            n / 2
        ),
        18 => "VACUUM".to_owned(),
        19 => "PRAGMA wal_checkpoint(PASSIVE)".to_owned(),
        20 => "PRAGMA wal_checkpoint(TRUNCATE)".to_owned(),
        21 => "PRAGMA wal_checkpoint(RESTART)".to_owned(),
        // Succeed where no other connection is in the way.
        22 => "PRAGMA journal_mode = DELETE".to_owned(),
        _ => "PRAGMA journal_mode = WAL".to_owned(),
    };
    // What is locked out by another connection fails, as in an application.
    let _ = conn.execute_batch(&sql);
}

#[test]
fn what_a_kill_leaves_always_belongs() {
    let mut judged = 0;
    for seed in 0..40 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let folder = tempfile::tempdir().unwrap();
        let (database, killed) = (folder.path().join("a.db"), folder.path().join("k.db"));
        let open = || {
            let conn = Connection::open(&database).unwrap();
            conn.busy_timeout(std::time::Duration::ZERO).unwrap();
            conn.execute_batch("PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 30")
                .unwrap();
            conn
        };
        let mut connections = vec![open()];
        connections[0]
            .execute_batch(
                "PRAGMA page_size = 1024; PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v)",
            )
            .unwrap();
        for _ in 0..150 {
            match rng.random_range(0..20) {
                0 if connections.len() < 4 => connections.push(open()),
                1 if connections.len() > 1 => drop(connections.swap_remove(0)),
                // Holds checkpoints up for a while.
                2 => drop(connections[0].execute_batch("BEGIN; SELECT * FROM t")),
                3 => drop(connections[0].execute_batch("COMMIT")),
                _ => step(&mut rng, &connections),
            }
            if left_by_a_kill(&database, &killed) {
                judged += 1;
                assert_eq!(judge(&killed, &log_of(&killed)), None, "seed {seed}");
            }
        }
    }
    assert!(judged > 1000, "{judged}");
}

/// A database in WAL mode with rows, and the log of a process that was killed.
fn killed(folder: &Path) -> PathBuf {
    let (database, killed) = (folder.join("a.db"), folder.join("killed.db"));
    let conn = Connection::open(&database).unwrap();
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; CREATE TABLE t(v); INSERT INTO t VALUES(randomblob(9000))",
    )
    .unwrap();
    for _ in 0..5 {
        conn.execute("INSERT INTO t VALUES(randomblob(9000))", [])
            .unwrap();
        // Another connection, as a daemon's, makes each count.
        Connection::open(&database)
            .unwrap()
            .execute("INSERT INTO t VALUES(randomblob(9000))", [])
            .unwrap();
    }
    conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES(randomblob(9000))")
        .unwrap();
    assert!(left_by_a_kill(&database, &killed));
    killed
}

#[test]
fn another_file_in_its_place_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let killed = killed(folder.path());
    assert_eq!(judge(&killed, &log_of(&killed)), None);
    let other = |name: &str, sql: &str| {
        let path = folder.path().join(name);
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(sql).unwrap();
        drop(conn);
        judge(&path, &log_of(&killed))
    };
    let table = "CREATE TABLE t(v); INSERT INTO t VALUES(1)";
    assert_eq!(
        other("rollback.db", table),
        Some("the database has a rollback journal, not a log")
    );
    assert_eq!(
        other(
            "pages.db",
            &format!("PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; {table}")
        ),
        Some("their pages are of different size")
    );
    assert_eq!(
        other("older.db", &format!("PRAGMA journal_mode = WAL; {table}")),
        Some("the database's change counter is none that the log begins at or holds")
    );
}

#[test]
fn what_is_no_log_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("a.db");
    Connection::open(&database)
        .unwrap()
        .execute_batch("CREATE TABLE t(v)")
        .unwrap();
    let log = log_of(&database);
    for bytes in [&b""[..], b"not a log", &[0; 100]] {
        std::fs::write(&log, bytes).unwrap();
        assert_eq!(judge(&database, &log), None);
    }
    std::fs::write(&database, "text").unwrap();
    assert_eq!(
        FirstPage::read(std::fs::File::open(&database).unwrap()).unwrap(),
        None
    );
}
