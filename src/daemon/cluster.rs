//! What the command line asks about the cluster: who is there, how far, how fast; and how a node goes.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::Fatal;
use super::asked::{alive, run, telling};
use super::ending::EndRequest;
use crate::change::position::NodeId;
use crate::cli::exit::ExitCode;
use crate::cluster::announce::{self, End};
use crate::cluster::forget::{self, ForgetError};
use crate::cluster::look::{self, LookError, Seen};
use crate::cluster::ping::{self, PingError};
use crate::cluster::streams;
use crate::cluster::view::ClusterView;
use crate::control::cluster::{ForgetArguments, LeaveArguments, PingArguments};
use crate::control::{Outcome, Refusal, Reply};
use crate::engine::Engine;
use crate::stream::{Broker, StreamError};

/// The longest that anybody waits for anything here.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Does it, unless the daemon is asked to stop meanwhile: nothing of this may be in the way of its end.
async fn until_stop<T>(
    engine: &Engine,
    work: impl Future<Output = Result<T, Fatal>>,
) -> Result<T, Fatal> {
    tokio::select! {
        done = work => done,
        () = engine.shutdown.requested() => {
            Err(Fatal::new(ExitCode::TempFail, "the daemon is stopping: try again when it runs"))
        }
    }
}

/// `harmonylite status` and `nodes`.
pub fn status(engine: Weak<Engine>, reply: Reply) {
    run(reply, move |_| async move {
        let engine = alive(&engine)?;
        let me = NodeId(engine.config.node_id);
        let looked = match connected(&engine) {
            Ok(broker) => {
                let seen = async { seen(&engine, &broker).await.map_err(looking) };
                until_stop(&engine, seen).await.map_err(|f| f.reason)
            }
            Err(fatal) => Err(fatal.reason),
        };
        let view = match looked {
            Ok(seen) => ClusterView::of(&seen, Some(me)),
            Err(why) => {
                let (present, about) = announce::now(&engine, engine.broker().as_ref());
                let why = format!("the other nodes cannot be seen: {why}");
                ClusterView::alone(me, present, about, why)
            }
        };
        Ok(result(serde_json::to_value(&view)))
    });
}

/// Everything that NATS knows, with what this node has to say now.
async fn seen(engine: &Engine, broker: &Broker) -> Result<Seen, LookError> {
    let replicas = engine.config.replication_log.replicas;
    let kv = broker.snapshots_bucket(replicas).await?;
    announce::say(engine, broker, &kv).await?;
    look::look(broker, replicas).await
}

/// `harmonylite streams`.
pub fn streams(engine: Weak<Engine>, reply: Reply) {
    run(reply, move |_| async move {
        let engine = alive(&engine)?;
        let broker = connected(&engine)?;
        let log = &engine.config.replication_log;
        let look = async {
            let looked = streams::look(&broker, log.shards, log.replicas).await;
            looked.map_err(looking)
        };
        let view = until_stop(&engine, look).await?;
        Ok(result(serde_json::to_value(&view)))
    });
}

/// `harmonylite ping`.
pub fn ping(engine: Weak<Engine>, arguments: PingArguments, reply: Reply) {
    run(reply, move |asked| async move {
        let engine = alive(&engine)?;
        let options = ping::Options {
            count: arguments.count,
            interval: Duration::from_millis(arguments.interval_ms).min(LONGEST),
            timeout: Duration::from_millis(arguments.timeout_ms).min(LONGEST),
        };
        let say = Box::new(telling(asked));
        let report = ping::ping(&engine, options, &*say).await.map_err(|e| {
            let code = match e {
                PingError::NotConnected => ExitCode::Unavailable,
                _ => ExitCode::TempFail,
            };
            Fatal::new(code, e)
        })?;
        Ok(result(serde_json::to_value(&report)))
    });
}

/// `harmonylite nodes forget`.
pub fn forget(engine: Weak<Engine>, arguments: ForgetArguments, reply: Reply) {
    run(reply, move |_| async move {
        let engine = alive(&engine)?;
        let broker = connected(&engine)?;
        let (node, me) = (NodeId(arguments.node), NodeId(engine.config.node_id));
        let replicas = engine.config.replication_log.replicas;
        let forget = async {
            let done = forget::forget(&broker, replicas, node, me, true).await;
            done.map_err(|e| Fatal::new(forgetting(&e), e))
        };
        let done = until_stop(&engine, forget).await?;
        let text = done.in_words(node);
        tracing::warn!("asked by an operator: {text}");
        Ok(Outcome::from(text))
    });
}

/// What the command's process ends with.
#[must_use]
pub const fn forgetting(error: &ForgetError) -> ExitCode {
    match error {
        ForgetError::Itself(_) | ForgetError::Unknown { .. } => ExitCode::Usage,
        ForgetError::Stream(StreamError::StreamMissing { .. }) => ExitCode::Unavailable,
        ForgetError::Living { .. }
        | ForgetError::Spoke { .. }
        | ForgetError::Stream(_)
        | ForgetError::Kv(_) => ExitCode::TempFail,
    }
}

/// `harmonylite leave`: first everything is published while the node goes on; only then it stops.
pub fn leave(engine: Weak<Engine>, arguments: LeaveArguments, leaving: EndRequest, reply: Reply) {
    tokio::spawn(async move {
        let asked = Arc::new(reply);
        let published = tokio::select! {
            done = publish_all(&engine, arguments, &asked) => done,
            () = asked.gone() => return,
        };
        let Ok(reply) = Arc::try_unwrap(asked) else {
            return;
        };
        match (published, engine.upgrade()) {
            (Ok(()), Some(engine)) => {
                reply.progress("everything is published; stopping");
                leaving.set_failure(Some(
                    "it was stopped before it had left: start it again, and let it leave"
                        .to_owned(),
                ));
                leaving.note(Some(reply));
                engine.shutdown.request("leave");
            }
            (Ok(()), None) => {}
            (Err(fatal), _) => {
                reply.done::<Outcome>(Err(Refusal::new(fatal.reason, fatal.code.number())));
            }
        }
    });
}

/// Until everything that the app has written is in the stream and back.
async fn publish_all(
    engine: &Weak<Engine>,
    arguments: LeaveArguments,
    asked: &Reply,
) -> Result<(), Fatal> {
    let timeout = Duration::from_millis(arguments.timeout_ms).min(LONGEST);
    let until = Instant::now() + timeout;
    let mut told = None;
    loop {
        let engine = alive(engine)?;
        if let Some(sentence) = engine.brakes.set().pause() {
            return Err(Fatal::new(
                ExitCode::TempFail,
                format!("this node does not leave with changes that no other node has: {sentence}"),
            ));
        }
        connected(&engine)?;
        let left = tokio::task::block_in_place(|| pending(&engine));
        if left == 0 {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(Fatal::new(
                ExitCode::TempFail,
                format!(
                    "this node has not left and goes on: {left} changes were not published within {timeout:?}; health says why, or the app writes all the time: stop it first"
                ),
            ));
        }
        if told != Some(left) {
            asked.progress(format!("{left} changes are still to be published"));
            told = Some(left);
        }
        drop(engine);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// This node's last words in the cluster.
pub async fn say_goodbye(
    engine: &Engine,
    broker: &Broker,
    cleanup: &EndRequest,
    leaving: &EndRequest,
) {
    let left = tokio::task::block_in_place(|| pending(engine));
    let end = match (cleanup.is_wanted(), leaving.is_wanted()) {
        (true, _) => End::Removed,
        (false, true) if left == 0 => End::Leaves,
        _ => End::Stops,
    };
    let said = if broker.is_connected() {
        announce::end(engine, broker, end)
            .await
            .map_err(|e| e.to_string())
    } else {
        Err("the connection to NATS is down".to_owned())
    };
    if let Err(error) = &said {
        tracing::debug!(error, "the end of this node could not be announced");
    }
    leaving.set_failure(match (end, said) {
        (End::Leaves, Ok(())) => None,
        (End::Leaves, Err(error)) => Some(format!("it has stopped and has not left ({error}): harmonylite nodes forget, on another node, does it")),
        _ => Some(format!("it has stopped and has not left: the app has written {left} changes that are not published; start it again, stop the app, and let it leave")),
    });
}

/// How leaving has gone.
pub fn left(leaving: &EndRequest) -> Result<String, Fatal> {
    match leaving.failure() {
        Some(why) => Err(Fatal::new(ExitCode::TempFail, why)),
        None => Ok(
            "this node has published everything and has left the cluster; a start brings it back"
                .to_owned(),
        ),
    }
}

/// Changes that have not come back from the stream. One that cannot be counted counts.
pub fn pending(engine: &Engine) -> u64 {
    let replica = engine.replica();
    let flying = u64::from(replica.batch_in_flight().is_some());
    replica.pending_changes().unwrap_or(1).max(flying)
}

fn connected(engine: &Engine) -> Result<Broker, Fatal> {
    let not = || {
        Fatal::new(
            ExitCode::Unavailable,
            "this node is not connected to NATS: its log and health say why",
        )
    };
    engine.broker().filter(Broker::is_connected).ok_or_else(not)
}

fn looking(error: LookError) -> Fatal {
    Fatal::new(ExitCode::TempFail, error)
}

/// What was asked for. Texts and numbers always have a JSON form.
fn result(json: Result<serde_json::Value, serde_json::Error>) -> Outcome {
    Outcome {
        message: String::new(),
        result: json.ok(),
    }
}
