//! What this node answers when others ask it.
//!
//! Invariant: the engine is not held while an answer waits, so that a stop is never held up by a question.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::changelog::marks::Marks;
use crate::engine::Engine;
use crate::peers::protocol::{Answer, Question};
use crate::registry::audit::Running;
use crate::replica::resend::{Resend, RowsOf};
use crate::sqlite::connection;
use crate::verify::Resender;

/// The longest that an answer waits, whatever the question says.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long rows that are to be sent again wait for the write lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// An answer under way.
type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What the command line is told of this node's schema.
pub fn schema(engine: &Engine) -> Running {
    let view = engine.status.view();
    Running {
        hash: view.schema_hash,
        previous_hash: view.schema_previous_hash,
        waits_for: view.schema_paused,
        waits_since: view
            .schema_paused_since
            .and_then(|at| OffsetDateTime::from(at).format(&Rfc3339).ok()),
        paused: view.apply_paused,
    }
}

/// The function that answers.
pub fn answers(engine: &Arc<Engine>) -> impl Fn(Question) -> Answering + Send + Sync + 'static {
    let engine = Arc::downgrade(engine);
    move |question| {
        let engine = engine.clone();
        Box::pin(answer(engine, question))
    }
}

async fn answer(engine: Weak<Engine>, question: Question) -> Answer {
    let stopping = || Answer::Refused {
        reason: "it is stopping".to_owned(),
    };
    match question {
        Question::Where { until, patience } => {
            let Some(mut folded) = engine.upgrade().map(|e| e.folded()) else {
                return stopping();
            };
            if until.0 > 0 {
                let there = folded.wait_for(|at| *at >= until);
                // Answered in any case: with where it is then.
                let _ = tokio::time::timeout(bounded(patience), there).await;
            }
            engine.upgrade().map_or_else(stopping, |e| where_it_is(&e))
        }
        Question::Await { id, patience } => {
            let Some(mut passed) = engine.upgrade().map(|e| e.markers.passed()) else {
                return stopping();
            };
            let folded = passed.wait_for(|ids| ids.contains(&id));
            if matches!(
                tokio::time::timeout(bounded(patience), folded).await,
                Ok(Ok(_))
            ) {
                return Answer::Heard;
            }
            // Not yet: where it is, and why.
            engine.upgrade().map_or_else(stopping, |e| where_it_is(&e))
        }
        Question::Prepare { id, tables, calm } => {
            let prepared = engine
                .upgrade()
                .map_or_else(stopping, |e| prepare(&e, id, tables, calm));
            if calm && prepared == Answer::Prepared {
                settle(&engine).await;
            }
            prepared
        }
        Question::Step {
            id,
            step,
            command,
            patience,
        } => {
            let Some(comparison) = engine.upgrade().and_then(|e| e.comparisons.get(id)) else {
                return Answer::Refused {
                    reason: "it has let go of the comparison, because nobody asked for it or it was started anew: verify again".to_owned(),
                };
            };
            match comparison.step(step, command, bounded(patience)).await {
                Some(outcome) => Answer::Done(outcome),
                None => engine.upgrade().map_or_else(stopping, |engine| {
                    let rows = comparison.rows();
                    match where_it_is(&engine) {
                        Answer::At {
                            position, paused, ..
                        } => Answer::Working {
                            rows,
                            position,
                            paused,
                        },
                        other => other,
                    }
                }),
            }
        }
        Question::Release { id } => {
            if let Some(engine) = engine.upgrade() {
                engine.comparisons.release(id);
            }
            Answer::Heard
        }
        Question::Keep { id } => {
            if let Some(comparison) = engine.upgrade().and_then(|e| e.comparisons.get(id)) {
                comparison.keep();
            }
            Answer::Heard
        }
    }
}

fn bounded(patience: u64) -> Duration {
    Duration::from_millis(patience).min(PATIENCE)
}

fn where_it_is(engine: &Engine) -> Answer {
    let view = engine.status.view();
    Answer::At {
        position: *engine.folded().borrow(),
        replicate: engine.config.replicate,
        paused: view.apply_paused.or(view.schema_paused),
    }
}

/// Until what this node has on its way has come back, for a moment at most: what is folded with others' batches lies before the marker then.
async fn settle(engine: &Weak<Engine>) {
    const AT_LONGEST: Duration = Duration::from_secs(1);
    const LOOK: Duration = Duration::from_millis(10);
    let until = Instant::now() + AT_LONGEST;
    let mut landed = false;
    while Instant::now() < until {
        let Some(engine) = engine.upgrade() else {
            return;
        };
        // Twice: the publisher may have been about to send one more when it was told to wait.
        if std::mem::replace(&mut landed, !engine.awaits_echo()) && landed {
            return;
        }
        drop(engine);
        tokio::time::sleep(LOOK).await;
    }
}

fn prepare(engine: &Arc<Engine>, id: u64, tables: Option<String>, calm: bool) -> Answer {
    if !engine.config.replicate {
        return Answer::Refused {
            reason: "it applies nothing (replicate = false)".to_owned(),
        };
    }
    // Half a message for a list, the rest for what stands around it.
    let page = engine.broker().map_or(32 << 10, |b| b.max_payload() / 2);
    let resender = Box::new(LiveDatabase(Arc::downgrade(engine)));
    match engine.comparisons.prepare(id, tables, calm, page, resender) {
        Ok(()) => Answer::Prepared,
        Err(reason) => Answer::Refused { reason },
    }
}

/// Writes to the database as this node.
struct LiveDatabase(Weak<Engine>);

impl LiveDatabase {
    fn engine(&self) -> Result<Arc<Engine>, String> {
        self.0.upgrade().ok_or_else(|| "it is stopping".to_owned())
    }
}

impl Resender for LiveDatabase {
    fn resend(&self, rows: &[RowsOf]) -> Result<Marks, String> {
        let engine = self.engine()?;
        let stop = || engine.shutdown.is_requested();
        let logged = engine.replica().resend(rows, LOCK_PATIENCE, &stop);
        match logged {
            Ok(Resend::Logged(marks)) => {
                let count: usize = rows.iter().map(|(_, keys)| keys.len()).sum();
                tracing::info!(rows = count, "rows are sent again, as a repair asked");
                Ok(marks)
            }
            Ok(Resend::Locked) => Err(
                "its database is locked by another process, or its schema has just changed: try again".to_owned(),
            ),
            Ok(Resend::NotCaptured(table)) => Err(format!(
                "it publishes nothing of table \"{table}\" (publish = false, or the table is left out there): repair from another node"
            )),
            Err(e) => Err(e.to_string()),
        }
    }

    fn is_back(&self, marks: &mut Marks) -> Result<bool, String> {
        let engine = self.engine()?;
        if engine.shutdown.is_requested() {
            return Err("it is stopping".to_owned());
        }
        let captured = Arc::clone(engine.replica().captured());
        let reader = connection::open_reader(&engine.config.db_path).map_err(|e| e.to_string())?;
        marks.clear(&reader, &captured).map_err(|e| e.to_string())
    }
}
