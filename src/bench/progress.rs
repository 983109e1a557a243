//! What is under way, on standard error: one line that is written over on a terminal, a line for each step elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

/// Says what is under way.
pub struct Progress {
    terminal: bool,
    started: Instant,
}

impl Progress {
    /// To standard error.
    #[must_use]
    pub fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            started: Instant::now(),
        }
    }

    /// This is under way now.
    pub fn say(&self, text: &str) {
        let at = self.started.elapsed().as_secs();
        let text = format!("{:>3}:{:02}  {text}", at / 60, at % 60);
        let mut out = std::io::stderr();
        let _ = if self.terminal {
            write!(out, "\r\u{1b}[K{text}")
        } else {
            writeln!(out, "{text}")
        };
        let _ = out.flush();
    }

    /// Nothing is under way any more.
    pub fn done(&self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\u{1b}[K");
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
