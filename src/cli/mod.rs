//! The command line: flags, words, commands, exit codes.

pub mod args;
pub mod commands;
pub mod exit;
mod flags;
pub mod table;
pub mod usage;
pub mod words;
