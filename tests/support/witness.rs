//! The fold, built apart from any node of a snapshot and the stream, and a node's tables compared with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use harmonylite::apply::incoming::{self, Body};
use harmonylite::change::position::Sequence;
use harmonylite::replica::Replica;
use harmonylite::replica::copy;
use harmonylite::replica::reconcile::{Ahead, Difference, Entered, name_as_here, names_of};
use harmonylite::snapshot::fold;
use harmonylite::state::publishers::LastTaken;
use harmonylite::state::unsure::Unsure;
use rusqlite::Connection;

use super::engine::Node;

const PATIENCE: Duration = Duration::from_secs(5);

/// What all nodes begin from.
pub struct Snapshot {
    folder: tempfile::TempDir,
}

impl Snapshot {
    /// Before the first message.
    pub fn of_schema(schema: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("snapshot.db");
        Connection::open(&file)
            .unwrap()
            .execute_batch(schema)
            .unwrap();
        Self { folder }
    }

    /// Of a node with nothing pending.
    pub fn of_node(node: &Node) -> Self {
        assert_eq!(node.pending(), 0);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("snapshot.db");
        copy::finish(copy::copy(node.reader().path().unwrap().as_ref(), &file, || false).unwrap())
            .unwrap();
        Self { folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("snapshot.db")
    }
}

/// Brings tables of a node that are not certain back to the fold with what is pending on top; how many rows were entered.
pub fn reconcile(node: &mut Node, unsure: Vec<Unsure>, from: &Snapshot, stream: &[Bytes]) -> u64 {
    if unsure.is_empty() {
        return 0;
    }
    let file = node.folder().join("witness.db");
    std::fs::copy(from.file(), &file).unwrap();
    let at = node.replica.position().sequence;
    let options = fold::nobody(Vec::new(), Vec::new());
    let behind = Replica::open(&file, &options, PATIENCE, &|| false)
        .unwrap()
        .position()
        .sequence
        .0 as usize;
    let messages = stream
        .iter()
        .enumerate()
        .map(|(i, bytes)| incoming::open(Sequence(i as u64 + 1), bytes))
        .take(at.0 as usize)
        .skip(behind)
        .collect();
    let captured = Arc::clone(node.replica.captured());
    name_as_here(&file, &captured, unsure.iter().map(|u| u.table.as_str())).unwrap();
    let globs = unsure
        .iter()
        .flat_map(|u| names_of(captured.table(&u.table).unwrap()))
        .map(str::to_owned)
        .collect();
    let options = fold::nobody(globs, Vec::new());
    let replica = Replica::open(&file, &options, PATIENCE, &|| false).unwrap();
    let (mut replica, mut grown) = fold::apply(replica, messages, Some(&captured)).unwrap();
    // What is on its way of its own.
    let me = node.replica.node_id();
    let mut ahead = Ahead {
        folded: None,
        last: node.replica.last_on_its_way(),
    };
    for (i, bytes) in stream.iter().enumerate().skip(at.0 as usize) {
        let message = incoming::open(Sequence(i as u64 + 1), bytes);
        let taken = match &message.body {
            Body::Batch(b) if b.record.node == me => LastTaken::of(&b.record, message.sequence),
            _ => continue,
        };
        let (next, more) = fold::apply(replica, vec![message], Some(&captured)).unwrap();
        replica = next;
        grown.extend(more);
        if replica.position().folded == taken.sequence {
            ahead.folded = Some(node.replica.carrier_of(taken));
        }
    }
    drop(replica);
    let found = Difference::find(
        node.replica.path(),
        &file,
        (at, ahead),
        &captured,
        &unsure,
        &grown,
        &|| false,
    );
    let mut difference = found.unwrap().unwrap();
    let mut rows = 0;
    loop {
        let entered = node
            .replica
            .enter_difference(&mut difference, PATIENCE, &|| false);
        match entered.unwrap() {
            Entered::More(more) => rows += more,
            Entered::Done(more) => {
                remove(&file);
                return rows + more;
            }
            other => panic!("{other:?}"),
        }
    }
}

fn remove(file: &Path) {
    std::fs::remove_file(file).unwrap();
    for more in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(file.with_extension(format!("db{more}")));
    }
}
