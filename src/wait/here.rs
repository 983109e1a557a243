//! Waiting on this node.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::WaitError;
use super::token::{StreamIdentity, Token};
use crate::change::position::{Sequence, ShardId};
use crate::changelog::marks::Marks;
use crate::engine::Engine;
use crate::sqlite::connection;
use crate::stream::Broker;

/// How often the change logs are looked at when nothing says that they have changed: a table without a change makes no echo.
const LOOK: Duration = Duration::from_millis(20);

/// The stream that this node's positions are of. Asked of the broker once.
///
/// # Errors
/// [`WaitError::NotConnected`]; why the broker did not answer.
pub async fn identity(engine: &Engine) -> Result<StreamIdentity, WaitError> {
    if let Some(known) = engine.stream_identity() {
        return Ok(known);
    }
    let broker = engine.broker().ok_or(WaitError::NotConnected)?;
    let state = broker.stream_state(ShardId::ORDER).await?;
    let identity = of(engine, &broker, state.created);
    engine.set_stream_identity(identity);
    Ok(identity)
}

fn of(engine: &Engine, broker: &Broker, created: u64) -> StreamIdentity {
    let history = tokio::task::block_in_place(|| engine.replica().history());
    StreamIdentity::new(&broker.stream_name(ShardId::ORDER), created, history)
}

/// Waits until everything that the app has committed by now has come back from the stream; the position that holds all of it.
///
/// # Errors
/// [`WaitError::NotBack`] at the deadline; see there for the others.
pub async fn committed(engine: &Arc<Engine>, timeout: Duration) -> Result<Token, WaitError> {
    unless_stopping(engine, wait_committed(engine, timeout)).await
}

/// What `wait` comes to, or that the daemon stops: then it is dropped wherever it is.
pub(super) async fn unless_stopping<T>(
    engine: &Engine,
    wait: impl Future<Output = Result<T, WaitError>>,
) -> Result<T, WaitError> {
    tokio::select! {
        done = wait => done,
        () = engine.shutdown.requested() => Err(WaitError::Stopping),
    }
}

async fn wait_committed(engine: &Arc<Engine>, timeout: Duration) -> Result<Token, WaitError> {
    let deadline = Instant::now() + timeout;
    let _awaited = engine.await_echoes();
    let stream = identity(engine).await?;
    let mut folded = engine.folded();
    let reader = connection::open_reader(&engine.config.db_path)?;
    let mut marks: Option<Marks> = None;
    loop {
        folded.mark_unchanged();
        let done = tokio::task::block_in_place(|| {
            let captured = Arc::clone(engine.replica().captured());
            if marks.is_none() {
                marks = Marks::now(&reader, &captured)?;
            }
            match &mut marks {
                Some(marks) => marks.clear(&reader, &captured),
                None => Ok(false),
            }
        })?;
        if done {
            break;
        }
        if let Some(reason) = engine.brakes.set().pause() {
            return Err(WaitError::Paused { reason });
        }
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => {
                return Err(WaitError::NotBack { after: timeout, reason: why_it_stands(engine) });
            }
            _ = folded.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    let sequence = if engine.config.replicate {
        tokio::task::block_in_place(|| engine.replica().position().sequence)
    } else {
        // The position stands still here; everything that has come back stands before the end.
        let broker = engine.broker().ok_or(WaitError::NotConnected)?;
        broker.stream_state(ShardId::ORDER).await?.last
    };
    Ok(Token { stream, sequence })
}

/// Waits until this node has folded the position; how far it is then.
///
/// # Errors
/// [`WaitError::NotThere`] at the deadline; see there for the others.
pub async fn reached(
    engine: &Arc<Engine>,
    token: Token,
    timeout: Duration,
) -> Result<Token, WaitError> {
    unless_stopping(engine, wait_reached(engine, token, timeout)).await
}

async fn wait_reached(
    engine: &Engine,
    token: Token,
    timeout: Duration,
) -> Result<Token, WaitError> {
    let deadline = Instant::now() + timeout;
    let stream = identity(engine).await?;
    if token.stream != stream {
        return Err(WaitError::OtherStream {
            token,
            here: stream,
        });
    }
    if !engine.config.replicate {
        return Err(WaitError::NotApplying);
    }
    let _awaited = engine.await_echoes();
    let mut folded = engine.folded();
    let at = |sequence| Token { stream, sequence };
    let here = *folded.borrow_and_update();
    if here >= token.sequence {
        return Ok(at(here));
    }
    // Not there yet: is it anywhere? A broker that is away does not make the wait fail.
    if let Some(broker) = engine.broker()
        && let Ok(state) = broker.stream_state(ShardId::ORDER).await
    {
        let now = of(engine, &broker, state.created);
        if now != stream {
            return Err(WaitError::OtherStream { token, here: now });
        }
        if state.last < token.sequence {
            return Err(WaitError::BeyondEnd {
                token,
                end: state.last,
            });
        }
    }
    let wait = folded.wait_for(|at| *at >= token.sequence);
    let there = matches!(tokio::time::timeout_at(deadline, wait).await, Ok(Ok(_)));
    let here = position(engine);
    if there || here >= token.sequence {
        return Ok(at(here));
    }
    Err(WaitError::NotThere {
        at: here,
        wanted: token.sequence,
        after: timeout,
        reason: why_it_stands(engine),
    })
}

/// How far this node has folded the order stream, as of its last transaction.
fn position(engine: &Engine) -> Sequence {
    *engine.folded().borrow()
}

/// Why applying stands still, if it does.
fn why_it_stands(engine: &Engine) -> Option<String> {
    let view = engine.status.view();
    view.apply_paused.or(view.schema_paused)
}
