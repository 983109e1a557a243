//! `docs/errors.md` against the source.

use std::collections::{BTreeMap, BTreeSet};

use crate::{messages, pages};

/// The messages of the page, and how often each stands there.
fn listed() -> BTreeMap<String, usize> {
    let mut out = BTreeMap::new();
    let page = pages::text("docs/errors.md");
    let mut is_catalogue = false;
    for line in page.lines() {
        if line == "| message | cause | remedy |" {
            is_catalogue = true;
        } else if !line.starts_with('|') {
            is_catalogue = false;
        } else if is_catalogue && !line.starts_with("|---") {
            let row = line.replace("\\|", "\u{0}");
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            assert!(
                cells.len() == 3 && cells.iter().all(|cell| cell.len() > 1),
                "docs/errors.md: not a message, a cause and a remedy: {line}"
            );
            let message = cells[0].trim_matches('`').trim().replace('\u{0}', "|");
            *out.entry(message).or_insert(0) += 1;
        }
    }
    out
}

#[test]
fn every_message_is_in_the_catalogue_and_the_other_way_round() {
    let (said, listed) = (messages::all(), listed());
    assert!(said.len() > 400, "{}", said.len());
    let lacking: Vec<String> = said
        .iter()
        .filter(|(message, _)| !listed.contains_key(*message))
        .map(|(message, file)| {
            let ticks = if message.contains('`') { "``" } else { "`" };
            let shown = message.replace('|', "\\|");
            format!(
                "| {ticks}{shown}{ticks} | WHY IT COMES. | WHAT TO DO. |     (of {})",
                file.display()
            )
        })
        .collect();
    let known: BTreeSet<&String> = said.keys().collect();
    let gone: Vec<&String> = listed
        .keys()
        .filter(|message| !known.contains(message))
        .collect();
    let twice: Vec<&String> = listed
        .iter()
        .filter(|(_, n)| **n > 1)
        .map(|(m, _)| m)
        .collect();
    assert!(
        lacking.is_empty() && gone.is_empty() && twice.is_empty(),
        "docs/errors.md and the source differ.\nAdd a line for each of these {} to the table that fits:\n{}\n\
         Remove or correct the lines of these {}, which the program does not say (any more):\n{gone:#?}\nListed twice:\n{twice:#?}",
        lacking.len(),
        lacking.join("\n"),
        gone.len()
    );
}
