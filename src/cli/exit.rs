//! Exit codes, those of BSD's `sysexits.h`, so that service managers and scripts can tell what is worth a retry.
//!
//! Invariant: a code keeps its number and meaning for ever; `docs/exit-codes.md` lists the same.

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitCode {
    /// Did what was asked; also a clean shutdown on SIGTERM or SIGINT.
    Ok = 0,
    /// Failed for a reason that has no code of its own; the log says which.
    Failed = 1,
    /// The command line is wrong: unknown flag, missing or unusable value.
    Usage = 64,
    /// The database or a state file is damaged, or was written by a newer version.
    DataError = 65,
    /// Something we depend on is not there: the broker for a command that cannot wait, or the nats-server program.
    Unavailable = 69,
    /// A fault in HarmonyLite itself.
    Software = 70,
    /// A file, folder or listener cannot be created.
    CannotCreate = 73,
    /// Reading or writing failed: a disk that is full or broken.
    Io = 74,
    /// Try again later: another daemon serves this database, or a living node holds this node id.
    TempFail = 75,
    /// The system denied access.
    NoPermission = 77,
    /// The configuration has faults.
    Config = 78,
    /// What was asked is done in part: a reload has found keys that need a restart. The one code beyond `sysexits.h`.
    Partly = 79,
}

impl ExitCode {
    /// Every code, in order.
    pub const ALL: [Self; 12] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::DataError,
        Self::Unavailable,
        Self::Software,
        Self::CannotCreate,
        Self::Io,
        Self::TempFail,
        Self::NoPermission,
        Self::Config,
        Self::Partly,
    ];

    /// The number that the system sees.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_every_code() {
        let doc = include_str!("../../docs/exit-codes.md");
        for code in ExitCode::ALL {
            let row = format!("| {} |", code.number());
            assert!(doc.contains(&row), "docs/exit-codes.md lacks {code:?}");
        }
        let rows = doc
            .lines()
            .filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit())
            .count();
        assert_eq!(rows, ExitCode::ALL.len());
    }
}
