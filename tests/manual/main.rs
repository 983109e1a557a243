//! The manual and the program say the same: each message, command, flag, key, variable and endpoint of one is in the other, and every link leads somewhere.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod errors;
mod links;
mod messages;
mod pages;
mod rust;
mod words;
