//! One event, taken out of `tracing` while its borrowed values still live.
//!
//! Invariants: no text of an event is longer than [`TEXT`] bytes, and it has at most [`FIELDS`] fields, whatever a peer's error says; a field keeps the name and the
//! kind (number, boolean, text) that it was logged with.

use std::fmt::{Debug, Write as _};
use std::hash::{Hash as _, Hasher as _};
use std::time::SystemTime;

use serde_json::Value as Json;
use tracing::field::{Field, Visit};
use tracing::{Event as Tracing, Level};

/// The longest text of a message or a field. Errors of libraries may quote what they got.
const TEXT: usize = 8 * 1024;
/// The most fields of an event; ours have five.
const FIELDS: usize = 32;

/// What was said, by which part of the program, and when.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    pub(super) at: SystemTime,
    pub(super) level: Level,
    pub(super) target: &'static str,
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, Json)>,
}

impl Event {
    /// Reads it.
    pub(super) fn of(event: &Tracing<'_>) -> Self {
        let about = event.metadata();
        let mut taken = Self {
            at: SystemTime::now(),
            level: *about.level(),
            target: about.target(),
            message: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut taken);
        taken
    }

    /// An event of the log itself.
    pub(super) fn of_ours(level: Level, message: String) -> Self {
        Self {
            at: SystemTime::now(),
            level,
            target: "harmonylite::telemetry::logging",
            message,
            fields: Vec::new(),
        }
    }

    /// The same for events that say the same, whenever they do.
    pub(super) fn sameness(&self) -> u64 {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        (self.level.as_str(), self.target, &self.message).hash(&mut hash);
        for (name, value) in &self.fields {
            name.hash(&mut hash);
            value.hash(&mut hash);
        }
        hash.finish()
    }

    fn put(&mut self, field: &Field, value: Json) {
        match (field.name(), value) {
            ("message", Json::String(text)) => self.message = text,
            (name, value) if self.fields.len() < FIELDS => self.fields.push((name, value)),
            _ => {}
        }
    }
}

impl Visit for Event {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // Microseconds are as fine as any clock here; a number that is none is shown as text.
        let rounded = (value * 1e6).round() / 1e6;
        let json = serde_json::Number::from_f64(rounded).map(Json::Number);
        self.put(field, json.unwrap_or_else(|| value.to_string().into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, bounded(format_args!("{value}")).into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, bounded(format_args!("{value:?}")).into());
    }
}

/// The text, cut at [`TEXT`].
fn bounded(text: std::fmt::Arguments<'_>) -> String {
    let mut out = Bounded(String::new());
    // It refuses what is too much.
    if write!(out, "{text}").is_err() {
        out.0.push('\u{2026}');
    }
    out.0
}

struct Bounded(String);

impl std::fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = TEXT.saturating_sub(self.0.len());
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        let mut end = room;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.0.push_str(text.get(..end).unwrap_or_default());
        Err(std::fmt::Error)
    }
}
