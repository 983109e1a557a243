//! States and warnings, from what was read.

use super::*;
use crate::change::position::Sequence;
use crate::snapshot::presence::Present;
use crate::stream::{Overview, StreamState};

const SECOND: u64 = 1_000_000_000;

fn order(last: u64) -> Overview {
    Overview {
        state: StreamState {
            first: Sequence(1),
            last: Sequence(last),
            messages: last,
            bytes: 0,
            created: 1,
            limit: None,
        },
        oldest: SECOND,
        newest: SECOND,
        now: Some(100 * SECOND),
        replicas: 1,
        leader: None,
        offline: vec!["s3".to_owned()],
        behind: Vec::new(),
    }
}

fn said(node: u64, seconds_ago: u64, about: About) -> Announced {
    let present = Present {
        position: Some(Sequence(7)),
        ..Present::UNKNOWN
    };
    Announced::new(
        NodeId(node),
        present,
        Some(about),
        (100 - seconds_ago) * SECOND,
    )
}

fn seen(said: Vec<Announced>, held: &[u64]) -> Seen {
    Seen {
        said,
        holders: held
            .iter()
            .map(|n| (NodeId(*n), Holder::this_process("db", *n)))
            .collect(),
        order: order(9),
        stream: "stream-1".to_owned(),
        leader: Some(NodeId(1)),
        snapshot: None,
        next: [(Sequence(7), 70 * SECOND)].into(),
        now: 100 * SECOND,
    }
}

#[test]
fn a_state_is_what_the_node_says_and_what_the_broker_knows() {
    let about = |state| About {
        state,
        schema: "abcdef0123".to_owned(),
        ..About::default()
    };
    let all = seen(
        vec![
            said(1, 0, about(State::Running)),
            said(2, 1, about(State::Paused)),
            said(3, 30, about(State::Running)),
            said(4, 30, about(State::Running)),
            said(5, 30, about(State::Stopped)),
            said(6, 1, about(State::Stopped)),
        ],
        &[1, 2, 4, 6, 7],
    );
    let view = ClusterView::of(&all, Some(NodeId(1)));
    let states: Vec<NodeState> = view.nodes.iter().map(|n| n.state).collect();
    assert_eq!(
        states,
        [
            NodeState::Running,
            NodeState::Paused,
            NodeState::Lost,
            NodeState::Silent,
            NodeState::Stopped,
            NodeState::Silent,
            NodeState::Silent,
        ]
    );
    assert!(view.nodes[0].snapshot_leader && !view.nodes[1].snapshot_leader);
    assert_eq!(view.nodes[0].lag_messages, Some(2));
    assert_eq!(view.nodes[0].lag_seconds, Some(30.0));
    assert_eq!(view.nodes[6].position, None);
    let about_node = |n: u64| {
        view.warnings
            .iter()
            .any(|w| w.contains(&format!("node {n} ")))
    };
    assert!(about_node(3) && about_node(4) && !about_node(1) && !about_node(5));
    assert!(view.warnings.iter().any(|w| w.contains("s3 is offline")));
}

#[test]
fn differing_schemas_and_partitions_are_named() {
    let about = |schema: &str, misses: Vec<u64>| About {
        schema: schema.to_owned(),
        misses,
        ..About::default()
    };
    let all = seen(
        vec![
            said(1, 0, about("aaaa", vec![])),
            said(2, 0, about("bbbb", vec![1])),
        ],
        &[1, 2],
    );
    let view = ClusterView::of(&all, None);
    let warnings = view.warnings.join("\n");
    assert!(
        warnings.contains("schemas differ: aaaa on 1; bbbb on 2"),
        "{warnings}"
    );
    assert!(
        warnings.contains("a partition is suspected: node 2"),
        "{warnings}"
    );
}

#[test]
fn what_a_later_version_says_is_read_as_far_as_it_is_known() {
    let about: About = serde_json::from_str(
        "{\"version\":\"9\",\"moon\":\"full\",\"pending\":3,\"state\":\"dreaming\"}",
    )
    .unwrap();
    assert_eq!((about.version.as_str(), about.pending), ("9", 3));
    assert_eq!(about.state, State::Other);
    assert_eq!(moment(0), None);
    assert_eq!(moment(SECOND).as_deref(), Some("1970-01-01T00:00:01Z"));
}
