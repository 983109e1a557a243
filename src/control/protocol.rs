//! What is said over the control socket: one JSON object a line, one request a connection.
//!
//! ```text
//!     client  {"command":"cleanup"}                                   or, where it takes any,
//!             {"command":"...","arguments":{...}}
//!     server  {"progress":"12 changes are still to be published"}     none or more
//!     server  {"part":"..."}                                          none or more: the text of the result, a JSON value, in pieces
//!     server  {"ok":true,"message":"..."}                             the last line, or
//!             {"ok":false,"error":"...","exit":75}
//! ```
//!
//! Invariants: no line is longer than 64 KiB; a request that is not wholly understood does nothing, so that an
//! older daemon never does half of what a newer client asks.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::cluster::{BrakeArguments, ForgetArguments, LeaveArguments, PingArguments};

/// The longest line, in bytes, its newline included.
pub(super) const LINE: usize = 64 * 1024;
/// The longest text in an answer, in bytes. Every byte may take six as JSON, and the line must hold it.
const TEXT: usize = 8 * 1024;
/// The longest part of an unknown command that the refusal repeats, in characters.
const SHOWN: usize = 64;
/// `sysexits.h`: the request is wrong.
const USAGE: u8 = 64;

/// What a daemon can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Publish what is pending within the usual deadline, then end.
    Stop,
    /// Publish what is pending, remove everything of ours from the database, then end.
    Cleanup,
    /// Answer.
    Ping,
    /// Do not fold these messages here.
    Skip(Span),
    /// Fold these messages again.
    Replay(Span),
    /// Take a snapshot.
    SnapshotSave,
    /// Restore from the newest snapshot.
    SnapshotRestore,
    /// Where everything that the app has committed so far stands.
    Position(PositionArguments),
    /// Wait for a position here, or for what the app has committed so far on every living node.
    Wait(WaitArguments),
    /// Compare all living nodes.
    Verify(VerifyArguments),
    /// All nodes, as the broker and this node know them.
    Status,
    /// What the streams hold, and how far each node has read them.
    Streams,
    /// Measure the way through the stream to each node.
    PingPeers(PingArguments),
    /// Publish what is pending, then leave the cluster and end.
    Leave(LeaveArguments),
    /// A node that is gone holds up nothing any more.
    Forget(ForgetArguments),
    /// Pause or limit publishing or applying, or end that.
    Brake(BrakeArguments),
    /// Read the configuration again.
    Reload,
}

/// Messages of one shard's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// The shard, from 1.
    pub shard: u64,
    /// The first message.
    pub first: u64,
    /// The last one; none: up to the present.
    #[serde(default)]
    pub last: Option<u64>,
}

/// What [`Request::Position`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PositionArguments {
    /// Milliseconds to wait for it to come back from the stream.
    pub timeout_ms: u64,
}

/// What [`Request::Wait`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitArguments {
    /// The position, for this node alone; without it all living nodes are waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// Milliseconds to wait.
    pub timeout_ms: u64,
}

/// What [`Request::Verify`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyArguments {
    /// Milliseconds that a node may take to fold the stream up to the marker.
    pub timeout_ms: u64,
    /// SQLite GLOB of the tables; without it all are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<String>,
    /// The node that rows which differ are sent again from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair_from: Option<u64>,
}

/// Why a request is not done; goes to the client as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// One sentence with the remedy.
    pub message: String,
    /// The exit code that the client's process should end with, never 0.
    pub exit: u8,
}

impl Refusal {
    /// A refusal for the reason `message`; the client's process ends with `exit` (1 where 0 is given).
    pub fn new(message: impl Into<String>, exit: u8) -> Self {
        Self {
            message: message.into(),
            exit: exit.max(1),
        }
    }
}

/// What came of a request that was done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// One sentence, where there is anything to say.
    pub message: String,
    /// What was asked for, as JSON of any size.
    pub result: Option<Json>,
}

impl From<String> for Outcome {
    fn from(message: String) -> Self {
        Self {
            message,
            result: None,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestLine {
    command: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arguments: Option<Json>,
}

/// The arguments of a request that has none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl Request {
    /// The names of all of them.
    pub const NAMES: [&'static str; 17] = [
        "stop",
        "cleanup",
        "ping",
        "skip",
        "replay",
        "position",
        "wait",
        "verify",
        "snapshot-save",
        "snapshot-restore",
        "status",
        "streams",
        "ping-peers",
        "leave",
        "forget",
        "brake",
        "reload",
    ];

    /// As it stands in a request.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Cleanup => "cleanup",
            Self::Ping => "ping",
            Self::Skip(_) => "skip",
            Self::Replay(_) => "replay",
            Self::SnapshotSave => "snapshot-save",
            Self::SnapshotRestore => "snapshot-restore",
            Self::Position(_) => "position",
            Self::Wait(_) => "wait",
            Self::Verify(_) => "verify",
            Self::Status => "status",
            Self::Streams => "streams",
            Self::PingPeers(_) => "ping-peers",
            Self::Leave(_) => "leave",
            Self::Forget(_) => "forget",
            Self::Brake(_) => "brake",
            Self::Reload => "reload",
        }
    }

    /// What stands beside the name.
    fn arguments(&self) -> Option<Json> {
        match self {
            Self::Stop
            | Self::Cleanup
            | Self::Ping
            | Self::SnapshotSave
            | Self::SnapshotRestore
            | Self::Status
            | Self::Streams
            | Self::Reload => None,
            Self::Skip(span) | Self::Replay(span) => serde_json::to_value(span).ok(),
            // Structs of texts and numbers always have a JSON form.
            Self::Position(arguments) => serde_json::to_value(arguments).ok(),
            Self::Wait(arguments) => serde_json::to_value(arguments).ok(),
            Self::Verify(arguments) => serde_json::to_value(arguments).ok(),
            Self::PingPeers(arguments) => serde_json::to_value(arguments).ok(),
            Self::Leave(arguments) => serde_json::to_value(arguments).ok(),
            Self::Forget(arguments) => serde_json::to_value(arguments).ok(),
            Self::Brake(arguments) => serde_json::to_value(arguments).ok(),
        }
    }

    /// The line that is sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encoded(&RequestLine {
            command: self.name().to_owned(),
            arguments: self.arguments(),
        })
    }

    /// Reads a line.
    ///
    /// # Errors
    /// The answer to a line that is no request.
    pub fn decode(line: &[u8]) -> Result<Self, Refusal> {
        let line: RequestLine = serde_json::from_slice(line).map_err(|_| {
            Refusal::new(
                "the request is not understood; send one line like {\"command\":\"ping\"}",
                USAGE,
            )
        })?;
        let name = line.command.as_str();
        let none = || arguments::<Nothing>(name, line.arguments.clone());
        match name {
            "stop" => none().map(|_| Self::Stop),
            "cleanup" => none().map(|_| Self::Cleanup),
            "ping" => none().map(|_| Self::Ping),
            "snapshot-save" => none().map(|_| Self::SnapshotSave),
            "snapshot-restore" => none().map(|_| Self::SnapshotRestore),
            "skip" => arguments(name, line.arguments).map(Self::Skip),
            "replay" => arguments(name, line.arguments).map(Self::Replay),
            "position" => arguments(name, line.arguments).map(Self::Position),
            "wait" => arguments(name, line.arguments).map(Self::Wait),
            "verify" => arguments(name, line.arguments).map(Self::Verify),
            "status" => none().map(|_| Self::Status),
            "streams" => none().map(|_| Self::Streams),
            "ping-peers" => arguments(name, line.arguments).map(Self::PingPeers),
            "leave" => arguments(name, line.arguments).map(Self::Leave),
            "forget" => arguments(name, line.arguments).map(Self::Forget),
            "brake" => arguments(name, line.arguments).map(Self::Brake),
            "reload" => none().map(|_| Self::Reload),
            unknown => {
                let shown: String = unknown.chars().take(SHOWN).collect();
                let known = Self::NAMES.join(", ");
                Err(Refusal::new(
                    format!("{shown:?} is not a known command; known are {known}"),
                    USAGE,
                ))
            }
        }
    }
}

/// Reads a command's arguments; none given stand for an empty object.
fn arguments<T: DeserializeOwned>(command: &str, given: Option<Json>) -> Result<T, Refusal> {
    let given = given.unwrap_or_else(|| Json::Object(serde_json::Map::new()));
    serde_json::from_value(given).map_err(|e| {
        Refusal::new(
            format!("the arguments of {command} are not understood ({e}); use the same version as the daemon's"),
            USAGE,
        )
    })
}

/// One line of the server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// What is under way.
    Progress(String),
    /// A piece of the result's text.
    Part(String),
    /// The last line.
    Done(Result<String, Refusal>),
}

#[derive(Default, Serialize, Deserialize)]
struct AnswerLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<u8>,
}

impl Answer {
    /// The line that is sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let empty = AnswerLine::default();
        encoded(&match self {
            Self::Progress(text) => AnswerLine {
                progress: Some(short(text)),
                ..empty
            },
            Self::Part(text) => AnswerLine {
                part: Some(text.clone()),
                ..empty
            },
            Self::Done(Ok(message)) => AnswerLine {
                ok: Some(true),
                message: Some(short(message)),
                ..empty
            },
            Self::Done(Err(refusal)) => AnswerLine {
                ok: Some(false),
                error: Some(short(&refusal.message)),
                exit: Some(refusal.exit),
                ..empty
            },
        })
    }

    /// Reads a line; `None` when it is no answer.
    #[must_use]
    pub fn decode(line: &[u8]) -> Option<Self> {
        let line: AnswerLine = serde_json::from_slice(line).ok()?;
        match (line.ok, line.progress, line.part) {
            (None, Some(text), None) => Some(Self::Progress(text)),
            (None, None, Some(text)) => Some(Self::Part(text)),
            (Some(true), None, None) => Some(Self::Done(Ok(line.message.unwrap_or_default()))),
            (Some(false), None, None) => Some(Self::Done(Err(Refusal::new(
                line.error?,
                line.exit.unwrap_or(1),
            )))),
            _ => None,
        }
    }
}

/// A result's text in pieces that each fit a line.
pub(super) fn parts(result: &Json) -> Vec<Answer> {
    let text = result.to_string();
    let mut rest = text.as_str();
    let mut out = Vec::with_capacity(text.len() / TEXT + 1);
    while !rest.is_empty() {
        let mut end = rest.len().min(TEXT);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, left) = rest.split_at(end);
        out.push(Answer::Part(piece.to_owned()));
        rest = left;
    }
    out
}

fn short(text: &str) -> String {
    if text.len() <= TEXT {
        return text.to_owned();
    }
    let mut end = TEXT;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", text.get(..end).unwrap_or_default())
}

/// One line. Structs of texts and numbers always have one.
fn encoded(line: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(line).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_these_lines() {
        for request in [
            Request::Stop,
            Request::Cleanup,
            Request::Ping,
            Request::SnapshotSave,
            Request::SnapshotRestore,
            Request::Status,
            Request::Streams,
            Request::Reload,
        ] {
            assert!(Request::NAMES.contains(&request.name()));
            let line = format!("{{\"command\":\"{}\"}}\n", request.name());
            assert_eq!(request.encode(), line.as_bytes());
            assert_eq!(Request::decode(line.as_bytes()), Ok(request));
        }
    }

    #[test]
    fn arguments_are_wholly_understood_or_refused() {
        let decode = |line: &str| Request::decode(line.as_bytes());
        assert_eq!(
            decode("{\"command\":\"ping\",\"arguments\":{}}"),
            Ok(Request::Ping)
        );
        let span = Span {
            shard: 1,
            first: 7,
            last: Some(9),
        };
        for request in [
            Request::Skip(span),
            Request::Replay(Span { last: None, ..span }),
        ] {
            assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
        assert_eq!(
            Request::Skip(span).encode(),
            b"{\"command\":\"skip\",\"arguments\":{\"first\":7,\"last\":9,\"shard\":1}}\n"
        );
        assert!(decode("{\"command\":\"skip\"}").is_err());
        for arguments in ["{\"force\":true}", "[1]", "7"] {
            let line = format!("{{\"command\":\"stop\",\"arguments\":{arguments}}}");
            let refusal = decode(&line).unwrap_err();
            assert!(
                refusal.to_string().starts_with("the arguments of stop"),
                "{refusal}"
            );
            assert_eq!(refusal.exit, 64);
        }
    }

    #[test]
    fn a_result_of_any_size_goes_in_lines_of_bounded_size() {
        let result = serde_json::json!({ "a": "\u{1}\u{20ac}\"".repeat(LINE), "b": [1, null] });
        let mut text = String::new();
        for answer in parts(&result) {
            let line = answer.encode();
            assert!(line.len() <= LINE);
            match Answer::decode(&line) {
                Some(Answer::Part(piece)) => text.push_str(&piece),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), result);
    }

    #[test]
    fn a_request_that_is_not_wholly_understood_is_refused() {
        for line in [
            "",
            "stop",
            "{}",
            "{\"command\":1}",
            "{\"command\":\"stop\",\"force\":true}",
            "{\"command\":\"stop\"}{\"command\":\"stop\"}",
        ] {
            let refusal = Request::decode(line.as_bytes()).unwrap_err();
            assert_eq!(
                refusal.to_string(),
                "the request is not understood; send one line like {\"command\":\"ping\"}"
            );
            assert_eq!(refusal.exit, 64);
        }
        let refusal = Request::decode(b"{\"command\":\"Stop\"}").unwrap_err();
        assert_eq!(
            refusal.to_string(),
            format!(
                "\"Stop\" is not a known command; known are {}",
                Request::NAMES.join(", ")
            )
        );
    }

    #[test]
    fn answers_are_these_lines() {
        for (answer, line) in [
            (Answer::Progress("a".into()), "{\"progress\":\"a\"}\n"),
            (
                Answer::Done(Ok("b".into())),
                "{\"ok\":true,\"message\":\"b\"}\n",
            ),
            (
                Answer::Done(Err(Refusal::new("c", 75))),
                "{\"ok\":false,\"error\":\"c\",\"exit\":75}\n",
            ),
        ] {
            assert_eq!(answer.encode(), line.as_bytes());
            assert_eq!(Answer::decode(line.as_bytes()), Some(answer));
        }
        for line in [
            "",
            "{}",
            "{\"ok\":false}",
            "{\"ok\":true,\"progress\":\"a\"}",
        ] {
            assert_eq!(Answer::decode(line.as_bytes()), None, "{line}");
        }
        assert_eq!(Refusal::new("a failure is never exit 0", 0).exit, 1);
    }

    #[test]
    fn no_text_outgrows_a_line() {
        for text in ["\u{1}".repeat(LINE), "\u{20ac}".repeat(LINE)] {
            let line = Answer::Done(Ok(text)).encode();
            assert!(line.len() <= LINE);
            assert!(matches!(Answer::decode(&line), Some(Answer::Done(Ok(_)))));
        }
    }
}
