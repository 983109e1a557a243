//! Log lines: one event is one line on standard error, and in `[logging] file`, for people (`console`) or machines (`json`).
//!
//! What the levels mean, so that one can alert on them:
//!
//! - `ERROR`: something that people must look into; replication of this node stands still or a change
//!   went to the dead-letter journal. Every error line names the thing and the remedy.
//! - `WARN`: something is not as it should be, and the daemon goes on or tries again by itself: the broker is
//!   away, a table without a primary key, a conflict journal at its bound.
//! - `INFO`: the life of the daemon, a few lines an hour: started, connected, schema changed, paused,
//!   resumed, stopped. Never one line per change or batch.
//! - `DEBUG` (`verbose = true`): each batch and each decision about one.
//! - `TRACE`: each message, without values.
//!
//! `docs/logging.md` lists every event with its fields; a test compares the two.
//!
//! Row values and secrets are logged at no level. Libraries do not keep to that: below `INFO` they show what they send, passwords and rows
//! among it. So they are never heard below `INFO`, whatever the filter says, and their spans not at all. An error is logged once, where it is handled.
//! `HARMONYLITE_LOG` (for example `info,harmonylite::publish=trace`) wins over `verbose`.

mod event;
mod file;
mod line;
mod panics;
mod repeats;
mod stream;
mod tally;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tracing::subscriber::SetGlobalDefaultError;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{ParseError, filter_fn};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use self::event::Event;
use self::line::Look;
pub use self::tally::LineCounts;
use self::writer::{Output, Writer};
use crate::config::LoggingConfig;

/// The environment variable whose filter wins over `[logging] verbose`.
pub const FILTER_VARIABLE: &str = "HARMONYLITE_LOG";

/// The log of this process, once it was started.
static PROCESS: OnceLock<Logging> = OnceLock::new();

/// Libraries only speak up about trouble; their routine is not ours.
const QUIET: &str = "warn,harmonylite=info";
/// With `verbose`, the libraries' life too, and our decisions.
const VERBOSE: &str = "info,harmonylite=debug";

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// `HARMONYLITE_LOG` is not a filter.
    #[error(
        "{FILTER_VARIABLE}={value:?} is not a log filter: write a level such as `debug`, or `info,harmonylite::publish=trace`"
    )]
    Filter {
        /// The variable's value.
        value: String,
        /// What the parser says.
        #[source]
        source: ParseError,
    },
    /// `HARMONYLITE_LOG` is not text.
    #[error("{FILTER_VARIABLE} is not valid UTF-8: write a level such as `debug`")]
    NotText,
    /// The thread that writes could not be started.
    #[error("the thread that writes the log could not be started: {0}")]
    Thread(#[from] io::Error),
    /// Logging has been started before in this process.
    #[error("logging has already been started in this process")]
    AlreadyStarted(#[from] SetGlobalDefaultError),
}

/// What was logged so far, by level.
#[derive(Debug, Default)]
struct Counts {
    errors: AtomicU64,
    warnings: AtomicU64,
    last_error: Mutex<Option<LastError>>,
}

/// The last `ERROR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    /// When it was logged.
    pub at: std::time::SystemTime,
    /// Its message, without its fields.
    pub message: String,
}

/// The log of this process; clones share it.
#[derive(Clone)]
pub struct Logging {
    writer: Writer,
    filter: reload::Handle<EnvFilter, Registry>,
    counts: Arc<Counts>,
    node: u64,
}

impl std::fmt::Debug for Logging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Logging")
    }
}

/// Starts logging for the whole process, of the node of this id. A file that cannot be written is said, and stops nothing.
///
/// # Errors
/// When `HARMONYLITE_LOG` holds no filter, and when logging was started before.
pub fn init(config: &LoggingConfig, node: u64) -> Result<Logging, LoggingError> {
    let filter = filter(config, wish()?.as_deref())?;
    let writer = Writer::start(output(config, node))?;
    let (subscriber, logging) = subscriber(filter, writer, node);
    tracing::subscriber::set_global_default(subscriber)?;
    let _ = PROCESS.set(logging.clone());
    panics::hear();
    Ok(logging)
}

/// Waits until everything that was logged is written, for two seconds at most: for who ends the process on the spot.
pub fn flush() {
    if let Some(log) = PROCESS.get() {
        log.flush();
    }
}

fn wish() -> Result<Option<String>, LoggingError> {
    match std::env::var(FILTER_VARIABLE) {
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(LoggingError::NotText),
    }
}

fn filter(config: &LoggingConfig, wish: Option<&str>) -> Result<EnvFilter, LoggingError> {
    let directives = match wish.map(str::trim) {
        Some(value) if !value.is_empty() => value,
        _ if config.verbose => VERBOSE,
        _ => QUIET,
    };
    EnvFilter::builder()
        .parse(directives)
        .map_err(|source| LoggingError::Filter {
            value: directives.to_owned(),
            source,
        })
}

fn output(config: &LoggingConfig, node: u64) -> Output {
    Output {
        look: Look {
            format: config.format,
            colour: writer::colour(),
            node,
        },
        file: config.file.clone(),
        interval: config.repeat_interval,
    }
}

fn subscriber(
    filter: EnvFilter,
    writer: Writer,
    node: u64,
) -> (impl Subscriber + Send + Sync, Logging) {
    let (filter, handle) = reload::Layer::new(filter);
    let counts = Arc::new(Counts::default());
    let lines = Lines {
        writer: writer.clone(),
        counts: Arc::clone(&counts),
    };
    let subscriber = Registry::default()
        .with(filter)
        .with(filter_fn(is_discreet))
        .with(lines);
    let logging = Logging {
        writer,
        filter: handle,
        counts,
        node,
    };
    (subscriber, logging)
}

impl Logging {
    /// From now on it is logged like this. `HARMONYLITE_LOG` still wins over `verbose`.
    ///
    /// # Errors
    /// When `HARMONYLITE_LOG` holds no filter, which the start would have refused.
    pub fn set(&self, config: &LoggingConfig) -> Result<(), LoggingError> {
        let filter = filter(config, wish()?.as_deref())?;
        // The subscriber lives as long as the process.
        let _ = self.filter.reload(filter);
        self.writer.set(output(config, self.node));
        Ok(())
    }

    /// Whether `HARMONYLITE_LOG` decides what is logged, and not `verbose`.
    #[must_use]
    pub fn is_filtered_from_outside(&self) -> bool {
        wish().is_ok_and(|wish| wish.is_some_and(|w| !w.trim().is_empty()))
    }

    /// Opens the log file anew: somebody has renamed it. Returns when that is done, or after a second.
    pub fn reopen(&self) {
        self.writer.reopen(Duration::from_secs(1));
    }

    /// Waits until everything that was logged is written, for two seconds at most.
    pub fn flush(&self) {
        self.writer.flush(Duration::from_secs(2));
    }

    /// Why the log file cannot be written, while it cannot; a sentence.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.writer.fault()
    }

    /// How many events of `ERROR` and of `WARN` there were since the start, whether they were told or only counted.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        (read(&self.counts.errors), read(&self.counts.warnings))
    }

    /// What became of log lines since the start.
    #[must_use]
    pub fn line_counts(&self) -> LineCounts {
        self.writer.tally().counts()
    }

    /// The last `ERROR` since the start.
    #[must_use]
    pub fn last_error(&self) -> Option<LastError> {
        let last = self.counts.last_error.lock();
        last.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Hands events to the thread that writes them.
struct Lines {
    writer: Writer,
    counts: Arc<Counts>,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let event = Event::of(event);
        match event.level {
            Level::ERROR => {
                self.counts.errors.fetch_add(1, Ordering::Relaxed);
                let last = LastError {
                    at: event.at,
                    message: event.message.clone(),
                };
                let shown = self.counts.last_error.lock();
                *shown.unwrap_or_else(PoisonError::into_inner) = Some(last);
            }
            Level::WARN => {
                self.counts.warnings.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        self.writer.take(event);
    }
}

/// Whether an event is ours, or a library's that shows nothing of what it carries.
fn is_discreet(event: &Metadata<'_>) -> bool {
    let target = event.target();
    let ours = target == "nats-server"
        || target
            .strip_prefix("harmonylite")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    ours || *event.level() <= Level::INFO
}
