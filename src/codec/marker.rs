//! The marker: a message of the order stream that carries nothing and changes nothing. It names one place in the stream, at which nodes that
//! were asked to beforehand compare what they hold; to all others it is a message like any that moves the position.

use minicbor::{Decode, Encode};

use super::frame::{Kind, Sealer};
use crate::change::position::NodeId;
use crate::codec::bounds;

/// A marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Marker {
    /// The node that published it; for people who look at the stream.
    #[n(0)]
    pub node: NodeId,
    /// Random: by this a node knows the marker that it was prepared for.
    #[n(1)]
    pub id: u64,
}

/// Encodes a marker's body.
#[must_use]
pub fn encode(marker: &Marker) -> Vec<u8> {
    // Writing CBOR to memory cannot fail.
    minicbor::to_vec(marker).unwrap_or_default()
}

/// The marker as a message of the order stream.
#[must_use]
pub fn message(marker: &Marker) -> Vec<u8> {
    Sealer::new(false, 0).seal(Kind::Marker, &encode(marker))
}

/// Decodes a marker's body.
///
/// # Errors
/// What does not fit.
pub fn decode(body: &[u8]) -> Result<Marker, minicbor::decode::Error> {
    bounds::decode(body, bounds::ITEMS_OF_MESSAGE)
}
