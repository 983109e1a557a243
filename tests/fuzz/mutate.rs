//! Changes to inputs that were right: what damage, and what malice, makes of a message.

use crate::rng::Rng;

/// Longer inputs say nothing new and take time.
const LONGEST: usize = 1 << 16;

/// Lengths and numbers at which programs go wrong.
const NUMBERS: [u64; 12] = [
    0,
    1,
    23,
    24,
    0x7f,
    0xff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// What lists in lists begin with, in CBOR and in JSON.
const NESTS: [&[u8]; 6] = [b"\x81", b"\x9f", b"\xc1", b"\xa1\x00", b"[", b"{\"a\":"];

/// One of the seeds, changed once or a few times.
pub fn change(seeds: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut input = rng.pick(seeds).clone();
    for _ in 0..1 + rng.below(4) {
        once(&mut input, seeds, rng);
    }
    input.truncate(LONGEST);
    input
}

fn once(input: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut Rng) {
    let at = rng.below(input.len() + 1);
    let rest = input.len() - at;
    match rng.below(16) {
        0 if rest > 0 => input[at] ^= 1 << rng.below(8),
        1 if rest > 0 => input[at] = rng.next() as u8,
        2 => input.truncate(at),
        3 => {
            let until = at + rng.below(rest + 1);
            input.drain(at..until);
        }
        4 => {
            let more: Vec<u8> = (0..rng.below(32)).map(|_| rng.next() as u8).collect();
            input.splice(at..at, more);
        }
        // The same once more, up to very often.
        5 => {
            let piece = input[at..at + rng.below(rest.min(64) + 1)].to_vec();
            let times = 1 << rng.below(12);
            let times = times.min(LONGEST / piece.len().max(1));
            input.splice(at..at, piece.repeat(times));
        }
        // A part of another.
        6 => {
            let other = rng.pick(seeds);
            let from = rng.below(other.len() + 1);
            let until = from + rng.below(other.len() - from + 1);
            let end = at + rng.below(rest + 1);
            input.splice(at..end, other[from..until].iter().copied());
        }
        // A number in place of what is there, in each way in which formats write them.
        7 => put(
            input,
            at,
            &rng.pick(&NUMBERS).to_le_bytes()[..1 << rng.below(4)],
        ),
        8 => put(
            input,
            at,
            &rng.pick(&NUMBERS).to_be_bytes()[8 - (1 << rng.below(4))..],
        ),
        // A head of CBOR of any kind with such a number.
        9 => {
            let mut head = vec![(rng.below(8) as u8) << 5 | 27];
            head.extend_from_slice(&rng.pick(&NUMBERS).to_be_bytes());
            let end = at + rng.below(rest.min(9) + 1);
            input.splice(at..end, head);
        }
        10 => {
            let one = rng.pick(&NESTS);
            input.splice(at..at, one.repeat(1 << rng.below(14)));
        }
        // Of CBOR that is still whole: another number in one item's head, or an item's head with another kind.
        11..=14 => {
            let heads = heads(input, rng.chance(500));
            if heads.is_empty() {
                return;
            }
            let (from, length) = *rng.pick(&heads);
            let kind = if rng.chance(900) {
                input[from] >> 5
            } else {
                rng.below(8) as u8
            };
            let number = if rng.chance(500) {
                *rng.pick(&NUMBERS)
            } else {
                rng.next() >> rng.below(64)
            };
            let mut head = vec![kind << 5 | 27];
            head.extend_from_slice(&number.to_be_bytes());
            input.splice(from..from + length, head);
        }
        // A decimal number.
        _ => {
            let text = rng.pick(&NUMBERS).to_string();
            input.splice(at..at, text.bytes());
        }
    }
}

/// Writes over what is there, as far as it reaches.
fn put(input: &mut [u8], at: usize, bytes: &[u8]) {
    for (there, byte) in input[at..].iter_mut().zip(bytes) {
        *there = *byte;
    }
}

/// Where the items of CBOR begin, and how long their heads are, one after the other as long as they can be made out. `within`: also of what stands in byte strings, as rows do in records.
fn heads(input: &[u8], within: bool) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(&first) = input.get(at) {
        let bytes = match first & 31 {
            0..=23 => 0,
            minor @ 24..=27 => 1 << (minor - 24),
            _ => break,
        };
        let Some(number) = input.get(at + 1..at + 1 + bytes) else {
            break;
        };
        let number = match bytes {
            0 => u64::from(first & 31),
            _ => number.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)),
        };
        found.push((at, 1 + bytes));
        at += 1 + bytes;
        let is_text = matches!(first >> 5, 2 | 3);
        if is_text && !(within && first >> 5 == 2) {
            at = at.saturating_add(usize::try_from(number).unwrap_or(usize::MAX));
        }
    }
    found
}
