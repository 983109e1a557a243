//! The simulated replication log: one vector of messages a shard, and the order stream read as the daemon reads it.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use harmonylite::apply::incoming::{self, Body, Incoming};
use harmonylite::change::position::{Sequence, ShardId};
use harmonylite::codec::commit::{CommitRecord, SectionKind};
use harmonylite::codec::frame::{self, Kind};
use harmonylite::codec::payload;
use harmonylite::codec::spool::Spool;

use crate::model::{Accepts, State, fold};
use crate::schema::TableSpec;

/// One message of the order stream, and what it came to in the model.
pub struct Entry {
    pub incoming: Incoming,
    /// The model's state behind it.
    pub state: State,
    /// The record, if it counts.
    pub taken: Option<Rc<CommitRecord>>,
}

/// All shards.
pub struct Stream {
    shards: Vec<Vec<Bytes>>,
    /// The order stream, opened; the first stands for what was there before the first message.
    pub entries: Vec<Entry>,
    accepts: Accepts,
    specs: Rc<Vec<TableSpec>>,
    spool: Arc<Spool>,
    /// The highest incarnation seen in any message of a node.
    pub incarnations: std::collections::HashMap<u64, u64>,
    /// Batches with sections, and sections of several pieces.
    pub sectioned: u64,
    pub pieced: u64,
}

impl Stream {
    pub fn new(specs: Rc<Vec<TableSpec>>, start: State, spool: Arc<Spool>) -> Self {
        Self {
            shards: vec![Vec::new(); 4],
            entries: vec![Entry {
                incoming: Incoming {
                    sequence: Sequence(0),
                    hash: 0,
                    body: Body::Payload,
                },
                state: start,
                taken: None,
            }],
            accepts: Accepts::default(),
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

    /// Stores a message; its sequence.
    pub fn append(&mut self, shard: ShardId, bytes: Bytes) -> Sequence {
        let n = (shard.0 - 1) as usize;
        self.shards[n].push(bytes.clone());
        let at = Sequence(self.shards[n].len() as u64);
        if shard == ShardId::ORDER {
            self.read(at, &bytes);
        }
        at
    }

    fn message(&self, shard: ShardId, at: Sequence) -> &Bytes {
        &self.shards[(shard.0 - 1) as usize][(at.0 - 1) as usize]
    }

    fn read(&mut self, at: Sequence, bytes: &Bytes) {
        let mut incoming = incoming::open(at, bytes);
        let mut state = self.entries[self.end()].state.clone();
        let mut taken = None;
        match &mut incoming.body {
            Body::Batch(batch) => {
                let record = batch.record.clone();
                let mut rows = vec![record.rows.clone()];
                self.sectioned += u64::from(!record.sections.is_empty());
                for section in &record.sections {
                    self.pieced += u64::from(section.pieces.len() > 1);
                    let mut framed = Vec::new();
                    for piece in &section.pieces {
                        let message = self.message(section.shard, *piece);
                        let (kind, body) = frame::open(message).expect("a piece that opens");
                        assert_eq!(
                            kind,
                            Kind::Payload,
                            "a record names something else as payload"
                        );
                        let piece = payload::decode(&body).expect("a piece that decodes");
                        assert_eq!(
                            (piece.node, piece.incarnation, piece.batch),
                            (record.node, record.incarnation, record.batch),
                            "a record names another batch's payload"
                        );
                        framed.extend_from_slice(piece.bytes);
                    }
                    assert_eq!(framed.len() as u64, section.length);
                    assert_eq!(frame::message_hash(&framed), section.hash);
                    if section.kind == SectionKind::Rows {
                        rows.push(frame::open(&framed).expect("a section").1.to_vec());
                    }
                    let blob = self.spool.put(framed.clone()).expect("room");
                    batch.add_section(section.kind, &framed, blob);
                }
                assert_eq!(batch.damage, None, "an undamaged batch counts as damaged");
                let highest = self.incarnations.entry(record.node.0).or_default();
                *highest = (*highest).max(record.incarnation.counter);
                if self.accepts.take(&record) {
                    state = fold(&self.specs, &state, &record, &rows);
                    taken = Some(Rc::new(record));
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
        });
    }
}
