//! State of an operator that is not keyed: what one subtask has of it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::StateId;

/// What becomes of the elements at a rescale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Spread {
    /// They are dealt to the new subtasks.
    Deal,
    /// Every subtask has all of them. The checkpoint has them once, with the operator's first
    /// subtask.
    Copy,
}

impl Spread {
    /// Its number in a manifest.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Deal => 0,
            Self::Copy => 1,
        }
    }

    pub(super) fn of(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Deal),
            1 => Some(Self::Copy),
            _ => None,
        }
    }
}

/// The elements of one state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Elements {
    pub(crate) state: StateId,
    pub(crate) spread: Spread,
    /// Never empty: a state without elements is left out.
    pub(crate) items: Vec<Bytes>,
}

/// The rules of a subtask's list.
pub(super) fn validate(list: &[Elements]) -> Result<()> {
    let ascends = list.is_sorted_by(|a, b| a.state < b.state);
    let reserved = list.iter().any(|elements| elements.state == StateId::RESERVED);
    if !ascends || reserved || list.iter().any(|elements| elements.items.is_empty()) {
        return Err(Error::corrupt("the states of a subtask that are not keyed are not in order"));
    }
    Ok(())
}
