//! What is wrong with this machine, the database and the daemon.

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use harmonylite::codec::sequence_map::{self, SequenceMap};
use nix::sys::signal::Signal;

use super::{SCHEMA, doctor, doctor_with, stopped};
use crate::harness::http::free_port;
use crate::harness::node::bound;
use crate::harness::wait::eventually_ok;
use crate::harness::{Node, app, eventually};

/// A node with nothing but a file.
fn offline() -> Node {
    Node::new(1, "nats://127.0.0.1:1", SCHEMA)
}

fn mode(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The file of this node with this ending.
fn beside(node: &Node, ending: &str) -> std::path::PathBuf {
    node.folder.join(format!("{}{ending}", node.file))
}

#[test]
fn faults_and_notices_of_the_configuration() {
    let mut node = offline();
    node.root = "publsh = true\n".to_owned();
    let report = doctor(&node);
    assert_eq!(report.code, Some(78));
    report.assert_found(
        "config-fault",
        "publsh is not a known key; did you mean publish?",
    );
    node.root = "replicate = false\n".to_owned();
    doctor(&node).assert_found("config-notice", "replicate is false");
    // A run that has no time says what it could not look at.
    let report = doctor_with(&node, &["--timeout", "1ms"]);
    report.assert_found("unfinished", "no end in the time");
    assert_eq!(node.run(&["doctor", "--timeout", "soon"]).code, Some(64));
}

#[test]
fn what_is_wrong_with_a_file_is_found() {
    /// What is found, in words; the exit code; and what makes it so.
    type Case = (&'static str, &'static str, i32, fn(&Node));
    let cases: [Case; 13] = [
        ("open-to-all", "may change", 1, |n| {
            mode(&n.database(), 0o666)
        }),
        ("open-to-all", "may replace files", 1, |n| {
            mode(&n.folder, 0o777)
        }),
        ("foreign-log", "was left by another database", 1, |n| {
            // The log of one in WAL mode beside one that has none.
            let app = n.app();
            app.execute_batch("PRAGMA journal_mode = WAL; INSERT INTO t VALUES('x', 1)")
                .unwrap();
            let log = fs::read(beside(n, "-wal")).unwrap();
            app.execute_batch("PRAGMA journal_mode = DELETE").unwrap();
            drop(app);
            fs::write(beside(n, "-wal"), log).unwrap();
        }),
        ("brakes-damaged", "does not read", 65, |n| {
            fs::write(beside(n, "-harmonylite.brakes"), "x").unwrap();
            mode(&beside(n, "-harmonylite.brakes"), 0o600);
        }),
        ("sequence-map-damaged", "is damaged", 1, |n| {
            fs::write(n.sequence_map(), "x").unwrap()
        }),
        ("sequence-map-newer", "has format 99", 65, |n| {
            let map = SequenceMap {
                version: 99,
                node_id: "1".into(),
                database_id: "d".into(),
                sequences: Default::default(),
            };
            sequence_map::write(&n.sequence_map(), &map).unwrap();
        }),
        ("database-unreadable", "file is not a database", 65, |n| {
            fs::write(n.database(), "x".repeat(9000)).unwrap()
        }),
        ("damaged", "SQLite says", 65, |n| {
            let rows: String = (0..500)
                .map(|r| format!("INSERT INTO t VALUES('row {r}', zeroblob(200));"))
                .collect();
            n.sql(&format!(
                "BEGIN; {rows} COMMIT; PRAGMA wal_checkpoint(TRUNCATE)"
            ));
            let mut file = File::options().write(true).open(n.database()).unwrap();
            file.seek(SeekFrom::Start(5 * 4096)).unwrap();
            file.write_all(&[0x5a; 4096]).unwrap();
        }),
        ("not-wal", "is not in WAL mode", 1, |n| {
            n.sql("PRAGMA journal_mode = DELETE")
        }),
        ("encoding", "UTF-16", 1, |n| {
            fs::remove_file(n.database()).unwrap();
            app::connect(&n.database())
                .execute_batch(&format!(
                    "PRAGMA encoding = 'UTF-16'; PRAGMA journal_mode = WAL; {SCHEMA}"
                ))
                .unwrap();
        }),
        ("old-sqlite", "SQLite 3.34.0", 1, |n| {
            let mut file = File::options().write(true).open(n.database()).unwrap();
            file.seek(SeekFrom::Start(96)).unwrap();
            file.write_all(&3_034_000_u32.to_be_bytes()).unwrap();
        }),
        ("go-leftovers", "__marmot__t_change_log", 1, |n| {
            n.sql("CREATE TABLE __marmot__t_change_log(id INTEGER PRIMARY KEY, state)")
        }),
        ("table-limit", "\"loose\"", 1, |n| {
            n.sql("CREATE TABLE loose(a, b)")
        }),
    ];
    for (problem, words, code, make) in cases {
        let mut node = offline();
        // Nothing that must run is wrong with it.
        node.sections = "[snapshot]\nenabled = true\n".to_owned();
        make(&node);
        let report = doctor_with(&node, &["--deep"]);
        report.assert_found(problem, words);
        // No nats-server need be there for this.
        let others = report.json["findings"].as_array().unwrap().iter();
        let fails = others.filter(|f| f["level"] == "fail").count();
        if fails <= 1 && !report.problems().contains(&"no-nats-server") {
            assert_eq!(report.code, Some(code), "{report:#?}");
        }
    }
}

#[test]
fn tables_and_triggers_with_a_limit_are_found() {
    let mut node = offline();
    node.sections
        .push_str("[replication]\nfire_triggers = [\"nosuch\"]\n");
    node.sql("CREATE TABLE __harmonylite__mine(id TEXT PRIMARY KEY)");
    // An app with a collation of its own.
    let app = "
import sqlite3, sys
conn = sqlite3.connect(sys.argv[1], timeout=60)
conn.create_collation('mine', lambda a, b: (a > b) - (a < b))
conn.execute('CREATE INDEX by_v ON t(v COLLATE mine)')
";
    let made = Command::new("python3")
        .args(["-c", app])
        .arg(node.database())
        .status();
    assert!(made.unwrap().success());
    let report = doctor(&node);
    report.assert_found("table-refused", "__harmonylite__mine");
    report.assert_found("table-blocks-snapshots", "no such collation sequence: mine");
    report.assert_found("trigger-limit", "nosuch");
}

#[test]
fn rights_and_owners_are_those_of_the_daemons_user() {
    let node = offline();
    node.sql("INSERT INTO t VALUES('x', 1)");
    let configuration = node.write_configuration();
    if nix::unistd::geteuid().is_root() {
        // Another user, who may read the configuration alone.
        mode(&node.folder, 0o755);
        mode(&configuration, 0o644);
        mode(&node.database(), 0o600);
        let output = bound("/usr/bin/setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(env!("CARGO_BIN_EXE_harmonylite"))
            .arg("-config")
            .arg(&configuration)
            .args(["doctor", "--json"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(77), "{text}");
        assert!(
            text.contains("\"access\"") && text.contains("app.db (of root, mode 600)"),
            "{text}"
        );
        // A log that root has made shuts the database's own user out.
        let app = node.app();
        app.execute_batch("PRAGMA journal_mode = WAL; INSERT INTO t VALUES('y', 1)")
            .unwrap();
        nix::unistd::chown(&node.database(), Some(65534.into()), Some(65534.into())).unwrap();
        doctor(&node).assert_found("owner", "app.db-wal belongs to root");
    } else {
        mode(&node.database(), 0o000);
        let report = doctor(&node);
        report.assert_found("access", "may not read and write");
        assert_eq!(report.code, Some(77));
    }
}

#[test]
fn the_state_in_the_database_is_looked_at() {
    let (mut node, _server, _) = stopped(2);
    let report = doctor(&node);
    assert_eq!(report.problems(), ["daemon-down"], "{report:#?}");
    // One after the other: each stays.
    node.sql("INSERT INTO __harmonylite__unsure VALUES('t', 1, 'gap', '2026-11-22T00:00:00Z')");
    doctor(&node).assert_found("unsure-tables", "\"t\"");
    node.sql("INSERT INTO __harmonylite__dead_letters VALUES(1, '2026-11-22T00:00:00Z', 1, 1, 'x', x'00')");
    doctor(&node).assert_found("dead-letters", "1 messages");
    fs::remove_file(node.sequence_map()).unwrap();
    doctor(&node).assert_found("sequence-map-removed", "this node is at position");
    let trigger =
        "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 't' LIMIT 1";
    let name: String = node.app().query_row(trigger, [], |r| r.get(0)).unwrap();
    node.sql(&format!("DROP TRIGGER {name}"));
    doctor(&node).assert_found("not-captured", "\"t\"");
    node.id = 7;
    doctor(&node).assert_found("state-of-another-node", "was node 1's, and this is node 7");
    node.sql("UPDATE __harmonylite__node SET format = 99");
    let report = doctor(&node);
    report.assert_found("state-newer", "format 99");
    assert_eq!(report.code, Some(65));
}

#[test]
fn what_a_daemon_and_its_surroundings_are() {
    let server = crate::harness::node::broker();
    let mut node = Node::new(1, &server.url(), SCHEMA);
    let notify = node.folder.join("notify");
    let _socket = UnixDatagram::bind(&notify).unwrap();
    node.environment = vec![("NOTIFY_SOCKET".to_owned(), notify.display().to_string())];
    let port = free_port();
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let sections = node.sections.clone();
    node.sections.push_str(&format!(
        "[health_check]\nenable = true\nbind = \"127.0.0.1:{port}\"\n"
    ));
    let report = doctor(&node);
    report.assert_found("port-taken", &format!("port {port}"));
    assert_eq!(report.code, Some(73));
    drop(taken);
    let with_health = std::mem::replace(&mut node.sections, sections);
    node.start_replicating();
    let limited = Command::new("prlimit")
        .args(["--pid", &node.pid().to_string(), "--nofile=256:256"])
        .status();
    assert!(limited.unwrap().success());
    let report = doctor(&node);
    report.assert_found("no-watchdog", "does not watch");
    report.assert_found("open-files", "256");
    assert_eq!(node.run(&["pause", "apply"]).code, Some(0));
    assert_eq!(node.run(&["limit", "publish", "5"]).code, Some(0));
    eventually_ok("it is told", || {
        let report = doctor(&node);
        match report.problems().contains(&"unhealthy") {
            true => Ok(()),
            false => Err(format!("{report:#?}")),
        }
    });
    let report = doctor(&node);
    report.assert_found("unhealthy", "an operator has paused applying");
    report.assert_found("health-warning", "5");
    assert_eq!(report.code, Some(75));
    node.sections = with_health;
    doctor(&node).assert_found("port-silent", "health_check.bind");
    // Another that replicates the same file: a program of that name that has it open.
    let marmot = node.folder.join("marmot");
    fs::copy("/bin/sleep", &marmot).unwrap();
    let mut other = bound(&marmot)
        .arg("600")
        .stdin(Stdio::from(File::open(node.database()).unwrap()))
        .spawn()
        .unwrap();
    eventually("it is seen", || {
        doctor(&node).problems().contains(&"second-daemon")
    });
    let report = doctor(&node);
    other.kill().unwrap();
    other.wait().unwrap();
    report.assert_found("second-daemon", "(marmot)");
    node.signal(Signal::SIGSTOP);
    let report = doctor(&node);
    node.signal(Signal::SIGCONT);
    report.assert_found("daemon-silent", "said nothing");
    node.stop();
}
