//! Reads: one view over values that reads have renewed, the engine's layers and the table.

use crate::error::Result;
use crate::key;
use crate::key_group::KeyGroup;
use crate::store::engine::Found;
use crate::store::first_keys::{Batch, FirstKeys};
use crate::store::heads::Heads;
use crate::store::scan::{Scan, ScanBuilder};
use crate::store::state_options::State;
use crate::store::value::Value;

use super::{StateStore, end_of};

impl StateStore {
    /// The value of `key`, or None.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the store does not own `group`,
    /// and the attempt's failure, if it has failed.
    pub fn get(&self, state: State, group: KeyGroup, key: &[u8]) -> Result<Option<Value<'_>>> {
        self.check(state, group, key)?;
        self.with_key(state, group, key, |encoded| self.read(encoded))
    }

    /// The values of several keys of a state, in their order: one batched read of the table for all
    /// that memory does not answer.
    ///
    /// # Errors
    /// As [`StateStore::get`].
    pub fn multi_get(&self, state: State, keys: &[(KeyGroup, &[u8])]) -> Result<Vec<Option<Value<'_>>>> {
        let mut values = Vec::with_capacity(keys.len());
        let mut missing = Vec::new();
        for (at, (group, key)) in keys.iter().enumerate() {
            self.check(state, *group, key)?;
            // Not the scratch buffer, because the keys are kept until the table is read.
            let mut encoded = Vec::with_capacity(key::PREFIX_LEN + key.len());
            key::encode_into(&mut encoded, *group, state.id, key);
            values.push(None);
            match self.find(&encoded) {
                Found::Settled(value) => values[at] = value,
                // Operands need a view of the table that says what it contains: one by one.
                Found::Operands(_) => values[at] = self.read(&encoded)?,
                Found::Nothing => missing.push((encoded, at)),
            }
        }
        // RocksDB reads ascending keys together.
        missing.sort_unstable();
        let encoded: Vec<_> = missing.iter().map(|(key, _)| key.as_slice()).collect();
        for (value, (key, at)) in self.table.multi_get(&encoded).into_iter().zip(&missing) {
            let value = value?;
            self.engine.offer(key, value.as_deref());
            values[*at] = value.map(Value::pinned);
        }
        Ok(values)
    }

    /// All keys of a state within `group` that start with `prefix`, with their values, ordered by
    /// the bytes of the key. Over several groups, scan them one after the other
    /// ([`KeyGroupRange::groups`](crate::KeyGroupRange::groups)); there is no order across groups.
    ///
    /// # Errors
    /// As [`StateStore::get`]; the iterator yields what fails on the way.
    pub fn scan_prefix(&self, state: State, group: KeyGroup, prefix: &[u8]) -> Result<Scan> {
        self.check(state, group, prefix)?;
        let mut start = Vec::new();
        key::encode_into(&mut start, group, state.id, prefix);
        let end = end_of(&start)?;
        self.scan(&start, &end)
    }

    /// All keys of a state within `group` from `start` up to but without `end` (None: to the last),
    /// ordered as in [`StateStore::scan_prefix`].
    ///
    /// # Errors
    /// As [`StateStore::scan_prefix`].
    pub fn scan_range(
        &self,
        state: State,
        group: KeyGroup,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Result<Scan> {
        self.check(state, group, start)?;
        let mut from = Vec::new();
        key::encode_into(&mut from, group, state.id, start);
        let end = match end {
            Some(end) => {
                let mut to = Vec::new();
                key::encode_into(&mut to, group, state.id, end);
                to
            }
            None => end_of(&key::prefix(group, state.id))?,
        };
        // A range that is the wrong way round is empty.
        let end = end.max(from.clone());
        self.scan(&from, &end)
    }

    /// The first keys of an ordered state within `group`, from `from` up to but without `end`: up
    /// to `limit`, without looking at many more.
    pub(crate) fn first_keys(
        &self,
        state: State,
        group: KeyGroup,
        from: &[u8],
        end: &[u8],
        batch: Batch,
    ) -> Result<FirstKeys> {
        self.check(state, group, from)?;
        let (mut start, mut last) = (Vec::new(), Vec::new());
        key::encode_into(&mut start, group, state.id, from);
        key::encode_into(&mut last, group, state.id, end);
        FirstKeys::take(&mut self.scan(&start, &last)?, batch)
    }

    /// As [`StateStore::first_keys`], for all key groups that have any keys. Costs one search for
    /// each group with keys of any state.
    pub(crate) fn first_keys_of_groups(
        &self,
        state: State,
        from: &[u8],
        end: &[u8],
        batch: Batch,
    ) -> Result<Vec<(KeyGroup, FirstKeys)>> {
        self.alive()?;
        let (mut start, mut last, mut found) = (Vec::new(), Vec::new(), Vec::new());
        key::encode_into(&mut start, self.range.first, state.id, from);
        key::encode_into(&mut last, self.range.last, state.id, end);
        let mut scan = self.scan_by(ScanBuilder::ordered(&start, &last))?;
        let (mut next, mut left) = (self.range.first, batch.bytes);
        for group in self.range.groups() {
            if group < next {
                continue;
            }
            key::encode_into(&mut start, group, state.id, from);
            key::encode_into(&mut last, group, state.id, end);
            // One scan for all groups: opening one costs more than moving it.
            scan.restrict(&start, &last);
            let read = FirstKeys::take(&mut scan, Batch { bytes: left, ..batch })?;
            let ends = read.next.is_none();
            // For groups whose turn comes late it is enough to know roughly where they begin.
            let read = if left == 0 { read.about() } else { read };
            left = left.saturating_sub(read.bytes());
            if ends {
                let Some(behind) = scan.group_behind() else {
                    found.push((group, read));
                    break;
                };
                next = behind;
            }
            found.push((group, read));
        }
        Ok(found)
    }

    /// The cache of the first keys of a state that begin with the byte `prefix`. Code that writes
    /// to the state must update it.
    pub(crate) fn heads(&mut self, state: State, prefix: u8) -> &mut Heads {
        // A quarter of the memory for deltas.
        let limit = usize::try_from(self.shared.budget.limit() / 4).unwrap_or(usize::MAX);
        let range = self.range;
        self.heads.entry((state.id, prefix)).or_insert_with(|| Heads::new(range, &[prefix]).limited(limit))
    }

    fn scan(&self, start: &[u8], end: &[u8]) -> Result<Scan> {
        self.scan_by(ScanBuilder::new(start, end))
    }

    fn scan_by(&self, mut builder: ScanBuilder) -> Result<Scan> {
        if !self.renewals.is_empty() {
            self.renewals.scan(&mut builder);
        }
        self.engine.scan(&mut builder);
        // The table's view is taken after the layers. A delta that is applied in between is in
        // both, and is recognised by its number.
        builder.build(&self.table)
    }

    /// Takes in what reads have left for the cache of records, where no write does.
    #[inline]
    pub(in crate::store) fn settle_offers(&mut self) {
        self.engine.settle();
    }

    /// Bytes of the list at an encoded key.
    pub(in crate::store) fn read_list(&self, encoded: &[u8]) -> Result<u64> {
        Ok(self.read(encoded)?.map_or(0, |list| list.len() as u64))
    }

    #[inline]
    fn read(&self, key: &[u8]) -> Result<Option<Value<'_>>> {
        match self.find(key) {
            Found::Settled(value) => Ok(value),
            Found::Nothing => {
                let value = self.table.get(key)?;
                self.engine.offer(key, value.as_deref());
                Ok(value.map(Value::pinned))
            }
            Found::Operands(mut operands) => {
                let (base, applied) = self.table.get_at(key)?;
                // A layer may have been applied since it was read: its operands are in the base
                // then.
                operands.drop_applied(applied);
                let value = if operands.is_empty() {
                    base.map(Value::pinned)
                } else {
                    operands.fold_into(base.as_deref())
                };
                self.engine.offer(key, value.as_deref());
                Ok(value)
            }
        }
    }

    #[inline]
    fn find(&self, key: &[u8]) -> Found<'_> {
        if !self.renewals.is_empty()
            && let Some(value) = self.renewals.get(key)
        {
            return Found::Settled(Some(Value::owned(value)));
        }
        self.engine.find(key)
    }

    /// Knows nothing of first keys, as after a restore.
    #[cfg(test)]
    pub(crate) fn forget_heads(&mut self) {
        self.heads.clear();
    }
}
