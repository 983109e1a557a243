//! What `-cleanup` leaves beside the database: this node's state in a small file of its own. The database itself keeps nothing of ours, but when the daemon is
//! started on it again it goes on from where it stood, and what the application wrote meanwhile is found as any write without capture is.
//!
//! Invariants: the file is taken up only for the very file that was cleaned up (the same inode, and a schema version that can only have risen since): another
//! database, or a backup that was put in its place, joins the cluster as any other does. It is of one use, and goes when the node has joined.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::{Replica, ReplicaError};
use crate::change::position::{NodeId, Sequence};
use crate::sqlite::connection;
use crate::sqlite::error::{Doing, SqliteError};
use crate::state::skips::Skips;
use crate::state::unsure;
use crate::state::{StateError, covered, ddl, node, past, publishers};

const DOING: &str = "keep this node's state beside the database";

fn file(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-harmonylite.left");
    PathBuf::from(name)
}

/// Removes the file; whether there was one.
pub fn forget(database: &Path) -> bool {
    std::fs::remove_file(file(database)).is_ok()
}

impl Replica {
    /// Writes this node's state beside the database, if that is part of a cluster. Call it right before the removal.
    ///
    /// # Errors
    /// SQLite's, on that file; the system's.
    pub fn leave_state(&self) -> Result<(), ReplicaError> {
        forget(&self.path);
        let Some(state) = node::read(&self.conn)?.filter(|s| s.position.sequence.0 > 0) else {
            return Ok(());
        };
        let Some(cluster) = node::cluster(&self.conn)? else {
            return Ok(());
        };
        let to = file(&self.path);
        let written = self.write_left(&to, &state, &cluster);
        if written.is_err() {
            forget(&self.path);
        }
        written
    }

    fn write_left(
        &self,
        to: &Path,
        state: &node::NodeState,
        cluster: &str,
    ) -> Result<(), ReplicaError> {
        let there = std::fs::metadata(&self.path)?;
        let left = Connection::open(to).doing(DOING)?;
        left.execute_batch("PRAGMA synchronous = FULL; BEGIN IMMEDIATE")
            .doing(DOING)?;
        ddl::migrate(&left)?;
        write_state(&left, state, cluster)?;
        take_over(&left, &self.conn)?;
        left.execute_batch(
            "CREATE TABLE file(device INTEGER, inode INTEGER, schema_version INTEGER)",
        )
        .doing(DOING)?;
        left.execute(
            "INSERT INTO file VALUES(?1, ?2, ?3)",
            [
                there.dev().cast_signed(),
                there.ino().cast_signed(),
                connection::schema_version(&self.conn)?,
            ],
        )
        .doing(DOING)?;
        left.execute_batch("COMMIT").doing(DOING)?;
        Ok(())
    }

    /// Inside the transaction that makes the state: takes up what was left, if it is of this node and this file. Whether it was.
    pub(super) fn take_up_state(&self) -> Result<bool, ReplicaError> {
        let Some((left, state, cluster)) = find(&self.conn, &self.path, self.me)? else {
            return Ok(false);
        };
        tracing::info!(
            position = state.position.sequence.0,
            "this database was cleaned up: this node goes on from where it stood"
        );
        write_state(&self.conn, &state, &cluster)?;
        take_over(&self.conn, &left)?;
        Ok(true)
    }

    /// What was taken up is of another cluster: this node has never been part of the one that is here.
    ///
    /// # Errors
    /// [`ReplicaError::Locked`]; SQLite's.
    pub fn forget_cluster(
        &mut self,
        patience: std::time::Duration,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), ReplicaError> {
        let done = self.write(patience, stop, "commit leaving a cluster", |replica| {
            replica
                .conn
                .execute_batch(
                    "UPDATE __harmonylite__node SET cluster_id = NULL, history = NULL, settled = 0;
                     DELETE FROM __harmonylite__publishers; DELETE FROM __harmonylite__lives; DELETE FROM __harmonylite__covered;
                     DELETE FROM __harmonylite__void; DELETE FROM __harmonylite__past;",
                )
                .doing("leave a cluster")?;
            node::set_position(&replica.conn, node::Position::default())?;
            for known in unsure::read(&replica.conn)? {
                unsure::clear(&replica.conn, &known)?;
            }
            Ok::<_, SqliteError>(())
        })?;
        done.ok_or_else(|| self.locked())?;
        self.reload()?;
        self.foreign = Sequence(0);
        self.unsure()?;
        Ok(())
    }
}

fn write_state(
    conn: &Connection,
    state: &node::NodeState,
    cluster: &str,
) -> Result<(), SqliteError> {
    node::create(conn, state.node_id, &state.database_id)?;
    node::set_incarnation(conn, state.incarnation)?;
    node::set_position(conn, state.position)?;
    node::set_history(conn, state.history)?;
    node::set_cluster(conn, cluster)
}

/// What the position stands on.
fn take_over(to: &Connection, from: &Connection) -> Result<(), SqliteError> {
    publishers::replace(to, from)?;
    covered::replace(to, from)?;
    past::replace(to, from)?;
    Skips::replace_void(to, from)
}

type Left = (Connection, node::NodeState, String);

/// What was left for this database, if it is what it was left for.
fn find(conn: &Connection, database: &Path, me: NodeId) -> Result<Option<Left>, ReplicaError> {
    let path = file(database);
    if !path.exists() {
        return Ok(None);
    }
    let there = std::fs::metadata(database)?;
    let left = match read(&path) {
        Ok(left) => left,
        // Cut off, or written by a newer program: the database joins as any other does.
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "what -cleanup left beside the database cannot be read");
            return Ok(None);
        }
    };
    let Some((left, state, cluster, [device, inode, version])) = left else {
        return Ok(None);
    };
    let same = device == there.dev().cast_signed()
        && inode == there.ino().cast_signed()
        && connection::schema_version(conn)? >= version
        && state.node_id == me;
    if !same {
        tracing::warn!(
            file = %path.display(),
            "what -cleanup left beside the database is of another file or another node: the database joins as one that was never part of the cluster"
        );
    }
    Ok(same.then_some((left, state, cluster)))
}

type Read = (Connection, node::NodeState, String, [i64; 3]);

fn read(path: &Path) -> Result<Option<Read>, StateError> {
    let doing = "read what -cleanup left";
    let left = connection::open_reader(path)?;
    let (Some(state), Some(cluster)) = (node::read(&left)?, node::cluster(&left)?) else {
        return Ok(None);
    };
    let of = left
        .query_row("SELECT device, inode, schema_version FROM file", [], |r| {
            Ok([r.get(0)?, r.get(1)?, r.get(2)?])
        })
        .doing(doing)?;
    Ok(Some((left, state, cluster, of)))
}
