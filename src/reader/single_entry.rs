//! Reads of the kinds that store one entry for each key.

use crate::error::Result;
use crate::state::{KeyCodec, Scope, SingleEntry, Spaces};

use super::state::{Keyed, StateReader};

impl<S: SingleEntry, P: Scope> StateReader<'_, S, P> {
    /// What the state's own `get` returns for a key: of a [`ValueState`](crate::ValueState) the
    /// value, or the descriptor's default, or None; of a [`ListState`](crate::ListState) all
    /// elements, oldest first; of a [`ReducingState`](crate::ReducingState) what has been folded,
    /// and of an [`AggregatingState`](crate::AggregatingState) its result, or None if nothing was
    /// added.
    ///
    /// # Errors
    /// [`Incompatible`](crate::ErrorKind::Incompatible) if the state's keys are not of type `K`;
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if the bytes are not what the state's codec reads; as
    /// [`CheckpointReader::get`](crate::CheckpointReader::get).
    pub fn get<K: KeyCodec + ?Sized>(&self, key: &K) -> Result<S::Read> {
        let stored = self.stored(key, |_| {})?;
        let entry = stored.map(|bytes| S::open(&self.typed, &bytes, self.now())).transpose()?.flatten();
        Ok(S::read(&self.typed, entry))
    }

    /// Whether a key has a value, elements, or anything that was added. A default is no value.
    ///
    /// # Errors
    /// As [`StateReader::get`].
    pub fn contains<K: KeyCodec + ?Sized>(&self, key: &K) -> Result<bool> {
        self.stored(key, |_| {})?.map_or(Ok(false), |bytes| S::is_shown(&self.typed, &bytes, self.now()))
    }
}

impl<S: SingleEntry, P: Spaces> StateReader<'_, S, P> {
    /// All keys (with namespaces: pairs of key and namespace) that have an entry, with what
    /// [`StateReader::get`] reads of it.
    ///
    /// # Errors
    /// As [`StateReader::keys`].
    pub fn entries<K: KeyCodec + ?Sized>(&self) -> Result<impl Iterator<Item = Keyed<P, K, S::Entry>>> {
        let now = self.now();
        self.values_by::<K, S::Entry>(move |bytes| S::open(&self.typed, bytes, now))
    }
}
