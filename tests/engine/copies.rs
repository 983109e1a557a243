//! Copies that become snapshots: nothing of what is deleted is left in their bytes.

use std::time::Duration;

use harmonylite::change::position::NodeId;
use harmonylite::replica::group::ApplyOptions;
use harmonylite::replica::lifecycle::OpenOptions;
use harmonylite::replica::{Replica, copy};
use harmonylite::sqlite::connection::open_writer;

use crate::support::engine::{Node, stream};

const PATIENCE: Duration = Duration::from_secs(5);

/// A text that stands nowhere else, long enough for pages of its own.
fn marker() -> String {
    (0..400)
        .map(|_| format!("{:08x}", rand::random::<u32>()))
        .collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    // A part of it, as it may lie across pages.
    let part = &text.as_bytes()[200..264];
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn what_was_deleted_is_not_in_the_bytes_of_a_snapshot() {
    let (kept, gone, short) = (marker(), marker(), marker()[..300].to_owned());
    let (logged, of_log) = (marker(), marker()[..300].to_owned());
    let schema = format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE k(key TEXT PRIMARY KEY);
         INSERT INTO t VALUES(1, '{kept}'), (2, '{gone}'), (3, '{short}')"
    );
    let (mut taker, mut other) = (Node::new(1, &schema), Node::new(2, &schema));
    other.write("DELETE FROM t WHERE id > 1; INSERT INTO t VALUES(4, 'small')");
    let theirs = other.scan();
    // What these keys were stands in the taker's change log alone.
    for key in [&logged, &of_log] {
        taker.write(&format!("INSERT INTO k VALUES('{key}'); DELETE FROM k"));
    }
    let path = taker.folder().join("copy.db");
    drop(copy::copy(taker.reader().path().unwrap().as_ref(), &path, || false).unwrap());
    let ours = taker.scan();
    let before = std::fs::read(&path).unwrap();
    for text in [&kept, &gone, &short, &logged, &of_log] {
        assert!(holds(&before, text));
    }

    let options = OpenOptions {
        node_id: NodeId(1),
        publish: true,
        include: Vec::new(),
        exclude: Vec::new(),
        fire_triggers: None,
    };
    let mut folded = Replica::open_copy(&path, &options, PATIENCE, &|| false).unwrap();
    let apply = ApplyOptions {
        max_time: Duration::from_secs(60),
        given_up: true,
        patience: PATIENCE,
        stop: &|| false,
    };
    let applied = folded.apply(&stream(&[&theirs, &ours]), &apply).unwrap();
    assert_eq!(
        (applied.consumed, folded.pending_changes().unwrap()),
        (2, 0)
    );
    drop(folded);
    copy::finish(open_writer(&path).unwrap()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert!(holds(&bytes, &kept));
    for text in [&gone, &short, &logged, &of_log] {
        assert!(
            !holds(&bytes, text),
            "a value that was deleted is in the file"
        );
    }
}
