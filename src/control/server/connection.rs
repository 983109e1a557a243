//! One connection: check who it is, read one request, pass answers on.
//!
//! Invariant: every read and write has a deadline; a client that goes away gives its place back.

use std::io;
use std::time::Duration;

use nix::unistd::{Uid, geteuid};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::reply::Answers;
use super::{Handler, Reply};
use crate::control::protocol::{self, Answer, LINE, Outcome, Refusal, Request};

/// How long a client may take for its request. Ours sends it at once.
const READ: Duration = Duration::from_secs(10);
/// How long a client may take to read one line of the answer.
const WRITE: Duration = Duration::from_secs(10);
/// How long a connection that is turned away may take to read why; its buffer is empty, so it takes none.
const REFUSE: Duration = Duration::from_millis(100);
/// How often a silent connection is looked at, for a client that has gone.
const LOOK: Duration = Duration::from_secs(1);
/// How long a request under way may still be answered when the server ends.
pub(super) const GRACE: Duration = Duration::from_secs(1);
/// `sysexits.h`: try again later.
const TRY_AGAIN: u8 = 75;
/// `sysexits.h`: the request is wrong.
const USAGE: u8 = 64;
/// `sysexits.h`: not allowed.
const NO_PERMISSION: u8 = 77;

/// Serves one connection to its end.
pub(super) async fn serve(stream: UnixStream, handler: Handler, mut stop: watch::Receiver<bool>) {
    let allowed = stream.peer_cred().map(|peer| (peer.uid(), peer.pid()));
    let (reading, mut writing) = stream.into_split();
    let request = match allowed {
        Ok((uid, pid)) if is_allowed(Uid::from_raw(uid), geteuid()) => {
            let line = tokio::select! {
                line = timeout(READ, read_line(reading)) => line,
                () = ending(&mut stop) => return,
            };
            match line {
                // It said nothing and went.
                Ok(Ok(Some(line))) if line.is_empty() => return,
                Ok(Ok(Some(line))) => Request::decode(&line).inspect(|request| {
                    tracing::info!(
                        command = request.name(),
                        uid,
                        pid,
                        "asked over the control socket"
                    );
                }),
                Ok(Ok(None)) => Err(Refusal::new(
                    format!("the request is longer than {LINE} bytes; send one short line"),
                    USAGE,
                )),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a control connection broke");
                    return;
                }
                Err(_) => Err(Refusal::new(
                    "no request came in time; send one line and its newline",
                    USAGE,
                )),
            }
        }
        _ => Err(Refusal::new(
            "this user may not control the daemon; run as its user, or as root",
            NO_PERMISSION,
        )),
    };
    let sent = match request {
        Ok(request) => {
            let (reply, answers) = Reply::channel();
            // A task of its own: if the handler fails, its reply is dropped and says so here.
            tokio::spawn(async move { handler(request, reply) });
            pass_on(answers, &mut writing, stop).await
        }
        Err(refusal) => send(&mut writing, Answer::Done(Err(refusal))).await,
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "a control client did not take its answer");
    }
}

/// Turns a connection away that is one too many.
pub(super) async fn refuse_busy(mut stream: UnixStream) {
    let refusal = Refusal::new(
        "too many requests at once; try again in a moment",
        TRY_AGAIN,
    );
    let line = Answer::Done(Err(refusal)).encode();
    // A client that does not take it sees the connection end.
    let _ = timeout(REFUSE, stream.write_all(&line)).await;
}

/// The daemon's own user and root: who could read the database or end the daemon anyway.
fn is_allowed(peer: Uid, own: Uid) -> bool {
    peer.is_root() || peer == own
}

/// Ends when the server does, also when it was only dropped.
pub(super) async fn ending(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The first line, or what came before the end; `None` when it is too long.
async fn read_line(reading: OwnedReadHalf) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    // Small: a request is a few dozen bytes.
    let mut limited = BufReader::with_capacity(512, reading).take(LINE as u64);
    limited.read_until(b'\n', &mut line).await?;
    let whole = line.ends_with(b"\n") || line.len() < LINE;
    Ok(whole.then_some(line))
}

/// Sends what the handler says until it is done, the client has gone, or the server's end leaves no more time.
async fn pass_on(
    mut answers: Answers,
    writing: &mut OwnedWriteHalf,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut end = None;
    let last = loop {
        tokio::select! {
            biased;
            Some(text) = answers.progress.recv() => {
                send(writing, Answer::Progress(text)).await?;
            }
            result = &mut answers.done => {
                // What was said before the answer goes before it.
                while let Ok(text) = answers.progress.try_recv() {
                    send(writing, Answer::Progress(text)).await?;
                }
                break result.ok();
            }
            _ = look.tick() => {
                // A client that only closed its sending side still waits.
                if writing.ready(Interest::WRITABLE).await?.is_write_closed() {
                    return Ok(());
                }
            }
            () = ending(&mut stop), if end.is_none() => end = Some(Instant::now() + GRACE),
            () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => break None,
        }
    };
    let result = last.unwrap_or_else(|| {
        Err(Refusal::new(
            "the daemon ended before the request was done; its log says why",
            TRY_AGAIN,
        ))
    });
    if let Ok(Outcome {
        result: Some(result),
        ..
    }) = &result
    {
        for part in protocol::parts(result) {
            send(writing, part).await?;
        }
    }
    send(writing, Answer::Done(result.map(|outcome| outcome.message))).await
}

async fn send(writing: &mut OwnedWriteHalf, answer: Answer) -> io::Result<()> {
    timeout(WRITE, writing.write_all(&answer.encode()))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_user_and_root_are_allowed() {
        let user = Uid::from_raw(1000);
        assert!(is_allowed(user, user));
        assert!(is_allowed(Uid::from_raw(0), user));
        assert!(!is_allowed(Uid::from_raw(1001), user));
        assert!(!is_allowed(user, Uid::from_raw(0)));
    }
}
