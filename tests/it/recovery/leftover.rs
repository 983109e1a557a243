//! The log of a process that was killed, beside the database that it is of and beside others.

use rusqlite::config::DbConfig;

use super::{beside, copy_over, file, stored_in};
use crate::harness::node::folder;
use crate::harness::{Cluster, Node, eventually};
use crate::snapshots::{done, insert, prepared, start};

/// Kills the daemon so that a log is left that holds what is in no other file: rows that the app wrote when the daemon was gone.
fn killed_with_a_log(node: &mut Node) {
    node.kill();
    // As if the app were killed too: nobody brings the log into the database.
    let app = node.app();
    app.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .unwrap();
    app.execute_batch(
        "PRAGMA wal_autocheckpoint = 0; INSERT INTO events(node, n, filler) VALUES(7, 7, randomblob(50000))",
    )
    .unwrap();
    drop(app);
    assert!(std::fs::metadata(file(node, "-wal")).unwrap().len() > 50_000);
}

/// Two nodes with a snapshot of what both hold.
fn two(store: &std::path::Path) -> Cluster {
    let mut cluster = prepared(2, &stored_in(store));
    start(&mut cluster);
    insert(&cluster[0], 50, 1000);
    insert(&cluster[1], 50, 1000);
    cluster.converge();
    done(&cluster[0].run(&["snapshot", "save"]));
    cluster
}

#[test]
fn a_log_beside_a_snapshot_put_in_place_is_moved_aside() {
    let store = folder();
    let mut cluster = two(store.path());
    insert(&cluster[0], 5, 1000);
    cluster.converge();
    killed_with_a_log(&mut cluster[1]);
    copy_over(&cluster[1], &store.path().join("latest.db"));
    std::fs::remove_file(cluster[1].sequence_map()).unwrap();
    let before = std::fs::read(file(&cluster[1], "-wal")).unwrap();
    // Nothing is moved by who only looks.
    let checked = cluster[1].run(&["-check"]);
    assert!(
        checked.said.contains("left by another database"),
        "{}",
        checked.said
    );
    assert_eq!(std::fs::read(file(&cluster[1], "-wal")).unwrap(), before);

    insert(&cluster[0], 5, 1000);
    cluster[1].start_replicating();
    let log = cluster[1].log();
    assert!(log.contains("was left by another database"), "{log}");
    assert!(log.contains("a snapshot that was put in place"), "{log}");
    assert!(!log.contains("without capture"), "{log}");
    let aside = beside(&cluster[1], "-wal.before-");
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(
        std::fs::read(cluster[1].folder.join(&aside[0])).unwrap(),
        before
    );
    let dump = cluster.converge();
    assert_eq!(dump["events"].len(), 110);
    insert(&cluster[1], 5, 10);
    cluster.converge();
    cluster[1].assert_sound();
}

#[test]
fn a_log_beside_an_older_file_in_wal_mode_is_moved_aside() {
    let store = folder();
    let mut cluster = two(store.path());
    cluster[1].stop();
    let backup = cluster[1].folder.join("backup.db");
    std::fs::copy(cluster[1].database(), &backup).unwrap();
    assert_eq!(std::fs::read(&backup).unwrap()[18..20], [2, 2]);
    cluster[1].start_replicating();
    for _ in 0..10 {
        insert(&cluster[0], 5, 5000);
        insert(&cluster[1], 5, 5000);
    }
    cluster.converge();
    // The log begins later than the backup is; else it could be replayed over it with right.
    cluster[1].sql("PRAGMA wal_checkpoint(TRUNCATE)");
    killed_with_a_log(&mut cluster[1]);
    copy_over(&cluster[1], &backup);
    cluster[1].start_replicating();
    cluster[1].wait_log("was left by another database");
    let dump = cluster.converge();
    assert_eq!(dump["events"].len(), 200);
}

#[test]
fn a_log_of_the_database_itself_is_kept_and_what_it_holds_arrives() {
    let store = folder();
    let mut cluster = two(store.path());
    for round in 1..=3 {
        killed_with_a_log(&mut cluster[1]);
        cluster[1].start_replicating();
        assert!(
            !cluster[1].log().contains("left by another"),
            "{}",
            cluster[1].log()
        );
        assert_eq!(beside(&cluster[1], ".before-"), [""; 0]);
        let dump = cluster.converge();
        assert_eq!(dump["events"].len(), 100 + round);
    }
    // Beside nothing, SQLite removes it.
    killed_with_a_log(&mut cluster[1]);
    std::fs::remove_file(cluster[1].database()).unwrap();
    std::fs::remove_file(cluster[1].sequence_map()).unwrap();
    cluster[1].start_replicating();
    assert_eq!(cluster.converge()["events"].len(), 103);
}

#[test]
fn nothing_is_moved_while_an_app_has_the_database_open() {
    let store = folder();
    let mut cluster = two(store.path());
    cluster[1].kill();
    let app = cluster[1].app();
    app.execute_batch("PRAGMA wal_autocheckpoint = 0; INSERT INTO events(node, n) VALUES(7, 7)")
        .unwrap();
    // Over the file that the app has open: it holds its lock, so this is the app's business.
    let name = file(&cluster[1], "-wal");
    let before = std::fs::read(&name).unwrap();
    let listed = cluster[1].run(&["conflicts", "list"]);
    done(&listed);
    assert_eq!(std::fs::read(&name).unwrap(), before);

    // Another file in its place, and the app goes on with the one that was there.
    std::fs::remove_file(cluster[1].database()).unwrap();
    copy_over(&cluster[1], &store.path().join("latest.db"));
    let refused = cluster[1].run(&[]);
    assert_eq!(refused.code, Some(75), "{}", refused.said);
    assert!(
        refused.said.contains("stop the application"),
        "{}",
        refused.said
    );
    assert_eq!(std::fs::read(&name).unwrap(), before);
    drop(app);
    cluster[1].start_replicating();
    eventually("the nodes are equal", || {
        cluster[0].dump() == cluster[1].dump()
    });
}
