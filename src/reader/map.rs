//! Reads of a map, which stores one entry for each of its keys.

use std::borrow::Borrow;
use std::ops::RangeBounds;
use std::sync::Arc;

use crate::error::Result;
use crate::key;
use crate::state::{KeyCodec, KeyPrefix, MapIter, MapState, Scope, Spaces, bounds_in};

use super::state::{Keyed, StateReader};

impl<M, V, Q, P> StateReader<'_, MapState<M, V, Q>, P>
where
    M: KeyCodec<Owned = M> + 'static,
    V: 'static,
    Q: Spaces,
    P: Scope,
{
    /// The value of an entry of a key's map.
    ///
    /// # Errors
    /// [`Incompatible`](crate::ErrorKind::Incompatible) if the state's keys are not of type `K`;
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if the bytes are not a `V`; as
    /// [`CheckpointReader::get`](crate::CheckpointReader::get).
    pub fn get<K, B>(&self, key: &K, map_key: &B) -> Result<Option<V>>
    where
        K: KeyCodec + ?Sized,
        M: Borrow<B>,
        B: KeyCodec + ?Sized,
    {
        let stored = self.stored(key, |out| map_key.encode(out))?;
        Ok(stored.map(|bytes| self.typed.open(&bytes, self.now())).transpose()?.flatten())
    }

    /// Whether a key's map has an entry.
    ///
    /// # Errors
    /// As `get`.
    pub fn contains<K, B>(&self, key: &K, map_key: &B) -> Result<bool>
    where
        K: KeyCodec + ?Sized,
        M: Borrow<B>,
        B: KeyCodec + ?Sized,
    {
        let stored = self.stored(key, |out| map_key.encode(out))?;
        stored.map_or(Ok(false), |bytes| self.typed.is_shown(&bytes, self.now()))
    }

    /// Whether a key's map has no entries.
    ///
    /// # Errors
    /// As [`StateReader::iter`].
    pub fn is_empty<K: KeyCodec + ?Sized>(&self, key: &K) -> Result<bool> {
        Ok(self.iter(key)?.next().transpose()?.is_none())
    }

    /// All entries of a key's map, in the order of the map's keys.
    ///
    /// # Errors
    /// As [`StateReader::get`]; the iterator yields what fails on the way.
    pub fn iter<K: KeyCodec + ?Sized>(&self, key: &K) -> Result<MapIter<M, V>> {
        self.map_iter(key, |map| (map.to_vec(), key::successor(map)))
    }

    /// The entries of a key's map whose keys begin with `prefix`, in their order, see
    /// [`KeyPrefix`].
    ///
    /// # Errors
    /// As [`StateReader::iter`].
    pub fn prefix<K, B>(&self, key: &K, prefix: &B) -> Result<MapIter<M, V>>
    where
        K: KeyCodec + ?Sized,
        B: KeyPrefix<M> + ?Sized,
    {
        self.map_iter(key, |map| {
            let mut start = map.to_vec();
            prefix.encode_prefix(&mut start);
            let end = key::successor(&start);
            (start, end)
        })
    }

    /// The entries of a key's map whose keys lie in `range`, in their order. A range that is the
    /// wrong way round is empty.
    ///
    /// # Errors
    /// As [`StateReader::iter`].
    pub fn range<K, B>(&self, key: &K, range: impl RangeBounds<B>) -> Result<MapIter<M, V>>
    where
        K: KeyCodec + ?Sized,
        M: Borrow<B>,
        B: KeyCodec + ?Sized,
    {
        self.map_iter(key, |map| bounds_in(map, &range))
    }

    fn map_iter<K: KeyCodec + ?Sized>(
        &self,
        key: &K,
        bounds: impl FnOnce(&[u8]) -> (Vec<u8>, Option<Vec<u8>>),
    ) -> Result<MapIter<M, V>> {
        let (scan, skip) = self.scan_at(key, bounds)?;
        Ok(MapIter::new(scan, skip, Arc::clone(&self.typed), self.now()))
    }
}

impl<M, V, Q, P> StateReader<'_, MapState<M, V, Q>, P>
where
    M: KeyCodec<Owned = M> + 'static,
    V: 'static,
    Q: Spaces,
    P: Spaces,
{
    /// The entries of all maps: the key (with namespaces: key and namespace), and the map's key and
    /// value. The entries of one map come together, in the order of the map's keys.
    ///
    /// # Errors
    /// As [`StateReader::keys`].
    pub fn entries<K: KeyCodec + ?Sized>(&self) -> Result<impl Iterator<Item = Keyed<P, K, (M, V)>>> {
        let now = self.now();
        self.entries_by::<K, (M, V)>(move |rest, bytes| {
            let Some(value) = self.typed.open(bytes, now)? else { return Ok(None) };
            let key = M::decode(rest).ok_or_else(|| self.corrupt_key())?;
            Ok(Some((key, value)))
        })
    }
}
