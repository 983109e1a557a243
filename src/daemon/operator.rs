//! `skip` and `replay`, asked over the control socket.
//!
//! Invariants: a range is checked against position and stream before anything is done; nothing here holds the replica while it waits for the broker, but for
//! the few messages that came while the others were read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::apply::incoming::{self, Body, IncomingBatch};
use crate::apply::order::{Verdict, judge};
use crate::change::position::{BatchNumber, Sequence, ShardId};
use crate::cli::exit::ExitCode;
use crate::codec::commit::SectionKind;
use crate::codec::spool::{Blob, Spool};
use crate::consume::payload::{self, PieceCache};
use crate::control::{Outcome, Refusal, Reply, Span};
use crate::engine::Engine;
use crate::http::status::Loop;
use crate::replica::ReplicaError;
use crate::replica::operator::{OperatorError, Replayed};
use crate::state::publishers::{LastTaken, Publishers};
use crate::stream::{Broker, StreamError, StreamState};

/// Messages that one `skip` names at most: each is fetched and journaled, and a person knows of few.
const SKIPPED_AT_ONCE: u64 = 1000;
/// Messages that one `replay` folds at most: what one transaction should hold.
const REPLAYED_AT_ONCE: u64 = 1_000_000;
/// Messages before a replayed range that are read for the order per publisher: resends stand at most a window of batches (256) apart, and a few nodes write.
const BEFORE: u64 = 4096;
/// How long one message may take to come.
const FETCH: Duration = Duration::from_secs(10);
/// How long the app may hold the write lock meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often progress is told.
const TELL: Duration = Duration::from_secs(2);

/// Does `skip`.
pub async fn skip(engine: Arc<Engine>, span: Span, reply: Reply) {
    let done = try_skip(&engine, span).await;
    match &done {
        Ok(text) => tracing::warn!("{text}"),
        Err(refusal) => tracing::info!("skip was refused: {refusal}"),
    }
    reply.done(done.map(Outcome::from));
}

/// Does `replay`.
pub async fn replay(engine: Arc<Engine>, span: Span, reply: Reply) {
    let done = try_replay(&engine, span, &reply).await;
    match &done {
        Ok(text) => tracing::warn!("{text}"),
        Err(refusal) => tracing::info!("replay was refused: {refusal}"),
    }
    reply.done(done.map(Outcome::from));
}

fn refuse(code: ExitCode, text: impl Into<String>) -> Refusal {
    Refusal::new(text, code.number())
}

/// What both need: the order stream, and a node that folds.
async fn ready(engine: &Engine, span: &Span) -> Result<(Broker, StreamState, Sequence), Refusal> {
    if span.shard != ShardId::ORDER.0 {
        return Err(refuse(
            ExitCode::Usage,
            format!(
                "shard {} holds payload only, which counts for nothing by itself: give shard 1 and the message there whose batch names it",
                span.shard
            ),
        ));
    }
    if !engine.config.replicate {
        return Err(refuse(
            ExitCode::Usage,
            "replicate is false: this node folds nothing; set it to true and restart first",
        ));
    }
    let broker = engine.broker().ok_or_else(|| {
        refuse(
            ExitCode::Unavailable,
            "this node is not connected to NATS yet: try again when its health says so",
        )
    })?;
    let state = broker
        .stream_state(ShardId::ORDER)
        .await
        .map_err(|e| refuse(ExitCode::Unavailable, e.to_string()))?;
    let position = tokio::task::block_in_place(|| engine.replica().position().sequence);
    if let Some(last) = span.last.filter(|last| *last < span.first) {
        return Err(refuse(
            ExitCode::Usage,
            format!("the range {}-{last} ends before it begins", span.first),
        ));
    }
    Ok((broker, state, position))
}

async fn try_skip(engine: &Arc<Engine>, span: Span) -> Result<String, Refusal> {
    let (broker, state, position) = ready(engine, &span).await?;
    let Some(last) = span.last else {
        return Err(refuse(
            ExitCode::Usage,
            "skip needs the end of its range: write N or N-M",
        ));
    };
    let (first, last) = (Sequence(span.first), Sequence(last));
    if first <= position {
        let error = OperatorError::Behind { first, position };
        return Err(refuse(ExitCode::Usage, error.to_string()));
    }
    if last > state.last {
        return Err(refuse(
            ExitCode::Usage,
            format!(
                "message {last} is not there yet: the stream ends at {}, and what is to come cannot be skipped",
                state.last
            ),
        ));
    }
    if last.0 - first.0 >= SKIPPED_AT_ONCE {
        return Err(refuse(
            ExitCode::Usage,
            format!("at most {SKIPPED_AT_ONCE} messages can be skipped at once"),
        ));
    }
    let mut letters = Vec::new();
    for at in (first.0..=last.0).map(Sequence) {
        let fetched = broker.fetch(ShardId::ORDER, at, FETCH).await;
        let message = fetched.map_err(|e| refuse(ExitCode::Unavailable, e.to_string()))?;
        if let Some(message) = message
            && !matches!(
                incoming::open(at, &message.payload).body,
                Body::Payload | Body::Marker(_)
            )
        {
            letters.push((at, message.payload));
        }
    }
    let journaled = letters.len();
    tokio::task::block_in_place(|| engine.replica().skip(first, last, &letters, PATIENCE))
        .map_err(|e| refusal_of(&e))?;
    engine.prompt();
    Ok(format!(
        "{} skipped on this node; {journaled} in the dead-letter journal. This node may now differ from the others: run harmonylite verify when it has caught up",
        messages(first, last)
    ))
}

fn messages(first: Sequence, last: Sequence) -> String {
    if first == last {
        format!("message {first} of shard 1 is")
    } else {
        format!("messages {first} to {last} of shard 1 are")
    }
}

fn refusal_of(error: &OperatorError) -> Refusal {
    let code = match error {
        OperatorError::Behind { .. } => ExitCode::Usage,
        OperatorError::Replica(ReplicaError::Locked { .. }) => ExitCode::TempFail,
        OperatorError::Unfoldable { .. } | OperatorError::Replica(_) => ExitCode::Failed,
    };
    refuse(code, error.to_string())
}

/// A message that was read, put aside.
struct Kept {
    at: Sequence,
    message: Blob,
    /// Its sections, framed, as they are folded.
    sections: Vec<(SectionKind, Blob)>,
    /// Whether it is in the range, or only before it.
    wanted: bool,
}

async fn try_replay(engine: &Arc<Engine>, span: Span, reply: &Reply) -> Result<String, Refusal> {
    let (broker, state, position) = ready(engine, &span).await?;
    let first = Sequence(span.first);
    let open_end = span.last.is_none();
    let last = span.last.map_or(position, Sequence);
    if first.0 == 0 || last > position {
        return Err(refuse(
            ExitCode::Usage,
            format!("only what this node has folded can be folded again: messages 1 to {position}"),
        ));
    }
    if first > position {
        return Err(refuse(
            ExitCode::Usage,
            format!(
                "message {first} is ahead of this node's position {position}: it is folded in its turn"
            ),
        ));
    }
    if first < state.first {
        return Err(refuse(
            ExitCode::Failed,
            format!(
                "message {first} is not in the stream any more, which begins at {}: only a snapshot has what it wrote",
                state.first
            ),
        ));
    }
    if last.0 - first.0 >= REPLAYED_AT_ONCE {
        return Err(refuse(
            ExitCode::Usage,
            format!("at most {REPLAYED_AT_ONCE} messages can be folded again at once"),
        ));
    }
    let begin = Sequence(first.0.saturating_sub(BEFORE).max(state.first.0).max(1));
    let mut reading = Reading {
        broker,
        spool: Arc::new(Spool::new(engine.config.folder().to_owned())),
        cache: PieceCache::default(),
        first,
        next: begin,
        kept: VecDeque::new(),
        records: Vec::new(),
        told: Instant::now(),
    };
    reading.up_to(last, Some(reply)).await?;
    let (engine_there, handle) = (Arc::clone(engine), tokio::runtime::Handle::current());
    let folding = tokio::task::spawn_blocking(move || {
        let mut replica = engine_there.replica();
        let now = replica.position().sequence;
        let last = if open_end { now } else { last };
        // What came meanwhile is read under the lock, so that the range really ends at the position.
        handle.block_on(reading.up_to(last, None))?;
        let done = replica.replay(
            PATIENCE,
            || reading.give(),
            |_| {
                engine_there.status.progress(Loop::Consume);
                engine_there.status.progress(Loop::Publish);
            },
        );
        drop(replica);
        done.map(|d| (d, last)).map_err(|e| refusal_of(&e))
    });
    let (done, last): (Replayed, Sequence) = folding
        .await
        .map_err(|e| refuse(ExitCode::Software, e.to_string()))??;
    let warning = if open_end {
        ""
    } else {
        "; what was written to the same rows after them may be overwritten on this node: fold up to the present with the range N-, and run harmonylite verify"
    };
    Ok(format!(
        "messages {first} to {last} of shard 1 were folded again: {} batches with {} rows{}{warning}",
        done.batches,
        done.stats.rows,
        if done.damaged > 0 {
            format!(", {} left out that no node can read", done.damaged)
        } else {
            String::new()
        }
    ))
}

/// Messages on their way from the stream to the fold, outside of memory.
struct Reading {
    broker: Broker,
    spool: Arc<Spool>,
    cache: PieceCache,
    /// The first message that is wanted.
    first: Sequence,
    /// The next to be read.
    next: Sequence,
    kept: VecDeque<Kept>,
    /// Every commit record read: whose, and where.
    records: Vec<(Sequence, LastTaken, crate::change::position::NodeId)>,
    told: Instant,
}

impl Reading {
    /// Reads on, up to and with `last`.
    async fn up_to(&mut self, last: Sequence, reply: Option<&Reply>) -> Result<(), Refusal> {
        if self.next > last {
            return Ok(());
        }
        let unavailable = |e: StreamError| refuse(ExitCode::Unavailable, e.to_string());
        let mut reader = self.broker.reader(ShardId::ORDER, self.next);
        while self.next <= last {
            let message = tokio::time::timeout(FETCH, reader.next())
                .await
                .map_err(|_| {
                    refuse(
                        ExitCode::Unavailable,
                        format!("message {} does not come: nothing was changed", self.next),
                    )
                })?
                .map_err(unavailable)?;
            let at = message.sequence;
            if at > last {
                break;
            }
            self.next = at.next();
            let mut opened = incoming::open(at, &message.payload);
            match &mut opened.body {
                Body::Payload => self.cache.keep(at, message.payload.clone()),
                Body::Batch(batch) => {
                    self.records.push((
                        at,
                        LastTaken {
                            incarnation: batch.record.incarnation,
                            batch: batch.record.batch,
                            sequence: at,
                        },
                        batch.record.node,
                    ));
                    self.keep_batch(at, message.payload.to_vec(), batch).await?;
                }
                Body::Newer(_) => self.keep(at, message.payload.to_vec(), Vec::new())?,
                Body::Marker(_) | Body::Unreadable { .. } => {}
            }
            if let Some(reply) = reply.filter(|_| self.told.elapsed() >= TELL) {
                self.told = Instant::now();
                reply.progress(format!("read up to message {at} of {last}"));
            }
        }
        Ok(())
    }

    async fn keep_batch(
        &mut self,
        at: Sequence,
        message: Vec<u8>,
        batch: &mut IncomingBatch,
    ) -> Result<(), Refusal> {
        let mut sections = Vec::new();
        if at >= self.first {
            payload::gather(&self.broker, &mut self.cache, batch, &self.spool)
                .await
                .map_err(|e| refuse(ExitCode::Failed, format!("message {at}: {e}")))?;
            let rows = batch.rows.iter().map(|b| (SectionKind::Rows, b.clone()));
            let covers = batch
                .covers
                .iter()
                .map(|b| (SectionKind::Covers, b.clone()));
            sections = rows.chain(covers).collect();
        }
        self.keep(at, message, sections)
    }

    fn keep(
        &mut self,
        at: Sequence,
        message: Vec<u8>,
        sections: Vec<(SectionKind, Blob)>,
    ) -> Result<(), Refusal> {
        if at < self.first {
            return Ok(());
        }
        let message = self
            .spool
            .put(message)
            .map_err(|e| refuse(ExitCode::Io, format!("could not put messages aside: {e}")))?;
        self.kept.push_back(Kept {
            at,
            message,
            sections,
            wanted: true,
        });
        Ok(())
    }

    /// The next message that counted when it was folded the first time.
    fn give(&mut self) -> std::io::Result<Option<incoming::Incoming>> {
        if !self.records.is_empty() {
            let taken = taken(&std::mem::take(&mut self.records));
            for kept in &mut self.kept {
                kept.wanted = taken.binary_search(&kept.at).is_ok();
            }
        }
        while let Some(kept) = self.kept.pop_front() {
            let mut opened = incoming::open(kept.at, &kept.message.read()?);
            match &mut opened.body {
                Body::Batch(_) if !kept.wanted => continue,
                Body::Batch(batch) => {
                    for (kind, blob) in kept.sections {
                        batch.add_section(kind, &blob.read()?, blob);
                    }
                }
                _ => {}
            }
            return Ok(Some(opened));
        }
        Ok(None)
    }
}

/// Which of these records counted: the same verdict as at the first time, from what stands before them. The first batch seen of a publisher is taken to
/// follow the one before it, and a lower one that comes later (a resend after a gap) to come first.
fn taken(records: &[(Sequence, LastTaken, crate::change::position::NodeId)]) -> Vec<Sequence> {
    let mut publishers = Publishers::new();
    for (_, record, node) in records {
        let least = publishers.entry(*node).or_insert(*record);
        if least.incarnation == record.incarnation {
            least.batch = least.batch.min(record.batch);
        }
    }
    for last in publishers.values_mut() {
        last.batch = BatchNumber(last.batch.0.saturating_sub(1));
    }
    let mut out = Vec::new();
    for (at, record, node) in records {
        let verdict = judge(publishers.get(node), record.incarnation, record.batch);
        if verdict == Verdict::Take {
            publishers.insert(*node, *record);
            out.push(*at);
        }
    }
    out
}
