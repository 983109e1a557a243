//! Samples as plain values: stacks of names, with how often each was seen.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

/// A function as a profile names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frame {
    /// Its name.
    pub name: String,
    /// The file that it is in; empty where that is not known.
    pub file: String,
    /// The line; 0 where that is not known.
    pub line: u32,
}

/// Functions that were under way, the innermost first, on a thread.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stack {
    /// The thread's name.
    pub thread: String,
    /// The functions.
    pub frames: Vec<Frame>,
}

/// What was sampled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stacks {
    /// How often each stack was seen.
    pub counts: BTreeMap<Stack, u64>,
    /// When sampling began, after 1970.
    pub began: Duration,
    /// How long it lasted.
    pub lasted: Duration,
    /// Processor time that a sample stands for.
    pub period: Duration,
}

impl Stacks {
    pub(super) fn of(report: &pprof::Report, frequency: i32) -> Self {
        let mut counts = BTreeMap::new();
        for (sample, count) in &report.data {
            let frame = |symbol: &pprof::Symbol| Frame {
                name: symbol.name(),
                file: symbol
                    .filename
                    .as_ref()
                    .map(|file| file.to_string_lossy().into_owned())
                    .unwrap_or_default(),
                line: symbol.lineno(),
            };
            let stack = Stack {
                thread: sample.thread_name.clone(),
                frames: sample.frames.iter().flatten().map(frame).collect(),
            };
            *counts.entry(stack).or_default() += u64::try_from(*count).unwrap_or_default();
        }
        let frequency = u32::try_from(frequency).unwrap_or(1).max(1);
        Self {
            counts,
            began: report
                .timing
                .start_time
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
            lasted: report.timing.duration,
            period: Duration::from_secs(1) / frequency,
        }
    }

    /// One line a stack, outermost function first, as tools for flame graphs read it: `thread;main;run 12`.
    #[must_use]
    pub fn folded(&self) -> String {
        let mut out = String::new();
        for (stack, count) in &self.counts {
            out.push_str(&stack.thread);
            for frame in stack.frames.iter().rev() {
                out.push(';');
                out.push_str(&frame.name.replace(';', ","));
            }
            out.push_str(&format!(" {count}\n"));
        }
        out
    }
}
