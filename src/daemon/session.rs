//! What needs the broker: the connection, the streams, the node id's lease, the incarnation, and reading ahead for batches of former lives.
//!
//! Invariant: nothing is published before the lease is held, an incarnation above all that was ever seen is recorded durably, and the stream is read to its
//! end for our own batches.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Mutex;

use super::{Fatal, membership};
use crate::apply::incoming::{self, Body, IncomingBatch};
use crate::change::position::{Incarnation, NodeId, Sequence, ShardId};
use crate::cli::exit::ExitCode;
use crate::codec::spool::Spool;
use crate::consume::payload::{self, PieceCache};
use crate::engine::Engine;
use crate::http::status::Component;
use crate::replica::ReplicaError;
use crate::runtime::Backoff;
use crate::snapshot::catalog::Catalog;
use crate::snapshot::reconcile::Reconciler;
use crate::state::node::{Position, next_incarnation};
use crate::state::publishers::Publishers;
use crate::stream::managed::ManagedServer;
use crate::stream::{Broker, Holder, LeaseError, NodeLease, StreamError, continuity};

/// A node that may publish and apply.
pub struct Session {
    /// The connection.
    pub broker: Broker,
    /// Where reading begins.
    pub from: Position,
    /// What was taken of each publisher up to there.
    pub publishers: Publishers,
    /// The cluster's snapshots, where they are enabled.
    pub snapshots: Option<Catalog>,
    lease: Mutex<NodeLease>,
    server: Option<ManagedServer>,
}

/// Connects, waiting for a broker that is not there yet, and makes this node ready to publish and apply.
pub async fn begin(engine: &Arc<Engine>) -> Result<Session, Fatal> {
    let config = &engine.config;
    let folder = config.folder();
    let node = NodeId(config.node_id);
    let server = if config.nats.urls.is_empty() {
        let server = ManagedServer::start(&config.nats, folder, node)
            .await
            .map_err(|e| Fatal::new(ExitCode::Unavailable, e))?;
        tracing::info!(
            url = server.client_url(),
            monitor = server.monitor_url(),
            "the managed nats-server runs"
        );
        Some(server)
    } else {
        None
    };
    if let Some(server) = &server {
        let _ = engine.nats_url.set(server.client_url());
    }
    let urls = server
        .as_ref()
        .map_or_else(|| config.nats.urls.clone(), |s| vec![s.client_url()]);
    let broker = connect(engine, &urls).await?;
    make_streams(engine, &broker).await?;
    let mut lease = acquire(engine, &broker).await?;
    let snapshots = settle(engine, &broker, &mut lease).await?;
    let ahead = own_batches_ahead(engine, &broker).await?;
    let (from, publishers) = begin_incarnation(engine, &lease, ahead).await?;
    Reconciler::new(Arc::clone(engine), broker.clone(), snapshots.clone())
        .at_start()
        .await;
    engine.status.recovered(Component::Broker);
    Ok(Session {
        broker,
        from,
        publishers,
        snapshots,
        lease: Mutex::new(lease),
        server,
    })
}

async fn connect(engine: &Arc<Engine>, urls: &[String]) -> Result<Broker, Fatal> {
    let nats = &engine.config.nats;
    let mut backoff = Backoff::new(
        nats.reconnect_wait.min(Duration::from_millis(200)),
        nats.reconnect_wait.max(Duration::from_secs(1)),
    );
    loop {
        match Broker::connect(nats, urls, NodeId(engine.config.node_id)).await {
            Ok(broker) => {
                engine.status.recovered(Component::Broker);
                return Ok(broker);
            }
            Err(e) => {
                // The first failure, and then now and again: an outage of hours is one line every few minutes.
                if backoff.tries() == 0 || backoff.tries() % 60 == nats.connect_retries {
                    tracing::warn!("{e}; trying again, changes are captured meanwhile");
                }
                // A server that answers and refuses us will go on to.
                if backoff.tries() >= nats.connect_retries || !e.is_transient() {
                    engine.status.failed(Component::Broker, &e);
                }
            }
        }
        tokio::time::sleep(backoff.next_wait()).await;
    }
}

async fn make_streams(engine: &Arc<Engine>, broker: &Broker) -> Result<(), Fatal> {
    let config = &engine.config;
    let drop_oldest = !config.snapshot.enabled;
    if drop_oldest {
        tracing::warn!(
            "snapshots are disabled: a stream that reaches max_bytes drops its oldest messages, and a node that has not read them by then cannot catch up; all nodes are taken to have started from equal databases"
        );
    }
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        match broker
            .ensure_streams(&config.replication_log, drop_oldest)
            .await
        {
            Ok(notices) => {
                for notice in notices {
                    tracing::warn!("{notice}");
                }
                return Ok(());
            }
            Err(e @ StreamError::SubjectTaken { .. }) => {
                return Err(Fatal::new(ExitCode::Config, e));
            }
            Err(e) => {
                if backoff.tries() == 0 || backoff.tries() % 60 == 59 {
                    tracing::warn!("{e}; trying again");
                }
                engine.status.failed(Component::Broker, &e);
            }
        }
        tokio::time::sleep(backoff.next_wait()).await;
    }
}

async fn acquire(engine: &Arc<Engine>, broker: &Broker) -> Result<NodeLease, Fatal> {
    let config = &engine.config;
    /// The same for all lives of this daemon: a broker that is set back may hold the lease of one before, and that is no other daemon's.
    static NONCE: OnceLock<u64> = OnceLock::new();
    let database = engine.replica().database_id().to_owned();
    let ours = Holder::this_process(
        &format!("{} ({database})", config.db_path.display()),
        *NONCE.get_or_init(rand::random),
    );
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        match NodeLease::acquire(
            broker,
            config.replication_log.replicas,
            NodeId(config.node_id),
            ours.clone(),
        )
        .await
        {
            Ok(lease) => return Ok(lease),
            Err(e @ (LeaseError::Held { .. } | LeaseError::Lost { .. })) => {
                return Err(Fatal::new(ExitCode::TempFail, e));
            }
            Err(e @ LeaseError::Unreadable { .. }) => {
                return Err(Fatal::new(ExitCode::DataError, e));
            }
            Err(e @ LeaseError::Kv(_)) => {
                if backoff.tries() == 0 {
                    tracing::warn!("could not take the node id: {e}; trying again");
                }
                engine.status.failed(Component::Broker, &e);
            }
        }
        tokio::time::sleep(backoff.next_wait()).await;
    }
}

/// Settles where this node stands, which may take long; the node id is kept meanwhile.
async fn settle(
    engine: &Arc<Engine>,
    broker: &Broker,
    lease: &mut NodeLease,
) -> Result<Option<Catalog>, Fatal> {
    let settling = membership::settle(engine, broker);
    tokio::pin!(settling);
    loop {
        tokio::select! {
            settled = &mut settling => return settled,
            () = tokio::time::sleep(NodeLease::RENEW_EVERY) => {}
        }
        if let Err(e @ LeaseError::Lost { .. }) = lease.renew().await {
            return Err(Fatal::new(ExitCode::TempFail, e));
        }
    }
}

/// Reads from our position to the end of the stream.
async fn own_batches_ahead(engine: &Arc<Engine>, broker: &Broker) -> Result<Ahead, Fatal> {
    let me = NodeId(engine.config.node_id);
    let position = engine.replica().position().sequence;
    let folder = engine.config.folder().to_owned();
    let spool = Arc::new(Spool::new(folder));
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        match read_ahead(broker, me, position, &spool).await {
            Ok(own) => return Ok(own),
            Err(e) => {
                if backoff.tries() == 0 {
                    tracing::warn!("could not read ahead in the stream: {e}; trying again");
                }
                engine.status.failed(Component::Broker, &e);
            }
        }
        tokio::time::sleep(backoff.next_wait()).await;
    }
}

async fn read_ahead(
    broker: &Broker,
    me: NodeId,
    position: Sequence,
    spool: &Arc<Spool>,
) -> Result<Ahead, payload::PayloadError> {
    let state = broker.stream_state(ShardId::ORDER).await?;
    let mut ahead = Ahead::default();
    // Where the history is broken the intake says so; what is still there is read all the same.
    let from = position.next().max(state.first);
    if state.last < from {
        if state.last > position {
            ahead.end = Some((state.last, 0));
        }
        return Ok(ahead);
    }
    let mut reader = broker.reader(ShardId::ORDER, from);
    let mut cache = PieceCache::default();
    loop {
        let message = reader.next().await?;
        let sequence = message.sequence;
        let opened = incoming::open(sequence, &message.payload);
        let fingerprint = continuity::fingerprint(opened.hash, message.timestamp_nanos);
        ahead.end = Some((sequence, fingerprint));
        match opened.body {
            Body::Payload => cache.keep(sequence, message.payload),
            Body::Batch(mut batch) if batch.record.node == me => {
                match payload::gather(broker, &mut cache, (sequence, &mut batch), spool).await {
                    Ok(()) => {}
                    // To be had by no node: it covers nothing, but counts in the order of its publisher.
                    Err(e @ payload::PayloadError::Missing { .. }) => {
                        batch.damage = Some(e.to_string());
                    }
                    Err(e) => return Err(e),
                }
                ahead.own.push((sequence, *batch));
            }
            Body::Batch(_) | Body::Marker(_) | Body::Unreadable { .. } | Body::Newer(_) => {}
        }
        if sequence >= state.last {
            return Ok(ahead);
        }
    }
}

/// What stands in the stream behind our position.
#[derive(Default)]
struct Ahead {
    /// Batches under our id, complete, in stream order.
    own: Vec<(Sequence, IncomingBatch)>,
    /// The last message and its hash (0 where it is there no more).
    end: Option<(Sequence, u64)>,
}

/// An incarnation above all that were ever seen, recorded in KV and in the database before it is used; then what former ones have in flight.
async fn begin_incarnation(
    engine: &Arc<Engine>,
    lease: &NodeLease,
    ahead: Ahead,
) -> Result<(Position, Publishers), Fatal> {
    const PATIENCE: Duration = Duration::from_secs(1);
    let seen = ahead
        .own
        .iter()
        .map(|(_, b)| b.record.incarnation.counter)
        .max()
        .unwrap_or(0);
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let mut chosen: Option<u64> = None;
    loop {
        let result: Result<(), String> = async {
            let counter = match chosen {
                Some(counter) => counter,
                None => {
                    let recorded = lease
                        .highest_incarnation()
                        .await
                        .map_err(|e| e.to_string())?;
                    let stored = engine
                        .replica()
                        .stored_incarnation()
                        .map_err(|e| e.to_string())?;
                    next_incarnation(stored, seen, recorded)
                }
            };
            lease
                .record_incarnation(counter)
                .await
                .map_err(|e| e.to_string())?;
            chosen = Some(counter);
            let incarnation = Incarnation {
                counter,
                nonce: rand::random(),
            };
            let shutdown = engine.shutdown.clone();
            let begun = tokio::task::block_in_place(|| {
                engine
                    .replica()
                    .begin_incarnation(incarnation, PATIENCE, &|| shutdown.is_forced())
            });
            match begun {
                Ok(()) => Ok(()),
                Err(e @ ReplicaError::Locked { .. }) => Err(e.to_string()),
                Err(e) => Err(format!("could not begin to publish: {e}")),
            }
        }
        .await;
        match result {
            Ok(()) => break,
            Err(e) => {
                if backoff.tries() == 0 {
                    tracing::warn!("{e}; trying again");
                }
                engine.status.failed(Component::Broker, &e);
            }
        }
        tokio::time::sleep(backoff.next_wait()).await;
    }
    let begun = look_ahead(engine, &ahead)?;
    if engine.config.replicate {
        enter_settled(engine, &ahead).await;
    }
    Ok(begun)
}

/// Where reading begins, and what of former lives is in flight.
fn look_ahead(engine: &Arc<Engine>, ahead: &Ahead) -> Result<(Position, Publishers), Fatal> {
    let mut replica = engine.replica();
    let mut from = replica.position();
    // Who applies nothing needs nothing of what is there already.
    if let Some((sequence, hash)) = ahead.end.filter(|_| !engine.config.replicate) {
        from = Position {
            sequence,
            hash,
            ..from
        };
    }
    let publishers = replica.publishers().clone();
    let mut judged = publishers.clone();
    for (at, batch) in &ahead.own {
        replica
            .read_ahead(&mut judged, batch, *at)
            .map_err(|e| Fatal::new(ExitCode::Io, e))?;
    }
    Ok((from, publishers))
}

/// What was sent while nothing was applied (`replicate = false`) is pending again.
async fn enter_settled(engine: &Arc<Engine>, ahead: &Ahead) {
    const PATIENCE: Duration = Duration::from_secs(1);
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        let shutdown = engine.shutdown.clone();
        let entered = tokio::task::block_in_place(|| {
            engine
                .replica()
                .enter_settled(&ahead.own, PATIENCE, &|| shutdown.is_forced())
        });
        if entered.is_ok() {
            engine.status.recovered(Component::Database);
        }
        match entered {
            Ok(0) => return,
            Ok(changes) => {
                tracing::info!(
                    changes,
                    "this node applies again: what it wrote meanwhile stays in sight until the stream has reached it"
                );
                return;
            }
            Err(e) => {
                if backoff.tries() == 0 {
                    tracing::warn!("{e}; trying again");
                }
                engine.status.failed(Component::Database, &e);
            }
        }
        tokio::time::sleep(backoff.next_wait()).await;
    }
}

/// Keeps the node id until it is lost, and the connection's gauges current.
pub async fn keep(engine: &Arc<Engine>, session: &Session) -> Fatal {
    let mut restarts = 0;
    let mut reconnects = 0;
    loop {
        tokio::time::sleep(NodeLease::RENEW_EVERY).await;
        let connected = session.broker.is_connected();
        engine.status.set_nats_connected(connected);
        engine.metrics.broker_connected.set(i64::from(connected));
        let now = session.broker.reconnects();
        engine
            .metrics
            .broker_reconnects
            .inc_by(now.saturating_sub(reconnects));
        reconnects = now;
        if let Some(server) = &session.server {
            let now = server.restarts();
            engine
                .metrics
                .managed_server_restarts
                .inc_by(now.saturating_sub(restarts));
            restarts = now;
        }
        if !connected {
            let refused = session.broker.on_reconnect().borrow().refused;
            let why = refused.map_or(
                "the connection to NATS is down; changes are captured meanwhile",
                |refusal| refusal.remedy(&engine.config.nats),
            );
            engine.status.failed(Component::Broker, why);
            continue;
        }
        match session.lease.lock().await.renew().await {
            Ok(()) => engine.status.recovered(Component::Broker),
            Err(e @ LeaseError::Lost { .. }) => return Fatal::new(ExitCode::TempFail, e),
            Err(e) => engine.status.failed(Component::Broker, &e),
        }
    }
}

impl Session {
    /// Gives the node id back and ends the managed server.
    pub async fn end(self) {
        /// A lease that is not given back expires by itself.
        const RELEASE: Duration = Duration::from_secs(2);
        let Self {
            broker,
            lease,
            server,
            ..
        } = self;
        if broker.is_connected() {
            match tokio::time::timeout(RELEASE, lease.into_inner().release()).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => tracing::debug!("the node id expires by itself: {e}"),
                Err(_) => tracing::debug!("the node id expires by itself: no answer"),
            }
        }
        if let Some(server) = server {
            server.stop().await;
        }
    }
}
