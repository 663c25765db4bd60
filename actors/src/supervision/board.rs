//! What an actor shows of itself: a few named numbers that it keeps up to date and anybody may read at any time.
//!
//! A board outlives its actor's incarnations, so one that is stuck or down still shows what it did last, and how long
//! ago. Writing is one store, reading takes no lock and asks nobody.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

/// Stands for "nothing known", which is shown as null.
const UNSET: u64 = u64::MAX;

static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Time since a fixed moment of this process.
pub(super) fn process_time() -> Duration {
    BEGUN.elapsed()
}

/// One place of a [`Board`].
#[derive(Debug, Clone, Copy)]
pub enum Field {
    /// A number of this name.
    Number(&'static str),
    /// True or false.
    Flag(&'static str),
    /// One of these words.
    Word(&'static str, &'static [&'static str]),
}

/// An actor's summary of itself.
#[derive(Debug)]
pub struct Board {
    fields: &'static [Field],
    values: Box<[AtomicU64]>,
    /// In µs of [`process_time`].
    written: AtomicU64,
}

impl Board {
    /// A board on which nothing is known.
    pub fn new(fields: &'static [Field]) -> Self {
        let values = fields.iter().map(|_| AtomicU64::new(UNSET)).collect();
        Self { fields, values, written: AtomicU64::new(UNSET) }
    }

    /// Shows a value at a place: a number, the index of a word, 0 or 1 for a flag. Places that are not there are ignored.
    pub fn set(&self, place: usize, value: u64) {
        if let Some(cell) = self.values.get(place) {
            cell.store(value, Ordering::Relaxed);
            self.written.store(process_time().as_micros() as u64, Ordering::Relaxed);
        }
    }

    /// Adds to a number, for an actor that is the only one to write.
    pub fn add(&self, place: usize, more: u64) {
        self.set(place, self.get(place).unwrap_or(0) + more);
    }

    /// The value at a place, if it is known.
    pub fn get(&self, place: usize) -> Option<u64> {
        self.values.get(place).map(|cell| cell.load(Ordering::Relaxed)).filter(|value| *value != UNSET)
    }

    /// Time since the last change; `None` before the first.
    pub fn age(&self) -> Option<Duration> {
        let written = self.written.load(Ordering::Relaxed);
        (written != UNSET).then(|| process_time().saturating_sub(Duration::from_micros(written)))
    }

    /// All places as a JSON object; `None` before the first change.
    pub fn show(&self) -> Option<Value> {
        self.age()?;
        let shown = self.fields.iter().enumerate().map(|(place, field)| {
            let value = self.get(place);
            match field {
                Field::Number(name) => ((*name).to_owned(), value.into()),
                Field::Flag(name) => ((*name).to_owned(), value.map(|value| value != 0).into()),
                Field::Word(name, words) => {
                    ((*name).to_owned(), value.and_then(|value| words.get(value as usize).copied()).into())
                }
            }
        });
        Some(Value::Object(shown.collect::<Map<_, _>>()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FIELDS: &[Field] = &[Field::Number("waiting"), Field::Flag("listening"), Field::Word("phase", &["a", "b"])];

    #[test]
    fn shows_what_was_written_last_and_null_for_what_was_not() {
        let board = Board::new(FIELDS);
        assert_eq!((board.show(), board.age()), (None, None));
        board.set(0, 7);
        assert_eq!(board.show(), Some(json!({ "waiting": 7, "listening": null, "phase": null })));
        board.add(0, 2);
        board.set(1, 0);
        board.set(2, 1);
        board.set(3, 1);
        assert_eq!(board.show(), Some(json!({ "waiting": 9, "listening": false, "phase": "b" })));
        assert!(board.age().is_some());
    }
}
