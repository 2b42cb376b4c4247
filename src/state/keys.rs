//! [`Keys`]: iterates over the keys and namespaces of a state.

use std::fmt;

use crate::delta::Direction;
use crate::error::{Error, Result};
use crate::key::{PREFIX_LEN, user_key};
use crate::store::{Scan, StateKind, name_key};

use super::ttl::TtlNow;

/// Entries of one key that are stepped over before the next key is searched for.
const STEPS_BEFORE_A_JUMP: usize = 8;

/// Iterator over the keys or namespaces that a state has something for, each once, in their order
/// or, with `rev()`, the other way round. Lazy, and a snapshot, as [`Scan`] says. A stored key that
/// cannot be read is an error that shows it, and iteration may go on after it.
///
/// Where one key has many entries, as a large map has, it looks at a few of them and goes on to the
/// next key.
pub struct Keys<T> {
    /// As errors name it.
    state: String,
    hidden: Hidden,
    scan: Scan,
    /// Bytes at the beginning of each key that are not of interest.
    skip: usize,
    decode: fn(&mut &[u8]) -> Option<T>,
    /// The bytes of the last one that was taken from the front, and from the back.
    last: [Option<Vec<u8>>; 2],
    /// Entries in turn that belong to the last one.
    repeated: usize,
}

/// Which stored values count as absent.
#[derive(Clone, Copy)]
pub(super) struct Hidden {
    pub(super) kind: StateKind,
    pub(super) now: TtlNow,
}

impl<T> Keys<T> {
    pub(super) fn new(
        state: String,
        hidden: Hidden,
        scan: Scan,
        skip: usize,
        decode: fn(&mut &[u8]) -> Option<T>,
    ) -> Self {
        Self { state, hidden, scan, skip, decode, last: [None, None], repeated: 0 }
    }

    /// The next item from one end; tells whether more may follow a failure.
    pub(crate) fn step(&mut self, direction: Direction) -> Option<Result<T, Failure>> {
        loop {
            let (key, value) = match self.scan.take_from(direction)? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(Failure::Scan(error))),
            };
            if self.hidden.now.hides(self.hidden.kind, &value) {
                continue;
            }
            if let Some(item) = self.read(direction, &key).transpose() {
                let within = |error: Error| Failure::Entry(error.within(name_key(None, user_key(&key))));
                return Some(item.map_err(within));
            }
        }
    }

    /// The key, unless one of its entries came before.
    fn read(&mut self, direction: Direction, key: &[u8]) -> Result<Option<T>> {
        let skip = (PREFIX_LEN + self.skip).min(key.len());
        let (before, bytes) = key.split_at(skip);
        // No key's bytes are the beginning of another's.
        let known = self.last.iter().flatten().find(|last| bytes.starts_with(last));
        if let Some(known) = known {
            self.repeated += 1;
            if self.repeated > STEPS_BEFORE_A_JUMP {
                self.repeated = 0;
                self.scan.skip_all_of(direction, &[before, known].concat());
            }
            return Ok(None);
        }
        self.repeated = 0;
        let mut rest = bytes;
        let decoded = (self.decode)(&mut rest).ok_or_else(|| wrong_key(&self.state))?;
        let mine = bytes.get(..bytes.len() - rest.len()).unwrap_or_default();
        let last = match direction {
            Direction::Forward => &mut self.last[0],
            Direction::Backward => &mut self.last[1],
        };
        let last = last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(mine);
        Ok(Some(decoded))
    }
}

/// Why an iteration over stored keys yields no item.
pub(crate) enum Failure {
    /// One stored key or value cannot be read. Iteration may go on after it.
    Entry(Error),
    /// The scan itself has failed, and is over.
    Scan(Error),
}

impl Failure {
    pub(super) fn error(self) -> Error {
        match self {
            Self::Entry(error) | Self::Scan(error) => error,
        }
    }
}

pub(super) fn wrong_key(state: &str) -> Error {
    Error::corrupt("a stored key is not of the state's type of key").object(state)
}

impl<T> Iterator for Keys<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.step(Direction::Forward)?.map_err(Failure::error))
    }
}

impl<T> DoubleEndedIterator for Keys<T> {
    fn next_back(&mut self) -> Option<Self::Item> {
        Some(self.step(Direction::Backward)?.map_err(Failure::error))
    }
}

impl<T> fmt::Debug for Keys<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("state", &self.state).finish_non_exhaustive()
    }
}
