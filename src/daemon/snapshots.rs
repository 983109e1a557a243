//! What runs beside the loops for snapshots, and what people ask about them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::{Fatal, session};
use crate::brakes::Part;
use crate::cli::exit::ExitCode;
use crate::config::Config;
use crate::control::{Outcome, Refusal, Reply};
use crate::engine::Engine;
use crate::http::status::Component;
use crate::runtime::Backoff;
use crate::snapshot::schedule::Schedule;
use crate::snapshot::{reach, scratch, watch};

/// How long the schedule may take to end what it is at.
const END: Duration = Duration::from_secs(5);

/// The tasks of one session.
pub struct Snapshots {
    schedule: JoinHandle<()>,
    watch: JoinHandle<()>,
    reach: JoinHandle<()>,
}

/// Removes what a killed daemon has left beside the database.
pub fn sweep(config: &Config) {
    match scratch::sweep(&config.db_path) {
        Ok(0) => {}
        Ok(files) => tracing::info!(files, "removed what a daemon that was killed had left"),
        Err(e) => tracing::warn!("could not look for files that a killed daemon left: {e}"),
    }
}

impl Snapshots {
    /// Begins them; `None` where snapshots are disabled, or at a stop. Returns when this node is known to the others.
    pub async fn begin(
        engine: &Arc<Engine>,
        session: &session::Session,
        scheduled: bool,
    ) -> Option<Self> {
        let catalog = session.snapshots.clone()?;
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        let replicas = engine.config.replication_log.replicas;
        let kv = loop {
            let begun = async {
                let kv = session.broker.snapshots_bucket(replicas).await?;
                watch::begin(engine, &session.broker, &kv).await?;
                Ok::<_, crate::stream::KvError>(kv)
            };
            match begun.await {
                Ok(kv) => break kv,
                Err(e) => {
                    if backoff.tries() == 0 {
                        tracing::warn!("could not announce this node: {e}; trying again");
                    }
                    engine.status.failed(Component::Broker, &e);
                }
            }
            tokio::select! {
                () = engine.shutdown.requested() => return None,
                () = tokio::time::sleep(backoff.next_wait()) => {}
            }
        };
        let watch = tokio::spawn(watch::run(
            Arc::clone(engine),
            session.broker.clone(),
            kv.clone(),
        ));
        let reach = tokio::spawn(reach::run(Arc::clone(engine), catalog.clone()));
        let asked = engine.desk.open();
        let schedule = Schedule::new(Arc::clone(engine), session.broker.clone(), catalog, kv);
        let schedule = tokio::spawn(schedule.run(asked, scheduled));
        Some(Self {
            schedule,
            watch,
            reach,
        })
    }

    /// Ends them: what is being taken is given up.
    pub async fn end(mut self) {
        if tokio::time::timeout(END, &mut self.schedule).await.is_err() {
            self.schedule.abort();
        }
        for task in [self.watch, self.reach] {
            task.abort();
            let _ = task.await;
        }
    }
}

/// `-save-snapshot` without a daemon: this process is one until the snapshot is taken.
pub async fn save_alone(engine: &Arc<Engine>) -> Result<(), Fatal> {
    if !engine.config.snapshot.enabled {
        return Err(Fatal::new(ExitCode::Config, DISABLED));
    }
    let saved = engine.desk.save(|text| tracing::info!("{text}")).await;
    saved
        .map(drop)
        .map_err(|reason| Fatal::new(ExitCode::Failed, reason))
}

const DISABLED: &str = "snapshot.enabled is false: set it to true on all nodes first";

/// `snapshot save`, asked of the running daemon.
pub async fn save(engine: Weak<Engine>, reply: Reply) {
    let reply = Arc::new(std::sync::Mutex::new(Some(reply)));
    let (enabled, desk) = match engine.upgrade() {
        Some(engine) => (engine.config.snapshot.enabled, engine.desk.clone()),
        None => return,
    };
    let saved = if enabled {
        let told = Arc::clone(&reply);
        desk.save(move |text| {
            let held = told
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(reply) = &*held {
                reply.progress(text);
            }
        })
        .await
        .map_err(|reason| Refusal::new(reason, ExitCode::Failed.number()))
    } else {
        Err(Refusal::new(DISABLED, ExitCode::Config.number()))
    };
    let reply = reply
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .take();
    if let Some(reply) = reply {
        reply.done(saved.map(|manifest| Outcome {
            message: format!(
                "snapshot {} of position {} was taken and verified",
                manifest.file, manifest.sequence
            ),
            result: serde_json::to_value(&manifest).ok(),
        }));
    }
}

/// `snapshot restore`, asked of the running daemon.
pub fn restore(engine: &Weak<Engine>, reply: Reply) {
    let Some(engine) = engine.upgrade() else {
        return;
    };
    if !engine.config.snapshot.enabled {
        reply.done::<String>(Err(Refusal::new(DISABLED, ExitCode::Config.number())));
        return;
    }
    if let Some(sentence) = engine.brakes.set().apply.pause(Part::Apply) {
        reply.done::<String>(Err(Refusal::new(
            format!("nothing is restored: {sentence}"),
            ExitCode::TempFail.number(),
        )));
        return;
    }
    reply.done(Ok(
        "restoring from the newest snapshot that is at least as new as this database; what is pending here is kept, and the log tells how it goes".to_owned(),
    ));
    engine.want_recovery();
    engine.begin_again("snapshot restore was asked for");
}
