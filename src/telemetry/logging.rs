//! Log lines: one event is one line on standard error, for people (`console`) or machines (`json`).
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
//! - `TRACE`: each message and each row operation, without values.
//!
//! Row values and secrets are logged at no level. Libraries do not keep to that: below `INFO` they show what they send, passwords and rows
//! among it. So they are never heard below `INFO`, whatever the filter says. An error is logged once, where it is handled.
//! `HARMONYLITE_LOG` (for example `info,harmonylite::publish=trace`) wins over `verbose`.

use std::io::{self, IsTerminal, Write};

use tracing::subscriber::SetGlobalDefaultError;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{ParseError, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::config::{LogFormat, LoggingConfig};

/// The environment variable whose filter wins over `[logging] verbose`.
pub const FILTER_VARIABLE: &str = "HARMONYLITE_LOG";

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
    /// Logging has been started before in this process.
    #[error("logging has already been started in this process")]
    AlreadyStarted(#[from] SetGlobalDefaultError),
}

/// Starts logging for the whole process.
///
/// # Errors
/// When `HARMONYLITE_LOG` holds no filter, and when logging was started before.
pub fn init(config: &LoggingConfig) -> Result<(), LoggingError> {
    let wish = match std::env::var(FILTER_VARIABLE) {
        Ok(value) => Some(value),
        Err(std::env::VarError::NotPresent) => None,
        Err(std::env::VarError::NotUnicode(_)) => return Err(LoggingError::NotText),
    };
    let filter = filter(config, wish.as_deref())?;
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing::subscriber::set_global_default(subscriber(config.format, filter, colour, io::stderr))?;
    Ok(())
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

fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    colour: bool,
    writer: W,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // Reporting a failed write would itself print to standard error, and panic when that is closed.
    let base = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .log_internal_errors(false)
        .with_writer(OneLineEach(writer));
    let discreet = filter_fn(is_discreet);
    match format {
        LogFormat::Console => Box::new(
            base.with_ansi(colour)
                .with_target(false)
                .finish()
                .with(discreet),
        ),
        LogFormat::Json => Box::new(
            base.json()
                .flatten_event(true)
                .with_current_span(true)
                .with_span_list(false)
                .finish()
                .with(discreet),
        ),
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

/// Makes writers that keep an event on one line.
struct OneLineEach<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for OneLineEach<W> {
    type Writer = OneLine<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLine(self.0.make_writer())
    }
}

/// Writes line breaks inside an event as `\n`. The formatter hands over each event in one piece, with the
/// line break that ends it as the last byte.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let (line, end) = match event.split_last() {
            Some((b'\n', line)) => (line, true),
            _ => (event, false),
        };
        if line.contains(&b'\n') || line.contains(&b'\r') {
            let mut escaped = Vec::with_capacity(event.len() + 16);
            for &byte in line {
                match byte {
                    b'\n' => escaped.extend_from_slice(br"\n"),
                    b'\r' => escaped.extend_from_slice(br"\r"),
                    other => escaped.push(other),
                }
            }
            if end {
                escaped.push(b'\n');
            }
            self.0.write_all(&escaped)?;
        } else {
            self.0.write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Capture(Arc<Mutex<Vec<u8>>>);

    impl Write for Capture {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(config: &LoggingConfig, wish: Option<&str>, events: impl FnOnce()) -> Vec<String> {
        let capture = Capture::default();
        let sink = capture.clone();
        let filter = filter(config, wish).unwrap();
        let subscriber = subscriber(config.format, filter, false, move || sink.clone());
        tracing::subscriber::with_default(subscriber, events);
        let bytes = capture.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn events() {
        tracing::debug!(batch = 7, "published");
        tracing::info!(node = 3, "started");
        tracing::warn!(error = "first\nsecond\r\nthird", "the broker is away");
    }

    #[test]
    fn console_is_one_line_per_event_with_level_message_and_fields() {
        let lines = logged(&LoggingConfig::default(), None, events);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("INFO") && lines[0].contains("started node=3"));
        assert!(lines[1].contains("WARN") && lines[1].contains("the broker is away"));
        assert!(lines[1].contains("third"));
    }

    #[test]
    fn json_is_one_object_per_line() {
        let config = LoggingConfig {
            verbose: true,
            format: LogFormat::Json,
        };
        let lines = logged(&config, None, events);
        assert_eq!(lines.len(), 3, "{lines:?}");
        let first: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(first["level"], "DEBUG");
        assert_eq!(first["message"], "published");
        assert_eq!(first["batch"], 7);
        let third: serde_json::Value = serde_json::from_str(&lines[2]).unwrap();
        assert_eq!(third["error"], "first\nsecond\r\nthird");
    }

    #[test]
    fn the_variable_wins_over_verbose_and_libraries_are_quiet() {
        let verbose = LoggingConfig {
            verbose: true,
            format: LogFormat::Console,
        };
        assert_eq!(logged(&verbose, Some("error"), events).len(), 0);
        assert_eq!(logged(&verbose, Some("  "), events).len(), 3);
        let library = || tracing::info!(target: "async_nats::client", "chatter");
        assert_eq!(logged(&LoggingConfig::default(), None, library).len(), 0);
        assert_eq!(logged(&verbose, None, library).len(), 1);
    }

    #[test]
    fn libraries_are_never_heard_below_info() {
        let events = || {
            tracing::trace!(target: "async_nats::connection", "CONNECT with a password");
            tracing::debug!(target: "harmonylite_like", "no room of ours");
            tracing::info!(target: "async_nats", "connected");
            tracing::trace!(target: "harmonylite::publish", "sent");
            tracing::debug!(target: "nats-server", "a client");
        };
        for wish in ["trace", "async_nats=trace,harmonylite_like=debug,trace"] {
            let lines = logged(&LoggingConfig::default(), Some(wish), events);
            assert_eq!(lines.len(), 3, "{lines:?}");
        }
    }

    #[test]
    fn a_filter_that_is_none_is_named() {
        let error = filter(&LoggingConfig::default(), Some("harmonylite=loud")).unwrap_err();
        let sentence = error.to_string();
        assert!(sentence.contains("HARMONYLITE_LOG") && sentence.contains("harmonylite=loud"));
    }
}
