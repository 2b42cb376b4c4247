//! State of an operator that is not keyed. It lies in the manifest, so nothing is fetched.

use std::sync::Arc;

use bytes::Bytes;

use super::CheckpointReader;
use crate::error::Result;
use crate::ids::StateId;
use crate::restore::gather;
use crate::state::{BroadcastState, KeyCodec, Kind, OperatorListState, StateDescriptor, Typed};
use crate::store::Registry;

/// What decodes the elements of a state, and the elements.
type Unkeyed<T> = (Arc<Typed<T, ()>>, Vec<Bytes>);

impl CheckpointReader {
    /// The elements that all subtasks of the operator have, in the order of the subtasks.
    ///
    /// # Errors
    /// As [`CheckpointReader::state`]; [`Corrupt`](crate::ErrorKind::Corrupt) if an element is not a
    /// `T`.
    pub fn operator_list<T: 'static>(
        &self,
        descriptor: StateDescriptor<OperatorListState<T>>,
    ) -> Result<Vec<T>> {
        let (typed, items) = self.unkeyed(descriptor)?;
        items.iter().map(|item| typed.value_of(item)).collect()
    }

    /// The entries of a broadcast state, ascending by key.
    ///
    /// # Errors
    /// As [`CheckpointReader::operator_list`].
    pub fn broadcast<K: KeyCodec<Owned = K> + 'static, V: 'static>(
        &self,
        descriptor: StateDescriptor<BroadcastState<K, V>>,
    ) -> Result<Vec<(K, V)>> {
        let (typed, items) = self.unkeyed(descriptor)?;
        items.iter().map(|item| BroadcastState::<K, V>::decode(&typed, item)).collect()
    }

    fn unkeyed<S: Kind<Extra = ()>>(&self, descriptor: StateDescriptor<S>) -> Result<Unkeyed<S::Value>> {
        let options = descriptor.options()?;
        let info = self.info(descriptor.name())?;
        let state = Registry::new(std::slice::from_ref(info)).register(&options)?;
        Ok((descriptor.typed(state, options.kind), self.items_of(info.id)?))
    }

    /// What all subtasks have of a state, as it is stored.
    pub(super) fn items_of(&self, state: StateId) -> Result<Vec<Bytes>> {
        let operator = self.selected()?.operator;
        let parts = self.manifest.operators();
        let all = parts.get(operator).map(gather).unwrap_or_default();
        let of = all.iter().find(|elements| elements.state == state);
        Ok(of.map(|elements| elements.items.clone()).unwrap_or_default())
    }
}
