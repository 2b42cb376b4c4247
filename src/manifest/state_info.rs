//! What a checkpoint says of a named state: enough to refuse a program that would misread it.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::StateId;

/// A named state, as the program declared it. Strings are the codecs' own ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateInfo {
    pub id: StateId,
    pub name: String,
    /// Code of the state's kind; 0 is raw bytes.
    pub kind: u16,
    /// Id of its merge operator; 0 is none.
    pub merge: u8,
    /// How its current keys are encoded; empty until one was written.
    pub key: String,
    /// How its namespaces are encoded; empty if it has none.
    pub namespace: String,
    /// How the keys of its maps are encoded; empty if it is no map.
    pub map_key: String,
    pub value: ValueInfo,
    pub ttl: Option<TtlInfo>,
}

/// What the values of a state are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct ValueInfo {
    /// Id of the codec; empty for raw bytes.
    pub codec: String,
    /// The value's type. Compared only if the user named it, because the compiler's names may change.
    pub type_name: String,
    pub type_is_named: bool,
    /// The user's version of the type that values are written with.
    pub schema: u32,
    /// The lowest version that a stored value may still have.
    pub oldest_schema: u32,
}

/// How long a state's values live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TtlInfo {
    pub millis: u64,
    /// Code of what refreshes a value and of whether an expired one may be returned.
    pub mode: u8,
}

impl StateInfo {
    /// Whether it is one state to both, so that keys and kinds mean the same.
    fn agrees_with(&self, other: &Self) -> bool {
        let keys = self.key == other.key || self.key.is_empty() || other.key.is_empty();
        let layouts = self.namespace == other.namespace && self.map_key == other.map_key;
        let kinds = self.kind == other.kind && self.merge == other.merge;
        self.name == other.name && kinds && keys && layouts
    }

    /// Takes in what another subtask says of the same state: one may not have written to it yet, or not have
    /// registered the new version of its type.
    pub(crate) fn join(&mut self, other: &Self) -> Result<()> {
        if !self.agrees_with(other) {
            let message = format!("another subtask uses it, or {:?}, as another kind", self.name);
            return Err(Error::new(ErrorKind::Incompatible, message)
                .object(format!("state {:?}", other.name))
                .advice("register the same states in all subtasks, and use one type of key for each"));
        }
        if self.key.is_empty() {
            self.key.clone_from(&other.key);
        }
        if self.value.schema == other.value.schema && self.value.codec != other.value.codec {
            let message = format!(
                "subtasks write its values by the codecs {:?} and {:?}",
                self.value.codec, other.value.codec
            );
            return Err(Error::new(ErrorKind::Incompatible, message)
                .object(format!("state {:?}", other.name))
                .advice("register it with one codec in all subtasks"));
        }
        let oldest_schema = self.value.oldest_schema.min(other.value.oldest_schema);
        if other.value.schema > self.value.schema {
            self.value = other.value.clone();
        }
        self.value.oldest_schema = oldest_schema;
        self.ttl = self.ttl.or(other.ttl);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> StateInfo {
        let value =
            ValueInfo { codec: "postcard".into(), schema: 1, oldest_schema: 1, ..ValueInfo::default() };
        StateInfo {
            id: StateId::of("clicks"),
            name: "clicks".into(),
            kind: 1,
            merge: 0,
            key: String::new(),
            namespace: String::new(),
            map_key: String::new(),
            value,
            ttl: None,
        }
    }

    #[test]
    fn subtasks_complete_each_other() {
        let ttl = Some(TtlInfo { millis: 5, mode: 0 });
        let newer = ValueInfo { schema: 3, ..info().value };
        let mut joined = info();
        joined.join(&StateInfo { key: "u64".into(), value: newer.clone(), ttl, ..info() }).unwrap();
        joined.join(&info()).unwrap();
        assert_eq!(joined, StateInfo { key: "u64".into(), value: newer, ttl, ..info() });
        assert_eq!((joined.value.schema, joined.value.oldest_schema), (3, 1));
    }

    #[test]
    fn what_subtasks_cannot_agree_on_names_the_state() {
        let keyed = StateInfo { key: "u64".into(), ..info() };
        for other in [
            StateInfo { name: "views".into(), ..info() },
            StateInfo { kind: 2, ..info() },
            StateInfo { merge: 1, ..info() },
            StateInfo { namespace: "u64".into(), ..info() },
            StateInfo { map_key: "u64".into(), ..info() },
            StateInfo { key: "str".into(), ..info() },
            StateInfo { value: ValueInfo { codec: "raw".into(), ..info().value }, ..info() },
        ] {
            let error = keyed.clone().join(&other).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Incompatible);
            assert!(error.to_string().contains(&format!("{:?}", other.name)), "{error}");
        }
    }
}
