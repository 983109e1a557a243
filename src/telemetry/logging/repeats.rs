//! The same event over and over is told once and then counted.
//!
//! ```text
//!   first ──▶ told ── the same within the interval ──▶ counted ── the interval ends ──▶ "…; and N times more in M s"
//!                                                                └─ counted again, until an interval without it
//! ```
//!
//! Invariants: the first of its kind (of `INFO`, the first few) is told at once, and so is whatever differs in its level, message or any field; what was counted is told at the latest when
//! its interval ends, or the program does; after good news (`INFO`) of a part of the program, its troubles are new ones. At most [`KINDS`] kinds are remembered.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::Level;

use super::event::Event;

/// Kinds that are remembered. A daemon in trouble repeats a handful; beyond this the oldest is forgotten, which costs a line.
const KINDS: usize = 256;

/// How often the same `INFO` is told before it is counted: each is a thing that was done, as a restore that somebody asks for twice.
const DEEDS: u64 = 5;

/// What was told lately.
#[derive(Debug)]
pub(super) struct Repeats {
    /// Zero: every event is told.
    interval: Duration,
    known: HashMap<u64, Kind>,
}

#[derive(Debug)]
struct Kind {
    event: Event,
    since: Instant,
    /// How often it was told.
    told: u64,
    /// How often it came beyond that.
    more: u64,
}

impl Repeats {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            known: HashMap::new(),
        }
    }

    /// From now on; what is counted stays counted.
    pub(super) fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// What is to be told when this event comes: itself, unless it was told within the interval, behind what its coming ends.
    pub(super) fn take(&mut self, event: Event, now: Instant) -> Vec<Event> {
        if self.interval.is_zero() {
            let mut told = self.all(now);
            told.push(event);
            return told;
        }
        let key = event.sameness();
        let most = if event.level == Level::INFO { DEEDS } else { 1 };
        let known = self.known.get_mut(&key);
        let again = known.filter(|k| now.saturating_duration_since(k.since) < self.interval);
        let before = match again {
            Some(kind) if kind.told >= most => {
                kind.more += 1;
                return Vec::new();
            }
            Some(kind) => Some((kind.since, kind.told)),
            None => None,
        };
        let mut told = self.remove(
            |k, kind| {
                // Its interval ended before the look that would have told so; or the trouble is over.
                let over = event.level == Level::INFO
                    && kind.event.level != Level::INFO
                    && kind.event.target == event.target;
                *k == key || over
            },
            now,
        );
        if self.known.len() >= KINDS {
            let oldest = self.known.iter().min_by_key(|(_, kind)| kind.since);
            if let Some(oldest) = oldest.map(|(k, _)| *k) {
                told.append(&mut self.remove(|k, _| *k == oldest, now));
            }
        }
        let kind = Kind {
            event: event.clone(),
            since: before.map_or(now, |(since, _)| since),
            told: before.map_or(1, |(_, told)| told + 1),
            more: 0,
        };
        self.known.insert(key, kind);
        told.push(event);
        told
    }

    /// What was counted in intervals that have ended.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Event> {
        let interval = self.interval;
        let ended = |kind: &Kind| now.saturating_duration_since(kind.since) >= interval;
        let mut told = self.remove(|_, kind| kind.more == 0 && ended(kind), now);
        for kind in self.known.values_mut().filter(|kind| ended(kind)) {
            told.extend(kind.told(now));
            (kind.since, kind.more) = (now, 0);
        }
        told
    }

    /// What was counted, before the program ends.
    pub(super) fn all(&mut self, now: Instant) -> Vec<Event> {
        self.remove(|_, _| true, now)
    }

    fn remove(&mut self, which: impl Fn(&u64, &Kind) -> bool, now: Instant) -> Vec<Event> {
        let gone = self.known.extract_if(|k, kind| which(k, kind));
        let mut told: Vec<(Instant, Event)> = gone
            .filter_map(|(_, kind)| Some((kind.since, kind.told(now)?)))
            .collect();
        told.sort_by_key(|(since, _)| *since);
        told.into_iter().map(|(_, event)| event).collect()
    }
}

impl Kind {
    /// How often it came again, if it did.
    fn told(&self, now: Instant) -> Option<Event> {
        if self.more == 0 {
            return None;
        }
        let seconds = now.saturating_duration_since(self.since).as_secs().max(1);
        let mut event = self.event.clone();
        event.at = std::time::SystemTime::now();
        event.message = format!(
            "{}; and {} times more in {seconds} s",
            event.message, self.more
        );
        event.fields.push(("repeats", self.more.into()));
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(60);

    fn event(level: Level, target: &'static str, message: &str, rows: u64) -> Event {
        Event {
            target,
            fields: vec![("rows", rows.into())],
            ..Event::of_ours(level, message.to_owned())
        }
    }

    fn warn(message: &str, rows: u64) -> Event {
        event(Level::WARN, "a", message, rows)
    }

    fn messages(told: &[Event]) -> Vec<&str> {
        told.iter().map(|e| e.message.as_str()).collect()
    }

    #[test]
    fn the_first_and_what_differs_is_told_and_the_rest_counted() {
        let mut repeats = Repeats::new(INTERVAL);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(messages(&repeats.take(warn("away", 1), at(0))), ["away"]);
        for second in 1..=5 {
            assert!(repeats.take(warn("away", 1), at(second)).is_empty());
        }
        // Another field, level or message is another event.
        assert_eq!(messages(&repeats.take(warn("away", 2), at(6))), ["away"]);
        let louder = event(Level::ERROR, "a", "away", 1);
        assert_eq!(messages(&repeats.take(louder, at(6))), ["away"]);
        assert!(repeats.due(at(59)).is_empty());
        let told = repeats.due(at(61));
        assert_eq!(messages(&told), ["away; and 5 times more in 61 s"]);
        assert_eq!(told[0].fields.last(), Some(&("repeats", 5.into())));
        // It goes on: counted from the first line on, with no line but one an interval.
        assert!(repeats.take(warn("away", 1), at(62)).is_empty());
        assert_eq!(
            messages(&repeats.due(at(121))),
            ["away; and 1 times more in 60 s"]
        );
        // An interval without it: it is a first one again.
        assert!(repeats.due(at(181)).is_empty());
        assert_eq!(messages(&repeats.take(warn("away", 1), at(190))), ["away"]);
    }

    #[test]
    fn what_was_counted_is_told_when_it_comes_late_or_the_program_ends() {
        let mut repeats = Repeats::new(INTERVAL);
        let start = Instant::now();
        repeats.take(warn("away", 1), start);
        repeats.take(warn("away", 1), start);
        let late = start + INTERVAL * 2;
        let told = repeats.take(warn("away", 1), late);
        assert_eq!(messages(&told), ["away; and 1 times more in 120 s", "away"]);
        repeats.take(warn("away", 1), late);
        assert_eq!(
            messages(&repeats.all(late)),
            ["away; and 1 times more in 1 s"]
        );
        assert!(repeats.all(late).is_empty());
    }

    #[test]
    fn after_good_news_a_trouble_is_a_new_one() {
        let mut repeats = Repeats::new(INTERVAL);
        let now = Instant::now();
        repeats.take(warn("away", 1), now);
        repeats.take(warn("away", 1), now);
        // Of another part: it says nothing of this one.
        repeats.take(event(Level::INFO, "b", "connected", 1), now);
        assert!(repeats.take(warn("away", 1), now).is_empty());
        let told = repeats.take(event(Level::INFO, "a", "connected", 1), now);
        assert_eq!(
            messages(&told),
            ["away; and 2 times more in 1 s", "connected"]
        );
        assert_eq!(messages(&repeats.take(warn("away", 1), now)), ["away"]);
    }

    #[test]
    fn what_was_done_is_told_a_few_times() {
        let mut repeats = Repeats::new(INTERVAL);
        let now = Instant::now();
        let done = || event(Level::INFO, "a", "restored", 1);
        let told: usize = (0..9).map(|_| repeats.take(done(), now).len()).sum();
        assert_eq!(told as u64, DEEDS);
        assert_eq!(
            messages(&repeats.due(now + INTERVAL)),
            ["restored; and 4 times more in 60 s"]
        );
    }

    #[test]
    fn a_flood_of_kinds_is_forgotten_but_told() {
        let mut repeats = Repeats::new(INTERVAL);
        let start = Instant::now();
        repeats.take(warn("first", 0), start);
        repeats.take(warn("first", 0), start);
        let mut told = 0;
        for n in 1..=2 * KINDS as u64 {
            let now = start + Duration::from_millis(n);
            told += repeats.take(warn("another", n), now).len();
            assert!(repeats.known.len() <= KINDS);
        }
        // All of them, and how often the first came.
        assert_eq!(told, 2 * KINDS + 1);
    }

    #[test]
    fn without_an_interval_everything_is_told() {
        let mut repeats = Repeats::new(INTERVAL);
        let now = Instant::now();
        repeats.take(warn("away", 1), now);
        repeats.take(warn("away", 1), now);
        repeats.set_interval(Duration::ZERO);
        let told = repeats.take(warn("away", 1), now);
        assert_eq!(messages(&told), ["away; and 1 times more in 1 s", "away"]);
        assert_eq!(messages(&repeats.take(warn("away", 1), now)), ["away"]);
    }
}
