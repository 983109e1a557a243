//! Taking a snapshot: copy, wait until what it contains of this node's own has come back, fold the copy on up to there, upload, verify.
//!
//! Invariant: at no step does a failure, or the end of this process, leave anything but the snapshots there were and perhaps an object without a manifest.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::absent;
use super::catalog::{Catalog, CatalogError};
use super::fold::{Folding, fold};
use super::manifest::{self, Manifest};
use super::scratch::Scratch;
use crate::change::history::History;
use crate::change::operation::ChangeKind;
use crate::changelog::marks::Marks;
use crate::engine::Engine;
use crate::planted::planted;
use crate::replica::lifecycle::OpenOptions;
use crate::replica::{Replica, base, copy};
use crate::sqlite::connection;
use crate::sqlite::error::{Doing, SqliteError};
use crate::state::node::Position;
use crate::state::{StateError, node};
use crate::store::Progress;
use crate::stream::Broker;

/// How long a snapshot waits for this node's own changes in it to come back.
const COME_BACK: Duration = Duration::from_secs(60);

/// How often it is asked whether they have.
const LOOK: Duration = Duration::from_millis(50);

/// Why no snapshot was taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// SQLite: the disk may be full.
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
    /// The state in the copy.
    #[error(transparent)]
    State(#[from] StateError),
    /// The store.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// This node's own changes in it did not come back.
    #[error(
        "changes of this node that the snapshot contains have not come back from the stream for {} s; it is taken again when publishing works",
        COME_BACK.as_secs()
    )]
    NotBack,
    /// There are rows in it that this node may never publish.
    #[error(
        "rows of this database may have been written without capture: a snapshot is taken when they are found"
    )]
    Uncaptured,
    /// It cannot be made of the one before and the stream.
    #[error("it cannot be made of the snapshot before it and the stream: {0}")]
    Unfoldable(String),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

/// What becomes of this node's own changes that are not published yet.
#[derive(Debug, Clone, Copy)]
pub enum Own<'a> {
    /// The copy contains them; it is folded on until they have come back from the stream, so that whoever begins from it sees whole transactions only.
    MustBeBack(&'a Broker),
    /// It is the state that all nodes begin from: what it contains is there on all of them.
    IsTheBeginning,
    /// It is made without them, of this snapshot and the stream behind it.
    FoldedOnto(&'a Manifest, &'a Broker),
}

/// Takes a snapshot.
///
/// # Errors
/// See [`TakeError`]; what was begun is removed.
pub async fn take(
    engine: &Arc<Engine>,
    catalog: &Catalog,
    own: Own<'_>,
    progress: &Progress,
) -> Result<Manifest, TakeError> {
    let database = &engine.config.db_path;
    // Shared with the thread that copies: whoever ends last removes it.
    let scratch = Arc::new(Scratch::new(database, "snapshot"));
    let stop = Arc::new(AtomicBool::new(false));
    let _stop = SetOnDrop(Arc::clone(&stop));
    let mut held = Vec::new();
    let (position, schema) = match own {
        Own::FoldedOnto(before, broker) => {
            held.clone_from(&before.absent);
            fold(engine, broker, catalog, before, &scratch).await?
        }
        Own::MustBeBack(_) | Own::IsTheBeginning => {
            let ((state, mut marks), schema) = copied(engine, &scratch, stop, standing_of).await?;
            // What all begin from may hold anything.
            if matches!(own, Own::MustBeBack(_))
                && tokio::task::block_in_place(|| has_uncaptured(engine))?
            {
                return Err(TakeError::Uncaptured);
            }
            let standing = match own {
                Own::MustBeBack(broker) if !marks.is_empty() => {
                    wait_until_back(engine, &mut marks).await?;
                    fold_on(engine, broker, &scratch).await?
                }
                _ => (state.position, schema),
            };
            if let Own::MustBeBack(broker) = own {
                held = absent::add(engine, broker, catalog, &scratch, standing.0).await?;
            }
            let scratch = Arc::clone(&scratch);
            blocking(move || Ok(copy::finish(connection::open_writer(scratch.path())?)?)).await?;
            standing
        }
    };
    let history = tokio::task::block_in_place(|| engine.replica().history());
    store(
        engine,
        catalog,
        &scratch,
        (history, position),
        (schema, held),
        progress,
    )
    .await
}

/// Stores a file as a snapshot, and reads it back.
pub(super) async fn store(
    engine: &Arc<Engine>,
    catalog: &Catalog,
    scratch: &Scratch,
    (history, position): (History, Position),
    (schema, absent): (String, Vec<String>),
    progress: &Progress,
) -> Result<Manifest, TakeError> {
    let manifest = Manifest {
        format: manifest::FORMAT,
        file: String::new(),
        cluster: String::new(),
        node: engine.config.node_id.to_string(),
        history,
        sequence: position.sequence.0,
        hash: format!("{:016x}", position.hash),
        folded: position.folded.0,
        schema,
        absent,
        size: 0,
        sha256: String::new(),
        time: OffsetDateTime::now_utc()
            .format(&Rfc3339)
            .unwrap_or_default(),
        harmonylite: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let manifest = catalog.add(scratch.path(), manifest, progress).await?;
    match catalog.verify(&manifest).await {
        Ok(()) => {}
        Err(damaged @ CatalogError::Damaged { .. }) => {
            // It must not be taken for one by anybody.
            catalog.remove(&manifest).await?;
            return Err(damaged.into());
        }
        Err(other) => return Err(other.into()),
    }
    catalog.set_latest(scratch.path(), &manifest).await?;
    Ok(manifest)
}

/// A copy with its change logs in it. Returns what is seen in it, and the hash of its schema.
pub(super) async fn copied<T: Send + 'static>(
    engine: &Arc<Engine>,
    scratch: &Arc<Scratch>,
    stop: Arc<AtomicBool>,
    see: fn(&Connection) -> Result<T, TakeError>,
) -> Result<(T, String), TakeError> {
    let (engine, scratch) = (Arc::clone(engine), Arc::clone(scratch));
    blocking(move || {
        // Before the copy: a schema that changes meanwhile has another hash only in what people read.
        let schema = engine.replica().captured().schema_hash();
        let shutdown = engine.shutdown.clone();
        let stop = move || stop.load(Ordering::Relaxed) || shutdown.is_requested();
        let copied = copy_file(&engine.config.db_path, scratch.path(), stop)?;
        Ok((see(&copied)?, schema))
    })
    .await
}

/// Whether the copy that was just made may hold rows that are in no change log. Capture is made current first, by which a gap shows.
fn has_uncaptured(engine: &Engine) -> Result<bool, TakeError> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let mut replica = engine.replica();
    let locked = !replica.make_capture_current(PATIENCE, &|| engine.shutdown.is_requested())?;
    Ok(locked || !replica.unsure()?.is_empty())
}

/// Ends the copying when the future that waits for it is dropped.
struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Copies the database into a snapshot. Returns where it stands, and which of its changes are this node's own and not back yet: it counts when they are.
///
/// # Errors
/// SQLite's, also when `stop` says so; the state in the copy.
pub fn copy_database(
    database: &Path,
    to: &Path,
    stop: impl Fn() -> bool + Send + 'static,
) -> Result<(node::NodeState, Marks), TakeError> {
    standing_of(&copy_file(database, to, stop)?)
}

fn standing_of(copy: &Connection) -> Result<(node::NodeState, Marks), TakeError> {
    let state = node::read(copy)?.ok_or(StateError::Missing)?;
    Ok((state, marks(copy)?))
}

fn copy_file(
    database: &Path,
    to: &Path,
    stop: impl Fn() -> bool + Send + 'static,
) -> Result<Connection, SqliteError> {
    copy::copy(database, to, stop)
}

/// The last pending row of each change log in the copy.
fn marks(copy: &Connection) -> Result<Marks, SqliteError> {
    let doing = "look into the change logs of the copy";
    let mut rows = Vec::new();
    for table in base::logged(copy)? {
        let log = crate::capture::layout::change_log(&table);
        let last: Option<i64> = copy
            .query_row(
                &format!(
                    "SELECT max(id) FROM {} WHERE type <> {}",
                    crate::sqlite::ident::quote(&log),
                    ChangeKind::Done.code()
                ),
                [],
                |r| r.get(0),
            )
            .doing(doing)?;
        rows.extend(last.map(|id| (table, id)));
    }
    Ok(Marks::up_to(rows))
}

async fn wait_until_back(engine: &Arc<Engine>, marks: &mut Marks) -> Result<(), TakeError> {
    let until = tokio::time::Instant::now() + COME_BACK;
    let reader = connection::open_reader(&engine.config.db_path)?;
    loop {
        let captured = Arc::clone(engine.replica().captured());
        if tokio::task::block_in_place(|| marks.clear(&reader, &captured))? {
            return Ok(());
        }
        if engine.shutdown.is_requested() {
            return Err(TakeError::Stopping);
        }
        if tokio::time::Instant::now() > until {
            return Err(TakeError::NotBack);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Folds into the copy what has come since it was made, this node's own changes in it among that: the stream holds them in their order with those of others,
/// and the copy holds them all at once. Returns where it stands, and the hash of its schema.
async fn fold_on(
    engine: &Arc<Engine>,
    broker: &Broker,
    copy: &Arc<Scratch>,
) -> Result<(node::Position, String), TakeError> {
    let until = engine.replica().position();
    let options = OpenOptions {
        publish: true,
        ..OpenOptions::of(&engine.config)
    };
    let mut folding = Folding::begin(engine, broker, Arc::clone(copy), options, None).await?;
    folding.advance(until.sequence).await?;
    let replica = folding.into_replica()?;
    let position = replica.position();
    if (position.sequence, position.hash) != (until.sequence, until.hash) {
        return Err(TakeError::Unfoldable(format!(
            "message {} of the stream is another than this node has folded",
            until.sequence
        )));
    }
    blocking(move || {
        if !is_fold(&replica)? {
            return Err(TakeError::NotBack);
        }
        Ok((replica.position(), replica.captured().schema_hash()))
    })
    .await
}

/// Whether a copy that was folded on holds nothing that the stream has not brought: where a change had to give way to others', it may have been given up in the
/// copy in a way of its own.
///
/// # Errors
/// SQLite's.
pub fn is_fold(copy: &Replica) -> Result<bool, TakeError> {
    Ok(planted!(PhantomSnapshot) || copy.pending_changes()? == 0)
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TakeError> + Send + 'static,
) -> Result<T, TakeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // The runtime goes down.
        Err(_) => Err(TakeError::Stopping),
    }
}
