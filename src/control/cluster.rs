//! What the requests about the cluster and about holding this node back take.

use serde::{Deserialize, Serialize};

use crate::brakes::Part;

/// What [`Request::Brake`](super::Request::Brake) takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrakeArguments {
    /// What is held back, or not any more.
    pub part: Part,
    /// Pause it, or end its pause; without it that stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Rows a second, 0 for no limit; without it the limit stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_per_second: Option<u64>,
}

/// What [`Request::Leave`](super::Request::Leave) takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaveArguments {
    /// Milliseconds that publishing what is pending may take.
    pub timeout_ms: u64,
}

/// What [`Request::Forget`](super::Request::Forget) takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgetArguments {
    /// The node.
    pub node: u64,
}

/// What [`Request::PingPeers`](super::Request::PingPeers) takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PingArguments {
    /// How many messages are sent.
    pub count: u64,
    /// Milliseconds between them.
    pub interval_ms: u64,
    /// Milliseconds that a node may take for one.
    pub timeout_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::super::protocol::Request;
    use super::*;

    #[test]
    fn arguments_travel_and_unknown_ones_are_refused() {
        for request in [
            Request::Brake(BrakeArguments {
                part: Part::Apply,
                paused: Some(true),
                rows_per_second: None,
            }),
            Request::Leave(LeaveArguments { timeout_ms: 5 }),
            Request::Forget(ForgetArguments { node: u64::MAX }),
            Request::PingPeers(PingArguments {
                count: 1,
                interval_ms: 2,
                timeout_ms: 3,
            }),
        ] {
            assert!(Request::NAMES.contains(&request.name()));
            assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
        for line in [
            "{\"command\":\"forget\"}",
            "{\"command\":\"brake\",\"arguments\":{\"part\":\"all\"}}",
            "{\"command\":\"leave\",\"arguments\":{\"timeout_ms\":1,\"x\":2}}",
        ] {
            assert!(Request::decode(line.as_bytes()).is_err(), "{line}");
        }
    }
}
