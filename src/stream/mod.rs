//! Everything that touches NATS: the connection, the streams, publishing, reading, key-value buckets and the managed
//! server. The only importer of `async_nats`.
//!
//! ```text
//!   publish loop ──▶ Broker::publish ──▶ stream ──▶ LogReader::next ──▶ consume loop
//!                                          │
//!                     Broker::fetch, stream_state, Kv, NodeLease ── everything else
//!   Broker::ask_peer ──▶ core NATS ──▶ PeerQuestions::next ──▶ another node
//! ```
//!
//! Invariants: every request has a deadline; a wait is never tied to one connection's life (what a broken connection can
//! no longer answer ends at once with a typed error); a secret never enters an error or a log line; positions are
//! [`Sequence`](crate::change::position::Sequence)s of one stream and nothing else.

mod api;
pub mod bare;
mod broker;
mod connect;
pub mod continuity;
mod delivery;
mod error;
mod facts;
mod health;
mod holder;
mod kv;
mod lease;
pub mod managed;
mod object_reader;
mod objects;
mod overview;
mod peer;
mod purge;
mod reader;
mod refusal;
mod role;
mod session;
mod setup;

pub use broker::{Broker, StoredMessage, StreamState};
pub use connect::{Link, install_crypto_provider};
pub use error::{KvError, PublishError, StreamError};
pub use facts::{Account, Limits as AccountLimits, ServerFacts, Tier};
pub use health::{ReaderHealth, ReaderSnapshot};
pub use holder::Holder;
pub use kv::{Kv, KvEntry};
pub use lease::{LeaseError, NodeLease};
pub use object_reader::ObjectReader;
pub use objects::{ObjectEntry, Objects};
pub use overview::{Connected, Overview};
pub use peer::{PeerQuestion, PeerQuestions};
pub use reader::LogReader;
pub use refusal::Refusal;
pub use role::{Role, RoleHolder};
