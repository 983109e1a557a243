//! Restoring from the store: which snapshot, fetching it, and what becomes of the database that was there.
//!
//! Invariants: a database is never set back, but onto another history; one whose rows could be lost is copied beside itself first; a snapshot that cannot be used
//! gives way to the one before it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::download::{Download, Said, is_lost};
use super::membership::{PATIENCE, Unsettled, fault};
use crate::change::position::Sequence;
use crate::engine::Engine;
use crate::replica::ReplicaError;
use crate::replica::copy;
use crate::replica::restore::{RestoreError, RestoreOptions, Restored};
use crate::runtime::moment;
use crate::snapshot::catalog::Catalog;
use crate::snapshot::manifest::Manifest;
use crate::sqlite::connection;
use crate::sqlite::error::Fault;
use crate::state::StateError;
use crate::stream::StreamState;

/// What restoring works with.
pub struct Restoring<'a> {
    pub engine: &'a Arc<Engine>,
    pub catalog: &'a Catalog,
    pub download: &'a mut Download,
    pub cluster: &'a str,
    pub stream: &'a StreamState,
    /// The database was never part of the cluster.
    pub first_start: bool,
}

impl Restoring<'_> {
    /// Begins from the newest snapshot, which must reach the stream: it is of `at_least` or later.
    pub async fn newest(&mut self, at_least: Sequence) -> Result<(), Unsettled> {
        let Some(why) = self.any(at_least).await? else {
            return Ok(());
        };
        Err(fault(format!(
            "the stream begins at {}, this node stands at {}, and {} has no snapshot that it can begin from{why}: run harmonylite snapshot save on a node that replicates",
            self.stream.first,
            self.engine.replica().position().sequence,
            self.catalog.store_name()
        )))
    }

    /// A full recovery was asked for: from a snapshot that does not set this node back, if there is one.
    pub async fn recover(&mut self) -> Result<(), Unsettled> {
        let position = self.engine.replica().position().sequence;
        if self.any(position).await?.is_some() {
            tracing::warn!(
                position = position.0,
                "a full recovery was asked for, but there is no snapshot that is as new as this database: the data are kept; to compare them with the other nodes, run harmonylite verify"
            );
        }
        self.engine.recovered();
        Ok(())
    }

    /// Restores the newest snapshot of `at_least` or later that can be used. Where none can be: why the last that was tried cannot, for the end of a sentence.
    async fn any(&mut self, at_least: Sequence) -> Result<Option<String>, Unsettled> {
        let mut why = String::new();
        for manifest in self.catalog.usable().await.map_err(fault)? {
            if manifest.sequence < at_least.0 {
                continue;
            }
            match self.restore(&manifest).await {
                Ok(()) => return Ok(None),
                Err(Unsettled::Unusable(e)) => {
                    self.download.unusable(&manifest, &e);
                    why = format!(" ({e})");
                }
                Err(other) => return Err(other),
            }
        }
        Ok(Some(why))
    }

    async fn restore(&mut self, manifest: &Manifest) -> Result<(), Unsettled> {
        let file = self
            .download
            .get(self.engine, self.catalog, manifest)
            .await
            .map_err(|e| match is_lost(&e) {
                true => Unsettled::Unusable(e.to_string()),
                false => fault(e),
            })?;
        let this = Arc::clone(self.engine);
        let cluster = self.cluster.to_owned();
        let first_start = self.first_start;
        // In a cluster in which nothing was ever written, this node's rows are news, and nobody can have deleted them.
        let untouched = self.stream.last == Sequence(0);
        let worked = tokio::task::spawn_blocking(move || {
            restore_file(&this, &cluster, file.path(), first_start, untouched)
        });
        let restored = worked.await.map_err(fault)??;
        self.engine.stands_at(restored.position.sequence);
        tracing::info!(
            history = manifest.history.number,
            position = restored.position.sequence.0,
            entered = restored.entered,
            written = restored.written,
            removed = restored.removed,
            kept = restored.kept,
            filled = restored.filled,
            "restored from the snapshot"
        );
        Ok(())
    }
}

fn restore_file(
    engine: &Engine,
    cluster: &str,
    snapshot: &Path,
    first_start: bool,
    untouched: bool,
) -> Result<Restored, Unsettled> {
    let shutdown = engine.shutdown.clone();
    // The database is held until it is done, however large it is.
    let _long = engine.status.long_work();
    let said = Said::default();
    // Rows that may have been written without capture are not kept by what is pending.
    let uncertain = engine.unsure_tables() > 0;
    let beside = if (first_start || uncertain) && !engine.replica().is_empty().map_err(fault)? {
        Some(copy_beside(&engine.config.db_path)?)
    } else {
        None
    };
    let is_empty = || copy::holds_no_rows(&connection::open_reader(snapshot)?);
    let keep_ours = first_start
        && untouched
        && is_empty().map_err(|e| unsettled(RestoreError::from(e), snapshot))?;
    let options = RestoreOptions {
        cluster,
        keep_ours,
        patience: PATIENCE,
        stop: &|| shutdown.is_requested(),
        progress: &|rows| {
            if let Some(rows) = said.more(rows) {
                tracing::info!(rows, "comparing the database with the snapshot");
            }
        },
    };
    let restored = engine.replica().restore(snapshot, &options);
    match restored {
        Ok(restored) => {
            if let Some(beside) = beside {
                if restored.removed + restored.written == 0 || keep_ours {
                    let _ = std::fs::remove_file(&beside);
                } else {
                    tracing::warn!(
                        copy = %beside.display(),
                        "this database {}: what it was is kept in a copy beside it",
                        if first_start {
                            "was not part of the cluster and differed from it"
                        } else {
                            "held rows that may have been written without capture and cannot be looked for any more"
                        }
                    );
                }
            }
            Ok(restored)
        }
        Err(e) => {
            if let Some(beside) = beside {
                let _ = std::fs::remove_file(beside);
            }
            Err(unsettled(e, snapshot))
        }
    }
}

/// What is to be done about a snapshot that was not restored.
fn unsettled(error: RestoreError, snapshot: &Path) -> Unsettled {
    match error {
        RestoreError::Replica(ReplicaError::Locked { .. }) | RestoreError::Stopped => {
            Unsettled::NotYet(error.to_string())
        }
        RestoreError::NoSnapshot { .. } => Unsettled::Unusable(error.to_string()),
        // This node's own database may be what is damaged, and then no other snapshot helps.
        RestoreError::Replica(
            ReplicaError::Sqlite(ref e) | ReplicaError::State(StateError::Sqlite(ref e)),
        ) if e.fault() == Fault::Corrupt && is_damaged(snapshot) => Unsettled::Unusable(format!(
            "its database is damaged although its hash is right, so it was made of a damaged one: {error}"
        )),
        other => fault(other),
    }
}

fn is_damaged(snapshot: &Path) -> bool {
    match connection::open_reader(snapshot).and_then(|conn| connection::quick_check(&conn)) {
        Ok(found) => found.is_some(),
        Err(e) => e.fault() == Fault::Corrupt,
    }
}

/// A copy of the database as it is, beside it.
fn copy_beside(database: &Path) -> Result<PathBuf, Unsettled> {
    let mut name = database.as_os_str().to_owned();
    name.push(format!(".before-restore-{}", moment::compact()));
    let path = PathBuf::from(name);
    let _ = std::fs::remove_file(&path);
    let copied = copy::copy(database, &path, || false).map_err(fault);
    let kept = copied.and_then(|copy| {
        drop(copy);
        // Its name is to be there, too, when the database is another.
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        std::fs::File::open(folder.unwrap_or(Path::new(".")))
            .and_then(|folder| folder.sync_all())
            .map_err(fault)
    });
    if kept.is_err() {
        let _ = std::fs::remove_file(&path);
    }
    kept.map(|()| path)
}
