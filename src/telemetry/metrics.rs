//! Every metric of the daemon: one registry, the instruments by name, and the text that a scrape gets.
//!
//! Invariants: names, once published, stay (dashboards hang on them); the six names of the Go program exist;
//! units are Prometheus's (seconds, bytes, `_total` for counters); each series carries `node_id`; no label has
//! unbounded values; a value or a secret of the app's data is in none; a scrape asks neither database nor broker.

mod instruments;

use std::ops::Deref;
use std::sync::Arc;

use prometheus::{Registry, TextEncoder};

use super::instrument::Maker;
use super::process::ProcessCollector;
use crate::change::position::NodeId;
use crate::config::PrometheusConfig;

pub use instruments::Instruments;

/// Why the metrics could not be made or written.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// A name is not one that Prometheus allows.
    #[error(
        "the metric {name:?} cannot be registered: [prometheus] namespace and subsystem may hold letters, digits and `_`, and begin with no digit"
    )]
    Register {
        /// The full name.
        name: String,
        /// What the library says.
        #[source]
        source: prometheus::Error,
    },
    /// The text form could not be written.
    #[error("the metrics could not be encoded")]
    Encode(#[source] prometheus::Error),
}

/// All metrics; clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Shared>);

struct Shared {
    registry: Registry,
    instruments: Instruments,
}

impl Deref for Metrics {
    type Target = Instruments;

    fn deref(&self) -> &Instruments {
        &self.0.instruments
    }
}

impl Metrics {
    /// Makes and registers all metrics under the configured prefix.
    ///
    /// # Errors
    /// When namespace or subsystem make a name that Prometheus does not allow.
    pub fn new(config: &PrometheusConfig, node: NodeId) -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let make = Maker {
            registry: &registry,
            namespace: &config.namespace,
            subsystem: &config.subsystem,
            node_id: node.to_string(),
        };
        let build = (
            "build_info",
            "Always 1; the label names the version.",
            "version",
            env!("CARGO_PKG_VERSION"),
        );
        make.gauge_with(build)?.set(1);
        let process =
            ProcessCollector::new(&make.node_id).map_err(|source| MetricsError::Register {
                name: "process_*".to_owned(),
                source,
            })?;
        make.register("process_*", Ok(process))?;
        let instruments = Instruments::new(&make)?;
        instruments.snapshot_age.set(f64::NAN);
        declare(&instruments);
        Ok(Self(Arc::new(Shared {
            registry,
            instruments,
        })))
    }

    /// The text form that `GET /metrics` answers with.
    ///
    /// # Errors
    /// When the library cannot encode a family.
    pub fn render(&self) -> Result<String, MetricsError> {
        TextEncoder::new()
            .encode_to_string(&self.0.registry.gather())
            .map_err(MetricsError::Encode)
    }
}

/// Series whose labels are words of the program are there from the start: an alert cannot look at one that is not, nor count its first event.
fn declare(m: &Instruments) {
    m.apply_paused
        .declare(&["schema", "format", "history", "operator"]);
    m.partition
        .declare(&["jetstream", "isolated", "peers", "alone"]);
    for reason in [
        "insert-collision",
        "unique-collision",
        "overwritten-here",
        "updated-here",
        "deleted-elsewhere",
    ] {
        m.conflicts.inc_by(reason, 0);
    }
    for state in ["heard", "unheard"] {
        m.peers.set(state, 0);
    }
}

#[cfg(test)]
mod tests;
