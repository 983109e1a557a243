//! The steps of a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use harmonylite::apply::incoming::{Body, Incoming};
use harmonylite::change::position::{BatchNumber, Incarnation, NodeId, Sequence, ShardId};
use harmonylite::changelog::in_flight::Carrier;
use harmonylite::changelog::scan::ScanError;
#[cfg(feature = "planted-bugs")]
use harmonylite::planted::{self, Bug};
use harmonylite::replica::group::{ApplyOptions, Stopped};
use harmonylite::replica::lifecycle::OpenOptions;
use harmonylite::replica::{Replica, ReplicaError};
use harmonylite::sqlite::connection::open_reader;
use harmonylite::state::node::next_incarnation;

use crate::Out;
use crate::check;
use crate::model::Val;
use crate::node::{
    Flying, Node, is_refusal, late_columns, newest_ids, open_app, private_count, remove_file,
};
use crate::rng::Rng;
use crate::schema::PRIVATE;
use crate::world::{Saved, World, unsent_private};

/// So many copies of databases are kept in a run.
const FILES: usize = 5;
const NODES: usize = 6;

impl World {
    /// One step; the node that it was about.
    pub fn act(&mut self, r: &mut Rng) -> Out<Option<usize>> {
        let n = r.below(self.nodes.len());
        if self.nodes[n].replica.is_none() && r.chance(400) {
            self.start(n, r)?;
            return Ok(Some(n));
        }
        if self.faults && self.rare(n, r)? {
            return Ok(Some(n));
        }
        match r.below(1000) {
            0..=329 => self.application(n, r)?,
            330..=479 if !self.goes_on(n, r)? => self.application(n, r)?,
            330..=479 => {
                let fault = self.fault(r, 40);
                self.scan_with(n, fault)?;
                if r.chance(500)
                    && self.nodes[n]
                        .replica
                        .as_ref()
                        .is_some_and(Replica::needs_tidying)
                {
                    self.tidy(n)?;
                }
            }
            480..=669 => {
                let pieces = r.range(1, 12);
                self.send(n, pieces, true, r)?;
            }
            670..=869 => {
                let fault = self.fault(r, 60);
                let (max, short) = (r.range(1, 8), r.chance(300));
                self.deliver(n, max, short, fault, r)?;
            }
            870..=884 => self.tidy(n)?,
            885..=899 => {
                self.nodes[n].limits = self.limits(r);
                self.count("limits changed");
            }
            _ if !self.faults => self.application(n, r)?,
            900..=919 => self.crash_step(n, r)?,
            920..=949 => self.ghost(r),
            950.. if self.owners.is_some() => self.application(n, r)?,
            950..=961 => self.save(n)?,
            962..=975 => self.put_back(n, r)?,
            976..=980 => self.copy(r, false)?,
            981..=989 => self.copy(r, true)?,
            990..=992 => {
                self.lose(n);
                return Ok(None);
            }
            _ => self.stop(n, r)?,
        }
        Ok(Some(n))
    }

    /// What happens seldom, or in some clusters only; whether it did.
    fn rare(&mut self, n: usize, r: &mut Rng) -> Out<bool> {
        if r.chance(1) && r.chance(150) {
            self.burst(n, r)?;
        } else if self.brittle && r.chance(15) {
            self.lose_tail(r)?;
        } else if self.brittle && r.chance(4) {
            self.trim(r);
        } else if self.alters && r.chance(25) {
            self.add_columns(n)?;
        } else if self.modes && r.chance(15) {
            let (publish, replicate) = [(true, true), (false, true), (true, false)][r.below(3)];
            self.configure(n, publish, replicate, r)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// After so many steps of SQLite's machine the next statement breaks off, in so many of a thousand cases.
    fn fault(&self, r: &mut Rng, per_mille: usize) -> Option<u32> {
        (self.faults && r.chance(per_mille)).then(|| {
            let most = *r.pick(&[20, 200, 2000, 10_000]);
            r.range(1, most) as u32
        })
    }

    // ---- the application

    fn application(&mut self, n: usize, r: &mut Rng) -> Out<()> {
        if !self.nodes[n].publish {
            return Ok(());
        }
        if self.nodes[n].held.is_some() {
            if r.chance(600) {
                let commit = r.chance(800);
                return self.finish_app(n, commit);
            }
        } else {
            self.nodes[n]
                .app
                .execute_batch(if r.chance(500) {
                    "BEGIN"
                } else {
                    "BEGIN IMMEDIATE"
                })
                .map_err(|e| e.to_string())?;
            self.nodes[n].held = Some(None);
        }
        self.app_statements(n, r)?;
        if self.nodes[n].held.is_some() && !r.chance(100) {
            let commit = r.chance(930);
            self.finish_app(n, commit)?;
        } else {
            self.count("application's transaction left open");
        }
        Ok(())
    }

    fn app_statements(&mut self, n: usize, r: &mut Rng) -> Out<()> {
        let mut statements = Vec::new();
        let uid = self.nodes[n].uid;
        let mut own = None;
        if r.chance(300) {
            self.next_own += 1;
            own = Some(self.next_own);
            statements.push((
                format!("INSERT INTO {PRIVATE}(node, n) VALUES(?1, ?2) ON CONFLICT(node) DO UPDATE SET n = excluded.n"),
                vec![Val::Int(uid), Val::Int(self.next_own)],
            ));
        }
        let uids: Vec<i64> = self.nodes.iter().map(|n| n.uid).collect();
        for _ in 0..r.range(usize::from(own.is_none()), 4) {
            // Others' private rows are seldom written to.
            let spec = if r.chance(100) {
                0
            } else {
                1 + r.below(self.specs.len() - 1)
            };
            // What nobody else writes to: the private table aside, where each has its own row.
            if self
                .owners
                .as_ref()
                .is_some_and(|o| spec == 0 || o[spec] != n)
            {
                continue;
            }
            let savepoint = r.chance(30);
            if savepoint {
                statements.push(("SAVEPOINT s".into(), vec![]));
            }
            let table = if self.nodes[n].late[spec] {
                &self.specs[spec]
            } else {
                &self.narrow[spec]
            };
            let done = crate::workload::act(r, table, self.large, &uids);
            self.count(done.what);
            self.count(self.specs[spec].says);
            statements.extend(done.statements);
            if savepoint {
                statements.push(("ROLLBACK TO s".into(), vec![]));
                self.count("savepoint rolled back");
            }
        }
        for (sql, values) in statements {
            let node = &mut self.nodes[n];
            let done = node
                .app
                .prepare_cached(&sql)
                .and_then(|mut s| s.execute(rusqlite::params_from_iter(&values)));
            let shown: Vec<String> = values.iter().map(Val::show).collect();
            let what = match &done {
                Ok(rows) => format!("{rows} rows"),
                Err(e) => e.to_string(),
            };
            self.say(|| format!("node {uid} app: {sql} [{}]: {what}", shown.join(", ")));
            match done {
                Ok(_) => self.count("statement"),
                Err(e) if is_refusal(&e) => self.count("statement refused"),
                Err(e) => return Err(format!("{sql}: {e}")),
            }
            if self.nodes[n].app.is_autocommit() {
                self.count("transaction rolled back by OR ROLLBACK");
                self.nodes[n].held = None;
                return Ok(());
            }
        }
        if let (Some(own), Some(held)) = (own, &mut self.nodes[n].held) {
            *held = Some(own);
        }
        Ok(())
    }

    /// A transaction that only counts up the node's private count.
    pub fn count_up(&mut self, n: usize) -> Out<()> {
        self.next_own += 1;
        let node = &mut self.nodes[n];
        node.app
            .prepare_cached(&format!("INSERT INTO {PRIVATE}(node, n) VALUES(?1, ?2) ON CONFLICT(node) DO UPDATE SET n = excluded.n"))
            .and_then(|mut s| s.execute([node.uid, self.next_own]))
            .map_err(|e| e.to_string())?;
        node.last_own = Some(self.next_own);
        node.seen_own = self.next_own;
        Ok(())
    }

    pub fn finish_app(&mut self, n: usize, commit: bool) -> Out<()> {
        let node = &mut self.nodes[n];
        let Some(own) = node.held.take() else {
            return Ok(());
        };
        let uid = node.uid;
        node.app
            .execute_batch(if commit { "COMMIT" } else { "ROLLBACK" })
            .map_err(|e| e.to_string())?;
        if let Some(own) = own.filter(|_| commit) {
            node.last_own = Some(own);
            // Visible at once, and from now on.
            node.seen_own = own;
        }
        self.count(if commit {
            "application commits"
        } else {
            "application rolls back"
        });
        self.say(|| {
            format!(
                "node {uid} app: {}",
                if commit { "COMMIT" } else { "ROLLBACK" }
            )
        });
        Ok(())
    }

    // ---- outbound

    pub fn scan(&mut self, n: usize) -> Out<()> {
        self.scan_with(n, None)
    }

    fn scan_with(&mut self, n: usize, fault: Option<u32>) -> Out<()> {
        let spool = Arc::clone(&self.spool);
        let node = &mut self.nodes[n];
        if node.sending.unacknowledged().is_some() || node.halted.is_some() {
            return Ok(());
        }
        let (Some(replica), Some(reader)) = (&mut node.replica, &mut node.reader) else {
            return Ok(());
        };
        let pipelined = replica.batch_in_flight().is_some();
        let fired = fault.map(|k| break_after(reader, k));
        let scanned = replica.scan(reader, node.limits, &spool);
        if fault.is_some() {
            mend(reader);
        }
        let tidying = replica.needs_tidying();
        let uid = node.uid;
        match scanned {
            Ok(scanned) => {
                let nulls: u64 = scanned.null_keys.values().sum();
                if let Some(batch) = scanned.batch {
                    let text = format!(
                        "node {uid} scans batch {} of {}: {} rows, base {}, {} sections",
                        batch.record.batch,
                        batch.record.incarnation,
                        batch.record.row_count,
                        batch.record.base,
                        batch.sections.len()
                    );
                    node.flying.up_to = newest_ids(reader, &self.specs)?;
                    node.seen = None;
                    node.sending.push(batch);
                    self.count("batch scanned");
                    self.add(
                        "batch scanned while another is in flight",
                        u64::from(pipelined),
                    );
                    self.say(|| text);
                }
                self.add("row with NULL in its key", nulls);
                self.add("cells forgotten at the scan", u64::from(tidying));
            }
            Err(e) if fired.is_some_and(|f| f.load(Ordering::Relaxed)) => {
                self.count("scan broken off");
                self.say(|| format!("node {uid} scan broken off: {e}"));
            }
            Err(ScanError::SchemaChanged) => {
                if replica
                    .refresh_capture(Duration::ZERO, &|| true)
                    .map_err(|e| e.to_string())?
                {
                    self.count("capture made current");
                    self.say(|| format!("node {uid} makes capture current"));
                } else {
                    self.count("locked");
                }
                node_view_is_stale(&mut self.nodes[n]);
            }
            Err(e) => return Err(format!("node {uid} scan: {e}")),
        }
        Ok(())
    }

    /// Sends some of the batch in flight; the broker may lose messages or acknowledgements, or deliver late.
    pub fn send(&mut self, n: usize, pieces: usize, lossy: bool, r: &mut Rng) -> Out<()> {
        let lossy = lossy && self.faults;
        if !self.goes_on(n, r)? {
            return Ok(());
        }
        let node = &mut self.nodes[n];
        let (uid, me) = (node.uid, node.id);
        let Some(flying) = node.sending.unacknowledged() else {
            return Ok(());
        };
        let outbox = &mut flying.outbox;
        let mut missing = outbox.missing();
        let mut acknowledged = None;
        let mut said = Vec::new();
        let mut counts: Vec<&'static str> = Vec::new();
        if missing.is_empty() {
            let record = outbox
                .commit()
                .ok_or("all pieces are stored, but there is no commit record")?;
            if Some(&record) != outbox.commit().as_ref() {
                return Err("a commit record was made twice, with different bytes".into());
            }
            if lossy && r.chance(60) {
                counts.push("commit record on its way");
                self.ghosts.push((ShardId::ORDER, record, me));
            } else {
                let at = self.stream.append(ShardId::ORDER, record.clone());
                said.push(format!("commit record at {at}"));
                if lossy && r.chance(100) {
                    counts.push("commit record resent late");
                    self.ghosts.push((ShardId::ORDER, record, me));
                }
                if lossy && r.chance(150) {
                    counts.push("acknowledgement lost");
                } else {
                    acknowledged = Some(at);
                }
            }
        } else {
            for _ in 0..pieces.min(missing.len()) {
                let piece = missing.swap_remove(r.below(missing.len()));
                let Some((shard, bytes)) = outbox.piece(piece).map_err(|e| e.to_string())? else {
                    return Err("a missing piece has no message".into());
                };
                if lossy && r.chance(40) {
                    counts.push("piece on its way");
                    self.ghosts.push((shard, bytes, me));
                    continue;
                }
                let at = self.stream.append(shard, bytes);
                said.push(format!("piece {piece} at {shard}:{at}"));
                if lossy && r.chance(80) {
                    counts.push("acknowledgement of a piece lost");
                } else {
                    outbox.stored(piece, at, std::time::Instant::now());
                }
            }
        }
        // The next batch may be begun; this one is in flight until its echo.
        if let Some(at) = acknowledged {
            flying.acknowledged = Some(at);
            #[cfg(feature = "planted-bugs")]
            if planted::is(Bug::OwnAckMovesPosition) {
                node.skip_to = at.0 as usize;
            }
        }
        for c in counts {
            self.count(c);
        }
        self.say(|| format!("node {uid} sends {}", said.join(", ")));
        Ok(())
    }

    fn ghost(&mut self, r: &mut Rng) {
        if self.ghosts.is_empty() {
            return;
        }
        let at = r.below(self.ghosts.len());
        let (shard, bytes, _) = if r.chance(300) {
            self.ghosts[at].clone()
        } else {
            self.ghosts.swap_remove(at)
        };
        // One that names payload which the broker has lost is dropped: every reader would halt at it until that is there again.
        if !self.stream.is_whole(shard, &bytes) {
            return;
        }
        let at = self.stream.append(shard, bytes);
        self.count("late message");
        self.say(|| format!("a late message arrives at {shard}:{at}"));
    }

    // ---- inbound

    /// What a node gets to read, up to the first message whose payload is lost.
    fn messages(&self, from: usize, to: usize) -> Vec<Incoming> {
        (from + 1..=to)
            .map_while(|at| self.stream.message(at))
            .collect()
    }

    /// Applies up to `max` messages.
    pub fn deliver(
        &mut self,
        n: usize,
        max: usize,
        short: bool,
        fault: Option<u32>,
        r: &mut Rng,
    ) -> Out<()> {
        if !self.goes_on(n, r)? {
            return Ok(());
        }
        if !self.nodes[n].replicate {
            return self.take_echoes(n, max, r);
        }
        let at = self.nodes[n].position();
        let to = self.stream.end().min(at.saturating_add(max));
        if self.nodes[n].replica.is_none() || to <= at {
            return Ok(());
        }
        if self.stream.message(at + 1).is_none() {
            let node = &mut self.nodes[n];
            node.halted = Some("payload is lost".into());
            let uid = node.uid;
            self.count("halted: payload is lost");
            self.say(|| format!("node {uid} halts: the payload of {} is lost", at + 1));
            return Ok(());
        }
        match self.apply(n, at, to, short, false, fault)? {
            Some(Stopped::Hold(carrier)) => {
                self.count("held back");
                let here = self.nodes[n].position();
                match self.stands(n, carrier).filter(|_| !r.chance(80)) {
                    // What it waits for has come: fold both together, however long that takes.
                    Some(echo) => {
                        let stopped = self.apply(n, here, echo, short, false, None)?;
                        if self.nodes[n].position() >= echo {
                            self.count("folded through the own batch");
                        } else if stopped == Some(Stopped::Hold(carrier))
                            && !self.brittle
                            && !self.nodes[n].late.contains(&false)
                        {
                            return Err(format!(
                                "node {} waits for {carrier:?}, which is there",
                                self.nodes[n].uid
                            ));
                        }
                    }
                    None if self.impatient || r.chance(200) => {
                        self.count("held back for too long");
                        self.apply(n, here, here + 1, short, true, None)?;
                    }
                    None => {}
                }
            }
            Some(Stopped::Doubled(_)) => self.doubled(n, r)?,
            _ => {}
        }
        Ok(())
    }

    /// Where in the stream, ahead of the position, the batch stands that carries a change of ours, if it counts.
    fn stands(&self, n: usize, carrier: Carrier) -> Option<usize> {
        let node = &self.nodes[n];
        let incarnation = node.replica.as_ref().and_then(Replica::incarnation);
        let ahead = self.stream.entries.iter().skip(node.position() + 1);
        ahead
            .filter(|e| e.taken.is_some())
            .find(|e| match (&e.incoming.body, carrier) {
                (_, Carrier::Former(at)) => e.incoming.sequence == at,
                (Body::Batch(b), Carrier::Batch(batch)) => {
                    b.record.node == node.id
                        && Some(b.record.incarnation) == incarnation
                        && b.record.batch == batch
                }
                _ => false,
            })
            .map(|e| e.incoming.sequence.0 as usize)
    }

    /// Applies the messages behind `from` up to `to`; why it stopped.
    fn apply(
        &mut self,
        n: usize,
        from: usize,
        to: usize,
        short: bool,
        given_up: bool,
        fault: Option<u32>,
    ) -> Out<Option<Stopped>> {
        #[cfg_attr(not(feature = "planted-bugs"), allow(unused_mut))]
        let mut messages = self.messages(from, to);
        let node = &mut self.nodes[n];
        let uid = node.uid;
        #[cfg(feature = "planted-bugs")]
        for m in &mut messages {
            let own = matches!(&m.body, Body::Batch(b) if b.record.node == node.id);
            if (m.sequence.0 as usize) < node.skip_to && !own {
                m.body = Body::Payload;
            }
        }
        if node.replica.is_none() || node.reader.is_none() {
            return Ok(None);
        }
        let before = node.look(&self.specs)?;
        let Some(replica) = &mut node.replica else {
            return Ok(None);
        };
        let options = ApplyOptions {
            max_time: if short {
                Duration::ZERO
            } else {
                Duration::from_secs(3600)
            },
            given_up,
            patience: Duration::ZERO,
            stop: &|| true,
        };
        let fired = fault.map(|k| break_after(replica.writer(), k));
        let applied = replica.apply(&messages, &options);
        if fault.is_some() {
            mend(replica.writer());
        }
        let applied = match applied {
            Ok(a) => a,
            Err(e) if fired.is_some_and(|f| f.load(Ordering::Relaxed)) => {
                self.say(|| format!("node {uid} apply broken off: {e}"));
                self.count("apply broken off");
                if fault.is_some_and(|f| f % 2 == 0) {
                    self.crash(n);
                }
                return Ok(None);
            }
            Err(e) => return Err(format!("node {uid} apply: {e}")),
        };
        let at = replica.position().sequence.0 as usize;
        let after = node.look(&self.specs)?;
        let stopped = applied.stopped.clone();
        let text = format!(
            "node {uid} applies {from}+{} {}: {} batches, {stopped:?}, echoes {:?}, {:?}, conflicts {:?}",
            applied.consumed,
            if given_up { " giving up" } else { "" },
            applied.batches,
            applied.echoes,
            applied.ignored,
            applied.fold.conflicts
        );
        self.say(|| text);
        let node = &mut self.nodes[n];
        if at != from + applied.consumed {
            return Err(format!(
                "node {uid} took {} messages from {from} and stands at {at}",
                applied.consumed
            ));
        }
        // A node that catches up after a while without applying shows older values of its own meanwhile: a limit that is documented.
        let catches_up = from < node.behind;
        if !given_up && !catches_up {
            check::pending_did_not_move(&self.specs, &before, &after)
                .map_err(|e| format!("node {uid} flickers: {e}"))?;
        }
        let own = messages
            .iter()
            .take(applied.consumed)
            .any(|m| matches!(&m.body, Body::Batch(b) if b.record.node == node.id));
        if !given_up && !catches_up {
            check::in_flight_stayed(&self.specs, &before, &after, own)
                .map_err(|e| format!("node {uid} lets what is in flight vanish: {e}"))?;
        }
        let (mut nothing, mut folded) = (0, 0);
        for m in messages.iter().take(applied.consumed) {
            if let Body::Batch(b) = &m.body
                && applied.echoes.contains(&b.record.batch)
                && b.record.node == node.id
            {
                let before = self.stream.entries[..m.sequence.0 as usize]
                    .iter()
                    .rposition(|e| e.taken.is_some())
                    .unwrap_or(0);
                if b.record.base.0 as usize >= before {
                    nothing += 1
                } else {
                    folded += 1
                }
            }
        }
        node.came_back(&applied.echoes);
        let lost = node.sending.land(node.echoed, Sequence(at as u64));
        if lost.is_some() && !self.brittle {
            return Err(format!("node {uid} takes batch {lost:?} for lost"));
        }
        if self.owners.is_some() && !given_up && !catches_up && !applied.fold.conflicts.is_empty() {
            return Err(format!(
                "node {uid} journals conflicts though one node alone writes each table: {:?}",
                applied.fold.conflicts
            ));
        }
        for (verdict, n) in applied.ignored {
            self.add(verdict, n);
        }
        self.add("former value given back", applied.fold.given_back);
        for (reason, n) in applied.fold.conflicts {
            self.add(reason, n);
        }
        self.add("batch taken", applied.batches);
        self.add("echo folded to nothing", nothing);
        self.add("echo folded", folded);
        self.add("echo", applied.echoes.len() as u64);
        match &stopped {
            Stopped::No | Stopped::Hold(_) | Stopped::Doubled(_) => {}
            Stopped::Locked => self.count("locked"),
            Stopped::Schema(reason) => {
                // Rightly so only where a column is not here that the next message has.
                let next = self.stream.message(at + 1).map(|m| m.body);
                let lacks = match &next {
                    Some(Body::Batch(b)) => b.record.tables.iter().any(|t| {
                        self.specs.iter().enumerate().any(|(i, s)| {
                            s.name == t.name
                                && !self.nodes[n].late[i]
                                && t.columns.len() == s.columns.len()
                        })
                    }),
                    _ => false,
                };
                if !lacks {
                    return Err(format!("node {uid} pauses needlessly: {reason}"));
                }
                self.count("paused for a column");
            }
            other => return Err(format!("node {uid} stops: {other:?}")),
        }
        if applied.dead_letters > 0 {
            return Err(format!("node {uid} writes dead letters"));
        }
        Ok(Some(stopped))
    }

    /// Another daemon has published under this node's id.
    fn doubled(&mut self, n: usize, r: &mut Rng) -> Out<()> {
        self.count("doubled");
        if r.chance(700) {
            self.start(n, r)
        } else {
            self.rename(n, r)
        }
    }

    /// `replicate = false`: only our own batches are looked for.
    fn take_echoes(&mut self, n: usize, max: usize, r: &mut Rng) -> Out<()> {
        let (from, _) = self.nodes[n].read_at;
        let to = self.stream.end().min(from.saturating_add(max));
        if to <= from {
            return Ok(());
        }
        let messages = self.messages(from, to);
        let node = &mut self.nodes[n];
        let Some(replica) = &mut node.replica else {
            return Ok(());
        };
        let applied = replica
            .apply_echoes_only(&messages, Duration::ZERO, &|| true)
            .map_err(|e| e.to_string())?;
        if applied.consumed > 0 {
            let last = &messages[applied.consumed - 1];
            node.read_at = (last.sequence.0 as usize, last.hash);
        }
        node.seen = None;
        node.came_back(&applied.echoes);
        node.sending
            .land(node.echoed, Sequence(node.read_at.0 as u64));
        let (uid, to) = (node.uid, node.read_at.0);
        self.add("echo without folding", applied.echoes.len() as u64);
        self.say(|| format!("node {uid} takes echoes up to {to}: {:?}", applied.echoes));
        if matches!(applied.stopped, Stopped::Doubled(_)) {
            self.doubled(n, r)?;
        }
        Ok(())
    }

    pub fn tidy(&mut self, n: usize) -> Out<()> {
        let node = &mut self.nodes[n];
        if let Some(replica) = &mut node.replica {
            replica
                .tidy(Duration::ZERO, &|| true)
                .map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    // ---- lives and deaths

    /// Starts a node as the daemon does.
    pub fn start(&mut self, n: usize, r: &mut Rng) -> Out<()> {
        self.crash(n);
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
        };
        let mut replica = match Replica::open(&path, &options, Duration::ZERO, &|| true) {
            Ok(r) => r,
            Err(ReplicaError::Locked { .. }) => {
                self.count("start while the database is locked");
                return Ok(());
            }
            Err(e) => return Err(format!("node {uid} open: {e}")),
        };
        let stored = replica.stored_incarnation().map_err(|e| e.to_string())?;
        let streamed = self.stream.incarnations.get(&id.0).copied().unwrap_or(0);
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
        let at = replica.position().sequence.0 as usize;
        let mut ahead = 0;
        let mut flying = Flying::default();
        let mut last_ahead = (at, 0);
        let mut own = Vec::new();
        for place in (at + 1).max(self.stream.first)..=self.stream.end() {
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
        let node = &mut self.nodes[n];
        node.replica = Some(replica);
        node.flying = flying;
        node.echoed = BatchNumber(0);
        node.ahead = last_ahead;
        node.read_at = (end, hash);
        node.halted = None;
        node.unverified = true;
        Ok(())
    }

    /// The daemon is gone; what it had made may still arrive.
    pub fn crash(&mut self, n: usize) {
        let me = self.nodes[n].id;
        let late = self.nodes[n].abandon();
        self.ghosts
            .extend(late.into_iter().map(|(s, b)| (s, b, me)));
        let node = &mut self.nodes[n];
        node.replica = None;
        node.seen = None;
        if let Some(reader) = node.reader.take() {
            node.spare_reader = Some(reader);
        }
    }

    fn crash_step(&mut self, n: usize, r: &mut Rng) -> Out<()> {
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

    fn save(&mut self, n: usize) -> Out<()> {
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
            behind,
        };
        self.files.push(saved);
        self.count("file saved");
        self.say(|| format!("node {uid}'s file is saved"));
        Ok(())
    }

    /// An older file takes the place of the database.
    fn put_back(&mut self, n: usize, r: &mut Rng) -> Out<()> {
        let uid = self.nodes[n].uid;
        let own: Vec<usize> = (0..self.files.len())
            .filter(|f| self.files[*f].uid == uid)
            .collect();
        if own.is_empty() {
            return Ok(());
        }
        let file = &self.files[*r.pick(&own)];
        let (history, behind) = (file.history.clone(), file.behind);
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
    fn copy(&mut self, r: &mut Rng, same_id: bool) -> Out<()> {
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
        let (history, behind) = (self.files[file].history.clone(), self.files[file].behind);
        let n = self.add_node(r, id, path)?;
        self.nodes[n].history = history;
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

    fn lose(&mut self, n: usize) {
        if self.nodes.len() > 1 {
            self.crash(n);
            let node = self.nodes.remove(n);
            self.count("node lost for ever");
            self.say(|| format!("node {} is lost for ever", node.uid));
        }
    }
}

fn node_view_is_stale(node: &mut Node) {
    node.seen = None;
}

/// The connection fails once after so many steps of its machine; whether it has.
fn break_after(conn: &mut rusqlite::Connection, steps: u32) -> Arc<AtomicBool> {
    let fired = Arc::new(AtomicBool::new(false));
    let (flag, left) = (Arc::clone(&fired), AtomicU32::new(steps));
    let _ = conn.progress_handler(
        1,
        Some(move || {
            left.fetch_sub(1, Ordering::Relaxed) == 1 && !flag.swap(true, Ordering::Relaxed)
        }),
    );
    fired
}

fn mend(conn: &mut rusqlite::Connection) {
    let _ = conn.progress_handler(0, None::<fn() -> bool>);
}
