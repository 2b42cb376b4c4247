//! [`BroadcastState`]: a map that every subtask of an operator has in full.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::manifest::Spread;
use crate::store::{StateKind, StateOptions, StateStore};

use super::codec::{Codec, Postcard};
use super::descriptor::{self, Kind, StateDescriptor};
use super::key_codec::KeyCodec;
use super::typed::Typed;

/// A map from `K` to `V` that every subtask of the operator has in full and changes in the same way:
/// rules that are sent to all of them, for example (Flink's broadcast state). A checkpoint has it
/// once. At a restore every subtask gets it, however many there are.
///
/// All subtasks must have the same entries at a barrier. A checkpoint whose subtasks differ is an
/// error that ends the attempt, because it would restore to a state that not all of them had. Those
/// that have [finished](StateStore::finish) are not compared.
///
/// It is held in memory, see [`OperatorListState`](crate::OperatorListState) for how much.
///
/// ```
/// use alluvium::{BroadcastState, Job, JobOptions, OpenMode};
///
/// # fn main() -> alluvium::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let mut opened = Job::open("memory:///", JobOptions::new(dir.path(), OpenMode::Create).subtasks(2))?;
/// for store in &mut opened.stores {
///     let rules = store.register(BroadcastState::<String, u32>::descriptor("rules"))?;
///     rules.put(store, "most a minute", &100)?;
///     assert_eq!(rules.get(store, "most a minute")?, Some(100));
/// }
/// # Ok(())
/// # }
/// ```
pub struct BroadcastState<K, V> {
    typed: Arc<Typed<V, ()>>,
    _key: PhantomData<fn() -> K>,
}

impl<K: KeyCodec<Owned = K> + 'static, V: Serialize + DeserializeOwned + 'static> BroadcastState<K, V> {
    /// Declares a state called `name`.
    pub fn descriptor(name: impl Into<String>) -> StateDescriptor<Self> {
        Self::descriptor_with(name, Postcard)
    }
}

impl<K: KeyCodec<Owned = K> + 'static, V: 'static> BroadcastState<K, V> {
    /// Declares a state whose values are not for `serde`.
    pub fn descriptor_with(name: impl Into<String>, codec: impl Codec<V> + 'static) -> StateDescriptor<Self> {
        StateDescriptor::new(name.into(), codec, ())
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if the value is not a `V`; the attempt's failure.
    pub fn get<Q: KeyCodec<Owned = K> + ?Sized>(&self, store: &StateStore, key: &Q) -> Result<Option<V>> {
        store.alive()?;
        let mut bytes = Vec::new();
        key.encode_part(&mut bytes);
        let item = store.elements().find(self.typed.state.id, &bytes);
        let value = item.and_then(|item| item.get(bytes.len()..));
        value.map(|value| self.typed.value_of(value)).transpose()
    }

    /// All entries, ascending by key.
    ///
    /// # Errors
    /// As [`BroadcastState::get`].
    pub fn entries(&self, store: &StateStore) -> Result<Vec<(K, V)>> {
        store.alive()?;
        let items = store.elements().items(self.typed.state.id);
        items.iter().map(|item| Self::decode(&self.typed, item)).collect()
    }

    /// Sets the value of `key`.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the value cannot be encoded, or if
    /// the state would take too much; nothing has changed then. The attempt's failure.
    pub fn put<Q: KeyCodec<Owned = K> + ?Sized>(
        &self,
        store: &mut StateStore,
        key: &Q,
        value: &V,
    ) -> Result<()> {
        store.alive()?;
        let mut bytes = Vec::new();
        key.encode_part(&mut bytes);
        let key_len = bytes.len();
        self.typed.plain_head().push(&mut bytes);
        self.typed.encode(value, &mut bytes)?;
        store.elements_mut().put(self.typed.state.id, Spread::Copy, key_len, bytes.into())
    }

    /// Removes the entry of `key`, if there is one.
    ///
    /// # Errors
    /// The attempt's failure.
    pub fn remove<Q: KeyCodec<Owned = K> + ?Sized>(&self, store: &mut StateStore, key: &Q) -> Result<()> {
        store.alive()?;
        let mut bytes = Vec::new();
        key.encode_part(&mut bytes);
        store.elements_mut().remove(self.typed.state.id, &bytes)
    }

    pub(crate) fn decode(typed: &Typed<V, ()>, item: &[u8]) -> Result<(K, V)> {
        let mut rest = item;
        let key = K::decode_part(&mut rest)
            .ok_or_else(|| Error::corrupt("a stored key is not of the state's type of key").object(typed))?;
        Ok((key, typed.value_of(rest)?))
    }
}

impl<K: KeyCodec<Owned = K> + 'static, V: 'static> Kind for BroadcastState<K, V> {
    type Value = V;
    type Extra = ();
    type Space = ();

    fn options() -> StateOptions {
        descriptor::options(StateKind::Broadcast, String::new(), K::name())
    }

    fn build(typed: Arc<Typed<V, ()>>) -> Self {
        Self { typed, _key: PhantomData }
    }
}

impl<K, V> Clone for BroadcastState<K, V> {
    fn clone(&self) -> Self {
        Self { typed: Arc::clone(&self.typed), _key: PhantomData }
    }
}

impl<K, V> fmt::Debug for BroadcastState<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BroadcastState").field("name", &self.typed.name).finish_non_exhaustive()
    }
}
