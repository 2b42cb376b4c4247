//! [`Keys`]: which keys and namespaces a state has.

use std::fmt;

use crate::error::{Error, Result};
use crate::store::{Scan, StateKind};

use super::ttl::TtlNow;

/// Iterator over the keys or namespaces that a state has something for, each once, in their order. A
/// snapshot, as [`Scan`] says.
///
/// It reads all entries on the way: its cost is that of a scan, also where one key has many.
pub struct Keys<T> {
    /// As errors name it.
    state: String,
    hidden: Hidden,
    scan: Scan,
    /// Bytes at the beginning of each key that are not of interest.
    skip: usize,
    decode: fn(&mut &[u8]) -> Option<T>,
    /// The bytes of the one before.
    last: Option<Vec<u8>>,
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
        Self { state, hidden, scan, skip, decode, last: None }
    }

    /// The key if it is another one than the last.
    fn read(&mut self, key: &[u8]) -> Result<Option<T>> {
        let bytes = key.get(self.skip..).unwrap_or_default();
        // No key's bytes are the beginning of another's.
        if self.last.as_ref().is_some_and(|last| bytes.starts_with(last)) {
            return Ok(None);
        }
        let mut rest = bytes;
        let decoded = (self.decode)(&mut rest).ok_or_else(|| wrong_key(&self.state))?;
        let mine = bytes.get(..bytes.len() - rest.len()).unwrap_or_default();
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(mine);
        Ok(Some(decoded))
    }
}

pub(super) fn wrong_key(state: &str) -> Error {
    Error::corrupt("a stored key is not of the state's type of key").object(state)
}

impl<T> Iterator for Keys<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (key, value) = match self.scan.next()? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error)),
            };
            if self.hidden.now.hides(self.hidden.kind, &value) {
                continue;
            }
            if let Some(item) = self.read(&key).transpose() {
                return Some(item);
            }
        }
    }
}

impl<T> fmt::Debug for Keys<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("state", &self.state).finish_non_exhaustive()
    }
}
