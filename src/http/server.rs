//! The listeners: binding with errors that say what to change, and connections that are bounded in number,
//! size and time.
//!
//! Invariants: a bounded number of connections per listener ([`Connections`]), each with at most [`HEAD_BYTES`] of request head in
//! memory and no body read; no connection outlives [`LIFETIME`] by more than [`GRACE`]; stopping takes at most
//! [`GRACE`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::connections::{Connections, Turn};
use super::positions::{POSITION_PATH, PositionDesk, WAIT_PATH};
use super::routes::{HealthRoute, LIVE_PATH, METRICS_PATH, READY_PATH, Routes};
use super::status::Status;
use crate::config::{HealthCheckConfig, ListenAddress, PrometheusConfig};
use crate::runtime::Shutdown;
use crate::telemetry::Metrics;

/// A request here is a line and a few headers.
const HEAD_BYTES: usize = 16 * 1024;
/// How long a client may take for its request's head, and how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// When a connection is asked to end, so that a client that never reads holds its place for a bounded time.
const LIFETIME: Duration = Duration::from_secs(120);
/// How long an answer under way may still take then.
const GRACE: Duration = Duration::from_secs(2);
/// The pause after a failed accept (too many open files), so that it cannot spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// The key of the metrics address, as errors name it.
const METRICS_KEY: &str = "[prometheus] bind";
/// The key of the health address.
const HEALTH_KEY: &str = "[health_check] bind";

/// The flag of the address of profiles.
const PPROF_FLAG: &str = "-pprof";

/// Why the HTTP endpoints cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is not one.
    #[error(
        "{key} = {value:?} is not an address of this machine: write HOST:PORT, or :PORT for all interfaces"
    )]
    Address {
        /// The configuration key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What resolving it said, if it came so far.
        #[source]
        source: Option<io::Error>,
    },
    /// Another program listens there.
    #[error("{key}: {address} is in use by another program: stop it, or set another address")]
    InUse {
        /// The configuration key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error(
        "{key}: cannot listen on {address}: set an address of this machine and a port that this user may open"
    )]
    Listen {
        /// The configuration key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// Health would hide the metrics.
    #[error(
        "[health_check] path = \"/metrics\" hides the metrics, which have the same address: set another path"
    )]
    SamePath,
    /// Health would hide another route.
    #[error("[health_check] path = {path:?} hides what is served there besides: set another path")]
    HidesOther {
        /// The path.
        path: String,
    },
}

/// The running listeners.
#[derive(Debug)]
pub struct HttpServers {
    metrics: Option<SocketAddr>,
    health: Option<SocketAddr>,
    tasks: JoinSet<()>,
}

impl HttpServers {
    /// Binds and serves what the configuration enables; one listener for both where the addresses are the same.
    /// The endpoints answer until `stop` is requested: give one that is requested after draining, and probes can
    /// watch the node drain.
    ///
    /// # Errors
    /// When an address is none, in use, or not ours to open. Nothing is served then.
    pub async fn start(
        prometheus: &PrometheusConfig,
        health_check: &HealthCheckConfig,
        metrics: &Metrics,
        status: &Status,
        positions: &PositionDesk,
        stop: &Shutdown,
    ) -> Result<Self, HttpError> {
        let mut servers = Self {
            metrics: None,
            health: None,
            tasks: JoinSet::new(),
        };
        let metrics_at = match prometheus.enable {
            true => Some(resolve(METRICS_KEY, &prometheus.bind).await?),
            false => None,
        };
        let health_at = match health_check.enable {
            true => Some(resolve(HEALTH_KEY, &health_check.bind).await?),
            false => None,
        };
        let metrics_routes = Routes {
            metrics: Some(metrics.clone()),
            ..Routes::default()
        };
        let health = HealthRoute {
            path: health_check.path.clone(),
            detailed: health_check.detailed,
            ready_lag_messages: health_check.ready_lag_messages,
            status: status.clone(),
        };

        const OTHERS: [&str; 4] = [POSITION_PATH, WAIT_PATH, LIVE_PATH, READY_PATH];
        if health_at.is_some() && OTHERS.contains(&health.path.as_str()) {
            return Err(HttpError::HidesOther { path: health.path });
        }

        // Port 0 is a new port each time, so equal addresses with it are not one address.
        if let (Some(both), Some(other)) = (metrics_at, health_at)
            && both == other
            && both.port() != 0
        {
            if health.path == METRICS_PATH {
                return Err(HttpError::SamePath);
            }
            let listener = listen(METRICS_KEY, both).await?;
            let routes = Routes {
                health: Some(health),
                positions: Some(positions.clone()),
                ..metrics_routes
            };
            let address = servers.serve(listener, routes, stop, METRICS_KEY, both)?;
            servers.metrics = Some(address);
            servers.health = Some(address);
            return Ok(servers);
        }

        // Both are bound before either is served, so that an error leaves nothing behind.
        let metrics_listener = match metrics_at {
            Some(address) => Some((listen(METRICS_KEY, address).await?, address)),
            None => None,
        };
        if let Some(address) = health_at {
            let listener = listen(HEALTH_KEY, address).await?;
            let routes = Routes {
                metrics: None,
                health: Some(health),
                positions: Some(positions.clone()),
            };
            servers.health = Some(servers.serve(listener, routes, stop, HEALTH_KEY, address)?);
        }
        if let Some((listener, address)) = metrics_listener {
            let at = servers.serve(listener, metrics_routes, stop, METRICS_KEY, address)?;
            servers.metrics = Some(at);
        }
        Ok(servers)
    }

    /// Serves profiles too, on loopback where `address` names no host; where, with the real port.
    ///
    /// # Errors
    /// When the address is none, in use, or not ours to open.
    pub async fn serve_profiles(
        &mut self,
        address: &ListenAddress,
        stop: &Shutdown,
    ) -> Result<SocketAddr, HttpError> {
        let host = match address.host.as_str() {
            "" => "127.0.0.1".to_owned(),
            six if six.contains(':') => format!("[{six}]"),
            host => host.to_owned(),
        };
        let port = address.port.unwrap_or_default();
        let address = resolve(PPROF_FLAG, &format!("{host}:{port}")).await?;
        let listener = listen(PPROF_FLAG, address).await?;
        let bound = listener.local_addr().map_err(|source| HttpError::Listen {
            key: PPROF_FLAG,
            address,
            source,
        })?;
        let router = super::pprof::router(stop.clone());
        self.tasks.spawn(accept_all(listener, router, stop.clone()));
        Ok(bound)
    }

    /// Where `/metrics` is served; the port is the real one.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Where health is served; the port is the real one.
    #[must_use]
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health
    }

    /// Ends when all listeners and their connections have, a few seconds after `stop` at the latest.
    pub async fn finished(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }

    fn serve(
        &mut self,
        listener: TcpListener,
        routes: Routes,
        stop: &Shutdown,
        key: &'static str,
        address: SocketAddr,
    ) -> Result<SocketAddr, HttpError> {
        let bound = listener.local_addr().map_err(|source| HttpError::Listen {
            key,
            address,
            source,
        })?;
        self.tasks
            .spawn(accept_all(listener, routes.router(), stop.clone()));
        Ok(bound)
    }
}

/// Turns `HOST:PORT`, or `:PORT` for all IPv4 interfaces, into the address to listen on.
async fn resolve(key: &'static str, value: &str) -> Result<SocketAddr, HttpError> {
    let fault = |source| HttpError::Address {
        key,
        value: value.to_owned(),
        source,
    };
    let full = match value.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => value.to_owned(),
    };
    match tokio::net::lookup_host(&full).await {
        Ok(mut addresses) => addresses.next().ok_or_else(|| fault(None)),
        Err(error) => Err(fault(Some(error))),
    }
}

async fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, HttpError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => HttpError::InUse {
                key,
                address,
                source,
            },
            _ => HttpError::Listen {
                key,
                address,
                source,
            },
        })
}

async fn accept_all(listener: TcpListener, router: Router, stop: Shutdown) {
    let mut connections = Connections::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.requested() => break,
            () = connections.changed() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                // More wait in the kernel's queue.
                while !connections.make_room() && !stop.is_requested() {
                    tokio::select! {
                        () = stop.requested() => {}
                        () = connections.changed() => {}
                    }
                }
                let (router, stop) = (router.clone(), stop.clone());
                connections.add(|turn| converse(stream, router, stop, turn));
            }
            Err(error) => {
                tracing::warn!(%error, "an HTTP connection could not be accepted");
                if stop.sleep(ACCEPT_PAUSE).await {
                    break;
                }
            }
        }
    }
    drop(listener);
    connections.finished().await;
}

async fn converse(stream: TcpStream, router: Router, stop: Shutdown, turn: Arc<Turn>) {
    let inner = TowerToHyperService::new(router);
    let service = service_fn(move |request| {
        let (answering, answer) = (turn.answer(), inner.call(request));
        async move {
            let answer = answer.await;
            drop(answering);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = stop.sleep(LIFETIME) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(GRACE, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}
