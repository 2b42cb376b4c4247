//! The description of a named state in a checkpoint.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::ids::StateId;
use crate::manifest::{StateInfo, TtlInfo};

use super::kind::{Layout, StateKind};
use super::registry::check_name;

/// A named state as a checkpoint records it: name, kind, and everything else that its program
/// declared. It serializes completely, so that the state can be created elsewhere exactly as it
/// was.
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

    /// Whether it belongs to keys: neither an [`OperatorListState`](crate::OperatorListState) nor a
    /// [`BroadcastState`](crate::BroadcastState).
    pub fn is_keyed(&self) -> bool {
        StateKind::of(self.0.kind).is_none_or(|kind| kind.layout() != Layout::Unkeyed)
    }

    /// The type of its keys, as [`KeyCodec::name`](crate::state::KeyCodec::name) has it. Empty for
    /// a raw state, and until a key is written.
    pub fn key_type(&self) -> &str {
        &self.0.key
    }

    /// The type of its namespaces; empty if it has none.
    pub fn namespace_type(&self) -> &str {
        &self.0.namespace
    }

    /// The type of the keys of its maps; empty if it is no map.
    pub fn map_key_type(&self) -> &str {
        &self.0.map_key
    }

    /// The type of its values, as the user or else the compiler calls it; empty for raw states and
    /// timers.
    pub fn value_type(&self) -> &str {
        &self.0.value.type_name
    }

    /// Whether the user gave the type of its values its name
    /// ([`StateDescriptor::type_name`](crate::StateDescriptor::type_name)).
    pub fn value_type_is_named(&self) -> bool {
        self.0.value.type_is_named
    }

    /// The id of the codec of its values ([`Codec::id`](crate::state::Codec::id)); empty for raw
    /// states and timers.
    pub fn codec(&self) -> &str {
        &self.0.value.codec
    }

    /// The user's schema version that values are written with. Older ones may still be there.
    pub fn schema(&self) -> u32 {
        self.0.value.schema
    }

    /// The same state under another name, to be registered with
    /// [`StateStore::described_state`](crate::StateStore::described_state) where its entries are
    /// copied.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for an empty name.
    pub fn renamed(&self, name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        check_name(&name)?;
        Ok(Self(StateInfo { id: StateId::of(&name), name, ..self.0.clone() }))
    }

    pub(crate) fn state_kind(&self) -> Option<StateKind> {
        StateKind::of(self.0.kind)
    }

    pub(crate) fn ttl_info(&self) -> Option<TtlInfo> {
        self.0.ttl
    }
}

impl From<StateInfo> for StateDescription {
    fn from(info: StateInfo) -> Self {
        // A renamed state has the id of its first name, which is no one's business but its job's.
        Self(StateInfo { id: StateId::of(&info.name), ..info })
    }
}
