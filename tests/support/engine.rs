//! Replicas on real files that hand one another the bytes they publish.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use harmonylite::apply::incoming::{self, Body, Incoming};
use harmonylite::change::position::{Incarnation, NodeId, Sequence};
use harmonylite::changelog::cut::Cutter;
use harmonylite::changelog::scan::Scanned;
use harmonylite::codec::batch::Limits;
use harmonylite::codec::spool::Spool;
use harmonylite::publish::outbox::Outbox;
use harmonylite::replica::Replica;
use harmonylite::replica::group::{Applied, ApplyOptions};
use harmonylite::replica::lifecycle::OpenOptions;
use harmonylite::sqlite::connection::open_reader;
use rusqlite::Connection;

const PATIENCE: Duration = Duration::from_secs(5);

/// A replica and its app, on a file of its own.
pub struct Node {
    app: Connection,
    reader: Connection,
    pub replica: Replica,
    pub cutter: Cutter,
    spool: Arc<Spool>,
    folder: tempfile::TempDir,
    lives: u64,
}

impl Node {
    pub fn new(id: u64, schema: &str) -> Self {
        Self::of(id, |path| {
            let app = Connection::open(path).unwrap();
            app.execute_batch(&format!("PRAGMA journal_mode = WAL; {schema}"))
                .unwrap();
        })
    }

    /// On a copy of this file.
    pub fn on_file(id: u64, file: &Path) -> Self {
        Self::of(id, |path| {
            std::fs::copy(file, path).unwrap();
        })
    }

    fn of(id: u64, make: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.db");
        make(&path);
        let app = Connection::open(&path).unwrap();
        let replica = open(id, &path);
        let mut node = Self {
            app,
            reader: open_reader(&path).unwrap(),
            replica,
            cutter: Cutter::default(),
            spool: Arc::new(Spool::new(folder.path().to_owned())),
            folder,
            lives: 0,
        };
        node.new_life();
        node
    }

    /// As after a kill and a new start, before what the stream holds of it is read.
    pub fn restart(&mut self) {
        self.replica = open(self.replica.node_id().0, self.replica.path());
        self.cutter = Cutter::default();
        self.new_life();
    }

    /// Begins a new incarnation, as a start does.
    pub fn new_life(&mut self) {
        self.lives = self.lives.max(self.replica.stored_incarnation().unwrap()) + 1;
        let life = Incarnation {
            counter: self.lives,
            nonce: self.lives,
        };
        self.replica
            .begin_incarnation(life, PATIENCE, &|| false)
            .unwrap();
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The application's connection.
    pub fn app(&self) -> &Connection {
        &self.app
    }

    pub fn reader(&self) -> &Connection {
        &self.reader
    }

    /// Changes that have not come back.
    pub fn pending(&self) -> u64 {
        self.replica.pending_changes().unwrap()
    }

    /// As if everything had come back.
    pub fn forget_pending(&mut self) {
        let batch = self.scan();
        self.apply(&stream(&[&batch]));
    }

    pub fn write(&self, sql: &str) {
        self.app.execute_batch(sql).unwrap();
    }

    /// In one transaction; nothing is changed where that is refused.
    pub fn try_write(&self, sql: &str) {
        if self
            .app
            .execute_batch(&format!("BEGIN IMMEDIATE; {sql}; COMMIT"))
            .is_err()
            && !self.app.is_autocommit()
        {
            self.app.execute_batch("ROLLBACK").unwrap();
        }
    }

    pub fn read(&self, sql: &str) -> String {
        read(&self.app, sql)
    }

    /// What is new, as the message that publishes it.
    pub fn scan(&mut self) -> Bytes {
        self.try_scan().unwrap()
    }

    /// What is new, if anything is.
    pub fn try_scan(&mut self) -> Option<Bytes> {
        let scanned = self.scan_once();
        scanned.batch.map(|b| Outbox::new(b).commit().unwrap())
    }

    /// One scan.
    pub fn scan_once(&mut self) -> Scanned {
        let limits = Limits {
            max_payload: 1 << 20,
            shards: 1,
            compress: false,
            compress_min_bytes: 0,
        };
        self.replica
            .scan(&self.reader, limits, &self.spool, &mut self.cutter)
            .unwrap()
    }

    pub fn apply(&mut self, messages: &[Incoming]) -> Applied {
        let options = ApplyOptions {
            max_time: Duration::from_secs(60),
            given_up: false,
            patience: PATIENCE,
            stop: &|| false,
        };
        self.replica.apply(messages, &options).unwrap()
    }

    /// Applies what is new to it of a stream.
    pub fn follow(&mut self, stream: &[Bytes]) -> Applied {
        let behind = self.replica.position().sequence.0 as usize;
        let messages: Vec<_> = stream
            .iter()
            .enumerate()
            .skip(behind)
            .map(|(i, bytes)| incoming::open(Sequence(i as u64 + 1), bytes))
            .collect();
        self.apply(&messages)
    }
}

/// The first column of all rows that a query finds.
pub fn read(conn: &Connection, sql: &str) -> String {
    let mut rows = conn.prepare(sql).unwrap();
    let rows: Vec<String> = rows
        .query_map([], |r| r.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    rows.join(",")
}

fn open(id: u64, path: &Path) -> Replica {
    let options = OpenOptions {
        node_id: NodeId(id),
        publish: true,
        include: Vec::new(),
        exclude: Vec::new(),
        fire_triggers: Some(Vec::new()),
    };
    Replica::open(path, &options, PATIENCE, &|| false).unwrap()
}

/// The order stream.
pub fn stream(messages: &[&Bytes]) -> Vec<Incoming> {
    let open = |(i, bytes): (usize, &&Bytes)| incoming::open(Sequence(i as u64 + 1), bytes);
    let stream: Vec<Incoming> = messages.iter().enumerate().map(open).collect();
    assert!(stream.iter().all(|m| matches!(m.body, Body::Batch(_))));
    stream
}
