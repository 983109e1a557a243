//! The procedures of `docs/recovery.md`, run as they stand there.

use std::path::Path;
use std::process::Command;

use super::{beside, stored_in};
use crate::harness::node::folder;
use crate::harness::{Cluster, Node, eventually};
use crate::snapshots::{done, insert, prepared, start};

/// The shell commands of a procedure, cut at the starts and stops of services.
fn procedure(name: &str) -> Vec<String> {
    let page = include_str!("../../../docs/recovery.md");
    let (_, rest) = page
        .split_once(&format!("<!-- procedure: {name} -->\n```sh\n"))
        .unwrap_or_else(|| panic!("docs/recovery.md has no procedure {name:?}"));
    let (commands, _) = rest.split_once("```").unwrap();
    let mut parts = vec![String::new()];
    for line in commands.lines() {
        if line.starts_with("systemctl ") {
            parts.push(line.to_owned());
            parts.push(String::new());
        } else {
            let part = parts.last_mut().unwrap();
            part.push_str(line);
            part.push('\n');
        }
    }
    parts
}

/// Follows a procedure on a node whose folder stands for `/var/lib/harmonylite`.
fn follow(name: &str, node: &mut Node, others: &[(&str, &Path)]) {
    let mut folder = None;
    for part in procedure(name) {
        match part.as_str() {
            // It may have refused a damaged database.
            "systemctl stop app harmonylite" if !node.is_running() => {}
            "systemctl stop app harmonylite" => node.stop(),
            "systemctl start harmonylite" => node.start_replicating(),
            commands => {
                let place = node.folder.to_str().unwrap();
                let mut script = commands.to_owned();
                for (written, here) in others {
                    script = script.replace(written, here.to_str().unwrap());
                }
                script = script
                    .replace("/var/lib/harmonylite/data.db", &format!("{place}/app.db"))
                    .replace("/var/lib/harmonylite", place)
                    .replace("data.db", "app.db");
                let script = format!(
                    "set -e\ncd {}\n{script}\npwd > {place}/pwd",
                    folder.as_deref().unwrap_or(place)
                );
                let output = Command::new("bash").args(["-c", &script]).output().unwrap();
                assert!(
                    output.status.success(),
                    "{script}\n{}",
                    String::from_utf8_lossy(&output.stderr)
                );
                folder = Some(std::fs::read_to_string(node.folder.join("pwd")).unwrap());
            }
        }
    }
}

fn two(store: &Path) -> Cluster {
    let mut cluster = prepared(2, &stored_in(store));
    start(&mut cluster);
    insert(&cluster[0], 200, 1000);
    insert(&cluster[1], 200, 1000);
    cluster.converge();
    done(&cluster[0].run(&["snapshot", "save"]));
    insert(&cluster[0], 10, 10);
    cluster.converge();
    cluster
}

fn goes_on(cluster: &mut Cluster, rows: usize) {
    assert_eq!(cluster.converge()["events"].len(), rows);
    insert(&cluster[0], 3, 10);
    insert(&cluster[1], 3, 10);
    assert_eq!(cluster.converge()["events"].len(), rows + 6);
    cluster.assert_running();
    cluster[1].assert_sound();
}

#[test]
fn full_node_recovery() {
    let store = folder();
    let mut cluster = two(store.path());
    follow("full recovery", &mut cluster[1], &[]);
    assert!(
        cluster[1].log().contains("filled=true"),
        "{}",
        cluster[1].log()
    );
    goes_on(&mut cluster, 410);
}

#[test]
fn manual_restore() {
    let store = folder();
    let mut cluster = two(store.path());
    let latest = store.path().join("latest.db");
    follow(
        "manual restore",
        &mut cluster[1],
        &[("/tmp/latest.db", &latest)],
    );
    assert!(
        cluster[1]
            .log()
            .contains("a snapshot that was put in place"),
        "{}",
        cluster[1].log()
    );
    goes_on(&mut cluster, 410);
}

#[test]
fn a_backup_put_back() {
    let store = folder();
    let mut cluster = two(store.path());
    let backup = store.path().join("backup.db");
    cluster[1].sql(&format!("VACUUM INTO '{}'", backup.display()));
    insert(&cluster[0], 10, 10);
    insert(&cluster[1], 10, 10);
    cluster.converge();
    follow("backup", &mut cluster[1], &[("/backup/data.db", &backup)]);
    goes_on(&mut cluster, 430);
}

#[test]
fn a_damaged_database() {
    if Command::new("sqlite3").arg("-version").output().is_err() {
        eprintln!("not tried: there is no sqlite3 program on this machine");
        return;
    }
    let store = folder();
    let mut cluster = two(store.path());
    // What it has not published is the least certain of all.
    let direct = cluster.server.url();
    cluster[1].stop();
    cluster[1].sections = cluster[1].sections.replace(&direct, "nats://127.0.0.1:1");
    cluster[1].start();
    cluster[1].sql("INSERT INTO events(uid, node) VALUES('unpublished', 2)");
    cluster[1].signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(cluster[1].wait_end().code, Some(0));
    assert_eq!(cluster[1].pending(), 1);
    cluster[1].sections = cluster[1].sections.replace("nats://127.0.0.1:1", &direct);

    // Pages in the middle, each a leaf of the table or its index.
    let mut bytes = std::fs::read(cluster[1].database()).unwrap();
    let pages = bytes.len() / 4096;
    for page in pages / 3..pages / 3 + 4 {
        bytes[page * 4096..page * 4096 + 2000].fill(0xa5);
    }
    std::fs::write(cluster[1].database(), bytes).unwrap();
    let check: String = cluster[1]
        .app()
        .query_row("PRAGMA quick_check", [], |row| row.get(0))
        .unwrap_or_else(|error| error.to_string());
    assert_ne!(check, "ok");

    follow("repair", &mut cluster[1], &[]);
    cluster[1].wait_log("was not part of the cluster and differed from it");
    assert_eq!(cluster.converge()["events"].len(), 410);
    let copies = beside(&cluster[1], ".before-restore-");
    assert_eq!(copies.len(), 1, "{copies:?}");
    // What nobody else has is in the copy, and comes back as a new change.
    cluster[1].sql(&format!(
        "ATTACH '{}' AS before; INSERT OR IGNORE INTO events SELECT * FROM before.events WHERE uid = 'unpublished'",
        cluster[1].folder.join(&copies[0]).display()
    ));
    goes_on(&mut cluster, 411);
    assert_eq!(
        cluster[0].integer("SELECT count(*) FROM events WHERE uid = 'unpublished'"),
        1
    );
}

/// A procedure in words: its steps are those of the page.
#[test]
fn moving_a_cluster_to_another_server() {
    let store = folder();
    let mut cluster = two(store.path());
    insert(&cluster[1], 5, 10);
    // Of the node that has written.
    done(&cluster[1].run(&["wait"]));
    let old = cluster.server.url();
    for node in &mut cluster.nodes {
        done(&node.run(&["-cleanup"]));
        assert_eq!(node.wait_end().code, Some(0));
        let ours =
            node.integer("SELECT count(*) FROM sqlite_schema WHERE name GLOB '__harmonylite__*'");
        assert_eq!(ours, 0);
    }
    let moved = crate::harness::node::broker();
    for node in &mut cluster.nodes {
        node.sections = node.sections.replace(&old, &moved.url());
    }
    cluster.server = moved;
    cluster[0].start_replicating();
    cluster[0].wait_log("the cluster is founded");
    cluster[1].start_replicating();
    let log = cluster[1].log();
    assert!(log.contains("written=0 removed=0"), "{log}");
    assert_eq!(beside(&cluster[1], ".before-restore-"), [""; 0]);
    goes_on(&mut cluster, 415);
    // The old cluster's snapshots are in the same folder, and are nobody's any more.
    done(&cluster[1].run(&["snapshot", "save"]));
    assert_eq!(crate::snapshots::list(&cluster[1]).len(), 2);
    let mut joins = Node::bare(3, &cluster.server.url());
    joins.sections.clone_from(&cluster[0].sections);
    joins.start_replicating();
    eventually("a new node has all", || joins.dump() == cluster[0].dump());
}

#[test]
fn moving_snapshots_to_another_store() {
    let (store, other) = (folder(), folder());
    let mut cluster = two(store.path());
    let (from, to) = (
        store.path().to_str().unwrap(),
        other.path().to_str().unwrap(),
    );
    for index in [0, 1] {
        insert(&cluster[1 - index], 5, 10);
        cluster[index].stop();
        cluster[index].sections = cluster[index].sections.replace(from, to);
        cluster[index].start_replicating();
    }
    eventually("a snapshot is in the new store", || {
        other.path().join("latest.json").exists()
    });
    std::fs::remove_dir_all(store.path()).unwrap();
    std::fs::create_dir(store.path()).unwrap();
    let mut joins = Node::bare(3, &cluster.server.url());
    joins.sections.clone_from(&cluster[0].sections);
    joins.start_replicating();
    cluster.nodes.push(joins);
    goes_on(&mut cluster, 420);
}
