//! [`OperatorListState`]: a list that belongs to no key.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::manifest::Spread;
use crate::store::{StateKind, StateOptions, StateStore};

use super::codec::{Codec, Postcard};
use super::descriptor::{self, Kind, StateDescriptor};
use super::typed::Typed;

/// A list of `T` that belongs to no key but to the subtask: the partitions that a source reads, with
/// their offsets, for example. When the operator gets another number of subtasks, the elements of all
/// are dealt to the new ones, in their order and as many to each (Flink's operator list state).
/// [`restored`](Self::restored) gives every subtask the elements of all of them instead (Flink's
/// union list state).
///
/// It is held in memory, and each checkpoint has it whole, in the manifest: all state that is not
/// keyed may take 1 MiB of a subtask, and 16 MiB of all subtasks together, where a broadcast state
/// counts once for its operator. Schemas work as those of keyed state do. There is no TTL.
///
/// ```
/// use alluvium::{Job, JobOptions, OpenMode, OperatorListState};
///
/// # fn main() -> alluvium::Result<()> {
/// # let place = tempfile::tempdir().unwrap();
/// # let (url, dir) = (place.path().join("job").display().to_string(), place.path().join("local"));
/// let options = JobOptions::new(dir, OpenMode::CreateOrOpen);
/// // Partition and offset.
/// let offsets = OperatorListState::<(u32, u64)>::descriptor("offsets");
/// let mut opened = Job::open(&url, options.clone())?;
/// let store = &mut opened.stores[0];
/// let partitions = store.register(offsets.clone())?;
/// partitions.set(store, &[(0, 17), (1, 4), (2, 9)])?;
/// let checkpoint = opened.job.trigger("")?;
/// store.cut(checkpoint.id(), "")?;
/// checkpoint.wait()?;
/// drop(opened);
///
/// let mut opened = Job::open(&url, options.subtasks(2))?;
/// let mut all = Vec::new();
/// for store in &mut opened.stores {
///     let partitions = store.register(offsets.clone())?;
///     all.push(partitions.get(store)?);
/// }
/// assert_eq!(all, [vec![(0, 17), (1, 4)], vec![(2, 9)]]);
/// # Ok(())
/// # }
/// ```
pub struct OperatorListState<T> {
    typed: Arc<Typed<T, ()>>,
}

impl<T: Serialize + DeserializeOwned + 'static> OperatorListState<T> {
    /// Declares a state called `name`.
    pub fn descriptor(name: impl Into<String>) -> StateDescriptor<Self> {
        Self::descriptor_with(name, Postcard)
    }
}

impl<T: 'static> OperatorListState<T> {
    /// Declares a state whose elements are not for `serde`.
    pub fn descriptor_with(name: impl Into<String>, codec: impl Codec<T> + 'static) -> StateDescriptor<Self> {
        StateDescriptor::new(name.into(), codec, ())
    }

    /// The subtask's elements. After a restore: those that it was dealt.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if an element is not a `T`; the attempt's failure.
    pub fn get(&self, store: &StateStore) -> Result<Vec<T>> {
        store.alive()?;
        self.decode(store.elements().items(self.typed.state.id))
    }

    /// The elements that *all* subtasks of the operator had at the checkpoint that was restored, in
    /// the order of the subtasks. Stays as it is while the attempt runs. [`get`](Self::get) has the
    /// subtask's own share of them: one that takes others puts these in their place by
    /// [`set`](Self::set). Empty after a fresh start.
    ///
    /// # Errors
    /// As [`OperatorListState::get`].
    pub fn restored(&self, store: &StateStore) -> Result<Vec<T>> {
        store.alive()?;
        self.decode(store.elements().restored(self.typed.state.id))
    }

    /// Puts these elements in the place of all.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if an element cannot be encoded, or if
    /// they would take too much; nothing has changed then. The attempt's failure.
    pub fn set<'t>(&self, store: &mut StateStore, elements: impl IntoIterator<Item = &'t T>) -> Result<()> {
        store.alive()?;
        let items = elements.into_iter().map(|element| self.encode(element)).collect::<Result<_>>()?;
        store.elements_mut().set(self.typed.state.id, Spread::Deal, items)
    }

    /// Adds an element at the end.
    ///
    /// # Errors
    /// As [`OperatorListState::set`].
    pub fn add(&self, store: &mut StateStore, element: &T) -> Result<()> {
        store.alive()?;
        let item = self.encode(element)?;
        store.elements_mut().push(self.typed.state.id, Spread::Deal, item)
    }

    fn encode(&self, element: &T) -> Result<Bytes> {
        let mut bytes = Vec::new();
        self.typed.plain_head().push(&mut bytes);
        self.typed.encode(element, &mut bytes)?;
        Ok(bytes.into())
    }

    fn decode(&self, items: &[Bytes]) -> Result<Vec<T>> {
        items.iter().map(|item| self.typed.value_of(item)).collect()
    }
}

impl<T: 'static> Kind for OperatorListState<T> {
    type Value = T;
    type Extra = ();
    type Space = ();

    fn options() -> StateOptions {
        descriptor::options(StateKind::OperatorList, String::new(), String::new())
    }

    fn build(typed: Arc<Typed<T, ()>>) -> Self {
        Self { typed }
    }
}

impl<T> Clone for OperatorListState<T> {
    fn clone(&self) -> Self {
        Self { typed: Arc::clone(&self.typed) }
    }
}

impl<T> fmt::Debug for OperatorListState<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorListState").field("name", &self.typed.name).finish_non_exhaustive()
    }
}
