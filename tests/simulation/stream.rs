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
use harmonylite::stream::{StreamState, continuity};

use crate::model::{Accepts, State, fold};
use crate::rng::Rng;
use crate::schema::TableSpec;

/// One message of the order stream, and what it came to in the model.
pub struct Entry {
    pub incoming: Incoming,
    /// The model's state behind it.
    pub state: State,
    /// The record, if it counts.
    pub taken: Option<Rc<CommitRecord>>,
    /// What counts next of each publisher.
    accepts: Accepts,
    /// Pieces that it names may be gone.
    suspect: bool,
}

/// All shards.
pub struct Stream {
    /// Each message with the time at which it was stored.
    shards: Vec<Vec<(Bytes, u64)>>,
    clock: u64,
    /// The first message of the order stream that is still there.
    pub first: usize,
    /// The order stream, opened; the first stands for what was there before the first message.
    pub entries: Vec<Entry>,
    specs: Rc<Vec<TableSpec>>,
    spool: Arc<Spool>,
    /// The highest incarnation seen in any message of a node.
    pub incarnations: std::collections::HashMap<u64, u64>,
    pub sectioned: u64,
    pub pieced: u64,
}

impl Stream {
    pub fn new(specs: Rc<Vec<TableSpec>>, start: State, spool: Arc<Spool>) -> Self {
        Self {
            shards: vec![Vec::new(); 4],
            clock: 0,
            first: 1,
            entries: vec![Entry {
                incoming: Incoming {
                    sequence: Sequence(0),
                    hash: 0,
                    body: Body::Payload,
                },
                state: start,
                taken: None,
                accepts: Accepts::default(),
                suspect: false,
            }],
            specs,
            spool,
            incarnations: Default::default(),
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

    /// What the broker says of the order stream.
    pub fn info(&self) -> StreamState {
        StreamState {
            first: Sequence(self.first as u64),
            last: Sequence(self.end() as u64),
            messages: (self.end() + 1 - self.first) as u64,
            bytes: 0,
            limit: None,
            created: 1,
        }
    }

    /// What a node compares with what it remembers of its position.
    pub fn fingerprint(&self, at: Sequence) -> Option<u64> {
        let at = at.0 as usize;
        (at >= self.first && at <= self.end()).then(|| self.entries[at].incoming.hash)
    }

    /// Whether a message, if it is a commit record, names payload that is there.
    pub fn is_whole(&self, shard: ShardId, bytes: &Bytes) -> bool {
        match incoming::open(Sequence(0), bytes).body {
            Body::Batch(batch) if shard == ShardId::ORDER => self.gather(&batch).is_some(),
            _ => true,
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
            let least = if n == 0 { self.first - 1 } else { 0 };
            shard.truncate((shard.len() - lost).max(least));
        }
        let keep = self.shards[0].len();
        let states = self.entries[keep..]
            .iter()
            .map(|e| e.state.clone())
            .collect();
        self.entries.truncate(keep + 1);
        self.incarnations.clear();
        for at in 1..=keep {
            let mut suspect = false;
            if let Body::Batch(batch) = &self.entries[at].incoming.body {
                let record = &batch.record;
                let highest = self.incarnations.entry(record.node.0).or_default();
                *highest = (*highest).max(record.incarnation.counter);
                suspect = record.sections.iter().any(|s| {
                    let left = self.shards[(s.shard.0 - 1) as usize].len() as u64;
                    s.pieces.iter().any(|p| p.0 > left)
                });
            }
            self.entries[at].suspect |= suspect;
        }
        (keep, states)
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
                let shard = &self.shards[(section.shard.0 - 1) as usize];
                let (message, _) = shard.get((piece.0 as usize).checked_sub(1)?)?;
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
                let highest = self.incarnations.entry(record.node.0).or_default();
                *highest = (*highest).max(record.incarnation.counter);
                match self.gather(batch) {
                    Some((whole, rows)) => {
                        assert_eq!(whole.damage, None, "an undamaged batch counts as damaged");
                        **batch = whole;
                        if !implied && accepts.take(&record) {
                            state = fold(&self.specs, &state, &record, &rows);
                            taken = Some(Rc::new(record));
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
            accepts,
            suspect,
        });
    }
}
