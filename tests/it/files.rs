//! Files that are damaged, newer, read-only, or have no room left: a clear error or a wait, and nothing lost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use harmonylite::codec::sequence_map::{self, SequenceMap};

use crate::harness::{Cluster, Node, app, eventually, node};

const SCHEMA: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";

#[test]
fn a_sequence_map_that_is_damaged_empty_or_gone_loses_nothing() {
    let mut cluster = Cluster::new(2, 1, SCHEMA);
    cluster[0].sql("INSERT INTO t VALUES(0, 'x')");
    cluster.converge();
    eventually("the map is written", || {
        sequence_map::read(&cluster[1].sequence_map())
            .is_ok_and(|map| map.is_some_and(|map| map.sequences[&1].0 >= 1))
    });
    cluster[1].stop();
    let whole = std::fs::read(cluster[1].sequence_map()).unwrap();
    let damaged: [(&str, Option<Vec<u8>>); 5] = [
        ("truncated", Some(whole[..whole.len() / 2].to_vec())),
        ("empty", Some(Vec::new())),
        ("garbage", Some(vec![0xff; 5000])),
        (
            "of the Go program",
            Some(vec![0xa1, 0x61, 0x31, 0x18, 0x64]),
        ),
        ("removed", None),
    ];
    for (number, (what, bytes)) in damaged.into_iter().enumerate() {
        match bytes {
            Some(bytes) => std::fs::write(cluster[1].sequence_map(), bytes).unwrap(),
            None => std::fs::remove_file(cluster[1].sequence_map()).unwrap(),
        }
        // Both write while it is down.
        cluster[0].sql(&format!("INSERT INTO t VALUES({number} * 2 + 1, '{what}')"));
        cluster[1].sql(&format!("INSERT INTO t VALUES({number} * 2 + 2, '{what}')"));
        cluster[1].start();
        assert_eq!(cluster.converge()["t"].len(), number * 2 + 3, "{what}");
        cluster[1].wait_log("sequence map");
        eventually("the map is written anew", || {
            sequence_map::read(&cluster[1].sequence_map()).is_ok_and(|map| map.is_some())
        });
        cluster[1].stop();
    }
}

#[test]
fn a_sequence_map_of_a_newer_version_is_refused() {
    let node = Node::new(1, "nats://127.0.0.1:1", SCHEMA);
    let map = SequenceMap {
        version: 99,
        node_id: "1".to_owned(),
        database_id: String::new(),
        sequences: BTreeMap::new(),
    };
    sequence_map::write(&node.sequence_map(), &map).unwrap();
    let refused = node.run(&[]);
    assert_eq!(refused.code, Some(65), "{}", refused.said);
    assert!(
        refused.said.contains("99")
            && refused.said.contains("upgrade")
            && refused.said.contains("seq-map.cbor"),
        "{}",
        refused.said
    );
}

#[test]
fn state_of_a_newer_version_is_refused_and_left_alone() {
    let mut cluster = Cluster::new(1, 1, SCHEMA);
    cluster[0].wait_log("replicating position");
    cluster[0].stop();
    cluster[0].sql("UPDATE __harmonylite__node SET format = 99");
    let before = cluster[0].integer("PRAGMA schema_version");
    for flags in [&[][..], &["-cleanup"]] {
        let refused = cluster[0].run(flags);
        assert_eq!(refused.code, Some(65), "{}", refused.said);
        assert!(
            refused.said.contains("99") && refused.said.contains("upgrade"),
            "{}",
            refused.said
        );
    }
    assert_eq!(cluster[0].integer("PRAGMA schema_version"), before);
    assert_eq!(
        cluster[0].integer("SELECT format FROM __harmonylite__node"),
        99
    );
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let node = Node::bare(1, "nats://127.0.0.1:1");
    let garbage = vec![b'x'; 8192];
    std::fs::write(node.database(), &garbage).unwrap();
    let refused = node.run(&[]);
    assert_eq!(refused.code, Some(65), "{}", refused.said);
    assert!(
        refused.said.contains("app.db") && refused.said.contains("not a database"),
        "{}",
        refused.said
    );
    assert_eq!(
        std::fs::read(node.database()).unwrap(),
        garbage,
        "it is left as it is"
    );
}

#[test]
fn a_damaged_database_is_refused_by_name() {
    let node = Node::new(
        1,
        "nats://127.0.0.1:1",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v); PRAGMA journal_mode = DELETE",
    );
    // The schema's page: the header stays.
    let mut bytes = std::fs::read(node.database()).unwrap();
    bytes[100..2000].fill(0xa5);
    std::fs::write(node.database(), bytes).unwrap();
    let refused = node.run(&[]);
    assert_eq!(refused.code, Some(65), "{}", refused.said);
    assert!(
        refused.said.contains("malformed") && refused.said.contains("integrity_check"),
        "{}",
        refused.said
    );
}

#[test]
fn an_older_copy_of_the_database_put_back_catches_up_and_loses_nothing() {
    let mut cluster = Cluster::new(2, 1, SCHEMA);
    cluster[0].sql("INSERT INTO t VALUES(1, 'one'), (2, 'two')");
    cluster.converge();
    let copy = cluster[0].folder.join("copy.db");
    cluster[0].sql(&format!("VACUUM INTO '{}'", copy.display()));
    // What comes after the copy, from both.
    cluster[0].sql("INSERT INTO t VALUES(3, 'after'); UPDATE t SET v = 'newer' WHERE id = 1");
    cluster[1].sql("INSERT INTO t VALUES(4, 'other'); DELETE FROM t WHERE id = 2");
    cluster.converge();
    cluster[0].stop();
    for name in ["app.db", "app.db-wal", "app.db-shm"] {
        let _ = std::fs::remove_file(cluster[0].folder.join(name));
    }
    std::fs::rename(&copy, cluster[0].database()).unwrap();
    // The app writes before the daemon knows; its change-log ids are those that others had before.
    cluster[0].sql("PRAGMA journal_mode = WAL; INSERT INTO t VALUES(5, 'on the old copy'); UPDATE t SET v = 'newest' WHERE id = 1");
    cluster[0].start();
    let dump = cluster.converge();
    assert_eq!(dump["t"].len(), 4);
    for (id, v) in [
        (1, "newest"),
        (3, "after"),
        (4, "other"),
        (5, "on the old copy"),
    ] {
        assert_eq!(
            cluster[1].integer(&format!(
                "SELECT count(*) FROM t WHERE id = {id} AND v = '{v}'"
            )),
            1,
            "{id}"
        );
    }
}

#[test]
fn a_copy_of_a_nodes_database_joins_as_another_node() {
    let mut cluster = Cluster::new(2, 1, SCHEMA);
    cluster[0].sql("INSERT INTO t VALUES(1, 'one')");
    cluster.converge();
    let third = Node::bare(3, &cluster.server.url());
    cluster[0].sql(&format!("VACUUM INTO '{}'", third.database().display()));
    cluster[1].sql("INSERT INTO t VALUES(2, 'after the copy')");
    cluster.nodes.push(third);
    cluster[2].sql("PRAGMA journal_mode = WAL");
    cluster[2].start();
    cluster[2].sql("INSERT INTO t VALUES(3, 'three')");
    assert_eq!(cluster.converge()["t"].len(), 3);
    cluster.assert_running();
}

/// A file system of this size, unmounted with the value. `None` where mounting is not permitted.
struct Mount(PathBuf, #[allow(dead_code)] tempfile::TempDir);

impl Mount {
    fn new(size: &str) -> Option<Self> {
        let owned = node::folder();
        let path = owned.path().join("mount");
        std::fs::create_dir(&path).unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(&path)
            .output();
        match output {
            Ok(output) if output.status.success() => Some(Self(path, owned)),
            Ok(output) => {
                eprintln!(
                    "not tried, mounting is not permitted here: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                );
                None
            }
            Err(error) => {
                eprintln!("not tried, there is no mount program: {error}");
                None
            }
        }
    }

    fn remount(&self, options: &str) {
        let status = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(&self.0)
            .status()
            .unwrap();
        assert!(status.success(), "remount,{options}");
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_read_only_file_system_is_refused() {
    let Some(mount) = Mount::new("8m") else {
        return;
    };
    let elsewhere = node::folder();
    app::create(&mount.path().join("app.db"), SCHEMA);
    mount.remount("ro");
    let mut node = Node::in_folder(1, "nats://127.0.0.1:1", elsewhere.path());
    node.root = format!("seq_map_path = {:?}", elsewhere.path().join("map.cbor"));
    let refused = node.run(&["-db", mount.path().join("app.db").to_str().unwrap()]);
    assert!(
        matches!(refused.code, Some(73 | 77 | 78)),
        "{:?} {}",
        refused.code,
        refused.said
    );
    assert!(
        refused.said.contains(mount.path().to_str().unwrap()),
        "{}",
        refused.said
    );
    mount.remount("rw");
}

#[test]
fn a_read_only_database_file_is_refused() {
    let node = Node::new(1, "nats://127.0.0.1:1", SCHEMA);
    let attribute = |change: &str| {
        Command::new("chattr")
            .arg(change)
            .arg(node.database())
            .output()
    };
    // We may be root, who is not held up by a mode.
    match attribute("+i") {
        Ok(output) if output.status.success() => {}
        _ => {
            eprintln!("not tried: a file cannot be made immutable here");
            return;
        }
    }
    let refused = node.run(&[]);
    assert!(attribute("-i").unwrap().status.success());
    assert_eq!(refused.code, Some(77), "{}", refused.said);
    assert!(refused.said.contains("app.db"), "{}", refused.said);
}

#[test]
fn a_full_disk_is_waited_out_and_nothing_is_lost() {
    let Some(mount) = Mount::new("3m") else {
        return;
    };
    let mut cluster = Cluster::prepared(1, SCHEMA);
    cluster[0].start();
    let mut small = Node::in_folder(2, &cluster.server.url(), mount.path());
    app::create(&small.database(), SCHEMA);
    small.start();
    cluster.nodes.push(small);
    cluster[0].sql("INSERT INTO t VALUES(1, 'fits')");
    cluster.converge();
    for id in 2..30 {
        cluster[0].sql(&format!("INSERT INTO t VALUES({id}, randomblob(300000))"));
    }
    cluster[0].wait_published();
    cluster[1].wait_log("full");
    cluster[1].assert_running();
    assert!(cluster[1].integer("SELECT count(*) FROM t") < 29);
    // Killed on the full disk, too; its start waits as well, or applies no more than fits.
    cluster[1].kill();
    cluster[1].spawn();
    mount.remount("size=100m");
    assert_eq!(cluster.converge()["t"].len(), 29);
    cluster[1].sql("INSERT INTO t VALUES(100, 'the way back')");
    assert_eq!(cluster.converge()["t"].len(), 30);
    cluster.assert_running();
    cluster[1].stop();
    cluster.nodes.pop();
}
