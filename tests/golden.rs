//! Formats that last: what this version writes is byte for byte what the files in `tests/golden` hold, and what they hold is read.
//!
//! When a format changes, its version rises, the old files stay under their names, and new ones join them:
//! `HARMONYLITE_WRITE_GOLDEN=1 cargo test --test golden` writes those that are missing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use harmonylite::apply::incoming::{self, Body};
use harmonylite::change::operation::ColumnMask;
use harmonylite::change::position::{BatchNumber, Incarnation, NodeId, Sequence, ShardId};
use harmonylite::change::value::Value;
use harmonylite::codec::commit::{self, CommitRecord, SectionKind, SectionRef, TableDefinition};
use harmonylite::codec::covers::{self, TableCovers};
use harmonylite::codec::frame::{Kind, Sealer, open};
use harmonylite::codec::marker::{self, Marker};
use harmonylite::codec::payload::{self, Payload};
use harmonylite::codec::rows::RowWriter;
use harmonylite::codec::sequence_map::{self, SequenceMap, SequenceMapError};
use harmonylite::replica::lifecycle::OpenOptions;
use harmonylite::replica::{Replica, ReplicaError};
use harmonylite::state::StateError;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn golden(name: &str, written: &[u8]) -> Vec<u8> {
    let path = file(name);
    if !path.exists() && std::env::var_os("HARMONYLITE_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, written).unwrap();
    }
    let held = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(
        held, written,
        "{name}: this version writes other bytes than the version that the file is of"
    );
    held
}

fn record() -> CommitRecord {
    let mut rows = RowWriter::default();
    rows.delete(0, [Value::Integer(7)].into_iter());
    rows.whole(
        0,
        [
            Value::Integer(i64::MIN),
            Value::Real(-0.0),
            Value::Text("gr\u{fc}n".as_bytes()),
            Value::Text(b"\xff\0"),
            Value::Blob(b"\0\x01"),
            Value::Null,
        ]
        .into_iter(),
    );
    rows.cells(
        0,
        ColumnMask(0b10),
        2,
        [Value::Integer(1), Value::Real(f64::INFINITY)].into_iter(),
    );
    let mut cover = TableCovers {
        table: 0,
        ..TableCovers::default()
    };
    for (id, stamp) in [(3, 11), (4, 0x7fff_ffff), (9, 0)] {
        cover.push(id, stamp);
    }
    let mut covered = Vec::new();
    covers::encode(&mut covered, &cover);
    CommitRecord {
        node: NodeId(u64::MAX / 2),
        incarnation: Incarnation {
            counter: 3,
            nonce: 0x0123_4567_89ab_cdef,
        },
        batch: BatchNumber(12),
        base: Sequence(41),
        tables: vec![TableDefinition {
            name: "t \"x\"".into(),
            columns: ["id", "r", "s", "raw", "b", "n"].map(String::from).into(),
            key: vec![0],
            uniques: vec!["(\"s\" COLLATE NOCASE) WHERE n > 0".into()],
        }],
        rows: rows.take(),
        covers: covered,
        sections: vec![SectionRef {
            kind: SectionKind::Covers,
            shard: ShardId(2),
            pieces: vec![Sequence(5), Sequence(8)],
            length: 1000,
            hash: 77,
        }],
        row_count: 3,
        scanned_at: 1_790_000_000_000_000,
    }
}

#[test]
fn commit_record() {
    let record = record();
    let held = golden(
        "commit-1.bin",
        &Sealer::new(false, 0).seal(Kind::Commit, &commit::encode(&record)),
    );
    let opened = incoming::open(Sequence(42), &Bytes::from(held));
    let Body::Batch(batch) = opened.body else {
        panic!("not a batch: {:?}", opened.body)
    };
    assert_eq!(batch.record, record);
    assert_eq!(batch.damage, None);
    assert_eq!(
        batch.covered().unwrap()[0].rows().collect::<Vec<_>>(),
        [(3, 11), (4, 0x7fff_ffff), (9, 0)]
    );
}

#[test]
fn payload_piece() {
    let piece = Payload {
        node: NodeId(1),
        incarnation: Incarnation {
            counter: 1,
            nonce: 2,
        },
        batch: BatchNumber(3),
        section: 4,
        piece: 5,
        bytes: b"bytes of a section",
    };
    let held = golden(
        "payload-1.bin",
        &Sealer::new(false, 0).seal(Kind::Payload, &payload::encode(&piece)),
    );
    let (kind, body) = open(&held).unwrap();
    assert_eq!(
        (kind, payload::decode(&body).unwrap()),
        (Kind::Payload, piece)
    );
}

#[test]
fn marker() {
    let marker = Marker {
        node: NodeId(7),
        id: 0x0123_4567_89ab_cdef,
    };
    let held = golden(
        "marker-1.bin",
        &Sealer::new(false, 0).seal(Kind::Marker, &marker::encode(&marker)),
    );
    let opened = incoming::open(Sequence(5), &Bytes::from(held));
    assert!(
        matches!(opened.body, Body::Marker(m) if m == marker),
        "{:?}",
        opened.body
    );
}

/// The bytes of a compressed frame are the compressor's, so only reading is held.
#[test]
fn compressed_section() {
    let body: Vec<u8> = b"a row, a row, a row; "
        .iter()
        .copied()
        .cycle()
        .take(4000)
        .collect();
    let path = file("section-1.zst.bin");
    if !path.exists() && std::env::var_os("HARMONYLITE_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, Sealer::new(true, 0).seal(Kind::Section, &body)).unwrap();
    }
    let held = std::fs::read(&path).unwrap();
    assert!(held.len() < body.len());
    let (kind, opened) = open(&held).unwrap();
    assert_eq!((kind, opened.as_ref()), (Kind::Section, body.as_slice()));
}

#[test]
fn sequence_map_file() {
    let map = SequenceMap {
        version: 1,
        node_id: "17".into(),
        database_id: "abc".into(),
        sequences: [(1, Sequence(1_000_000))].into(),
    };
    let held = golden("seq-map-1.cbor", &minicbor::to_vec(&map).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seq-map.cbor");
    std::fs::write(&path, held).unwrap();
    assert_eq!(sequence_map::read(&path).unwrap(), Some(map.clone()));
    std::fs::write(
        &path,
        minicbor::to_vec(SequenceMap { version: 2, ..map }).unwrap(),
    )
    .unwrap();
    let refused = sequence_map::read(&path).unwrap_err();
    assert!(matches!(refused, SequenceMapError::Newer { found: 2, .. }));
    assert!(refused.to_string().contains("upgrade"), "{refused}");
}

fn options() -> OpenOptions {
    OpenOptions {
        node_id: NodeId(7),
        publish: true,
        include: vec![],
        exclude: vec![],
        fire_triggers: Some(Vec::new()),
    }
}

#[test]
fn state_tables() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.db");
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT UNIQUE, b)")
        .unwrap();
    drop(Replica::open(&path, &options(), Duration::from_secs(5), &|| false).unwrap());
    let mut stmt = conn.prepare("SELECT sql || ';' FROM sqlite_schema WHERE name LIKE '\\_\\_harmonylite\\_\\_%' ESCAPE '\\' AND sql IS NOT NULL ORDER BY name").unwrap();
    let lines: Vec<String> = stmt
        .query_map([], |r| r.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    golden("state-3.sql", (lines.join("\n") + "\n").as_bytes());
}

/// A database with the state that this file holds, of node 7 at position 60.
fn database_of(format: i64, state: &str, path: &Path) -> rusqlite::Connection {
    let conn = rusqlite::Connection::open(path).unwrap();
    conn.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT UNIQUE, b)")
        .unwrap();
    let state = std::fs::read_to_string(file(&format!("state-{state}.sql"))).unwrap();
    conn.execute_batch(&state).unwrap();
    conn.execute(
        "INSERT INTO __harmonylite__node(id, format, node_id, database_id, incarnation, nonce, position, position_hash, folded) VALUES(1, ?1, '7', 'golden', 4, 5, 60, 70, 59)",
        [format],
    )
    .unwrap();
    conn.execute(
        "INSERT INTO __harmonylite__publishers VALUES('9', 2, 3, 4, 59)",
        [],
    )
    .unwrap();
    conn.execute(
        "INSERT INTO __harmonylite__conflicts(time, table_name, key, column_name, losing_value, losing_node, winning_node, position, reason)
         VALUES('2026-01-01T00:00:00Z', 't', '1', 'b', 7, '9', '7', 59, 'updated-here')",
        [],
    )
    .unwrap();
    conn
}

/// Every table of the state with its columns.
fn state_columns(conn: &rusqlite::Connection) -> Vec<String> {
    conn.prepare(
        "SELECT m.name || '.' || c.name || ' ' || c.type || c.\"notnull\" || c.pk FROM sqlite_schema AS m, pragma_table_info(m.name) AS c
         WHERE m.type = 'table' AND m.name LIKE '\\_\\_harmonylite\\_\\_%' ESCAPE '\\' ORDER BY m.name, c.cid",
    )
    .unwrap()
    .query_map([], |r| r.get(0))
    .unwrap()
    .map(Result::unwrap)
    .collect()
}

#[test]
fn state_of_every_format_is_read_and_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let mut shapes = Vec::new();
    // Of the third there are triggers that do not let the application drop columns, and those of the key that fire at any update.
    for (format, state) in [
        (1, "1"),
        (2, "2"),
        (3, "3-old"),
        (3, "3-any-update"),
        (3, "3"),
    ] {
        let path = dir.path().join(format!("{state}.db"));
        let conn = database_of(format, state, &path);
        let replica = Replica::open(&path, &options(), Duration::from_secs(5), &|| false).unwrap();
        assert_eq!(
            (
                replica.database_id(),
                replica.position().sequence,
                replica.position().folded
            ),
            ("golden", Sequence(60), Sequence(59))
        );
        // Format 1 hashed the bytes alone: taken for a fingerprint it would say that the history has broken.
        let hash = if format == 1 { 0 } else { 70 };
        assert_eq!(replica.position().hash, hash);
        assert_eq!(replica.publishers()[&NodeId(9)].batch, BatchNumber(4));
        assert_eq!(replica.stored_incarnation().unwrap(), 4);
        drop(replica);
        let kept: (i64, i64, Option<String>) = conn
            .query_row(
                "SELECT (SELECT format FROM __harmonylite__node), losing_value, restored FROM __harmonylite__conflicts",
                [],
                |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)),
            )
            .unwrap();
        assert_eq!(kept, (3, 7, None));
        shapes.push(state_columns(&conn));
    }
    assert!(shapes.iter().all(|s| *s == shapes[0]));
}

#[test]
fn state_of_a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.db");
    let conn = database_of(3, "3", &path);
    conn.execute("UPDATE __harmonylite__node SET format = 4", [])
        .unwrap();
    let Err(refused) = Replica::open(&path, &options(), Duration::from_secs(5), &|| false) else {
        panic!("state of a newer format was opened")
    };
    assert!(matches!(
        refused,
        ReplicaError::State(StateError::Newer { found: 4, known: 3 })
    ));
    assert!(refused.to_string().contains("upgrade"), "{refused}");
}
