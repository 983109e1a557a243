//! Reconciling tables that are not certain: what was written in them without capture is found by building their fold from snapshot and stream, beside the
//! database, and is entered in the change log.
//!
//! Invariants: one fold for all tables that are due at once; applying stands still from the moment at which a gap is known until it is closed or cannot be closed
//! now, since what comes in would be folded onto rows that only this node has; what cannot be done now stays marked, is said, and is tried again. While an operator has
//! paused applying nothing is entered, and the gaps are closed first when that ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::catalog::Catalog;
use super::take::TakeError;
use crate::brakes::Part;
use crate::change::position::Sequence;
use crate::engine::Engine;
use crate::runtime::Backoff;
use crate::state::unsure::{Reason, Unsure};
use crate::stream::Broker;

/// How often it is asked, while something is under way, how far it is.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// How often it is asked whether any table is uncertain: nothing waits for it, and each look wakes a processor that had nothing to do.
const LOOK_FOR_MARKS: Duration = Duration::from_millis(250);

/// A migration remakes one table after the other: they are waited for, so long for the next and so long for all.
const QUIET: Duration = Duration::from_millis(200);
const GATHER: Duration = Duration::from_secs(2);

/// How long one try waits for the write lock.
pub(super) const PATIENCE: Duration = Duration::from_millis(250);

/// Reconciles while a session lasts.
pub struct Reconciler {
    pub(super) engine: Arc<Engine>,
    pub(super) broker: Broker,
    /// None: snapshots are disabled.
    catalog: Option<Catalog>,
    /// For tables that are new, by their marks: what is to be folded first, and since when.
    pub(super) targets: HashMap<i64, (Sequence, Instant)>,
    /// What was last said about what cannot be done.
    said: Option<String>,
    /// Applying waits although nothing is under way: an operator has paused it before a gap was closed.
    holds: bool,
}

/// Why tables are not certain yet.
pub(super) enum NotYet {
    /// It is looked at again when something has changed, or after a while.
    Waits(String),
    /// The position or the schema has changed meanwhile.
    Moved,
    /// The daemon stops.
    Stopping,
}

impl From<TakeError> for NotYet {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::Stopping => Self::Stopping,
            TakeError::Unfoldable(why) => {
                Self::Waits(format!("the stream cannot be folded: {why}"))
            }
            other => Self::Waits(other.to_string()),
        }
    }
}

pub(super) fn waits(e: impl std::fmt::Display) -> NotYet {
    NotYet::Waits(e.to_string())
}

impl Reconciler {
    /// For one session.
    #[must_use]
    pub fn new(engine: Arc<Engine>, broker: Broker, catalog: Option<Catalog>) -> Self {
        Self {
            engine,
            broker,
            catalog,
            targets: HashMap::new(),
            said: None,
            holds: false,
        }
    }

    /// What is said of an operator's pause, in which nothing is written on behalf of other nodes.
    pub(super) fn paused(&self) -> Option<String> {
        let sentence = self.engine.brakes.set().apply.pause(Part::Apply)?;
        self.engine.config.replicate.then_some(sentence)
    }

    /// Lets applying go on where nothing is in doubt any more.
    fn release(&mut self) {
        if self.holds {
            // Looked at once more under the replica's lock, under which gaps are found.
            self.holds = self.replica(|r| {
                let certain = r.unsure().is_ok_and(|unsure| unsure.is_empty());
                if certain {
                    r.pause_applying(false);
                }
                !certain
            });
        }
    }

    /// Lets applying go on, unless an operator has paused it: the gaps come first when that ends.
    fn go_on(&mut self) {
        self.holds =
            self.paused().is_some() && self.unsure().iter().any(|u| u.reason == Reason::Gap);
        self.pause(self.holds);
    }

    /// Before anything is applied: closes the gaps that are known.
    pub async fn at_start(&mut self) {
        let shutdown = self.engine.shutdown.clone();
        tokio::select! {
            () = shutdown.requested() => {}
            () = self.round(true) => {}
        }
        self.go_on();
    }

    /// While the loops run, until the daemon is asked to stop.
    pub async fn run(mut self) {
        let shutdown = self.engine.shutdown.clone();
        self.holds = self.replica(|r| {
            r.watch_unsure(true);
            r.applying_waits()
        });
        tokio::select! {
            () = shutdown.requested() => {}
            () = self.watch() => {}
        }
        self.replica(|r| r.watch_unsure(false));
    }

    async fn watch(&mut self) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let mut seen: Vec<i64> = Vec::new();
        let mut again = Instant::now();
        let mut paused = false;
        loop {
            tokio::time::sleep(LOOK_FOR_MARKS).await;
            if self.engine.unsure_tables() == 0 {
                self.release();
                self.show(&[]);
                seen.clear();
                continue;
            }
            let marks = self.settled_marks().await;
            let as_before = marks == seen && paused == self.paused().is_some();
            if as_before && Instant::now() < again {
                continue;
            }
            if !as_before {
                backoff.reset();
            }
            paused = self.paused().is_some();
            self.round(false).await;
            self.go_on();
            seen = self.marks();
            again = Instant::now() + backoff.next_wait();
        }
    }

    /// The marks, once no more are added.
    async fn settled_marks(&self) -> Vec<i64> {
        let until = Instant::now() + GATHER;
        let mut marks = self.marks();
        let mut since = Instant::now();
        while since.elapsed() < QUIET && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
            let now = self.marks();
            if now != marks {
                (marks, since) = (now, Instant::now());
            }
        }
        marks
    }

    pub(super) fn marks(&self) -> Vec<i64> {
        self.unsure().iter().map(|u| u.mark).collect()
    }

    fn unsure(&self) -> Vec<Unsure> {
        self.replica(|r| r.unsure()).unwrap_or_default()
    }

    pub(super) fn replica<T>(&self, with: impl FnOnce(&mut crate::replica::Replica) -> T) -> T {
        tokio::task::block_in_place(|| with(&mut self.engine.replica()))
    }

    pub(super) fn pause(&self, paused: bool) {
        self.replica(|r| r.pause_applying(paused));
    }

    /// Shows which tables are not certain, and why.
    fn show(&mut self, unsure: &[Unsure]) {
        let tables = i64::try_from(unsure.len()).unwrap_or(i64::MAX);
        self.engine.metrics.unsure_tables.set(tables);
        let names: Vec<&str> = unsure.iter().map(|u| u.table.as_str()).take(10).collect();
        let more = if unsure.len() > names.len() {
            ", …"
        } else {
            ""
        };
        let sentence = (!unsure.is_empty()).then(|| {
            format!(
                "rows of {} may have been written without capture ({}{more}){}",
                if unsure.len() == 1 {
                    "one table".to_owned()
                } else {
                    format!("{} tables", unsure.len())
                },
                names.join(", "),
                self.said
                    .as_ref()
                    .map_or_else(String::new, |s| format!(": {s}"))
            )
        });
        self.engine.status.set_unsure(sentence);
        if unsure.is_empty() {
            self.said = None;
        }
    }

    /// Does what can be done now.
    async fn round(&mut self, at_start: bool) {
        let unsure = self.unsure();
        self.show(&unsure);
        if unsure.is_empty() {
            return;
        }
        let catalog = self.catalog.clone();
        let tried = match (
            self.paused(),
            catalog.filter(|_| self.engine.config.replicate),
        ) {
            (Some(sentence), _) => Err(NotYet::Waits(sentence)),
            (None, Some(catalog)) => self.reconcile(&catalog, &unsure, at_start).await,
            (None, None) => self.without_fold(&unsure),
        };
        // Some may be certain now all the same.
        let unsure = self.unsure();
        match tried {
            Ok(()) | Err(NotYet::Moved | NotYet::Stopping) => {}
            Err(NotYet::Waits(why)) => {
                if self.said.as_ref() != Some(&why) {
                    let tables: Vec<&str> = unsure.iter().map(|u| u.table.as_str()).collect();
                    tracing::warn!(
                        table = tables.join(", "),
                        "what was written in these tables without capture cannot be looked for yet: {why}"
                    );
                    self.said = Some(why);
                }
            }
        }
        self.show(&unsure);
    }

    /// Where no fold is to be had at all.
    fn without_fold(&self, unsure: &[Unsure]) -> Result<(), NotYet> {
        let (new, gaps): (Vec<_>, Vec<_>) = unsure
            .iter()
            .cloned()
            .partition(|u| u.reason == Reason::New);
        self.enter_all(&new)?;
        if gaps.is_empty() {
            return Ok(());
        }
        if !self.engine.config.replicate {
            return Err(NotYet::Waits(
                "replicate is false: it is looked for when this node applies again".to_owned(),
            ));
        }
        let tables: Vec<&str> = gaps.iter().map(|u| u.table.as_str()).collect();
        tracing::warn!(
            table = tables.join(", "),
            "what was written in these tables without capture is not known, since snapshots are disabled: run harmonylite verify, and verify --repair --from NODE_ID with the id of the node whose rows are the right ones"
        );
        self.replica(|r| r.give_up_unsure(&gaps, PATIENCE, &|| false))
            .map_err(waits)
    }

    /// All rows of tables that no other node knows.
    pub(super) fn enter_all(&self, tables: &[Unsure]) -> Result<(), NotYet> {
        if tables.is_empty() {
            return Ok(());
        }
        let shutdown = self.engine.shutdown.clone();
        let rows = self
            .replica(|r| r.enter_all_rows(tables, PATIENCE, &|| shutdown.is_requested()))
            .map_err(waits)?;
        self.done(tables, rows);
        Ok(())
    }

    pub(super) fn done(&self, tables: &[Unsure], rows: u64) {
        self.engine.metrics.reconciled_rows.inc_by(rows);
        let tables: Vec<&str> = tables.iter().map(|u| u.table.as_str()).collect();
        tracing::info!(
            table = tables.join(", "),
            rows,
            "tables are certain again: rows that were written without capture are published"
        );
    }
}
