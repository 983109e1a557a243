//! The outbound way: the messages of a batch, and the loop that scans, sends, and waits for the echo.

pub mod flying;
pub mod gate;
pub mod outbox;
mod round_trips;
pub mod run;
mod sampler;
