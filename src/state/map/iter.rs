//! [`MapIter`]: the entries of a map, or of a range of it.

use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use crate::delta::Direction;
use crate::error::Result;
use crate::key::user_key;
use crate::state::KeyCodec;
use crate::state::keys::wrong_key;
use crate::state::ttl::TtlNow;
use crate::state::typed::Typed;
use crate::store::Scan;

use super::MapKey;

/// Where a range of a map's keys begins and ends (None: behind all keys) among stored keys; `map`
/// is what those of the map begin with.
pub(crate) fn bounds_in<Q: KeyCodec + ?Sized>(
    map: &[u8],
    range: &impl RangeBounds<Q>,
) -> (Vec<u8>, Option<Vec<u8>>) {
    let bound = |key: &Q, after: bool| {
        let mut bytes = map.to_vec();
        key.encode(&mut bytes);
        if after {
            bytes.push(0);
        }
        bytes
    };
    let start = match range.start_bound() {
        Bound::Included(key) => bound(key, false),
        Bound::Excluded(key) => bound(key, true),
        Bound::Unbounded => map.to_vec(),
    };
    let end = match range.end_bound() {
        Bound::Included(key) => Some(bound(key, true)),
        Bound::Excluded(key) => Some(bound(key, false)),
        Bound::Unbounded => crate::key::successor(map),
    };
    (start, end)
}

/// An encoded key, and the entry that is stored under it.
type Taken<K, V> = (Vec<u8>, (K, V));

/// Iterator over entries of a map from both ends, see [`MapState::iter`](crate::MapState::iter).
pub struct MapIter<K, V> {
    scan: Scan,
    /// Bytes before the map's key.
    skip: usize,
    /// Entries that have expired and were left out.
    expired: usize,
    typed: Arc<Typed<V, MapKey<K>>>,
    now: TtlNow,
}

impl<K: KeyCodec<Owned = K>, V> MapIter<K, V> {
    pub(crate) fn new(scan: Scan, skip: usize, typed: Arc<Typed<V, MapKey<K>>>, now: TtlNow) -> Self {
        Self { scan, skip, expired: 0, typed, now }
    }

    /// Takes the next entry, with its encoded key.
    pub(super) fn take_from(&mut self, direction: Direction) -> Option<Result<Taken<K, V>>> {
        loop {
            let (key, bytes) = match self.scan.take_from(direction)? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error)),
            };
            match self.read(user_key(&key), &bytes).transpose() {
                Some(entry) => return Some(entry.map(|entry| (key, entry))),
                // Counted, so that a pop knows when to delete the passed entries as one range.
                None => self.expired += 1,
            }
        }
    }

    /// Keys that were passed because they are deleted or have expired.
    pub(super) fn passed(&self) -> usize {
        self.expired + (usize::MAX - self.scan.patience())
    }

    fn read(&self, key: &[u8], bytes: &[u8]) -> Result<Option<(K, V)>> {
        let Some(value) = self.typed.open(bytes, self.now)? else { return Ok(None) };
        let key = key.get(self.skip..).and_then(K::decode);
        Ok(Some((key.ok_or_else(|| wrong_key(&self.typed.to_string()))?, value)))
    }
}

impl<K: KeyCodec<Owned = K>, V> Iterator for MapIter<K, V> {
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.take_from(Direction::Forward).map(|taken| taken.map(|(_, entry)| entry))
    }
}

impl<K: KeyCodec<Owned = K>, V> DoubleEndedIterator for MapIter<K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.take_from(Direction::Backward).map(|taken| taken.map(|(_, entry)| entry))
    }
}

impl<K, V> fmt::Debug for MapIter<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapIter").field("name", &self.typed.name).finish_non_exhaustive()
    }
}
