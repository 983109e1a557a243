//! Snapshots that are damaged or gone, and stores that are away when a node needs them.

use std::path::{Path, PathBuf};

use sha2::Digest as _;

use super::{stored_in, trim_past, trimmed_in};
use crate::harness::http::{free_port, get, observed};
use crate::harness::node::folder;
use crate::harness::{Cluster, Node, eventually};
use crate::snapshots::{done, insert, list, prepared, start};

/// Done to a snapshot's database and its manifest.
type Damage = fn(&Path, &Path);

/// What can happen to the newest snapshot.
const DAMAGES: [(&str, Damage); 8] = [
    ("bytes flipped", |database, _| {
        let mut bytes = std::fs::read(database).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(database, bytes).unwrap();
    }),
    ("cut", |database, _| {
        let bytes = std::fs::read(database).unwrap();
        std::fs::write(database, &bytes[..bytes.len() / 2]).unwrap();
    }),
    ("emptied", |database, _| {
        std::fs::write(database, "").unwrap()
    }),
    ("its database removed", |database, _| {
        std::fs::remove_file(database).unwrap()
    }),
    ("its manifest removed", |_, manifest| {
        std::fs::remove_file(manifest).unwrap()
    }),
    ("made of what is no database", |database, manifest| {
        replace(database, manifest, &[7; 50_000]);
    }),
    ("made of a damaged database", |database, manifest| {
        let mut bytes = std::fs::read(database).unwrap();
        bytes[4096..].fill(7);
        replace(database, manifest, &bytes);
    }),
    ("its manifest cut", |_, manifest| {
        let bytes = std::fs::read(manifest).unwrap();
        std::fs::write(manifest, &bytes[..bytes.len() / 2]).unwrap();
    }),
];

/// Another database in the place of a snapshot's, with the right hash in the manifest.
fn replace(database: &Path, manifest: &Path, bytes: &[u8]) {
    let text = std::fs::read(manifest).unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let hash = sha2::Sha256::digest(bytes);
    let hash: String = hash.iter().map(|b| format!("{b:02x}")).collect();
    (json["size"], json["sha256"]) = (bytes.len().into(), hash.into());
    std::fs::write(manifest, json.to_string()).unwrap();
    std::fs::write(database, bytes).unwrap();
}

/// The files of a snapshot, as the list names it.
fn files(store: &Path, file: &str) -> (PathBuf, PathBuf) {
    (store.join(file), store.join(file.replace(".db", ".json")))
}

#[test]
fn a_damaged_snapshot_gives_way_to_the_one_before() {
    let store = folder();
    let mut cluster = prepared(1, &stored_in(store.path()));
    start(&mut cluster);
    for _ in 0..2 {
        insert(&cluster[0], 30, 500);
        cluster[0].wait_published();
        done(&cluster[0].run(&["snapshot", "save"]));
    }
    insert(&cluster[0], 30, 500);
    cluster[0].wait_published();
    let snapshots = list(&cluster[0]);
    let name = |n: usize| snapshots[n]["file"].as_str().unwrap();
    let (database, manifest) = files(store.path(), name(0));
    let whole = (
        std::fs::read(&database).unwrap(),
        std::fs::read(&manifest).unwrap(),
    );
    let expected = cluster[0].dump();
    for (number, (what, damage)) in DAMAGES.into_iter().enumerate() {
        damage(&database, &manifest);
        let mut joins = Node::bare(10 + number as u64, &cluster.server.url());
        joins.sections.clone_from(&cluster[0].sections);
        joins.start_replicating();
        eventually(what, || joins.dump() == expected);
        let log = joins.log();
        // One without a manifest does not count as one.
        assert!(
            what == "its manifest removed"
                || log.contains("Failed to restore snapshot")
                || log.contains("the snapshot before it is used"),
            "{what}: {log}"
        );
        let restored = log
            .lines()
            .rfind(|line| line.contains("restoring from a snapshot"))
            .unwrap();
        assert!(restored.contains(name(1)), "{what}: {restored}");
        joins.stop();
        std::fs::write(&database, &whole.0).unwrap();
        std::fs::write(&manifest, &whole.1).unwrap();
    }
}

#[test]
fn a_removed_sequence_map_asks_for_a_recovery_that_never_sets_back() {
    let store = folder();
    let mut cluster = prepared(2, &stored_in(store.path()));
    start(&mut cluster);
    insert(&cluster[0], 30, 500);
    cluster.converge();
    done(&cluster[0].run(&["snapshot", "save"]));
    // As new as the database: restored, and what is pending is kept and published.
    let again = |node: &mut Node, text: &str| {
        node.stop();
        std::fs::remove_file(node.sequence_map()).unwrap();
        insert(node, 3, 10);
        node.start_replicating();
        let log = node.log();
        assert!(log.contains("the sequence map was removed"), "{log}");
        assert!(log.contains(text), "{text}: {log}");
    };
    again(&mut cluster[1], "restored from the snapshot");
    assert_eq!(cluster.converge()["events"].len(), 33);
    // Older than the database, damaged, gone: the data are kept, and it is said.
    again(&mut cluster[1], "the data are kept");
    assert_eq!(cluster.converge()["events"].len(), 36);
    done(&cluster[0].run(&["snapshot", "save"]));
    let newest = list(&cluster[0])[0]["file"].as_str().unwrap().to_owned();
    std::fs::write(store.path().join(newest), "").unwrap();
    again(&mut cluster[1], "the data are kept");
    assert_eq!(cluster.converge()["events"].len(), 39);
    for name in crate::snapshots::names(store.path()) {
        std::fs::remove_file(store.path().join(name)).unwrap();
    }
    again(&mut cluster[1], "the data are kept");
    assert_eq!(cluster.converge()["events"].len(), 42);
    cluster.assert_running();
}

#[test]
fn a_store_that_is_away_at_a_restore_is_waited_for() {
    let place = folder();
    let (store, aside) = (place.path().join("store"), place.path().join("aside"));
    std::fs::create_dir(&store).unwrap();
    let mut cluster = prepared(2, &trimmed_in(&store));
    let (health, _) = observed(&mut cluster[1]);
    start(&mut cluster);
    insert(&cluster[0], 20, 10);
    insert(&cluster[1], 20, 10);
    cluster.converge();
    cluster[1].stop();
    trim_past(&cluster, &[0], 1);
    std::fs::rename(&store, &aside).unwrap();
    cluster[1].start();
    cluster[1].wait_log("trying again, changes are captured meanwhile");
    let log = cluster[1].log();
    assert!(log.contains(store.to_str().unwrap()), "{log}");
    // Changes are captured while it waits, and health says what for.
    insert(&cluster[1], 7, 10);
    assert_eq!(cluster[1].pending(), 7);
    eventually("health tells", || {
        get(health, "/health")
            .is_some_and(|(status, body)| status == 503 && body.contains(store.to_str().unwrap()))
    });
    assert!(!cluster[1].log().contains("replicating position"));
    std::fs::rename(&aside, &store).unwrap();
    cluster[1].wait_log("restored from the snapshot");
    let dump = cluster.converge();
    assert_eq!(
        dump["events"].len() as i64,
        cluster[0].integer("SELECT count(*) FROM events")
    );
    assert_eq!(
        cluster[0].integer("SELECT count(*) FROM events WHERE node = 2"),
        27
    );
    eventually("health is good again", || {
        get(health, "/health").is_some_and(|(status, _)| status == 200)
    });
    cluster.assert_running();
}

/// A WebDAV server on this port, which keeps its files in a folder. It ends with the value.
fn webdav(port: u16, files: &Path) -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let server = dav_server::DavHandler::builder()
        .filesystem(dav_server::localfs::LocalFs::new(
            files, false, false, false,
        ))
        .strip_prefix("/dav")
        .build_handler();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind(("127.0.0.1", port)))
        .unwrap();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let server = server.clone();
            tokio::spawn(async move {
                let answer = hyper::service::service_fn(move |request| {
                    let server = server.clone();
                    async move { Ok::<_, std::convert::Infallible>(server.handle(request).await) }
                });
                let http = hyper::server::conn::http1::Builder::new();
                let stream = hyper_util::rt::TokioIo::new(stream);
                drop(http.serve_connection(stream, answer).await);
            });
        }
    });
    runtime
}

#[test]
fn a_server_that_does_not_run_is_waited_for() {
    let port = free_port();
    let sections = [
        format!(
            "[snapshot]\nstore = \"s3\"\n[snapshot.s3]\nendpoint = \"127.0.0.1:{port}\"\nbucket = \"bucket\"\nuse_ssl = false\naccess_key = \"key\"\nsecret = \"a-secret-word\"\n"
        ),
        format!(
            "[snapshot]\nstore = \"sftp\"\n[snapshot.sftp]\nurl = \"sftp://me:a-secret-word@127.0.0.1:{port}/snapshots\"\n"
        ),
    ];
    for section in sections {
        let mut cluster = Cluster::prepared(1, crate::snapshots::SCHEMA);
        let node = &mut cluster.nodes[0];
        node.sections.push_str(&section);
        node.start();
        insert(node, 5, 10);
        node.wait_log("failed, trying again");
        assert_eq!(node.pending(), 5);
        node.assert_running();
        let log = node.log();
        assert!(!log.contains("a-secret-word"), "{log}");
    }
}

#[test]
fn a_webdav_server_that_comes_back_lets_nodes_found_and_join() {
    let (files, port) = (folder(), free_port());
    let section = format!(
        "[snapshot]\nstore = \"webdav\"\n[snapshot.webdav]\nurl = \"http://127.0.0.1:{port}/dav?dir=/snapshots\"\n"
    );
    let mut cluster = prepared(1, &section);
    let (health, _) = observed(&mut cluster[0]);
    cluster[0].start();
    insert(&cluster[0], 5, 10);
    eventually("health tells", || {
        get(health, "/health")
            .is_some_and(|(status, body)| status == 503 && body.contains("snapshot"))
    });
    assert_eq!(cluster[0].pending(), 5);
    let running = webdav(port, files.path());
    cluster[0].wait_log("replicating position");
    insert(&cluster[0], 5, 10);
    cluster[0].wait_published();
    done(&cluster[0].run(&["snapshot", "save"]));
    drop(running);
    let mut joins = Node::bare(2, &cluster.server.url());
    joins.sections.push_str(&section);
    joins.start();
    joins.wait_log("failed, trying again");
    let _running = webdav(port, files.path());
    joins.wait_log("restored from the snapshot");
    cluster.nodes.push(joins);
    assert_eq!(cluster.converge()["events"].len(), 10);
    eventually("health is good again", || {
        get(health, "/health").is_some_and(|(status, _)| status == 200)
    });
}

#[test]
fn several_who_ask_for_a_snapshot_at_once_all_get_one() {
    let store = folder();
    let mut cluster = prepared(2, &stored_in(store.path()));
    start(&mut cluster);
    insert(&cluster[0], 2000, 1000);
    let all = cluster.converge();
    std::thread::scope(|scope| {
        let asked: Vec<_> = [0, 0, 1, 1]
            .map(|node| {
                let words = if node == 0 {
                    &["snapshot", "save"][..]
                } else {
                    &["-save-snapshot"]
                };
                let node = &cluster[node];
                scope.spawn(move || node.run(words))
            })
            .into();
        for one in asked {
            let ended = one.join().unwrap();
            done(&ended);
            assert!(
                ended.said.contains("was taken and verified"),
                "{}",
                ended.said
            );
        }
    });
    // The founding one went with the oldest of the four.
    let kept = list(&cluster[0]);
    assert_eq!(kept.len(), 3, "{kept:?}");
    for one in &kept {
        done(&cluster[1].run(&["snapshot", "verify", one["file"].as_str().unwrap()]));
    }
    let latest = rusqlite::Connection::open(store.path().join("latest.db")).unwrap();
    assert_eq!(crate::harness::tables::dump(&latest), all);
    let left: Vec<String> = crate::snapshots::names(store.path());
    assert_eq!(
        left.len(),
        8,
        "three snapshots and the newest under its own name: {left:?}"
    );
}
