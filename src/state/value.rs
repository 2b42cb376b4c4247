//! [`ValueState`]: one value per key.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::delta::Direction;
use crate::error::Result;
use crate::key::user_key;
use crate::key_group::KeyGroup;
use crate::store::{Scan, StateKind, StateOptions, StateStore, name_key};

use super::codec::{Codec, Postcard};
use super::descriptor::{self, KeyedState, Kind, StateDescriptor};
use super::handle::handle;
use super::key_codec::KeyCodec;
use super::keys::wrong_key;
use super::scope::{Namespaced, Scope, Spaces};
use super::single_entry::SingleEntry;
use super::ttl::TtlNow;
use super::typed::Typed;

/// One value of type `T` per key. A handle: declared once, registered with each store that uses it.
///
/// ```
/// use alluvium::{Job, JobOptions, OpenMode, ValueState};
///
/// # fn main() -> alluvium::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let mut opened = Job::open("memory:///", JobOptions::new(dir.path(), OpenMode::Create))?;
/// let store = &mut opened.stores[0];
/// let clicks = store.register(ValueState::<u64>::descriptor("clicks"))?;
/// store.set_key("page/1")?;
/// let count = clicks.get(store)?.unwrap_or(0);
/// clicks.put(store, &(count + 1))?;
/// assert_eq!(clicks.get(store)?, Some(1));
///
/// store.set_key("page/2")?;
/// assert!(!clicks.contains(store)?);
/// # Ok(())
/// # }
/// ```
pub struct ValueState<T, S = ()> {
    typed: Arc<Typed<T, Option<MakeDefault<T>>>>,
    scope: S,
}

/// Makes what an absent value reads as.
type MakeDefault<T> = Arc<dyn Fn() -> T + Send + Sync>;

handle!(ValueState<T>);

impl<T: Serialize + DeserializeOwned + 'static> ValueState<T> {
    /// Declares a state called `name`.
    pub fn descriptor(name: impl Into<String>) -> StateDescriptor<Self> {
        Self::descriptor_with(name, Postcard)
    }
}

impl<T: 'static> ValueState<T> {
    /// Declares a state whose values are not for `serde`.
    pub fn descriptor_with(name: impl Into<String>, codec: impl Codec<T> + 'static) -> StateDescriptor<Self> {
        StateDescriptor::new(name.into(), codec, None)
    }

    /// All keys of a group with their values, in the order of the keys. A snapshot, as [`Scan`]
    /// says.
    ///
    /// # Errors
    /// As [`ValueState::keys`]; the iterator yields what fails on the way.
    pub fn entries<K: KeyCodec + ?Sized>(
        &self,
        store: &StateStore,
        group: KeyGroup,
    ) -> Result<ValueEntries<K::Owned, T>> {
        let scan = self.typed.scan_group::<K>(store, group)?;
        Ok(ValueEntries {
            scan,
            typed: Arc::clone(&self.typed),
            now: self.typed.now(store),
            decode: K::decode_part,
        })
    }
}

impl<T: 'static, S: Kind<Value = T, Extra = Option<MakeDefault<T>>>> StateDescriptor<S> {
    /// What [`ValueState::get`] returns where there is no value. It is not stored. Default none.
    #[must_use]
    pub fn default_value(mut self, value: T) -> Self
    where
        T: Clone + Send + Sync,
    {
        self.extra = Some(Arc::new(move || value.clone()));
        self
    }
}

impl<T: 'static, S: Spaces> KeyedState for ValueState<T, S> {
    type In<N: KeyCodec<Owned = N>> = ValueState<T, Namespaced<N>>;
}

impl<T: 'static, S: Spaces> Kind for ValueState<T, S> {
    type Value = T;
    type Extra = Option<MakeDefault<T>>;
    type Space = S;

    fn options() -> StateOptions {
        descriptor::options(StateKind::Value, S::format(), String::new())
    }

    fn build(typed: Arc<Typed<T, Self::Extra>>) -> Self {
        Self { typed, scope: S::default() }
    }
}

impl<T: 'static, S: Spaces> SingleEntry for ValueState<T, S> {
    type Entry = T;
    type Read = Option<T>;

    fn open(typed: &Typed<T, Self::Extra>, stored: &[u8], now: TtlNow) -> Result<Option<T>> {
        typed.open(stored, now)
    }

    fn read(typed: &Typed<T, Self::Extra>, entry: Option<T>) -> Option<T> {
        entry.or_else(|| typed.extra.as_ref().map(|make| make()))
    }
}

impl<T: 'static, S: Scope> ValueState<T, S> {
    /// The value of the current key; where there is none, the descriptor's default or None.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) without a current key;
    /// [`Incompatible`](crate::ErrorKind::Incompatible) if it is not of the type of the state's
    /// keys; [`Corrupt`](crate::ErrorKind::Corrupt) if the bytes are not a `T`; as
    /// [`StateStore::get`].
    pub fn get(&self, store: &StateStore) -> Result<Option<T>> {
        let value = self.typed.get(store, |out| self.scope.push(out))?;
        Ok(ValueState::<T>::read(&self.typed, value))
    }

    /// Whether the current key has a value. A default is none.
    ///
    /// # Errors
    /// As [`ValueState::get`].
    pub fn contains(&self, store: &StateStore) -> Result<bool> {
        self.typed.contains(store, |out| self.scope.push(out))
    }

    /// Sets the value of the current key.
    ///
    /// # Errors
    /// As [`ValueState::get`] and [`StateStore::put`];
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the value cannot be encoded.
    pub fn put(&self, store: &mut StateStore, value: &T) -> Result<()> {
        self.typed.put(store, |out| self.scope.push(out), value)
    }

    /// Removes the value of the current key, if there is one.
    ///
    /// # Errors
    /// As [`ValueState::put`].
    pub fn clear(&self, store: &mut StateStore) -> Result<()> {
        self.typed.remove(store, |out| self.scope.push(out))
    }
}

impl<T: 'static, N: KeyCodec<Owned = N> + PartialEq> ValueState<T, Namespaced<N>> {
    /// Folds the values of the namespaces `from` into that of `into`, one after the other, and
    /// removes them. Namespaces without a value change nothing; `into` may be among `from`.
    ///
    /// # Errors
    /// As [`ValueState::put`].
    pub fn merge<'n>(
        &self,
        store: &mut StateStore,
        into: &N,
        from: impl IntoIterator<Item = &'n N>,
        fold: impl FnMut(T, T) -> T,
    ) -> Result<()>
    where
        N: 'n,
    {
        self.typed.merge(store, into, from, fold)
    }
}

/// Iterator over the keys and values of a [`ValueState`] within one key group, from both ends.
pub struct ValueEntries<K, T> {
    scan: Scan,
    typed: Arc<Typed<T, Option<MakeDefault<T>>>>,
    now: TtlNow,
    decode: fn(&mut &[u8]) -> Option<K>,
}

impl<K, T> ValueEntries<K, T> {
    fn take_from(&mut self, direction: Direction) -> Option<Result<(K, T)>> {
        loop {
            let (key, bytes) = match self.scan.take_from(direction)? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error)),
            };
            let stored = user_key(&key);
            let read = (self.decode)(&mut &*stored).ok_or_else(|| wrong_key(&self.typed.to_string()));
            let entry = read.and_then(|key| Ok(self.typed.open(&bytes, self.now)?.map(|value| (key, value))));
            if let Some(entry) = entry.map_err(|error| error.within(name_key(None, stored))).transpose() {
                return Some(entry);
            }
        }
    }
}

impl<K, T> Iterator for ValueEntries<K, T> {
    type Item = Result<(K, T)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.take_from(Direction::Forward)
    }
}

impl<K, T> DoubleEndedIterator for ValueEntries<K, T> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.take_from(Direction::Backward)
    }
}

impl<K, T> fmt::Debug for ValueEntries<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValueEntries").field("name", &self.typed.name).finish_non_exhaustive()
    }
}
