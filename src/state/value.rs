//! [`ValueState`]: one value per key.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::delta::TableKind;
use crate::error::Result;
use crate::key_group::KeyGroup;
use crate::store::{Scan, State, StateKind, StateOptions, StateStore};

use super::codec;

/// One value of type `T` per key, encoded by `serde` (postcard). A handle: declared once, registered
/// with each store that uses it.
///
/// ```
/// use alluvium::{Job, JobOptions, OpenMode, ValueState};
///
/// # fn main() -> alluvium::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let mut opened = Job::open("memory:///", JobOptions::new(dir.path(), OpenMode::Create))?;
/// let store = &mut opened.stores[0];
/// let clicks = store.value_state(ValueState::<u64>::descriptor("clicks"))?;
/// let count = clicks.get(store, b"page/1")?.unwrap_or(0);
/// clicks.put(store, b"page/1", &(count + 1))?;
/// assert_eq!(clicks.get(store, b"page/1")?, Some(1));
/// # Ok(())
/// # }
/// ```
pub struct ValueState<T> {
    name: String,
    state: State,
    _type: PhantomData<fn() -> T>,
}

/// Declares a [`ValueState`].
#[derive(Debug, Clone)]
pub struct ValueDescriptor<T> {
    options: StateOptions,
    _type: PhantomData<fn() -> T>,
}

impl<T> ValueState<T> {
    /// Declares a state called `name`.
    pub fn descriptor(name: impl Into<String>) -> ValueDescriptor<T> {
        let options = StateOptions { kind: StateKind::Value, ..StateOptions::new(name) };
        ValueDescriptor { options, _type: PhantomData }
    }
}

impl<T> ValueDescriptor<T> {
    /// How changes are kept until they are applied. Default [`TableKind::Hash`].
    #[must_use]
    pub fn table(mut self, table: TableKind) -> Self {
        self.options = self.options.table(table);
        self
    }

    /// The version of the value's type. A checkpoint written with another one is refused. Default 0.
    #[must_use]
    pub fn schema(mut self, version: u32) -> Self {
        self.options.schema = version;
        self
    }
}

impl StateStore {
    /// Registers a typed value state, or finds it again.
    ///
    /// # Errors
    /// As [`StateStore::state`].
    pub fn value_state<T>(&mut self, descriptor: ValueDescriptor<T>) -> Result<ValueState<T>> {
        let state = self.state(&descriptor.options)?;
        Ok(ValueState { name: descriptor.options.name, state, _type: PhantomData })
    }
}

impl<T: Serialize + DeserializeOwned> ValueState<T> {
    /// The value of `key`, whose group is [`StateStore::group_of`].
    ///
    /// # Errors
    /// As [`StateStore::get`]; [`Corrupt`](crate::ErrorKind::Corrupt) if the bytes are not a `T`.
    pub fn get(&self, store: &StateStore, key: &[u8]) -> Result<Option<T>> {
        let value = store.get(self.state, store.group_of(key), key)?;
        value.map(|bytes| codec::decode(&bytes, &self.name)).transpose()
    }

    /// Sets the value of `key`.
    ///
    /// # Errors
    /// As [`StateStore::put`]; [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the value
    /// cannot be encoded.
    pub fn put(&self, store: &mut StateStore, key: &[u8], value: &T) -> Result<()> {
        let bytes = codec::encode(value, Vec::new(), &self.name)?;
        store.put(self.state, store.group_of(key), key, &bytes)
    }

    /// Removes the value of `key`.
    ///
    /// # Errors
    /// As [`StateStore::delete`].
    pub fn clear(&self, store: &mut StateStore, key: &[u8]) -> Result<()> {
        store.delete(self.state, store.group_of(key), key)
    }

    /// All keys of a group with their values, ordered by the bytes of the key. A snapshot, as
    /// [`Scan`] says.
    ///
    /// # Errors
    /// As [`StateStore::scan_prefix`].
    pub fn entries(&self, store: &StateStore, group: KeyGroup) -> Result<ValueEntries<T>> {
        let scan = store.scan_prefix(self.state, group, &[])?;
        Ok(ValueEntries { scan, name: self.name.clone(), _type: PhantomData })
    }
}

/// Iterator over the keys and values of a [`ValueState`] within one key group.
pub struct ValueEntries<T> {
    scan: Scan,
    name: String,
    _type: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Iterator for ValueEntries<T> {
    type Item = Result<(Vec<u8>, T)>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.scan.next()?;
        Some(entry.and_then(|(key, bytes)| Ok((key, codec::decode(&bytes, &self.name)?))))
    }
}

impl<T> fmt::Debug for ValueState<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValueState").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for ValueEntries<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValueEntries").field("name", &self.name).finish_non_exhaustive()
    }
}
