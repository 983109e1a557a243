//! Lists that travel in pages: keys with their lengths, and the bytes of one page.

/// Appends a key with its length before it.
pub fn push_key(out: &mut Vec<u8>, key: &[u8]) {
    // A key fits a row, and a row 1 GB.
    out.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(key);
}

/// Takes a key with its length before it; `None` where it is cut off.
pub fn take_key<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *bytes = rest;
    Some(key)
}

/// The bytes from `from` on, as many as fit a page, and whether there are more.
pub fn page_of(all: &[u8], from: u64, page: usize) -> (Vec<u8>, bool) {
    let from = usize::try_from(from).unwrap_or(usize::MAX).min(all.len());
    let rest = all.get(from..).unwrap_or_default();
    let now = rest.get(..page).unwrap_or(rest);
    (now.to_vec(), now.len() < rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_lose_nothing() {
        let all: Vec<u8> = (0..=255).collect();
        let mut got = Vec::new();
        loop {
            let (page, more) = page_of(&all, got.len() as u64, 100);
            got.extend_from_slice(&page);
            if !more {
                break;
            }
        }
        assert_eq!(got, all);
        assert_eq!(page_of(&all, u64::MAX, 100), (Vec::new(), false));
    }

    #[test]
    fn a_key_that_is_cut_off_is_none() {
        let mut bytes = Vec::new();
        push_key(&mut bytes, b"abc");
        push_key(&mut bytes, b"");
        let mut rest = &bytes[..];
        assert_eq!(take_key(&mut rest), Some(&b"abc"[..]));
        assert_eq!(take_key(&mut rest), Some(&b""[..]));
        assert!(rest.is_empty());
        assert_eq!(take_key(&mut &bytes[..6]), None);
    }
}
