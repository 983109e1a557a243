//! Whether a rollback journal can be of the database file that it lies beside: as [`wal_file`](super::wal_file) for a log. SQLite would roll the database back by
//! whatever journal it finds.
//!
//! A transaction raises the change counter in the first page by one, and no more; the journal holds that page as it was before, or does not hold it.
//!
//! Invariant: "foreign" is said only where nothing that SQLite does to one database can lead to the two.

use std::io::{BufReader, Read, Seek, SeekFrom};

use super::wal_file::{FirstPage, be32, counter, fill};

const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
const HEADER: usize = 28;

/// In place of the number of pages that follow a header: all to the end of the file, or not known yet.
const TO_THE_END: [u32; 2] = [0, u32::MAX];

/// Why the journal cannot be of the database; `None` where it may be, or is of no transaction.
///
/// # Errors
/// The journal's.
pub fn foreign(
    first: &FirstPage,
    journal: impl Read + Seek,
) -> std::io::Result<Option<&'static str>> {
    let mut journal = BufReader::new(journal);
    let mut at = 0;
    loop {
        journal.seek(SeekFrom::Start(at))?;
        let mut header = [0; HEADER];
        if !fill(&mut journal, &mut header)? || !header.starts_with(&MAGIC) {
            return Ok(None);
        }
        let (pages, nonce, sector, page_size) = (
            be32(&header, 8),
            be32(&header, 12),
            u64::from(be32(&header, 20)),
            be32(&header, 24) as usize,
        );
        if !(512..=65536).contains(&page_size)
            || !page_size.is_power_of_two()
            || !(32..=65536).contains(&sector)
        {
            return Ok(None);
        }
        if page_size != first.size() {
            return Ok(Some("their pages are of different size"));
        }
        journal.seek(SeekFrom::Start(at + sector))?;
        let mut record = vec![0; page_size + 8];
        let mut read = 0;
        while TO_THE_END.contains(&pages) || read < u64::from(pages) {
            if !fill(&mut journal, &mut record)? {
                return Ok(None);
            }
            read += 1;
            let page = record.get(4..4 + page_size).unwrap_or_default();
            if be32(&record, 0) == 1 && be32(&record, 4 + page_size) == sum(nonce, page) {
                let (before, here) = (counter(page), first.counter());
                let fits = here == before || here == before.wrapping_add(1);
                return Ok((!fits).then_some(
                    "the database's change counter is neither the journal's nor the next",
                ));
            }
        }
        // The next header stands at the next sector.
        at = (at + sector + read * (page_size as u64 + 8)).next_multiple_of(sector);
    }
}

/// The checksum of a page: of every 200th byte from its end on.
fn sum(nonce: u32, page: &[u8]) -> u32 {
    let mut sum = nonce;
    let mut at = page.len().saturating_sub(200);
    while at > 0 {
        sum = sum.wrapping_add(u32::from(page.get(at).copied().unwrap_or_default()));
        at = at.saturating_sub(200);
    }
    sum
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use rand::rngs::SmallRng;
    use rand::{RngExt as _, SeedableRng as _};
    use rusqlite::Connection;

    use super::*;

    fn journal_of(database: &Path) -> PathBuf {
        PathBuf::from(format!("{}-journal", database.display()))
    }

    fn judge(database: &Path, journal: &Path) -> Option<&'static str> {
        let first = FirstPage::read(std::fs::File::open(database).unwrap())
            .unwrap()
            .expect("a database");
        foreign(&first, std::fs::File::open(journal).unwrap()).unwrap()
    }

    /// Whether the journal holds the first page, so that it can be told from others.
    fn tells(database: &Path, journal: &Path) -> bool {
        let mut other = std::fs::read(database).unwrap();
        let counter = counter(&other).wrapping_add(1000);
        other[24..28].copy_from_slice(&counter.to_be_bytes());
        let first = FirstPage::read(other.as_slice()).unwrap().unwrap();
        foreign(&first, std::fs::File::open(journal).unwrap())
            .unwrap()
            .is_some()
    }

    #[test]
    fn what_a_kill_leaves_always_belongs() {
        let (mut judged, mut told) = (0, 0);
        for seed in 0..60 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let folder = tempfile::tempdir().unwrap();
            let (database, killed) = (folder.path().join("a.db"), folder.path().join("k.db"));
            let modes = ["DELETE", "TRUNCATE", "PERSIST"];
            let open = |rng: &mut SmallRng| {
                let conn = Connection::open(&database).unwrap();
                let mode = modes[rng.random_range(0..modes.len())];
                let synchronous = ["OFF", "NORMAL", "FULL"][rng.random_range(0..3)];
                let locking = ["NORMAL", "NORMAL", "EXCLUSIVE"][rng.random_range(0..3)];
                conn.execute_batch(&format!(
                    "PRAGMA page_size = 1024; PRAGMA journal_mode = {mode}; PRAGMA synchronous = {synchronous};
                     PRAGMA locking_mode = {locking}; PRAGMA cache_size = 8"
                ))
                .unwrap();
                conn
            };
            let mut conn = open(&mut rng);
            conn.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
                .unwrap();
            for _ in 0..60 {
                let n = rng.random_range(0..400);
                let sql = match rng.random_range(0..16) {
                    0..=4 => format!("INSERT INTO t(v) VALUES(randomblob({}))", n * 20),
                    5..=7 => "UPDATE t SET v = randomblob(700)".to_owned(),
                    8 => "DELETE FROM t WHERE id % 3 = 0".to_owned(),
                    9 => format!("PRAGMA user_version = {n}"),
                    10 => "VACUUM".to_owned(),
                    11..=13 => "BEGIN".to_owned(),
                    _ => "COMMIT".to_owned(),
                };
                // What does not fit, as a BEGIN in a transaction, fails.
                let _ = conn.execute_batch(&sql);
                if rng.random_range(0..20) == 0 {
                    drop(conn);
                    conn = open(&mut rng);
                }
                std::fs::copy(&database, &killed).unwrap();
                if std::fs::copy(journal_of(&database), journal_of(&killed)).is_ok() {
                    judged += 1;
                    assert_eq!(judge(&killed, &journal_of(&killed)), None, "seed {seed}");
                    told += u32::from(tells(&killed, &journal_of(&killed)));
                }
            }
        }
        assert!(judged > 500 && told > 50, "{judged} {told}");
    }

    #[test]
    fn another_file_in_its_place_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let (database, killed) = (folder.path().join("a.db"), folder.path().join("k.db"));
        let conn = Connection::open(&database).unwrap();
        conn.execute_batch("PRAGMA cache_size = 8; CREATE TABLE t(v)")
            .unwrap();
        for _ in 0..5 {
            conn.execute("INSERT INTO t VALUES(randomblob(9000))", [])
                .unwrap();
        }
        conn.execute_batch("BEGIN; INSERT INTO t VALUES(randomblob(900000)); CREATE TABLE u(v)")
            .unwrap();
        std::fs::copy(&database, &killed).unwrap();
        std::fs::copy(journal_of(&database), journal_of(&killed)).unwrap();
        assert_eq!(judge(&killed, &journal_of(&killed)), None);
        let other = folder.path().join("other.db");
        for (pragma, why) in [
            (
                "",
                "the database's change counter is neither the journal's nor the next",
            ),
            (
                "PRAGMA page_size = 8192",
                "their pages are of different size",
            ),
        ] {
            let _ = std::fs::remove_file(&other);
            let conn = Connection::open(&other).unwrap();
            conn.execute_batch(&format!("{pragma}; CREATE TABLE t(v)"))
                .unwrap();
            drop(conn);
            assert_eq!(judge(&other, &journal_of(&killed)), Some(why));
        }
        for bytes in [&b""[..], b"no journal", &[0; 4096]] {
            std::fs::write(journal_of(&other), bytes).unwrap();
            assert_eq!(judge(&other, &journal_of(&other)), None);
        }
    }
}
