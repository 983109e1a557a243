//! `harmonylite reload`: the running daemon reads its configuration again.

use std::time::Duration;

use super::{Done, Verb, Word};
use crate::cli::commands::{code, progress};
use crate::cli::exit::ExitCode;
use crate::config::Config;
use crate::control::{Request, client};
use crate::engine::Fatal;

/// How long the daemon may take to read its configuration and the files that it names.
const DEADLINE: Duration = Duration::from_secs(30);

pub(super) const VERBS: &[Verb] = &[Verb {
    group: "reload",
    verb: None,
    operands: "",
    options: &[],
    about: "the running daemon reads its configuration again, as on SIGHUP",
    more: "Says which keys are in force with their new value, and which have changed but need a restart (exit code 79\n\
           where there are any). A configuration with a fault changes nothing (78). The daemon reads the file that it was\n\
           started with; -config and -db only say which daemon is meant.",
    parse: |given| {
        given.no_operands()?;
        Ok(Word::Reload)
    },
}];

pub(super) fn run(config: &Config) -> Result<Done, Fatal> {
    let answer = client::request(&config.db_path, Request::Reload, DEADLINE, progress)
        .map_err(|e| Fatal::new(code(&e), e))?;
    let list = |key: &str| {
        answer
            .result
            .as_ref()
            .and_then(|r| r.get(key)?.as_array().cloned())
    };
    let mut text = answer.message.clone();
    for notice in list("notices").unwrap_or_default() {
        text.push_str(&format!("\nnote: {}", notice.as_str().unwrap_or_default()));
    }
    let waits = list("restart").is_some_and(|keys| !keys.is_empty());
    Ok(Done {
        text,
        code: if waits {
            ExitCode::Partly
        } else {
            ExitCode::Ok
        },
    })
}
