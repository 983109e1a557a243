//! Nodes and a broker on this machine, and a database without any daemon beside them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Bench;
use super::app::App;
use super::broker::NatsServer;
use super::error::{BenchError, Done};
use super::node::Node;
use crate::runtime::Shutdown;

/// How long anything may take before the benchmark gives up and shows the logs.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// How long the nodes may take to be equal once nobody writes.
const SETTLE: Duration = Duration::from_secs(30);

/// What is to be started.
pub struct Shape<'a> {
    /// How many nodes.
    pub nodes: usize,
    /// More sections of their configurations.
    pub sections: String,
    /// What else the application's schema has, and its rows: runs once, then the file is copied to all.
    pub prepare: &'a dyn Fn(&App) -> Done<()>,
}

impl Shape<'_> {
    /// Two nodes with the usual schema and nothing in it.
    #[must_use]
    pub fn usual() -> Self {
        Self {
            nodes: 2,
            sections: String::new(),
            prepare: &|_| Ok(()),
        }
    }
}

/// Daemons with equal databases, and a database without any.
pub struct Cluster {
    /// The daemons; `None` while one is away.
    pub nodes: Vec<Option<Node>>,
    /// The application on each node.
    pub apps: Vec<App>,
    /// The application on a database that is not replicated.
    pub plain: App,
    /// The broker.
    pub broker: NatsServer,
    sections: String,
    stop: Shutdown,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Starts all, and waits until a row has come through to each node.
    ///
    /// # Errors
    /// What does not start or come.
    pub fn start(bench: &Bench, shape: &Shape<'_>) -> Done<Self> {
        let folder = bench.folder()?;
        let stop = bench.stop.clone();
        let plain = sub_folder(folder.path(), "plain")?.join("app.db");
        let first = App::open(&plain, &stop)?;
        (shape.prepare)(&first)?;
        first
            .conn
            .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
        // Closed, so that all of it is in the one file.
        drop(first);
        let broker = NatsServer::start(bench.options.nats_server.as_deref(), folder.path(), &stop)?;
        let (mut nodes, mut apps) = (Vec::new(), Vec::new());
        for id in 1..=shape.nodes {
            let own = sub_folder(folder.path(), &id.to_string())?;
            let database = own.join("app.db");
            std::fs::copy(&plain, &database).map_err(BenchError::file(&database))?;
            apps.push(App::open(&database, &stop)?);
            let id = id as u64;
            nodes.push(Some(Node::start(
                &own,
                id,
                broker.url(),
                &shape.sections,
                &stop,
            )?));
        }
        let mut cluster = Self {
            nodes,
            apps,
            plain: App::open(&plain, &stop)?,
            broker,
            sections: shape.sections.clone(),
            stop,
            folder,
        };
        // What an application writes before the cluster is founded is nobody's change.
        for node in cluster.nodes.iter_mut().flatten() {
            node.wait_for_log("replicating position", DEADLINE)?;
        }
        for app in [cluster.first()?, &cluster.plain] {
            app.conn.execute("INSERT INTO probes VALUES(1, 0)", [])?;
        }
        cluster.wait("probes", &[1])?;
        Ok(cluster)
    }

    /// The application on the first node.
    ///
    /// # Errors
    /// Never: there is at least one node.
    pub fn first(&self) -> Done<&App> {
        self.apps.first().ok_or(BenchError::Thread)
    }

    /// Waits until all nodes have these rows.
    ///
    /// # Errors
    /// They have not in time, a daemon has ended, or the benchmark was stopped.
    pub fn wait(&mut self, table: &str, ids: &[i64]) -> Done<()> {
        let started = Instant::now();
        let mut rounds: u32 = 0;
        for (at, app) in self.apps.iter().enumerate().skip(1) {
            for id in ids {
                while !app.has(table, *id)? {
                    if started.elapsed() > DEADLINE {
                        let logs: Vec<String> =
                            self.nodes.iter().flatten().map(Node::log).collect();
                        return Err(BenchError::Late {
                            what: format!(
                                "row {id} of {table} on node {}, which has {},",
                                at + 1,
                                app.highest(table)?
                            ),
                            after: DEADLINE,
                            log: logs.join("\n---\n"),
                        });
                    }
                    if self.stop.is_requested() {
                        return Err(BenchError::Stopped);
                    }
                    rounds = rounds.wrapping_add(1);
                    if rounds.is_multiple_of(256) {
                        for node in self.nodes.iter_mut().flatten() {
                            node.alive()?;
                        }
                    }
                    std::thread::sleep(Duration::from_micros(500));
                }
            }
        }
        Ok(())
    }

    /// Waits until what the first node's application has written has come back to it.
    ///
    /// # Errors
    /// It has not in time, or the benchmark was stopped.
    pub fn wait_until_published(&self) -> Done<()> {
        let started = Instant::now();
        loop {
            let pending = self.first()?.pending()?;
            if pending == 0 {
                return Ok(());
            }
            if started.elapsed() > DEADLINE {
                return Err(BenchError::Late {
                    what: format!("the publication of {pending} changes"),
                    after: DEADLINE,
                    log: self.nodes.iter().flatten().map(Node::log).collect(),
                });
            }
            if self.stop.wait_timeout(Duration::from_millis(5)) {
                return Err(BenchError::Stopped);
            }
        }
    }

    /// Stops the last node.
    ///
    /// # Errors
    /// It does not end well.
    pub fn stop_last(&mut self) -> Done<()> {
        match self.nodes.last_mut().and_then(Option::take) {
            Some(node) => node.stop(),
            None => Ok(()),
        }
    }

    /// Starts the last node again.
    ///
    /// # Errors
    /// The system's.
    pub fn start_last(&mut self) -> Done<()> {
        let id = self.nodes.len();
        let node = Node::start(
            &self.folder.path().join(id.to_string()),
            id as u64,
            self.broker.url(),
            &self.sections,
            &self.stop,
        )?;
        if let Some(last) = self.nodes.last_mut() {
            *last = Some(node);
        }
        Ok(())
    }

    /// The database of a node, from 1; that without a daemon is 0.
    #[must_use]
    pub fn database(&self, node: usize) -> PathBuf {
        let name = match node {
            0 => "plain".to_owned(),
            n => n.to_string(),
        };
        self.folder.path().join(name).join("app.db")
    }

    /// A rising range of ids that nobody has used.
    ///
    /// # Errors
    /// SQLite's.
    pub fn next_id(&self) -> Done<i64> {
        let mut highest = self.plain.highest("items")?;
        for app in &self.apps {
            highest = highest.max(app.highest("items")?);
        }
        Ok(highest + 1)
    }

    /// All nodes must hold the same rows in the end: a fast benchmark of something wrong is worth nothing.
    ///
    /// # Errors
    /// [`BenchError::Differs`].
    pub fn compare(&mut self) -> Done<Vec<String>> {
        let marker = self.first()?.highest("probes")? + 1;
        self.first()?
            .conn
            .execute("INSERT INTO probes VALUES(?1, 0)", [marker])?;
        self.wait("probes", &[marker])?;
        let started = Instant::now();
        loop {
            match self.equal() {
                // What another node's application wrote last may still be on its way.
                Err(BenchError::Differs { .. }) if started.elapsed() < SETTLE => {}
                found => return found,
            }
            if self.stop.wait_timeout(Duration::from_millis(100)) {
                return Err(BenchError::Stopped);
            }
        }
    }

    fn equal(&self) -> Done<Vec<String>> {
        let mut equal = Vec::new();
        for table in tables(self.first()?)? {
            let mut first: Option<String> = None;
            for app in &self.apps {
                let found = digest(app, &table)?;
                match &first {
                    None => first = Some(found),
                    Some(first) if *first == found => {}
                    Some(first) => {
                        return Err(BenchError::Differs {
                            table,
                            first: first.clone(),
                            other: found,
                        });
                    }
                }
            }
            equal.push(format!(
                "table {table} is equal on {} nodes: {}",
                self.apps.len(),
                first.unwrap_or_default()
            ));
        }
        Ok(equal)
    }
}

/// The application's tables.
fn tables(app: &App) -> Done<Vec<String>> {
    let mut stmt = app.conn.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB '__harmonylite__*' AND name NOT GLOB 'sqlite_*' ORDER BY name",
    )?;
    let names = stmt.query_map([], |r| r.get(0))?;
    Ok(names.collect::<rusqlite::Result<_>>()?)
}

/// Rows of a table, and a hash over every value of them.
fn digest(app: &App, table: &str) -> Done<String> {
    let mut stmt = app
        .conn
        .prepare(&format!("SELECT * FROM {table} ORDER BY id"))?;
    let columns = stmt.column_count();
    let mut rows = stmt.query([])?;
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    let mut count = 0u64;
    while let Some(row) = rows.next()? {
        count += 1;
        for column in 0..columns {
            match row.get_ref(column)? {
                rusqlite::types::ValueRef::Null => hash.update(&[0]),
                rusqlite::types::ValueRef::Integer(i) => hash.update(&i.to_le_bytes()),
                rusqlite::types::ValueRef::Real(r) => hash.update(&r.to_le_bytes()),
                rusqlite::types::ValueRef::Text(t) | rusqlite::types::ValueRef::Blob(t) => {
                    hash.update(&t.len().to_le_bytes());
                    hash.update(t);
                }
            }
        }
    }
    Ok(format!("{count} rows, {:016x}", hash.digest()))
}

/// A folder inside another.
///
/// # Errors
/// The system's.
pub fn sub_folder(folder: &Path, name: &str) -> Done<PathBuf> {
    let path = folder.join(name);
    std::fs::create_dir(&path).map_err(BenchError::file(&path))?;
    Ok(path)
}
