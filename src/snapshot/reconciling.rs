//! Building the fold of tables that are not certain, and entering what differs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::catalog::Catalog;
use super::fold::{Folding, nobody};
use super::manifest::Manifest;
use super::reconcile::{LOOK, NotYet, PATIENCE, Reconciler, waits};
use super::scratch::Scratch;
use super::take::blocking;
use crate::change::position::{NodeId, Sequence, ShardId};
use crate::changelog::in_flight::Carrier;
use crate::replica::reconcile::{Ahead, Difference, Entered, name_as_here, names_of};
use crate::replica::restore::{Adopted, RestoreOptions};
use crate::state::unsure::{Reason, Unsure};
use crate::store::Progress;

/// How long the rows of a new table wait for this node to have folded what others have written to it.
const CATCH_UP: Duration = Duration::from_secs(30);

/// How long it is waited for what is on its way from this node to reach the stream.
const ON_ITS_WAY: Duration = Duration::from_secs(5);

impl Reconciler {
    pub(super) async fn reconcile(
        &mut self,
        catalog: &Catalog,
        unsure: &[Unsure],
        at_start: bool,
    ) -> Result<(), NotYet> {
        let due = self.due(unsure, at_start).await?;
        if due.is_empty() {
            return Ok(());
        }
        let stream = self
            .broker
            .stream_state(ShardId::ORDER)
            .await
            .map_err(waits)?;
        let (position, history) = self.replica(|r| (r.position().sequence, r.history()));
        if stream.last < position {
            return Err(NotYet::Waits(format!(
                "the stream ends at {}, before this node's position {position}",
                stream.last
            )));
        }
        let usable = catalog.usable().await.map_err(waits)?;
        let from = usable.into_iter().find(|m| {
            let at = Sequence(m.sequence);
            m.history == history && at <= position && (at == position || stream.first <= at.next())
        });
        let (new, gaps): (Vec<_>, Vec<_>) =
            due.iter().cloned().partition(|u| u.reason == Reason::New);
        // What no snapshot has stands in the stream from its beginning, or nobody can know it.
        let whole_stream = stream.first <= Sequence(1);
        match from {
            Some(from) => self.compare(Some((catalog, &from)), &due).await,
            None if whole_stream && gaps.is_empty() => self.compare(None, &new).await,
            None => {
                self.enter_all(&new)?;
                if gaps.is_empty() {
                    return Ok(());
                }
                Err(NotYet::Waits(format!(
                    "{} has no snapshot that reaches from this node's position {position} to the stream, which begins at {}",
                    catalog.store_name(),
                    stream.first
                )))
            }
        }
    }

    /// The tables that can be compared now: those that are new once everything is folded that others may have written to them.
    async fn due(&mut self, unsure: &[Unsure], at_start: bool) -> Result<Vec<Unsure>, NotYet> {
        let mut due: Vec<Unsure> = Vec::new();
        self.targets
            .retain(|mark, _| unsure.iter().any(|u| u.mark == *mark));
        for unsure in unsure {
            if unsure.reason != Reason::New {
                due.push(unsure.clone());
            } else if !at_start && !self.targets.contains_key(&unsure.mark) {
                let state = self
                    .broker
                    .stream_state(ShardId::ORDER)
                    .await
                    .map_err(waits)?;
                self.targets
                    .insert(unsure.mark, (state.last, Instant::now()));
            }
        }
        // A gap is not to wait for what comes in.
        if at_start || !due.is_empty() {
            return Ok(due);
        }
        loop {
            let position = self.replica(|r| r.position().sequence);
            let ready = |u: &&Unsure| {
                self.targets
                    .get(&u.mark)
                    .is_some_and(|(at, since)| *at <= position || since.elapsed() >= CATCH_UP)
            };
            let ready: Vec<Unsure> = unsure.iter().filter(ready).cloned().collect();
            if ready.len() == unsure.len() {
                return Ok(ready);
            }
            if self.marks().len() != unsure.len() {
                return Err(NotYet::Moved);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Builds the fold of these tables, and enters what differs.
    async fn compare(
        &self,
        from: Option<(&Catalog, &Manifest)>,
        unsure: &[Unsure],
    ) -> Result<(), NotYet> {
        let engine = &self.engine;
        let begun = Instant::now();
        let scratch = Arc::new(Scratch::new(&engine.config.db_path, "reconcile"));
        if let Some((catalog, from)) = from {
            catalog
                .fetch(from, scratch.path(), &Progress::none())
                .await
                .map_err(waits)?;
        }
        let (at, like) = self.replica(|r| (r.position().sequence, Arc::clone(r.captured())));
        let tables: Vec<String> = unsure
            .iter()
            .filter_map(|u| like.table(&u.table))
            .flat_map(names_of)
            .map(literal_glob)
            .collect();
        if tables.is_empty() {
            return Err(NotYet::Moved);
        }
        let mut had = Vec::new();
        if from.is_some() {
            let (fold, like) = (Arc::clone(&scratch), Arc::clone(&like));
            let names: Vec<String> = unsure.iter().map(|u| u.table.clone()).collect();
            had = blocking(move || {
                let names = names.iter().map(String::as_str);
                Ok(name_as_here(fold.path(), &like, names)?)
            })
            .await?;
        }
        let mut folding = Folding::begin(
            engine,
            &self.broker,
            Arc::clone(&scratch),
            nobody(tables, Vec::new()),
            Some(Arc::clone(&like)),
        )
        .await?;
        folding.advance(at).await?;
        // The rest is little, and nothing is applied until it is done.
        self.pause(true);
        let (position, captured, last) =
            self.replica(|r| (r.position(), Arc::clone(r.captured()), r.last_on_its_way()));
        let at = position.sequence;
        // The fold has the names of before.
        if captured.schema_version != like.schema_version {
            return Err(NotYet::Moved);
        }
        folding.advance(at).await?;
        // What others have written in its place must not be taken for a difference.
        let there = folding.position();
        if there.hash != position.hash && there.hash != 0 && position.hash != 0 {
            return Err(NotYet::Waits(format!(
                "message {at} of the stream is another than this node has folded"
            )));
        }
        let ahead = self.fold_own(&mut folding, last).await?;
        let (included, others): (Vec<_>, Vec<_>) = unsure
            .iter()
            .cloned()
            .partition(|u| matches!(u.reason, Reason::Included | Reason::Behind));
        let difference = {
            let (database, fold) = (engine.config.db_path.clone(), scratch.path().to_owned());
            let (unsure, grown) = (others.clone(), folding.grown().to_vec());
            let shutdown = engine.shutdown.clone();
            // Whoever ends last removes the file.
            let held = Arc::clone(&scratch);
            blocking(move || {
                let _held = held;
                let stop = || shutdown.is_requested();
                Ok(Difference::find(
                    &database,
                    &fold,
                    (at, ahead),
                    &captured,
                    &unsure,
                    &grown,
                    &stop,
                )?)
            })
            .await?
        };
        let mut rows = self.enter(difference.ok_or(NotYet::Moved)?).await?;
        tracing::debug!(
            duration = begun.elapsed().as_secs_f64(),
            position = at.0,
            "compared"
        );
        // Last, and each by itself: a table that cannot be taken over yet, for its schema is another, must not keep the gaps of others open when applying goes on.
        let mut certain = others;
        let mut held_up = None;
        for table in included {
            if let Some(sentence) = self.paused() {
                return Err(NotYet::Waits(sentence));
            }
            let whole = had.contains(&table.table);
            match self.adopt(&scratch, (at, whole), table.clone()).await {
                Ok(more) => {
                    rows += more;
                    certain.push(table);
                }
                Err(e) => {
                    held_up.get_or_insert(e);
                }
            }
        }
        if !certain.is_empty() {
            self.done(&certain, rows);
        }
        held_up.map_or(Ok(()), Err)
    }

    /// Folds what is on its way from this node, up to `last`, as far as it reaches the stream in time.
    async fn fold_own(
        &self,
        folding: &mut Folding,
        last: Option<Carrier>,
    ) -> Result<Ahead, NotYet> {
        let until = Instant::now() + ON_ITS_WAY;
        let mut ahead = Ahead { folded: None, last };
        while !ahead.is_complete() && Instant::now() < until {
            let end = match last {
                Some(Carrier::Former(at)) => at,
                _ => {
                    self.broker
                        .stream_state(ShardId::ORDER)
                        .await
                        .map_err(waits)?
                        .last
                }
            };
            let me = NodeId(self.engine.config.node_id);
            let taken = folding.advance_of(end, me).await?;
            let found = self.replica(|r| taken.map(|taken| r.carrier_of(taken)));
            ahead.folded = ahead.folded.max(found);
            if !ahead.is_complete() {
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(ahead)
    }

    /// A table that was left out until now, or is behind, becomes what the fold has.
    async fn adopt(
        &self,
        fold: &Arc<Scratch>,
        at: (Sequence, bool),
        table: Unsure,
    ) -> Result<u64, NotYet> {
        let (engine, fold) = (Arc::clone(&self.engine), Arc::clone(fold));
        let name = table.table.clone();
        let adopted = tokio::task::spawn_blocking(move || {
            let shutdown = engine.shutdown.clone();
            let _long = engine.status.long_work();
            let options = RestoreOptions {
                cluster: "",
                keep_ours: false,
                patience: PATIENCE,
                stop: &|| shutdown.is_requested(),
                progress: &|_| {},
            };
            engine.replica().adopt(fold.path(), at, &table, &options)
        });
        match adopted.await.map_err(waits)?.map_err(waits)? {
            Adopted::Done(rows) => Ok(rows),
            Adopted::Moved => Err(NotYet::Moved),
            Adopted::Locked => Err(waits("the database is locked by another process")),
            Adopted::Lacking => Err(NotYet::Waits(format!(
                "the newest snapshot lacks table \"{name}\", which is behind here: it waits for a snapshot that has it"
            ))),
        }
    }

    /// Enters it, piece by piece.
    async fn enter(&self, mut difference: Difference) -> Result<u64, NotYet> {
        let shutdown = self.engine.shutdown.clone();
        let stop = || shutdown.is_requested();
        let mut rows = 0;
        loop {
            if stop() {
                return Err(NotYet::Stopping);
            }
            if let Some(sentence) = self.paused() {
                return Err(NotYet::Waits(sentence));
            }
            let entered = self.replica(|r| r.enter_difference(&mut difference, PATIENCE, &stop));
            match entered.map_err(waits)? {
                Entered::Done(more) => return Ok(rows + more),
                Entered::More(more) => rows += more,
                Entered::Moved => return Err(NotYet::Moved),
                Entered::Locked => {}
            }
            // The application's turn.
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
}

/// A glob that matches this name alone.
pub(super) fn literal_glob(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            '*' | '?' | '[' => format!("[{c}]"),
            c => c.to_string(),
        })
        .collect()
}
