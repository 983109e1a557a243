//! What is measured beside the loops, every second: lag, whether the stream is read, what is pending, room on the disk; and the verdict, for metrics.
//!
//! Invariants: no loop is asked, so what stands still is seen although it says nothing; the half that may wait (for the database's lock, for a file system) runs in a
//! thread of its own, so that lag and health are current meanwhile; a scrape reads what stands here.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;

use super::Fatal;
use super::ending::join;
use super::start::thread;
use crate::change::position::{Sequence, ShardId};
use crate::cluster::way::Reading;
use crate::engine::Engine;
use crate::http::status::{Component, Disk, State, judge};
use crate::replica::measured::Measured;
use crate::runtime::Shutdown;
use crate::snapshot::watch::STALLED;
use crate::stream::ReaderSnapshot;

/// How often.
const EVERY: Duration = Duration::from_secs(1);

/// Both halves, until they are ended.
pub struct Measuring {
    engine: Arc<Engine>,
    end: Shutdown,
    streams: tokio::task::JoinHandle<()>,
    database: JoinHandle<()>,
}

impl Measuring {
    /// Begins.
    pub fn begin(engine: &Arc<Engine>) -> Result<Self, Fatal> {
        let end = Shutdown::new();
        let limit = engine.config.health_check.min_free_bytes;
        // Troubles of a life before say nothing of this one; what lasts is met again.
        for component in [Component::Apply, Component::Database, Component::Broker] {
            engine.status.recovered(component);
        }
        engine
            .metrics
            .disk_limit_bytes
            .set(i64::try_from(limit).unwrap_or(i64::MAX));
        let database = thread("measure", {
            let (engine, end) = (Arc::clone(engine), end.clone());
            move || look_at_database(&engine, &end)
        })?;
        let streams = tokio::spawn(look_at_streams(Arc::clone(engine)));
        Ok(Self {
            engine: Arc::clone(engine),
            end,
            streams,
            database,
        })
    }

    /// Ends both; nobody holds the engine for them any more.
    pub async fn end(self) {
        self.end.request("end");
        self.streams.abort();
        let _ = self.streams.await;
        join(self.database).await;
        // What was measured of this life says nothing until there is another, which may take long.
        self.engine.status.clear_measured();
        show_verdict(&self.engine);
    }
}

async fn look_at_streams(engine: Arc<Engine>) {
    let mut counted = Counted::default();
    let mut behind: Option<Instant> = None;
    loop {
        let reading = match engine.way.reading() {
            Reading::With(health) => {
                let snapshot = health.snapshot();
                counted.count(&engine, Arc::as_ptr(&health) as usize, &snapshot);
                engine.way.reaches(ShardId::ORDER, snapshot.stream_last);
                let end = engine.way.end().unwrap_or_default();
                Some(stalled(&snapshot, end))
            }
            Reading::Looking(since) => Some((since.elapsed() >= STALLED).then(|| {
                format!(
                    "the stream could not be looked at for {} s, and nothing is read",
                    since.elapsed().as_secs()
                )
            })),
            // For a reason that is shown, which is not that the stream or its consumer would bring nothing.
            Reading::Not => None,
        };
        match reading {
            Some(sentence) => engine.status.set_consumer(ShardId::ORDER, sentence),
            None => engine.status.set_unread(ShardId::ORDER),
        }
        show_lag(&engine, &mut behind);
        show_verdict(&engine);
        tokio::time::sleep(EVERY).await;
    }
}

/// Why a reader that waits for messages gets none, if it should have got some or at least a sign of life.
fn stalled(reader: &ReaderSnapshot, last: Sequence) -> Option<String> {
    let seconds = reader.waiting.as_secs();
    if reader.waiting < STALLED {
        return None;
    }
    if let Some(trouble) = &reader.trouble {
        return Some(format!(
            "nothing was read from the stream for {seconds} s: {trouble}"
        ));
    }
    let behind = last.0.saturating_sub(reader.delivered.0);
    if behind > 0 {
        return Some(format!(
            "the stream holds {behind} messages that its consumer has not brought for {seconds} s"
        ));
    }
    (reader.silent >= STALLED).then(|| {
        format!(
            "the consumer of the stream gives no sign of life for {} s",
            reader.silent.as_secs()
        )
    })
}

/// What was counted of a reader: each has counts of its own.
#[derive(Debug, Default)]
struct Counted {
    reader: Option<usize>,
    recreations: u64,
    stalls: u64,
}

impl Counted {
    fn count(&mut self, engine: &Engine, reader: usize, now: &ReaderSnapshot) {
        if self.reader != Some(reader) {
            // Another reader has another consumer.
            let another = u64::from(self.reader.is_some());
            engine.metrics.consumer_recreations.inc_by(another);
            *self = Self {
                reader: Some(reader),
                ..Self::default()
            };
        }
        let m = &engine.metrics;
        m.consumer_recreations
            .inc_by(now.recreations.saturating_sub(self.recreations));
        m.consumer_stalls
            .inc_by(now.stalls.saturating_sub(self.stalls));
        (self.recreations, self.stalls) = (now.recreations, now.stalls);
    }
}

/// How far this node is, and how far behind.
fn show_lag(engine: &Engine, behind: &mut Option<Instant>) {
    let m = &engine.metrics;
    let position = *engine.folded().borrow();
    m.position.set(ShardId::ORDER, position.0);
    let ends = engine.way.ends();
    for (shard, end) in &ends {
        m.stream_last.set(ShardId(*shard), end.0);
    }
    let Some(end) = ends
        .get(&ShardId::ORDER.0)
        .filter(|_| engine.config.replicate)
    else {
        return engine.status.set_lag(None);
    };
    let lag = end.0.saturating_sub(position.0);
    m.lag_messages.set(ShardId::ORDER, lag);
    engine.status.set_lag(Some(lag));
    if lag == 0 {
        *behind = None;
    }
    let since = behind.get_or_insert_with(Instant::now);
    let waits = match lag {
        0 => Duration::ZERO,
        _ => engine
            .way
            .timeline
            .waits(position)
            .unwrap_or_else(|| since.elapsed()),
    };
    m.lag_seconds.set(ShardId::ORDER, waits);
    let offsets = engine.way.offsets();
    for (shard, end) in ends.iter().filter(|(shard, _)| **shard != ShardId::ORDER.0) {
        let at = offsets.get(shard).copied();
        if let Some(at) = at {
            m.position.set(ShardId(*shard), at);
        }
        // What no record names yet, or ever will, is not lacking.
        let lacks = match at {
            _ if lag == 0 => 0,
            Some(at) => end.0.saturating_sub(at),
            None => continue,
        };
        m.lag_messages.set(ShardId(*shard), lacks);
        // Payload is seen with the record that names it, so it waits for as long as the first of those.
        let waits = if lacks == 0 { Duration::ZERO } else { waits };
        m.lag_seconds.set(ShardId(*shard), waits);
    }
}

fn show_verdict(engine: &Engine) {
    let view = engine.status.view();
    let verdict = judge(&view);
    let limit = engine.config.health_check.ready_lag_messages;
    let ready = verdict.not_ready(&view, limit).is_empty();
    let m = &engine.metrics;
    m.healthy.set(i64::from(verdict.is_healthy()));
    m.ready.set(i64::from(ready));
    for (name, condition) in &verdict.components {
        let state = match condition.state {
            State::Off | State::Ok => 0,
            State::Warning => 1,
            State::Failing => 2,
        };
        m.component_state.set(name, state);
    }
    for (of, silence) in &view.loops {
        m.loop_silence.set(of.name(), silence.as_secs_f64());
    }
}

fn look_at_database(engine: &Engine, end: &Shutdown) {
    let path = &engine.config.db_path;
    let file = || {
        std::fs::metadata(path)
            .ok()
            .map(|meta| (meta.dev(), meta.ino()))
    };
    let opened = file();
    let begun = Instant::now();
    loop {
        show_disk(engine);
        let counting = Instant::now();
        // By the database's own word of what was committed: people purge, and other programs may write to our tables.
        let found = engine.replica().measure();
        let m = &engine.metrics;
        m.count_changes.observe(counting.elapsed().as_secs_f64());
        let error = match (&found, file() == opened) {
            (_, false) => Some(format!(
                "{} is not the file any more that this daemon has open: something has removed or replaced it; stop the daemon, put the right file in place and start it again",
                path.display()
            )),
            (Err(error), true) => Some(error.to_string()),
            (Ok(_), true) => None,
        };
        engine.status.set_database_error(error);
        if let Ok(Measured {
            pending,
            dead_letters,
        }) = found
        {
            engine.set_dead_letters(dead_letters);
            m.pending_publish
                .set(i64::try_from(pending).unwrap_or(i64::MAX));
            engine.status.set_pending(pending);
            if pending == 0 {
                engine.way.set_settled(counting);
            }
            let settled = engine.way.settled().unwrap_or(begun);
            let noticed = engine.way.unconfirmed_since().unwrap_or(settled);
            let since = noticed.max(settled);
            let age = if pending == 0 {
                Duration::ZERO
            } else {
                since.elapsed()
            };
            m.pending_age_seconds.set(age.as_secs_f64());
        }
        if end.wait_timeout(EVERY) {
            return;
        }
    }
}

fn show_disk(engine: &Engine) {
    let free = statvfs(engine.config.folder())
        .ok()
        .map(|s| s.blocks_available().saturating_mul(s.fragment_size()));
    engine.status.set_disk(free.map(|free| Disk {
        free,
        limit: engine.config.health_check.min_free_bytes,
    }));
    if let Some(free) = free {
        engine
            .metrics
            .disk_free_bytes
            .set(i64::try_from(free).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_in_vain_is_told_from_who_has_nothing_to_read() {
        let reader = |waiting: u64, silent: u64| ReaderSnapshot {
            delivered: Sequence(10),
            stream_last: Sequence(10),
            behind: 0,
            recreations: 0,
            stalls: 0,
            since_progress: Duration::from_secs(waiting),
            waiting: Duration::from_secs(waiting),
            silent: Duration::from_secs(silent),
            trouble: None,
        };
        // An idle stream, and a busy loop that takes nothing for long.
        let stalled = |reader: &ReaderSnapshot, last: u64| stalled(reader, Sequence(last));
        assert_eq!(stalled(&reader(1000, 1), 10), None);
        assert_eq!(stalled(&reader(0, 1000), 500), None);
        assert_eq!(stalled(&reader(1, 1000), 500), None);
        assert!(stalled(&reader(7, 1), 12).unwrap().contains("2 messages"));
        assert!(
            stalled(&reader(9, 8), 10)
                .unwrap()
                .contains("no sign of life")
        );
        let trouble = ReaderSnapshot {
            trouble: Some("no such stream".to_owned()),
            ..reader(9, 1)
        };
        assert!(stalled(&trouble, 10).unwrap().contains("no such stream"));
    }
}
