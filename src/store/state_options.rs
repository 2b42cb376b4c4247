//! How a program names a state, and the handle that it gets.

use crate::delta::TableKind;
use crate::ids::StateId;
use crate::manifest::{StateInfo, TtlInfo, ValueInfo};

use super::kind::StateKind;

/// How a named state is kept. Made by [`StateOptions::new`].
#[derive(Debug, Clone)]
pub struct StateOptions {
    pub(crate) name: String,
    pub(crate) table: TableKind,
    pub(crate) kind: StateKind,
    /// How the keys are encoded; empty if that is learned from the first key that is stored.
    pub(crate) key: String,
    /// How the namespaces are encoded; empty if there are none.
    pub(crate) namespace: String,
    /// How the keys of maps are encoded; empty if it is no map.
    pub(crate) map_key: String,
    pub(crate) value: ValueInfo,
    /// Whether values of earlier versions of the type can be read.
    pub(crate) migrates: bool,
    pub(crate) ttl: Option<TtlInfo>,
}

impl StateOptions {
    /// A raw state called `name`: bytes to bytes, with append.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            table: TableKind::Hash,
            kind: StateKind::Raw,
            key: String::new(),
            namespace: String::new(),
            map_key: String::new(),
            value: ValueInfo::default(),
            migrates: false,
            ttl: None,
        }
    }

    /// How changes are kept until they are applied: [`TableKind::Ordered`] for states that are
    /// often scanned or deleted by prefix. Default [`TableKind::Hash`].
    #[must_use]
    pub fn table(mut self, table: TableKind) -> Self {
        self.table = table;
        self
    }

    pub(super) fn info(&self, id: StateId) -> StateInfo {
        StateInfo {
            id,
            name: self.name.clone(),
            kind: self.kind as u16,
            merge: self.kind.merge(),
            key: self.key.clone(),
            namespace: self.namespace.clone(),
            map_key: self.map_key.clone(),
            value: ValueInfo { oldest_schema: self.value.schema, ..self.value.clone() },
            ttl: self.ttl,
        }
    }
}

/// Handle of a state of a [`StateStore`](crate::StateStore). Cheap to copy; good for every store of
/// the job that has registered the same name.
#[derive(Debug, Clone, Copy)]
pub struct State {
    pub(crate) id: StateId,
    pub(crate) table: TableKind,
    /// Whether the program makes the keys itself, and not a typed state.
    pub(crate) raw: bool,
}
