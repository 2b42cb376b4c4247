//! The named states of a store.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::delta::{MergeOp, TableKind};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::StateId;
use crate::manifest::StateInfo;

/// How a named state is kept. Made by [`StateOptions::new`].
#[derive(Debug, Clone)]
pub struct StateOptions {
    pub(crate) name: String,
    pub(crate) table: TableKind,
    pub(crate) kind: StateKind,
    pub(crate) schema: u32,
}

impl StateOptions {
    /// A raw state called `name`: bytes to bytes, with append.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), table: TableKind::Hash, kind: StateKind::Raw, schema: 0 }
    }

    /// How changes are kept until they are applied: [`TableKind::Ordered`] for states that are often
    /// scanned or deleted by prefix. Default [`TableKind::Hash`].
    #[must_use]
    pub fn table(mut self, table: TableKind) -> Self {
        self.table = table;
        self
    }
}

/// What a state's bytes mean. The number is stored with every checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum StateKind {
    Raw = 0,
    Value = 1,
}

impl StateKind {
    pub(crate) fn name_of(code: u16) -> &'static str {
        match code {
            0 => "raw",
            1 => "value",
            _ => "a kind that this build does not know",
        }
    }

    /// Id of the merge operator of the kind; 0 is none.
    fn merge(self) -> u8 {
        match self {
            Self::Raw => MergeOp::ListAppend.id(),
            Self::Value => 0,
        }
    }
}

/// Handle of a state of a [`StateStore`](crate::StateStore). Cheap to copy; good for every store of
/// the job that has registered the same name.
#[derive(Debug, Clone, Copy)]
pub struct State {
    pub(crate) id: StateId,
    pub(crate) table: TableKind,
}

/// The states of one store: what the checkpoint brought along and what the program has registered.
#[derive(Debug)]
pub(crate) struct Registry {
    states: BTreeMap<StateId, StateInfo>,
    /// The list as receipts carry it, made anew only when a state is added.
    list: Arc<[StateInfo]>,
}

impl Registry {
    pub(crate) fn new(restored: &[StateInfo]) -> Self {
        let states = restored.iter().map(|info| (info.id, info.clone())).collect();
        Self { states, list: restored.into() }
    }

    pub(crate) fn list(&self) -> Arc<[StateInfo]> {
        Arc::clone(&self.list)
    }

    pub(crate) fn register(&mut self, options: &StateOptions) -> Result<State> {
        if options.name.is_empty() {
            return Err(Error::invalid("a state's name must not be empty"));
        }
        let id = StateId::of(&options.name);
        if let Some(known) = self.states.get(&id) {
            Self::check(known, options)?;
        } else {
            let info = StateInfo {
                id,
                name: options.name.clone(),
                kind: options.kind as u16,
                merge: options.kind.merge(),
                schema: options.schema,
            };
            self.states.insert(id, info);
            self.list = self.states.values().cloned().collect();
        }
        Ok(State { id, table: options.table })
    }

    /// Registers a state exactly as it was described elsewhere.
    pub(crate) fn adopt(&mut self, info: &StateInfo) -> Result<State> {
        if info.name.is_empty() || info.id != StateId::of(&info.name) {
            let message = format!("{:?} cannot be a state with id {}", info.name, info.id);
            return Err(Error::invalid(message));
        }
        match self.states.get(&info.id) {
            Some(known) if known != info => {
                let message = if known.name == info.name {
                    "the job has it as another kind, or with another schema".to_owned()
                } else {
                    format!("the name has the same id as the state {:?}", known.name)
                };
                return Err(Error::new(ErrorKind::Incompatible, message)
                    .object(format!("state {:?}", info.name))
                    .advice("bring it into a job of its own"));
            }
            Some(_) => {}
            None => {
                self.states.insert(info.id, info.clone());
                self.list = self.states.values().cloned().collect();
            }
        }
        Ok(State { id: info.id, table: TableKind::Hash })
    }

    fn check(known: &StateInfo, options: &StateOptions) -> Result<()> {
        let clash = |message: String, advice: &str| {
            Err(Error::new(ErrorKind::Incompatible, message)
                .object(format!("state {:?}", options.name))
                .advice(advice))
        };
        if known.name != options.name {
            return clash(
                format!("the name has the same id as the state {:?}", known.name),
                "give one of them another name",
            );
        }
        if known.kind != options.kind as u16 {
            return clash(
                format!(
                    "the state is {} and cannot be used as {}",
                    StateKind::name_of(known.kind),
                    StateKind::name_of(options.kind as u16)
                ),
                "register it as the kind it was written as, or under another name",
            );
        }
        if known.schema != options.schema {
            return clash(
                format!("the state was written with schema {}, not {}", known.schema, options.schema),
                "register the schema version that the checkpoint holds",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clash_names_the_state() {
        let mut registry = Registry::new(&[]);
        let options = StateOptions::new("clicks");
        registry.register(&options).unwrap();
        registry.register(&options).unwrap();
        let value = StateOptions { kind: StateKind::Value, ..options };
        let error = registry.register(&value).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        assert!(error.to_string().contains("\"clicks\""), "{error}");
        assert_eq!(registry.list().len(), 1);
    }

    #[test]
    fn names_that_collide_are_refused() {
        let mut registry = Registry::new(&[StateInfo {
            id: StateId::of("clicks"),
            name: "another".into(),
            kind: 0,
            merge: 1,
            schema: 0,
        }]);
        let error = registry.register(&StateOptions::new("clicks")).unwrap_err();
        assert!(error.to_string().contains("\"another\""), "{error}");
    }
}
