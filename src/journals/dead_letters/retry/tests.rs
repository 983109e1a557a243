use super::*;
use crate::change::position::{BatchNumber, Incarnation, NodeId, Sequence, ShardId};
use crate::codec::commit::{self, CommitRecord};
use crate::codec::frame::{Kind, Sealer};
use crate::codec::rows::RowWriter;
use crate::journals::dead_letters::list;
use crate::journals::open_as_app;
use crate::replica::Replica;
use crate::replica::lifecycle::OpenOptions;
use crate::state::journal::record_dead_letter;
use std::time::Duration;

fn database(schema: &str) -> (tempfile::TempDir, Connection) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    Connection::open(&path)
        .unwrap()
        .execute_batch(schema)
        .unwrap();
    let options = OpenOptions {
        node_id: NodeId(1),
        publish: true,
        include: vec![],
        exclude: vec![],
        fire_triggers: Some(Vec::new()),
    };
    drop(Replica::open(&path, &options, Duration::from_secs(5), &|| false).unwrap());
    let conn = open_as_app(&path).unwrap();
    (folder, conn)
}

fn message(rows: Vec<u8>) -> Vec<u8> {
    let record = CommitRecord {
        node: NodeId(2),
        incarnation: Incarnation {
            counter: 1,
            nonce: 1,
        },
        batch: BatchNumber(1),
        base: Sequence(0),
        tables: vec![TableDefinition {
            name: "t".into(),
            columns: vec!["id".into(), "v".into()],
            key: vec![0],
            uniques: vec![],
        }],
        rows,
        covers: vec![],
        sections: vec![],
        row_count: 3,
        scanned_at: 0,
    };
    Sealer::new(false, 0).seal(Kind::Commit, &commit::encode(&record))
}

#[test]
fn what_can_be_read_is_written_as_a_change_of_this_node() {
    let (_folder, conn) = database(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v, w DEFAULT 'kept'); INSERT INTO t(id, v) VALUES(1, 'a'), (2, 'b')",
    );
    let mut rows = RowWriter::default();
    rows.delete(0, [Value::Integer(2)].into_iter());
    rows.whole(0, [Value::Integer(1), Value::Text(b"whole")].into_iter());
    rows.whole(0, [Value::Integer(3), Value::Real(0.5)].into_iter());
    rows.cells(
        0,
        ColumnMask(0b10),
        2,
        [Value::Integer(3), Value::Null].into_iter(),
    );
    rows.cells(
        0,
        ColumnMask(0b10),
        2,
        [Value::Integer(9), Value::Null].into_iter(),
    );
    record_dead_letter(
        &conn,
        ShardId::ORDER,
        Sequence(7),
        "newer",
        &message(rows.take()),
    )
    .unwrap();
    let id = list(&conn, 1).unwrap()[0].id;
    assert_eq!(retry(&conn, id).unwrap(), Retried { rows: 4, absent: 1 });
    let all: String = conn
        .query_row(
            "SELECT group_concat(id || quote(v) || w, ' ') FROM t",
            [],
            |r| r.get(0),
        )
        .unwrap();
    assert_eq!(all, "1'whole'kept 3NULLkept");
    let pending: i64 = conn
        .query_row(
            "SELECT count(*) FROM __harmonylite___global_change_log",
            [],
            |r| r.get(0),
        )
        .unwrap();
    assert_eq!(pending, 4);
    assert!(list(&conn, 1).unwrap().is_empty());
}

#[test]
fn what_cannot_is_said_and_stays() {
    let (_folder, conn) = database("CREATE TABLE other(id INTEGER PRIMARY KEY, v)");
    let mut newer = message(Vec::new());
    newer[2] = 9;
    for (bytes, text) in [
        (b"{}".to_vec(), "not a HarmonyLite message"),
        (newer, "format version 9"),
        (message(b"\xff".to_vec()), "do not decode"),
    ] {
        record_dead_letter(&conn, ShardId::ORDER, Sequence(7), "r", &bytes).unwrap();
        let id = list(&conn, 1).unwrap()[0].id;
        let refused = retry(&conn, id).unwrap_err().to_string();
        assert!(refused.contains(text), "{refused}");
    }
    let mut rows = RowWriter::default();
    rows.delete(0, [Value::Integer(2)].into_iter());
    record_dead_letter(
        &conn,
        ShardId::ORDER,
        Sequence(8),
        "r",
        &message(rows.take()),
    )
    .unwrap();
    let id = list(&conn, 1).unwrap()[0].id;
    let refused = retry(&conn, id).unwrap_err().to_string();
    assert!(refused.contains("there is no table \"t\""), "{refused}");
    assert_eq!(list(&conn, 9).unwrap().len(), 4);
}

#[test]
fn a_child_may_stand_before_its_parent_but_not_without_it() {
    let (_folder, conn) = database("CREATE TABLE t(id INTEGER PRIMARY KEY, v REFERENCES t(id))");
    let retried = |rows: &[(i64, Value<'_>)]| {
        let mut writer = RowWriter::default();
        for (id, v) in rows {
            writer.whole(0, [Value::Integer(*id), *v].into_iter());
        }
        let bytes = message(writer.take());
        record_dead_letter(&conn, ShardId::ORDER, Sequence(7), "newer", &bytes).unwrap();
        retry(&conn, list(&conn, 1).unwrap()[0].id)
    };
    let done = retried(&[(1, Value::Integer(3)), (3, Value::Null)]).unwrap();
    assert_eq!(done, Retried { rows: 2, absent: 0 });
    assert!(retried(&[(5, Value::Integer(9))]).is_err());
    let rows: i64 = conn
        .query_row("SELECT count(*) FROM t", [], |r| r.get(0))
        .unwrap();
    assert_eq!((rows, list(&conn, 9).unwrap().len()), (2, 1));
}
