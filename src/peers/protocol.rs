//! What nodes ask one another, in CBOR: numbered fields, so that later versions can add some.
//!
//! Invariants: a question or an answer that is not wholly understood is refused by name; no message is larger than the broker takes, since lists
//! come in pages; an answer never makes its receiver reserve memory for more than its bytes.

use minicbor::{Decode, Encode};

use crate::change::position::Sequence;
use crate::codec::bounds;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Question {
    /// Where are you? Answered when the node has folded `until`, or when `patience` is over.
    #[n(0)]
    Where {
        /// The position that is waited for; 0: none.
        #[n(0)]
        until: Sequence,
        /// Milliseconds.
        #[n(1)]
        patience: u64,
    },
    /// Get ready to hold a snapshot of the position at which the marker `id` stands.
    #[n(1)]
    Prepare {
        /// The marker's id, by which this comparison is known from here on.
        #[n(0)]
        id: u64,
        /// SQLite GLOB of the tables that are compared; `None`: all.
        #[n(1)]
        tables: Option<String>,
        /// Publish nothing new until the marker is folded, for a moment at most: markers before this one could not be folded by themselves.
        #[cbor(n(2), default)]
        calm: bool,
    },
    /// Do this step of a comparison. The same step asked again is answered with how far it is, or with what came of it.
    #[n(2)]
    Step {
        /// The comparison.
        #[n(0)]
        id: u64,
        /// Steps are numbered from 1; the next one begins when its number is asked for.
        #[n(1)]
        step: u64,
        /// What to do.
        #[n(2)]
        command: Command,
        /// How long the answer may wait for the step to be done, in milliseconds.
        #[n(3)]
        patience: u64,
    },
    /// Others are not done yet: keep the snapshot.
    #[n(4)]
    Keep {
        /// The comparison.
        #[n(0)]
        id: u64,
    },
    /// Answer when the marker is folded, or when `patience` is over.
    #[n(5)]
    Await {
        /// The marker's.
        #[n(0)]
        id: u64,
        /// Milliseconds.
        #[n(1)]
        patience: u64,
    },
    /// The comparison is over: let go of the snapshot.
    #[n(3)]
    Release {
        /// The comparison.
        #[n(0)]
        id: u64,
    },
}

/// One step of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// Wait until the marker is folded and the snapshot is there.
    #[n(0)]
    Reach,
    /// List the tables.
    #[n(1)]
    Tables {
        /// Where this page begins.
        #[n(0)]
        from: u64,
    },
    /// List the rows with pending changes, by the hash of table and key.
    #[n(2)]
    Pending {
        /// How many bytes of the list are known already.
        #[n(0)]
        from: u64,
    },
    /// Leave these rows out, too.
    #[n(3)]
    SetApart {
        /// Hashes of table and key, 16 bytes each.
        #[cbor(n(0), with = "minicbor::bytes")]
        rows: Vec<u8>,
    },
    /// Digest a table by buckets of keys.
    #[n(4)]
    Digest {
        /// The table.
        #[n(0)]
        table: String,
        /// The columns that all nodes have.
        #[n(1)]
        columns: Vec<String>,
    },
    /// List the rows of some buckets.
    #[n(5)]
    Rows {
        /// The table.
        #[n(0)]
        table: String,
        /// The columns that all nodes have.
        #[n(1)]
        columns: Vec<String>,
        /// The buckets.
        #[n(2)]
        buckets: Vec<u64>,
        /// How many bytes of the list are known already.
        #[n(3)]
        from: u64,
    },
    /// Keep these rows for sending them again.
    #[n(6)]
    Gather {
        /// The table.
        #[n(0)]
        table: String,
        /// Keys, each with its length before it.
        #[cbor(n(1), with = "minicbor::bytes")]
        keys: Vec<u8>,
    },
    /// Send the rows that were gathered again, and wait until they have come back.
    #[n(7)]
    Resend,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// Where the node is.
    #[n(0)]
    At {
        /// How far it has folded the order stream.
        #[n(0)]
        position: Sequence,
        /// Whether it applies at all.
        #[n(1)]
        replicate: bool,
        /// Why it stands still, if it does.
        #[n(2)]
        paused: Option<String>,
    },
    /// The node waits for the marker.
    #[n(1)]
    Prepared,
    /// The step is under way.
    #[n(2)]
    Working {
        /// Rows read so far.
        #[n(0)]
        rows: u64,
        /// How far the node has folded the order stream.
        #[n(1)]
        position: Sequence,
        /// Why it stands still, if it does.
        #[n(2)]
        paused: Option<String>,
    },
    /// The step is done.
    #[n(3)]
    Done(#[n(0)] Outcome),
    /// The question cannot be answered.
    #[n(4)]
    Refused {
        /// Why, and what to do.
        #[n(0)]
        reason: String,
    },
    /// It is done: kept, let go of, or folded.
    #[n(5)]
    Heard,
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// The snapshot is there.
    #[n(0)]
    Reached,
    /// The marker was passed without a snapshot of exactly its position: try another marker.
    #[n(1)]
    Missed {
        /// Why.
        #[n(0)]
        reason: String,
    },
    /// Tables.
    #[n(2)]
    Tables {
        /// This page of them.
        #[n(0)]
        tables: Vec<TableFacts>,
        /// Where the next page begins, if there is one.
        #[n(1)]
        next: Option<u64>,
    },
    /// Rows with pending changes.
    #[n(3)]
    Pending {
        /// Hashes of table and key, 16 bytes each.
        #[cbor(n(0), with = "minicbor::bytes")]
        rows: Vec<u8>,
        /// Whether there are more.
        #[n(1)]
        more: bool,
    },
    /// They are left out.
    #[n(4)]
    SetApart,
    /// A table's digest.
    #[n(5)]
    Digest {
        /// Rows that were digested.
        #[n(0)]
        rows: u64,
        /// For each bucket its rows (8 bytes, LE) and the sum of their digests (16 bytes, LE).
        #[cbor(n(1), with = "minicbor::bytes")]
        buckets: Vec<u8>,
    },
    /// Rows of buckets.
    #[n(6)]
    Rows {
        /// A piece of the list: for each row the hash of its key and its digest (16 bytes each), then its key with the length before it.
        #[cbor(n(0), with = "minicbor::bytes")]
        list: Vec<u8>,
        /// Whether there is more.
        #[n(1)]
        more: bool,
    },
    /// They are kept.
    #[n(7)]
    Gathered,
    /// They have come back from the stream.
    #[n(8)]
    Resent {
        /// How many.
        #[n(0)]
        rows: u64,
    },
    /// The step cannot be done.
    #[n(9)]
    Failed {
        /// Why, and what to do.
        #[n(0)]
        reason: String,
    },
}

/// A table as a node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TableFacts {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Why it is not replicated; `None`: it is.
    #[n(1)]
    pub left_out: Option<String>,
    /// Its stored columns.
    #[n(2)]
    pub columns: Vec<String>,
    /// Its key, with what it compares by.
    #[n(3)]
    pub key: Vec<String>,
}

/// What stands around every message.
#[derive(Encode, Decode)]
#[cbor(array)]
struct Envelope<T> {
    #[n(0)]
    version: u64,
    #[n(1)]
    body: T,
}

/// The version that this program speaks.
pub const VERSION: u64 = 1;

/// A message that is not understood.
#[derive(Debug, thiserror::Error)]
#[error(
    "it speaks another version of the language between nodes: run the same version of harmonylite on all nodes"
)]
pub struct NotUnderstood {
    /// What does not fit.
    #[source]
    pub source: minicbor::decode::Error,
}

/// Encodes a question or an answer.
#[must_use]
pub fn encode<T: Encode<()>>(body: &T) -> Vec<u8> {
    // Writing CBOR to memory cannot fail.
    minicbor::to_vec(Envelope {
        version: VERSION,
        body,
    })
    .unwrap_or_default()
}

/// Decodes a question or an answer.
///
/// # Errors
/// [`NotUnderstood`].
pub fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, NotUnderstood> {
    bounds::decode::<Envelope<T>>(bytes, bounds::ITEMS_OF_MESSAGE)
        .and_then(|e| {
            if e.version == VERSION {
                Ok(e.body)
            } else {
                Err(minicbor::decode::Error::message("another version"))
            }
        })
        .map_err(|source| NotUnderstood { source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_read() {
        let question = Question::Step {
            id: 7,
            step: 2,
            command: Command::Rows {
                table: "t".into(),
                columns: vec!["a".into()],
                buckets: vec![0, 1023],
                from: 9,
            },
            patience: 500,
        };
        assert_eq!(decode::<Question>(&encode(&question)).unwrap(), question);
        let answer = Answer::Done(Outcome::Tables {
            tables: vec![TableFacts {
                name: "t".into(),
                left_out: None,
                columns: vec!["a".into()],
                key: vec!["rowid".into()],
            }],
            next: Some(1),
        });
        assert_eq!(decode::<Answer>(&encode(&answer)).unwrap(), answer);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let good = encode(&Answer::Prepared);
        for length in 0..good.len() {
            assert!(decode::<Answer>(&good[..length]).is_err(), "{length}");
        }
        let other = minicbor::to_vec(Envelope {
            version: VERSION + 1,
            body: &Answer::Prepared,
        })
        .unwrap();
        assert!(decode::<Answer>(&other).is_err());
        assert!(decode::<Question>(b"{\"where\":1}").is_err());
    }
}
