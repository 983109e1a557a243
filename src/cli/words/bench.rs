//! `harmonylite bench`: measuring this program on this machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Done, Given, Verb, Word};
use crate::bench::live::{self, Live};
use crate::bench::{Bench, BenchError, Options, growth};
use crate::cli::commands::{code, progress};
use crate::cli::exit::ExitCode;
use crate::cli::flags::{Flag, flag, switch};
use crate::cli::usage::UsageError;
use crate::config::Config;
use crate::engine::{self, Fatal};
use crate::runtime::{Shutdown, signals};

/// What is to be measured, and where the figures go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measure {
    /// The rows, in a cluster of the benchmark's own.
    Rows {
        /// What.
        options: Options,
        /// A file for the figures.
        json: Option<PathBuf>,
        /// A file for the chart.
        svg: Option<PathBuf>,
    },
    /// How the rate changes with what grows.
    Growth {
        /// What.
        options: Options,
        /// A folder for figures, charts and page.
        output: Option<PathBuf>,
    },
    /// The user's own cluster.
    Live {
        /// What.
        live: Live,
        /// A file for the figures.
        json: Option<PathBuf>,
    },
}

const FOLDER: Flag = flag(
    "folder",
    "FOLDER",
    "where its databases and streams lie (the folder for temporary files)",
);
const SERVER: Flag = flag("nats-server", "PATH", "the broker's program (the PATH's)");
const ROUNDS: Flag = flag("rounds", "N", "how often each row is measured (3)");
const ONLY: Flag = flag(
    "only",
    "WORDS",
    "rows with one of these, comma-separated, in their name",
);
const DURATION: Flag = flag(
    "duration",
    "SECONDS",
    "how long the app writes in each measurement (5)",
);

pub(super) const VERBS: &[Verb] = &[
    Verb {
        group: "bench",
        verb: Some("run"),
        operands: "",
        options: &[
            ROUNDS,
            ONLY,
            switch(
                "all",
                "the expensive rows too: snapshot and restore, the log after many changes",
            ),
            switch(
                "live",
                "the running daemon's cluster instead; takes --clients, --rate, --duration, --json",
            ),
            flag(
                "clients",
                "N",
                "concurrent writers of the app, end to end (1)",
            ),
            flag(
                "rate",
                "TX_PER_S",
                "transactions a second of the rows on lag (200)",
            ),
            DURATION,
            flag(
                "rows",
                "N",
                "rows of catch-up and of the large transaction; ten times as many for log growth (1000000)",
            ),
            flag(
                "database-mb",
                "MB",
                "size of the database for snapshot and restore (1024)",
            ),
            FOLDER,
            SERVER,
            flag("json", "FILE", "write the figures there"),
            flag("svg", "FILE", "write a chart there"),
        ],
        about: "measure this program on this machine: cost, speed, lag, memory, each beside a baseline",
        more: "The same as bench alone. It starts a nats-server and two daemons of its own, in a folder of its own, and ends them;\n\
           no other database is touched. --live writes to a table harmonylite_bench, which must be there on every node, and\n\
           removes what it wrote. docs/benchmarks.md explains each row.",
        parse: |given| measure(given).map(|m| Word::Bench(Box::new(m))),
    },
    Verb {
        group: "bench",
        verb: Some("growth"),
        operands: "",
        options: &[
            ROUNDS,
            ONLY,
            flag(
                "duration",
                "SECONDS",
                "how long the app writes in each measurement (2)",
            ),
            flag("rows", "N", "the largest backlog (1000000)"),
            flag(
                "database-mb",
                "MB",
                "the largest database (1024; four times as much room on the disk is needed)",
            ),
            FOLDER,
            SERVER,
            flag(
                "output",
                "FOLDER",
                "write charts, figures and a page there, also -o FOLDER",
            ),
        ],
        about: "measure how the rate changes with nodes, shards, row width, tables, database size and backlog",
        more: "Some fifteen minutes on two cores. As with bench run, everything is its own.",
        parse: |given| {
            given.no_operands()?;
            Ok(Word::Bench(Box::new(Measure::Growth {
                options: options(given, 2)?,
                output: path(given, "output")?,
            })))
        },
    },
];

fn measure(given: &Given<'_>) -> Result<Measure, UsageError> {
    given.no_operands()?;
    let options = Options {
        all: given.switch("all")?,
        clients: at_least_one(given, "clients", 1)?,
        rate: at_least_one(given, "rate", 200)?,
        ..options(given, 5)?
    };
    let (json, svg) = (path(given, "json")?, path(given, "svg")?);
    if !given.switch("live")? {
        return Ok(Measure::Rows { options, json, svg });
    }
    if options.all || !options.only.is_empty() || svg.is_some() {
        return Err(UsageError::Combination {
            command: "bench --live",
            rule: "--all, --only and --svg are for the rows of a cluster of its own",
        });
    }
    let live = Live {
        clients: options.clients,
        rate: options.rate,
        duration: options.duration,
    };
    Ok(Measure::Live { live, json })
}

/// What is measured in a cluster of its own; `seconds`: how long each, if nothing is said.
fn options(given: &Given<'_>, seconds: u32) -> Result<Options, UsageError> {
    let seconds: u32 = at_least_one(given, "duration", seconds)?;
    Ok(Options {
        rounds: at_least_one(given, "rounds", 3)?,
        only: words(given.text("only")?),
        all: false,
        clients: 1,
        rate: 200,
        duration: Duration::from_secs(u64::from(seconds)),
        rows: at_least_one(given, "rows", 1_000_000)?,
        database_mb: at_least_one(given, "database-mb", 1024)?,
        folder: path(given, "folder")?,
        nats_server: path(given, "nats-server")?,
    })
}

fn words(text: Option<String>) -> Vec<String> {
    let text = text.unwrap_or_default();
    let words = text.split(',').map(str::trim).filter(|w| !w.is_empty());
    words.map(str::to_owned).collect()
}

fn path(given: &Given<'_>, flag: &'static str) -> Result<Option<PathBuf>, UsageError> {
    Ok(given.text(flag)?.map(PathBuf::from))
}

/// The most of anything that is counted: far more than anybody waits for.
const MOST: u32 = 1_000_000_000;

fn at_least_one<T: TryFrom<u32>>(
    given: &Given<'_>,
    flag: &'static str,
    usual: u32,
) -> Result<T, UsageError> {
    const EXPECTED: &str = "a number from 1 to 1000000000";
    let bad = || UsageError::BadValue {
        flag,
        expected: EXPECTED,
    };
    let number: u32 = given.parsed(flag, EXPECTED)?.unwrap_or(usual);
    if number == 0 || number > MOST {
        return Err(bad());
    }
    T::try_from(number).map_err(|_| bad())
}

/// Measures in a cluster of its own until it is done or Ctrl-C is pressed; `None`: the user's is meant, which takes a configuration.
pub(super) fn run(command: &Measure) -> Option<Result<Done, Fatal>> {
    match command {
        Measure::Rows { options, json, svg } => {
            Some(rows(options.clone(), json.as_deref(), svg.as_deref()))
        }
        Measure::Growth { options, output } => Some(growth(options.clone(), output.as_deref())),
        Measure::Live { .. } => None,
    }
}

fn rows(options: Options, json: Option<&Path>, svg: Option<&Path>) -> Result<Done, Fatal> {
    let report = until_stopped(|stop| Bench::new(options, stop)?.run())?;
    if let Some(file) = json {
        write_json(file, &report.json())?;
    }
    if let Some(file) = svg {
        write(file, &report.svg())?;
    }
    Ok(Done::ok(report.table()))
}

fn growth(options: Options, output: Option<&Path>) -> Result<Done, Fatal> {
    let found = until_stopped(|stop| growth::run(options, stop))?;
    if let Some(folder) = output {
        std::fs::create_dir_all(folder).map_err(|e| unwritable(folder, e))?;
        for (name, chart) in found.charts() {
            write(&folder.join(name), &chart)?;
        }
        write(&folder.join("growth.md"), &found.page())?;
        write_json(&folder.join("growth.json"), found.json())?;
    }
    Ok(Done::ok(found.text()))
}

/// Measures the user's own cluster.
pub(super) fn live(command: &Measure, config: &Config) -> Result<Done, Fatal> {
    let Measure::Live { live, json } = command else {
        return Err(Fatal::new(
            ExitCode::Software,
            "this command loads the configuration by itself",
        ));
    };
    let (registry, _) = super::schema::ask_registry(config)?;
    let found = until_stopped(|stop| live::run(&config.db_path, *live, &registry, &stop))?;
    if let Some(file) = json {
        write_json(file, found.json())?;
    }
    Ok(Done::ok(found.text()))
}

/// Runs it on this thread, with which all that it starts would die; a signal asks it to stop.
fn until_stopped<T>(work: impl FnOnce(Shutdown) -> Result<T, BenchError>) -> Result<T, Fatal> {
    let stop = Shutdown::new();
    let runtime = engine::runtime(1)?;
    let handler = {
        let _inside = runtime.enter();
        signals::install(&stop)
    };
    handler.map_err(|e| Fatal::new(ExitCode::Software, e))?;
    work(stop).map_err(|e| match &e {
        BenchError::Daemon(said) => Fatal::new(code(said), e),
        _ => Fatal::new(e.exit(), e),
    })
}

fn write_json(file: &Path, value: &serde_json::Value) -> Result<(), Fatal> {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    write(file, &format!("{text}\n"))
}

fn write(file: &Path, text: &str) -> Result<(), Fatal> {
    std::fs::write(file, text).map_err(|e| unwritable(file, e))?;
    progress(&format!("written: {}", file.display()));
    Ok(())
}

fn unwritable(path: &Path, source: std::io::Error) -> Fatal {
    let path = path.to_owned();
    let error = BenchError::File { path, source };
    Fatal::new(error.exit(), error)
}
