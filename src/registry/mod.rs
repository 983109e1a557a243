//! Which schema each node has, for all to see: a key of its own for each node, in NATS KV.
//!
//! ```text
//!   <stream_prefix>-schema-registry   node-<id> ─▶ { node_id, schema_hash, previous_hash, harmonylite_version, updated_at, … }
//! ```
//!
//! People read it (`-schema-status-cluster`). One decision rests on it: which tables a snapshot holds for others (`snapshot::absent`), where what is not known counts as had.
//!
//! Invariants: a node writes its own key only; what it writes is bounded, whatever its schema; an entry of a newer program is read as far as it is known.

pub mod announce;
pub mod audit;
pub mod cluster;
pub mod entry;
