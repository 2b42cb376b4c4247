//! Writes: they go to the engine, after those that reads have left behind.

use crate::delta::MergeOp;
use crate::error::{Error, ErrorKind, Result};
use crate::key;
use crate::key_group::KeyGroup;
use crate::messages::ToStore;
use crate::store::engine::Engine;
use crate::store::state_options::State;

use super::{StateStore, end_of};

/// Longest value in bytes: RocksDB's own limit is 4 GiB, a delta's far below it.
const MAX_VALUE_LEN: usize = 256 << 20;

/// Up to this many keys of a prefix are removed one by one. A tombstone in the memtable costs some
/// 0.3 µs in every later read of the table; a delete costs no more than a put.
const CLEARED_ONE_BY_ONE: usize = 32;

impl StateStore {
    /// Sets the value of `key`.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if the store does not own `group`, or key
    /// (64 KiB; as a typed state stores it, 320 KiB) or value (256 MiB) are too long; the attempt's
    /// failure, if it has failed. Waits at the memory bound, see [`StateStore::try_reserve`].
    pub fn put(&mut self, state: State, group: KeyGroup, key: &[u8], value: &[u8]) -> Result<()> {
        check_value(value)?;
        self.write(state, group, key, |engine, key| engine.put(state.table, key, value))
    }

    /// Removes `key`. Removing an absent key is no error.
    ///
    /// # Errors
    /// As [`StateStore::put`].
    pub fn delete(&mut self, state: State, group: KeyGroup, key: &[u8]) -> Result<()> {
        self.write(state, group, key, |engine, key| engine.delete(state.table, key))
    }

    /// Appends `bytes` to the value of `key`; an absent value counts as empty. Neither reads nor
    /// rewrites the value. The caller frames the elements of a list.
    ///
    /// The value may grow to 1 GiB. An append beyond that is refused where the length is known: for
    /// appends of 64 KiB and more, and for all appends once a read or compaction has met a list of
    /// 16 MiB.
    ///
    /// # Errors
    /// As [`StateStore::put`]; [`InvalidArgument`](ErrorKind::InvalidArgument), naming the key, if
    /// the list would become too long.
    pub fn append(&mut self, state: State, group: KeyGroup, key: &[u8], bytes: &[u8]) -> Result<()> {
        check_value(bytes)?;
        // Before anything is written: an append that would make the list too long changes nothing.
        self.reserve_list(state, group, key, bytes.len())?;
        self.write(state, group, key, |engine, key| {
            engine.merge(state.table, MergeOp::ListAppend, key, bytes)
        })
    }

    /// Removes all keys of a state within `group` that start with `prefix`, without reading them.
    /// States for which this is frequent should be [`Ordered`](crate::TableKind::Ordered).
    ///
    /// # Errors
    /// As [`StateStore::put`].
    pub fn delete_prefix(&mut self, state: State, group: KeyGroup, prefix: &[u8]) -> Result<()> {
        self.write(state, group, prefix, |engine, start| engine.delete_range(start, &end_of(start)?))
    }

    /// As [`StateStore::delete_prefix`], but reads the first keys. If there are few keys, they are
    /// removed one by one, and if there are none, nothing is written. A deleted range costs all
    /// reads of the table a little until it is compacted, so it is meant for many keys.
    pub(crate) fn clear_prefix(&mut self, state: State, group: KeyGroup, prefix: &[u8]) -> Result<()> {
        let mut scan = self.scan_prefix(state, group, prefix)?;
        scan.without_values();
        // Deleted keys that were not compacted yet cost the scan as much as live ones.
        scan.set_patience(CLEARED_ONE_BY_ONE);
        let mut keys = Vec::new();
        for entry in scan.by_ref().take(CLEARED_ONE_BY_ONE + 1) {
            keys.push(entry?.0);
        }
        let is_all = keys.len() <= CLEARED_ONE_BY_ONE && scan.patience() > 0;
        drop(scan);
        if !is_all {
            return self.delete_prefix(state, group, prefix);
        }
        keys.iter().try_for_each(|key| self.delete(state, group, key))
    }

    /// Removes all keys of a state within `group` from `start` up to but without `end` (None: to
    /// the last), without reading them.
    pub(crate) fn delete_range(
        &mut self,
        state: State,
        group: KeyGroup,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Result<()> {
        let mut to = Vec::new();
        key::encode_into(&mut to, group, state.id, end.unwrap_or_default());
        if end.is_none() {
            to = end_of(&to)?;
        }
        self.write(state, group, start, |engine, from| engine.delete_range(from, &to))
    }

    /// Tells in advance whether the next write would have to wait at the memory bound.
    ///
    /// # Errors
    /// [`WouldBlock`](ErrorKind::WouldBlock) if it would; the attempt's failure, if it has failed.
    pub fn try_reserve(&mut self) -> Result<()> {
        self.alive()?;
        self.write_renewals_at_once()?;
        if self.engine.freeze_if_due() {
            return Ok(());
        }
        // Held deltas would wait for a checkpoint, and the caller for their memory.
        self.events.tell(ToStore::Flush);
        Err(Error::new(ErrorKind::WouldBlock, "the memory for deltas is full")
            .object(format!("subtask {}", self.subtask))
            .advise("try again once the object store or the disk has caught up"))
    }

    #[inline]
    fn write(
        &mut self,
        state: State,
        group: KeyGroup,
        key: &[u8],
        f: impl FnOnce(&mut Engine, &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.check(state, group, key)?;
        self.write_renewals()?;
        self.engine.make_room()?;
        let mut encoded = self.scratch.take();
        key::encode_into(&mut encoded, group, state.id, key);
        let result = f(&mut self.engine, &encoded);
        self.scratch.set(encoded);
        result
    }

    /// Ranges deleted in the active delta.
    #[cfg(test)]
    pub(crate) fn active_tombstones(&self) -> usize {
        self.engine.active_tombstones()
    }
}

pub(crate) fn check_value(value: &[u8]) -> Result<()> {
    if value.len() > MAX_VALUE_LEN {
        return Err(Error::invalid(format!("a value of {} bytes is too long", value.len()))
            .advise(format!("values may have up to {MAX_VALUE_LEN} bytes")));
    }
    Ok(())
}
