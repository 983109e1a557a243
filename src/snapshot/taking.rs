//! Taking one snapshot with the right to it, for the schedule or for somebody who has asked.
//!
//! Invariant: one taking at a time in the cluster; who loses the right to it ends at once, and a scheduled one ends with the leadership.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::desk::{Ask, Saved};
use super::due::Reason;
use super::manifest::Manifest;
use super::schedule::{LOOK, LOOP, Schedule};
use super::tail;
use super::take::{self, Own};
use super::verified::Verified;
use super::watch::Streams;
use crate::brakes::Part;
use crate::change::position::{NodeId, Sequence, ShardId};
use crate::store::Progress;
use crate::stream::Role;

/// How long the right to take a snapshot lasts without being renewed.
const TAKING: Duration = Duration::from_secs(15);

/// How long someone who asks waits for another node's snapshot to be done, and for this node to have folded what was there.
const PATIENCE: Duration = Duration::from_secs(600);
/// From when taking one is unusually long: it copies, uploads and reads back the whole database, and tells how far it is.
const SLOW: Duration = Duration::from_secs(1800);

/// How long someone who asks waits for what is pending here to be published first; an app that writes on and on has always something pending.
const PUBLISH: Duration = Duration::from_secs(5);

impl Schedule {
    pub(super) fn taking(&self) -> Role {
        let node = NodeId(self.engine.config.node_id);
        Role::new(self.kv.clone(), "taking", node, TAKING)
    }

    /// Takes one that is due, and trims by it.
    pub(super) async fn take_scheduled(&mut self, reason: Reason) -> Result<(), String> {
        let mut taking = self.taking();
        if !taking.hold().await.map_err(|e| e.to_string())? {
            // Somebody was asked for one, or one was killed at it: looked at again in a moment.
            let until = Instant::now() + TAKING * 2;
            while !taking.hold().await.map_err(|e| e.to_string())? {
                if Instant::now() > until || !self.leader.is_held() {
                    self.listed = None;
                    return Ok(());
                }
                self.leader.hold().await.map_err(|e| e.to_string())?;
                tokio::time::sleep(LOOK.min(self.leader.renew_every())).await;
            }
        }
        tracing::info!(
            reason = reason.words(),
            store = self.catalog.store_name(),
            "taking a snapshot"
        );
        if reason == Reason::Full {
            tail::pass(&self.engine, &self.broker)
                .await
                .map_err(|e| e.to_string())?;
        }
        // What is pending here may find no room until there is a snapshot.
        let pending =
            tokio::task::block_in_place(|| self.engine.replica().pending_changes().unwrap_or(1));
        let onto = self
            .newest
            .clone()
            .filter(|_| reason == Reason::Full && pending > 0);
        self.take(taking, true, onto, &|_| {}).await?;
        // A snapshot has been added: what it allows goes at once.
        let streams = Streams::look(&self.broker, self.engine.config.replication_log.shards)
            .await
            .map_err(|e| e.to_string())?;
        let living = self.living().await?;
        let full = streams.are_tight(living.most_wanted());
        self.trim(&streams, &living, full).await?;
        Ok(())
    }

    /// Takes one while the right to it lasts; a scheduled one only while this node leads.
    pub(super) async fn take(
        &mut self,
        mut taking: Role,
        scheduled: bool,
        onto: Option<Manifest>,
        say: &(dyn Fn(String) + Send + Sync),
    ) -> Result<Manifest, String> {
        let engine = Arc::clone(&self.engine);
        let begun = Instant::now();
        let moved = Arc::new(std::sync::Mutex::new((0_u64, 0_u64)));
        let progress = {
            let (moved, metrics) = (Arc::clone(&moved), engine.metrics.clone());
            Progress::new(move |done, total| {
                metrics
                    .snapshot_progress_bytes
                    .set(i64::try_from(done).unwrap_or(i64::MAX));
                *moved
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner) = (done, total);
            })
        };
        engine.gate.set_exempt(onto.is_none());
        let result = {
            let own = match &onto {
                Some(before) => Own::FoldedOnto(before, &self.broker),
                None => Own::MustBeBack(&self.broker),
            };
            let _step = engine.status.long_step(LOOP, "take", SLOW);
            let take = take::take(&engine, &self.catalog, own, &progress);
            tokio::pin!(take);
            let every = taking.renew_every().min(self.leader.renew_every());
            loop {
                tokio::select! {
                    taken = &mut take => break taken.map_err(|e| e.to_string()),
                    () = tokio::time::sleep(every) => {}
                }
                self.show_age();
                // Renewing may fail for a while; the lease then ends by our own clock.
                let _ = taking.hold().await;
                if scheduled {
                    let _ = self.leader.hold().await;
                }
                if !taking.is_held() || (scheduled && !self.leader.is_held()) {
                    break Err("the lease for it was lost".to_owned());
                }
                let (done, total) = *moved
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                if total > 0 {
                    say(format!(
                        "{} of {} MiB uploaded",
                        done >> 20,
                        total.div_ceil(1 << 20)
                    ));
                    tracing::info!(bytes = done, total, "uploading the snapshot");
                }
            }
        };
        engine.gate.set_exempt(false);
        engine.metrics.snapshot_progress_bytes.set(0);
        let noted = match result {
            Ok(manifest) => self.note(manifest, begun.elapsed()).await,
            Err(error) => Err(error),
        };
        let _ = taking.release().await;
        noted.map_err(|error| {
            engine.metrics.snapshot_failures.inc();
            format!("Failed to create snapshot: {error}")
        })
    }

    async fn note(&mut self, manifest: Manifest, took: Duration) -> Result<Manifest, String> {
        let metrics = &self.engine.metrics;
        metrics.snapshots_taken.inc();
        metrics.snapshot_duration_seconds.set(took.as_secs_f64());
        tracing::info!(
            snapshot = %manifest.file, position = manifest.sequence, bytes = manifest.size, duration = took.as_secs_f64(), store = self.catalog.store_name(),
            "a snapshot was taken and verified"
        );
        let verified = Verified::add(&self.kv, &manifest)
            .await
            .map_err(|e| e.to_string())?;
        self.verified = verified.of(self.history);
        self.show_age();
        if self
            .newest
            .as_ref()
            .is_none_or(|n| n.sequence <= manifest.sequence)
        {
            self.newest = Some(manifest.clone());
        }
        if let Err(error) = self.catalog.prune().await {
            tracing::warn!(%error, "older snapshots could not be removed from the store");
        }
        Ok(manifest)
    }

    /// Takes one for somebody who has asked.
    pub(super) async fn answer(&mut self, ask: Ask) {
        let saved: Saved = self.save(&*ask.say).await;
        if let Err(error) = &saved {
            tracing::warn!("{error}");
        }
        let _ = ask.done.send(saved);
    }

    async fn save(&mut self, say: &(dyn Fn(String) + Send + Sync)) -> Saved {
        // What is pending here would be in the copy, and never come back.
        if let Some(sentence) = self.engine.brakes.set().publish.pause(Part::Publish) {
            return Err(format!("Failed to create snapshot: {sentence}"));
        }
        let until = Instant::now() + PATIENCE;
        // What was in the stream when it was asked for is to be in it.
        let target = self
            .broker
            .stream_state(ShardId::ORDER)
            .await
            .map_err(|e| format!("Failed to create snapshot: {e}"))?
            .last;
        let mut told = None;
        let mut tell = |text: String| {
            if told.as_ref() != Some(&text) {
                say(text.clone());
                told = Some(text);
            }
        };
        if self.engine.config.replicate {
            self.catch_up(target, until, &mut tell).await?;
        }
        // What is pending is in the copy in any case; once it has come back, the position covers it too.
        let publish_until = Instant::now() + PUBLISH;
        while Instant::now() < publish_until
            && tokio::task::block_in_place(|| {
                self.engine.replica().pending_changes().unwrap_or(0) > 0
            })
        {
            tell("publishing what is pending".to_owned());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut taking = self.taking();
        loop {
            match taking.hold().await {
                Ok(true) => break,
                Ok(false) => tell(format!(
                    "waiting for node {}, which takes a snapshot",
                    taking.holder().map_or(0, |h| h.node)
                )),
                Err(error) => tell(error.to_string()),
            }
            if Instant::now() > until {
                return Err(
                    "Failed to create snapshot: another node takes one all the time".to_owned(),
                );
            }
            if self.leader.is_held() {
                let _ = self.leader.hold().await;
            }
            tokio::time::sleep(LOOK / 2).await;
        }
        say(format!(
            "taking a snapshot for {}",
            self.catalog.store_name()
        ));
        self.take(taking, false, None, say).await
    }

    /// Until this node has folded up to `target`.
    async fn catch_up(
        &self,
        target: Sequence,
        until: Instant,
        tell: &mut (dyn FnMut(String) + Send),
    ) -> Result<(), String> {
        loop {
            let at = tokio::task::block_in_place(|| self.engine.replica().position().sequence);
            if at >= target {
                return Ok(());
            }
            let view = self.engine.status.view();
            if let Some(reason) = view.apply_paused.or(view.schema_paused) {
                return Err(format!(
                    "Failed to create snapshot: this node stands still: {reason}"
                ));
            }
            if Instant::now() > until {
                return Err(format!(
                    "Failed to create snapshot: this node is at {at} of {target}"
                ));
            }
            tell(format!("folding what is in the stream: {at} of {target}"));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
