//! What must hold of brakes.

use std::time::{Duration, Instant};

use super::*;

#[test]
fn what_is_set_outlives_the_process_and_leaves_nothing_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let brakes = Brakes::open(&database).unwrap();
    assert_eq!(brakes.set(), Set::default());
    brakes
        .change(Part::Apply, |b| b.paused_since = Some("then".into()))
        .unwrap();
    brakes
        .change(Part::Publish, |b| b.rows_per_second = NonZeroU64::new(7))
        .unwrap();
    let again = Brakes::open(&database).unwrap();
    assert!(again.is_paused(Part::Apply) && !again.is_paused(Part::Publish));
    assert_eq!(again.limit(Part::Publish), NonZeroU64::new(7));
    assert!(again.set().pause().unwrap().contains("resume apply"));
    again
        .change(Part::Apply, |b| *b = Brake::default())
        .unwrap();
    again
        .change(Part::Publish, |b| *b = Brake::default())
        .unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    remove(&database).unwrap();
}

#[test]
fn a_file_that_does_not_read_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let path = file::path(&database);
    for text in ["", "{", "{\"version\":2}", "[]"] {
        std::fs::write(&path, text).unwrap();
        let error = Brakes::open(&database).unwrap_err().to_string();
        assert!(error.contains("app.db-harmonylite.brakes"), "{error}");
    }
}

#[test]
fn what_cannot_be_kept_is_not_done() {
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone");
    let brakes = Brakes::open(&gone.join("app.db")).unwrap();
    let pause = |b: &mut Brake| b.paused_since = Some("then".into());
    assert!(brakes.change(Part::Publish, pause).is_err());
    assert!(!brakes.is_paused(Part::Publish));
}

#[test]
fn rows_have_their_time_and_a_new_limit_counts_at_once() {
    let now = Instant::now();
    let mut pace = Pace::default();
    let limit = NonZeroU64::new;
    assert_eq!(pace.next(limit(10), now), None);
    pace.spend(25, now);
    assert_eq!(
        pace.next(limit(10), now),
        Some(now + Duration::from_millis(2500))
    );
    assert_eq!(
        pace.next(limit(100), now),
        Some(now + Duration::from_millis(250))
    );
    assert_eq!(pace.next(None, now), None);
    assert_eq!(pace.next(limit(10), now + Duration::from_secs(3)), None);
    pace.spend(u64::MAX, now);
    assert!(pace.next(limit(1), now).is_some());
}
