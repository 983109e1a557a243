//! What the daemon tells about itself: log lines for people and machines, and metrics for Prometheus.
//!
//! Invariant: nothing here can stop the daemon. A full disk behind standard error, a scrape that
//! breaks off or a label that does not fit is lost telemetry, never a panic.

pub mod instrument;
pub mod logging;
pub mod metrics;
mod process;
#[cfg(feature = "profiling")]
pub mod profile;

pub use logging::{Logging, LoggingError};
pub use metrics::{Metrics, MetricsError};
