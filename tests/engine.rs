//! The engine without a broker: replicas on real files that hand one another the bytes they publish. For what depends on the very order of
//! scans and messages, which real daemons cannot be made to take.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use harmonylite::apply::incoming::{self, Body, Incoming};
use harmonylite::change::position::{Incarnation, NodeId, Sequence};
use harmonylite::changelog::in_flight::Carrier;
use harmonylite::codec::batch::Limits;
use harmonylite::codec::spool::Spool;
use harmonylite::publish::outbox::Outbox;
use harmonylite::replica::Replica;
use harmonylite::replica::group::{Applied, ApplyOptions, Stopped};
use harmonylite::replica::lifecycle::OpenOptions;
use harmonylite::sqlite::connection::open_reader;
use rusqlite::Connection;

const PATIENCE: Duration = Duration::from_secs(5);

struct Node {
    app: Connection,
    reader: Connection,
    replica: Replica,
    spool: Arc<Spool>,
    _folder: tempfile::TempDir,
}

impl Node {
    fn new(id: u64, schema: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.db");
        let app = Connection::open(&path).unwrap();
        app.execute_batch(&format!("PRAGMA journal_mode = WAL; {schema}"))
            .unwrap();
        let options = OpenOptions {
            node_id: NodeId(id),
            publish: true,
            include: Vec::new(),
            exclude: Vec::new(),
        };
        let mut replica = Replica::open(&path, &options, PATIENCE, &|| false).unwrap();
        let life = Incarnation {
            counter: 1,
            nonce: id,
        };
        replica
            .begin_incarnation(life, PATIENCE, &|| false)
            .unwrap();
        Self {
            app,
            reader: open_reader(&path).unwrap(),
            replica,
            spool: Arc::new(Spool::new(folder.path().to_owned())),
            _folder: folder,
        }
    }

    fn write(&self, sql: &str) {
        self.app.execute_batch(sql).unwrap();
    }

    fn read(&self, sql: &str) -> String {
        let mut rows = self.app.prepare(sql).unwrap();
        let rows: Vec<String> = rows
            .query_map([], |r| r.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        rows.join(",")
    }

    /// What is new, as the message that publishes it.
    fn scan(&mut self) -> Bytes {
        let limits = Limits {
            max_payload: 1 << 20,
            shards: 1,
            compress: false,
            compress_min_bytes: 0,
        };
        let scanned = self
            .replica
            .scan(&self.reader, limits, &self.spool)
            .unwrap();
        Outbox::new(scanned.batch.unwrap()).commit().unwrap()
    }

    fn apply(&mut self, messages: &[Incoming]) -> Applied {
        let options = ApplyOptions {
            max_time: Duration::from_secs(60),
            given_up: false,
            patience: PATIENCE,
            stop: &|| false,
        };
        self.replica.apply(messages, &options).unwrap()
    }
}

/// The order stream.
fn stream(messages: &[&Bytes]) -> Vec<Incoming> {
    let open = |(i, bytes): (usize, &&Bytes)| incoming::open(Sequence(i as u64 + 1), bytes);
    let stream: Vec<Incoming> = messages.iter().enumerate().map(open).collect();
    assert!(stream.iter().all(|m| matches!(m.body, Body::Batch(_))));
    stream
}

const USERS: &str = "CREATE TABLE u(id INTEGER PRIMARY KEY, email TEXT UNIQUE, name TEXT);
    INSERT INTO u VALUES(1, 'a', 'one'), (2, 'b', 'two');";

#[test]
fn a_row_that_yields_a_unique_value_has_its_former_one_back() {
    let (mut here, mut there) = (Node::new(1, USERS), Node::new(2, USERS));
    there.write("UPDATE u SET email = 'wanted' WHERE id = 2");
    let theirs = there.scan();
    here.write("UPDATE u SET email = 'wanted', name = 'changed' WHERE id = 1");
    let applied = here.apply(&stream(&[&theirs]));
    assert_eq!(applied.fold.given_back, 1);
    let users = "SELECT id || email || name FROM u ORDER BY id";
    assert_eq!(here.read(users), "1achanged,2wantedtwo");
    assert_eq!(
        here.read(
            "SELECT key || column_name || losing_value || reason FROM __harmonylite__conflicts"
        ),
        "1emailwantedunique-collision"
    );
    let ours = here.scan();
    let all = stream(&[&theirs, &ours]);
    there.apply(&all);
    here.apply(&all[1..]);
    assert_eq!(there.read(users), "1achanged,2wantedtwo");
    assert_eq!(here.read(users), "1achanged,2wantedtwo");
    let kept = "SELECT CAST(count(*) AS TEXT) FROM __harmonylite__u_former_values";
    assert_eq!(here.read(kept), "0", "what was sent needs no former values");
}

#[test]
fn a_former_value_that_is_taken_is_not_given_back() {
    let (mut here, mut there) = (Node::new(1, USERS), Node::new(2, USERS));
    there.write("UPDATE u SET email = 'wanted' WHERE id = 2");
    let theirs = there.scan();
    here.write("UPDATE u SET email = 'wanted' WHERE id = 1; INSERT INTO u VALUES(3, 'a', 'three')");
    here.apply(&stream(&[&theirs]));
    let users = "SELECT id || email || name FROM u ORDER BY id";
    assert_eq!(here.read(users), "2wantedtwo,3athree");
    let ours = here.scan();
    there.apply(&stream(&[&theirs, &ours]));
    assert_eq!(there.read(users), "2wantedtwo,3athree");
}

#[test]
fn what_is_on_its_way_waits_for_its_own_batch_and_for_no_other() {
    let (mut here, mut there) = (Node::new(1, USERS), Node::new(2, USERS));
    there.write("UPDATE u SET email = 'wanted' WHERE id = 2");
    let theirs = there.scan();
    here.write("UPDATE u SET email = 'wanted' WHERE id = 1");
    let first = here.scan();
    here.write("INSERT INTO u VALUES(3, 'c', 'three')");
    let second = here.scan();
    here.write("UPDATE u SET name = 'unsent' WHERE id = 1");
    let all = stream(&[&theirs, &first, &second]);

    // The row is carried by the first batch: without it, the message waits.
    let applied = here.apply(&all[..1]);
    assert!(matches!(
        applied.stopped,
        Stopped::Hold(Carrier::Batch(b)) if b.0 == 1
    ));
    assert_eq!(applied.consumed, 0);
    // With it, both are folded at once, and the app sees what it had written all along: also what is not on its way yet.
    let applied = here.apply(&all[..2]);
    assert_eq!((applied.consumed, &applied.stopped), (2, &Stopped::No));
    let mine = "SELECT email || name FROM u WHERE id = 1";
    assert_eq!(here.read(mine), "wantedunsent");
    let journal = "SELECT DISTINCT key FROM __harmonylite__conflicts";
    assert_eq!(here.read(journal), "2", "nothing of row 1 was lost");

    here.apply(&all[2..]);
    let rest = here.scan();
    let all = stream(&[&theirs, &first, &second, &rest]);
    there.apply(&all);
    here.apply(&all[3..]);
    let users = "SELECT id || email || name FROM u ORDER BY id";
    assert_eq!(here.read(users), there.read(users));
    assert_eq!(here.read(mine), "wantedunsent");
}

#[test]
fn own_batches_that_depend_on_one_another_are_folded_at_once() {
    let (mut here, mut there) = (Node::new(1, USERS), Node::new(2, USERS));
    there.write("UPDATE u SET email = 'wanted' WHERE id = 2");
    let theirs = there.scan();
    here.write("UPDATE u SET email = 'wanted' WHERE id = 1");
    let first = here.scan();
    // The first batch displaces the row that these cells are of.
    here.write("UPDATE u SET name = 'later' WHERE id = 2");
    let second = here.scan();
    let all = stream(&[&theirs, &first, &second]);
    let applied = here.apply(&all[..2]);
    assert!(matches!(
        applied.stopped,
        Stopped::Hold(Carrier::Batch(b)) if b.0 == 2
    ));
    let applied = here.apply(&all);
    assert_eq!((applied.consumed, &applied.stopped), (3, &Stopped::No));
    there.apply(&all);
    let users = "SELECT id || email || name FROM u ORDER BY id";
    assert_eq!(here.read(users), "1wantedone");
    assert_eq!(there.read(users), "1wantedone");
}
