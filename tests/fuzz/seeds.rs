//! Inputs that are right, of each kind: what the changed ones begin from.

use harmonylite::apply::incoming::IncomingBatch;
use harmonylite::change::history::History;
use harmonylite::change::operation::ColumnMask;
use harmonylite::change::position::{BatchNumber, Incarnation, NodeId, Sequence, ShardId};
use harmonylite::change::value::Value;
use harmonylite::codec::commit::{CommitRecord, SectionKind, SectionRef, TableDefinition};
use harmonylite::codec::covers::{self, TableCovers};
use harmonylite::codec::payload::{self, Payload};
use harmonylite::codec::rows::RowWriter;
use harmonylite::peers::protocol::{self, Answer, Command, Outcome, Question, TableFacts};
use harmonylite::replica::kept::frame;
use harmonylite::snapshot::manifest::{self, Manifest};
use rusqlite::Connection;

/// Whose batch it is.
const NODE: NodeId = NodeId(7);
const LIFE: Incarnation = Incarnation {
    counter: 3,
    nonce: 0x0123_4567_89ab_cdef,
};
const BATCH: BatchNumber = BatchNumber(12);

/// Two tables, one of them without a key.
pub fn tables() -> Vec<TableDefinition> {
    let table = |name: &str, key: Vec<u64>| TableDefinition {
        name: name.into(),
        columns: ["id", "b", "c"].map(String::from).into(),
        key,
        uniques: vec!["(\"b\" COLLATE NOCASE) WHERE c > 0".into()],
    };
    vec![table("t \"x\"", vec![0]), table("u", vec![])]
}

/// Row operations of each kind, with values of each storage class.
pub fn rows() -> Vec<u8> {
    let mut rows = RowWriter::default();
    rows.delete(0, [Value::Integer(7)].into_iter());
    rows.whole(
        0,
        [
            Value::Integer(i64::MIN),
            Value::Real(-0.0),
            Value::Text("gr\u{fc}n".as_bytes()),
        ]
        .into_iter(),
    );
    let row = [
        Value::Integer(9),
        Value::Null,
        Value::Text(b"\xff\0"),
        Value::Blob(b"\0\x01"),
    ];
    rows.whole(1, row.into_iter());
    let cells = [Value::Integer(1), Value::Real(f64::INFINITY)];
    rows.cells(0, ColumnMask(0b10), 2, cells.into_iter());
    rows.take()
}

/// What two tables cover.
pub fn covers() -> Vec<u8> {
    let mut out = Vec::new();
    for table in 0..2 {
        let mut cover = TableCovers {
            table,
            ..TableCovers::default()
        };
        for (id, stamp) in [(3, 11), (4, 0x7fff_ffff), (9, 0), (i64::MAX, 1)] {
            cover.push(id, stamp);
        }
        covers::encode(&mut out, &cover);
    }
    out
}

/// A commit record that carries its rows, and one that names where they are.
pub fn record() -> CommitRecord {
    CommitRecord {
        node: NODE,
        incarnation: LIFE,
        batch: BATCH,
        base: Sequence(41),
        tables: tables(),
        rows: rows(),
        covers: covers(),
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

/// A piece.
pub fn piece() -> Vec<u8> {
    payload::encode(&Payload {
        node: NODE,
        incarnation: LIFE,
        batch: BATCH,
        section: 0,
        piece: 1,
        bytes: b"a piece of a section",
    })
}

/// What is kept of a batch, without length and hash.
pub fn kept() -> Vec<u8> {
    let batch = IncomingBatch {
        record: record(),
        rows: Vec::new(),
        covers: Vec::new(),
        damage: None,
    };
    let mut all = Vec::new();
    frame::of_batch(&batch, Sequence(42), History::FIRST, false, |bytes| {
        all.push(bytes);
        Ok(())
    })
    .unwrap();
    all.remove(0).split_off(12)
}

/// Questions of nodes.
pub fn questions() -> Vec<Vec<u8>> {
    let step = |command| Question::Step {
        id: 7,
        step: 2,
        command,
        patience: 500,
    };
    let (table, columns) = ("t".to_owned(), vec!["a".to_owned(), "b".to_owned()]);
    [
        Question::Where {
            until: Sequence(9),
            patience: 1000,
        },
        Question::Prepare {
            id: u64::MAX,
            tables: Some("t*".into()),
            calm: true,
        },
        step(Command::Rows {
            table: table.clone(),
            columns: columns.clone(),
            buckets: vec![0, 1023],
            from: 9,
        }),
        step(Command::Digest {
            table: table.clone(),
            columns,
        }),
        step(Command::Gather {
            table,
            keys: vec![3, 0, 0, 0, 1, 2, 3],
        }),
    ]
    .iter()
    .map(protocol::encode)
    .collect()
}

/// Their answers.
pub fn answers() -> Vec<Vec<u8>> {
    [
        Answer::At {
            position: Sequence(9),
            replicate: true,
            paused: Some("a column is lacking".into()),
        },
        Answer::Done(Outcome::Tables {
            tables: vec![TableFacts {
                name: "t".into(),
                left_out: None,
                columns: vec!["a".into()],
                key: vec!["rowid".into()],
            }],
            next: Some(1),
        }),
        Answer::Done(Outcome::Digest {
            rows: 1,
            buckets: vec![1; 24],
        }),
        Answer::Refused {
            reason: "no".into(),
        },
    ]
    .iter()
    .map(protocol::encode)
    .collect()
}

/// A manifest.
pub fn manifest() -> Manifest {
    Manifest {
        format: manifest::FORMAT,
        file: format!("{}.db", manifest::new_name(Sequence(12))),
        cluster: "c".to_owned(),
        node: "7".to_owned(),
        history: History { number: 2, id: 3 },
        sequence: 12,
        hash: format!("{:016x}", u64::MAX),
        folded: 11,
        schema: "s".to_owned(),
        absent: vec!["t".to_owned()],
        size: 4096,
        sha256: "0".repeat(64),
        time: "2026-01-01T00:00:00Z".to_owned(),
        harmonylite: "0".to_owned(),
    }
}

/// A database, its log, and the journal of another one in the midst of a transaction.
pub struct Files {
    pub database: Vec<u8>,
    pub log: Vec<u8>,
    pub journal: Vec<u8>,
}

/// What a node says of itself: everything that it may say.
pub fn announcement() -> Vec<u8> {
    br#"{"position":9,"counter":1,"nonce":2,"wanted":3,"history":"1-0000000000000000","kept":true,"gone":"left","about":{"version":"1.0.0","host":"a","address":"127.0.0.1","server":"s","state":"paused","reasons":["r"],"warnings":[],"publish":true,"replicate":true,"pending":3,"dead_letters":0,"schema":"x","tables":2,"uptime_seconds":5,"shards":2,"offsets":{"2":7},"brakes":{"publish":{"rows_per_second":5},"apply":{}},"hears":[1],"misses":[2]}}"#
        .to_vec()
}

/// What a node says of its schema.
pub const REGISTRY_ENTRY: &str = r#"{"node_id":7,"schema_hash":"x","tables":[{"name":"t","columns":["a"],"key":[],"uniques":["a"]}]}"#;

/// What an operator has set.
pub const BRAKES: &str =
    r#"{"publish":{"rows_per_second":5},"apply":{"paused_since":"2026-01-01T00:00:00Z"}}"#;

/// Written by SQLite.
pub fn files() -> Files {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let read = |name: &str| std::fs::read(path(name)).unwrap();
    let make = |name: &str, mode: &str| {
        let conn = Connection::open(path(name)).unwrap();
        conn.execute_batch(&format!(
            "PRAGMA page_size = 512; PRAGMA journal_mode = {mode}; PRAGMA cache_size = 1;
             CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b AS (a || 1)); CREATE INDEX i ON t(a, lower(b)) WHERE a > 1;
             INSERT INTO t(a) VALUES(1), (x'00'), (2.5), ('x')"
        ))
        .unwrap();
        conn
    };
    let log = make("a.db", "WAL");
    let open = make("b.db", "DELETE");
    // More than the cache holds, so that pages are written, and with them the journal's head.
    open.execute_batch("BEGIN; INSERT INTO t(a) SELECT randomblob(400) FROM t, t, t")
        .unwrap();
    let files = Files {
        database: read("a.db"),
        log: read("a.db-wal"),
        journal: read("b.db-journal"),
    };
    drop((log, open));
    files
}
