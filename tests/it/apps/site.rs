//! An application on two nodes: a server and a daemon at each.

use super::server::{Server, port};
use super::{Schema, leave_as_it_was, schema};
use crate::harness::{Cluster, Node, eventually};

/// Starts the application's server on a node's database.
pub type Serve = fn(&Node, u16) -> Server;

/// Two nodes with a server each.
pub struct Site {
    pub cluster: Cluster,
    pub servers: Vec<Server>,
    serve: Serve,
    pub made: Schema,
}

/// How an application comes to two nodes.
pub struct Setup {
    /// The database's name in the node's folder.
    pub file: &'static str,
    /// What else lies there and belongs to it.
    pub beside: &'static [&'static str],
    /// Sections of the configuration.
    pub sections: &'static str,
    /// Lets the application make its database.
    pub prepare: fn(&Node),
    pub serve: Serve,
}

/// What goes wrong around each request.
pub trait Weather {
    fn before(&mut self, _step: usize) {}
    /// Returns once both servers know all.
    fn after(&mut self, _step: usize) {}
}

/// One server, and nothing else.
pub struct Fair;

impl Weather for Fair {}

impl Site {
    /// The application makes its database on the first node; the second gets a copy, while nobody has it open; then daemons and servers start.
    pub fn new(setup: &Setup) -> Self {
        let mut cluster = Cluster::prepared(0, "");
        let url = cluster.server.url();
        cluster.nodes = (1..=2).map(|id| Node::bare(id, &url)).collect();
        for node in &mut cluster.nodes {
            node.file = setup.file;
            node.sections.push_str(setup.sections);
        }
        (setup.prepare)(&cluster[0]);
        let made = schema(&cluster[0]);
        for name in setup.beside.iter().chain(&[setup.file]) {
            let (from, to) = (&cluster[0].folder, &cluster[1].folder);
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
        for node in &mut cluster.nodes {
            node.start_replicating();
        }
        let servers = cluster
            .nodes
            .iter()
            .map(|node| (setup.serve)(node, port()))
            .collect();
        Self {
            cluster,
            servers,
            serve: setup.serve,
            made,
        }
    }

    fn new_node(&self) -> Node {
        let id = self.cluster.nodes.len() as u64 + 1;
        let mut node = Node::bare(id, &self.cluster.server.url());
        node.file = self.cluster[0].file;
        node
    }

    /// Adds a node that has nothing: its daemon fills the database before the application starts.
    pub fn join(&mut self) {
        let mut node = self.new_node();
        node.start_replicating();
        self.servers.push((self.serve)(&node, port()));
        self.cluster.nodes.push(node);
        self.cluster.converge();
    }

    /// Adds a node whose application has made its own database, and runs.
    pub fn join_with_its_own(&mut self) {
        let mut node = self.new_node();
        self.servers.push((self.serve)(&node, port()));
        node.start_replicating();
        self.cluster.nodes.push(node);
        self.cluster.converge();
    }

    /// Where the two servers are.
    pub fn ports(&self) -> (u16, u16) {
        (self.servers[0].port, self.servers[1].port)
    }

    /// Kills a server and starts it again.
    pub fn restart(&mut self, number: usize) {
        let server = self.servers.remove(number);
        let port = server.port;
        server.kill();
        let again = (self.serve)(&self.cluster[number], port);
        self.servers.insert(number, again);
    }

    /// Waits until people have written at both nodes, by these counts, which the applications make rise.
    fn both_write(&self, counts: [&str; 2]) {
        for (node, count) in self.cluster.nodes.iter().zip(counts) {
            let before = node.integer(count);
            eventually("people write", || node.integer(count) > before);
        }
    }

    /// Six troubles, one after the other; both nodes are written to while each lasts, and after it.
    pub fn everything_fails(&mut self, counts: [&str; 2]) {
        for round in 0..6 {
            match round % 3 {
                0 => {
                    self.cluster[0].kill();
                    self.both_write(counts);
                    self.cluster[0].start_replicating();
                }
                1 => {
                    self.cluster.server.pause();
                    self.cluster[1].kill();
                    self.both_write(counts);
                    self.cluster.server.resume();
                    self.cluster[1].start_replicating();
                }
                _ => {
                    let ended = self.cluster[0].run(&["snapshot", "save"]);
                    assert_eq!(ended.code, Some(0), "{}", ended.said);
                }
            }
            self.both_write(counts);
        }
    }

    /// Ends all, and looks whether everything is as it should be. `excused`: what the application's log may say of errors.
    pub fn end(mut self, excused: &str) {
        for server in self.servers.drain(..) {
            let log = server.log();
            for error in log.split("Traceback").skip(1) {
                assert!(!excused.is_empty() && error.contains(excused), "{log}");
            }
            server.stop();
        }
        leave_as_it_was(&mut self.cluster, &self.made);
    }
}

/// Each step meets another trouble.
impl Weather for Site {
    fn before(&mut self, step: usize) {
        match step % 4 {
            0 => self.cluster[0].kill(),
            1 => self.cluster.server.pause(),
            2 => self.cluster[1].kill(),
            _ => self.restart(step / 4 % 2),
        }
    }

    fn after(&mut self, step: usize) {
        match step % 4 {
            0 => self.cluster[0].start_replicating(),
            1 => self.cluster.server.resume(),
            2 => self.cluster[1].start_replicating(),
            _ => {}
        }
        self.cluster.converge();
    }
}
