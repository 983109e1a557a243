//! What was measured, for people and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Options;
use super::bars;
use super::machine::{load, machine, now, versions};
use super::row::Row;
use super::series::{Series, number};

/// All rows of a run.
pub struct Report {
    options: Options,
    /// The rows, in the order in which they ran.
    pub rows: Vec<Row>,
    machine: Value,
    load_after: String,
    at: String,
    /// The broker's version.
    pub nats_server: String,
    /// What was found equal on all nodes.
    pub equal: Vec<String>,
}

impl Report {
    /// An empty report.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        let folder = options.folder.clone().unwrap_or_else(std::env::temp_dir);
        Self {
            machine: machine(&folder),
            load_after: String::new(),
            options: options.clone(),
            rows: Vec::new(),
            at: now(),
            nats_server: String::new(),
            equal: Vec::new(),
        }
    }

    /// All is measured.
    pub fn end(&mut self) {
        self.load_after = load();
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        if cfg!(debug_assertions) {
            out.push_str("This is a debug build: its figures say nothing about a release.\n\n");
        }
        let _ = writeln!(
            out,
            "{:<22} {:<22} {:<26} {:<14}",
            "with HarmonyLite", "baseline", "ratio", "target"
        );
        for row in &self.rows {
            let ratios = row.ratios(row.baseline.as_ref());
            let baseline = row.baseline.as_ref();
            let verdict = if row.met() { "met" } else { "MISSED" };
            let _ = writeln!(
                out,
                "\n{} [{}]\n{:<22} {:<22} {:<26} {:<14} {verdict}",
                row.title(),
                row.unit,
                span(&row.ours, number),
                baseline.map_or_else(String::new, |b| span(&b.values, number)),
                span(&ratios, |r| row.ratio_text(r)),
                row.target_text(),
            );
            if let Some(baseline) = baseline {
                let _ = writeln!(out, "  baseline: {}", baseline.is);
            }
            for floor in &row.floors {
                let _ = writeln!(
                    out,
                    "  {}: {}, {}; against it: {}",
                    floor.is,
                    span(&floor.values, number),
                    span(&row.cost_of(floor), |r| row.ratio_text(r)),
                    span(&row.ratios(Some(floor)), |r| row.ratio_text(r))
                );
            }
            for note in &row.notes {
                let _ = writeln!(out, "  {note}");
            }
        }
        out.push('\n');
        for line in &self.equal {
            let _ = writeln!(out, "{line}");
        }
        let _ = writeln!(
            out,
            "medians of {} rounds, smallest and largest in brackets; load {} before, {} after",
            self.options.rounds,
            self.machine
                .get("load_before")
                .and_then(Value::as_str)
                .unwrap_or_default(),
            self.load_after
        );
        out
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut machine = self.machine.clone();
        if let Some(fields) = machine.as_object_mut() {
            fields.insert("load_after".to_owned(), json!(self.load_after));
        }
        json!({
            "at": self.at,
            "machine": machine,
            "versions": versions(&self.nats_server),
            "options": {
                "rounds": self.options.rounds,
                "clients": self.options.clients,
                "rate": self.options.rate,
                "duration_seconds": self.options.duration.as_secs_f64(),
                "rows": self.options.rows,
                "database_mb": self.options.database_mb,
            },
            "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "equal": self.equal,
        })
    }

    /// The chart: each row against its target.
    #[must_use]
    pub fn svg(&self) -> String {
        bars::chart(&self.rows)
    }
}

/// Median, and smallest and largest where there are several.
fn span(series: &Series, text: impl Fn(f64) -> String) -> String {
    match series.0.len() {
        0 => String::new(),
        1 => text(series.median()),
        _ => format!(
            "{} ({}-{})",
            text(series.median()),
            text(series.min()),
            text(series.max())
        ),
    }
}
