//! Whose fold a new history begins from: a pure rule.
//!
//! Who holds what the stream has lost comes first, since nobody else may have it; what only the stream has is read again by all, as long as the fold contains
//! everything from before the stream's first message. The owners of changes that the chosen fold lacks publish them again (see [`crate::replica::kept`]).

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use crate::change::position::{NodeId, Sequence};

/// What may become the base of a new history.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A node's database.
    Node(u64),
    /// A snapshot in the store, by its file.
    Snapshot(String),
}

/// A fold of the history that has broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Where it is.
    pub source: Source,
    /// How far it goes.
    pub position: Sequence,
    /// The stream does not hold, at this position, what was folded.
    pub lost: bool,
    /// It certainly contains everything from before the stream's first message.
    pub reaches: bool,
}

/// Chooses; the same whatever the order of the candidates. `None` where there are none.
#[must_use]
pub fn choose(candidates: &[Candidate]) -> Option<&Candidate> {
    candidates.iter().max_by_key(|c| {
        let node = match &c.source {
            Source::Node(node) => Some(Reverse(NodeId(*node))),
            Source::Snapshot(_) => None,
        };
        (
            c.reaches,
            c.lost,
            c.position,
            node,
            Reverse(c.source.clone()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64, position: u64, lost: bool, reaches: bool) -> Candidate {
        Candidate {
            source: Source::Node(id),
            position: Sequence(position),
            lost,
            reaches,
        }
    }

    fn snapshot(file: &str, position: u64, lost: bool, reaches: bool) -> Candidate {
        Candidate {
            source: Source::Snapshot(file.to_owned()),
            ..node(0, position, lost, reaches)
        }
    }

    fn chosen(candidates: &[Candidate]) -> Source {
        let mut turned = candidates.to_vec();
        turned.reverse();
        assert_eq!(choose(candidates), choose(&turned));
        choose(candidates).unwrap().source.clone()
    }

    #[test]
    fn who_has_what_the_stream_lost_gives_the_base() {
        use Source::Node;
        // It reaches farther than the stream did for it, though others went on since.
        assert_eq!(
            chosen(&[node(1, 900, false, true), node(2, 50, true, true)]),
            Node(2)
        );
        assert_eq!(
            chosen(&[node(1, 60, true, true), node(2, 50, true, true)]),
            Node(1)
        );
        assert_eq!(
            chosen(&[node(3, 50, true, true), node(2, 50, true, true)]),
            Node(2)
        );
        assert_eq!(
            chosen(&[node(1, 7, false, true), node(2, 9, false, true)]),
            Node(2)
        );
        assert_eq!(choose(&[]), None);
    }

    #[test]
    fn nothing_that_was_trimmed_is_given_up_for_what_was_lost() {
        // The stream was trimmed since the loss: what the first lacks is in no stream any more.
        assert_eq!(
            chosen(&[node(1, 100, true, false), node(2, 5000, false, true)]),
            Source::Node(2)
        );
        assert_eq!(chosen(&[node(1, 100, true, false)]), Source::Node(1));
    }

    #[test]
    fn a_snapshot_stands_in_for_the_nodes_that_folded_what_it_covers() {
        assert_eq!(
            chosen(&[node(1, 90, true, true), snapshot("s", 100, true, true)]),
            Source::Snapshot("s".to_owned())
        );
        assert_eq!(
            chosen(&[node(9, 100, true, true), snapshot("s", 100, true, true)]),
            Source::Node(9)
        );
    }
}
