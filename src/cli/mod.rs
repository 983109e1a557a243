//! The command line: flags, commands, exit codes.

pub mod args;
pub mod commands;
pub mod exit;
mod flags;
pub mod usage;
