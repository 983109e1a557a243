//! The way out: scans, batches that are sent piece by piece, and messages that arrive late.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use harmonylite::change::position::{NodeId, ShardId};
use harmonylite::changelog::scan::ScanError;
#[cfg(feature = "planted-bugs")]
use harmonylite::planted::{self, Bug};
use harmonylite::snapshot::watch;

use crate::Out;
use crate::cuts::{check, ids};
use crate::node::newest_ids;
use crate::rng::Rng;
use crate::snapshots::SILENT_AFTER;
use crate::steps::{break_after, mend};
use crate::world::{Ghost, World};

impl World {
    pub fn scan(&mut self, n: usize) -> Out<()> {
        self.set_goal(n, false);
        let done = self.scan_to(n, None);
        self.set_goal(n, true);
        done
    }

    pub fn scan_with(&mut self, n: usize, fault: Option<u32>) -> Out<()> {
        self.set_goal(n, true);
        self.scan_to(n, fault)
    }

    /// A scan that takes what the cutter says.
    fn scan_to(&mut self, n: usize, fault: Option<u32>) -> Out<()> {
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
        let scanned = replica.scan(reader, node.limits, &spool, &mut node.cutter);
        if fault.is_some() {
            mend(reader);
        }
        let tidying = replica.needs_tidying();
        let uid = node.uid;
        match scanned {
            Ok(scanned) => {
                if let Some(point) = &scanned.cut {
                    check(reader, &self.specs, &node.scanned, point)?;
                }
                let end = match &scanned.cut {
                    Some(cut) => ids(&self.specs, cut),
                    None => newest_ids(reader, &self.specs)?,
                };
                if scanned.log_rows > 0 {
                    node.scanned.clone_from(&end);
                }
                let nulls: u64 = scanned.null_keys.values().sum();
                if let Some(batch) = scanned.batch {
                    let text = format!(
                        "node {uid} scans batch {} of {}: {} rows, base {}, {} sections, cut {:?}",
                        batch.record.batch,
                        batch.record.incarnation,
                        batch.record.row_count,
                        batch.record.base,
                        batch.sections.len(),
                        scanned.cut.as_ref().map(|c| c.ids().to_vec())
                    );
                    node.flying.up_to = end;
                    node.seen = None;
                    node.sending.push(batch, std::time::Instant::now());
                    self.count("batch scanned");
                    self.add(
                        "batch scanned while another is in flight",
                        u64::from(pipelined),
                    );
                    self.say(|| text);
                }
                self.add(
                    "batch cut at a commit point",
                    u64::from(scanned.cut.is_some()),
                );
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
                self.nodes[n].seen = None;
            }
            Err(e) => return Err(format!("node {uid} scan: {e}")),
        }
        Ok(())
    }

    /// Sends some of the batch in flight; the broker may lose messages or acknowledgements, or deliver late.
    pub fn send(&mut self, n: usize, pieces: usize, lossy: bool, r: &mut Rng) -> Out<()> {
        let lossy = lossy && self.faults;
        // The publisher does not wait for the reader to see that it has fallen behind.
        let node = &self.nodes[n];
        let ready = node.replica.is_some() && !node.cut_off && !node.unverified;
        let publishes = ready && self.snapshots.is_some() && !self.brittle;
        if !publishes && !self.goes_on(n, r)? {
            return Ok(());
        }
        let now = self.moment();
        let (tight, announced) = (self.is_tight(), self.announced(self.nodes[n].id));
        let node = &mut self.nodes[n];
        let (uid, me) = (node.uid, node.id);
        let Some(flying) = node.sending.unacknowledged() else {
            return Ok(());
        };
        let outbox = &mut flying.outbox;
        let mut missing = outbox.missing();
        if !missing.is_empty() && !node.gate.is_present(now) {
            self.count("payload waits until its node has announced itself");
            return Ok(());
        }
        if missing.is_empty() && outbox.since().is_some_and(|s| !node.gate.keeps(s, now)) {
            outbox.renew();
            self.count("payload sent again after a silence");
            return Ok(());
        }
        let mut acknowledged = None;
        let mut said = Vec::new();
        let mut counts: Vec<&'static str> = Vec::new();
        let mut late: Vec<(ShardId, Bytes)> = Vec::new();
        let mut ended = false;
        if missing.is_empty() {
            let record = outbox
                .commit()
                .ok_or("all pieces are stored, but there is no commit record")?;
            if Some(&record) != outbox.commit().as_ref() {
                return Err("a commit record was made twice, with different bytes".into());
            }
            // Where room had to be made, a life whose successor has said that it is there is taken to send nothing more: the history would break.
            if let Some(incarnation) = self.stream.lacks(ShardId::ORDER, &record)
                && tight
                && announced > incarnation
            {
                counts.push(
                    "stopped, since another life of its has begun and its payload is trimmed",
                );
                ended = true;
            } else if lossy && r.chance(60) {
                counts.push("commit record on its way");
                late.push((ShardId::ORDER, record));
            } else {
                let at = self.stream.append(ShardId::ORDER, record.clone());
                said.push(format!("commit record at {at}"));
                if lossy && r.chance(100) {
                    counts.push("commit record resent late");
                    late.push((ShardId::ORDER, record));
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
                    late.push((shard, bytes));
                    continue;
                }
                let at = self.stream.append(shard, bytes);
                said.push(format!("piece {piece} at {shard}:{at}"));
                if lossy && r.chance(80) {
                    counts.push("acknowledgement of a piece lost");
                } else {
                    outbox.stored(piece, at, now);
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
        for (shard, bytes) in late {
            self.delay(shard, bytes, me);
        }
        for c in counts {
            self.count(c);
        }
        if ended {
            return self.start(n, r);
        }
        if let Some(at) = self.stream.lacks_payload().filter(|_| !self.brittle) {
            return Err(format!(
                "node {uid} sends a record ({at}) that names payload which is not there"
            ));
        }
        self.say(|| format!("node {uid} sends {}", said.join(", ")));
        Ok(())
    }

    pub fn ghost(&mut self, r: &mut Rng) -> Out<()> {
        if self.ghosts.is_empty() {
            return Ok(());
        }
        let at = r.below(self.ghosts.len());
        let Ghost {
            shard,
            bytes,
            node,
            since,
        } = if r.chance(300) {
            self.ghosts[at].clone()
        } else {
            self.ghosts.swap_remove(at)
        };
        // One that names payload which the broker has lost is dropped: every reader would halt at it until that is there again. Where payload is
        // trimmed it must be there for as long as a record can be under way, unless the next life of its publisher has said that it is there.
        if let Some(incarnation) = self.stream.lacks(shard, &bytes) {
            let fresh = self.now - since < watch::gap(SILENT_AFTER);
            let ended = self.is_tight() && self.announced(node) > incarnation;
            if self.snapshots.is_some() && !self.brittle && fresh && !ended {
                return Err(format!(
                    "a late record of {node} names payload that is trimmed"
                ));
            }
            return Ok(());
        }
        let at = self.stream.append(shard, bytes);
        self.count("late message");
        self.say(|| format!("a late message arrives at {shard}:{at}"));
        Ok(())
    }

    /// A message may still arrive, some time.
    pub fn delay(&mut self, shard: ShardId, bytes: Bytes, node: NodeId) {
        let since = self.now;
        self.ghosts.push(Ghost {
            shard,
            bytes,
            node,
            since,
        });
    }
}
