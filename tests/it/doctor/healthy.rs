//! Nothing is wrong: nothing is said, and nothing is changed.

use std::path::Path;

use harmonylite::doctor::ORDER;

use super::{SCHEMA, doctor, doctor_with};
use crate::harness::http::observed;
use crate::harness::nats::binary;
use crate::harness::node::{bound, folder};
use crate::harness::wait::eventually_ok;
use crate::harness::{Cluster, Node};

/// Names, sizes and times of all files in a folder, but for the daemon's log and what the daemon itself writes.
fn files(folder: &Path) -> Vec<String> {
    let mut all: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let m = entry.metadata().unwrap();
            format!("{:?} {} {:?}", entry.file_name(), m.len(), m.modified())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_healthy_cluster_has_no_warning_and_every_check_has_its_line() {
    let store = folder();
    let mut cluster = Cluster::prepared(2, SCHEMA);
    for node in &mut cluster.nodes {
        observed(node);
        node.sections.push_str(&format!(
            "[snapshot]\nstore = \"file\"\n[snapshot.file]\npath = {:?}\n",
            store.path()
        ));
        node.start_replicating();
    }
    cluster[0].sql("INSERT INTO t VALUES('a', 1)");
    cluster[1].sql("INSERT INTO t VALUES('b', 2)");
    cluster.converge();
    // Announcements and the first snapshot take a moment.
    let report = eventually_ok("all is well", || {
        let report = doctor(&cluster[0]);
        match report.code {
            Some(0) => Ok(report),
            _ => Err(format!("{report:#?}")),
        }
    });
    assert!(report.problems().is_empty(), "{report:#?}");
    let all = report.json["findings"].as_array().unwrap();
    for check in ORDER {
        let line = all.iter().find(|f| f["check"] == check.place().1);
        let line = line.unwrap_or_else(|| panic!("no line for {check:?}: {report:#?}"));
        // What no client is told is the only thing that is not called well.
        let level = if check.place().1 == "sync_interval" {
            "note"
        } else {
            "ok"
        };
        assert_eq!(line["level"], level, "{line}");
    }
    // The probe object has gone.
    let left: Vec<String> = files(store.path())
        .into_iter()
        .filter(|name| name.contains("probe"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(doctor_with(&cluster[0], &["--deep"]).code, Some(0));
    // For people: in a terminal's width, and without colours where nobody looks.
    let said = cluster[0].run(&["doctor"]).said;
    assert!(said.ends_with("all is well\n"), "{said}");
    assert!(!said.contains('\u{1b}'), "{said}");
}

#[test]
fn a_probe_object_that_was_left_is_removed_by_a_later_run() {
    let store = folder();
    let mut node = Node::new(1, "", SCHEMA);
    node.sections = format!(
        "[snapshot]\nstore = \"file\"\n[snapshot.file]\npath = {:?}\n",
        store.path()
    );
    node.sql("INSERT INTO t VALUES('a', 1)");
    doctor(&node);
    let place = |name: &str| store.path().join(name);
    let (old, new) = (
        place("doctor-probe-7-0a0a0a0a"),
        place("doctor-probe-8-0b0b0b0b"),
    );
    std::fs::write(&new, "x").unwrap();
    let file = std::fs::File::create(&old).unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(86_400);
    file.set_modified(long_ago).unwrap();
    doctor(&node);
    assert!(!old.exists());
    assert!(new.exists(), "another run may be under way");
}

#[test]
fn a_database_in_use_that_is_not_in_wal_mode_is_read_in_pieces() {
    let mut node = Node::new(1, "", SCHEMA);
    node.sections = "[snapshot]\nenabled = false\n".to_owned();
    node.sql("PRAGMA journal_mode = DELETE; CREATE TABLE u(id INTEGER PRIMARY KEY); INSERT INTO t VALUES('a', 1)");
    let app = node.app();
    let found = |report: super::Report| report.json.to_string();
    let text = found(doctor_with(&node, &["--deep"]));
    assert!(
        text.contains("integrity_check, table by table, finds nothing wrong in 3 tables"),
        "{text}"
    );
    drop(app);
    // Whether somebody has it open, only root sees of everybody.
    if nix::unistd::geteuid().is_root() {
        let text = found(doctor_with(&node, &["--deep"]));
        assert!(
            text.contains("integrity_check finds nothing wrong"),
            "{text}"
        );
    }
}

#[test]
fn looking_changes_nothing() {
    let mut cluster = Cluster::new(1, 1, SCHEMA);
    cluster[0].sql("INSERT INTO t VALUES('a', 1)");
    cluster[0].wait_published();
    cluster[0].stop();
    cluster[0].write_configuration();
    let before = files(&cluster[0].folder);
    let report = doctor_with(&cluster[0], &["--no-probe", "--deep"]);
    assert_eq!(report.problems(), ["daemon-down"], "{report:#?}");
    assert_eq!(files(&cluster[0].folder), before);
    // A database that no daemon has ever seen, and none at all.
    let url = cluster.server.url();
    let fresh = Node::new(2, &url, SCHEMA);
    fresh.write_configuration();
    let before = files(&fresh.folder);
    assert_eq!(doctor(&fresh).problems(), ["daemon-down"]);
    assert_eq!(files(&fresh.folder), before);
    let bare = Node::bare(3, &url);
    bare.write_configuration();
    assert_eq!(doctor(&bare).problems(), ["daemon-down"]);
    assert!(!bare.database().exists());
}

#[test]
fn a_managed_server_is_looked_at_through_its_daemon() {
    let mut node = Node::new(1, "", SCHEMA);
    node.sections = format!("[nats]\nserver_path = {:?}\n", binary());
    let report = doctor(&node);
    assert_eq!(report.problems(), ["daemon-down"], "{report:#?}");
    node.start_replicating();
    // By the server's own word.
    let every = "the managed server writes to its disk every 120 s";
    let report = eventually_ok("all is well", || {
        let report = doctor(&node);
        match report.code {
            Some(0) => Ok(report),
            _ => Err(format!("{report:#?}")),
        }
    });
    let text = report.json.to_string();
    assert!(
        text.contains("lets this node in as harmonylite-node-1"),
        "{text}"
    );
    assert!(text.contains(every), "{text}");
    node.stop();
    // Neither named nor on the PATH.
    node.sections = String::new();
    let output = bound(env!("CARGO_BIN_EXE_harmonylite"))
        .env("PATH", &node.folder)
        .arg("-config")
        .arg(node.write_configuration())
        .args(["doctor", "--json"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(69), "{text}");
    assert!(text.contains("\"no-nats-server\""), "{text}");
}
