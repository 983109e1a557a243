//! What the command line asks about positions and about the other nodes: each request in a task of its own, which ends when who asked has gone.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::Fatal;
use crate::change::position::NodeId;
use crate::cli::exit::ExitCode;
use crate::control::{Outcome, Refusal, Reply, VerifyArguments, WaitArguments};
use crate::engine::Engine;
use crate::verify::{self, Options, VerifyError};
use crate::wait::{self, Token, WaitError};

/// What a task works for: progress goes to who asked.
pub(super) type Asked = Arc<Reply>;

/// `harmonylite position`.
pub fn position(engine: Weak<Engine>, timeout: Duration, reply: Reply) {
    run(reply, move |_| async move {
        let engine = alive(&engine)?;
        let token = wait::committed(&engine, timeout).await.map_err(waiting)?;
        Ok(Outcome::from(token.to_string()))
    });
}

/// `harmonylite wait`.
pub fn wait(engine: Weak<Engine>, arguments: WaitArguments, reply: Reply) {
    let timeout = Duration::from_millis(arguments.timeout_ms);
    run(reply, move |asked: Asked| async move {
        let engine = alive(&engine)?;
        let message = match arguments.position {
            Some(position) => {
                let token: Token = position
                    .parse()
                    .map_err(|e| Fatal::new(ExitCode::Usage, e))?;
                let at = wait::reached(&engine, token, timeout)
                    .await
                    .map_err(waiting)?;
                format!("this node has folded position {token}, and is at {at}")
            }
            None => {
                let say = Box::new(telling(asked));
                let done = wait::everywhere(&engine, timeout, &*say)
                    .await
                    .map_err(waiting)?;
                done.to_string()
            }
        };
        Ok(Outcome::from(message))
    });
}

/// `harmonylite verify`.
pub fn verify(engine: Weak<Engine>, arguments: VerifyArguments, reply: Reply) {
    run(reply, move |asked: Asked| async move {
        let engine = alive(&engine)?;
        let options = Options {
            timeout: Duration::from_millis(arguments.timeout_ms),
            tables: arguments.tables,
            repair_from: arguments.repair_from.map(NodeId),
        };
        let say = Box::new(telling(asked));
        let report = verify::verify(&engine, &options, &*say)
            .await
            .map_err(comparing)?;
        Ok(Outcome {
            message: String::new(),
            // Structs of texts and numbers always have a JSON form.
            result: serde_json::to_value(&report).ok(),
        })
    });
}

/// Does it, and answers; gives it up when nobody waits for the answer any more.
pub(super) fn run<F, W>(reply: Reply, work: F)
where
    F: FnOnce(Asked) -> W + Send + 'static,
    W: Future<Output = Result<Outcome, Fatal>> + Send,
{
    tokio::spawn(async move {
        let asked = Arc::new(reply);
        let done = tokio::select! {
            done = work(Arc::clone(&asked)) => done,
            () = asked.gone() => return,
        };
        // The work has ended, and with it all that told of its progress.
        if let Ok(reply) = Arc::try_unwrap(asked) {
            reply.done(done.map_err(|f| Refusal::new(f.reason, f.code.number())));
        }
    });
}

/// Tells progress; the same again only now and then, so that who asked knows that we live.
pub(super) fn telling(asked: Asked) -> impl Fn(String) + Send + Sync {
    const AGAIN: Duration = Duration::from_secs(10);
    let said: Mutex<Option<(String, Instant)>> = Mutex::default();
    move |text| {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        let known = said
            .as_ref()
            .is_some_and(|(before, at)| *before == text && at.elapsed() < AGAIN);
        if !known {
            asked.progress(text.clone());
            *said = Some((text, Instant::now()));
        }
    }
}

pub(super) fn alive(engine: &Weak<Engine>) -> Result<Arc<Engine>, Fatal> {
    engine.upgrade().ok_or_else(|| waiting(WaitError::Stopping))
}

fn waiting(error: WaitError) -> Fatal {
    let code = match &error {
        e if e.is_bad_request() => ExitCode::Usage,
        WaitError::NotConnected => ExitCode::Unavailable,
        WaitError::Sqlite(_) => ExitCode::Failed,
        _ => ExitCode::TempFail,
    };
    Fatal::new(code, error)
}

fn comparing(error: VerifyError) -> Fatal {
    let code = match &error {
        VerifyError::UnknownSource { .. } => ExitCode::Usage,
        VerifyError::NotConnected => ExitCode::Unavailable,
        VerifyError::NotResent { .. } => ExitCode::Failed,
        _ => ExitCode::TempFail,
    };
    Fatal::new(code, error)
}
