//! All nodes as one picture: what each says about itself, what the broker knows of it, and what follows from both.
//!
//! ```text
//!   announce ─▶ <stream_prefix>-snapshots at-<node> ─▶ look ─▶ view      status, nodes
//!   hearing  ─▶ asks each node that announces itself ─▶ shown            isolation, partitions, metrics of each node
//!   ping     ─▶ a marker in the order stream, awaited by each node        delivery through the stream
//! ```
//!
//! Invariants: nothing here decides what is published, folded or trimmed; an age is the difference of two times of the server's, never of two nodes' clocks; what one
//! node says about itself is shown as that, bounded in length, and believed by nobody.

pub mod about;
pub mod announce;
pub mod forget;
pub mod hearing;
pub mod look;
pub mod ping;
pub mod shown;
pub mod streams;
pub mod timeline;
pub mod view;
pub mod way;
