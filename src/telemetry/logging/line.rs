//! An event as one line, for people or for machines.
//!
//! Invariants: a line holds no line break but the one that ends it, no control character and none that turns the direction of writing, whatever a table is
//! called; a line of JSON is one object whose `timestamp`, `level`, `node`, `target` and `message` are always there, in this order, before the event's own fields.

use std::fmt::Write as _;

use serde::ser::{SerializeMap as _, Serializer};
use serde_json::Value as Json;
use time::OffsetDateTime;
use tracing::Level;

use super::event::Event;
use crate::config::LogFormat;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) format: LogFormat,
    /// Levels in colours.
    pub(super) colour: bool,
    /// This node, which every line of JSON names.
    pub(super) node: u64,
}

/// The line of an event, with its line break.
pub(super) fn line(event: &Event, look: Look) -> String {
    let mut line = match look.format {
        LogFormat::Console => console(event, look.colour),
        LogFormat::Json => json(event, look.node),
    };
    line.push('\n');
    line
}

fn console(event: &Event, colour: bool) -> String {
    let level = event.level;
    let (on, off) = match level {
        _ if !colour => ("", ""),
        Level::ERROR => ("\u{1b}[31m", "\u{1b}[0m"),
        Level::WARN => ("\u{1b}[33m", "\u{1b}[0m"),
        Level::INFO => ("\u{1b}[32m", "\u{1b}[0m"),
        _ => ("\u{1b}[2m", "\u{1b}[0m"),
    };
    let mut text = event.message.clone();
    for (name, value) in &event.fields {
        // Writing to a string cannot fail.
        let _ = match value {
            Json::String(value) if needs_quotes(value) => write!(text, " {name}={value:?}"),
            Json::String(value) => write!(text, " {name}={value}"),
            value => write!(text, " {name}={value}"),
        };
    }
    format!(
        "{} {on}{:>5}{off} {}",
        timestamp(event),
        level.as_str(),
        visible(&text)
    )
}

/// So that it is seen where the value ends.
fn needs_quotes(value: &str) -> bool {
    value.is_empty() || value.contains([' ', '"', '='])
}

fn json(event: &Event, node: u64) -> String {
    let mut bytes = Vec::new();
    let mut writer = serde_json::Serializer::new(&mut bytes);
    // Texts and numbers under names that are texts always have a form.
    let _ = object(event, node, &mut writer);
    // Outside of its texts JSON holds none of these.
    visible(&String::from_utf8_lossy(&bytes))
}

fn object<S: Serializer>(event: &Event, node: u64, writer: S) -> Result<S::Ok, S::Error> {
    const OURS: [&str; 5] = ["timestamp", "level", "node", "target", "message"];
    let mut line = writer.serialize_map(None)?;
    line.serialize_entry("timestamp", &timestamp(event))?;
    line.serialize_entry("level", event.level.as_str())?;
    line.serialize_entry("node", &node)?;
    line.serialize_entry("target", event.target)?;
    line.serialize_entry("message", &event.message)?;
    for (name, value) in event.fields.iter().filter(|(n, _)| !OURS.contains(n)) {
        line.serialize_entry(name, value)?;
    }
    line.end()
}

/// Text whose every character is seen. The escapes are those of JSON, so JSON stays what it was.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let hidden = c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        // Writing to a string cannot fail.
        let _ = match c {
            '\n' => write!(out, "\\n"),
            '\r' => write!(out, "\\r"),
            '\t' => write!(out, "\\t"),
            c if hidden => write!(out, "\\u{:04x}", u32::from(c)),
            c => {
                out.push(c);
                Ok(())
            }
        };
    }
    out
}

/// UTC, always to the microsecond, so that lines sort as text.
fn timestamp(event: &Event) -> String {
    let at = OffsetDateTime::from(event.at);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.microsecond()
    )
}
