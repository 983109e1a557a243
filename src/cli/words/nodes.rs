//! `harmonylite status`, `nodes` and `nodes forget`: who is there, and who is gone.

use super::nats::{self, Nats, span};
use super::{Done, Verb, Word};
use crate::change::position::NodeId;
use crate::cli::exit::ExitCode;
use crate::cli::flags::{Flag, switch};
use crate::cli::table::{escaped, render};
use crate::cluster::forget;
use crate::cluster::look;
use crate::cluster::view::{ClusterView, NodeState, NodeView, short};
use crate::config::Config;
use crate::control::Request;
use crate::control::cluster::ForgetArguments;
use crate::daemon;
use crate::engine::Fatal;

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nodes {
    /// Every node that is expected, with everything that is known of it.
    Status {
        /// As JSON.
        json: bool,
    },
    /// Every node that ever was, in a line each.
    List {
        /// As JSON.
        json: bool,
    },
    /// This one is gone for good.
    Forget {
        /// Which.
        node: u64,
    },
}

const JSON: &[Flag] = &[switch("json", "machine-readable")];

pub(super) const VERBS: &[Verb] = &[
    Verb {
        group: "status",
        verb: None,
        operands: "",
        options: JSON,
        about: "show every node: state, position, lag, pending changes, schema, and what to look at",
        more: "Exit code 0: every node runs, nothing to look at; 1: something is to be looked at. Without a daemon here it\n\
               shows what NATS knows, where the configuration names the servers.",
        parse: |given| {
            given.no_operands()?;
            let json = given.switch("json")?;
            Ok(Word::Nodes(Nodes::Status { json }))
        },
    },
    Verb {
        group: "nodes",
        verb: Some("list"),
        operands: "",
        options: JSON,
        about: "list every node, also those that have left or were forgotten",
        more: "The same as nodes alone.",
        parse: |given| {
            given.no_operands()?;
            let json = given.switch("json")?;
            Ok(Word::Nodes(Nodes::List { json }))
        },
    },
    Verb {
        group: "nodes",
        verb: Some("forget"),
        operands: "NODE_ID",
        options: &[],
        about: "a node that is gone for good holds up nothing any more",
        more: "Trimming waits for it no more, and a new history does not ask for it. A node that lives is refused. One that\n\
               comes back all the same catches up from the stream, or from a snapshot; what it has not published is kept.",
        parse: |given| {
            given.at_most(1)?;
            let node = given.operand(0, "a NODE_ID", "the node id as nodes list shows it")?;
            Ok(Word::Nodes(Nodes::Forget { node }))
        },
    },
];

pub(super) fn run(command: Nodes, config: &Config) -> Result<Done, Fatal> {
    match command {
        Nodes::Status { json } => {
            let view = view(config)?;
            let expected = |n: &&NodeView| !n.state.is_gone();
            let well = view.warnings.is_empty()
                && view
                    .nodes
                    .iter()
                    .filter(expected)
                    .all(|n| n.state == NodeState::Running && n.warnings.is_empty());
            let code = if well { ExitCode::Ok } else { ExitCode::Failed };
            let done = if json {
                Done::json(&view)
            } else {
                Done::ok(status(&view))
            };
            Ok(Done { code, ..done })
        }
        Nodes::List { json } => {
            let view = view(config)?;
            Ok(if json {
                Done::json(&view.nodes)
            } else {
                Done::ok(list(&view))
            })
        }
        Nodes::Forget { node } => forget(config, node),
    }
}

fn view(config: &Config) -> Result<ClusterView, Fatal> {
    if let Some(answer) = nats::ask(config, Request::Status)? {
        return nats::result(answer);
    }
    let nats = Nats::without_daemon(config)?;
    let seen = nats
        .runtime
        .block_on(look::look(&nats.broker, config.replication_log.replicas));
    let seen = seen.map_err(nats::looking)?;
    Ok(ClusterView::of(&seen, None))
}

fn forget(config: &Config, node: u64) -> Result<Done, Fatal> {
    let request = Request::Forget(ForgetArguments { node });
    if let Some(answer) = nats::ask(config, request)? {
        return Ok(Done::ok(answer.message));
    }
    let nats = Nats::without_daemon(config)?;
    let (node, me) = (NodeId(node), NodeId(config.node_id));
    let replicas = config.replication_log.replicas;
    let done = nats
        .runtime
        .block_on(forget::forget(&nats.broker, replicas, node, me, false))
        .map_err(|e| Fatal::new(daemon::forgetting(&e), e))?;
    Ok(Done::ok(done.in_words(node)))
}

/// The table for people, and below it what to look at.
fn status(view: &ClusterView) -> String {
    let shown = || view.nodes.iter().filter(|n| !n.state.is_gone());
    let rows: Vec<Vec<String>> = shown().map(|n| row(view, n)).collect();
    let head = [
        "NODE", "STATE", "POSITION", "LAG", "PENDING", "SCHEMA", "SEEN", "VERSION", "ADDRESS",
    ];
    let mut text = render(&head, &rows, head.len() - 2);
    if view.stream.is_empty() {
        // The daemon cannot see further than itself.
        return text + &remarks(view);
    }
    let leader = match view.snapshot_leader {
        Some(node) => format!("node {node} takes the snapshots"),
        None => "no node takes snapshots at the moment".to_owned(),
    };
    let newest = view.snapshot.as_ref().map_or_else(
        || "none was verified yet".to_owned(),
        |s| {
            format!(
                "the newest covers position {} and is {} old",
                s.position,
                span(s.age_seconds)
            )
        },
    );
    text.push_str(&format!(
        "\nThe stream {} ends at {}. Of snapshots: {leader}, {newest}.\n",
        escaped(&view.stream),
        view.last
    ));
    text + &remarks(view)
}

/// What to look at, a line each.
fn remarks(view: &ClusterView) -> String {
    let expected = view.nodes.iter().filter(|n| !n.state.is_gone());
    let own = expected.flat_map(|n| {
        let says = n.reasons.iter().chain(&n.warnings);
        says.map(|sentence| format!("node {}: {sentence}", n.node_id))
    });
    let all = view.warnings.iter().cloned().chain(own);
    all.map(|sentence| format!("! {}\n", escaped(&sentence)))
        .collect()
}

fn row(view: &ClusterView, n: &NodeView) -> Vec<String> {
    let mark = if view.seen_by == Some(n.node_id) {
        "*"
    } else {
        ""
    };
    let lag = match (n.lag_messages, n.lag_seconds) {
        (None, _) => "-".to_owned(),
        (Some(0), _) => "0".to_owned(),
        (Some(behind), Some(seconds)) => format!("{behind} ({})", span(seconds)),
        (Some(behind), None) => behind.to_string(),
    };
    vec![
        format!("{}{mark}", n.node_id),
        n.state.word().to_owned(),
        n.position.map_or_else(|| "-".to_owned(), |p| p.to_string()),
        lag,
        n.pending.to_string(),
        short(&n.schema),
        seen(n),
        n.version.clone(),
        // Both do not fit a terminal's line; the host is in the list of nodes.
        n.address.clone().unwrap_or_else(|| n.host.clone()),
    ]
}

fn seen(n: &NodeView) -> String {
    n.last_seen_seconds.map_or_else(|| "-".to_owned(), span)
}

fn list(view: &ClusterView) -> String {
    let rows: Vec<Vec<String>> = view
        .nodes
        .iter()
        .map(|n| {
            let pid = n.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            vec![
                n.node_id.to_string(),
                n.state.word().to_owned(),
                seen(n),
                n.version.clone(),
                pid,
                n.host.clone(),
            ]
        })
        .collect();
    render(
        &["NODE", "STATE", "SEEN", "VERSION", "PROCESS", "HOST"],
        &rows,
        3,
    )
}
