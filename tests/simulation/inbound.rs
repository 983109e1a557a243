//! The way in: messages are applied in groups, and each application is checked.

use std::sync::atomic::Ordering;
use std::time::Duration;

use harmonylite::apply::incoming::{Body, Incoming};
use harmonylite::change::position::Sequence;
use harmonylite::changelog::in_flight::Carrier;
use harmonylite::replica::Replica;
use harmonylite::replica::group::{ApplyOptions, Stopped};

use crate::Out;
use crate::check;
use crate::rng::Rng;
use crate::steps::{break_after, mend};
use crate::world::World;

impl World {
    /// What a node gets to read, up to the first message whose payload is lost.
    pub fn messages(&self, from: usize, to: usize) -> Vec<Incoming> {
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
            let uid = self.nodes[n].uid;
            self.count("halted: payload is lost");
            if self.mends() {
                return self.propose(Some(n));
            }
            self.nodes[n].halted = Some("payload is lost".into());
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
        // A base that does not contain all of its node is read over with what it has sent before.
        let begun_anew = self.histories.settled.number > 1;
        if self.owners.is_some()
            && !begun_anew
            && !given_up
            && !catches_up
            && !applied.fold.conflicts.is_empty()
        {
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
}
