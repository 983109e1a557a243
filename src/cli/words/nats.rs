//! The cluster's NATS for a command: through the running daemon, and without one from the servers that the configuration names.

use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use crate::change::position::NodeId;
use crate::cli::commands::{code, progress};
use crate::cli::exit::ExitCode;
use crate::cluster::look::LookError;
use crate::config::Config;
use crate::control::Request;
use crate::control::client::{self, Answer, ClientError};
use crate::engine::Fatal;
use crate::stream::{Broker, StreamError};

/// How long the daemon may say nothing: it asks NATS a few things, each with a deadline.
const SILENCE: Duration = Duration::from_secs(60);

/// Asks the daemon; `None` where none runs for this database.
pub(super) fn ask(config: &Config, request: Request) -> Result<Option<Answer>, Fatal> {
    match client::request(&config.db_path, request, SILENCE, progress) {
        Ok(answer) => Ok(Some(answer)),
        Err(ClientError::NotRunning { .. }) => Ok(None),
        Err(e) => Err(Fatal::new(code(&e), e)),
    }
}

/// What the daemon has answered with.
pub(super) fn result<T: DeserializeOwned>(answer: Answer) -> Result<T, Fatal> {
    serde_json::from_value(answer.result.unwrap_or_default()).map_err(|_| {
        Fatal::new(
            ExitCode::Failed,
            "the daemon's answer is not understood: use the same version as the daemon's",
        )
    })
}

/// A connection of this command's own.
pub(super) struct Nats {
    pub(super) runtime: Runtime,
    pub(super) broker: Broker,
}

impl Nats {
    /// Connects to the servers of the configuration, and says on standard error that there is no daemon.
    pub(super) fn without_daemon(config: &Config) -> Result<Self, Fatal> {
        if config.nats.urls.is_empty() {
            return Err(Fatal::new(
                ExitCode::Unavailable,
                format!(
                    "no daemon is running for {}, and it runs the NATS server itself (nats.urls is empty): start harmonylite, then try again",
                    config.db_path.display()
                ),
            ));
        }
        progress(&format!(
            "no daemon is running for {}: this is what NATS knows",
            config.db_path.display()
        ));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|e| {
                Fatal::new(
                    ExitCode::Software,
                    format!("could not start the runtime: {e}"),
                )
            })?;
        let connect = Broker::connect(&config.nats, &config.nats.urls, NodeId(config.node_id));
        let broker = runtime
            .block_on(connect)
            .map_err(|e| Fatal::new(ExitCode::Unavailable, e))?;
        Ok(Self { runtime, broker })
    }
}

/// Why the cluster cannot be seen.
pub(super) fn looking(error: LookError) -> Fatal {
    match error {
        LookError::Stream(StreamError::StreamMissing { stream }) => Fatal::new(
            ExitCode::Unavailable,
            format!(
                "there is no stream {stream} in NATS: no node of this cluster was ever here; see [nats] urls and stream_prefix"
            ),
        ),
        error => Fatal::new(ExitCode::TempFail, error),
    }
}

/// A time span for people, short.
pub(super) fn span(seconds: f64) -> String {
    // Negative where a server's clock was set back.
    let seconds = seconds.max(0.0);
    match seconds {
        s if s < 10.0 => format!("{s:.1}s"),
        s if s < 120.0 => format!("{s:.0}s"),
        s if s < 7200.0 => format!("{:.0}m", s / 60.0),
        s if s < 172_800.0 => format!("{:.0}h", s / 3600.0),
        s => format!("{:.0}d", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn spans_are_short() {
        for (seconds, text) in [
            (-1.0, "0.0s"),
            (0.44, "0.4s"),
            (59.6, "60s"),
            (300.0, "5m"),
            (7300.0, "2h"),
            (864_000.0, "10d"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
