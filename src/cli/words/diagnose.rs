//! `harmonylite diagnose`: a file for whoever helps.

use std::path::PathBuf;

use super::{Done, Verb, Word, doctor};
use crate::cli::args::Args;
use crate::cli::commands::progress;
use crate::cli::exit::ExitCode;
use crate::cli::flags::{flag, switch};
use crate::config::Config;
use crate::diagnose::{self, Bundle};
use crate::doctor::{Options, of_faults, run as examine};
use crate::engine::Fatal;

/// What is to be written where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnose {
    /// The bundle.
    pub file: PathBuf,
    /// The doctor writes its probe object.
    pub probe: bool,
}

pub(super) const VERBS: &[Verb] = &[Verb {
    group: "diagnose",
    verb: None,
    operands: "",
    options: &[
        flag(
            "output",
            "FILE",
            "where to write it, also -o FILE (harmonylite-diagnose-TIME.tar.gz)",
        ),
        switch(
            "no-probe",
            "write no object to the snapshot store to see whether that works",
        ),
    ],
    about: "write what somebody who helps needs to see, without secrets and rows, to one file",
    more: "With a running daemon or without. Changes nothing, but for the doctor's probe object. README.txt in it lists what\n\
           was collected, and what to look through before it is sent. FILE must not exist; it is its owner's alone.",
    parse: |given| {
        given.no_operands()?;
        let file = given.text("output")?;
        Ok(Word::Diagnose(Diagnose {
            file: file.map_or_else(diagnose::usual_name, PathBuf::from),
            probe: !given.switch("no-probe")?,
        }))
    },
}];

/// Collects, also where the configuration has faults.
pub(super) fn run(command: &Diagnose, args: &Args) -> Result<Done, Fatal> {
    let file = command.file.as_path();
    let loaded = Config::load(args.config.as_deref(), &args.overrides);
    let config = loaded.as_ref().ok().map(|l| l.config.clone());
    let faults = loaded.as_ref().err().map(ToString::to_string);
    progress("looking at everything");
    let report = match loaded {
        Ok(loaded) => examine(
            loaded,
            Options {
                deep: false,
                probe: command.probe,
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
