//! `replay`: what was folded is read from the stream once more and folded on top of what is there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::reading::Reading;
use super::{PATIENCE, messages, ready, refusal_of, refuse, report, until_stop};
use crate::change::position::Sequence;
use crate::cli::exit::ExitCode;
use crate::codec::spool::Spool;
use crate::consume::payload::PieceCache;
use crate::control::{Refusal, Reply, Span};
use crate::engine::Engine;
use crate::http::status::Loop;
use crate::replica::operator::{OperatorError, Replayed};

/// Messages that one `replay` folds at most: what one transaction should hold, and some 20 MB of places to remember.
const REPLAYED_AT_ONCE: u64 = 100_000;
/// Messages before a replayed range that are read for the order per publisher: resends stand at most a window of batches (256) apart, and a few nodes write.
const BEFORE: u64 = 4096;

/// How long this node's own changes may take to come back from the stream, where they must: they are milliseconds on their way.
const PENDING: Duration = Duration::from_secs(10);
/// How often that is looked at. Not in step with the 20 ms in which echoes are gathered.
const LOOK_AGAIN: Duration = Duration::from_millis(7);

/// Does `replay`.
pub async fn replay(engine: Arc<Engine>, span: Span, reply: Reply) {
    let done = until_stop(&engine, try_replay(&engine, span, &reply)).await;
    report("replay", done, reply);
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
        let until = Instant::now() + PENDING;
        loop {
            let mut replica = engine_there.replica();
            let now = replica.position().sequence;
            let last = if open_end { now } else { last };
            // What came meanwhile is read under the lock, so that the range really ends at the position.
            handle.block_on(reading.up_to(last, None))?;
            let done = replica.replay(
                PATIENCE,
                open_end,
                || match engine_there.shutdown.is_requested() {
                    // Who asked has been told; a stop is not held up by what is left to be folded.
                    true => Err(std::io::Error::other("the daemon is stopping")),
                    false => reading.give(),
                },
                |_| {
                    engine_there.status.progress(Loop::Consume);
                    engine_there.status.progress(Loop::Publish);
                },
            );
            drop(replica);
            match done {
                Err(OperatorError::Pending { .. })
                    if Instant::now() < until && !engine_there.shutdown.is_requested() =>
                {
                    std::thread::sleep(LOOK_AGAIN);
                }
                done => return done.map(|d| (d, last)).map_err(|e| refusal_of(&e)),
            }
        }
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
        "{} folded again: {} in {}{}{warning}",
        messages(first, last, "was", "were"),
        count(done.stats.rows, "row", "rows"),
        count(done.batches, "batch", "batches"),
        if done.damaged > 0 {
            format!(", {} left out that no node can read", done.damaged)
        } else {
            String::new()
        }
    ))
}

fn count(n: u64, one: &str, more: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { more })
}
