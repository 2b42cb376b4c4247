//! What the states must hold, as plain maps.

use std::collections::BTreeMap;

/// How long typed values live after their last access, in milliseconds.
pub(super) const TTL: u64 = 30;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) state: usize,
    pub(super) group: u16,
    pub(super) user: Vec<u8>,
}

/// Something with the time of its last access.
type Aged<T> = (T, u64);

#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) raw: BTreeMap<Key, Vec<u8>>,
    /// By key. Reads of values and of entries of maps are accesses.
    pub(super) values: BTreeMap<u64, Aged<u64>>,
    pub(super) lists: BTreeMap<u64, Vec<Aged<u64>>>,
    pub(super) entries: BTreeMap<(u64, u16), Aged<Vec<u8>>>,
}

/// Reads what is younger than its TTL, and makes it young again.
fn read<T: Clone>(aged: Option<&mut Aged<T>>, now: u64) -> Option<T> {
    let (value, time) = aged.filter(|(_, time)| *time + TTL > now)?;
    *time = now;
    Some(value.clone())
}

impl Model {
    pub(super) fn get(&self, key: &Key) -> Option<&[u8]> {
        self.raw.get(key).map(Vec::as_slice)
    }

    pub(super) fn delete_prefix(&mut self, prefix: &Key) {
        self.raw.retain(|key, _| !is_within(key, prefix));
    }

    /// Keys and values, as a scan shows them.
    pub(super) fn with_prefix(&self, prefix: &Key) -> Vec<(Vec<u8>, Vec<u8>)> {
        let within = self.raw.iter().filter(|(key, _)| is_within(key, prefix));
        within.map(|(key, value)| (key.user.clone(), value.clone())).collect()
    }

    pub(super) fn read_value(&mut self, key: u64, now: u64) -> Option<u64> {
        read(self.values.get_mut(&key), now)
    }

    pub(super) fn read_entry(&mut self, key: (u64, u16), now: u64) -> Option<Vec<u8>> {
        read(self.entries.get_mut(&key), now)
    }

    pub(super) fn read_list(&self, key: u64, now: u64) -> Vec<u64> {
        let elements = self.lists.get(&key).into_iter().flatten();
        elements.filter(|(_, time)| *time + TTL > now).map(|(element, _)| *element).collect()
    }
}

fn is_within(key: &Key, prefix: &Key) -> bool {
    (key.state, key.group) == (prefix.state, prefix.group) && key.user.starts_with(&prefix.user)
}
