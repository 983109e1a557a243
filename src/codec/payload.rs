//! Payload messages: pieces of a batch's sections, published before its commit record. They mean nothing until a record names them by
//! their sequence; what they say of themselves tells a reader whether the message that stands there now is the one that was meant.

use minicbor::{Decode, Encode};

use crate::change::position::{BatchNumber, Incarnation, NodeId};
use crate::codec::bounds;

/// One piece.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Payload<'a> {
    /// The publisher.
    #[n(0)]
    pub node: NodeId,
    /// Its incarnation.
    #[n(1)]
    pub incarnation: Incarnation,
    /// The batch.
    #[n(2)]
    pub batch: BatchNumber,
    /// The section's place in the batch.
    #[n(3)]
    pub section: u32,
    /// The piece's place in the section.
    #[n(4)]
    pub piece: u32,
    /// The bytes.
    #[cbor(b(5), with = "minicbor::bytes")]
    pub bytes: &'a [u8],
}

/// Bytes that a piece needs beside its own, at most: frame, five numbers, CBOR heads.
pub const OVERHEAD: usize = 128;

/// Encodes a piece's body.
#[must_use]
pub fn encode(payload: &Payload<'_>) -> Vec<u8> {
    // Writing CBOR to memory cannot fail.
    minicbor::to_vec(payload).unwrap_or_default()
}

/// Decodes a piece's body.
///
/// # Errors
/// What does not fit.
pub fn decode(body: &[u8]) -> Result<Payload<'_>, minicbor::decode::Error> {
    bounds::decode(body, bounds::ITEMS_OF_MESSAGE)
}
