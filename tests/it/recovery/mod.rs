//! Recovery as people do it: files removed, copied, put back, damaged and repaired; nodes away for too long; stores that are away or damaged; a cluster that
//! moves. What `docs/recovery.md` says, done as it says.

mod away;
mod backups;
mod leader;
mod leftover;
mod procedures;
mod reading;
mod schema;
mod stores;

use std::path::{Path, PathBuf};

use crate::harness::{Cluster, Node, eventually};
use crate::snapshots::{insert, position, stored_in, stream_first, trimmed_in};

/// Writes on these nodes until the stream begins behind what `late` has folded.
fn trim_past(cluster: &Cluster, writers: &[usize], late: usize) {
    eventually("the stream is trimmed past it", || {
        for writer in writers {
            insert(&cluster[*writer], 3, 10);
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
        stream_first(cluster, "harmonylite-changes-1") > position(&cluster[late]) + 1
    });
}

/// The database, or a file that SQLite keeps beside it.
fn file(node: &Node, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", node.database().display()))
}

/// Puts a file in the place of the database, as `cp` does: into the file that is there, and what lies beside it stays.
fn copy_over(node: &Node, from: &Path) {
    let bytes = std::fs::read(from).unwrap();
    std::fs::write(node.database(), bytes).unwrap();
}

/// The files in the node's folder whose names hold this.
fn beside(node: &Node, with: &str) -> Vec<String> {
    let mut found = crate::snapshots::names(&node.folder);
    found.retain(|name| name.contains(with));
    found
}
