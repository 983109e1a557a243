//! Several nodes on one broker.

use std::ops::{Index, IndexMut};

use super::nats::NatsServer;
use super::node::{Node, broker};
use super::tables::{self, Dump};
use super::wait::eventually_ok;

/// Nodes 1, 2, … and their server. The nodes go first.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub server: NatsServer,
}

impl Cluster {
    /// Nodes with equal databases, not started.
    pub fn prepared(count: u64, schema: &str) -> Self {
        let server = broker();
        let url = server.url();
        Self {
            nodes: (1..=count).map(|id| Node::new(id, &url, schema)).collect(),
            server,
        }
    }

    /// Running nodes with equal databases; all replicate.
    pub fn new(count: u64, shards: u64, schema: &str) -> Self {
        let mut cluster = Self::prepared(count, schema);
        for node in &mut cluster.nodes {
            node.sections
                .push_str(&format!("[replication_log]\nshards = {shards}\n"));
            node.start();
        }
        // What is written before the cluster is founded is in its base too: others have the row before the batch, and what they make of it by then is a conflict with that.
        for node in &mut cluster.nodes {
            node.wait_log("replicating position");
        }
        cluster
    }

    /// Writes on each node before any has heard of the others.
    pub fn concurrently(&mut self, writes: &[impl AsRef<str>]) {
        self.converge();
        self.server.kill();
        for (node, sql) in self.nodes.iter().zip(writes) {
            node.sql(sql.as_ref());
        }
        self.server.restart();
    }

    /// Waits until nothing is pending anywhere and all nodes are equal to the bit; returns what they hold.
    pub fn converge(&self) -> Dump {
        eventually_ok("the nodes are equal", || {
            let pending: Vec<i64> = self.nodes.iter().map(Node::pending).collect();
            if pending.iter().any(|count| *count != 0) {
                return Err(format!("pending: {pending:?}"));
            }
            let (first, others) = self.nodes.split_first().unwrap();
            let expected = first.dump();
            for node in others {
                if let Some(text) = tables::difference(&expected, &node.dump()) {
                    return Err(format!("nodes {} and {}: {text}", first.id, node.id));
                }
            }
            Ok(expected)
        })
    }

    /// Waits until all nodes hold exactly this.
    pub fn converge_to(&self, expected: &Dump) {
        eventually_ok("the nodes hold what was written", || {
            for node in &self.nodes {
                if let Some(text) = tables::difference(expected, &node.dump()) {
                    return Err(format!(
                        "expected (left) and node {} (right): {text}",
                        node.id
                    ));
                }
            }
            Ok(())
        });
        assert_eq!(&self.converge(), expected);
    }

    /// No daemon has ended by itself.
    pub fn assert_running(&mut self) {
        for node in &mut self.nodes {
            node.assert_running();
        }
    }
}

impl Index<usize> for Cluster {
    type Output = Node;

    fn index(&self, index: usize) -> &Node {
        &self.nodes[index]
    }
}

impl IndexMut<usize> for Cluster {
    fn index_mut(&mut self, index: usize) -> &mut Node {
        &mut self.nodes[index]
    }
}
