//! A profile in the format that `go tool pprof` and its relatives read (`profile.proto`), uncompressed.
//!
//! Only what that format asks for is written: sample types, samples, locations, functions, and the table of texts, whose first is empty.

use std::collections::BTreeMap;

use super::stacks::{Frame, Stacks};

/// Fields of `Profile`.
const SAMPLE_TYPE: u32 = 1;
const SAMPLE: u32 = 2;
const LOCATION: u32 = 4;
const FUNCTION: u32 = 5;
const STRING: u32 = 6;
const TIME_NANOS: u32 = 9;
const DURATION_NANOS: u32 = 10;
const PERIOD_TYPE: u32 = 11;
const PERIOD: u32 = 12;

/// A message under way.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value as u8 & 0x7f) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field << 3));
        self.varint(value);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field << 3 | 2));
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn numbers(&mut self, field: u32, values: impl Iterator<Item = u64>) {
        let mut packed = Self::default();
        values.for_each(|value| packed.varint(value));
        self.bytes(field, &packed.0);
    }

    /// Fields 1, 2, ... with these numbers.
    fn of(numbers: &[u64]) -> Self {
        let mut message = Self::default();
        for (field, value) in (1..).zip(numbers) {
            message.number(field, *value);
        }
        message
    }
}

/// Numbers things in the order of their first use.
struct Table<T>(BTreeMap<T, u64>, u64);

impl<T: Ord> Table<T> {
    /// The number of a thing, and whether it is new.
    fn number(&mut self, thing: T) -> (u64, bool) {
        let next = self.1 + self.0.len() as u64;
        let number = *self.0.entry(thing).or_insert(next);
        (number, number == next)
    }
}

impl Stacks {
    /// The profile's bytes.
    #[must_use]
    pub fn protobuf(&self) -> Vec<u8> {
        let mut profile = Message::default();
        let mut texts = Texts::default();
        let count = Message::of(&[texts.number("samples"), texts.number("count")]);
        let cpu = Message::of(&[texts.number("cpu"), texts.number("nanoseconds")]);
        profile.bytes(SAMPLE_TYPE, &count.0);
        profile.bytes(SAMPLE_TYPE, &cpu.0);
        let period = u64::try_from(self.period.as_nanos()).unwrap_or(u64::MAX);
        let mut locations: Table<&Frame> = Table(BTreeMap::new(), 1);
        let mut functions: Table<(&str, &str)> = Table(BTreeMap::new(), 1);
        let key = texts.number("thread");
        for (stack, count) in &self.counts {
            let mut ids = Vec::with_capacity(stack.frames.len());
            for frame in &stack.frames {
                let (location, is_new) = locations.number(frame);
                ids.push(location);
                if !is_new {
                    continue;
                }
                let (function, is_new) = functions.number((&frame.name, &frame.file));
                if is_new {
                    let name = texts.number(&frame.name);
                    let file = texts.number(&frame.file);
                    let function = Message::of(&[function, name, name, file]);
                    profile.bytes(FUNCTION, &function.0);
                }
                let line = Message::of(&[function, u64::from(frame.line)]);
                let mut entry = Message::of(&[location]);
                entry.bytes(4, &line.0);
                profile.bytes(LOCATION, &entry.0);
            }
            let mut sample = Message::default();
            sample.numbers(1, ids.into_iter());
            sample.numbers(2, [*count, count.saturating_mul(period)].into_iter());
            let label = Message::of(&[key, texts.number(&stack.thread)]);
            sample.bytes(3, &label.0);
            profile.bytes(SAMPLE, &sample.0);
        }
        for text in &texts.all {
            profile.bytes(STRING, text.as_bytes());
        }
        let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        profile.number(TIME_NANOS, nanos(self.began));
        profile.number(DURATION_NANOS, nanos(self.lasted));
        profile.bytes(PERIOD_TYPE, &cpu.0);
        profile.number(PERIOD, period);
        profile.0
    }
}

/// The table of texts.
struct Texts {
    all: Vec<String>,
    numbers: BTreeMap<String, u64>,
}

impl Default for Texts {
    fn default() -> Self {
        Self {
            all: vec![String::new()],
            numbers: BTreeMap::from([(String::new(), 0)]),
        }
    }
}

impl Texts {
    fn number(&mut self, text: &str) -> u64 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.all.len() as u64;
        self.all.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }
}
