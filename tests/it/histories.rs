//! A broker that loses what nodes have folded: the nodes agree on a new history by themselves, and every write that was acknowledged is on all of them.

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::harness::jetstream::Outsider;
use crate::harness::wait::{Done, eventually_ok};
use crate::harness::{Cluster, Node, app, eventually};

const STREAM: &str = "harmonylite-changes-1";
const SCHEMA: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, node INTEGER, v); CREATE TABLE counters(node INTEGER PRIMARY KEY, n INTEGER, email TEXT UNIQUE);
    INSERT INTO counters VALUES(1, 0, 'a'), (2, 0, 'b'), (3, 0, 'c');";

/// Nodes that are not started, with a store that no broker can lose.
fn prepared(count: u64) -> (Cluster, tempfile::TempDir) {
    let store = crate::harness::node::folder();
    let mut cluster = Cluster::prepared(count, SCHEMA);
    for node in &mut cluster.nodes {
        node.sections
            .push_str(&crate::snapshots::stored_in(store.path()));
    }
    (cluster, store)
}

fn running(count: u64) -> (Cluster, tempfile::TempDir) {
    let (mut cluster, store) = prepared(count);
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    (cluster, store)
}

/// One acknowledged transaction: a row of its own, and one more on the node's own counter.
fn write(node: &Node, name: &str) {
    let id = node.id;
    node.sql(&format!(
        "BEGIN; INSERT INTO notes VALUES('{name}', {id}, 'by {id}'); UPDATE counters SET n = n + 1, email = '{name}' WHERE node = {id}; COMMIT"
    ));
}

/// Writes that are all in the stream, each in a batch of its own.
fn published(node: &Node, prefix: &str, writes: i64) {
    for n in 0..writes {
        write(node, &format!("{prefix} {n}"));
        node.wait_published();
    }
}

/// All nodes are equal and hold so many rows, and what each has counted itself.
fn all_hold(cluster: &Cluster, rows: i64, counters: &[i64]) {
    eventually_ok("everything is everywhere", || {
        for node in &cluster.nodes {
            let found = node.integer("SELECT count(*) FROM notes");
            if found != rows {
                return Err(format!("node {} has {found} of {rows} rows", node.id));
            }
        }
        Ok(())
    });
    cluster.converge();
    for (node, n) in (1..).zip(counters) {
        let sql = format!("SELECT n FROM counters WHERE node = {node}");
        assert_eq!(cluster[0].integer(&sql), *n, "counter of node {node}");
    }
}

fn history(node: &Node) -> i64 {
    node.integer("SELECT coalesce(CAST(history AS INTEGER), 1) FROM __harmonylite__node")
}

/// They go on in it as ever: what each writes arrives.
fn go_on(cluster: &Cluster, rows: i64, counters: &[i64], at: i64) {
    let mut counters = counters.to_vec();
    for node in &cluster.nodes {
        write(node, &format!("afterwards {}", node.id));
        counters[node.id as usize - 1] += 1;
    }
    all_hold(cluster, rows + cluster.nodes.len() as i64, &counters);
    for node in &cluster.nodes {
        assert_eq!(history(node), at, "node {}", node.id);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Copies the broker's store while it is down.
fn save(cluster: &mut Cluster) -> PathBuf {
    cluster.server.kill();
    let saved = cluster.server.folder().join("saved");
    copy(&cluster.server.folder().join("store"), &saved);
    cluster.server.restart();
    saved
}

/// Sets the broker back to that copy.
fn put_back(cluster: &mut Cluster, saved: &Path) {
    cluster.server.kill();
    let store = cluster.server.folder().join("store");
    std::fs::remove_dir_all(&store).unwrap();
    copy(saved, &store);
    cluster.server.restart();
}

#[test]
fn the_stream_is_deleted_while_nodes_run() {
    // With the default store, in NATS.
    let mut cluster = Cluster::prepared(3, SCHEMA);
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    for node in &cluster.nodes {
        published(node, &format!("before {}", node.id), 3);
    }
    all_hold(&cluster, 9, &[3, 3, 3]);
    Outsider::new(&cluster.server.url()).delete_stream(STREAM);
    for node in &cluster.nodes {
        write(node, &format!("meanwhile {}", node.id));
    }
    all_hold(&cluster, 12, &[4, 4, 4]);
    go_on(&cluster, 12, &[4, 4, 4], 2);
    cluster.assert_running();
    // And again.
    Outsider::new(&cluster.server.url()).delete_stream(STREAM);
    go_on_again(&cluster);
    cluster.assert_running();
}

fn go_on_again(cluster: &Cluster) {
    for node in &cluster.nodes {
        write(node, &format!("again {}", node.id));
    }
    all_hold(cluster, 18, &[6, 6, 6]);
    for node in &cluster.nodes {
        assert_eq!(history(node), 3);
    }
}

#[test]
fn the_stream_is_made_anew_while_all_are_down() {
    let (mut cluster, _store) = running(3);
    for node in &cluster.nodes {
        published(node, &format!("before {}", node.id), 2);
    }
    all_hold(&cluster, 6, &[2, 2, 2]);
    // Two that have folded less than the third.
    cluster[0].stop();
    cluster[1].kill();
    published(&cluster[2], "alone", 3);
    cluster[2].stop();
    Outsider::new(&cluster.server.url()).delete_stream(STREAM);
    for node in &cluster.nodes {
        write(node, &format!("down {}", node.id));
    }
    for node in &mut cluster.nodes {
        node.start();
    }
    all_hold(&cluster, 12, &[3, 3, 6]);
    go_on(&cluster, 12, &[3, 3, 6], 2);
}

/// The broker is set back, and grows past where it was with other messages, while nodes that folded different amounts of what is lost are down.
fn set_back(cluster: &mut Cluster) {
    for node in &cluster.nodes {
        published(node, &format!("before {}", node.id), 2);
    }
    all_hold(cluster, 6, &[2, 2, 2]);
    cluster[2].stop();
    let saved = save(cluster);
    published(&cluster[0], "lost", 3);
    published(&cluster[1], "lost too", 2);
    eventually("both have it", || {
        cluster.nodes[..2]
            .iter()
            .all(|n| n.integer("SELECT count(*) FROM notes") == 11)
    });
    cluster[1].kill();
    published(&cluster[0], "seen by one", 2);
    cluster[0].kill();
    let lost = Outsider::new(&cluster.server.url()).last(STREAM);
    put_back(cluster, &saved);
    cluster[2].start_replicating();
    published(&cluster[2], "regrown", 10);
    assert!(Outsider::new(&cluster.server.url()).last(STREAM) > lost);
    assert_eq!(cluster[2].integer("SELECT count(*) FROM notes"), 16);
}

#[test]
fn the_broker_is_set_back_and_grows_past_what_it_lost() {
    let (mut cluster, _store) = running(3);
    set_back(&mut cluster);
    write(&cluster[0], "down");
    cluster[0].start();
    cluster[1].start();
    all_hold(&cluster, 24, &[8, 4, 12]);
    go_on(&cluster, 24, &[8, 4, 12], 2);
}

#[test]
fn who_was_away_while_the_others_agreed_publishes_what_it_has_kept() {
    let (mut cluster, _store) = running(3);
    set_back(&mut cluster);
    // The first, whose last writes nobody else has folded, is away.
    cluster[1].start();
    eventually("the others are in a new history", || {
        cluster.nodes[1..]
            .iter()
            .all(|n| history(n) == 2 && n.integer("SELECT count(*) FROM notes") == 21)
    });
    write(&cluster[0], "down");
    let own = app::look(&cluster[0].database()).unwrap();
    let seen = app::integer(&own, "SELECT n FROM counters WHERE node = 1");
    cluster[0].start();
    // It never shows its app less than it had.
    eventually("it is in the new history", || {
        assert!(app::integer(&own, "SELECT n FROM counters WHERE node = 1") >= seen);
        history(&cluster[0]) == 2
    });
    all_hold(&cluster, 24, &[8, 4, 12]);
    go_on(&cluster, 24, &[8, 4, 12], 2);
}

#[test]
fn the_rows_of_a_batch_are_lost_before_a_node_has_folded_it() {
    let (mut cluster, _store) = running(3);
    published(&cluster[0], "before", 1);
    all_hold(&cluster, 1, &[1, 0, 0]);
    cluster[1].stop();
    cluster[2].stop();
    let outsider = Outsider::new(&cluster.server.url());
    let before = outsider.last(STREAM);
    cluster[0].sql("BEGIN; UPDATE counters SET n = 100 WHERE node = 1; WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 40)
        INSERT INTO notes SELECT 'large ' || n, 1, randomblob(60000) FROM c; COMMIT");
    cluster[0].wait_published();
    published(&cluster[0], "behind", 1);
    assert!(outsider.last(STREAM) > before + 3, "the batch has payload");
    outsider.remove(STREAM, before + 1);
    cluster[0].stop();
    // Nobody who has it is there: it counts for nothing, until its publisher is back.
    cluster[1].start();
    cluster[2].start();
    eventually("they go on without it", || {
        cluster.nodes[1..]
            .iter()
            .all(|n| history(n) == 2 && n.integer("SELECT count(*) FROM notes") == 2)
    });
    write(&cluster[1], "without it");
    cluster[0].start();
    all_hold(&cluster, 43, &[101, 1, 0]);
    go_on(&cluster, 43, &[101, 1, 0], 2);
}

#[test]
fn who_proposed_a_new_history_is_killed_while_it_is_elected() {
    let (mut cluster, _store) = running(3);
    for node in &cluster.nodes {
        published(node, &format!("before {}", node.id), 2);
    }
    all_hold(&cluster, 6, &[2, 2, 2]);
    // It holds its id for a while, and says nothing.
    cluster[2].signal(Signal::SIGSTOP);
    Outsider::new(&cluster.server.url()).delete_stream(STREAM);
    let mut by = None;
    eventually("one waits for it to say where it stands", || {
        by = (0..2).find(|&n| cluster[n].log().contains("are to say where they stand"));
        by.is_some()
    });
    let by = by.unwrap();
    cluster[by].kill();
    cluster[2].signal(Signal::SIGCONT);
    eventually("the others have gone on without it", || {
        (0..3)
            .filter(|&n| n != by)
            .all(|n| history(&cluster[n]) == 2)
    });
    write(&cluster[by], "down");
    cluster[by].start();
    let mut counters = [2, 2, 2];
    counters[by] += 1;
    all_hold(&cluster, 7, &counters);
    go_on(&cluster, 7, &counters, 2);
}

#[test]
fn the_brokers_disk_is_lost() {
    // With it go the leases, what the nodes agreed on, and all snapshots.
    let mut cluster = Cluster::prepared(2, SCHEMA);
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    for node in &cluster.nodes {
        published(node, &format!("before {}", node.id), 2);
    }
    all_hold(&cluster, 4, &[2, 2, 0]);
    cluster.server.kill();
    std::fs::remove_dir_all(cluster.server.folder().join("store")).unwrap();
    write(&cluster[0], "meanwhile");
    cluster.server.restart();
    all_hold(&cluster, 5, &[3, 2, 0]);
    go_on(&cluster, 5, &[3, 2, 0], 2);
}

#[test]
fn what_only_a_snapshot_has_is_not_lost_with_the_stream() {
    let (mut cluster, _store) = running(2);
    published(&cluster[1], "before", 2);
    all_hold(&cluster, 2, &[0, 2, 0]);
    cluster[1].stop();
    let saved = save(&mut cluster);
    published(&cluster[0], "in the snapshot", 4);
    let taken = cluster[0].run(&["snapshot", "save"]);
    assert_eq!(taken.code, Some(0), "{}", taken.said);
    cluster[0].kill();
    put_back(&mut cluster, &saved);
    // The node that had folded it is gone for ever.
    cluster.nodes.remove(0);
    write(&cluster[0], "down");
    cluster[0].start();
    all_hold(&cluster, 7, &[4, 3, 0]);
    go_on(&cluster, 7, &[4, 3, 0], 2);
}

#[test]
fn publishing_waits_at_the_bound_of_what_is_kept_until_a_snapshot_covers_it() {
    let (mut cluster, store) = prepared(2);
    for node in &mut cluster.nodes {
        node.sections
            .push_str("[replication_log]\nkept_max_bytes = 1048576\n");
        node.start_replicating();
    }
    // No snapshot can be taken meanwhile.
    let path = store.path().to_owned();
    let aside = path.with_extension("aside");
    let write_many = |node: &Node, name: &str| {
        node.sql(&format!(
            "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 9000)
             INSERT INTO notes SELECT '{name}' || hex(zeroblob(60)) || n, 1, n FROM c"
        ));
    };
    std::fs::rename(&path, &aside).unwrap();
    std::fs::write(&path, "in the way").unwrap();
    write_many(&cluster[0], "first");
    cluster[0].wait_published();
    let kept = || -> u64 {
        std::fs::read_dir(&cluster[0].folder)
            .unwrap()
            .map(|e| e.unwrap())
            .filter(|e| e.file_name().to_string_lossy().contains(".kept-"))
            .map(|e| e.metadata().unwrap().len())
            .sum()
    };
    assert!(kept() > 1 << 20, "{}", kept());
    eventually("it says that publishing waits", || {
        write(&cluster[0], &format!("{:x}", rand::random::<u64>()));
        cluster[0].log().contains("kept_max_bytes allows")
    });
    assert!(cluster[0].pending() > 0);
    // The store is back.
    std::fs::remove_file(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    cluster[0].wait_published();
    cluster.converge();
    eventually("what was kept is gone", || kept() < 1 << 19);
    assert!(
        cluster
            .nodes
            .iter()
            .any(|n| n.log().contains("a node keeps half of what it may keep"))
    );
}

#[test]
fn a_node_that_applies_nothing_publishes_again_what_was_lost() {
    let (mut cluster, _store) = prepared(3);
    cluster[2].root = "replicate = false".to_owned();
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    published(&cluster[0], "before", 2);
    eventually("the others have it", || {
        cluster[1].integer("SELECT count(*) FROM notes") == 2
    });
    cluster[0].stop();
    cluster[1].stop();
    published(&cluster[2], "alone", 3);
    cluster[2].sql("DELETE FROM counters WHERE node = 2");
    cluster[2].wait_published();
    cluster[2].kill();
    Outsider::new(&cluster.server.url()).delete_stream(STREAM);
    for node in &mut cluster.nodes {
        node.start();
    }
    let publisher = cluster.nodes.pop().unwrap();
    all_hold(&cluster, 5, &[2]);
    assert_eq!(
        cluster[0].integer("SELECT n FROM counters WHERE node = 3"),
        3
    );
    assert_eq!(cluster[0].integer("SELECT count(*) FROM counters"), 2);
    // It goes on, also after another start.
    write(&publisher, "on");
    let mut publisher = publisher;
    publisher.wait_published();
    publisher.stop();
    write(&publisher, "on and on");
    publisher.start();
    all_hold(&cluster, 7, &[2]);
}

#[test]
fn apps_write_all_the_time_while_the_broker_is_set_back_again_and_again() {
    let (mut cluster, _store) = running(3);
    published(&cluster[0], "before", 1);
    all_hold(&cluster, 1, &[1, 0, 0]);
    let done = Done::default();
    let databases: Vec<PathBuf> = cluster.nodes.iter().map(Node::database).collect();
    let written: Vec<i64> = std::thread::scope(|scope| {
        let done = &done;
        let _said = done.on_drop();
        let writers: Vec<_> = (1..)
            .zip(&databases)
            .map(|(id, database)| {
                scope.spawn(move || {
                    let app = app::connect(database);
                    let mut n = 0;
                    while !done.is_said() {
                        n += 1;
                        // It reads what it wrote last.
                        app.execute_batch(&format!(
                            "BEGIN IMMEDIATE; INSERT INTO notes VALUES('{id} {n}', {id}, {n}); UPDATE counters SET n = n + 1, email = '{id} {n}' WHERE node = {id}; COMMIT"
                        ))
                        .unwrap();
                        std::thread::sleep(std::time::Duration::from_millis(2));
                    }
                    n
                })
            })
            .collect();
        let moved = |cluster: &Cluster, what: &str| {
            let before: Vec<i64> = cluster
                .nodes
                .iter()
                .map(|n| n.integer("SELECT count(*) FROM notes"))
                .collect();
            eventually(what, || {
                cluster
                    .nodes
                    .iter()
                    .zip(&before)
                    .all(|(n, before)| n.integer("SELECT count(*) FROM notes") > before + 300)
            });
        };
        for round in 0..3 {
            moved(&cluster, "all go on");
            let saved = save(&mut cluster);
            moved(&cluster, "all go on after the broker has restarted");
            if round == 1 {
                cluster[1].kill();
            }
            put_back(&mut cluster, &saved);
            std::fs::remove_dir_all(&saved).unwrap();
            if round == 1 {
                cluster[1].start();
            }
            if round == 2 {
                Outsider::new(&cluster.server.url()).delete_stream(STREAM);
            }
            eventually("all are in the new history", || {
                cluster.nodes.iter().all(|n| history(n) > round + 1)
            });
        }
        done.say();
        writers.into_iter().map(|w| w.join().unwrap()).collect()
    });
    let rows = 1 + written.iter().sum::<i64>();
    all_hold(&cluster, rows, &[1 + written[0], written[1], written[2]]);
    cluster.assert_running();
}

#[test]
fn without_snapshots_a_node_stands_still_and_says_what_to_do() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    for node in &mut cluster.nodes {
        node.sections.push_str("[snapshot]\nenabled = false\n");
        node.start_replicating();
    }
    published(&cluster[0], "before", 1);
    all_hold(&cluster, 1, &[1, 0, 0]);
    Outsider::new(&cluster.server.url()).delete_stream(STREAM);
    for node in &mut cluster.nodes {
        node.wait_log("with snapshots disabled no new history can begin");
    }
    write(&cluster[0], "waits");
    assert!(cluster[0].pending() > 0);
    cluster.assert_running();
    // Nothing was kept either.
    let names = std::fs::read_dir(&cluster[0].folder).unwrap();
    assert!(
        names
            .map(|e| e.unwrap().file_name())
            .all(|n| !n.to_string_lossy().contains(".kept-"))
    );
}
