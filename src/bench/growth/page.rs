//! The page that shows all series.

use std::fmt::Write as _;

use serde_json::Value;

use super::curve::{Curve, count};
use crate::bench::series::number;

/// As Markdown, to stand beside the charts.
pub(super) fn markdown(curves: &[Curve], json: &Value) -> String {
    let text = |path: &str| {
        let found = json.pointer(path);
        found.map_or_else(String::new, |v| {
            v.as_str().map_or_else(|| v.to_string(), str::to_owned)
        })
    };
    let mut out = String::from("# Growth\n\n");
    let _ = writeln!(
        out,
        "Written by `harmonylite bench growth --output FOLDER`. How the rate from end to end (rows a second, from the first commit on one node until the last node has\n\
         the last row; 100 rows a transaction) changes when one thing grows and all else stays. Medians of {} rounds of {} s; the thin lines are the spread.\n",
        text("/options/rounds"),
        text("/options/duration_seconds"),
    );
    let _ = writeln!(
        out,
        "Measured {} with harmonylite {} ({} build), SQLite {}, {}. Machine: {}, {} cores, {}, Linux {}, {}; load {} before, {} after. All nodes and the broker share it.",
        text("/at"),
        text("/versions/harmonylite"),
        text("/versions/build"),
        text("/versions/sqlite"),
        text("/versions/nats-server"),
        text("/machine/cpu"),
        text("/machine/cores"),
        text("/machine/memory"),
        text("/machine/kernel"),
        text("/machine/disk"),
        text("/machine/load_before"),
        text("/load_after"),
    );
    if cfg!(debug_assertions) {
        out.push_str("\n**This was a debug build: its figures say nothing about a release.**\n");
    }
    for curve in curves {
        let _ = writeln!(
            out,
            "\n## Against {}\n\n{}\n\n{}\n\n![Rate against {}]({})\n\n| {} | rows/s | smallest | largest |\n|---|---|---|---|",
            curve.name,
            curve.sentence(),
            curve.how,
            curve.name,
            curve.file,
            curve.x
        );
        for point in &curve.points {
            let values = &point.values;
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} |",
                count(point.at),
                number(values.median()),
                number(values.min()),
                number(values.max())
            );
        }
    }
    out
}
