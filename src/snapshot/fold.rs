//! A snapshot made of the one before and the stream behind it, in a database of its own: what the cluster has agreed on, and nothing of what is pending here.
//! And what both ways of making one need: folding the stream into a copy.
//!
//! It is for a stream that is nearly full. A copy of this node's database would hold changes that are not published yet, and could not count before they
//! are; but they may find no room in the stream until a snapshot has made some.
//!
//! Invariant: the result is the fold, as every node has it; where anything cannot be folded here, there is no result.

use std::sync::Arc;
use std::time::Duration;

use super::catalog::Catalog;
use super::manifest::Manifest;
use super::scratch::Scratch;
use super::take::{TakeError, blocking};
use crate::apply::incoming::{self, Body, Incoming};
use crate::apply::order;
use crate::capture::Captured;
use crate::change::position::{NodeId, Sequence, ShardId};
use crate::codec::spool::Spool;
use crate::consume::payload::{self, PayloadError, PieceCache};
use crate::engine::Engine;
use crate::history::standing::{self, Standing};
use crate::replica::group::{ApplyOptions, Stopped};
use crate::replica::lifecycle::OpenOptions;
use crate::replica::reconcile::{self, Grown};
use crate::replica::{Replica, absent, copy};
use crate::sqlite::connection;
use crate::state::node::Position;
use crate::state::publishers::{LastTaken, Publishers};
use crate::store::Progress;
use crate::stream::{Broker, LogReader, StoredMessage, continuity};

/// Messages folded at once.
const GROUP: usize = 256;

/// Nobody else writes there.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the next message may take, of which the stream says that it is there.
const NEXT: Duration = Duration::from_secs(30);

/// Makes `to` of the snapshot and the stream. Returns where it stands, and the hash of its schema.
///
/// # Errors
/// What is in the way, [`TakeError::Unfoldable`] above all.
pub async fn fold(
    engine: &Arc<Engine>,
    broker: &Broker,
    catalog: &Catalog,
    from: &Manifest,
    to: &Arc<Scratch>,
) -> Result<(Position, String), TakeError> {
    catalog.fetch(from, to.path(), &Progress::none()).await?;
    let replication = &engine.config.replication;
    let options = OpenOptions {
        // Whoever begins from it finds in its indexes what is in its tables.
        fire_triggers: Some(replication.fire_triggers.clone()),
        ..nobody(replication.include.clone(), replication.exclude.clone())
    };
    let held = {
        let to = Arc::clone(to);
        blocking(move || {
            let conn = connection::open_writer(to.path())?;
            let held = absent::list(&conn)?;
            for name in &held {
                absent::bring_back(&conn, name, name)?;
            }
            Ok(held)
        })
        .await?
    };
    let mut folding = Folding::begin(engine, broker, Arc::clone(to), options, None).await?;
    let last = broker
        .stream_state(ShardId::ORDER)
        .await
        .map_err(|e| unfoldable(&e))?
        .last;
    folding.advance(last).await?;
    let replica = folding.into_replica()?;
    let mut captured = Captured::clone(replica.captured());
    captured.tables.retain(|t| !held.contains(&t.table.name));
    let schema = captured.schema_hash();
    let position = replica.position();
    let to = Arc::clone(to);
    blocking(move || {
        drop(replica);
        let conn = connection::open_writer(to.path())?;
        for name in &held {
            absent::hide(&conn, name)?;
        }
        copy::finish(conn)?;
        Ok(())
    })
    .await?;
    if position.sequence <= Sequence(from.sequence) {
        return Err(TakeError::Unfoldable(
            "nothing has come since the snapshot before".to_owned(),
        ));
    }
    Ok((position, schema))
}

/// Opens a database as nobody's: every batch is another's, and no trigger fires. With the globs of tables that are folded, and of those that are not.
#[must_use]
pub fn nobody(include: Vec<String>, exclude: Vec<String>) -> OpenOptions {
    OpenOptions {
        node_id: NodeId(0),
        publish: false,
        include,
        exclude,
        fire_triggers: None,
    }
}

/// A database of ours in which the stream is folded, up to any position and then on to a later one.
pub struct Folding {
    broker: Broker,
    /// Taken out while it works in another thread.
    replica: Option<Replica>,
    scratch: Arc<Scratch>,
    reader: LogReader,
    /// What was taken of each publisher, as of the last message that was read.
    publishers: Publishers,
    cache: PieceCache,
    spool: Arc<Spool>,
    /// The last message that was read.
    at: Sequence,
    /// One that stands behind what was asked for.
    next: Option<Incoming>,
    /// What is captured in the database whose fold this is: where a batch does not fit here, it fits there. None: what does not fit cannot be folded.
    like: Option<Arc<Captured>>,
    grown: Vec<Grown>,
}

impl Folding {
    /// Begins with what is in `scratch`: a snapshot, a copy of a node's database, or nothing.
    ///
    /// # Errors
    /// [`TakeError::Unfoldable`].
    pub async fn begin(
        engine: &Arc<Engine>,
        broker: &Broker,
        scratch: Arc<Scratch>,
        options: OpenOptions,
        like: Option<Arc<Captured>>,
    ) -> Result<Self, TakeError> {
        let replica = {
            let to = Arc::clone(&scratch);
            blocking(move || {
                Replica::open_copy(to.path(), &options, PATIENCE, &|| false)
                    .map_err(|e| unfoldable(&e))
            })
            .await?
        };
        let at = replica.position().sequence;
        // What stands behind a position that the stream holds no more follows another state.
        match standing::look(broker, replica.position()).await {
            Ok(Standing::Holds) => {}
            Ok(Standing::Trimmed(why) | Standing::Broken(why)) => {
                return Err(TakeError::Unfoldable(why));
            }
            Err(e) => return Err(unfoldable(&e)),
        }
        Ok(Self {
            reader: broker.reader(ShardId::ORDER, at.next()),
            publishers: replica.publishers().clone(),
            broker: broker.clone(),
            replica: Some(replica),
            scratch,
            cache: PieceCache::default(),
            spool: Arc::new(Spool::new(engine.config.folder().to_owned())),
            at,
            next: None,
            like,
            grown: Vec::new(),
        })
    }

    /// Folds up to a position, this included.
    ///
    /// # Errors
    /// What is in the way, [`TakeError::Unfoldable`] above all; it is of no use then.
    pub async fn advance(&mut self, to: Sequence) -> Result<(), TakeError> {
        let mut group: Vec<Incoming> = Vec::new();
        loop {
            let message = match self.next.take() {
                Some(message) => message,
                None if self.at >= to => break,
                None => self.read().await?,
            };
            if message.sequence > to {
                self.next = Some(message);
                break;
            }
            // Large batches lie in their spools until they are folded: they are not gathered.
            let large = matches!(&message.body, Body::Batch(b) if !b.record.sections.is_empty());
            group.push(message);
            if large || group.len() >= GROUP {
                self.apply(std::mem::take(&mut group)).await?;
            }
        }
        self.apply(group).await
    }

    /// Folds a node's batches behind the position, and nothing else, up to a message that stands in the stream; the last of them that counted. What comes of it is no state
    /// that any node ever has.
    ///
    /// # Errors
    /// As [`Folding::advance`].
    pub async fn advance_of(
        &mut self,
        to: Sequence,
        node: NodeId,
    ) -> Result<Option<LastTaken>, TakeError> {
        let mut last = None;
        while self.next.is_some() || self.at < to {
            let message = match self.next.take() {
                Some(message) => message,
                None => self.read_of(Some(node)).await?,
            };
            let taken = match &message.body {
                Body::Batch(batch) if batch.record.node == node => {
                    LastTaken::of(&batch.record, message.sequence)
                }
                _ => continue,
            };
            self.apply(vec![message]).await?;
            if self.position().folded == taken.sequence {
                last = Some(taken);
            }
        }
        Ok(last)
    }

    /// The next message, complete.
    async fn read(&mut self) -> Result<Incoming, TakeError> {
        self.read_of(None).await
    }

    /// The next message; complete if it is of `node`, where one is given.
    async fn read_of(&mut self, node: Option<NodeId>) -> Result<Incoming, TakeError> {
        let message = next(&mut self.reader).await?;
        self.at = message.sequence;
        let mut opened = incoming::open(self.at, &message.payload);
        opened.hash = continuity::fingerprint(opened.hash, message.timestamp_nanos);
        match &mut opened.body {
            Body::Payload => self.cache.keep(self.at, message.payload),
            Body::Batch(batch) if node.is_some_and(|n| n != batch.record.node) => {}
            // What is ignored needs no payload, which may be trimmed.
            Body::Batch(batch) if order::admit(&mut self.publishers, &batch.record, self.at) => {
                let gathered =
                    payload::gather(&self.broker, &mut self.cache, (self.at, batch), &self.spool)
                        .await;
                let skipped = self.replica.as_ref().is_some_and(|r| r.skips(self.at));
                match gathered {
                    Err(PayloadError::Missing { .. } | PayloadError::NoStream { .. })
                        if skipped => {}
                    gathered => gathered.map_err(|e| unfoldable(&e))?,
                }
            }
            _ => {}
        }
        Ok(opened)
    }

    async fn apply(&mut self, messages: Vec<Incoming>) -> Result<(), TakeError> {
        if messages.is_empty() {
            return Ok(());
        }
        let replica = self.take_replica()?;
        let like = self.like.clone();
        let (replica, grown) = blocking(move || apply(replica, messages, like.as_deref())).await?;
        self.replica = Some(replica);
        self.grown.extend(grown);
        Ok(())
    }

    fn take_replica(&mut self) -> Result<Replica, TakeError> {
        self.replica.take().ok_or_else(|| {
            TakeError::Unfoldable("it could not be folded further before".to_owned())
        })
    }

    /// The database's file.
    #[must_use]
    pub fn scratch(&self) -> &Arc<Scratch> {
        &self.scratch
    }

    /// Where it stands.
    #[must_use]
    pub fn position(&self) -> Position {
        self.replica
            .as_ref()
            .map_or_else(Position::default, Replica::position)
    }

    /// Columns that tables were given on the way.
    #[must_use]
    pub fn grown(&self) -> &[Grown] {
        &self.grown
    }

    pub(super) fn into_replica(mut self) -> Result<Replica, TakeError> {
        self.take_replica()
    }
}

pub(super) fn unfoldable(e: &dyn std::fmt::Display) -> TakeError {
    TakeError::Unfoldable(e.to_string())
}

/// The next message, of which the stream says that it is there.
pub(super) async fn next(reader: &mut LogReader) -> Result<StoredMessage, TakeError> {
    tokio::time::timeout(NEXT, reader.next())
        .await
        .map_err(|e| unfoldable(&e))?
        .map_err(|e| unfoldable(&e))
}

/// Folds messages into the database that `replica` is opened on; where a batch does not fit and `like` is given, columns are added as there.
///
/// # Errors
/// [`TakeError::Unfoldable`].
pub fn apply(
    mut replica: Replica,
    mut messages: Vec<Incoming>,
    like: Option<&Captured>,
) -> Result<(Replica, Vec<Grown>), TakeError> {
    let options = ApplyOptions {
        max_time: Duration::from_secs(1),
        given_up: true,
        patience: PATIENCE,
        stop: &|| false,
    };
    let mut grown = Vec::new();
    // The message for which tables were last made anew.
    let mut grown_for = None;
    while let Some(first) = messages.first() {
        let applied = replica
            .apply(&messages, &options)
            .map_err(|e| unfoldable(&e))?;
        if applied.consumed > 0 {
            messages.drain(..applied.consumed.min(messages.len()));
            continue;
        }
        let reason = match applied.stopped {
            Stopped::Schema(reason) => {
                format!("the schema has changed since the snapshot before: {reason}")
            }
            other => format!("the stream cannot be folded here ({other:?})"),
        };
        let fitting = match (&first.body, like) {
            (Body::Batch(batch), Some(like)) if grown_for != Some(first.sequence) => {
                reconcile::grow(&mut replica, &batch.record, like).map_err(|e| unfoldable(&e))?
            }
            _ => None,
        };
        let Some(fitting) = fitting else {
            return Err(TakeError::Unfoldable(reason));
        };
        grown_for = Some(first.sequence);
        grown.extend(fitting);
    }
    Ok((replica, grown))
}
