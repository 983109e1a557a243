//! The outbound way: batches, their messages, and the loop that sends them.

pub mod outbox;
