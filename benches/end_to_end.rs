//! `make bench`: what capture costs the app, how fast and how late rows arrive, what a node needs. Each row runs alternately with its baseline in the
//! same run, so that its ratio holds on any machine and beside other work; docs/benchmarks.md explains each one.
//!
//! `HARMONYLITE_BENCH_ROUNDS` (3) sets how often, `HARMONYLITE_BENCH_ONLY` (words, comma-separated) which rows; only a full run writes
//! docs/benchmarks/latest.json.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

mod bench;

fn main() {
    bench::run();
}
