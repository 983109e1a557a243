//! Rules for the names that a configuration gives to things of NATS and Prometheus, and for table patterns.
//!
//! Invariant: pure functions; what passes here is accepted by the system that gets the name.

/// Longest prefix: JetStream file names and bucket names hold it with a suffix, and a file name has 255 bytes.
const PREFIX_MOST: usize = 128;

/// Whether `text` can begin the names of streams and, with them, of key-value and object buckets, whose
/// letters are the narrower set.
pub(super) fn is_stream_prefix(text: &str) -> bool {
    (1..=PREFIX_MOST).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// Whether `text` can begin a subject: tokens between dots, none empty, no wildcard, no blank.
pub(super) fn is_subject_prefix(text: &str) -> bool {
    text.len() <= PREFIX_MOST
        && text.split('.').all(|token| {
            !token.is_empty()
                && token
                    .chars()
                    .all(|c| !c.is_whitespace() && !c.is_control() && !"*>".contains(c))
        })
        // The server keeps what begins so for itself.
        && !text.starts_with('$')
}

/// Whether `text` can begin a metric name (empty: no prefix).
pub(super) fn is_metric_prefix(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':')
        && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// What is wrong with a table pattern in the syntax of SQLite's `GLOB` (`*`, `?`, `[a-z]`, `[^a-z]`), if anything.
pub(super) fn glob_problem(pattern: &str) -> Option<&'static str> {
    if pattern.is_empty() {
        return Some("which is empty and matches no table");
    }
    if pattern.contains('\0') {
        return Some("which holds a NUL character");
    }
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '[' {
            continue;
        }
        rest.next_if_eq(&'^');
        // A ']' right after the opening stands for itself.
        rest.next_if_eq(&']');
        if !rest.any(|c| c == ']') {
            return Some("whose '[' is never closed");
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_prefixes() {
        assert!(is_stream_prefix("harmonylite-changes") && is_stream_prefix("a_B9"));
        for bad in ["", "a.b", "a b", "a*", "a>", "a/b", "é", &"x".repeat(129)] {
            assert!(!is_stream_prefix(bad), "{bad}");
        }
    }

    #[test]
    fn subject_prefixes() {
        assert!(is_subject_prefix("harmonylite-change-log") && is_subject_prefix("a.b.c"));
        for bad in ["", ".a", "a.", "a..b", "a b", "a.*", "a.>", "$JS.a", "a\tb"] {
            assert!(!is_subject_prefix(bad), "{bad}");
        }
    }

    #[test]
    fn metric_prefixes() {
        assert!(is_metric_prefix("harmonylite") && is_metric_prefix("") && is_metric_prefix("_9"));
        for bad in ["9a", "a-b", "a b", "a.b", "é"] {
            assert!(!is_metric_prefix(bad), "{bad}");
        }
    }

    #[test]
    fn globs() {
        for good in ["*", "orders", "log_?", "[a-z]*", "[^_]*", "x[]]", "a]b"] {
            assert_eq!(glob_problem(good), None, "{good}");
        }
        for bad in ["", "[", "a[b", "a[]", "[^]", "a\0"] {
            assert!(glob_problem(bad).is_some(), "{bad}");
        }
    }
}
