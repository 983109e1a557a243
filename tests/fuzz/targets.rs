//! The decoders: each with inputs that it accepts, what it must do with any other, and the memory that it may take.

use std::io::Cursor;

use bytes::Bytes;
use harmonylite::apply::incoming::{self, Body, IncomingBatch};
use harmonylite::brakes::Set;
use harmonylite::change::history::History;
use harmonylite::change::position::{NodeId, Sequence};
use harmonylite::codec::commit::{self, SectionKind};
use harmonylite::codec::frame::{self, HEADER, Kind, MAX_RAW_MESSAGE, Sealer};
use harmonylite::codec::marker::{self, Marker};
use harmonylite::codec::rows::{RowOp, RowReader};
use harmonylite::codec::sequence_map::{self, SequenceMap};
use harmonylite::codec::spool::Blob;
use harmonylite::codec::{covers, payload};
use harmonylite::config::{Config, Overrides};
use harmonylite::consume::payload::add_piece;
use harmonylite::control::protocol::{self as control, Request};
use harmonylite::history::agree::{Agreement, Candidacy};
use harmonylite::peers::protocol::{self, Answer, Question};
use harmonylite::registry::entry::Entry;
use harmonylite::replica::kept::frame as kept;
use harmonylite::snapshot::manifest::Manifest;
use harmonylite::snapshot::presence::Announced;
use harmonylite::snapshot::verified::Verified;
use harmonylite::sqlite::wal_file::{self, FirstPage};
use harmonylite::sqlite::{connection, index_sql, introspect, journal_file};
use harmonylite::stream::{Holder, KvEntry, RoleHolder};
use harmonylite::wait::token::Token;
use serde::de::DeserializeOwned;

use crate::seeds;

/// Reads an input; whether it accepts it.
pub type Read = Box<dyn Fn(&[u8]) -> bool>;

/// A decoder.
pub struct Target {
    pub name: &'static str,
    /// What it accepts.
    pub seeds: Vec<Vec<u8>>,
    /// Reads an input, and looks whether what it has made of it is sound. Whether it accepted it.
    pub read: Read,
    /// Bytes that it may take for an input of this length.
    pub memory: fn(usize) -> usize,
}

/// What a program takes for its own comfort, whatever the input.
const COMFORT: usize = 1 << 20;

/// The usual bound: a byte becomes a text or a number in a list, and lists grow by doubling.
fn usual(length: usize) -> usize {
    COMFORT + 100 * length
}

/// The bound of what may be compressed: as much as a message may have.
fn compressed(_: usize) -> usize {
    COMFORT + 3 * MAX_RAW_MESSAGE
}

fn target(
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    read: impl Fn(&[u8]) -> bool + 'static,
) -> Target {
    Target {
        name,
        seeds,
        read: Box::new(read),
        memory: usual,
    }
}

/// All of them.
pub fn all() -> Vec<Target> {
    let mut all = messages();
    all.extend(sections());
    all.extend(between_nodes());
    all.extend(in_buckets());
    all.extend(beside_the_database());
    all.extend(from_people());
    all
}

/// What the streams hold.
fn messages() -> Vec<Target> {
    let sealed = |kind, body: &[u8], compress| Sealer::new(compress, 0).seal(kind, body);
    let record = commit::encode(&seeds::record());
    let whole = vec![
        sealed(Kind::Commit, &record, false),
        sealed(Kind::Commit, &record, true),
        sealed(Kind::Payload, &seeds::piece(), false),
        sealed(
            Kind::Marker,
            &marker::encode(&Marker {
                node: NodeId(1),
                id: 2,
            }),
            false,
        ),
    ];
    let stored = whole.iter().map(|m| m[2..].to_vec()).collect();
    vec![
        Target {
            memory: compressed,
            ..target("message", whole, |bytes| is_read(&open(bytes)))
        },
        // The same under a hash that fits, so that what comes after the hash is reached.
        Target {
            memory: compressed,
            ..target("message-hashed", stored, |bytes| {
                let mut message = [&b"HL"[..], bytes].concat();
                if let Some((head, body)) = message.split_at_mut_checked(HEADER) {
                    head[0] = b'H';
                    head[9..].copy_from_slice(&frame::message_hash(body).to_le_bytes());
                }
                is_read(&open(&message))
            })
        },
        target("commit-record", vec![record], |body| {
            let Ok(record) = commit::decode(body) else {
                return false;
            };
            assert_eq!(commit::decode(&commit::encode(&record)).unwrap(), record);
            is_read(&open(&Sealer::new(false, 0).seal(Kind::Commit, body)))
        }),
        target("payload", vec![seeds::piece()], |body| {
            let message = Sealer::new(false, 0).seal(Kind::Payload, body);
            let mut out = Vec::new();
            let added = add_piece(&message, &seeds::record(), 0, 1, &mut out);
            assert!(payload::decode(body).is_ok() || !added);
            added && out.len() <= body.len()
        }),
        target(
            "marker",
            vec![marker::encode(&Marker {
                node: NodeId(1),
                id: u64::MAX,
            })],
            |body| {
                marker::decode(body)
                    .is_ok_and(|m| marker::decode(&marker::encode(&m)).unwrap() == m)
            },
        ),
    ]
}

fn open(bytes: &[u8]) -> Body {
    incoming::open(Sequence(1), &Bytes::copy_from_slice(bytes)).body
}

fn is_read(body: &Body) -> bool {
    match body {
        Body::Batch(batch) => {
            // What was found sound can be gone through.
            assert!(batch.damage.is_some() || batch.covered().is_ok());
            batch.damage.is_none()
        }
        Body::Payload | Body::Marker(_) => true,
        Body::Unreadable { .. } | Body::Newer(_) => false,
    }
}

/// What batches hold.
fn sections() -> Vec<Target> {
    vec![
        target("rows", vec![seeds::rows()], |bytes| {
            let tables = seeds::tables();
            let mut reader = RowReader::new(bytes, &tables);
            let (mut values, mut count) = (Vec::new(), 0);
            loop {
                match reader.next(&mut values) {
                    Ok(Some((table, op))) => {
                        count += 1;
                        assert!(count <= bytes.len());
                        let definition = &tables[table as usize];
                        assert!(values.len() <= definition.whole_len() + definition.key_len());
                        if let RowOp::Cells(mask) = op {
                            assert!(mask.columns().all(|c| c < definition.columns.len()));
                        }
                        let key = definition.key_of(op, &values);
                        assert_eq!(key.len(), definition.key_len());
                    }
                    Ok(None) => return true,
                    Err(_) => return false,
                }
            }
        }),
        target("covers", vec![seeds::covers()], |bytes| {
            let Ok(all) = covers::decode(bytes) else {
                return false;
            };
            let mut again = Vec::new();
            for table in &all {
                assert!(table.rows().count() <= table.stamps.len());
                covers::encode(&mut again, table);
            }
            assert_eq!(covers::decode(&again).unwrap(), all);
            true
        }),
        target("section", vec![seeds::rows()], |body| {
            let mut record = seeds::record();
            (record.rows, record.covers) = (Vec::new(), Vec::new());
            let mut batch = IncomingBatch {
                record,
                rows: Vec::new(),
                covers: Vec::new(),
                damage: None,
            };
            let framed = Sealer::new(true, 0).seal(Kind::Section, body);
            batch.add_section(
                SectionKind::Rows,
                &framed,
                Blob::Memory(framed.clone().into()),
            );
            let read = batch.each_section::<std::io::Error>(|_| Ok(()));
            assert!(read.is_ok());
            batch.damage.is_none()
        }),
    ]
}

/// What nodes ask one another.
fn between_nodes() -> Vec<Target> {
    vec![
        target("question", seeds::questions(), |bytes| {
            protocol::decode::<Question>(bytes).is_ok_and(|q| {
                protocol::decode::<Question>(&protocol::encode(&q)).is_ok_and(|again| again == q)
            })
        }),
        target("answer", seeds::answers(), |bytes| {
            protocol::decode::<Answer>(bytes).is_ok_and(|a| {
                protocol::decode::<Answer>(&protocol::encode(&a)).is_ok_and(|again| again == a)
            })
        }),
    ]
}

/// What KV and the snapshots' store hold.
fn in_buckets() -> Vec<Target> {
    fn json<T: DeserializeOwned>(name: &'static str, seeds: &[&str]) -> Target {
        let seeds = seeds.iter().map(|s| s.as_bytes().to_vec()).collect();
        target(name, seeds, |bytes| {
            serde_json::from_slice::<T>(bytes).is_ok()
        })
    }
    vec![
        target("manifest", vec![seeds::manifest().write()], |bytes| {
            let Ok(manifest) = Manifest::read(bytes) else {
                return false;
            };
            // Its name leads to an object of the store: to that, and nowhere else.
            assert!(!manifest.file.contains('/') || manifest.file.starts_with("snapshot"));
            let _ = manifest.position();
            Manifest::read(&manifest.write()).is_ok_and(|again| again == manifest)
        }),
        json::<Verified>(
            "verified",
            &[&format!(
                "[{}]",
                String::from_utf8(seeds::manifest().write()).unwrap()
            )],
        ),
        target("announcement", vec![seeds::announcement()], |bytes| {
            let entry = KvEntry {
                value: Bytes::copy_from_slice(bytes),
                revision: 1,
                created: 1,
            };
            Announced::read(NodeId(1), &entry).about.is_some()
        }),
        json::<Entry>("registry-entry", &[seeds::REGISTRY_ENTRY]),
        json::<Set>("brakes", &[seeds::BRAKES]),
        json::<Agreement>(
            "agreement",
            &[
                r#"{"history":"2-00000000000000aa","before":"1-0000000000000000","stage":{"settled":{"base":"x"}},"by":7,"living":[1,2,3],"reason":"lost"}"#,
            ],
        ),
        json::<Candidacy>(
            "candidacy",
            &[r#"{"history":"1-0000000000000000","position":9,"lost":true,"reaches":false}"#],
        ),
        json::<RoleHolder>("role", &[r#"{"node":7,"nonce":9}"#]),
        json::<Holder>(
            "lease",
            &[
                r#"{"database":"d","nonce":"00","host":"h","boot_id":"b","pid_namespace":"p","pid":1,"process_start":2,"version":"0"}"#,
            ],
        ),
    ]
}

/// What lies beside the database, or is the database.
fn beside_the_database() -> Vec<Target> {
    let files = seeds::files();
    let folder = tempfile::tempdir().unwrap();
    let map = folder.path().join("seq-map.cbor");
    let written = SequenceMap {
        version: sequence_map::VERSION,
        node_id: "7".into(),
        database_id: "d".into(),
        sequences: [(1, Sequence(9)), (2, Sequence(u64::MAX))].into(),
    };
    sequence_map::write(&map, &written).unwrap();
    let seed = std::fs::read(&map).unwrap();
    let first = FirstPage::read(&files.database[..]).unwrap().unwrap();
    let journals = FirstPage::read(&files.database[..]).unwrap().unwrap();
    let snapshots = tempfile::tempdir().unwrap();
    // In one file, so that it can be opened by itself.
    let whole = {
        let path = snapshots.path().join("whole.db");
        std::fs::write(&path, &files.database).unwrap();
        std::fs::write(snapshots.path().join("whole.db-wal"), &files.log).unwrap();
        let conn = rusqlite::Connection::open(&path).unwrap();
        conn.execute_batch("PRAGMA journal_mode = DELETE").unwrap();
        std::fs::read(&path).unwrap()
    };
    vec![
        target("sequence-map", vec![seed], move |bytes| {
            std::fs::write(&map, bytes).unwrap();
            // The folder lives as long as the closure.
            let _ = folder.path();
            sequence_map::read(&map).is_ok_and(|map| map.is_some())
        }),
        target("kept-batches", vec![seeds::kept()], |body| {
            let length = u32::try_from(body.len()).unwrap().to_le_bytes();
            let hash = xxhash_rust::xxh3::xxh3_64(body).to_le_bytes();
            let file = [&length[..], &hash, body].concat();
            // One whose length is a lie, too.
            let _ = kept::next(&mut Cursor::new(body));
            match kept::next(&mut Cursor::new(file)).unwrap() {
                Some((frame, _)) => covers::decode(&frame.covers).is_ok(),
                None => false,
            }
        }),
        target("wal-file", vec![files.log], move |bytes| {
            wal_file::foreign(&first, bytes).unwrap().is_none()
        }),
        target("journal-file", vec![files.journal], move |bytes| {
            journal_file::foreign(&journals, Cursor::new(bytes)).is_ok()
        }),
        Target {
            // SQLite's own caches.
            memory: |length| (16 << 20) + 100 * length,
            ..target("snapshot-file", vec![whole], move |bytes| {
                let path = snapshots.path().join("changed.db");
                std::fs::write(&path, bytes).unwrap();
                let read = connection::open_reader(&path).is_ok_and(|conn| {
                    let sound = connection::quick_check(&conn).is_ok_and(|found| found.is_none());
                    introspect::read_schema(&conn).is_ok() && sound
                });
                for suffix in ["-journal", "-wal", "-shm"] {
                    let _ =
                        std::fs::remove_file(snapshots.path().join(format!("changed.db{suffix}")));
                }
                read
            })
        },
    ]
}

/// What people and their programs write.
fn from_people() -> Vec<Target> {
    let requests: [&[u8]; 4] = [
        br#"{"command":"ping"}"#,
        br#"{"command":"skip","arguments":{"shard":1,"first":2,"last":3}}"#,
        br#"{"command":"wait","arguments":{"position":"0000000000000001-7","timeout_ms":5}}"#,
        br#"{"command":"verify","arguments":{"timeout_ms":5,"tables":"t*"}}"#,
    ];
    let answers: [&[u8]; 3] = [
        br#"{"progress":"reading"}"#,
        br#"{"ok":true,"message":"done"}"#,
        br#"{"ok":false,"error":"no","exit":64}"#,
    ];
    let owned = |all: &[&[u8]]| all.iter().map(|s| s.to_vec()).collect();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db").display().to_string();
    let example = include_str!("../../config.example.toml")
        .lines()
        .filter(|line| !line.starts_with("db_path") && !line.starts_with("node_id"))
        .collect::<Vec<_>>()
        .join("\n");
    vec![
        target("control-request", owned(&requests), |line| {
            Request::decode(line).is_ok_and(|r| Request::decode(&r.encode()) == Ok(r))
        }),
        target("control-answer", owned(&answers), |line| {
            control::Answer::decode(line)
                .is_some_and(|a| control::Answer::decode(&a.encode()).is_some())
        }),
        target("position", owned(&[b"0123456789abcdef-42"]), move |bytes| {
            text(bytes)
                .parse::<Token>()
                .is_ok_and(|t| t.to_string().parse() == Ok(t))
        }),
        target("history", owned(&[b"2-0123456789abcdef"]), move |bytes| {
            text(bytes)
                .parse::<History>()
                .is_ok_and(|h| h.to_string().parse() == Ok(h))
        }),
        target(
            "index-sql",
            owned(&[b"CREATE UNIQUE INDEX \"i\" ON t(a COLLATE NOCASE DESC, (b || ',')) WHERE c > 1 -- so"]),
            move |bytes| index_sql::parse(&text(bytes)).is_some(),
        ),
        Target {
            // Each key that is not known is compared with all that are.
            memory: |length| COMFORT + 1000 * length,
            ..target(
                "configuration",
                vec![format!("db_path = {database:?}\nnode_id = 1\n{example}\n").into_bytes()],
                move |bytes| {
                    let file = folder.path().join("config.toml");
                    std::fs::write(&file, bytes).unwrap();
                    match Config::load(Some(&file), &Overrides::default()) {
                        Ok(_) => true,
                        Err(errors) => {
                            assert!(!errors.to_string().is_empty());
                            false
                        }
                    }
                },
            )
        },
    ]
}
