//! `skip`: the messages are fetched, so that the dead-letter journal has their bytes, and the node goes on without their rows.

use std::sync::Arc;

use super::{FETCH, PATIENCE, messages, ready, refusal_of, refuse, report, until_stop};
use crate::apply::incoming::{self, Body};
use crate::change::position::{Sequence, ShardId};
use crate::cli::exit::ExitCode;
use crate::control::{Refusal, Reply, Span};
use crate::engine::Engine;
use crate::replica::operator::OperatorError;

/// Messages that one `skip` names at most: each is fetched and journaled, and a person knows of few.
const SKIPPED_AT_ONCE: u64 = 1000;

/// Does `skip`.
pub async fn skip(engine: Arc<Engine>, span: Span, reply: Reply) {
    let done = until_stop(&engine, try_skip(&engine, span)).await;
    report("skip", done, reply);
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
        "{} skipped on this node ({journaled} in the dead-letter journal). This node may now differ from the others: run harmonylite verify when it has caught up",
        messages(first, last, "is", "are")
    ))
}
