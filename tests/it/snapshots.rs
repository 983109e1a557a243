//! Snapshots: taken by schedule and on request, killed half way, restored; streams that are trimmed and streams that are full.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::Value;

use crate::harness::node::{Ended, broker, folder};
use crate::harness::wait::Done;
use crate::harness::{Cluster, Node, app, eventually, tables};

pub const SCHEMA: &str = "CREATE TABLE events(uid TEXT PRIMARY KEY DEFAULT (hex(randomblob(12))), node INTEGER, n INTEGER, filler);";

pub fn insert(node: &Node, rows: i64, bytes: i64) {
    let id = node.id;
    node.sql(&format!(
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {rows})
         INSERT INTO events(node, n, filler) SELECT {id}, n, randomblob({bytes}) FROM c"
    ));
}

/// Nodes that are not started, with these lines in their configurations.
pub fn prepared(count: u64, sections: &str) -> Cluster {
    let mut cluster = Cluster::prepared(count, SCHEMA);
    for node in &mut cluster.nodes {
        node.sections.push_str(sections);
    }
    cluster
}

pub fn start(cluster: &mut Cluster) {
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
}

pub fn done(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{}", ended.said);
}

/// Snapshots in this folder, taken often, and streams trimmed by them at once.
pub fn trimmed_in(store: &Path) -> String {
    format!(
        "{TRIMMED}store = \"file\"\n[snapshot.file]\npath = {:?}\n",
        store.display()
    )
}

/// Snapshots in this folder, taken when asked for.
pub fn stored_in(store: &Path) -> String {
    format!(
        "[snapshot]\nstore = \"file\"\n[snapshot.file]\npath = {:?}\n",
        store.display()
    )
}

pub fn list(node: &Node) -> Vec<Value> {
    let ended = node.run(&["snapshot", "list", "--json"]);
    done(&ended);
    serde_json::from_str(&ended.said).unwrap_or_else(|e| panic!("{e}: {}", ended.said))
}

pub fn newest(node: &Node) -> u64 {
    list(node)
        .first()
        .map_or(0, |m| m["sequence"].as_u64().unwrap())
}

/// The app's tables in a snapshot, as a plain SQLite file.
pub fn fetched(node: &Node, name: &str) -> tables::Dump {
    let to = node
        .folder
        .join(format!("fetched-{:08x}.db", rand::random::<u32>()));
    done(&node.run(&["snapshot", "fetch", name, to.to_str().unwrap()]));
    let conn = Connection::open(&to).unwrap();
    let ours: i64 = app::integer(
        &conn,
        "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' OR name GLOB '*_change_log'",
    );
    assert_eq!(ours, 0, "a snapshot has no capture");
    tables::dump(&conn)
}

pub fn left_behind(node: &Node) -> Vec<String> {
    let names = std::fs::read_dir(&node.folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
    names
        .filter(|n| n.contains(".harmonylite-") || n.contains(".download-"))
        .collect()
}

#[test]
fn at_its_interval_and_only_when_something_has_changed() {
    let mut cluster = prepared(2, "[snapshot]\ninterval = 500\nleader_ttl = 2000\n");
    start(&mut cluster);
    insert(&cluster[0], 100, 10);
    insert(&cluster[1], 100, 10);
    let all = cluster.converge();
    eventually("a snapshot holds everything", || {
        newest(&cluster[1]) > 0 && fetched(&cluster[1], "latest") == all
    });
    let leaders = cluster
        .nodes
        .iter()
        .filter(|n| n.log().contains("this node takes the cluster's snapshots"))
        .count();
    assert_eq!(leaders, 1);
    let before = list(&cluster[0]);
    insert(&cluster[0], 1, 10);
    eventually("another follows a change", || list(&cluster[0]) != before);
    let count = list(&cluster[0]).len();
    assert!(count <= 3, "{count} are kept");
    assert_eq!(left_behind(&cluster[0]), [""; 0]);
    cluster.assert_running();
}

#[test]
fn a_second_process_saves_with_a_daemon_and_without() {
    let store = folder();
    let section = stored_in(store.path());
    let mut cluster = prepared(2, &section);
    start(&mut cluster);
    insert(&cluster[0], 50, 10);
    let all = cluster.converge();
    for (node, words) in [(0, &["snapshot", "save"][..]), (1, &["-save-snapshot"][..])] {
        let ended = cluster[node].run(words);
        done(&ended);
        assert!(
            ended.said.contains("was taken and verified"),
            "{}",
            ended.said
        );
        assert_eq!(fetched(&cluster[node], "latest"), all);
    }
    // A plain file under a name that does not change.
    assert_eq!(
        tables::dump(&Connection::open(store.path().join("latest.db")).unwrap()),
        all
    );
    let verified = cluster[0].run(&["snapshot", "verify"]);
    done(&verified);
    assert!(verified.said.contains("is whole"), "{}", verified.said);

    cluster[1].stop();
    insert(&cluster[1], 7, 10);
    let before = newest(&cluster[1]);
    done(&cluster[1].run(&["-save-snapshot"]));
    assert!(newest(&cluster[1]) > before);
    eventually("what was pending was published", || {
        cluster[0].dump() == cluster[1].dump()
    });
    assert_eq!(fetched(&cluster[1], "latest"), cluster[0].dump());

    // What is refused, and how.
    let refusals = [
        (
            &["snapshot", "fetch", "latest", "app.db"][..],
            64,
            "is the application's database",
        ),
        (
            &["snapshot", "fetch", "latest", "config.toml"],
            73,
            "exists",
        ),
        (
            &["snapshot", "fetch", "none", "new.db"],
            64,
            "no snapshot of that name",
        ),
        (&["snapshot", "restore"], 69, "start harmonylite"),
    ];
    for (words, code, text) in refusals {
        let mut words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        if let Some(file) = words.get_mut(3) {
            *file = cluster[1].folder.join(&file).to_str().unwrap().to_owned();
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ended = cluster[1].run(&words);
        assert_eq!(ended.code, Some(code), "{words:?}: {}", ended.said);
        assert!(ended.said.contains(text), "{words:?}: {}", ended.said);
    }

    // A damaged one is found out.
    let name = list(&cluster[0])[0]["file"].as_str().unwrap().to_owned();
    let path = store.path().join(&name);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let ended = cluster[0].run(&["snapshot", "verify", &name]);
    assert_eq!(ended.code, Some(65), "{}", ended.said);
    assert!(ended.said.contains("SHA-256"), "{}", ended.said);
}

/// A place in the taking of a snapshot, recognised by the files that are there.
struct Step {
    name: &'static str,
    reached: fn(&Path, &Path) -> bool,
}

pub fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned()))
        .collect()
}

pub fn any(folder: &Path, with: &str) -> bool {
    names(folder).iter().any(|n| n.contains(with))
}

fn snapshots_with(store: &Path, ending: &str) -> usize {
    names(store)
        .iter()
        .filter(|n| n.starts_with("snapshot-") && n.ends_with(ending))
        .count()
}

const STEPS: [Step; 5] = [
    Step {
        name: "copying",
        reached: |node, _| any(node, "-snapshot-"),
    },
    Step {
        name: "uploading",
        reached: |_, store| any(store, ".snapshot-"),
    },
    Step {
        name: "stored without its manifest",
        reached: |_, store| snapshots_with(store, ".db") > snapshots_with(store, ".json"),
    },
    Step {
        name: "reading back",
        reached: |_, store| is_unread(store),
    },
    Step {
        name: "putting latest.db",
        reached: |_, store| any(store, ".latest.db"),
    },
];

/// Whether the newest snapshot has its manifest and is not `latest.db` yet.
fn is_unread(store: &Path) -> bool {
    let names = std::fs::read_dir(store)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let newest = names
        .filter(|n| n.starts_with("snapshot-") && n.ends_with(".json"))
        .max()
        .unwrap_or_default();
    let latest = std::fs::read_to_string(store.join("latest.json")).unwrap_or_default();
    !latest.is_empty() && !latest.contains(newest.trim_end_matches(".json"))
}

#[test]
fn a_leader_killed_at_any_step_leaves_the_one_before_and_no_file() {
    let store = folder();
    let mut cluster = prepared(1, &stored_in(store.path()));
    let node = &mut cluster.nodes[0];
    node.start_replicating();
    // Large enough that each step takes a moment.
    insert(node, 30, 1 << 20);
    node.wait_published();
    done(&node.run(&["snapshot", "save"]));
    for step in STEPS {
        let mut seen = false;
        for _ in 0..20 {
            insert(node, 1, 10);
            node.wait_published();
            let ended = Done::default();
            let other = Node::in_folder(node.id, "", &node.folder);
            let configuration = std::fs::read(node.folder.join("config.toml")).unwrap();
            let killed = std::thread::scope(|scope| {
                scope.spawn(|| {
                    // It fails where the daemon is killed under it.
                    let _ = std::process::Command::new(env!("CARGO_BIN_EXE_harmonylite"))
                        .arg("-config")
                        .arg(other.folder.join("config.toml"))
                        .args(["snapshot", "save"])
                        .output();
                    ended.say();
                });
                while !ended.is_said() {
                    if (step.reached)(&node.folder, store.path()) {
                        node.kill();
                        return true;
                    }
                    std::thread::yield_now();
                }
                false
            });
            assert_eq!(
                std::fs::read(node.folder.join("config.toml")).unwrap(),
                configuration
            );
            if !killed {
                continue;
            }
            seen = true;
            // Nobody but the store is asked, and the newest is whole.
            assert!(newest(node) > 0, "{}", step.name);
            let ended = node.run(&["snapshot", "verify"]);
            assert_eq!(ended.code, Some(0), "{}: {}", step.name, ended.said);
            let latest = Connection::open(store.path().join("latest.db")).unwrap();
            let check: String = latest
                .query_row("PRAGMA quick_check", [], |r| r.get(0))
                .unwrap();
            assert_eq!(check, "ok", "{}", step.name);
            node.start_replicating();
            assert_eq!(left_behind(node), [""; 0], "{}", step.name);
            break;
        }
        assert!(seen, "the step {:?} was never met", step.name);
    }
    let all = node.dump();
    done(&node.run(&["snapshot", "save"]));
    assert_eq!(fetched(node, "latest"), all);
}

#[test]
fn a_leader_that_dies_with_unpublished_writes_leaves_no_phantom_rows() {
    let mut cluster = prepared(3, "[snapshot]\ninterval = 200\nleader_ttl = 1000\n");
    for index in [0, 1] {
        cluster[index].start_replicating();
    }
    cluster[0].wait_log("this node takes the cluster's snapshots");
    let finished = Done::default();
    let writer = Node::in_folder(1, "", &cluster[0].folder);
    std::thread::scope(|scope| {
        let _end = finished.on_drop();
        scope.spawn(|| {
            let app = writer.app();
            while !finished.is_said() {
                app.execute("INSERT INTO events(node, n) VALUES(1, 1)", [])
                    .unwrap();
            }
        });
        for _ in 0..3 {
            let seen = cluster[0].log().matches("was taken and verified").count();
            eventually("another is taken", || {
                cluster[0].log().matches("was taken and verified").count() > seen
            });
        }
        cluster[0].kill();
    });
    // It never comes back. Another follows from the stream, a third begins from its snapshot.
    std::fs::remove_file(cluster[2].database()).unwrap();
    cluster[2].start_replicating();
    eventually("the new node equals the one that followed", || {
        cluster[2].dump() == cluster[1].dump()
    });
    assert!(
        cluster[2].log().contains("restored from the snapshot"),
        "{}",
        cluster[2].log()
    );
    insert(&cluster[2], 5, 10);
    eventually("and goes on", || cluster[2].dump() == cluster[1].dump());
}

pub const TRIMMED: &str = "[replication_log]\nmax_entries = 1\nsilent_after = 5000\n[snapshot]\ninterval = 200\nleader_ttl = 1000\n";

#[test]
fn a_node_away_past_retention_comes_back_with_its_own_writes_and_all_others() {
    let mut cluster = prepared(3, TRIMMED);
    start(&mut cluster);
    for node in &cluster.nodes {
        insert(node, 20, 10);
    }
    cluster.converge();
    cluster[2].stop();
    insert(&cluster[2], 33, 10);
    eventually("the stream is trimmed past it", || {
        insert(&cluster[0], 3, 10);
        insert(&cluster[1], 3, 10);
        std::thread::sleep(Duration::from_millis(200));
        let said = |n: &Node| n.log().contains("the streams were trimmed");
        let first = stream_first(&cluster, "harmonylite-changes-1");
        (said(&cluster[0]) || said(&cluster[1])) && first > position(&cluster[2]) + 1
    });
    cluster[2].start_replicating();
    assert!(cluster[2].log().contains("restored from the snapshot"));
    let dump = cluster.converge();
    let own =
        |node: u64| cluster[0].integer(&format!("SELECT count(*) FROM events WHERE node = {node}"));
    assert_eq!(own(3), 53);
    assert_eq!(own(1) + own(2) + own(3), dump["events"].len() as i64);
    cluster.assert_running();
}

pub fn stream_first(cluster: &Cluster, stream: &str) -> u64 {
    crate::harness::jetstream::Outsider::new(&cluster.server.url()).first(stream)
}

pub fn position(node: &Node) -> u64 {
    node.integer("SELECT position FROM __harmonylite__node") as u64
}

#[test]
fn a_removed_database_and_a_copied_snapshot_are_rebuilt() {
    let store = folder();
    let section = trimmed_in(store.path());
    let mut cluster = prepared(2, &section);
    start(&mut cluster);
    insert(&cluster[0], 100, 100);
    insert(&cluster[1], 100, 100);
    cluster.converge();
    eventually("the stream is trimmed", || {
        insert(&cluster[0], 2, 10);
        std::thread::sleep(Duration::from_millis(100));
        stream_first(&cluster, "harmonylite-changes-1") > 1
    });
    for copied in [false, true] {
        cluster[1].wait_published();
        cluster[1].stop();
        remove_database(&cluster[1]);
        std::fs::remove_file(cluster[1].sequence_map()).unwrap();
        if copied {
            std::fs::copy(store.path().join("latest.db"), cluster[1].database()).unwrap();
        }
        insert(&cluster[0], 10, 10);
        cluster[1].start_replicating();
        cluster.converge();
        insert(&cluster[1], 10, 10);
        cluster.converge();
    }
    // The running daemon restores when asked.
    done(&cluster[0].run(&["snapshot", "save"]));
    let before = cluster[1]
        .log()
        .matches("restored from the snapshot")
        .count();
    done(&cluster[1].run(&["snapshot", "restore"]));
    eventually("it has restored", || {
        cluster[1]
            .log()
            .matches("restored from the snapshot")
            .count()
            > before
    });
    insert(&cluster[0], 10, 10);
    insert(&cluster[1], 10, 10);
    cluster.converge();
}

pub fn remove_database(node: &Node) {
    for suffix in ["", "-wal", "-shm"] {
        let path = PathBuf::from(format!("{}{suffix}", node.database().display()));
        if path.exists() {
            std::fs::remove_file(path).unwrap();
        }
    }
}

fn fill(shards: u64) {
    const ROWS: i64 = 150;
    let mut cluster = prepared(
        2,
        &format!(
            "[replication_log]\nmax_bytes = 12582912\nshards = {shards}\n[snapshot]\nleader_ttl = 1000\n"
        ),
    );
    start(&mut cluster);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for node in &cluster.nodes {
            let writer = Node::in_folder(node.id, "", &node.folder);
            scope.spawn(move || {
                let app = writer.app();
                for n in 0..ROWS {
                    app.execute(
                        "INSERT INTO events(node, n, filler) VALUES(?1, ?2, randomblob(100000))",
                        rusqlite::params![writer.id as i64, n],
                    )
                    .unwrap();
                    // A batch holds all that has gathered, and must find room.
                    std::thread::sleep(Duration::from_millis(40));
                }
            });
        }
    });
    eprintln!("written after {:?}", began.elapsed());
    let dump = cluster.converge();
    eprintln!("equal after {:?}", began.elapsed());
    assert_eq!(dump["events"].len() as i64, 2 * ROWS);
    let said = |text: &str| cluster.nodes.iter().any(|n| n.log().contains(text));
    assert!(said("the streams were trimmed"));
    assert!(said("above its soft limit"));
    // What the streams still hold and the newest snapshot are everything: made of the one before it while changes waited.
    assert!(said("reason=\"a stream is above its soft limit\""));
    let mut third = Node::bare(3, &cluster.server.url());
    third.sections.clone_from(&cluster[0].sections);
    third.start_replicating();
    eventually("a new node has all", || third.dump() == dump);
    let log = third.log();
    assert!(log.contains("restored from the snapshot"), "{log}");
    cluster.assert_running();
}

#[test]
fn a_full_stream_pushes_back_loses_nothing_and_goes_on_by_itself() {
    fill(1);
}

#[test]
fn a_full_shard_pushes_back_too() {
    fill(3);
}

#[test]
fn two_clusters_on_one_server_share_neither_leader_nor_snapshots() {
    let server = broker();
    let mut nodes: Vec<Node> = (1..=2)
        .map(|id| {
            let mut node = Node::new(id, &server.url(), SCHEMA);
            node.sections.push_str(&format!(
                "stream_prefix = \"cluster-{id}\"\nsubject_prefix = \"subject-{id}\"\n[snapshot]\ninterval = 200\nleader_ttl = 1000\n"
            ));
            node
        })
        .collect();
    for node in &mut nodes {
        node.start_replicating();
        insert(node, 10, 10);
    }
    for node in &mut nodes {
        node.wait_log("this node takes the cluster's snapshots");
        node.wait_log("was taken and verified");
    }
    let clusters: Vec<String> = nodes
        .iter()
        .map(|node| {
            let id = node.id.to_string();
            let listed = list(node);
            assert!(
                listed.iter().all(|m| m["node"] == id.as_str()),
                "{listed:?}"
            );
            listed[0]["cluster"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_ne!(clusters[0], clusters[1]);
}
