//! The pages of the manual, and what stands in them.

use std::path::{Path, PathBuf};

/// A page by its path from the project's folder, with its text.
pub struct Page {
    pub name: String,
    pub text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// `README.md` and every page below `docs`.
pub fn all() -> Vec<Page> {
    let mut paths = vec![root().join("README.md")];
    below(&root().join("docs"), &mut paths);
    paths.sort();
    let name = |path: &Path| path.strip_prefix(root()).unwrap().display().to_string();
    let read = |path: PathBuf| Page {
        text: text(&name(&path)),
        name: name(&path),
    };
    paths.into_iter().map(read).collect()
}

fn below(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            below(&path, out);
        } else if path.extension().is_some_and(|e| e == "md") {
            out.push(path);
        }
    }
}

impl Page {
    /// The fenced blocks of a language; of all with `None`.
    pub fn blocks(&self, language: Option<&str>) -> Vec<String> {
        let mut out = Vec::new();
        let mut open: Option<(bool, String)> = None;
        for line in self.text.lines() {
            match (&mut open, line.trim_start().strip_prefix("```")) {
                (None, Some(name)) => {
                    open = Some((language.is_none_or(|l| l == name), String::new()))
                }
                (Some(_), Some(_)) => out.extend(
                    open.take()
                        .filter(|(wanted, _)| *wanted)
                        .map(|(_, block)| block),
                ),
                (Some((_, block)), None) => {
                    block.push_str(line);
                    block.push('\n');
                }
                (None, None) => {}
            }
        }
        out
    }

    /// The text without its fenced blocks.
    pub fn prose(&self) -> String {
        let mut inside = false;
        let mut out = String::new();
        for line in self.text.lines() {
            if line.trim_start().starts_with("```") {
                inside = !inside;
            } else if !inside {
                out.push_str(line);
                out.push('\n');
            }
        }
        out
    }

    /// What stands between backticks, outside blocks.
    pub fn spans(&self) -> Vec<String> {
        let prose = self.prose();
        prose
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    }
}
