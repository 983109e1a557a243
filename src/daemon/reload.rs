//! `harmonylite reload` and SIGHUP: the configuration is read again, and what can change at run time does.
//!
//! Invariants: a configuration with any fault changes nothing; what is in force and what needs a restart is said by key, never by value; the log file is opened anew
//! in any case, since SIGHUP is what says that it was renamed.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::Fatal;
use crate::cli::exit::ExitCode;
use crate::config::live::{Changes, Settings};
use crate::config::{Config, Overrides};
use crate::control::{Outcome, Refusal, Reply};
use crate::telemetry::Logging;

/// Where the configuration came from.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// `-config`
    pub file: Option<PathBuf>,
    /// What the command line says on top of it.
    pub overrides: Overrides,
}

/// Reads the configuration again; clones share it.
#[derive(Debug, Clone)]
pub struct Reloader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Source,
    settings: Settings,
    log: Logging,
    /// One at a time.
    turn: Mutex<()>,
}

/// What came of it.
struct Reloaded {
    changes: Changes,
    notices: Vec<String>,
}

impl Reloader {
    /// For a daemon that was started from `source`.
    #[must_use]
    pub fn new(source: Source, settings: Settings, log: Logging) -> Self {
        Self(Arc::new(Inner {
            source,
            settings,
            log,
            turn: Mutex::default(),
        }))
    }

    /// On SIGHUP: the log tells what came of it.
    pub fn on_signal(&self) {
        let _ = tokio::task::block_in_place(|| self.reload());
    }

    /// For somebody who has asked.
    pub fn answer(&self, reply: Reply) {
        let done = tokio::task::block_in_place(|| self.reload());
        reply.done(
            done.map_err(|f| Refusal::new(f.reason, f.code.number()))
                .map(|reloaded| Outcome {
                    message: reloaded.in_words(),
                    result: Some(serde_json::json!({
                        "applied": reloaded.changes.applied,
                        "restart": reloaded.changes.waiting,
                        "notices": reloaded.notices,
                    })),
                }),
        );
    }

    fn reload(&self) -> Result<Reloaded, Fatal> {
        let inner = &*self.0;
        let _turn = inner.turn.lock().unwrap_or_else(PoisonError::into_inner);
        inner.log.reopen();
        let done = self.read();
        match &done {
            Ok(reloaded) if reloaded.changes.waiting.is_empty() => {
                tracing::info!("{}", reloaded.in_words())
            }
            Ok(reloaded) => tracing::warn!("{}", reloaded.in_words()),
            Err(fatal) => tracing::error!("{}", fatal.reason),
        }
        done
    }

    fn read(&self) -> Result<Reloaded, Fatal> {
        let inner = &*self.0;
        let Some(file) = &inner.source.file else {
            return Err(Fatal::new(
                ExitCode::Config,
                "the daemon was started without -config: there is no configuration to read again",
            ));
        };
        let loaded = Config::load(Some(file), &inner.source.overrides).map_err(|e| {
            Fatal::new(
                ExitCode::Config,
                format!("Invalid configuration, nothing was changed: {e}"),
            )
        })?;
        let changes = inner.settings.change(&loaded.config);
        let mut notices = loaded.notices;
        if changes
            .applied
            .iter()
            .any(|key| key.starts_with("logging."))
        {
            inner
                .log
                .set(&inner.settings.now().logging)
                .map_err(|e| Fatal::new(ExitCode::Config, e))?;
        }
        if changes.applied.contains(&"logging.verbose") && inner.log.is_filtered_from_outside() {
            notices
                .push("HARMONYLITE_LOG decides what is logged, and not logging.verbose".to_owned());
        }
        Ok(Reloaded { changes, notices })
    }
}

impl Reloaded {
    fn in_words(&self) -> String {
        let Changes { applied, waiting } = &self.changes;
        let mut text = "the configuration was read again".to_owned();
        if applied.is_empty() && waiting.is_empty() {
            text.push_str(": nothing in it has changed");
        }
        if !applied.is_empty() {
            text.push_str(&format!("; in force now: {}", applied.join(", ")));
        }
        if !waiting.is_empty() {
            text.push_str(&format!(
                "; changed but needs a restart: {}",
                waiting.join(", ")
            ));
        }
        text
    }
}
