//! `pause`, `resume` and `limit`, asked over the control socket.

use std::num::NonZeroU64;
use std::sync::Weak;

use super::Fatal;
use crate::brakes::{Part, Set};
use crate::cli::exit::ExitCode;
use crate::control::cluster::BrakeArguments;
use crate::control::{Refusal, Reply};
use crate::engine::Engine;
use crate::runtime::moment;

/// Sets a brake and answers. Writes one small file.
pub fn brake(engine: &Weak<Engine>, arguments: BrakeArguments, reply: Reply) {
    let Some(engine) = engine.upgrade() else {
        return;
    };
    let done = tokio::task::block_in_place(|| set(&engine, arguments));
    if let Ok(text) = &done {
        tracing::warn!("asked by an operator: {text}");
    }
    reply.done(done.map_err(|f| Refusal::new(f.reason, f.code.number())));
}

fn set(engine: &Engine, arguments: BrakeArguments) -> Result<String, Fatal> {
    // An end that is under way, a cleanup's above all, was promised by what was set before.
    if engine.shutdown.is_requested() {
        return Err(Fatal::new(
            ExitCode::TempFail,
            "the daemon is stopping: try again when it runs",
        ));
    }
    let part = arguments.part;
    let (on, key) = match part {
        Part::Publish => (engine.config.publish, "publish"),
        Part::Apply => (engine.config.replicate, "replicate"),
    };
    if !on {
        return Err(Fatal::new(
            ExitCode::Config,
            format!("this node does not do that at all ({key} = false in its configuration)"),
        ));
    }
    let before = engine.brakes.set();
    let set = engine
        .brakes
        .change(part, |brake| {
            match arguments.paused {
                // Who pauses twice keeps the first time.
                Some(true) if brake.paused_since.is_none() => {
                    brake.paused_since = Some(moment::now());
                }
                Some(false) => brake.paused_since = None,
                Some(true) | None => {}
            }
            if let Some(rows) = arguments.rows_per_second {
                brake.rows_per_second = NonZeroU64::new(rows);
            }
        })
        .map_err(|e| Fatal::new(ExitCode::Io, e))?;
    engine.show_brakes();
    Ok(told(part, &arguments, &before, &set, pending(engine, part)))
}

/// What waits by now, in words.
fn pending(engine: &Engine, part: Part) -> String {
    match part {
        Part::Publish => format!(
            "changes wait in the database ({} now)",
            engine.replica().pending_changes().unwrap_or_default()
        ),
        Part::Apply => format!(
            "changes of other nodes wait in the stream behind position {}, and own ones count as pending; once 256 batches or 8 MiB of them are on their way, further ones wait in the database",
            engine.replica().position().sequence
        ),
    }
}

fn told(
    part: Part,
    arguments: &BrakeArguments,
    before: &Set,
    set: &Set,
    waiting: String,
) -> String {
    let doing = part.doing();
    let was = before.of(part).paused_since.is_some();
    match (arguments.paused, set.of(part).rows_per_second) {
        (Some(true), _) if was => format!("{doing} is paused already"),
        (Some(true), _) => format!(
            "{doing} is paused: {waiting}; harmonylite resume {} ends that",
            part.word()
        ),
        (Some(false), _) if was => format!("{doing} goes on"),
        (Some(false), _) => format!("{doing} was not paused"),
        (None, Some(rows)) => format!("{doing} is limited to {rows} rows a second on average"),
        (None, None) => format!("{doing} has no limit"),
    }
}
