//! Parts of the program by themselves, without daemon and broker: trigger, scan, codec, fold. `make bench-micro`; why divan: docs/decisions/0006-divan.md.
//!
//! What a part gets is made before it is timed. For what all of it comes to, `harmonylite bench`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

#[path = "../tests/support/engine.rs"]
#[allow(dead_code)]
mod engine;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use engine::{Node, stream};
use harmonylite::change::value::Value;
use harmonylite::codec::commit::TableDefinition;
use harmonylite::codec::frame::{Kind, Sealer, open};
use harmonylite::codec::rows::{RowReader, RowWriter};

fn main() {
    divan::main();
}

const SCHEMA: &str = "CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT, kind TEXT, amount REAL, quantity INTEGER, note TEXT);";

/// Rows of a transaction, a batch, a section: as many as still travel in one message.
const SIZES: [u64; 3] = [1, 100, 1_000];

/// One transaction of so many inserts, or of updates of one column.
fn inserts(rows: u64) -> String {
    format!(
        "BEGIN; INSERT INTO items WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         SELECT i, 'item ' || i, 'tool', i * 0.25, i % 1000, 'a note of some length, as they are' FROM n; COMMIT"
    )
}

fn updates(rows: u64) -> String {
    format!("UPDATE items SET quantity = quantity + 1 WHERE id <= {rows}")
}

/// A node whose table has so many rows that all have come back.
fn filled(id: u64, rows: u64) -> Node {
    let mut node = Node::new(id, SCHEMA);
    node.write(&inserts(rows));
    node.forget_pending();
    node
}

mod trigger {
    use super::*;

    /// Without capture: what the others of this group are to be held against.
    fn plain() -> rusqlite::Connection {
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        conn.execute_batch(SCHEMA).unwrap();
        conn
    }

    #[divan::bench(args = SIZES)]
    fn insert_plain(bencher: Bencher<'_, '_>, rows: u64) {
        let sql = inserts(rows);
        let bencher = bencher.counter(ItemsCount::new(rows)).with_inputs(plain);
        bencher.bench_local_values(|conn| {
            conn.execute_batch(&sql).unwrap();
            conn
        });
    }

    #[divan::bench(args = SIZES)]
    fn insert_captured(bencher: Bencher<'_, '_>, rows: u64) {
        let sql = inserts(rows);
        let bencher = bencher.counter(ItemsCount::new(rows));
        let bencher = bencher.with_inputs(|| Node::new(1, SCHEMA));
        bencher.bench_local_values(|node| {
            node.write(&sql);
            node
        });
    }

    #[divan::bench(args = SIZES)]
    fn update_captured(bencher: Bencher<'_, '_>, rows: u64) {
        let sql = updates(rows);
        let bencher = bencher.counter(ItemsCount::new(rows));
        let bencher = bencher.with_inputs(|| filled(1, rows));
        bencher.bench_local_values(|node| {
            node.write(&sql);
            node
        });
    }
}

mod scan {
    use super::*;

    #[divan::bench(args = SIZES)]
    fn inserts_to_batch(bencher: Bencher<'_, '_>, rows: u64) {
        let bencher = bencher.counter(ItemsCount::new(rows)).with_inputs(|| {
            let node = Node::new(1, SCHEMA);
            node.write(&inserts(rows));
            node
        });
        bencher.bench_local_values(|mut node| (node.scan(), node));
    }

    #[divan::bench(args = SIZES)]
    fn cells_to_batch(bencher: Bencher<'_, '_>, rows: u64) {
        let bencher = bencher.counter(ItemsCount::new(rows)).with_inputs(|| {
            let node = filled(1, rows);
            node.write(&updates(rows));
            node
        });
        bencher.bench_local_values(|mut node| (node.scan(), node));
    }
}

mod codec {
    use super::*;

    fn section(rows: u64) -> Vec<u8> {
        let mut writer = RowWriter::default();
        for i in 0..rows.cast_signed() {
            let name = format!("item {i}");
            let values = [
                Value::Integer(i),
                Value::Text(name.as_bytes()),
                Value::Text(b"tool"),
                Value::Real(i as f64 * 0.25),
                Value::Integer(i % 1000),
                Value::Text(b"a note of some length, as they are"),
            ];
            writer.whole(0, values.into_iter());
        }
        writer.take()
    }

    fn tables() -> [TableDefinition; 1] {
        let columns = ["id", "name", "kind", "amount", "quantity", "note"];
        [TableDefinition {
            name: "items".into(),
            columns: columns.map(Into::into).to_vec(),
            key: vec![0],
            uniques: vec![],
        }]
    }

    #[divan::bench(args = SIZES)]
    fn encode(bencher: Bencher<'_, '_>, rows: u64) {
        let bencher = bencher.counter(ItemsCount::new(rows));
        bencher.bench_local(|| section(black_box(rows)));
    }

    #[divan::bench(args = SIZES)]
    fn decode(bencher: Bencher<'_, '_>, rows: u64) {
        let (bytes, tables) = (section(rows), tables());
        bencher.counter(ItemsCount::new(rows)).bench_local(|| {
            let mut reader = RowReader::new(black_box(&bytes), &tables);
            let (mut values, mut found) = (Vec::new(), 0);
            while reader.next(&mut values).unwrap().is_some() {
                found += values.len();
            }
            found
        });
    }

    #[divan::bench(args = SIZES)]
    fn compress(bencher: Bencher<'_, '_>, rows: u64) {
        let bytes = section(rows);
        let mut sealer = Sealer::new(true, 0);
        let bencher = bencher.counter(BytesCount::new(bytes.len()));
        bencher.bench_local(|| sealer.seal(Kind::Payload, black_box(&bytes)));
    }

    #[divan::bench(args = SIZES)]
    fn decompress(bencher: Bencher<'_, '_>, rows: u64) {
        let bytes = section(rows);
        let sealed = Sealer::new(true, 0).seal(Kind::Payload, &bytes);
        let bencher = bencher.counter(BytesCount::new(bytes.len()));
        bencher.bench_local(|| open(black_box(&sealed)).unwrap().1.len());
    }
}

mod fold {
    use super::*;

    /// Another node's batch, into an empty table.
    #[divan::bench(args = SIZES)]
    fn inserts_of_another(bencher: Bencher<'_, '_>, rows: u64) {
        let mut writer = Node::new(2, SCHEMA);
        writer.write(&inserts(rows));
        let batch = writer.scan();
        let bencher = bencher.counter(ItemsCount::new(rows));
        let bencher = bencher.with_inputs(|| (Node::new(1, SCHEMA), stream(&[&batch])));
        bencher.bench_local_values(|(mut node, messages)| {
            node.apply(&messages);
            node
        });
    }

    /// This node's own batch, back from the stream: the change log is emptied.
    #[divan::bench(args = SIZES)]
    fn own_echo(bencher: Bencher<'_, '_>, rows: u64) {
        let bencher = bencher.counter(ItemsCount::new(rows)).with_inputs(|| {
            let mut node = Node::new(1, SCHEMA);
            node.write(&inserts(rows));
            let batch = node.scan();
            (node, stream(&[&batch]))
        });
        bencher.bench_local_values(|(mut node, messages)| {
            node.apply(&messages);
            node
        });
    }
}
