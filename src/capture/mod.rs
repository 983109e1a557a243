//! Capture: the change-log tables and triggers that note what the application changes.
//!
//! Invariants: the app notices nothing but the cost of one slim row per changed row; what its SQLite must parse is plain
//! enough for version 3.35; every object of ours begins with `__harmonylite__`; removing capture leaves the app's schema as it was.

pub mod app_triggers;
mod captured;
mod carry_over;
mod decide;
mod droppable;
#[cfg(test)]
mod fixture;
pub mod formerly;
pub mod install;
mod known;
pub mod layout;
pub mod prepare;
pub mod rekey;
pub mod remove;
pub mod renames;
mod steps;
pub mod triggers;
pub mod unique_sql;

pub use captured::{Captured, CapturedTable, FormerValues};
pub use known::{forget_names, keep_names, kept_names, note_formerly};
