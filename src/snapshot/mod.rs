//! Snapshots: taking one, where it is kept, and which a node restores from.
//!
//! ```text
//!   database ─ copy ─▶ file ─ (own changes in it have come back) ─ put ─▶ snapshot-….db, then its manifest ─▶ latest.db
//!   snapshot-….json ─ newest of this cluster ─ get, hash ─▶ file ─ restore ─▶ database
//! ```
//!
//! Invariants:
//! - A snapshot counts once its manifest is there, which is written last and holds its hash: whatever breaks off before leaves the older ones valid.
//! - It is available only when every change of its maker that it contains has come back from the stream, so that no restored node has a change that
//!   nobody else will ever see.
//! - What was downloaded is used only if its length and hash are the manifest's.

//! - Streams are trimmed only up to what a verified snapshot covers ([`trim`]).

mod absent;
pub mod catalog;
pub mod cut;
pub mod desk;
pub mod due;
pub mod fold;
pub mod manifest;
pub mod presence;
pub mod reach;
pub mod rebase;
pub mod reconcile;
mod reconciling;
pub mod schedule;
pub mod scratch;
pub mod streams;
pub mod tail;
pub mod take;
mod taking;
pub mod trim;
pub mod verified;
pub mod watch;
