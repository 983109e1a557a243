//! What the loops say about themselves, and the one rule that calls it healthy or not.
//!
//! Invariants: loops only write, readers only read, and both hold the lock for a copy of a few words; the verdict
//! is a pure function of one [`View`]. A node that does not receive is never called healthy.

mod steps;
mod verdict;
mod view;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::brakes::Set;
use crate::change::position::{NodeId, ShardId};
use crate::telemetry::logging::LastError;

pub use steps::{At, SLOW, SlowStep, Step};
pub use verdict::{Condition, STALL, State, Verdict, judge};
pub use view::{Component, Disk, Loop, Partition, Trouble, View};

/// The shared value that the loops write; clones share it.
#[derive(Debug, Clone)]
pub struct Status(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    born: Instant,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    view: View,
    progress: BTreeMap<Loop, Instant>,
    steps: BTreeMap<&'static str, steps::Under>,
    /// How many pieces of work are under way that loops rightly wait for.
    long_works: usize,
}

impl Now {
    /// How long each running loop has been silent without a reason.
    fn silences(&self) -> BTreeMap<Loop, Duration> {
        let silence = |last: &Instant| match self.long_works {
            0 => last.elapsed(),
            _ => Duration::ZERO,
        };
        self.progress
            .iter()
            .map(|(name, last)| (*name, silence(last)))
            .collect()
    }
}

/// Work that takes as long as it takes, and that loops wait for: while it lives, their silence is no standstill.
#[derive(Debug)]
pub struct LongWork(Status);

impl Drop for LongWork {
    fn drop(&mut self) {
        let mut now = self.0.lock();
        now.long_works = now.long_works.saturating_sub(1);
        // They have only just been able to go on.
        for last in now.progress.values_mut() {
            *last = Instant::now();
        }
    }
}

impl Status {
    /// A node that is starting.
    #[must_use]
    pub fn new(node_id: NodeId, publish: bool, replicate: bool) -> Self {
        let view = View {
            node_id,
            publish,
            replicate,
            uptime: Duration::ZERO,
            started: false,
            stopping: false,
            db_connected: false,
            nats_connected: false,
            cdc_installed: false,
            tables_tracked: 0,
            pending: 0,
            last_published: None,
            last_replicated: None,
            schema_hash: String::new(),
            schema_previous_hash: String::new(),
            schema_paused: None,
            schema_paused_since: None,
            apply_paused: None,
            brakes: Set::default(),
            partition: None,
            snapshots: true,
            lag_messages: None,
            consumers: BTreeMap::new(),
            disk: None,
            database_error: None,
            unsure: None,
            triggers: None,
            dead_letters: 0,
            troubles: BTreeMap::new(),
            loops: BTreeMap::new(),
            at: BTreeMap::new(),
            logged: (0, 0),
            last_error: None,
        };
        Self(Arc::new(Shared {
            born: Instant::now(),
            now: Mutex::new(Now {
                view,
                progress: BTreeMap::new(),
                steps: BTreeMap::new(),
                long_works: 0,
            }),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.0.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The start has come to its end.
    pub fn set_started(&self) {
        self.lock().view.started = true;
    }

    /// Stopping was requested: probes see the node leave.
    pub fn set_stopping(&self) {
        self.lock().view.stopping = true;
    }

    /// Whether the database is open and answers.
    pub fn set_db_connected(&self, connected: bool) {
        self.lock().view.db_connected = connected;
    }

    /// Whether the broker is connected.
    pub fn set_nats_connected(&self, connected: bool) {
        self.lock().view.nats_connected = connected;
    }

    /// Whether capture is in place, and on how many tables.
    pub fn set_capture(&self, installed: bool, tables: u64) {
        let mut now = self.lock();
        now.view.cdc_installed = installed;
        now.view.tables_tracked = tables;
    }

    /// Change-log rows that no echo has confirmed yet.
    pub fn set_pending(&self, rows: u64) {
        self.lock().view.pending = rows;
    }

    /// A batch was acknowledged just now.
    pub fn published(&self) {
        self.lock().view.last_published = Some(SystemTime::now());
    }

    /// Another node's batch was applied just now.
    pub fn replicated(&self) {
        self.lock().view.last_replicated = Some(SystemTime::now());
    }

    /// The schema's hash; a changed one moves the old into `previous_hash`.
    pub fn set_schema(&self, hash: &str) {
        let mut now = self.lock();
        if now.view.schema_hash != hash {
            let previous = std::mem::replace(&mut now.view.schema_hash, hash.to_owned());
            if !previous.is_empty() {
                now.view.schema_previous_hash = previous;
            }
        }
    }

    /// The schema's hash of before this daemon began, where the schema has not changed since.
    pub fn set_schema_before(&self, hash: &str) {
        let mut now = self.lock();
        if now.view.schema_previous_hash.is_empty() {
            hash.clone_into(&mut now.view.schema_previous_hash);
        }
    }

    /// Which table or column is lacking here, while that pauses applying; `None`: it no longer does.
    pub fn set_schema_paused(&self, lacking: Option<String>) {
        let mut now = self.lock();
        now.view.schema_paused_since = lacking
            .as_ref()
            .map(|_| now.view.schema_paused_since.unwrap_or_else(SystemTime::now));
        now.view.schema_paused = lacking;
    }

    /// What pauses applying for any other reason; `None`: it no longer does.
    pub fn set_apply_paused(&self, reason: Option<String>) {
        self.lock().view.apply_paused = reason;
    }

    /// What is seen of a partition.
    pub fn set_partition(&self, seen: Option<Partition>) {
        self.lock().view.partition = seen;
    }

    /// Whether snapshots are enabled.
    pub fn set_snapshots(&self, enabled: bool) {
        self.lock().view.snapshots = enabled;
    }

    /// Messages of the order stream that are not applied here; `None`: not known.
    pub fn set_lag(&self, messages: Option<u64>) {
        self.lock().view.lag_messages = messages;
    }

    /// Why nothing can be read from a shard's stream; `None`: it can.
    pub fn set_consumer(&self, shard: ShardId, sentence: Option<String>) {
        self.lock().view.consumers.insert(shard.0, sentence);
    }

    /// Nobody reads from a shard's stream now, or looks at it: what was said of that is of the past.
    pub fn set_unread(&self, shard: ShardId) {
        if let Some(sentence) = self.lock().view.consumers.get_mut(&shard.0) {
            *sentence = None;
        }
    }

    /// Nothing is measured any more.
    pub fn clear_measured(&self) {
        let mut now = self.lock();
        now.view
            .consumers
            .values_mut()
            .for_each(|said| *said = None);
        now.view.lag_messages = None;
        now.view.database_error = None;
    }

    /// Room in the file system of the database; `None`: not known.
    pub fn set_disk(&self, disk: Option<Disk>) {
        self.lock().view.disk = disk;
    }

    /// Why the database cannot be read; `None`: it can.
    pub fn set_database_error(&self, error: Option<String>) {
        self.lock().view.database_error = error;
    }

    /// What an operator holds back.
    pub fn set_brakes(&self, brakes: Set) {
        self.lock().view.brakes = brakes;
    }

    /// Tables whose rows may have been written without capture; `None`: all are certain.
    pub fn set_unsure(&self, sentence: Option<String>) {
        self.lock().view.unsure = sentence;
    }

    /// Triggers of the app that fail for what other nodes have changed; `None`: none does.
    pub fn set_triggers(&self, sentence: Option<String>) {
        self.lock().view.triggers = sentence;
    }

    /// Entries in the dead-letter journal.
    pub fn set_dead_letters(&self, entries: u64) {
        self.lock().view.dead_letters = entries;
    }

    /// How many errors and warnings were logged since the start, and the last error.
    pub fn set_logged(&self, counts: (u64, u64), last_error: Option<LastError>) {
        let mut now = self.lock();
        now.view.logged = counts;
        now.view.last_error = last_error;
    }

    /// A component is in trouble; `error` is a sentence without secrets. Whatever is said of it later, the trouble is as old as it is: two errors that take
    /// turns last too.
    pub fn failed(&self, component: Component, error: impl std::fmt::Display) {
        let error = error.to_string();
        let mut now = self.lock();
        let troubles = &mut now.view.troubles;
        let since = troubles
            .get(&component)
            .map_or_else(SystemTime::now, |known| known.since);
        troubles.insert(component, Trouble { error, since });
    }

    /// A component works again.
    pub fn recovered(&self, component: Component) {
        self.lock().view.troubles.remove(&component);
    }

    /// A loop runs and has just gone round, with or without something to do. Loops call it at least every few
    /// seconds, also within long work; [`STALL`] says from when silence is a standstill.
    pub fn progress(&self, of: Loop) {
        self.lock().progress.insert(of, Instant::now());
    }

    /// A loop has ended on purpose; its silence means nothing any more.
    pub fn ended(&self, of: Loop) {
        self.lock().progress.remove(&of);
    }

    /// Whether no running loop stands still: what feeds the service manager's watchdog.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let silences = self.lock().silences();
        silences.values().all(|silence| *silence < STALL)
    }

    /// Long work begins that loops wait for (a restore holds the database); it ends when the value is dropped.
    #[must_use]
    pub fn long_work(&self) -> LongWork {
        self.lock().long_works += 1;
        LongWork(self.clone())
    }

    /// A copy of everything at this moment.
    #[must_use]
    pub fn view(&self) -> View {
        let now = self.lock();
        let mut view = now.view.clone();
        view.uptime = self.0.born.elapsed();
        view.loops = now.silences();
        view.at = steps::at(&now.steps);
        view
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_before_is_kept_and_the_same_one_again_changes_nothing() {
        let status = Status::new(NodeId(1), true, true);
        status.set_schema("a");
        assert_eq!(status.view().schema_previous_hash, "");
        status.set_schema("a");
        status.set_schema("b");
        status.set_schema("b");
        let view = status.view();
        assert_eq!(
            (
                view.schema_hash.as_str(),
                view.schema_previous_hash.as_str()
            ),
            ("b", "a")
        );
    }

    #[test]
    fn a_trouble_keeps_its_first_time_until_it_ends_whatever_is_said_of_it() {
        let status = Status::new(NodeId(1), true, true);
        status.failed(Component::Broker, "refused");
        let long_ago = SystemTime::now() - STALL;
        let mut now = status.lock();
        now.view
            .troubles
            .entry(Component::Broker)
            .and_modify(|t| t.since = long_ago);
        drop(now);
        for error in ["refused", "timed out", "refused"] {
            status.failed(Component::Broker, error);
            let trouble = status.view().troubles[&Component::Broker].clone();
            assert_eq!((trouble.error.as_str(), trouble.since), (error, long_ago));
        }
        status.recovered(Component::Broker);
        assert!(status.view().troubles.is_empty());
    }

    #[test]
    fn only_running_loops_are_watched() {
        let status = Status::new(NodeId(1), true, true);
        assert!(status.is_alive() && status.view().loops.is_empty());
        status.progress(Loop::Publish);
        status.progress(Loop::Consume);
        status.ended(Loop::Publish);
        let view = status.view();
        assert_eq!(view.loops.keys().collect::<Vec<_>>(), [&Loop::Consume]);
    }

    #[test]
    fn loops_that_wait_for_long_work_do_not_stand_still() {
        let status = Status::new(NodeId(1), true, true);
        let long_ago = Instant::now().checked_sub(STALL * 2).unwrap();
        status.lock().progress.insert(Loop::Publish, long_ago);
        assert!(!status.is_alive());
        let work = status.long_work();
        assert!(status.is_alive());
        assert_eq!(status.view().loops[&Loop::Publish], Duration::ZERO);
        drop(work);
        assert!(status.is_alive());
        status.lock().progress.insert(Loop::Publish, long_ago);
        assert!(!status.is_alive());
    }
}
