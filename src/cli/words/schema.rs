//! `harmonylite schema` (and `-schema-status`, `-schema-status-cluster`): which schema this node has, and in what the others differ.
//!
//! Invariant: the database is only read; a daemon, where one runs, is only asked.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::snapshot::connect;
use super::{Done, Verb, Word};
use crate::cli::commands::sqlite_fault;
use crate::cli::exit::ExitCode;
use crate::cli::flags::switch;
use crate::cli::table::{count, escaped, moment, render};
use crate::config::Config;
use crate::control::{Request, client};
use crate::engine::Fatal;
use crate::registry::audit::{Audit, Running, audit};
use crate::registry::cluster::{self, Listed};
use crate::registry::entry::Entry;
use crate::replica::filter::TableFilter;
use crate::sqlite::connection;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// Of all nodes.
    pub cluster: bool,
    /// As JSON.
    pub json: bool,
}

impl Schema {
    /// `-schema-status`.
    pub const NODE: Self = Self {
        cluster: false,
        json: false,
    };
    /// `-schema-status-cluster`.
    pub const CLUSTER: Self = Self {
        cluster: true,
        json: false,
    };
}

/// How long the daemon may take to say how it is.
const PING: Duration = Duration::from_secs(5);

/// How long the broker may take for all that is asked of it.
const BROKER: Duration = Duration::from_secs(20);

/// Differences of one node that are shown.
const SHOWN: usize = 10;

pub(super) const VERBS: &[Verb] = &[Verb {
    group: "schema",
    verb: None,
    operands: "",
    options: &[
        switch("cluster", "of all nodes: in what they differ from this one"),
        switch("json", "for programs"),
    ],
    about: "show the schema that is replicated, what waits for a change of it, and in what nodes differ",
    more: "Exit code 0: nothing waits, all are equal; 1: this node waits for a change of its schema, or (--cluster) nodes differ.",
    parse: |given| {
        given.no_operands()?;
        Ok(Word::Schema(Schema {
            cluster: given.switch("cluster")?,
            json: given.switch("json")?,
        }))
    },
}];

pub(super) fn run(command: Schema, config: &Config) -> Result<Done, Fatal> {
    let here = look(config)?;
    if !command.cluster {
        let code = if waits_for(&here).is_some() {
            ExitCode::Failed
        } else {
            ExitCode::Ok
        };
        let done = if command.json {
            Done::json(&here)
        } else {
            Done::ok(of_node(config, &here))
        };
        return Ok(Done { code, ..done });
    }
    let (nodes, unreadable) = ask_registry(config)?;
    let own = entry_of(config, &here);
    let seen: Vec<Seen> = nodes.into_iter().map(|node| Seen::of(node, &own)).collect();
    // A node that is gone holds nobody up.
    let equal = seen.iter().all(|n| !n.running || n.differs.is_empty());
    let code = if equal {
        ExitCode::Ok
    } else {
        ExitCode::Failed
    };
    let done = if command.json {
        Done::json(&Cluster {
            schema_hash: &here.schema_hash,
            equal,
            nodes: &seen,
            unreadable: &unreadable,
        })
    } else {
        Done::ok(of_cluster(config, &here, &seen, &unreadable))
    };
    Ok(Done { code, ..done })
}

/// The database, and what the daemon says where one runs.
fn look(config: &Config) -> Result<Audit, Fatal> {
    if !config.db_path.exists() {
        return Err(Fatal::new(
            ExitCode::Unavailable,
            format!(
                "there is no database at {} yet: the first start makes it, or give the right one with -db",
                config.db_path.display()
            ),
        ));
    }
    let conn = connection::open_reader(&config.db_path).map_err(|e| sqlite_fault(&e))?;
    let filter = TableFilter::new(&config.replication.include, &config.replication.exclude);
    let mut here = audit(&conn, &filter).map_err(|e| sqlite_fault(&e))?;
    // None runs, it is just starting, or it is of another version: then the database alone tells.
    let answer = client::request(&config.db_path, Request::Ping, PING, |_| {});
    here.daemon = answer.ok().and_then(|a| {
        let said = a.result?.get("schema")?.clone();
        serde_json::from_value::<Running>(said).ok()
    });
    Ok(here)
}

fn waits_for(here: &Audit) -> Option<&str> {
    here.daemon.as_ref()?.waits_for.as_deref()
}

fn of_node(config: &Config, here: &Audit) -> String {
    let mut out = String::new();
    // Writing to memory cannot fail.
    let mut line = |text: String| {
        let _ = writeln!(out, "{}", escaped(&text));
    };
    let before = here
        .daemon
        .as_ref()
        .map(|d| d.previous_hash.as_str())
        .filter(|h| !h.is_empty())
        .map_or(String::new(), |h| format!(" (before: {h})"));
    line(format!(
        "node {}, database {}",
        config.node_id,
        config.db_path.display()
    ));
    line(format!(
        "schema {}{before}: {}, {} pending",
        here.schema_hash,
        count(here.tables.len(), "replicated table"),
        count(
            usize::try_from(here.pending).unwrap_or(usize::MAX),
            "change"
        ),
    ));
    match &here.daemon {
        None => line("no daemon answers: changes are captured, and wait".to_owned()),
        Some(d) => match (&d.waits_for, &d.paused) {
            (Some(lacking), _) => {
                let since = d
                    .waits_since
                    .as_ref()
                    .map_or(String::new(), |s| format!(" since {} UTC", moment(s)));
                line(format!("applying WAITS{since}: {lacking}"));
            }
            (None, Some(other)) => line(format!("applying is paused: {other}")),
            (None, None) => line("the daemon runs, nothing waits for the schema".to_owned()),
        },
    }
    let rows: Vec<Vec<String>> = here
        .tables
        .iter()
        .map(|t| {
            let key = if t.table.key.is_empty() {
                "rowid".to_owned()
            } else {
                t.table.key.join(", ")
            };
            vec![
                t.table.name.clone(),
                t.table.columns.len().to_string(),
                key,
                t.table.uniques.len().to_string(),
                t.capture.word().to_owned(),
                t.pending.to_string(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        out.push('\n');
        out.push_str(&render(
            &["TABLE", "COLUMNS", "KEY", "UNIQUE", "CAPTURE", "PENDING"],
            &rows,
            0,
        ));
    }
    if !here.refused.is_empty() || !here.warnings.is_empty() {
        out.push('\n');
    }
    let notes = here
        .refused
        .iter()
        .map(|(table, why)| format!("not replicated: table \"{table}\": {why}"))
        .chain(here.warnings.iter().map(|w| format!("note: {w}")));
    for note in notes {
        let _ = writeln!(out, "{}", escaped(&note));
    }
    out
}

/// What this node would say of itself.
fn entry_of(config: &Config, here: &Audit) -> Entry {
    Entry {
        node_id: config.node_id,
        schema_hash: here.schema_hash.clone(),
        previous_hash: String::new(),
        harmonylite_version: env!("CARGO_PKG_VERSION").to_owned(),
        updated_at: String::new(),
        position: 0,
        pending: here.pending,
        waits_for: waits_for(here).map(str::to_owned),
        tables: here.tables.iter().map(|t| t.table.clone()).collect(),
        tables_omitted: 0,
    }
}

/// What all nodes say of their schemas, and whose word cannot be read.
pub(super) fn ask_registry(config: &Config) -> Result<(Vec<Listed>, Vec<String>), Fatal> {
    let runtime = crate::engine::runtime(1)?;
    let asking = async {
        let broker = connect(config, "the registry of schemas").await?;
        cluster::list(&broker)
            .await
            .map_err(|e| Fatal::new(ExitCode::Unavailable, e))
    };
    runtime.block_on(async {
        tokio::time::timeout(BROKER, asking).await.map_err(|_| {
            Fatal::new(
                ExitCode::Unavailable,
                format!(
                    "the NATS server did not answer within {} s",
                    BROKER.as_secs()
                ),
            )
        })?
    })
}

/// What is shown of a node.
#[derive(Serialize)]
struct Seen {
    node_id: u64,
    running: bool,
    schema_hash: String,
    previous_hash: String,
    harmonylite_version: String,
    updated_at: String,
    seconds_behind: u64,
    position: u64,
    pending: u64,
    waits_for: Option<String>,
    /// In what it differs from this node.
    differs: Vec<String>,
    #[serde(skip)]
    this_one: bool,
}

#[derive(Serialize)]
struct Cluster<'a> {
    schema_hash: &'a str,
    equal: bool,
    nodes: &'a [Seen],
    unreadable: &'a [String],
}

impl Seen {
    fn of(node: Listed, own: &Entry) -> Self {
        let differs = own.differences(&node.entry);
        let Listed {
            entry,
            running,
            seconds_behind,
            clock_ahead: _,
        } = node;
        Self {
            this_one: entry.node_id == own.node_id,
            node_id: entry.node_id,
            running,
            schema_hash: entry.schema_hash,
            previous_hash: entry.previous_hash,
            harmonylite_version: entry.harmonylite_version,
            updated_at: entry.updated_at,
            seconds_behind,
            position: entry.position,
            pending: entry.pending,
            waits_for: entry.waits_for,
            differs,
        }
    }

    fn state(&self) -> &'static str {
        match (self.running, &self.waits_for) {
            (false, _) => "gone",
            (true, Some(_)) => "WAITS",
            (true, None) => "runs",
        }
    }
}

fn of_cluster(config: &Config, here: &Audit, nodes: &[Seen], unreadable: &[String]) -> String {
    let mut out = format!(
        "schema here (node {}): {}\n\n",
        config.node_id, here.schema_hash
    );
    let rows: Vec<Vec<String>> = nodes
        .iter()
        .map(|n| {
            vec![
                n.node_id.to_string(),
                n.state().to_owned(),
                n.schema_hash.clone(),
                if n.differs.is_empty() {
                    "equal".to_owned()
                } else {
                    count(n.differs.len(), "difference")
                },
                n.harmonylite_version.clone(),
                moment(&n.updated_at),
            ]
        })
        .collect();
    out.push_str(&render(
        &[
            "NODE",
            "STATE",
            "SCHEMA",
            "TO HERE",
            "VERSION",
            "SAID (UTC)",
        ],
        &rows,
        2,
    ));
    out.push('\n');
    let mut line = |text: String| {
        let _ = writeln!(out, "{}", escaped(&text));
    };
    if nodes.is_empty() {
        line("no node has entered its schema in this cluster yet".to_owned());
    } else if !nodes.iter().any(|n| n.this_one) {
        line(format!(
            "node {} itself has not entered its schema",
            config.node_id
        ));
    }
    for node in nodes {
        if let Some(lacking) = node.waits_for.as_ref().filter(|_| node.running) {
            line(format!("node {} waits: {lacking}", node.node_id));
        }
        for difference in node.differs.iter().take(SHOWN) {
            line(format!("node {} {difference}", node.node_id));
        }
        if node.differs.len() > SHOWN {
            line(format!(
                "node {}: and {} more (--json shows all)",
                node.node_id,
                node.differs.len() - SHOWN
            ));
        }
    }
    for key in unreadable {
        line(format!(
            "the entry {key} cannot be read: it is of another program or a later version"
        ));
    }
    out
}
