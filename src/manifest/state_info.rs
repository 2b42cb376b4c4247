//! The record of a named state in a checkpoint: enough to refuse a program that would misread it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::ids::StateId;
use crate::shape;

/// A named state, as the program declared it. Strings are the codecs' own ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateInfo {
    pub id: StateId,
    pub name: String,
    /// Code of the state's kind; 0 is raw bytes.
    pub kind: u16,
    /// Id of its merge operator; 0 is none.
    pub merge: u8,
    /// How its keys are encoded; empty until that was declared or a key was stored.
    pub key: String,
    /// How its namespaces are encoded; empty if it has none.
    pub namespace: String,
    /// How the keys of its maps are encoded; empty if it is no map.
    pub map_key: String,
    pub value: ValueInfo,
    pub ttl: Option<TtlInfo>,
}

/// What the values of a state are. How it is stored: `value_info.rs`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
    /// What the bytes of a value of version `schema` consist of; empty if that is not known.
    pub shape: String,
}

/// How long a state's values live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TtlInfo {
    pub millis: u64,
    /// Code of what refreshes a value and of whether an expired one may be returned.
    pub mode: u8,
}

impl StateInfo {
    /// How two subtasks understand the state differently; None if keys and kinds mean the same to both.
    fn clash(&self, other: &Self) -> Option<String> {
        let either = |what: &str, mine: &str, others: &str| {
            (mine != others).then(|| format!("its {what} are of type {mine:?} in one, {others:?} in another"))
        };
        if self.name != other.name {
            return Some(format!("{:?} of another subtask has the same id", self.name));
        }
        if self.kind != other.kind || self.merge != other.merge {
            return Some(format!("it is of kind {} in one, {} in another", self.kind, other.kind));
        }
        let keys = || either("keys", &self.key, &other.key);
        let learned = !self.key.is_empty() && !other.key.is_empty();
        (learned.then(keys).flatten())
            .or_else(|| either("namespaces", &self.namespace, &other.namespace))
            .or_else(|| either("map keys", &self.map_key, &other.map_key))
    }

    /// Takes in what another subtask says of the same state: one may not have written to it yet, or not have
    /// registered the new version of its type.
    pub(crate) fn join(&mut self, other: &Self) -> Result<()> {
        if let Some(clash) = self.clash(other) {
            let message = format!("subtasks do not agree on a state: {clash}");
            return Err(Error::new(ErrorKind::Incompatible, message)
                .object(format!("state {:?}", other.name))
                .advise("register the same states in all subtasks, and use one type of key for each"));
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
                .advise("register it with one codec in all subtasks"));
        }
        if self.value.schema == other.value.schema {
            let (mine, others) = (&self.value.shape, &other.value.shape);
            // One of them may know more of it, or more variants.
            let difference = shape::difference(mine, others);
            if let (Some(difference), Some(_)) = (&difference, shape::difference(others, mine)) {
                let message =
                    format!("subtasks write values of different types: {difference} in another subtask");
                return Err(Error::new(ErrorKind::Incompatible, message)
                    .object(format!("state {:?}", other.name))
                    .advise("register it with one type of values in all subtasks"));
            }
            if difference.is_none() && !others.is_empty() {
                self.value.shape.clone_from(others);
            }
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

/// What all subtasks say of their states, taken together. Made anew only when one of them says something else:
/// with many subtasks and states that is work, and it changes seldom.
#[derive(Debug, Default)]
pub(crate) struct JoinedStates {
    parts: Vec<Arc<[StateInfo]>>,
    /// Ascending by id.
    joined: Arc<[StateInfo]>,
}

impl JoinedStates {
    /// The states of all `parts` together.
    ///
    /// # Errors
    /// `Incompatible` if two subtasks use a state in different ways.
    pub(crate) fn of_all<'a>(
        &mut self,
        parts: impl Iterator<Item = &'a Arc<[StateInfo]>> + Clone,
    ) -> Result<Arc<[StateInfo]>> {
        let same =
            |(part, known): (&Arc<[StateInfo]>, &Arc<[StateInfo]>)| Arc::ptr_eq(part, known) || part == known;
        if parts.clone().count() == self.parts.len() && parts.clone().zip(&self.parts).all(same) {
            return Ok(Arc::clone(&self.joined));
        }
        let mut joined = BTreeMap::<StateId, StateInfo>::new();
        let mut last = None;
        for part in parts.clone() {
            // Subtasks that were opened together share their list until one of them adds to it.
            if last.is_some_and(|last| Arc::ptr_eq(part, last)) {
                continue;
            }
            for state in part.iter() {
                joined.entry(state.id).or_insert_with(|| state.clone()).join(state)?;
            }
            last = Some(part);
        }
        let joined: Vec<_> = joined.into_values().collect();
        if joined[..] != self.joined[..] {
            self.joined = joined.into();
        }
        self.parts = parts.cloned().collect();
        Ok(Arc::clone(&self.joined))
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
    fn what_all_say_is_made_anew_only_when_one_says_something_else() {
        let list = |key: &str| -> Arc<[StateInfo]> { [StateInfo { key: key.into(), ..info() }].into() };
        let mut joined = JoinedStates::default();
        let (first, second) = (list(""), list("u64"));
        let all = joined.of_all([&first, &second].into_iter()).unwrap();
        assert_eq!(all, second);
        // The same, by address or by content.
        for parts in [[&first, &second], [&list(""), &list("u64")]] {
            assert!(Arc::ptr_eq(&joined.of_all(parts.into_iter()).unwrap(), &all));
        }
        // Another part, and still nothing new.
        assert!(Arc::ptr_eq(&joined.of_all([&second, &second].into_iter()).unwrap(), &all));
        let other: Arc<[StateInfo]> = [StateInfo { kind: 2, ..info() }].into();
        assert!(joined.of_all([&first, &other].into_iter()).is_err());
        assert_eq!(joined.of_all([&first].into_iter()).unwrap(), first);
        assert_eq!(joined.of_all([].into_iter()).unwrap().len(), 0);
    }

    #[test]
    fn what_subtasks_cannot_agree_on_names_the_state() {
        let value = ValueInfo { shape: "i64".into(), ..info().value };
        let keyed = StateInfo { key: "u64".into(), value, ..info() };
        for other in [
            StateInfo { name: "views".into(), ..info() },
            StateInfo { kind: 2, ..info() },
            StateInfo { merge: 1, ..info() },
            StateInfo { namespace: "u64".into(), ..info() },
            StateInfo { map_key: "u64".into(), ..info() },
            StateInfo { key: "str".into(), ..info() },
            StateInfo { value: ValueInfo { codec: "raw".into(), ..info().value }, ..info() },
            StateInfo { value: ValueInfo { shape: "u64".into(), ..info().value }, ..info() },
        ] {
            let error = keyed.clone().join(&other).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Incompatible);
            assert!(error.to_string().contains(&format!("{:?}", other.name)), "{error}");
        }
        let error = keyed.clone().join(&StateInfo { key: "str".into(), ..info() }).unwrap_err();
        assert!(error.to_string().contains("\"u64\"") && error.to_string().contains("\"str\""), "{error}");
    }
}
