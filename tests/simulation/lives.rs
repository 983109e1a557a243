//! Lives and deaths of nodes: starts as the daemon does them, crashes, older files, copies, other ids.

use std::time::Duration;

use harmonylite::apply::incoming::Body;
use harmonylite::change::position::{BatchNumber, Incarnation, NodeId};
#[cfg(feature = "planted-bugs")]
use harmonylite::planted::{self, Bug};
use harmonylite::replica::lifecycle::OpenOptions;
use harmonylite::replica::{Replica, ReplicaError};
use harmonylite::sqlite::connection::open_reader;
use harmonylite::state::node::next_incarnation;

use crate::Out;
use crate::node::{Flying, late_columns, open_app, private_count, remove_file};
use crate::rng::Rng;
use crate::schema::PRIVATE;
use crate::world::{Saved, World, unsent_private};

/// So many copies of databases are kept in a run.
const FILES: usize = 5;
/// What a node keeps of what it has published: more than any run does.
const KEPT: u64 = 1 << 30;
/// So many nodes there are at most.
pub const NODES: usize = 6;

impl World {
    /// Starts a node as the daemon does.
    pub fn start(&mut self, n: usize, r: &mut Rng) -> Out<()> {
        self.crash(n);
        self.reach(n, true);
        let (id, uid, path) = (
            self.nodes[n].id,
            self.nodes[n].uid,
            self.nodes[n].path.clone(),
        );
        let options = OpenOptions {
            node_id: id,
            publish: self.nodes[n].publish,
            include: Vec::new(),
            exclude: Vec::new(),
            fire_triggers: Some(Vec::new()),
        };
        let mut replica = match Replica::open(&path, &options, Duration::ZERO, &|| true) {
            Ok(r) => r,
            Err(ReplicaError::Locked { .. }) => {
                self.count("start while the database is locked");
                return Ok(());
            }
            Err(e) => return Err(format!("node {uid} open: {e}")),
        };
        if self.snapshots.is_some() {
            replica.keep(KEPT).map_err(|e| e.to_string())?;
        }
        if !self.settle(n, &mut replica, r)? {
            return Ok(());
        }
        let at = replica.position().sequence.0 as usize;
        let stored = replica.stored_incarnation().map_err(|e| e.to_string())?;
        let streamed = ((at + 1).max(self.stream.first())..=self.stream.end())
            .filter_map(|place| match self.stream.message(place)?.body {
                Body::Batch(b) if b.record.node == id => Some(b.record.incarnation.counter),
                _ => None,
            })
            .max()
            .unwrap_or(0);
        let kept = self
            .kv
            .as_ref()
            .and_then(|kv| kv.get(&id.0))
            .copied()
            .unwrap_or(0);
        let counter = next_incarnation(stored, streamed, kept);
        if let Some(kv) = &mut self.kv {
            kv.insert(id.0, counter);
        }
        if self.faults && r.chance(20) {
            self.count("crash before the incarnation is kept");
            return Ok(());
        }
        let incarnation = Incarnation {
            counter,
            nonce: r.next(),
        };
        replica
            .begin_incarnation(incarnation, Duration::ZERO, &|| true)
            .map_err(|e| e.to_string())?;
        if self.faults && r.chance(20) {
            self.count("crash before reading ahead");
            return Ok(());
        }
        let mut seen = replica.publishers().clone();
        let mut ahead = 0;
        let mut flying = Flying::default();
        let mut last_ahead = (at, 0);
        let mut own = Vec::new();
        for place in (at + 1).max(self.stream.first())..=self.stream.end() {
            let entry = &self.stream.entries[place];
            // What is not to be had on any node covers nothing.
            let Some(message) = self.stream.message(place) else {
                continue;
            };
            if let Body::Batch(batch) = &message.body {
                last_ahead = (place, message.hash);
                ahead += u64::from(entry.taken.is_some() && batch.record.node == id);
                if entry.taken.is_some() && batch.record.node == id {
                    for covers in batch.covered().map_err(|e| e.to_string())? {
                        let table = &batch.record.tables[covers.table as usize].name;
                        flying.rows.extend(
                            covers
                                .rows()
                                .map(|(id, stamp)| (table.clone(), id, i64::from(stamp))),
                        );
                    }
                }
                replica
                    .read_ahead(&mut seen, batch, message.sequence)
                    .map_err(|e| e.to_string())?;
                if batch.record.node == id {
                    own.push((message.sequence, (**batch).clone()));
                }
            }
        }
        if self.nodes[n].replicate {
            let entered = replica
                .enter_settled(&own, Duration::ZERO, &|| true)
                .map_err(|e| e.to_string())?;
            self.add("settled changes entered again", entered);
        }
        self.add("own batch ahead at a start", ahead);
        self.count("start");
        self.say(|| {
            format!("node {uid} starts as {id} in {incarnation} at {at}, {ahead} own batches ahead")
        });
        let reader = match self.nodes[n].spare_reader.take() {
            Some(reader) => reader,
            None => open_reader(&path).map_err(|e| e.to_string())?,
        };
        self.nodes[n].reader = Some(reader);
        let (end, hash) = (
            self.stream.end(),
            self.stream.entries[self.stream.end()].incoming.hash,
        );
        let gate = self.gate();
        let node = &mut self.nodes[n];
        node.replica = Some(replica);
        node.cutter = Default::default();
        node.scanned = Default::default();
        node.gate = gate;
        node.captures = true;
        node.flying = flying;
        node.echoed = BatchNumber(0);
        node.ahead = last_ahead;
        node.read_at = (end, hash);
        node.halted = None;
        node.unverified = true;
        self.set_goal(n, true);
        self.announce(n);
        Ok(())
    }

    /// The daemon is gone; what it had made may still arrive.
    pub fn crash(&mut self, n: usize) {
        let me = self.nodes[n].id;
        let late = self.nodes[n].abandon();
        for (shard, bytes) in late {
            self.delay(shard, bytes, me);
        }
        let node = &mut self.nodes[n];
        node.life += 1;
        node.replica = None;
        node.seen = None;
        if let Some(reader) = node.reader.take() {
            node.spare_reader = Some(reader);
        }
    }

    pub fn crash_step(&mut self, n: usize, r: &mut Rng) -> Out<()> {
        let uid = self.nodes[n].uid;
        self.say(|| format!("node {uid} crashes"));
        let half = self.nodes[n]
            .sending
            .unacknowledged()
            .is_some_and(|f| !f.outbox.batch().sections.is_empty());
        if half {
            self.count("crash between payload and commit record");
        }
        #[cfg(feature = "planted-bugs")]
        if half
            && planted::is(Bug::PartsWithoutRecord)
            && let Some(record) = self.nodes[n]
                .sending
                .unacknowledged()
                .and_then(|f| f.outbox.commit())
        {
            self.stream.imply(record);
        }
        self.count("crash");
        self.crash(n);
        if self.nodes[n].held.is_some() && r.chance(500) {
            self.count("crash in the middle of an application's transaction");
            self.finish_app(n, false)?;
        }
        if r.chance(600) {
            self.start(n, r)
        } else {
            Ok(())
        }
    }

    pub fn save(&mut self, n: usize) -> Out<()> {
        if self.files.len() >= FILES || self.nodes[n].held.is_some() {
            return Ok(());
        }
        let node = &self.nodes[n];
        let path = self.folder.join(format!("saved-{}.db", self.step));
        node.app
            .execute("VACUUM INTO ?1", [path.to_string_lossy()])
            .map_err(|e| e.to_string())?;
        let uid = node.uid;
        let behind = if node.replicate {
            node.behind
        } else {
            self.stream.end()
        };
        let saved = Saved {
            path,
            uid,
            position: node.stored_position()?,
            history: node.history.clone(),
            line: node.line.clone(),
            behind,
        };
        self.files.push(saved);
        self.count("file saved");
        self.say(|| format!("node {uid}'s file is saved"));
        Ok(())
    }

    /// An older file takes the place of the database.
    pub fn put_back(&mut self, n: usize, r: &mut Rng) -> Out<()> {
        let uid = self.nodes[n].uid;
        let own: Vec<usize> = (0..self.files.len())
            .filter(|f| self.files[*f].uid == uid)
            .collect();
        if own.is_empty() {
            return Ok(());
        }
        let file = &self.files[*r.pick(&own)];
        let (history, line, behind) = (file.history.clone(), file.line.clone(), file.behind);
        let file = file.path.clone();
        self.finish_app(n, false)?;
        self.crash(n);
        let path = self.nodes[n].path.clone();
        self.nodes[n].spare_reader = None;
        self.nodes[n].app = rusqlite::Connection::open_in_memory().map_err(|e| e.to_string())?;
        remove_file(&path);
        std::fs::copy(&file, &path).map_err(|e| e.to_string())?;
        self.nodes[n].app = open_app(&path, self.app)?;
        self.nodes[n].late = late_columns(&self.nodes[n].app, &self.specs)?;
        self.nodes[n].history = history;
        self.nodes[n].line = line;
        self.nodes[n].behind = behind;
        (self.nodes[n].publish, self.nodes[n].replicate) = (true, true);
        self.nodes[n].last_own = None;
        self.nodes[n].floor = 0;
        self.nodes[n].seen_own = 0;
        self.count("older file put back");
        self.say(|| {
            format!(
                "an older file of node {uid} is put back: {}",
                file.display()
            )
        });
        // Where nothing captures, what is written is nobody's.
        let captures: bool = self.nodes[n]
            .app
            .query_row(
                "SELECT EXISTS(SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND name GLOB '__harmonylite__*')",
                [],
                |r| r.get(0),
            )
            .map_err(|e| e.to_string())?;
        if captures && r.chance(600) {
            self.count("written before the start on an older file");
            self.application(n, r)?;
            self.finish_app(n, true)?;
        }
        if self.nodes[n].last_own.is_none() {
            let mut mine: std::collections::HashSet<(i64, i64)> =
                unsent_private(&self.nodes[n].app)?
                    .into_iter()
                    .filter(|(node, ..)| *node == uid)
                    .map(|(_, id, stamp)| (id, stamp))
                    .collect();
            for entry in &self.stream.entries {
                if let (Body::Batch(b), Some(record)) = (&entry.incoming.body, &entry.taken)
                    && record.node == self.nodes[n].id
                {
                    for covers in b.covered().map_err(|e| e.to_string())? {
                        if record.tables[covers.table as usize].name == PRIVATE {
                            for (id, stamp) in covers.rows() {
                                mine.remove(&(id, i64::from(stamp)));
                            }
                        }
                    }
                }
            }
            if mine.is_empty() {
                self.nodes[n].floor =
                    private_count(&self.specs, self.stream.state(self.stream.end()), uid);
            }
        }
        self.start(n, r)
    }

    /// A database is copied to another machine: to a new node, or by mistake with the same node id.
    pub fn copy(&mut self, r: &mut Rng, same_id: bool) -> Out<()> {
        if self.files.is_empty() || self.nodes.len() >= NODES {
            return Ok(());
        }
        let file = r.below(self.files.len());
        let from = self.files[file].uid;
        let path = self.fresh_path();
        std::fs::copy(&self.files[file].path, &path).map_err(|e| e.to_string())?;
        let id = match self.nodes.iter().find(|n| n.uid == from) {
            Some(node) if same_id => node.id,
            _ => {
                self.next_id += 1;
                NodeId(self.next_id - 1)
            }
        };
        let saved = &self.files[file];
        let (history, line, behind) = (saved.history.clone(), saved.line.clone(), saved.behind);
        let n = self.add_node(r, id, path)?;
        self.nodes[n].history = history;
        self.nodes[n].line = line;
        self.nodes[n].behind = behind;
        for (uid, ..) in unsent_private(&self.nodes[n].app)? {
            self.tainted.insert(uid);
        }
        let uid = self.nodes[n].uid;
        self.count(if same_id {
            "two nodes with one id"
        } else {
            "database copied to a new node"
        });
        self.say(|| format!("node {uid} is a copy of node {from} as {id}"));
        self.start(n, r)
    }

    /// A node takes another id.
    pub fn rename(&mut self, n: usize, r: &mut Rng) -> Out<()> {
        let id = NodeId(self.next_id);
        self.next_id += 1;
        self.finish_app(n, true)?;
        // What it has not sent it takes over as its own; what it has sent under the old name, too.
        for (uid, ..) in unsent_private(&self.nodes[n].app)? {
            if uid != self.nodes[n].uid {
                self.tainted.insert(uid);
            }
        }
        self.nodes[n].id = id;
        self.count("node renamed");
        self.start(n, r)
    }

    pub fn lose(&mut self, n: usize) {
        if self.nodes.len() > 1 {
            self.crash(n);
            let node = self.nodes.remove(n);
            self.count("node lost for ever");
            self.say(|| format!("node {} is lost for ever", node.uid));
        }
    }
}
