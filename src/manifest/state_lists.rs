//! The descriptions of the states of a checkpoint, operator by operator.

use std::sync::Arc;

use super::state_info::StateInfo;

/// A list of states for each operator, in the order of the operators. Two operators may each have a
/// state of one name.
#[derive(Debug, Clone, Default)]
pub(crate) struct StateLists(Arc<[Arc<[StateInfo]>]>);

impl StateLists {
    /// Empty lists at the end are left out, so that no states are equal to no states.
    pub(crate) fn new(mut lists: Vec<Arc<[StateInfo]>>) -> Self {
        while lists.last().is_some_and(|list| list.is_empty()) {
            lists.pop();
        }
        Self(lists.into())
    }

    /// The states of the operator at `index`.
    pub(crate) fn of(&self, index: usize) -> Arc<[StateInfo]> {
        self.0.get(index).map(Arc::clone).unwrap_or_default()
    }

    /// As [`of`](Self::of), to be looked at.
    pub(crate) fn get(&self, index: usize) -> &[StateInfo] {
        self.0.get(index).map_or(&[], |list| list)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<[StateInfo]>> {
        self.0.iter()
    }

    /// Whether no operator has a state.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl PartialEq for StateLists {
    fn eq(&self, other: &Self) -> bool {
        // Lists that did not change are shared by the checkpoints of an attempt.
        let same = |(a, b): (&Arc<[StateInfo]>, &Arc<[StateInfo]>)| Arc::ptr_eq(a, b) || a == b;
        self.0.len() == other.0.len() && self.0.iter().zip(other.0.iter()).all(same)
    }
}

impl Eq for StateLists {}

impl From<Arc<[StateInfo]>> for StateLists {
    /// Those of a job's one operator.
    fn from(list: Arc<[StateInfo]>) -> Self {
        Self::new(vec![list])
    }
}
