//! Positions and identities as types, so that a stream sequence, a change-log id and a batch number
//! can never stand in for one another. (The Go program's worst fault was one cursor with two meanings.)

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, minicbor::Encode, minicbor::Decode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] pub u64);

        impl $name {
            /// The number after this one; the last one has none, and what another node claims may be that.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A message's sequence in one JetStream stream; the first is 1, and 0 means "before the first".
    Sequence
}
number! {
    /// The number of a batch within one incarnation of its publisher; the first is 1.
    BatchNumber
}
number! {
    /// A shard of the replication log; the first, which is also the order stream, is 1.
    ShardId
}
number! {
    /// The number that names a node in its cluster (`node_id`).
    NodeId
}

impl ShardId {
    /// The order stream: the shard whose stream carries every commit record.
    pub const ORDER: Self = Self(1);
}

/// One life of a publisher: a counter that every start raises, and a nonce that tells two starts apart
/// which took the same counter (from an older copy of the file, or in a cloned machine).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, minicbor::Encode, minicbor::Decode)]
#[cbor(array)]
pub struct Incarnation {
    /// Raised by one above all that is known at each start.
    #[n(0)]
    pub counter: u64,
    /// Random per start.
    #[n(1)]
    pub nonce: u64,
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:016x}", self.counter, self.nonce)
    }
}
