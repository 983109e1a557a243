//! When a snapshot is taken, and by whom: a leader among the nodes that publish, and anybody who is asked.
//!
//! ```text
//!   leader ─▶ due? ─▶ taking ─▶ take, verify ─▶ note in KV ─▶ prune the store ─▶ trim the streams
//!   asked  ──────────▶ taking ─▶ …
//! ```
//!
//! Invariants: scheduled snapshots are the leader's, and who stands still is never leader; a failure changes nothing but a log line, a counter and when it is
//! tried again; only what [`Verified`] names, and what is in the store at that moment, is trimmed by.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::catalog::{Catalog, LEFT_OVER};
use super::desk::Ask;
use super::due::{Situation, due};
use super::manifest::Manifest;
use super::presence::{self, Living};
use super::tail;
use super::trim::{self, Known};
use super::verified::{Verified, age};
use super::watch::{self, Streams};
use crate::change::history::History;
use crate::change::position::{NodeId, Sequence};
use crate::engine::Engine;
use crate::history::mend::mend;
use crate::history::standing::{self, Standing};
use crate::http::status::Component;
use crate::runtime::Backoff;
use crate::stream::{Broker, Kv, Role};

/// How often it is looked whether anything is due.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// How often streams are trimmed where little can go.
const TRIM_EVERY: Duration = Duration::from_secs(300);

/// A stream is read through to be trimmed when this share of it can go.
const WORTH: u64 = 8;

/// Its name in health and in the log.
pub(super) const LOOP: &str = "snapshots";
/// A look asks store and broker, which may be slow.
const SLOW: Duration = Duration::from_secs(60);

/// The loop.
pub struct Schedule {
    pub(super) engine: Arc<Engine>,
    pub(super) broker: Broker,
    pub(super) catalog: Catalog,
    pub(super) kv: Kv,
    pub(super) leader: Role,
    pub(super) verified: Verified,
    /// The history that this life of the daemon is of.
    pub(super) history: History,
    /// The verified snapshot by which was last forgotten what was kept.
    forgotten: Option<String>,
    /// Newest in the store, as last listed.
    pub(super) newest: Option<Manifest>,
    pub(super) listed: Option<Instant>,
    reconnects: u64,
    trimmed: Option<Instant>,
    backoff: Backoff,
    not_before: Instant,
    /// While the last attempt has failed: the newest verified snapshot of that time.
    failed_at: Option<Option<String>>,
}

impl Schedule {
    /// A loop over these snapshots.
    #[must_use]
    pub fn new(engine: Arc<Engine>, broker: Broker, catalog: Catalog, kv: Kv) -> Self {
        let node = NodeId(engine.config.node_id);
        let leader = Role::new(
            kv.clone(),
            "leader",
            node,
            engine.config.snapshot.leader_ttl,
        );
        let history = engine.replica().history();
        Self {
            history,
            engine,
            broker,
            catalog,
            kv,
            leader,
            verified: Verified::default(),
            forgotten: None,
            newest: None,
            listed: None,
            reconnects: 0,
            trimmed: None,
            backoff: Backoff::new(Duration::from_secs(2), Duration::from_secs(300)),
            not_before: Instant::now(),
            failed_at: None,
        }
    }

    /// Runs until the daemon is asked to stop. The role is given back then.
    pub async fn run(mut self, mut asked: mpsc::Receiver<Ask>, scheduled: bool) {
        let shutdown = self.engine.shutdown.clone();
        loop {
            tokio::select! {
                () = shutdown.requested() => break,
                ask = asked.recv() => match ask {
                    Some(ask) => {
                        tokio::select! {
                            () = shutdown.requested() => break,
                            () = self.answer(ask) => {}
                        }
                    }
                    None => break,
                },
                () = tokio::time::sleep(LOOK.min(self.leader.renew_every())) => {
                    tokio::select! {
                        () = shutdown.requested() => break,
                        () = self.look(scheduled) => {}
                    }
                }
            }
        }
        self.engine.metrics.snapshot_leader.set(0);
        /// It expires by itself otherwise.
        const RELEASE: Duration = Duration::from_secs(1);
        let _ = tokio::time::timeout(RELEASE, self.leader.release()).await;
    }

    async fn look(&mut self, scheduled: bool) {
        let status = self.engine.status.clone();
        let _step = status.long_step(LOOP, "look", SLOW);
        self.tick(scheduled).await;
    }

    async fn tick(&mut self, scheduled: bool) {
        if let Ok((verified, _)) = Verified::read(&self.kv).await {
            self.verified = verified.of(self.history);
            self.forget_kept().await;
        }
        self.show_age();
        if !scheduled || !self.may_lead() {
            let _ = self.leader.release().await;
            self.engine.metrics.snapshot_leader.set(0);
            self.engine.status.recovered(Component::Snapshots);
            return;
        }
        let before = self.leader.is_held();
        match self.leader.hold().await {
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "the leader's lease could not be renewed"),
        }
        let held = self.leader.is_held();
        self.engine.metrics.snapshot_leader.set(i64::from(held));
        if held != before {
            if held {
                tracing::info!("this node takes the cluster's snapshots from now on");
                self.listed = None;
            } else {
                tracing::info!("another node takes the cluster's snapshots from now on");
            }
        }
        // What failed is the leader's to show, and over once anybody has taken one since. The role may have been lost within the work that failed.
        let newest = self.verified.0.first().map(|m| &m.file);
        if !held
            || self
                .failed_at
                .as_ref()
                .is_some_and(|at| at.as_ref() != newest)
        {
            self.failed_at = None;
            self.engine.status.recovered(Component::Snapshots);
        }
        if held && Instant::now() >= self.not_before {
            self.lead().await;
        }
    }

    /// What a verified snapshot covers need not be kept here: unless the stream has lost, without anybody having noticed, what the snapshot or this node has folded.
    /// Their positions are then of different lines.
    async fn forget_kept(&mut self) {
        let Some(newest) = self.verified.0.first() else {
            return;
        };
        if self.forgotten.as_ref() == Some(&newest.file) {
            return;
        }
        let mine = tokio::task::block_in_place(|| self.engine.replica().position());
        for position in [newest.position(), mine] {
            match standing::look(&self.broker, position).await {
                Ok(Standing::Holds | Standing::Trimmed(_)) => {}
                Ok(Standing::Broken(_)) | Err(_) => return,
            }
        }
        let covered = Sequence(newest.sequence);
        let done = tokio::task::block_in_place(|| self.engine.replica().covered_by(covered));
        match done {
            Ok(()) => self.forgotten = Some(newest.file.clone()),
            Err(error) => {
                tracing::warn!(%error, "what a snapshot covers could not be removed");
            }
        }
    }

    /// Who publishes and stands still for no reason.
    fn may_lead(&self) -> bool {
        let view = self.engine.status.view();
        self.engine.config.publish
            && self.engine.config.replicate
            && !self.engine.is_halted()
            && self.engine.brakes.set().pause().is_none()
            && self.engine.unsure_tables() == 0
            && view.apply_paused.is_none()
            && view.schema_paused.is_none()
            && self.broker.is_connected()
    }

    pub(super) fn show_age(&self) {
        let newest = self.verified.0.first();
        if let Some(newest) = newest {
            self.engine
                .metrics
                .snapshot_age
                .set(age(newest).as_secs_f64());
            self.engine
                .metrics
                .snapshot_size_bytes
                .set(i64::try_from(newest.size).unwrap_or(i64::MAX));
        }
    }

    async fn lead(&mut self) {
        if let Err(error) = self.try_lead().await {
            // Who has lost the lease, on a machine that is slow for a moment, may try again as soon as it has it anew: nothing else is wrong.
            if self.leader.is_held() {
                self.not_before = Instant::now() + self.backoff.next_wait();
            }
            if self.backoff.tries() <= 1 {
                tracing::warn!("{error}; trying again");
            } else {
                tracing::debug!("{error}; trying again");
            }
            if self.leader.is_held() {
                self.failed_at = Some(self.verified.0.first().map(|m| m.file.clone()));
                self.engine.status.failed(Component::Snapshots, error);
            }
        }
    }

    async fn try_lead(&mut self) -> Result<(), String> {
        /// The store is asked now and then: somebody may have removed what was there.
        const LIST_EVERY: Duration = Duration::from_secs(300);
        let reconnects = self.broker.reconnects();
        if std::mem::replace(&mut self.reconnects, reconnects) != reconnects {
            self.listed = None;
        }
        if self.listed.is_none_or(|at| at.elapsed() >= LIST_EVERY) {
            let usable = self.catalog.usable().await.map_err(|e| e.to_string())?;
            // One that nobody has verified, whoever uploaded it being gone, allows no trimming: it does not count, else nothing would ever be due in a full stream.
            self.newest = usable.into_iter().find(|m| self.verified.has(m));
            // Whoever has folded what it covers may be gone.
            let lost = standing::of_snapshot(&self.broker, self.newest.as_ref())
                .await
                .map_err(|e| e.to_string())?;
            if let Some(why) = lost {
                return mend(&self.engine, &self.broker, why).await;
            }
            if self.listed.is_none()
                && let Err(error) = self.catalog.store().sweep(LEFT_OVER).await
            {
                tracing::debug!(%error, "what cut-off uploads left could not be removed");
            }
            self.listed = Some(Instant::now());
        }
        let streams = Streams::look(&self.broker, self.engine.config.replication_log.shards)
            .await
            .map_err(|e| e.to_string())?;
        watch::show(&self.engine, &streams);
        let living = self.living().await?;
        let mut full = streams.are_tight(living.most_wanted());
        if full {
            full = !self.trim(&streams, &living, true).await?;
        }
        let (position, schema) = tokio::task::block_in_place(|| {
            let replica = self.engine.replica();
            (replica.position(), replica.captured().schema_hash())
        });
        let database = std::fs::metadata(&self.engine.config.db_path).map_or(0, |m| m.len());
        let covers = self.newest.as_ref().map(|m| Sequence(m.sequence));
        let heavy_tail = match covers.filter(|at| full && position.folded <= *at) {
            Some(at) => tail::is_heavy_at(&self.broker, at)
                .await
                .map_err(|e| e.to_string())?,
            None => false,
        };
        let situation = Situation {
            heavy_tail,
            newest: self.newest.as_ref().map(|m| (Sequence(m.sequence), age(m))),
            folded: position.folded,
            log: covers.map_or(0, |at| streams.bytes_behind(at)),
            database,
            full,
            schema_changed: self.newest.as_ref().is_some_and(|m| m.schema != schema),
            kept: living.keep_much(),
        };
        match due(&situation, self.engine.settings.now().snapshot.interval) {
            Some(reason) => self.take_scheduled(reason).await?,
            None if self.is_worth_trimming(&streams) => {
                self.trim(&streams, &living, false).await?;
            }
            None => {}
        }
        self.backoff.reset();
        self.failed_at = None;
        self.engine.status.recovered(Component::Snapshots);
        Ok(())
    }

    /// Whether a fair part of the order stream can go, or it is time to look.
    fn is_worth_trimming(&self, streams: &Streams) -> bool {
        let (Some(order), Some(covered)) = (streams.states.first(), self.verified.covered(false))
        else {
            return false;
        };
        let least = order.first.0 + order.messages / WORTH;
        let kept = Sequence(
            order
                .last
                .0
                .saturating_sub(self.engine.settings.now().replication_log.max_entries),
        );
        let by_count = covered.min(kept).0 >= least;
        let rested = self.trimmed.is_none_or(|at| at.elapsed() >= TRIM_EVERY);
        let soon = self.trimmed.is_none_or(|at| at.elapsed() >= LOOK * 5);
        (by_count && soon) || (rested && covered >= order.first)
    }

    pub(super) async fn living(&self) -> Result<Living, String> {
        let silent_after = self.engine.config.replication_log.silent_after;
        presence::living(&self.kv, &self.broker, silent_after)
            .await
            .map_err(|e| e.to_string())
    }

    /// Trims; whether there is room enough then.
    pub(super) async fn trim(
        &mut self,
        streams: &Streams,
        living: &Living,
        unblock: bool,
    ) -> Result<bool, String> {
        self.trimmed = Some(Instant::now());
        let Some(mut covered) = self.verified.covered(unblock) else {
            return Ok(!unblock);
        };
        if streams.states.first().is_some_and(|s| covered < s.first) && !unblock {
            return Ok(true);
        }
        // What is trimmed by must be in the store at this moment, as it was when it was verified, and be of the stream as it is now.
        let there = self.catalog.usable().await.map_err(|e| e.to_string())?;
        let good = |m: &&Manifest| {
            there
                .iter()
                .any(|t| t.file == m.file && t.sha256 == m.sha256)
        };
        let good: Vec<&Manifest> = self.verified.0.iter().filter(good).collect();
        let by = good.get(usize::from(!unblock)).copied();
        if let Some(why) = standing::of_snapshot(&self.broker, by)
            .await
            .map_err(|e| e.to_string())?
        {
            mend(&self.engine, &self.broker, why).await?;
            return Ok(false);
        }
        match by {
            Some(manifest) => covered = covered.min(Sequence(manifest.sequence)),
            None => return Ok(!unblock),
        }
        let publishers = tokio::task::block_in_place(|| self.engine.replica().publishers().clone());
        let config = &self.engine.settings.now().replication_log;
        let known = Known {
            publishers,
            living,
            history: self.history,
            covered,
            unblock,
        };
        let trimmed = trim::trim(&self.broker, config, &known)
            .await
            .map_err(|e| e.to_string())?;
        if trimmed.messages > 0 {
            self.engine.metrics.purged_messages.inc_by(trimmed.messages);
            self.engine.metrics.purged_bytes.inc_by(trimmed.bytes);
            tracing::info!(
                messages = trimmed.messages,
                bytes = trimmed.bytes,
                seq = covered.0,
                "the streams were trimmed"
            );
        }
        let streams = Streams::look(&self.broker, config.shards)
            .await
            .map_err(|e| e.to_string())?;
        watch::show(&self.engine, &streams);
        Ok(!streams.are_tight(living.most_wanted()))
    }
}
