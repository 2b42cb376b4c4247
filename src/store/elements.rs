//! State that is not keyed, as a store holds it: a few elements in memory, which travel whole in each
//! receipt and manifest.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::ids::StateId;
use crate::manifest::{Elements, Spread};
use crate::restore::Dealt;

/// Most bytes of all elements of a store. All of them lie in the manifest, which every restore and
/// many commands read as a whole.
const MOST: u64 = 1 << 20;
/// What an element costs beside its bytes.
const OVERHEAD: u64 = 8;

/// The elements of a store.
#[derive(Debug, Default)]
pub(crate) struct HeldElements {
    states: BTreeMap<StateId, Held>,
    /// What all subtasks of the operator had at the checkpoint that was restored.
    restored: Arc<[Elements]>,
    bytes: u64,
    /// As receipts carry them. None if something has changed since.
    list: Option<Arc<[Elements]>>,
}

#[derive(Debug)]
struct Held {
    spread: Spread,
    items: Vec<Bytes>,
}

impl HeldElements {
    /// Without the states in `dropped`.
    pub(crate) fn new(dealt: &Dealt, dropped: &[StateId]) -> Self {
        let stays = |elements: &&Elements| !dropped.contains(&elements.state);
        let own = dealt.own.iter().filter(stays);
        let states = own.map(|elements| {
            let Elements { state, spread, items } = elements.clone();
            (state, Held { spread, items })
        });
        let states: BTreeMap<_, _> = states.collect();
        let bytes = states.values().map(|held| size(&held.items)).sum();
        let restored = dealt.all.iter().filter(stays).cloned().collect();
        Self { states, restored, bytes, list: None }
    }

    /// What the store adds to a checkpoint, which has state that all of the operator's subtasks have
    /// in full only once: each of these `subtasks` stands for its part of that.
    pub(crate) fn share_of_checkpoint(&self, subtasks: u32) -> u64 {
        let share = |held: &Held| match held.spread {
            Spread::Deal => size(&held.items),
            Spread::Copy => size(&held.items).div_ceil(u64::from(subtasks.max(1))),
        };
        self.states.values().map(share).sum()
    }

    /// The elements of a state and their bytes.
    pub(crate) fn usage(&self, state: StateId) -> Option<(u64, u64)> {
        self.states.get(&state).map(|held| (held.items.len() as u64, size(&held.items)))
    }

    pub(crate) fn items(&self, state: StateId) -> &[Bytes] {
        self.states.get(&state).map_or(&[], |held| &held.items)
    }

    /// What all subtasks had at the checkpoint that was restored.
    pub(crate) fn restored(&self, state: StateId) -> &[Bytes] {
        self.restored.iter().find(|elements| elements.state == state).map_or(&[], |elements| &elements.items)
    }

    /// # Errors
    /// `InvalidArgument` if that would be too much; nothing has changed then. So for all that follow.
    pub(crate) fn set(&mut self, state: StateId, spread: Spread, items: Vec<Bytes>) -> Result<()> {
        let old = self.states.get(&state).map_or(0, |held| size(&held.items));
        self.account(old, size(&items))?;
        if items.is_empty() {
            self.states.remove(&state);
        } else {
            self.states.insert(state, Held { spread, items });
        }
        Ok(())
    }

    pub(crate) fn push(&mut self, state: StateId, spread: Spread, item: Bytes) -> Result<()> {
        self.account(0, size(std::slice::from_ref(&item)))?;
        self.states.entry(state).or_insert(Held { spread, items: Vec::new() }).items.push(item);
        Ok(())
    }

    /// Puts an item that begins with a key of `key_len` bytes in the place of the one with that key.
    pub(crate) fn put(&mut self, state: StateId, spread: Spread, key_len: usize, item: Bytes) -> Result<()> {
        let key = item.get(..key_len).unwrap_or(&item);
        let (at, old) = match self.find_at(state, key) {
            Ok((at, old)) => (at, Some(size(std::slice::from_ref(old)))),
            Err(at) => (at, None),
        };
        self.account(old.unwrap_or(0), size(std::slice::from_ref(&item)))?;
        let items = &mut self.states.entry(state).or_insert(Held { spread, items: Vec::new() }).items;
        match old.and_then(|_| items.get_mut(at)) {
            Some(slot) => *slot = item,
            None => items.insert(at, item),
        }
        Ok(())
    }

    pub(crate) fn remove(&mut self, state: StateId, key: &[u8]) -> Result<()> {
        let Ok((at, old)) = self.find_at(state, key) else { return Ok(()) };
        let old = size(std::slice::from_ref(old));
        self.account(old, 0)?;
        if let Some(held) = self.states.get_mut(&state) {
            held.items.remove(at);
            if held.items.is_empty() {
                self.states.remove(&state);
            }
        }
        Ok(())
    }

    /// The item that begins with `key`. No key is the beginning of another.
    pub(crate) fn find(&self, state: StateId, key: &[u8]) -> Option<&Bytes> {
        self.find_at(state, key).ok().map(|(_, item)| item)
    }

    /// Where the item that begins with `key` is, or would be: items ascend.
    fn find_at(&self, state: StateId, key: &[u8]) -> Result<(usize, &Bytes), usize> {
        let items = self.items(state);
        let at = items.partition_point(|item| &**item < key);
        items.get(at).filter(|item| item.starts_with(key)).map(|item| (at, item)).ok_or(at)
    }

    fn account(&mut self, old: u64, new: u64) -> Result<()> {
        let bytes = self.bytes.saturating_sub(old).saturating_add(new);
        if new > old && bytes > MOST {
            return Err(Error::invalid(format!(
                "state that is not keyed would take {bytes} bytes of a subtask"
            ))
            .advise(format!("all of it may take {MOST} bytes, because each checkpoint has it whole; keep more in keyed state")));
        }
        self.bytes = bytes;
        self.list = None;
        Ok(())
    }

    /// As receipts carry them, ascending by state. Made anew only after a change.
    pub(crate) fn list(&mut self) -> Arc<[Elements]> {
        let states = &self.states;
        let all = || {
            let elements = |(state, held): (&StateId, &Held)| {
                let (spread, items) = (held.spread, held.items.clone());
                Elements { state: *state, spread, items }
            };
            states.iter().map(elements).collect()
        };
        Arc::clone(self.list.get_or_insert_with(all))
    }
}

fn size(items: &[Bytes]) -> u64 {
    items.iter().map(|item| item.len() as u64 + OVERHEAD).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: StateId = StateId(7);
    const OFFSETS: StateId = StateId(9);

    fn item(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn items_with_keys_replace_each_other_and_ascend() {
        let mut held = HeldElements::default();
        for (key, text) in [("b", "b1"), ("a", "a1"), ("c", "c1"), ("b", "b2")] {
            held.put(RULES, Spread::Copy, key.len(), item(text)).unwrap();
        }
        assert_eq!(held.items(RULES), ["a1", "b2", "c1"].map(item));
        assert_eq!((held.find(RULES, b"b"), held.find(RULES, b"bb")), (Some(&item("b2")), None));
        assert_eq!(held.bytes, 30);
        held.remove(RULES, b"a").unwrap();
        held.remove(RULES, b"x").unwrap();
        assert_eq!((held.items(RULES).len(), held.bytes), (2, 20));
        held.remove(RULES, b"b").unwrap();
        held.remove(RULES, b"c").unwrap();
        assert!(held.list().is_empty(), "a state without elements is left out");
    }

    #[test]
    fn the_list_is_made_anew_only_after_a_change() {
        let mut held = HeldElements::default();
        held.push(OFFSETS, Spread::Deal, item("0:17")).unwrap();
        held.put(RULES, Spread::Copy, 1, item("a1")).unwrap();
        let list = held.list();
        assert_eq!(list.iter().map(|elements| elements.state).collect::<Vec<_>>(), [RULES, OFFSETS]);
        assert!(Arc::ptr_eq(&list, &held.list()));
        held.set(OFFSETS, Spread::Deal, vec![item("0:18")]).unwrap();
        assert_eq!(held.list()[1].items, [item("0:18")]);
    }

    #[test]
    fn more_than_fits_a_manifest_is_refused_and_changes_nothing() {
        let mut held = HeldElements::default();
        let large = Bytes::from(vec![0; (MOST - 2 * OVERHEAD) as usize]);
        held.push(OFFSETS, Spread::Deal, large).unwrap();
        held.push(OFFSETS, Spread::Deal, Bytes::new()).unwrap();
        for refused in [
            held.push(OFFSETS, Spread::Deal, Bytes::new()),
            held.put(RULES, Spread::Copy, 1, item("a1")),
            held.set(RULES, Spread::Copy, vec![item("a")]),
        ] {
            assert!(refused.unwrap_err().to_string().contains("1048576 bytes"));
        }
        assert_eq!((held.bytes, held.items(OFFSETS).len(), held.items(RULES).len()), (MOST, 2, 0));
        held.set(OFFSETS, Spread::Deal, Vec::new()).unwrap();
        assert_eq!(held.bytes, 0);
    }

    #[test]
    fn what_every_subtask_has_counts_once_in_all_of_them() {
        let mut held = HeldElements::default();
        held.push(OFFSETS, Spread::Deal, item("0:17")).unwrap();
        held.put(RULES, Spread::Copy, 1, item("a1")).unwrap();
        assert_eq!((held.bytes, held.share_of_checkpoint(1)), (22, 22));
        assert_eq!([4, 20].map(|subtasks| held.share_of_checkpoint(subtasks)), [12 + 3, 12 + 1]);
    }

    #[test]
    fn a_restored_state_is_there_unless_it_was_dropped() {
        let own: Arc<[_]> = [
            Elements { state: RULES, spread: Spread::Copy, items: vec![item("a1")] },
            Elements { state: OFFSETS, spread: Spread::Deal, items: vec![item("0:17")] },
        ]
        .into();
        let dealt = Dealt { own: Arc::clone(&own), all: Arc::clone(&own) };
        let mut held = HeldElements::new(&dealt, &[RULES]);
        assert_eq!((held.items(RULES).len(), held.restored(RULES).len()), (0, 0));
        assert_eq!((held.items(OFFSETS), held.restored(OFFSETS)), (&own[1].items[..], &own[1].items[..]));
        assert_eq!((held.bytes, &held.list()[..]), (12, &own[1..]));
    }
}
