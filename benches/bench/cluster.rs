//! Two nodes and a broker on this machine.

use std::path::PathBuf;
use std::time::Duration;

use super::app::App;
use super::broker::NatsServer;
use super::node::Node;

/// How long anything may take before the benchmark gives up and shows the logs.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// Two daemons, A and B, with equal tables, and a database without any daemon.
pub struct Cluster {
    /// The first node's daemon.
    pub a: Node,
    /// The second's; `None` while it is away.
    pub b: Option<Node>,
    /// The application on the first node.
    pub app_a: App,
    /// The application on the second node.
    pub app_b: App,
    /// The application on a database that is not replicated.
    pub plain: App,
    /// The broker.
    pub broker: NatsServer,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// Starts all, and waits until a row has come through.
    pub fn start() -> Self {
        println!("starting nats-server and two nodes");
        let folder = tempfile::tempdir().unwrap();
        let [a, b, plain] = ["a", "b", "plain"].map(|n| {
            let path = folder.path().join(n);
            std::fs::create_dir(&path).unwrap();
            path
        });
        let [app_a, app_b, plain] = [&a, &b, &plain].map(|f| App::open(&f.join("app.db")));
        let broker = NatsServer::start(folder.path());
        let a = Node::start(&a, 1, &broker.url());
        let b = Node::start(&b, 2, &broker.url());
        let cluster = Self {
            a,
            b: Some(b),
            app_a,
            app_b,
            plain,
            broker,
            folder,
        };
        // What an app writes before the very first start of a daemon is nobody's change.
        for app in [&cluster.app_a, &cluster.app_b] {
            app.wait_for_capture(DEADLINE);
        }
        cluster
            .app_a
            .conn
            .execute("INSERT INTO probes VALUES(1, 0)", [])
            .unwrap();
        cluster
            .plain
            .conn
            .execute("INSERT INTO probes VALUES(1, 0)", [])
            .unwrap();
        cluster.wait("probes", 1);
        cluster
    }

    /// Waits until the second node has a row.
    pub fn wait(&self, table: &str, id: i64) {
        let arrived = self.app_b.wait_for(table, id, DEADLINE);
        assert!(
            arrived,
            "row {id} of {table} did not arrive in {} s; the second node has {}.\nA: {}\nB: {}",
            DEADLINE.as_secs(),
            self.app_b.highest(table),
            self.a.log(),
            self.b.as_ref().map(Node::log).unwrap_or_default()
        );
    }

    /// Starts the second node again.
    pub fn start_b(&mut self) {
        self.b = Some(Node::start(&self.folder_of("b"), 2, &self.broker.url()));
    }

    /// The folder of "a", "b" or "plain".
    pub fn folder_of(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A rising range of ids that nobody has used.
    pub fn next_id(&self) -> i64 {
        self.app_a
            .highest("items")
            .max(self.app_b.highest("items"))
            .max(self.plain.highest("items"))
            + 1
    }

    /// Both nodes must hold the same rows in the end: a fast benchmark of something wrong is worth nothing.
    pub fn compare(&self) {
        self.wait("items", self.app_a.highest("items"));
        for table in ["items", "probes"] {
            let sum = |app: &App| -> (i64, i64) {
                let sql = if table == "items" {
                    "SELECT count(*), coalesce(sum(id + quantity), 0) FROM items"
                } else {
                    "SELECT count(*), coalesce(sum(id), 0) FROM probes"
                };
                app.conn
                    .query_row(sql, [], |r| Ok((r.get(0)?, r.get(1)?)))
                    .unwrap()
            };
            assert_eq!(
                sum(&self.app_a),
                sum(&self.app_b),
                "table {table} differs between the nodes"
            );
            println!(
                "table {table} is equal on both nodes: {} rows",
                self.app_a.count(table)
            );
        }
    }
}
