//! The current key, under which typed state is read and written.

use std::cell::{Cell, RefCell};

use crate::error::{Error, Result};
use crate::key;
use crate::key_group::KeyGroup;
use crate::state_map::StateMap;

use super::compatibility::wrong_keys;
use super::state_options::State;
use super::state_store::StateStore;

/// A type of key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyType {
    /// Identifies the type. Compared where comparing names would be slow.
    pub(crate) code: u64,
    /// The recorded name.
    pub(crate) name: fn() -> String,
}

impl KeyType {
    /// Compares the type with the recorded one, `known`, which is empty until the first key is
    /// stored.
    pub(crate) fn check(self, known: &str) -> Result<()> {
        let name = (self.name)();
        if known.is_empty() || known == name {
            return Ok(());
        }
        Err(wrong_keys(known, &name))
    }
}

/// The current key and the buffers that typed operations encode into, so that none allocates.
#[derive(Default)]
pub(super) struct CurrentKey {
    key: Option<(KeyGroup, KeyType)>,
    /// How many bytes of `buffer` are the key; behind it each operation writes namespace and map
    /// key.
    len: usize,
    buffer: Cell<Vec<u8>>,
    value: Cell<Vec<u8>>,
    /// By state, the code of the type that its keys are known to be of: looked at in each
    /// operation.
    checked: RefCell<StateMap<u64>>,
}

impl StateStore {
    /// Makes a key the current one. `plain` writes the bytes that decide its group, `part` those
    /// that stand in stored keys.
    pub(crate) fn set_current(
        &mut self,
        key_type: KeyType,
        plain: impl FnOnce(&mut Vec<u8>),
        part: impl FnOnce(&mut Vec<u8>),
    ) -> Result<()> {
        // If anything below fails, no operation may use the previous key.
        self.current.key = None;
        self.write_renewals()?;
        self.settle_offers();
        let mut buffer = self.current.buffer.take();
        buffer.clear();
        plain(&mut buffer);
        // The plain form decides the group, and its length is what the user sees in an error.
        let (group, length) = (self.group_of(&buffer), key::user_len(&buffer));
        buffer.clear();
        part(&mut buffer);
        self.current.len = buffer.len();
        let owned = check_len(length).and_then(|()| self.check_group(group));
        self.current.buffer.set(buffer);
        owned?;
        self.current.key = Some((group, key_type));
        Ok(())
    }

    /// The current key's group and type, if there is one.
    pub(crate) fn current(&self) -> Option<(KeyGroup, KeyType)> {
        self.current.key
    }

    /// Calls `f` with the current key's part form.
    pub(crate) fn with_current_part<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        let buffer = self.current.buffer.take();
        let result = f(&buffer);
        self.current.buffer.set(buffer);
        result
    }

    /// Calls `f` with the current key's group and, as a key of `state`, the current key with what
    /// `tail` puts behind it.
    pub(crate) fn at_key<'s, R>(
        &'s self,
        state: State,
        tail: impl FnOnce(&mut Vec<u8>),
        f: impl FnOnce(&'s Self, KeyGroup, &[u8]) -> Result<R>,
    ) -> Result<R> {
        let (group, key_type) = self.current_for(state)?;
        self.is_key_of(state, key_type)?;
        let mut key = self.take_key(tail)?;
        let result = f(self, group, &key);
        key.truncate(self.current.len);
        self.current.buffer.set(key);
        result
    }

    /// As [`StateStore::at_key`], for a write that stores something. A state whose keys have no
    /// type yet learns it from the first one that succeeds.
    pub(crate) fn store_at_key<R>(
        &mut self,
        state: State,
        tail: impl FnOnce(&mut Vec<u8>),
        f: impl FnOnce(&mut Self, KeyGroup, &[u8]) -> Result<R>,
    ) -> Result<R> {
        let (group, key_type) = self.current_for(state)?;
        let known = self.is_key_of(state, key_type)?;
        let result = self.write_at_key(group, tail, f);
        // A write that was refused must not fix the type of the keys.
        if !known && result.is_ok() {
            self.registry.set_key(state.id, (key_type.name)());
        }
        result
    }

    /// As [`StateStore::at_key`], for a write that only removes. Such a write does not determine
    /// the type of the state's keys.
    pub(crate) fn remove_at_key<R>(
        &mut self,
        state: State,
        tail: impl FnOnce(&mut Vec<u8>),
        f: impl FnOnce(&mut Self, KeyGroup, &[u8]) -> Result<R>,
    ) -> Result<R> {
        let (group, key_type) = self.current_for(state)?;
        self.is_key_of(state, key_type)?;
        self.write_at_key(group, tail, f)
    }

    fn write_at_key<R>(
        &mut self,
        group: KeyGroup,
        tail: impl FnOnce(&mut Vec<u8>),
        f: impl FnOnce(&mut Self, KeyGroup, &[u8]) -> Result<R>,
    ) -> Result<R> {
        let mut key = self.take_key(tail)?;
        let result = f(self, group, &key);
        key.truncate(self.current.len);
        self.current.buffer.set(key);
        result
    }

    /// A stored key of `state`, as errors name it.
    pub(crate) fn name_key_in(&self, state: State, group: KeyGroup, key: &[u8]) -> String {
        format!("key group {group}, {}", self.registry.name_key(state.id, key))
    }

    /// A buffer for values, empty; to be given back.
    pub(crate) fn take_buffer(&self) -> Vec<u8> {
        let mut buffer = self.current.value.take();
        buffer.clear();
        buffer
    }

    pub(crate) fn give_buffer(&self, buffer: Vec<u8>) {
        self.current.value.set(buffer);
    }

    /// Whether the keys of `state` are of `key_type`: false if none is stored yet, an error if they
    /// are of another type.
    pub(crate) fn is_key_of(&self, state: State, key_type: KeyType) -> Result<bool> {
        // One look-up by id in the usual case; names are compared once for each state.
        if self.current.checked.borrow().get(state.id) == Some(key_type.code) {
            return Ok(true);
        }
        let known = self.registry.key_type_of(state.id);
        if known.is_empty() {
            return Ok(false);
        }
        key_type.check(known).map_err(|error| error.object(self.registry.name_of(state.id)))?;
        self.current.checked.borrow_mut().insert(state.id, key_type.code);
        Ok(true)
    }

    fn current_for(&self, state: State) -> Result<(KeyGroup, KeyType)> {
        self.current.key.ok_or_else(|| {
            Error::invalid("there is no current key")
                .object(self.registry.name_of(state.id))
                .advise("call `StateStore::set_key` before typed state is used")
        })
    }

    fn take_key(&self, tail: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u8>> {
        let mut key = self.current.buffer.take();
        // It is not there if a key's encoder panicked, and the panic was caught.
        if key.len() != self.current.len {
            return Err(Error::invalid("the current key was lost").advise("call `StateStore::set_key` again"));
        }
        tail(&mut key);
        let length = key.get(self.current.len..).map_or(0, key::user_len);
        if let Err(error) = check_len(length) {
            key.truncate(self.current.len);
            self.current.buffer.set(key);
            return Err(error.more_advice("those of namespace and map key count together"));
        }
        Ok(key)
    }
}

fn check_len(length: usize) -> Result<()> {
    if length > key::MAX_USER_KEY_LEN {
        return Err(key::too_long(length, key::MAX_USER_KEY_LEN));
    }
    Ok(())
}
