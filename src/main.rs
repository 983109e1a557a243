//! The `harmonylite` program: understands the command line, loads the configuration, and hands over.

use std::io::Write as _;
use std::process::ExitCode as ProcessExitCode;

use harmonylite::cli::args::{Args, Command};
use harmonylite::cli::commands;
use harmonylite::cli::exit::ExitCode;
use harmonylite::cli::table::printable;
use harmonylite::cli::words::{self, Done, Schema, Snapshot, Word, snapshot};
use harmonylite::config::Config;
use harmonylite::daemon::{self, Fatal, Purpose, Source};
use harmonylite::engine;
use harmonylite::sqlite::leftover::Leftover;
use harmonylite::telemetry::logging;

fn main() -> ProcessExitCode {
    harmonylite::runtime::allocator::bound_arenas();
    let args = match Args::parse(std::env::args_os()) {
        Ok(args) => args,
        Err(e) => return failed(ExitCode::Usage, &e),
    };
    match &args.command {
        Command::Help(text) => return said(text, ExitCode::Ok),
        Command::Version => {
            return said(
                concat!("harmonylite ", env!("CARGO_PKG_VERSION")),
                ExitCode::Ok,
            );
        }
        _ => {}
    }
    if let Command::Word(word) = &args.command
        && let Some(done) = words::by_themselves(word, &args)
    {
        return ended(done);
    }
    let loaded = match Config::load(args.config.as_deref(), &args.overrides) {
        Ok(loaded) => loaded,
        Err(e) => return failed(ExitCode::Config, &format!("Invalid configuration: {e}")),
    };
    let (config, mut notices) = (loaded.config, loaded.notices);
    let mut aside = None;
    // Before anything here opens the database; `-check` moves nothing.
    if args.command != Command::Check {
        match Leftover::find(&config.db_path).map(Leftover::move_aside) {
            None => {}
            Some(Ok(notice)) => aside = Some(notice),
            Some(Err(e)) => return failed(ExitCode::TempFail, &e),
        }
    }
    let source = Source {
        file: args.config.clone(),
        overrides: args.overrides.clone(),
    };
    let asks = matches!(
        args.command,
        Command::Word(_) | Command::SchemaStatus | Command::SchemaStatusCluster
    );
    if !asks {
        notices.extend(aside.take());
    }
    let done = match args.command {
        Command::Check => return said(&commands::check(&config, &notices), ExitCode::Ok),
        Command::Stop => commands::stop(&config),
        Command::Cleanup => commands::cleanup(&config)
            .unwrap_or_else(|| serve(config, &notices, source, Purpose::Cleanup)),
        Command::SaveSnapshot | Command::Word(Word::Snapshot(Snapshot::Save)) => {
            snapshot::save(&config)
                .unwrap_or_else(|| serve(config, &notices, source, Purpose::Snapshot))
        }
        Command::SchemaStatus => return asked(Word::Schema(Schema::NODE), &config, aside),
        Command::SchemaStatusCluster => {
            return asked(Word::Schema(Schema::CLUSTER), &config, aside);
        }
        Command::Word(word) => return asked(word, &config, aside),
        Command::Run | Command::Help(_) | Command::Version => {
            serve(config, &notices, source, Purpose::Replicate)
        }
    };
    match done {
        Ok(text) if text.is_empty() => ExitCode::Ok.into(),
        Ok(text) => said(&text, ExitCode::Ok),
        Err(fatal) => failed(fatal.code, &fatal.reason),
    }
}

fn serve(
    config: Config,
    notices: &[String],
    source: Source,
    purpose: Purpose,
) -> Result<String, Fatal> {
    let log = logging::init(&config.logging, config.node_id)
        .map_err(|e| Fatal::new(ExitCode::Config, e))?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = config.node_id,
        "harmonylite starts"
    );
    for notice in notices {
        tracing::warn!("{notice}");
    }
    // Two workers: the loops have threads of their own, what is left is I/O.
    let ended = engine::runtime(2)
        .and_then(|runtime| runtime.block_on(daemon::run(config, purpose, source, log.clone())));
    log.flush();
    ended.map(|()| String::new())
}

fn asked(word: Word, config: &Config, aside: Option<String>) -> ProcessExitCode {
    if let Some(aside) = aside {
        let _ = writeln!(std::io::stderr(), "{aside}");
    }
    ended(words::run(word, config))
}

fn ended(done: Result<Done, Fatal>) -> ProcessExitCode {
    match done {
        Ok(done) => said(&done.text, done.code),
        Err(fatal) => failed(fatal.code, &fatal.reason),
    }
}

fn said(text: &str, code: ExitCode) -> ProcessExitCode {
    // Nobody listens on a closed pipe; there is nobody to tell either.
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
    code.into()
}

fn failed(code: ExitCode, reason: &dyn std::fmt::Display) -> ProcessExitCode {
    // It may name what another node says of itself.
    let _ = writeln!(std::io::stderr(), "{}", printable(&reason.to_string()));
    code.into()
}
