//! [`ReducingState`]: one value per key, into which each new one is folded.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::store::{StateKind, StateOptions, StateStore};

use super::codec::{Codec, Postcard};
use super::descriptor::{self, KeyedState, Kind, StateDescriptor};
use super::handle::handle;
use super::key_codec::KeyCodec;
use super::scope::{Namespaced, Scope, Spaces};
use super::single_entry::SingleEntry;
use super::ttl::TtlNow;
use super::typed::Typed;

/// One value of type `T` per key, into which every added one is folded by a function: a sum, a
/// maximum.
///
/// ```
/// use alluvium::{Job, JobOptions, OpenMode, ReducingState};
///
/// # fn main() -> alluvium::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let mut opened = Job::open("memory:///", JobOptions::new(dir.path(), OpenMode::Create))?;
/// let store = &mut opened.stores[0];
/// let longest = store.register(ReducingState::descriptor("longest", |a: u64, b| a.max(b)))?;
/// store.set_key("JFK")?;
/// for minutes in [95, 362, 140] {
///     longest.add(store, minutes)?;
/// }
/// assert_eq!(longest.get(store)?, Some(362));
/// # Ok(())
/// # }
/// ```
pub struct ReducingState<T, S = ()> {
    typed: Arc<Typed<T, Reduce<T>>>,
    scope: S,
}

type Reduce<T> = Arc<dyn Fn(T, T) -> T + Send + Sync>;

handle!(ReducingState<T>);

impl<T: Serialize + DeserializeOwned + 'static> ReducingState<T> {
    /// Declares a state called `name`. `reduce` makes one value of what is there and what is added;
    /// it must be associative if namespaces are merged.
    pub fn descriptor(
        name: impl Into<String>,
        reduce: impl Fn(T, T) -> T + Send + Sync + 'static,
    ) -> StateDescriptor<Self> {
        Self::descriptor_with(name, reduce, Postcard)
    }
}

impl<T: 'static> ReducingState<T> {
    /// Declares a state whose values are not for `serde`.
    pub fn descriptor_with(
        name: impl Into<String>,
        reduce: impl Fn(T, T) -> T + Send + Sync + 'static,
        codec: impl Codec<T> + 'static,
    ) -> StateDescriptor<Self> {
        let reduce: Reduce<T> = Arc::new(reduce);
        StateDescriptor::new(name.into(), codec, reduce)
    }
}

impl<T: 'static, S: Spaces> KeyedState for ReducingState<T, S> {
    type In<N: KeyCodec<Owned = N>> = ReducingState<T, Namespaced<N>>;
}

impl<T: 'static, S: Spaces> Kind for ReducingState<T, S> {
    type Value = T;
    type Extra = Reduce<T>;
    type Space = S;

    fn options() -> StateOptions {
        descriptor::options(StateKind::Reducing, S::format(), String::new())
    }

    fn build(typed: Arc<Typed<T, Self::Extra>>) -> Self {
        Self { typed, scope: S::default() }
    }
}

impl<T: 'static, S: Spaces> SingleEntry for ReducingState<T, S> {
    type Entry = T;
    type Read = Option<T>;

    fn open(typed: &Typed<T, Self::Extra>, stored: &[u8], now: TtlNow) -> Result<Option<T>> {
        typed.open(stored, now)
    }

    fn read(_: &Typed<T, Self::Extra>, entry: Option<T>) -> Option<T> {
        entry
    }
}

impl<T: 'static, S: Scope> ReducingState<T, S> {
    /// What has been folded so far; None if nothing was added.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) without a current key;
    /// [`Incompatible`](crate::ErrorKind::Incompatible) if it is not of the type of the state's
    /// keys; [`Corrupt`](crate::ErrorKind::Corrupt) if the bytes are not a `T`; as
    /// [`StateStore::get`].
    pub fn get(&self, store: &StateStore) -> Result<Option<T>> {
        self.typed.get(store, |out| self.scope.push(out))
    }

    /// Whether anything was added.
    ///
    /// # Errors
    /// As [`ReducingState::get`].
    pub fn contains(&self, store: &StateStore) -> Result<bool> {
        self.typed.contains(store, |out| self.scope.push(out))
    }

    /// Folds `value` into what is there; the first one is kept as it is.
    ///
    /// # Errors
    /// As [`ReducingState::get`] and [`StateStore::put`];
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the result cannot be encoded.
    pub fn add(&self, store: &mut StateStore, value: T) -> Result<()> {
        let reduced = match self.get(store)? {
            Some(there) => (self.typed.extra)(there, value),
            None => value,
        };
        self.typed.put(store, |out| self.scope.push(out), &reduced)
    }

    /// Removes what has been folded, if anything.
    ///
    /// # Errors
    /// As [`ReducingState::add`].
    pub fn clear(&self, store: &mut StateStore) -> Result<()> {
        self.typed.remove(store, |out| self.scope.push(out))
    }
}

impl<T: 'static, N: KeyCodec<Owned = N> + PartialEq> ReducingState<T, Namespaced<N>> {
    /// Folds what the namespaces `from` have into `into`, one after the other, and clears them.
    /// Namespaces with nothing change nothing; `into` may be among `from`.
    ///
    /// # Errors
    /// As [`ReducingState::add`].
    pub fn merge<'n>(
        &self,
        store: &mut StateStore,
        into: &N,
        from: impl IntoIterator<Item = &'n N>,
    ) -> Result<()>
    where
        N: 'n,
    {
        self.typed.merge(store, into, from, |a, b| (self.typed.extra)(a, b))
    }
}
