//! CBOR from elsewhere, looked through before anything is made of it.
//!
//! Invariant: a message has no say over our memory: it holds no more items than its kind ever needs (a byte of CBOR can become two dozen of memory), nests no
//! deeper than our own formats with room for later ones, and no list goes on without a length. The look itself takes no memory.

use minicbor::data::Type;
use minicbor::decode::Error;
use minicbor::{Decode, Decoder};

/// The deepest of our formats nests six levels.
pub const DEEPEST: u32 = 16;

/// Items of a commit record: a piece is one, so these are pieces of a batch of terabytes, in 100 MB of memory at the most.
pub const ITEMS_OF_RECORD: u64 = 4_000_000;

/// Items of anything that is no list of many: names, numbers, a page of tables.
pub const ITEMS_OF_MESSAGE: u64 = 1_000_000;

/// Decodes what `bytes` begin with, if it holds at most `items` items.
///
/// # Errors
/// What does not fit.
pub fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8], items: u64) -> Result<T, Error> {
    let mut left = items;
    item(&mut Decoder::new(bytes), DEEPEST, &mut left)?;
    minicbor::decode(bytes)
}

fn item(d: &mut Decoder<'_>, levels: u32, left: &mut u64) -> Result<(), Error> {
    let bad = Error::message;
    *left = left
        .checked_sub(1)
        .ok_or_else(|| bad("more items than a message of ours has"))?;
    let inside = match d.datatype()? {
        Type::Array => d.array()?.unwrap_or_default(),
        Type::Map => d
            .map()?
            .unwrap_or_default()
            .checked_mul(2)
            .ok_or_else(|| bad("a map longer than any message"))?,
        Type::Tag => d.tag().map(|_| 1)?,
        Type::ArrayIndef | Type::MapIndef | Type::BytesIndef | Type::StringIndef => {
            return Err(bad("a list or a text without a length"));
        }
        _ => return d.skip(),
    };
    let levels = levels
        .checked_sub(1)
        .ok_or_else(|| bad("lists nested deeper than in any message of ours"))?;
    // The count is the sender's word; what is not there ends it.
    for _ in 0..inside {
        item(d, levels, left)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8], items: u64) -> String {
        decode::<Vec<u64>>(bytes, items).unwrap_err().to_string()
    }

    #[test]
    fn what_fits_is_decoded() {
        let bytes = minicbor::to_vec(vec![1_u64, 2, 3]).unwrap();
        assert_eq!(decode::<Vec<u64>>(&bytes, 4).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn too_many_items_are_refused() {
        let bytes = minicbor::to_vec(vec![0_u64; 100]).unwrap();
        assert!(refused(&bytes, 100).contains("more items"));
    }

    #[test]
    fn nesting_is_refused_before_it_costs_anything() {
        // Lists in lists, each of one item.
        let deep = vec![0x81; 10_000_000];
        assert!(refused(&deep, u64::MAX).contains("nested deeper"));
        let tags = vec![0xc1; 10_000_000];
        assert!(refused(&tags, u64::MAX).contains("nested deeper"));
    }

    #[test]
    fn a_length_without_its_items_ends_with_the_bytes() {
        // A list and a map of 2^64 - 1 items each, and nothing after it.
        assert!(decode::<Vec<u64>>(&[0x9b, 255, 255, 255, 255, 255, 255, 255, 255], 9).is_err());
        let map = [0xbb, 255, 255, 255, 255, 255, 255, 255, 255];
        assert!(refused(&map, 9).contains("longer than any message"));
    }

    #[test]
    fn lists_without_a_length_are_refused() {
        for bytes in [
            &[0x9f, 0x01, 0xff][..],
            &[0xbf, 0xff],
            &[0x5f, 0xff],
            &[0x7f, 0xff],
        ] {
            assert!(refused(bytes, 9).contains("without a length"), "{bytes:?}");
        }
    }
}
