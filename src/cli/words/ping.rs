//! `harmonylite ping`: how long a change takes through the stream to each node.

use std::time::Duration;

use super::nats;
use super::wait::millis;
use super::{Done, Verb, Word};
use crate::cli::commands::{code, progress};
use crate::cli::exit::ExitCode;
use crate::cli::flags::{flag, switch};
use crate::cli::table::{escaped, render};
use crate::cli::usage::UsageError;
use crate::cluster::ping::Report;
use crate::config::Config;
use crate::control::cluster::PingArguments;
use crate::control::{Request, client};
use crate::engine::Fatal;
use crate::runtime::duration;

/// What is to be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping {
    /// How.
    pub arguments: PingArguments,
    /// As JSON.
    pub json: bool,
}

/// How much a marker may take beyond its timeout until the daemon says something.
const ON_THE_WAY: Duration = Duration::from_secs(30);

/// The most markers of one measurement.
const MOST: u64 = 10_000;

pub(super) const VERBS: &[Verb] = &[Verb {
    group: "ping",
    verb: None,
    operands: "",
    options: &[
        flag("count", "N", "how many markers are sent, 1 to 10000 (10)"),
        flag("interval", "TIME", "the pause between them (100ms)"),
        flag(
            "timeout",
            "TIME",
            "how long a node may take to fold one (5s)",
        ),
        switch("json", "machine-readable"),
    ],
    about: "measure how long it takes through the stream to each node",
    more: "Each marker is a message of the stream that carries nothing; a node answers when it has folded it. Exit code 0:\n\
           every node has folded every marker in time; 75: not so. Needs the running daemon.",
    parse: |given| {
        given.no_operands()?;
        let count = given
            .parsed("count", "a number from 1 to 10000")?
            .unwrap_or(10);
        if !(1..=MOST).contains(&count) {
            return Err(UsageError::BadValue {
                flag: "count",
                expected: "a number from 1 to 10000",
            });
        }
        let time = |flag, usual| match given.text(flag)? {
            None => Ok(usual),
            Some(text) => duration::parse(&text).ok_or(UsageError::BadValue {
                flag,
                expected: "a time such as 100ms, 5s or 1m",
            }),
        };
        Ok(Word::Ping(Ping {
            arguments: PingArguments {
                count,
                interval_ms: millis(time("interval", Duration::from_millis(100))?),
                timeout_ms: millis(time("timeout", Duration::from_secs(5))?),
            },
            json: given.switch("json")?,
        }))
    },
}];

pub(super) fn run(command: &Ping, config: &Config) -> Result<Done, Fatal> {
    let arguments = command.arguments;
    let one = Duration::from_millis(arguments.timeout_ms.saturating_add(arguments.interval_ms));
    let request = Request::PingPeers(arguments);
    let silence = one.saturating_add(ON_THE_WAY);
    let answer = client::request(&config.db_path, request, silence, progress)
        .map_err(|e| Fatal::new(code(&e), e))?;
    let report: Report = nats::result(answer)?;
    let done = if command.json {
        Done::json(&report)
    } else {
        Done::ok(text(&report))
    };
    Ok(Done {
        code: if report.is_complete() {
            ExitCode::Ok
        } else {
            ExitCode::TempFail
        },
        ..done
    })
}

fn text(report: &Report) -> String {
    let ms = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.2} ms"));
    let rows: Vec<Vec<String>> = report
        .nodes
        .iter()
        .map(|way| {
            let mark = if way.node == report.node { "*" } else { "" };
            vec![
                format!("{}{mark}", way.node),
                way.answers.to_string(),
                way.timeouts.to_string(),
                ms(way.min_ms),
                ms(way.p50_ms),
                ms(way.p99_ms),
                ms(way.max_ms),
            ]
        })
        .collect();
    let head = ["NODE", "ANSWERS", "TIMEOUTS", "MIN", "P50", "P99", "MAX"];
    let mut text = render(&head, &rows, head.len());
    for fault in report.faults() {
        text.push_str(&format!("! {}\n", escaped(&fault)));
    }
    text
}
