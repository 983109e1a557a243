//! What happens to brokers and daemons beside crashes: lost tails, trimmed heads, stops in good and bad order, other configurations, new columns,
//! and more batches in flight than there may be.

use harmonylite::change::position::{Sequence, ShardId};
use harmonylite::changelog::in_flight::WINDOW;
use harmonylite::state::node::Position;
use harmonylite::stream::continuity::{self, Broken};

use crate::Out;
use crate::model::State;
use crate::node::{late_columns, private_count};
use crate::rng::Rng;
use crate::world::World;

impl World {
    // ---- the broker

    /// The broker is restarted, and what it had acknowledged last is gone. It goes on; everybody has a new connection.
    pub fn lose_tail(&mut self, r: &mut Rng) -> Out<()> {
        // What those come to that have begun from a snapshot, and are not yet what everybody is.
        let lines: Vec<Option<State>> = (0..self.nodes.len())
            .map(|n| self.on_its_line(n))
            .collect::<Out<_>>()?;
        let saved: Vec<Option<State>> = self
            .files
            .iter()
            .map(|f| f.line.as_ref()?.state(&self.stream, f.position))
            .collect();
        let (keep, states) = if self.mends() && r.chance(150) {
            self.count("stream lost whole");
            (0, self.stream.lose_all())
        } else {
            self.stream.lose_tail(r)
        };
        let lost = |position: usize, line: &Option<State>| {
            (position > keep)
                .then(|| {
                    line.clone()
                        .or_else(|| states.get(position - keep).cloned())
                })
                .flatten()
        };
        for (node, line) in self.nodes.iter_mut().zip(&lines) {
            node.line = node.line.take().map(|l| l.cut(keep));
            let position = match &node.replica {
                Some(replica) => replica.position().sequence.0 as usize,
                None => node.stored_position()?,
            };
            if node.history.is_none() {
                node.history = lost(position, line);
            }
            node.unverified = true;
        }
        // What a file had and an older one has not any more, the stream alone held.
        for n in 0..self.nodes.len() {
            let left = private_count(&self.specs, self.stream.state(keep), self.nodes[n].uid);
            self.nodes[n].floor = self.nodes[n].floor.min(left);
        }
        for (file, line) in self.files.iter_mut().zip(&saved) {
            file.line = file.line.take().map(|l| l.cut(keep));
            if file.history.is_none() {
                file.history = lost(file.position, line);
            }
        }
        self.count("broker loses its tail");
        self.say(|| format!("the broker loses its tail: the order stream ends at {keep}"));
        // A snapshot contains changes that are in no stream any more. Its maker has folded them and would notice; should it be gone for ever, nobody would.
        if self.mends() && self.snapshots_go_beyond(keep) {
            self.propose(None)?;
        }
        Ok(())
    }

    /// What a node comes to where that is not what everybody has there.
    fn on_its_line(&self, n: usize) -> Out<Option<State>> {
        let node = &self.nodes[n];
        let at = match &node.replica {
            Some(replica) => replica.position().sequence.0 as usize,
            None => node.stored_position()?,
        };
        Ok(node.line.as_ref().and_then(|l| l.state(&self.stream, at)))
    }

    /// Old messages go, whoever has yet to read them.
    pub fn trim(&mut self, r: &mut Rng) {
        let furthest = self.nodes.iter().map(|n| n.position()).max().unwrap_or(0);
        let first = r.range(1, 6);
        let mut first = (furthest + 1)
            .saturating_sub(first)
            .max(self.stream.first());
        // Whoever trims keeps what living nodes stand at: by that they know the history again.
        while self
            .nodes
            .iter()
            .any(|n| n.history.is_some() && n.position() + 1 == first)
        {
            first -= 1;
        }
        if first > self.stream.first() && first <= self.stream.end() + 1 {
            self.stream.purge(ShardId::ORDER, first);
            for node in &mut self.nodes {
                node.unverified = true;
            }
            self.count("stream trimmed at its head");
            self.say(|| format!("the order stream begins at {first}"));
        }
    }

    /// Whether a node may publish and apply, as the daemon decides: after each connection it compares the history.
    pub fn goes_on(&mut self, n: usize, r: &mut Rng) -> Out<bool> {
        if self.mends()
            && !self.nodes[n].cut_off
            && let Some(goes_on) = self.follow(n, r)?
        {
            return Ok(goes_on);
        }
        let mends = self.mends();
        let node = &mut self.nodes[n];
        let Some(replica) = node.replica.as_ref().filter(|_| !node.cut_off) else {
            return Ok(false);
        };
        // While nothing is applied, what is compared is how far the stream was read for echoes.
        let position = match node.replicate {
            true => replica.position(),
            false => Position {
                sequence: Sequence(node.read_at.0 as u64),
                hash: node.read_at.1,
                ..Position::default()
            },
        };
        if self.snapshots.is_some() && (position.sequence.0 as usize) + 1 < self.stream.first() {
            self.count("falls behind while it runs");
            self.start(n, r)?;
            return self.goes_on(n, r);
        }
        if !node.unverified || node.halted.is_some() {
            return Ok(node.halted.is_none());
        }
        let compare = |at: Sequence, hash| {
            let there = self.stream.fingerprint(at);
            continuity::compare("order", &self.stream.info(), at, hash, there)
        };
        let at = position.sequence.0 as usize;
        // What a former life has in flight was seen up to there.
        let (ahead, hash) = node.ahead;
        let ahead_is_there = at >= ahead || compare(Sequence(ahead as u64), hash).is_ok();
        let behind = at + 1 < self.stream.first();
        // Nothing tells who stands where a history began that the streams were made anew since and have grown past that: a limit that is documented.
        if mends && node.history.is_some() && position.hash == 0 && at > 0 {
            self.count("streams made anew behind the back of a node that stands at a base");
            self.propose(Some(n))?;
            return Ok(false);
        }
        match compare(position.sequence, position.hash) {
            Ok(()) if node.history.is_some() || behind => Err(format!(
                "node {} goes on at {at}, though what it has folded is not what the stream holds (which begins at {})",
                node.uid,
                self.stream.first()
            )),
            Ok(()) => {
                node.unverified = false;
                node.sending.doubt();
                let uid = node.uid;
                self.say(|| format!("node {uid} has a new connection"));
                self.count("connected anew");
                if !ahead_is_there {
                    self.count("started again, since what a former life had sent is lost");
                    self.start(n, r)?;
                    return self.goes_on(n, r);
                }
                Ok(true)
            }
            Err(e) if node.history.is_none() && !behind => {
                Err(format!("node {} halts needlessly: {e}", node.uid))
            }
            Err(e) => {
                let what = match e {
                    Broken::Shorter { .. } => "halted: the stream ends before its position",
                    Broken::Trimmed { .. } => "halted: it would have to skip messages",
                    Broken::Other { .. } => "halted: another message stands at its position",
                };
                let uid = node.uid;
                self.count(what);
                self.say(|| format!("node {uid} {e}"));
                if self.mends() {
                    self.propose(Some(n))?;
                } else {
                    self.nodes[n].halted = Some(e.to_string());
                }
                Ok(false)
            }
        }
    }

    // ---- the daemon

    /// Sends until everything is acknowledged; whether there was anything to send.
    pub fn send_all(&mut self, n: usize, r: &mut Rng) -> Out<bool> {
        let mut any = false;
        while self.nodes[n].sending.unacknowledged().is_some() && self.goes_on(n, r)? {
            any = true;
            self.send(n, usize::MAX, false, r)?;
        }
        Ok(any)
    }

    /// A stop: what is pending is published first, if nothing comes between.
    pub fn stop(&mut self, n: usize, r: &mut Rng) -> Out<()> {
        let rounds = r.below(6);
        for _ in 0..rounds {
            if !self.goes_on(n, r)? {
                break;
            }
            self.scan(n)?;
            let pieces = r.range(1, 20);
            self.send(n, pieces, true, r)?;
            let max = r.range(1, 20);
            self.deliver(n, max, false, None, r)?;
        }
        let node = &self.nodes[n];
        let Some(replica) = &node.replica else {
            return Ok(());
        };
        let left = !node.sending.is_empty()
            || replica.batch_in_flight().is_some()
            || replica.pending_changes().map_err(|e| e.to_string())? > 0;
        let uid = node.uid;
        self.count(if left {
            "shutdown torn"
        } else {
            "shutdown in good order"
        });
        self.say(|| format!("node {uid} stops, {}", if left { "torn" } else { "done" }));
        self.crash(n);
        Ok(())
    }

    /// A node is started again with another configuration. While it captures nothing its application writes nothing: what would become of that
    /// needs snapshots.
    pub fn configure(&mut self, n: usize, publish: bool, replicate: bool, r: &mut Rng) -> Out<()> {
        self.finish_app(n, true)?;
        let end = self.stream.end();
        let node = &mut self.nodes[n];
        (node.publish, node.replicate) = (publish, replicate);
        // While nothing is applied, own changes that have left the change log lie on an older fold. They are entered in it again then, but for rows of which
        // two batches of different lives cover the same changes.
        node.behind = if replicate && node.behind > 0 {
            end
        } else if replicate {
            0
        } else {
            usize::MAX
        };
        let uid = node.uid;
        self.say(|| format!("node {uid}: publish = {publish}, replicate = {replicate}"));
        self.count(match (publish, replicate) {
            (true, true) => "publish and replicate again",
            (false, _) => "publish = false",
            (true, false) => "replicate = false",
        });
        self.start(n, r)
    }

    /// The application adds the late columns that are not there yet.
    pub fn add_columns(&mut self, n: usize) -> Out<()> {
        if self.nodes[n].held.is_some() || !self.nodes[n].has_tables()? {
            return Ok(());
        }
        let in_flight = self.nodes[n]
            .replica
            .as_ref()
            .is_some_and(|x| x.batch_in_flight().is_some());
        for (t, spec) in self.specs.clone().iter().enumerate() {
            let node = &mut self.nodes[n];
            if node.late[t] {
                continue;
            }
            let Some(sql) = spec.alter() else { continue };
            match node.app.execute_batch(&sql) {
                Ok(()) => {}
                Err(e) => return Err(format!("{sql}: {e}")),
            }
            node.late = late_columns(&node.app, &self.specs)?;
            node.seen = None;
            let (uid, running) = (node.uid, node.replica.is_some());
            self.say(|| format!("node {uid} app: {sql}"));
            self.count("column added");
            self.add("column added with a batch in flight", u64::from(in_flight));
            self.add("column added under a running daemon", u64::from(running));
        }
        Ok(())
    }

    /// More batches than may be in flight, before any echo is folded.
    pub fn burst(&mut self, n: usize, r: &mut Rng) -> Out<()> {
        if self.nodes[n].held.is_some() || !self.nodes[n].publish || !self.goes_on(n, r)? {
            return Ok(());
        }
        self.say(|| "a burst".to_owned());
        for _ in 0..WINDOW + 3 {
            self.count_up(n)?;
            let before = self.nodes[n].sending.len();
            self.scan(n)?;
            if self.nodes[n].sending.len() == before {
                let full = before >= WINDOW
                    || self.nodes[n]
                        .replica
                        .as_ref()
                        .is_some_and(|x| x.batch_in_flight().is_some());
                self.add("window full", u64::from(full));
                break;
            }
            self.send_all(n, r)?;
        }
        Ok(())
    }
}
