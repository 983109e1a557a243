//! `harmonylite streams`: what each shard's stream holds, and how far each node has read it.

use super::nats::{self, Nats};
use super::snapshot::size;
use super::{Done, Verb, Word};
use crate::cli::flags::switch;
use crate::cli::table::{escaped, moment, render};
use crate::cluster::streams::{self, StreamView, StreamsView};
use crate::config::Config;
use crate::control::Request;
use crate::engine::Fatal;

pub(super) const VERBS: &[Verb] = &[Verb {
    group: "streams",
    verb: None,
    operands: "",
    options: &[switch("json", "machine-readable")],
    about: "show each shard's stream: entries, bytes, oldest, newest, and each node's offset",
    more: "Commit records stand in shard 1, and a node's position is its offset there. Of the other shards, which hold\n\
           payload only, a node knows its offset from the first batch that it folds of them after its start.",
    parse: |given| {
        given.no_operands()?;
        Ok(Word::Streams {
            json: given.switch("json")?,
        })
    },
}];

pub(super) fn run(json: bool, config: &Config) -> Result<Done, Fatal> {
    let view: StreamsView = match nats::ask(config, Request::Streams)? {
        Some(answer) => nats::result(answer)?,
        None => {
            let nats = Nats::without_daemon(config)?;
            let log = &config.replication_log;
            let look = streams::look(&nats.broker, log.shards, log.replicas);
            let looked = nats.runtime.block_on(look);
            looked.map_err(nats::looking)?
        }
    };
    Ok(if json {
        Done::json(&view)
    } else {
        Done::ok(text(&view))
    })
}

fn text(view: &StreamsView) -> String {
    let rows: Vec<Vec<String>> = view.streams.iter().map(row).collect();
    let head = [
        "SHARD", "ENTRIES", "BYTES", "LIMIT", "FIRST", "LAST", "OLDEST", "NEWEST",
    ];
    let mut text = render(&head, &rows, head.len());
    let nodes: Vec<Vec<String>> = view.streams.iter().flat_map(offsets).collect();
    text.push('\n');
    text.push_str(&render(&["NODE", "SHARD", "OFFSET", "BEHIND"], &nodes, 4));
    for stream in &view.streams {
        for sentence in remarks(stream) {
            text.push_str(&format!(
                "! stream {}: {}\n",
                escaped(&stream.stream),
                escaped(&sentence)
            ));
        }
    }
    text
}

fn row(s: &StreamView) -> Vec<String> {
    let time = |t: &Option<String>| t.as_deref().map_or_else(|| "-".to_owned(), moment);
    vec![
        s.shard.to_string(),
        s.entries.to_string(),
        size(s.bytes),
        s.limit_bytes.map_or_else(|| "none".to_owned(), size),
        s.first.to_string(),
        s.last.to_string(),
        time(&s.oldest),
        time(&s.newest),
    ]
}

fn offsets(s: &StreamView) -> Vec<Vec<String>> {
    let unknown = || "-".to_owned();
    s.offsets
        .iter()
        .map(|(node, offset)| {
            vec![
                node.to_string(),
                s.shard.to_string(),
                offset.map_or_else(unknown, |at| at.to_string()),
                offset.map_or_else(unknown, |at| s.last.saturating_sub(at).to_string()),
            ]
        })
        .collect()
}

fn remarks(s: &StreamView) -> Vec<String> {
    let mut out: Vec<String> = s.error.iter().cloned().collect();
    for (what, servers) in [("offline", &s.offline), ("behind", &s.behind)] {
        if !servers.is_empty() {
            out.push(format!(
                "the copy on NATS server {} is {what}",
                servers.join(", ")
            ));
        }
    }
    out
}
