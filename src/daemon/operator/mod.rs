//! `skip` and `replay`, asked over the control socket.
//!
//! Invariants: a range is checked against position and stream before anything is done; nothing here holds the replica while it waits for the broker, but for
//! the few messages that came while the others were read.

mod reading;
mod replay;
mod skip;

use std::time::Duration;

pub use replay::replay;
pub use skip::skip;

use crate::change::position::{Sequence, ShardId};
use crate::cli::exit::ExitCode;
use crate::control::{Outcome, Refusal, Reply, Span};
use crate::engine::Engine;
use crate::replica::ReplicaError;
use crate::replica::operator::OperatorError;
use crate::stream::{Broker, StreamState};

/// How long one message may take to come.
const FETCH: Duration = Duration::from_secs(10);
/// How long the app may hold the write lock meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);

/// A stop is not held up by what an operator has asked for.
async fn until_stop(
    engine: &Engine,
    done: impl Future<Output = Result<String, Refusal>>,
) -> Result<String, Refusal> {
    tokio::select! {
        done = done => done,
        () = engine.shutdown.requested() => Err(refuse(
            ExitCode::TempFail,
            "the daemon is stopping: try again when it runs",
        )),
    }
}

/// Tells the log and whoever asked what came of it.
fn report(what: &str, done: Result<String, Refusal>, reply: Reply) {
    match &done {
        Ok(text) => tracing::warn!("{text}"),
        Err(refusal) => tracing::info!("{what} was refused: {refusal}"),
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

fn messages(first: Sequence, last: Sequence, one: &str, more: &str) -> String {
    if first == last {
        format!("message {first} of shard 1 {one}")
    } else {
        format!("messages {first} to {last} of shard 1 {more}")
    }
}

fn refusal_of(error: &OperatorError) -> Refusal {
    let code = match error {
        OperatorError::Behind { .. } => ExitCode::Usage,
        OperatorError::Replica(ReplicaError::Locked { .. })
        | OperatorError::Pending { .. }
        | OperatorError::Lost { .. } => ExitCode::TempFail,
        OperatorError::Unfoldable { .. } | OperatorError::Replica(_) => ExitCode::Failed,
    };
    refuse(code, error.to_string())
}
