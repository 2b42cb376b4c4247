//! What a checkpoint says of a named state.

use serde::{Deserialize, Serialize};

use crate::manifest::StateInfo;

use super::registry::StateKind;

/// A named state as a checkpoint records it: name, kind, and what else its program declared. Serializes
/// to all of that, so that a state can be made anew elsewhere exactly as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StateDescription(pub(super) StateInfo);

impl StateDescription {
    /// The state's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The state's kind: "raw", "value", …
    pub fn kind(&self) -> &'static str {
        StateKind::name_of(self.0.kind)
    }
}

impl From<StateInfo> for StateDescription {
    fn from(info: StateInfo) -> Self {
        Self(info)
    }
}
