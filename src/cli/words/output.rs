//! What a command that was done shows, and how its process ends.

use crate::cli::exit::ExitCode;
use crate::cli::table::printable;

/// The end of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// For standard output.
    pub text: String,
    /// How the process ends: a command may have worked and still have bad news.
    pub code: ExitCode,
}

impl Done {
    /// Text for people, and exit code 0.
    #[must_use]
    pub fn ok(text: impl AsRef<str>) -> Self {
        Self {
            text: printable(text.as_ref()),
            code: ExitCode::Ok,
        }
    }

    /// A JSON value on lines of its own, and exit code 0.
    #[must_use]
    pub fn json(value: &impl serde::Serialize) -> Self {
        // Values of texts and numbers always have a form.
        Self {
            text: serde_json::to_string_pretty(value).unwrap_or_default(),
            code: ExitCode::Ok,
        }
    }
}
