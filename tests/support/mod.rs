//! What several test programs share.
#![allow(dead_code)]

pub mod engine;
pub mod nats;
pub mod ports;
pub mod witness;
