//! Restores: who must begin from a snapshot does so at its start, as the daemon does; new nodes, lost files and files that were put back by hand among them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use harmonylite::apply::incoming::Body;
use harmonylite::change::position::NodeId;
use harmonylite::replica::restore::{RestoreError, RestoreOptions};
use harmonylite::replica::{Replica, ReplicaError, copy};
use harmonylite::sqlite::connection::open_reader;
use rusqlite::Connection;

use crate::Out;
use crate::check;
use crate::lives::NODES;
use crate::model::{Key, Val};
use crate::node::{
    Flying, View, is_no_table, late_columns, open_app, private_count, remove_file, val, view,
};
use crate::rng::Rng;
use crate::schema::TableSpec;
use crate::steps::{break_after, mend};
use crate::template::{self, Choice};
use crate::world::{World, templates};

/// What a change log holds: by id and stamp the kind of change, and whose row it is of.
type Log = BTreeMap<(i64, i64), (i64, Key)>;

/// The change log of a table.
fn read_log(conn: &Connection, spec: &TableSpec) -> Out<Log> {
    let keys: Vec<String> = spec
        .key_names()
        .iter()
        .map(|k| format!("val_{k}"))
        .collect();
    let sql = format!(
        "SELECT id, stamp, type, {} FROM __harmonylite__{}_change_log WHERE type <> 3",
        keys.join(", "),
        spec.name
    );
    let read = conn.prepare(&sql).and_then(|mut stmt| {
        stmt.query_map([], |row| {
            let key: Vec<Val> = (0..keys.len())
                .map(|i| row.get_ref(i + 3).map(val))
                .collect::<Result<_, _>>()?;
            Ok(((row.get(0)?, row.get(1)?), (row.get(2)?, spec.normal(&key))))
        })?
        .collect()
    });
    match read {
        Err(e) if is_no_table(&e) => Ok(Log::new()),
        other => other.map_err(|e| e.to_string()),
    }
}

/// A node's tables and change logs around a restore.
struct Seen {
    view: View,
    logs: Vec<Log>,
}

/// In which tables the late column is there. Not by the app's connection: a transaction that it has begun would read from now on what was there before the
/// daemon's next write, and could not write itself.
fn late_in(path: &std::path::Path, specs: &[TableSpec]) -> Out<Vec<bool>> {
    late_columns(&open_reader(path).map_err(|e| e.to_string())?, specs)
}

impl World {
    fn see(&self, n: usize) -> Out<Seen> {
        let conn = open_reader(&self.nodes[n].path).map_err(|e| e.to_string())?;
        let view = view(&conn, &self.specs, &self.nodes[n].late, &Flying::default())?;
        let logs: Out<Vec<Log>> = self.specs.iter().map(|s| read_log(&conn, s)).collect();
        Ok(Seen { view, logs: logs? })
    }

    /// What a node must settle before it reads the stream: whether it begins from a snapshot. `false`: it could not yet, or was killed at it.
    pub fn settle(&mut self, n: usize, replica: &mut Replica, r: &mut Rng) -> Out<bool> {
        let Some(snapshots) = &self.snapshots else {
            return Ok(true);
        };
        if snapshots.shots.is_empty() {
            self.found(n)?;
            return self.belongs(replica);
        }
        let (position, first) = (replica.position().sequence.0 as usize, self.stream.first());
        let cluster = replica.cluster().map_err(|e| e.to_string())?;
        let another = replica.history() != self.histories.settled;
        let joins = cluster.is_none() && position == 0;
        let behind = first > position + 1 && self.nodes[n].replicate;
        if self.histories.election.is_some() && (joins || behind || another) {
            self.count("start waits for a new history");
            return Ok(false);
        }
        // Positions of another history say nothing in this one.
        let (position, behind) = if another {
            (0, true)
        } else {
            (position, behind)
        };
        let asked = std::mem::take(&mut self.nodes[n].asked);
        let reaches: Vec<_> = snapshots
            .shots
            .iter()
            .filter(|s| s.position() >= position.max(first - 1))
            .cloned()
            .collect();
        let shot = match reaches.first() {
            None if joins || behind => {
                return Err(format!(
                    "node {} stands at {position}, the stream begins at {first}, and no snapshot reaches that",
                    self.nodes[n].uid
                ));
            }
            // The newest is damaged: the one before it serves.
            Some(_) if (joins || behind) && reaches.len() > 1 && r.chance(200) => {
                self.count("restored from the one before the newest");
                reaches[1].clone()
            }
            Some(newest) if joins || behind || asked => newest.clone(),
            _ => return self.belongs(replica),
        };
        self.count(match (joins, behind) {
            _ if another => "restore: onto a new history",
            (true, _) => "restore: a node joins",
            (_, true) => "restore: behind the stream",
            _ => "restore: asked for",
        });
        let empty = replica.is_empty().map_err(|e| e.to_string())?;
        let before = if empty { None } else { Some(self.see(n)?) };
        let untouched = joins && self.stream.end() == 0;
        let keep_ours = untouched
            && copy::holds_no_rows(&open_reader(&shot.path).map_err(|e| e.to_string())?)
                .map_err(|e| e.to_string())?;
        let options = RestoreOptions {
            cluster: "simulation",
            keep_ours,
            patience: Duration::ZERO,
            stop: &|| true,
            progress: &|_| {},
        };
        if self.faults && !self.draining && !empty && self.nodes[n].held.is_none() && r.chance(60) {
            let begun = self.nodes[n].app.execute_batch("BEGIN IMMEDIATE");
            begun.map_err(|e| e.to_string())?;
            self.nodes[n].held = Some(None);
        }
        // `stop` is asked while the lock is waited for, and while rows are compared: here nothing is waited for, and a thousand rows there never are.
        let fault = self.fault(r, 200);
        let fired = fault.map(|k| break_after(replica.writer(), k));
        let restored = replica.restore(&shot.path, &options);
        if fault.is_some() {
            mend(replica.writer());
        }
        let (uid, at) = (self.nodes[n].uid, shot.position());
        match restored {
            Ok(restored) => {
                self.say(|| format!("node {uid} restores from {at}: {restored:?}"));
                self.add("restore: rows written", restored.written);
                self.add("restore: own changes entered again", restored.entered);
                self.add("restore: rows removed", restored.removed);
                self.add("restore: rows kept", restored.kept);
                self.add("restore: empty database filled", u64::from(restored.filled));
                self.add("restore: rows here are news", u64::from(keep_ours));
                if keep_ours && restored.kept > 0 {
                    // Then two nodes have written to these tables.
                    self.owners = None;
                }
            }
            Err(e) => {
                self.say(|| format!("node {uid} does not restore from {at}: {e}"));
                match e {
                    _ if fired.is_some_and(|f| f.load(Ordering::Relaxed)) => {
                        self.count("restore broken off");
                    }
                    RestoreError::Replica(ReplicaError::Locked { .. }) => {
                        self.count("restore while the database is locked");
                    }
                    RestoreError::Schema(_) if self.nodes[n].late.contains(&false) => {
                        self.count("restore waits for a column");
                    }
                    other => return Err(format!("node {uid} restore: {other}")),
                }
                // Broken off once it had taken effect: the daemon restores again.
                let moved = match &before {
                    Some(before) => {
                        let after = self.see(n)?;
                        at != position
                            || after.logs != before.logs
                            || check::equal(&self.specs, &after.view.state, &before.view.state)
                                .is_err()
                    }
                    None => at != position,
                };
                if self.nodes[n].stored_position()? == at && moved {
                    let node = &mut self.nodes[n];
                    node.late = late_in(&node.path, &self.specs)?;
                    node.captures = true;
                    node.line = Some(std::rc::Rc::clone(&shot.line));
                    self.nodes[n].history = self.lost_to_stream(&shot);
                    self.count("restore broken off once it had taken effect");
                    return Ok(false);
                }
                if let Some(before) = before {
                    let after = self.see(n)?;
                    check::equal(&self.specs, &after.view.state, &before.view.state)
                        .map_err(|e| format!("node {uid} restores half: {e}"))?;
                    if after.logs != before.logs {
                        return Err(format!("node {uid} restores half: its change logs"));
                    }
                }
                return Ok(false);
            }
        }
        let node = &mut self.nodes[n];
        node.late = late_in(&node.path, &self.specs)?;
        node.captures = true;
        node.line = Some(std::rc::Rc::clone(&shot.line));
        self.nodes[n].history = self.lost_to_stream(&shot);
        if let Some(before) = before {
            let after = self.see(n)?;
            let me = self.nodes[n].id;
            // What the stream has lost says nothing any more.
            let contained = if another || self.brittle {
                self.covered_by(&shot.path, me)?
            } else {
                self.covered_up_to(me, at)?
            };
            self.is_kept(&before, &after, &contained, keep_ours)
                .map_err(|e| format!("node {uid} restores: {e}"))?;
        }
        if self.faults && !self.draining && r.chance(100) {
            self.count("crash right after a restore");
            return Ok(false);
        }
        if !self.draining && r.chance(200) {
            self.count("written between restore and start");
            self.application(n, r)?;
            self.finish_app(n, true)?;
        }
        Ok(true)
    }

    /// The database is part of the cluster.
    fn belongs(&mut self, replica: &mut Replica) -> Out<bool> {
        match replica.set_cluster("simulation", Duration::ZERO, &|| true) {
            Ok(()) => Ok(true),
            Err(ReplicaError::Locked { .. }) => {
                self.count("start while the database is locked");
                Ok(false)
            }
            Err(e) => Err(e.to_string()),
        }
    }

    /// What was pending is pending still and shows what it did, but for what the snapshot contains of it, and cells of rows that are gone.
    fn is_kept(
        &self,
        before: &Seen,
        after: &Seen,
        contained: &BTreeSet<(String, i64, i64)>,
        keep_ours: bool,
    ) -> Out<()> {
        for (t, spec) in self.specs.iter().enumerate() {
            for (change, (kind, key)) in &before.logs[t] {
                if after.logs[t].contains_key(change)
                    || contained.contains(&(spec.name.to_owned(), change.0, change.1))
                {
                    continue;
                }
                // Cells of a row that the snapshot does not have, or that loses to one of ours.
                let gone = *kind == 2 && !after.view.state.tables[t].contains_key(key);
                if !gone {
                    return Err(format!(
                        "table {}, change {change:?} of {} is not pending any more",
                        spec.name,
                        crate::model::show(key)
                    ));
                }
            }
        }
        if !keep_ours {
            check::restored_rows_kept(&self.specs, &before.view, &after.view)?;
        }
        Ok(())
    }

    /// What batches of a node up to `at` that count have covered.
    fn covered_up_to(&self, me: NodeId, at: usize) -> Out<BTreeSet<(String, i64, i64)>> {
        let mut all = BTreeSet::new();
        for entry in &self.stream.entries[..=at] {
            if let (Body::Batch(b), Some(record)) = (&entry.incoming.body, &entry.taken)
                && record.node == me
            {
                for covers in b.covered().map_err(|e| e.to_string())? {
                    let table = &record.tables[covers.table as usize].name;
                    all.extend(
                        covers
                            .rows()
                            .map(|(id, stamp)| (table.clone(), id, i64::from(stamp))),
                    );
                }
            }
        }
        Ok(all)
    }

    // ---- who comes to need one

    /// The sequence map is removed, and the daemon is started again.
    pub fn ask_for_recovery(&mut self, n: usize, r: &mut Rng) -> Out<()> {
        self.nodes[n].asked = true;
        self.start(n, r)
    }

    /// A new node: without a database, with one of its own, or with a snapshot put in its place by hand.
    pub fn join(&mut self, r: &mut Rng) -> Out<()> {
        let snapshots = self.snapshots.as_ref().map(|s| s.shots.clone());
        let Some(shots) = snapshots.filter(|s| self.nodes.len() < NODES && !s.is_empty()) else {
            return Ok(());
        };
        let id = NodeId(self.next_id);
        self.next_id += 1;
        let path = self.fresh_path();
        remove_file(&path);
        match r.below(3) {
            0 => {
                let n = self.add_node(r, id, path)?;
                self.nodes[n].captures = false;
                self.count("node joins without a database");
                self.start(n, r)
            }
            1 => {
                let choice = Choice {
                    rows: r.below(template::ROWS),
                    captured: r.chance(700),
                    ..self.choice.clone()
                };
                let made = template::get(&templates(&self.folder), &choice)?;
                std::fs::copy(&made.path, &path).map_err(|e| e.to_string())?;
                let n = self.add_node(r, id, path)?;
                self.nodes[n].captures = choice.captured;
                self.count("node joins with a database of its own");
                if r.chance(600) {
                    self.application(n, r)?;
                    self.finish_app(n, true)?;
                }
                self.start(n, r)
            }
            _ => {
                let shot = r.pick(&shots);
                std::fs::copy(&shot.path, &path).map_err(|e| e.to_string())?;
                let n = self.add_node(r, id, path)?;
                self.nodes[n].captures = false;
                self.nodes[n].line = Some(std::rc::Rc::clone(&shot.line));
                self.nodes[n].history = self.lost_to_stream(shot);
                self.count("node joins with a snapshot put in place");
                self.start(n, r)
            }
        }
    }

    /// A node loses its database; it begins without one, or with a snapshot that is put in its place by hand.
    pub fn lose_file(&mut self, n: usize, r: &mut Rng) -> Out<()> {
        let Some(shots) = self.snapshots.as_ref().map(|s| s.shots.clone()) else {
            return Ok(());
        };
        let uid = self.nodes[n].uid;
        self.finish_app(n, false)?;
        self.crash(n);
        let path = self.nodes[n].path.clone();
        self.nodes[n].spare_reader = None;
        self.nodes[n].app = Connection::open_in_memory().map_err(|e| e.to_string())?;
        remove_file(&path);
        let by_hand = r.chance(400) && !shots.is_empty();
        let (mut line, mut history) = (None, None);
        if by_hand {
            let shot = r.pick(&shots);
            std::fs::copy(&shot.path, &path).map_err(|e| e.to_string())?;
            line = Some(std::rc::Rc::clone(&shot.line));
            history = self.lost_to_stream(shot);
        }
        let app = open_app(&path, self.app)?;
        let node = &mut self.nodes[n];
        node.late = late_columns(&app, &self.specs)?;
        node.app = app;
        node.line = line;
        node.captures = false;
        node.history = history;
        node.behind = if node.replicate { 0 } else { usize::MAX };
        node.last_own = None;
        node.seen_own = 0;
        // What the stream has of it must not be undone.
        node.floor = private_count(&self.specs, self.stream.state(self.stream.end()), uid);
        self.count(if by_hand {
            "file lost, and a snapshot put in its place"
        } else {
            "file lost"
        });
        self.say(|| format!("node {uid} loses its file; by hand: {by_hand}"));
        self.start(n, r)
    }
}
