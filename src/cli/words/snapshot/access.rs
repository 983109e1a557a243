//! The store of this node's cluster, for a command: without the daemon, and with its NATS server where the store is that.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::change::position::NodeId;
use crate::cli::exit::ExitCode;
use crate::config::{Config, SnapshotStore as Kind};
use crate::control::{Request, client};
use crate::engine::Fatal;
use crate::replica::Replica;
use crate::snapshot::catalog::{Catalog, CatalogError, Listed};
use crate::snapshot::manifest::{Manifest, short_name};
use crate::sqlite::connection;
use crate::state::node;
use crate::store::{self, StoreError};
use crate::stream::Broker;

/// How long the daemon may take to say where its server is.
const PING: Duration = Duration::from_secs(5);

/// A store, and what drives it.
pub struct Access {
    /// What drives it.
    pub runtime: Runtime,
    /// The snapshots.
    pub catalog: Catalog,
}

impl Access {
    /// Opens the configured store.
    ///
    /// # Errors
    /// What is in the way, with its exit code.
    pub fn open(config: &Config) -> Result<Self, Fatal> {
        let runtime = crate::engine::runtime(1)?;
        let broker = match config.snapshot.store {
            Kind::Nats => Some(runtime.block_on(connect(config, "the store"))?),
            Kind::S3 | Kind::WebDav | Kind::Sftp | Kind::File => None,
        };
        let store = store::open(&config.snapshot, broker).map_err(|e| store_fault(&e))?;
        let store: Arc<dyn store::SnapshotStore> = Arc::from(store);
        // A node whose database is lost looks at all there are.
        let catalog = match cluster(config) {
            Some(cluster) => Catalog::new(store, &cluster),
            None => Catalog::of_any(store),
        };
        Ok(Self { runtime, catalog })
    }

    /// Where they are.
    #[must_use]
    pub fn store_name(&self) -> &str {
        self.catalog.store_name()
    }

    /// All of them.
    ///
    /// # Errors
    /// The store's.
    pub fn list(&self) -> Result<Vec<Listed>, Fatal> {
        self.runtime
            .block_on(self.catalog.list())
            .map_err(|e| fault(&e))
    }

    /// The one that is named, or the newest for `latest`.
    ///
    /// # Errors
    /// The store's, and that there is none of this name.
    pub fn find(&self, name: &str) -> Result<Manifest, Fatal> {
        let mut seen = None;
        for listed in self.list()? {
            let key = listed.key.as_str();
            let stem = key.strip_suffix(".json").unwrap_or(key);
            let named = [stem, key, short_name(stem)].contains(&name)
                || name.strip_suffix(".db") == Some(stem);
            match listed.manifest {
                Ok(manifest) if named || name == "latest" => return Ok(manifest),
                Ok(_) => {}
                Err(error) if named => seen = Some(format!("the manifest {key} {error}")),
                Err(_) => {}
            }
        }
        Err(match seen {
            Some(damage) => Fatal::new(ExitCode::DataError, damage),
            None if name == "latest" => Fatal::new(
                ExitCode::Unavailable,
                format!(
                    "there is no snapshot in {}: harmonylite snapshot save takes one",
                    self.store_name()
                ),
            ),
            None => Fatal::new(
                ExitCode::Usage,
                format!(
                    "{} holds no snapshot of that name: harmonylite snapshot list shows them",
                    self.store_name()
                ),
            ),
        })
    }
}

/// The configured servers, or the one that the daemon runs. `what` is there, for who has to be told that it cannot be had.
pub(in crate::cli::words) async fn connect(config: &Config, what: &str) -> Result<Broker, Fatal> {
    let urls = match config.nats.urls.as_slice() {
        [] => {
            let answer = client::request(&config.db_path, Request::Ping, PING, |_| {});
            let url = answer.ok().and_then(|a| {
                let url = a.result?.get("nats_url")?.as_str()?.to_owned();
                Some(vec![url])
            });
            url.ok_or_else(|| {
                Fatal::new(
                    ExitCode::Unavailable,
                    format!("{what} is in the NATS server that the daemon runs (nats.urls is empty), and no daemon is running: start harmonylite first"),
                )
            })?
        }
        urls => urls.to_vec(),
    };
    Broker::connect(&config.nats, &urls, NodeId(config.node_id))
        .await
        .map_err(|e| Fatal::new(ExitCode::Unavailable, e))
}

/// The cluster that the database is part of, where there is a database.
fn cluster(config: &Config) -> Option<String> {
    if !config.db_path.exists() {
        return None;
    }
    let reader = connection::open_reader(&config.db_path).ok()?;
    Replica::has_state(&reader)
        .ok()?
        .then(|| node::cluster(&reader).ok().flatten())
        .flatten()
}

fn store_fault(error: &StoreError) -> Fatal {
    let code = match error {
        StoreError::Missing { .. } | StoreError::Passing { .. } => ExitCode::Unavailable,
        StoreError::Permanent { .. } | StoreError::TooLong { .. } => ExitCode::Failed,
        StoreError::LeftOut { .. } | StoreError::Configuration { .. } => ExitCode::Config,
    };
    Fatal::new(code, error)
}

/// What it means that a snapshot cannot be had.
pub fn fault(error: &CatalogError) -> Fatal {
    match error {
        CatalogError::Store(error) => store_fault(error),
        CatalogError::Damaged { .. } | CatalogError::Name(_) => {
            Fatal::new(ExitCode::DataError, error)
        }
    }
}
