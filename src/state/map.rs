//! [`MapState`]: a map per key, ordered by its own keys.

mod iter;

use std::borrow::Borrow;
use std::marker::PhantomData;
use std::ops::RangeBounds;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::delta::Direction;
use crate::error::Result;
use crate::key::user_key;
use crate::store::{StateKind, StateOptions, StateStore};

use super::codec::{Codec, Postcard};
use super::descriptor::{self, KeyedState, Kind, StateDescriptor};
use super::handle::handle;
use super::key_codec::{KeyCodec, KeyPrefix};
use super::keys::wrong_key;
use super::scope::{Namespaced, Scope, Spaces};
use super::typed::Typed;
pub use iter::MapIter;
pub(crate) use iter::bounds_in;

/// Deleted or expired entries that a pop may step over before it removes them for good, as one
/// range.
const PASSED_BY_POP: usize = 32;

/// A map per key, from `K` to `V`, ordered by `K`. Each entry is stored by itself: reading or
/// writing one costs the same however many there are, and the map may be larger than memory.
///
/// ```
/// use alluvium::{Job, JobOptions, MapState, OpenMode};
///
/// # fn main() -> alluvium::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let mut opened = Job::open("memory:///", JobOptions::new(dir.path(), OpenMode::Create))?;
/// let store = &mut opened.stores[0];
/// let routes = store.register(MapState::<String, u64>::descriptor("routes"))?;
/// store.set_key("JFK")?;
/// routes.put(store, "LAX", &11_262)?;
/// routes.put(store, "SFO", &8_204)?;
/// routes.put(store, "LAS", &3_987)?;
/// assert_eq!(routes.get(store, "SFO")?, Some(8_204));
///
/// let all: Vec<_> = routes.iter(store)?.collect::<alluvium::Result<_>>()?;
/// assert_eq!(all, [("LAS".into(), 3_987), ("LAX".into(), 11_262), ("SFO".into(), 8_204)]);
/// assert_eq!(routes.prefix(store, "LA")?.count(), 2);
/// assert_eq!(routes.range(store, "LAX".to_owned()..)?.count(), 2);
///
/// // From either end, which costs the same however large the map is.
/// assert_eq!(routes.last(store)?, Some(("SFO".into(), 8_204)));
/// assert_eq!(routes.pop_first(store)?, Some(("LAS".into(), 3_987)));
/// let reverse: Vec<_> = routes.iter(store)?.rev().collect::<alluvium::Result<_>>()?;
/// assert_eq!(reverse, [("SFO".into(), 8_204), ("LAX".into(), 11_262)]);
///
/// routes.clear(store)?;
/// assert!(routes.is_empty(store)?);
/// # Ok(())
/// # }
/// ```
pub struct MapState<K, V, S = ()> {
    typed: Arc<Typed<V, MapKey<K>>>,
    scope: S,
}

type MapKey<K> = PhantomData<fn() -> K>;

handle!(MapState<K, V>);

impl<K: KeyCodec<Owned = K> + 'static, V: Serialize + DeserializeOwned + 'static> MapState<K, V> {
    /// Declares a state called `name`.
    pub fn descriptor(name: impl Into<String>) -> StateDescriptor<Self> {
        Self::descriptor_with(name, Postcard)
    }
}

impl<K: KeyCodec<Owned = K> + 'static, V: 'static> MapState<K, V> {
    /// Declares a state whose values are not for `serde`.
    pub fn descriptor_with(name: impl Into<String>, codec: impl Codec<V> + 'static) -> StateDescriptor<Self> {
        StateDescriptor::new(name.into(), codec, PhantomData)
    }
}

impl<K: KeyCodec<Owned = K> + 'static, V: 'static, S: Spaces> KeyedState for MapState<K, V, S> {
    type In<N: KeyCodec<Owned = N>> = MapState<K, V, Namespaced<N>>;
}

impl<K: KeyCodec<Owned = K> + 'static, V: 'static, S: Spaces> Kind for MapState<K, V, S> {
    type Value = V;
    type Extra = MapKey<K>;
    type Space = S;

    fn options() -> StateOptions {
        descriptor::options(StateKind::Map, S::format(), K::name())
    }

    fn build(typed: Arc<Typed<V, MapKey<K>>>) -> Self {
        Self { typed, scope: S::default() }
    }
}

impl<K: KeyCodec<Owned = K> + 'static, V: 'static, S: Scope> MapState<K, V, S> {
    /// The value of an entry.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) without a current key;
    /// [`Incompatible`](crate::ErrorKind::Incompatible) if it is not of the type of the state's
    /// keys; [`Corrupt`](crate::ErrorKind::Corrupt) if the bytes are not a `V`; as
    /// [`StateStore::get`].
    pub fn get<Q: KeyCodec + ?Sized>(&self, store: &StateStore, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
    {
        self.typed.get(store, |out| self.push(out, key))
    }

    /// Whether there is an entry.
    ///
    /// # Errors
    /// As [`MapState::get`].
    pub fn contains<Q: KeyCodec + ?Sized>(&self, store: &StateStore, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
    {
        self.typed.contains(store, |out| self.push(out, key))
    }

    /// Sets an entry.
    ///
    /// # Errors
    /// As [`MapState::get`] and [`StateStore::put`];
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the value cannot be encoded.
    pub fn put<Q: KeyCodec + ?Sized>(&self, store: &mut StateStore, key: &Q, value: &V) -> Result<()>
    where
        K: Borrow<Q>,
    {
        self.typed.put(store, |out| self.push(out, key), value)
    }

    /// Removes an entry, if it is there.
    ///
    /// # Errors
    /// As [`MapState::put`].
    pub fn remove<Q: KeyCodec + ?Sized>(&self, store: &mut StateStore, key: &Q) -> Result<()>
    where
        K: Borrow<Q>,
    {
        self.typed.remove(store, |out| self.push(out, key))
    }

    /// Whether the map has no entries.
    ///
    /// # Errors
    /// As [`MapState::iter`].
    pub fn is_empty(&self, store: &StateStore) -> Result<bool> {
        Ok(self.iter(store)?.next().transpose()?.is_none())
    }

    /// The entry with the least key. Costs the same however many there are.
    ///
    /// # Errors
    /// As [`MapState::iter`].
    pub fn first(&self, store: &StateStore) -> Result<Option<(K, V)>> {
        self.iter(store)?.next().transpose()
    }

    /// The entry with the greatest key. Costs the same however many there are.
    ///
    /// # Errors
    /// As [`MapState::iter`].
    pub fn last(&self, store: &StateStore) -> Result<Option<(K, V)>> {
        self.iter(store)?.next_back().transpose()
    }

    /// Removes the entry with the least key, and returns it. A map can serve as a queue, because
    /// entries that were removed before do not make this slower.
    ///
    /// # Errors
    /// As [`MapState::iter`] and [`MapState::put`].
    pub fn pop_first(&self, store: &mut StateStore) -> Result<Option<(K, V)>> {
        self.pop(store, Direction::Forward)
    }

    /// Removes the entry with the greatest key, and returns it.
    ///
    /// # Errors
    /// As [`MapState::pop_first`].
    pub fn pop_last(&self, store: &mut StateStore) -> Result<Option<(K, V)>> {
        self.pop(store, Direction::Backward)
    }

    /// All entries in the order of their keys, or with `rev()` the other way round. Lazy, and a
    /// snapshot, as [`Scan`](crate::Scan) says: the program may write to the map while it iterates.
    ///
    /// # Errors
    /// As [`MapState::get`]; the iterator yields what fails on the way.
    pub fn iter(&self, store: &StateStore) -> Result<MapIter<K, V>> {
        let (scan, skip) = self.typed.scan_current(store, |out| self.scope.push(out))?;
        Ok(MapIter::new(scan, skip, Arc::clone(&self.typed), self.typed.now(store)))
    }

    /// The entries whose keys begin with `prefix`, in their order, see [`KeyPrefix`]. A snapshot.
    ///
    /// # Errors
    /// As [`MapState::iter`].
    pub fn prefix<P: KeyPrefix<K> + ?Sized>(&self, store: &StateStore, prefix: &P) -> Result<MapIter<K, V>> {
        let state = self.typed.state;
        let mut skip = 0;
        let tail = |out: &mut Vec<u8>| {
            self.scope.push(out);
            skip = out.len();
            prefix.encode_prefix(out);
        };
        let scan = store.at_key(state, tail, |store, group, key| store.scan_prefix(state, group, key))?;
        Ok(MapIter::new(scan, skip, Arc::clone(&self.typed), self.typed.now(store)))
    }

    /// The entries whose keys lie in `range`, in their order. A snapshot. A range that is the wrong
    /// way round is empty.
    ///
    /// # Errors
    /// As [`MapState::iter`].
    pub fn range<Q, R>(&self, store: &StateStore, range: R) -> Result<MapIter<K, V>>
    where
        K: Borrow<Q>,
        Q: KeyCodec + ?Sized,
        R: RangeBounds<Q>,
    {
        let state = self.typed.state;
        let (scan, skip) = store.at_key(
            state,
            |out| self.scope.push(out),
            |store, group, map| {
                let (start, end) = bounds_in(map, &range);
                Ok((store.scan_range(state, group, &start, end.as_deref())?, map.len()))
            },
        )?;
        Ok(MapIter::new(scan, skip, Arc::clone(&self.typed), self.typed.now(store)))
    }

    /// Removes all entries: up to 32 one by one, more of them as one range, without reading all. Of
    /// a state with a TTL always as one range.
    ///
    /// # Errors
    /// As [`MapState::iter`] and [`MapState::put`].
    pub fn clear(&self, store: &mut StateStore) -> Result<()> {
        let (state, tail) = (self.typed.state, |out: &mut Vec<u8>| self.scope.push(out));
        // Compaction may have removed expired entries from the table while the changelog still
        // holds them. They cannot be seen, and must not come back after a crash under a longer TTL.
        let may_be_unseen = self.typed.ttl.is_some();
        store.remove_at_key(state, tail, |store, group, key| {
            if may_be_unseen {
                store.delete_prefix(state, group, key)
            } else {
                store.clear_prefix(state, group, key)
            }
        })
    }

    fn pop(&self, store: &mut StateStore, direction: Direction) -> Result<Option<(K, V)>> {
        let mut entries = self.iter(store)?;
        let Some(taken) = entries.take_from(direction) else { return Ok(None) };
        let (key, entry) = taken?;
        let passed = entries.passed();
        drop(entries);
        let (state, tail) = (self.typed.state, |out: &mut Vec<u8>| self.scope.push(out));
        store.remove_at_key(state, tail, |store, group, map| {
            let key = user_key(&key);
            if passed <= PASSED_BY_POP {
                return store.delete(state, group, key);
            }
            // Popped entries lie before this one. Deleted as one range, they need not be stepped
            // over again.
            match direction {
                Direction::Forward => store.delete_range(state, group, map, Some(&[key, &[0]].concat())),
                Direction::Backward => {
                    store.delete_range(state, group, key, crate::key::successor(map).as_deref())
                }
            }
        })?;
        Ok(Some(entry))
    }

    fn push<Q: KeyCodec + ?Sized>(&self, out: &mut Vec<u8>, key: &Q) {
        self.scope.push(out);
        key.encode(out);
    }
}

impl<K, V, N> MapState<K, V, Namespaced<N>>
where
    K: KeyCodec<Owned = K> + 'static,
    V: 'static,
    N: KeyCodec<Owned = N> + PartialEq,
{
    /// Moves the entries of the namespaces `from` into the map of `into`, one map after the other;
    /// where both have an entry, `fold` makes one of the two values. `into` may be among `from`.
    /// What becomes of times and of what has expired:
    /// [`StateDescriptor::namespaced`](crate::StateDescriptor::namespaced).
    ///
    /// # Errors
    /// As [`MapState::put`].
    pub fn merge<'n>(
        &self,
        store: &mut StateStore,
        into: &N,
        from: impl IntoIterator<Item = &'n N>,
        mut fold: impl FnMut(V, V) -> V,
    ) -> Result<()>
    where
        N: 'n,
    {
        let (typed, into, now) = (&self.typed, self.at(into), self.typed.now(store));
        for namespace in from {
            if namespace == into.scope.0 {
                continue;
            }
            let source = self.at(namespace);
            let (scan, skip) = typed.scan_current(store, |out| source.scope.0.encode_part(out))?;
            for entry in scan {
                let (key, moved) = entry?;
                if !typed.is_shown(&moved, now)? {
                    continue;
                }
                let key = key.get(skip..).and_then(K::decode);
                let key = key.ok_or_else(|| wrong_key(&typed.to_string()))?;
                match typed.shown(store, |out| into.push(out, &key), now)? {
                    Some(there) => {
                        let value = fold(typed.value_of(&there)?, typed.value_of(&moved)?);
                        into.put(store, &key, &value)?;
                    }
                    None => typed.put_stored(store, |out| into.push(out, &key), &moved)?,
                }
                // One by one, so that an error leaves no entry in both.
                source.remove(store, &key)?;
            }
            if typed.ttl.is_some() {
                // Expired entries were not moved, and compaction may have removed them from the
                // table while the changelog still holds them. They must not show again under a
                // longer TTL.
                source.clear(store)?;
            }
        }
        Ok(())
    }
}
