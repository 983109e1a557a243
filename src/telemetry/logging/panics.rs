//! A panic is one event of the log, as any other error, and it is written before the thread unwinds: whoever reads the log by machine sees it, and nothing that was
//! logged before it is lost.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

use super::writer;

/// From now on.
pub(super) fn hear() {
    std::panic::set_hook(Box::new(tell));
}

fn tell(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("it has no message");
    let place = panic.location().map(ToString::to_string);
    let place = place.as_deref().unwrap_or("unknown");
    let current = std::thread::current();
    let thread = current.name().unwrap_or("unnamed");
    // Where RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    let told = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(
        place,
        thread,
        backtrace = told,
        "the program has a fault, and a part of it has ended: {message}"
    );
    // The thread that writes cannot wait for itself.
    if thread != writer::THREAD {
        super::flush();
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use crate::config::{LogFormat, LoggingConfig};

    /// A process has one hook, so what panics is a process of its own: this test binary again, with this one test.
    #[test]
    fn panics_for_the_test_below() {
        if std::env::var_os("PANICS_FOR_A_TEST").is_none() {
            return;
        }
        let config = LoggingConfig {
            format: LogFormat::Json,
            ..LoggingConfig::default()
        };
        super::super::init(&config, 7).unwrap();
        tracing::info!("before");
        let thread = std::thread::Builder::new().name("apply".to_owned());
        let ended = thread
            .spawn(|| panic!("first line\nof {}", 2))
            .unwrap()
            .join();
        // It unwinds as ever, and nobody flushes any more.
        #[allow(clippy::disallowed_methods)]
        std::process::exit(if ended.is_err() { 101 } else { 0 });
    }

    #[test]
    fn a_panic_is_one_line_of_the_log() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "telemetry::logging::panics::tests::panics_for_the_test_below",
            ])
            .env("PANICS_FOR_A_TEST", "1")
            .env_remove("RUST_BACKTRACE")
            .env_remove("HARMONYLITE_LOG")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(101), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<serde_json::Value> = said
            .lines()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect();
        assert_eq!(lines.len(), 2, "{said}");
        assert_eq!(lines[0]["message"], "before");
        let panic = &lines[1];
        assert_eq!(
            (&panic["level"], &panic["thread"]),
            (&"ERROR".into(), &"apply".into())
        );
        assert!(
            panic["message"]
                .as_str()
                .unwrap()
                .ends_with("first line\nof 2"),
            "{said}"
        );
        assert!(
            panic["place"].as_str().unwrap().contains("panics.rs:"),
            "{said}"
        );
    }
}
