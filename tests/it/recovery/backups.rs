//! A backup put in the place of the database: of before, with changes in it that were published since, and with an app that writes before the daemon knows.

use std::path::Path;
use std::process::Command;

use super::{copy_over, trim_past, trimmed_in};
use crate::harness::app::integer;
use crate::harness::node::folder;
use crate::harness::{Cluster, Node};
use crate::snapshots::{insert, remove_database, start};

const SCHEMA: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v);
    CREATE TABLE events(uid TEXT PRIMARY KEY DEFAULT (hex(randomblob(12))), node INTEGER, n INTEGER, filler);
    INSERT INTO t VALUES(1, 'first'), (2, 'first'), (3, 'first');";

/// How a backup is made.
type Make = fn(&mut Node, &Path);

/// `cp` of a database that nobody has open.
fn by_copy(node: &mut Node, to: &Path) {
    node.stop();
    // What is not published yet is left in the database, and its log is brought into it by who closes it last.
    assert!(!super::file(node, "-wal").exists());
    std::fs::copy(node.database(), to).unwrap();
    node.start();
}

/// What `sqlite3 app.db ".backup FILE"` does, while the daemon runs.
fn by_sqlite(node: &mut Node, to: &Path) {
    let script =
        "import sqlite3, sys\nsqlite3.connect(sys.argv[1]).backup(sqlite3.connect(sys.argv[2]))";
    let status = Command::new("python3")
        .args(["-c", script])
        .args([&node.database(), to])
        .status()
        .unwrap();
    assert!(status.success());
}

/// Two nodes, and a backup of the first with changes in it that were not published then and are now.
fn backed_up(make: Make, sections: &str, backup: &Path) -> Cluster {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    for node in &mut cluster.nodes {
        node.sections.push_str(sections);
    }
    start(&mut cluster);
    cluster.converge();
    cluster.server.kill();
    cluster[0].sql("UPDATE t SET v = 'old' WHERE id = 1; INSERT INTO t VALUES(10, 'old'); DELETE FROM t WHERE id = 3");
    make(&mut cluster[0], backup);
    let pending = integer(
        &rusqlite::Connection::open(backup).unwrap(),
        "SELECT count(*) FROM __harmonylite___global_change_log",
    );
    assert_eq!(
        pending, 3,
        "changes in the backup that were not published then"
    );
    cluster.server.restart();
    cluster.converge();
    // The hour since.
    cluster[1].sql("UPDATE t SET v = 'newer' WHERE id = 1; DELETE FROM t WHERE id = 10; INSERT INTO t VALUES(3, 'again')");
    cluster.converge();
    cluster[0].sql(
        "INSERT INTO t VALUES(11, 'after'), (12, 'after'); UPDATE t SET v = 'after' WHERE id = 12",
    );
    insert(&cluster[0], 10, 10);
    cluster.converge();
    cluster
}

/// Puts it back, with an app that writes before the daemon starts; then all that counts.
fn put_back(mut cluster: Cluster, backup: &Path) {
    cluster[0].stop();
    remove_database(&cluster[0]);
    copy_over(&cluster[0], backup);
    // Their change-log ids are those of rows that were published since the backup.
    cluster[0].sql("INSERT INTO t VALUES(20, 'on the backup'); UPDATE t SET v = 'on the backup' WHERE id = 2; INSERT INTO t VALUES(11, 'mine') ON CONFLICT DO NOTHING");
    cluster[1].sql("INSERT INTO t VALUES(21, 'meanwhile')");
    cluster[0].start_replicating();
    cluster.converge();
    let is = |id: i64, v: &str| {
        let sql = format!("SELECT count(*) FROM t WHERE id = {id} AND v = '{v}'");
        assert_eq!(
            cluster[1].integer(&sql),
            1,
            "{id} {v}: {:?}",
            cluster[1].dump()["t"]
        );
    };
    is(1, "newer");
    is(2, "on the backup");
    is(3, "again");
    // Written on the backup, which knew of none.
    is(11, "mine");
    is(12, "after");
    is(20, "on the backup");
    is(21, "meanwhile");
    assert_eq!(cluster[1].integer("SELECT count(*) FROM t"), 7);
    cluster[0].sql("INSERT INTO t VALUES(30, 'later'); UPDATE t SET v = 'later' WHERE id = 1");
    cluster[1].sql("UPDATE t SET v = 'later' WHERE id = 20");
    let dump = cluster.converge();
    assert_eq!(dump["t"].len(), 8);
    assert_eq!(
        cluster[1].integer("SELECT count(*) FROM t WHERE v = 'later'"),
        3
    );
    cluster.assert_running();
}

#[test]
fn a_copied_backup_put_back_catches_up_and_loses_nothing() {
    let place = folder();
    let backup = place.path().join("backup.db");
    put_back(backed_up(by_copy, "", &backup), &backup);
}

#[test]
fn a_backup_made_by_sqlite_put_back_catches_up_and_loses_nothing() {
    let place = folder();
    let backup = place.path().join("backup.db");
    put_back(backed_up(by_sqlite, "", &backup), &backup);
}

#[test]
fn a_backup_that_the_stream_is_trimmed_past_does_so_too() {
    let place = folder();
    let store = folder();
    let backup = place.path().join("backup.db");
    let mut cluster = backed_up(by_sqlite, &trimmed_in(store.path()), &backup);
    let folded = integer(
        &rusqlite::Connection::open(&backup).unwrap(),
        "SELECT position FROM __harmonylite__node",
    );
    cluster[0].stop();
    trim_past(&cluster, &[1], 0);
    assert!(crate::snapshots::stream_first(&cluster, "harmonylite-changes-1") as i64 > folded + 1);
    cluster[0].start_replicating();
    cluster.converge();
    put_back(cluster, &backup);
}
