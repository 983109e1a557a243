//! What a command that was done shows, and how its process ends.

use crate::cli::exit::ExitCode;

/// The end of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// For standard output.
    pub text: String,
    /// How the process ends: a command may have worked and still have bad news.
    pub code: ExitCode,
}

impl Done {
    /// Text, and exit code 0.
    #[must_use]
    pub fn ok(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            code: ExitCode::Ok,
        }
    }

    /// A JSON value on lines of its own, and exit code 0.
    #[must_use]
    pub fn json(value: &impl serde::Serialize) -> Self {
        // Values of texts and numbers always have a form.
        Self::ok(serde_json::to_string_pretty(value).unwrap_or_default())
    }
}
