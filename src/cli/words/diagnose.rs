//! `harmonylite diagnose`: a file for whoever helps.

use std::path::{Path, PathBuf};

use super::{Done, Verb, Word, doctor};
use crate::cli::args::Args;
use crate::cli::commands::progress;
use crate::cli::exit::ExitCode;
use crate::cli::flags::flag;
use crate::config::Config;
use crate::diagnose::{self, Bundle};
use crate::doctor::{Options, of_faults, run as examine};
use crate::engine::Fatal;

pub(super) const VERBS: &[Verb] = &[Verb {
    group: "diagnose",
    verb: None,
    operands: "",
    options: &[flag(
        "output",
        "FILE",
        "where to write it, also -o FILE (harmonylite-diagnose-TIME.tar.gz)",
    )],
    about: "write what somebody who helps needs to see, without secrets and rows, to one file",
    more: "With a running daemon or without. Changes nothing, but for the doctor's probe object. README.txt in it lists what\n\
           was collected, and what to look through before it is sent. FILE must not exist; it is its owner's alone.",
    parse: |given| {
        given.no_operands()?;
        let file = given.text("output")?;
        Ok(Word::Diagnose(
            file.map_or_else(diagnose::usual_name, PathBuf::from),
        ))
    },
}];

/// Collects, also where the configuration has faults.
pub(super) fn run(file: &Path, args: &Args) -> Result<Done, Fatal> {
    let loaded = Config::load(args.config.as_deref(), &args.overrides);
    let config = loaded.as_ref().ok().map(|l| l.config.clone());
    let faults = loaded.as_ref().err().map(ToString::to_string);
    progress("looking at everything");
    let report = match loaded {
        Ok(loaded) => examine(
            loaded,
            Options {
                deep: false,
                probe: true,
                timeout: doctor::USUAL,
            },
        )?,
        Err(faults) => of_faults(&faults),
    };
    let json = serde_json::to_string_pretty(&report).unwrap_or_default();
    let mut bundle = Bundle::new(doctor::text(&report, false), json);
    progress("collecting");
    bundle.collect(config.as_ref(), args.config.as_deref(), faults);
    let size = bundle
        .write(file)
        .map_err(|e| Fatal::new(ExitCode::CannotCreate, e))?;
    Ok(Done::ok(format!(
        "{} ({} KiB): look through it before you send it to anybody; README.txt in it says what is there",
        file.display(),
        size.div_ceil(1024)
    )))
}
