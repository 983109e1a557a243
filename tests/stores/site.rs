//! A store's server with what the cases need to know about it.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harmonylite::change::position::NodeId;
use harmonylite::config::{Config, SnapshotConfig, SnapshotStore as Kind};
use harmonylite::store::{Key, Limits, SnapshotStore};
use harmonylite::stream::Broker;

use crate::cable::Cable;
use crate::nats::{NatsServer, nats_config};

/// What no error and no name may hold.
pub const SECRET: &str = "hun&ter2";

/// A store's server, alone to one case.
pub struct Site {
    /// How to reach it.
    pub config: SnapshotConfig,
    /// The connection that the NATS store needs.
    pub broker: Option<Broker>,
    /// What runs between; a folder has none.
    pub cable: Option<Cable>,
    /// Where the server keeps the objects, one file each, if it does.
    pub files: Option<PathBuf>,
    /// Whether replacing leaves a moment without the object.
    pub has_gaps: bool,
    /// Room for the case's own files.
    pub room: tempfile::TempDir,
    /// Ends with the case.
    #[expect(dead_code, reason = "for its destructor alone")]
    pub server: Box<dyn Any + Send + Sync>,
}

impl Site {
    /// The store with these limits.
    pub fn open(&self, limits: Limits) -> Box<dyn SnapshotStore> {
        harmonylite::store::open_with(&self.config, self.broker.clone(), limits).unwrap()
    }

    /// The store as the daemon has it, with shorter waits.
    pub fn store(&self) -> Box<dyn SnapshotStore> {
        self.open(limits(8))
    }

    /// A path for a file of the case.
    pub fn path(&self, name: &str) -> PathBuf {
        self.room.path().join(name)
    }

    /// A file of the case with this content.
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

/// The usual limits with short waits, and this number of tries.
pub fn limits(tries: u32) -> Limits {
    Limits {
        tries,
        first_wait: Duration::from_millis(50),
        longest_wait: Duration::from_secs(2),
        ..Limits::default()
    }
}

pub fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

/// `[snapshot]` with the defaults and this store.
pub fn config(store: Kind) -> SnapshotConfig {
    let defaults = Config::with_defaults("/nowhere/app.db", 1);
    SnapshotConfig {
        store,
        ..defaults.snapshot
    }
}

/// Bytes that do not compress and do not repeat; another `seed`, other bytes.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut all: Vec<u8> = std::iter::repeat_with(&mut next)
        .take(len.div_ceil(8))
        .flatten()
        .collect();
    all.truncate(len);
    all
}

/// The names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub async fn folder() -> Option<Site> {
    let place = tempfile::tempdir().unwrap();
    let mut config = config(Kind::File);
    config.file_path = place.path().to_owned();
    Some(Site {
        files: Some(config.file_path.clone()),
        config,
        broker: None,
        cable: None,
        has_gaps: false,
        room: tempfile::tempdir().unwrap(),
        server: Box::new(place),
    })
}

pub async fn nats() -> Option<Site> {
    let server = NatsServer::start();
    let cable = Cable::to(server.port()).await;
    let url = format!("nats://127.0.0.1:{}", cable.port());
    let broker = Broker::connect(&nats_config(&url), &[url], NodeId(1))
        .await
        .unwrap();
    Some(Site {
        config: config(Kind::Nats),
        broker: Some(broker),
        cable: Some(cable),
        files: None,
        has_gaps: false,
        room: tempfile::tempdir().unwrap(),
        server: Box::new(server),
    })
}
