//! The simulated replication log: one vector of messages a shard, and the order stream read as the daemon reads it. It can lose what it has
//! acknowledged at its tail, and drop messages at its head.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use harmonylite::apply::incoming::{self, Body, Incoming, IncomingBatch};
use harmonylite::change::position::{Sequence, ShardId};
use harmonylite::codec::commit::{CommitRecord, SectionKind};
use harmonylite::codec::frame;
use harmonylite::codec::spool::Spool;
use harmonylite::consume::payload::add_piece;
use harmonylite::stream::{StoredMessage, StreamState, continuity};

use crate::model::{Accepts, State, fold};
use crate::rng::Rng;
use crate::schema::TableSpec;

/// How many shards there are at most.
const SHARDS: usize = 4;

/// One message of the order stream, and what it came to in the model.
pub struct Entry {
    pub incoming: Incoming,
    /// The model's state behind it.
    pub state: State,
    /// The record, if it counts.
    pub taken: Option<Rc<CommitRecord>>,
    /// Its rows then.
    rows: Rc<Vec<Vec<u8>>>,
    /// What counts next of each publisher.
    accepts: Accepts,
    /// Pieces that it names may be gone.
    suspect: bool,
    /// It counts in its order, and changes nothing.
    void: bool,
}

/// All shards.
pub struct Stream {
    /// Each message with the time at which it was stored.
    shards: Vec<Vec<(Bytes, u64)>>,
    clock: u64,
    /// Of each shard the first message that is still there.
    firsts: Vec<usize>,
    /// The order stream, opened; the first stands for what was there before the first message.
    pub entries: Vec<Entry>,
    specs: Rc<Vec<TableSpec>>,
    spool: Arc<Spool>,
    pub sectioned: u64,
    pub pieced: u64,
}

impl Stream {
    pub fn new(specs: Rc<Vec<TableSpec>>, start: State, spool: Arc<Spool>) -> Self {
        Self {
            shards: vec![Vec::new(); SHARDS],
            clock: 0,
            firsts: vec![1; SHARDS],
            entries: vec![Entry {
                incoming: Incoming {
                    sequence: Sequence(0),
                    hash: 0,
                    body: Body::Payload,
                },
                state: start,
                taken: None,
                rows: Rc::default(),
                accepts: Accepts::default(),
                suspect: false,
                void: false,
            }],
            specs,
            spool,
            sectioned: 0,
            pieced: 0,
        }
    }

    /// The sequence of the last message of the order stream.
    pub fn end(&self) -> usize {
        self.entries.len() - 1
    }

    pub fn state(&self, at: usize) -> &State {
        &self.entries[at].state
    }

    /// The first message of the order stream that is still there.
    pub fn first(&self) -> usize {
        self.firsts[0]
    }

    /// The state after message `at`, given one before it.
    pub fn after(&self, before: &State, at: usize) -> State {
        let entry = &self.entries[at];
        match &entry.taken {
            Some(record) => fold(&self.specs, before, record, &entry.rows),
            None => before.clone(),
        }
    }

    /// Removes what stands before `first` in a shard; how many messages went.
    pub fn purge(&mut self, shard: ShardId, first: usize) -> u64 {
        let at = &mut self.firsts[(shard.0 - 1) as usize];
        let before = std::mem::replace(at, first.max(*at));
        (*at - before) as u64
    }

    /// Whether all payload is there that records name which can still be read, and count. The record that lacks some, if not.
    pub fn lacks_payload(&self) -> Option<usize> {
        (self.first()..=self.end()).find(|at| {
            let entry = &self.entries[*at];
            matches!(&entry.incoming.body, Body::Batch(b)
                if self.entries[at - 1].accepts.clone().take(&b.record) && !self.names_what_is_there(&b.record))
        })
    }

    fn names_what_is_there(&self, record: &CommitRecord) -> bool {
        record.sections.iter().all(|s| {
            let shard = (s.shard.0 - 1) as usize;
            let (first, last) = (self.firsts[shard] as u64, self.shards[shard].len() as u64);
            s.pieces.iter().all(|p| (first..=last).contains(&p.0))
        })
    }

    /// What the broker says of the order stream.
    pub fn info(&self) -> StreamState {
        self.shard_info(ShardId::ORDER)
    }

    /// What the broker says of a shard.
    pub fn shard_info(&self, shard: ShardId) -> StreamState {
        let n = (shard.0 - 1) as usize;
        let (first, last) = (self.firsts[n] as u64, self.shards[n].len() as u64);
        StreamState {
            first: Sequence(first),
            last: Sequence(last),
            messages: last + 1 - first,
            bytes: 0,
            limit: None,
            created: 1,
        }
    }

    /// A message of a shard as it stands there.
    pub fn stored(&self, shard: ShardId, at: u64) -> StoredMessage {
        let (payload, time) = &self.shards[(shard.0 - 1) as usize][at as usize - 1];
        StoredMessage {
            sequence: Sequence(at),
            payload: payload.clone(),
            timestamp_nanos: *time,
        }
    }

    /// What a node compares with what it remembers of its position.
    pub fn fingerprint(&self, at: Sequence) -> Option<u64> {
        let at = at.0 as usize;
        (at >= self.first() && at <= self.end()).then(|| self.entries[at].incoming.hash)
    }

    /// The incarnation of a message that is a commit record, would count, and names payload that is not there.
    pub fn lacks(&self, shard: ShardId, bytes: &Bytes) -> Option<u64> {
        match incoming::open(Sequence(0), bytes).body {
            Body::Batch(batch)
                if shard == ShardId::ORDER
                    && self.entries[self.end()].accepts.clone().take(&batch.record)
                    && self.gather(&batch).is_none() =>
            {
                Some(batch.record.incarnation.counter)
            }
            _ => None,
        }
    }

    /// Stores a message; its sequence.
    pub fn append(&mut self, shard: ShardId, bytes: Bytes) -> Sequence {
        self.clock += 1;
        let n = (shard.0 - 1) as usize;
        self.shards[n].push((bytes.clone(), self.clock));
        let at = Sequence(self.shards[n].len() as u64);
        if shard == ShardId::ORDER {
            self.read(at, &bytes, false);
        }
        at
    }

    /// The parts of a batch stand in the stream without their record, and (a planted bug) nodes apply them all the same.
    #[cfg(feature = "planted-bugs")]
    pub fn imply(&mut self, record: Bytes) {
        self.clock += 1;
        self.shards[0].push((record.clone(), self.clock));
        self.read(Sequence(self.shards[0].len() as u64), &record, true);
    }

    /// Loses what was stored last, in each shard for itself. Returns how long the order stream still is, and what it came to from there on.
    pub fn lose_tail(&mut self, r: &mut Rng) -> (usize, Vec<State>) {
        let lost: Vec<usize> = self
            .shards
            .iter()
            .map(|s| {
                if r.chance(600) {
                    r.below(7.min(s.len() + 1))
                } else {
                    0
                }
            })
            .collect();
        for (n, (shard, lost)) in self.shards.iter_mut().zip(&lost).enumerate() {
            let least = self.firsts[n] - 1;
            shard.truncate((shard.len() - lost).max(least));
        }
        let keep = self.shards[0].len();
        let states = self.entries[keep..]
            .iter()
            .map(|e| e.state.clone())
            .collect();
        self.entries.truncate(keep + 1);
        for at in 1..=keep {
            let suspect = matches!(&self.entries[at].incoming.body, Body::Batch(b) if !self.names_what_is_there(&b.record));
            self.entries[at].suspect |= suspect;
        }
        (keep, states)
    }

    /// Loses everything: the streams are made anew. Returns what the order stream came to.
    pub fn lose_all(&mut self) -> Vec<State> {
        for shard in &mut self.shards {
            shard.clear();
        }
        self.firsts.fill(1);
        let states = self.entries.iter().map(|e| e.state.clone()).collect();
        self.entries.truncate(1);
        states
    }

    /// A new history begins directly before the first message: everything that is there is read again.
    pub fn begin_again(&mut self, base: State, mut accepts: Accepts, void: &[usize]) {
        let before = self.first() - 1;
        let mut state = base;
        for at in before..=self.end() {
            let (mut taken, mut rows) = (None, Rc::default());
            let is_void = void.contains(&at);
            if let Body::Batch(batch) = &self.entries[at].incoming.body
                && at > before
                && accepts.take(&batch.record)
                && !is_void
                && let Some((whole, read)) = self.gather(batch)
            {
                state = fold(&self.specs, &state, &batch.record, &read);
                taken = Some(Rc::new(batch.record.clone()));
                rows = Rc::new(read);
                self.entries[at].incoming.body = Body::Batch(Box::new(whole));
            }
            let entry = &mut self.entries[at];
            entry.state = state.clone();
            entry.taken = taken;
            entry.rows = rows;
            entry.accepts = accepts.clone();
            entry.void = is_void;
        }
    }

    /// The batch at `at` with its payload, if that is there.
    pub fn whole(&self, at: usize) -> Option<IncomingBatch> {
        match &self.entries[at].incoming.body {
            Body::Batch(batch) => Some(self.gather(batch)?.0),
            _ => None,
        }
    }

    /// The batch of a record with its sections, as the daemon gathers them: `None` where a piece is not to be had.
    fn gather(&self, batch: &IncomingBatch) -> Option<(IncomingBatch, Vec<Vec<u8>>)> {
        let record = &batch.record;
        let mut out = IncomingBatch {
            rows: Vec::new(),
            covers: Vec::new(),
            ..batch.clone()
        };
        let mut rows = vec![record.rows.clone()];
        for (number, section) in record.sections.iter().enumerate() {
            let mut framed = Vec::new();
            for (i, piece) in section.pieces.iter().enumerate() {
                let shard = (section.shard.0 - 1) as usize;
                if (piece.0 as usize) < self.firsts[shard] {
                    return None;
                }
                let (message, _) = self.shards[shard].get((piece.0 as usize).checked_sub(1)?)?;
                if !add_piece(message, record, number, i, &mut framed) {
                    return None;
                }
            }
            if framed.len() as u64 != section.length || frame::message_hash(&framed) != section.hash
            {
                framed = b"damaged".to_vec();
            } else if section.kind == SectionKind::Rows {
                rows.push(frame::open(&framed).expect("a section").1.to_vec());
            }
            let blob = self.spool.put(framed.clone()).expect("room");
            out.add_section(section.kind, &framed, blob);
        }
        Some((out, rows))
    }

    /// The message as a node gets it now; `None` where payload is lost.
    pub fn message(&self, at: usize) -> Option<Incoming> {
        let entry = &self.entries[at];
        let mut incoming = entry.incoming.clone();
        if entry.void {
            let (bytes, _) = &self.shards[0][at - 1];
            incoming.body = incoming::open(incoming.sequence, bytes).body;
            return Some(incoming);
        }
        if entry.suspect
            && let Body::Batch(batch) = &entry.incoming.body
            && self.entries[at - 1].accepts.clone().take(&batch.record)
        {
            incoming.body = Body::Batch(Box::new(self.gather(batch)?.0));
        }
        Some(incoming)
    }

    fn read(&mut self, at: Sequence, bytes: &Bytes, implied: bool) {
        let mut incoming = incoming::open(at, bytes);
        incoming.hash = continuity::fingerprint(incoming.hash, self.clock);
        let before = &self.entries[self.end()];
        let (mut state, mut accepts) = (before.state.clone(), before.accepts.clone());
        let mut taken = None;
        let mut kept = Rc::default();
        let mut suspect = false;
        match &mut incoming.body {
            Body::Batch(batch) => {
                let record = batch.record.clone();
                self.sectioned += u64::from(!record.sections.is_empty());
                self.pieced += record
                    .sections
                    .iter()
                    .filter(|s| s.pieces.len() > 1)
                    .count() as u64;
                match self.gather(batch) {
                    Some((whole, rows)) => {
                        assert_eq!(whole.damage, None, "an undamaged batch counts as damaged");
                        **batch = whole;
                        if !implied && accepts.take(&record) {
                            state = fold(&self.specs, &state, &record, &rows);
                            taken = Some(Rc::new(record));
                            kept = Rc::new(rows);
                        }
                    }
                    // A late record whose payload the broker has lost meanwhile.
                    None => suspect = true,
                }
            }
            Body::Payload | Body::Marker(_) => {}
            Body::Unreadable { reason, .. } => panic!("unreadable: {reason}"),
            Body::Newer(v) => panic!("newer: {v}"),
        }
        self.entries.push(Entry {
            incoming,
            state,
            taken,
            rows: kept,
            accepts,
            suspect,
            void: false,
        });
    }
}
