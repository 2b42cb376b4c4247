//! [`StateStore`]: what an operator's thread holds.

use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::channel::oneshot;

use crate::changelog::ReceiptCost;
use crate::delta::{FrozenDelta, Lookup, MergeOp, Pooled, TableKind};
use crate::env::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{CheckpointId, DeltaSeq, StateId, SubtaskIndex};
use crate::key;
use crate::key_group::{KeyGroup, KeyGroupRange, MaxParallelism};
use crate::messages::ToStore;
use crate::table::{Expiry, Table, TableFiles};

use super::applier::Work;
use super::appliers::Applier;
use super::current::CurrentKey;
use super::cut::Cut;
use super::description::StateDescription;
use super::event::{Event, EventSender, Last, Ticket};
use super::heads::{Batch, FirstKeys, Heads};
use super::layers::{Found, Layers};
use super::lists::Lists;
use super::presence::Watch;
use super::refreshed::Refreshed;
use super::registry::{Registry, State, StateOptions};
use super::scan::{Scan, ScanBuilder};
use super::shared::{Held, Layer, StoreShared};
use super::stats::StoreStats;
use super::usage::StateUsage;
use super::value::Value;

/// Longest value in bytes: RocksDB's own limit is 4 GiB, a delta's far below it.
const MAX_VALUE_LEN: usize = 256 << 20;

/// Up to this many keys of a prefix are removed one by one. A tombstone in the memtable costs some
/// 0.3 µs in every later read of the table; a delete costs no more than a put.
const CLEARED_ONE_BY_ONE: usize = 32;

/// Renewed bytes at which a portion is handed over: as much as makes a delta, and no more than
/// this. In native mode, where it is only written, this.
const REFRESHED_AT_ONCE: u64 = 1 << 20;

/// How long a blocked write sleeps at most before it looks again.
const BLOCK_STEP: Duration = Duration::from_millis(20);

/// One subtask's state, held by its operator's thread. It may be sent to another thread, but not
/// used by two at once. All calls are synchronous, never touch the object store, and wait only at
/// the memory bound (invariant I7 in `docs/design.md`). They may be made inside an async runtime.
///
/// State is kept by name ([`StateStore::state`]), key group and key. A read always sees the store's
/// own writes.
///
/// ```
/// use alluvium::{Job, JobOptions, OpenMode, StateOptions, ValueState};
///
/// # fn main() -> alluvium::Result<()> {
/// # let place = tempfile::tempdir().unwrap();
/// # let (url, dir) = (place.path().join("job").display().to_string(), place.path().join("local"));
/// let mut opened = Job::open(&url, JobOptions::new(dir, OpenMode::CreateOrOpen))?;
/// let store = &mut opened.stores[0];
///
/// // Typed state, under the current key.
/// let counts = store.register(ValueState::<u64>::descriptor("counts"))?;
/// store.set_key("river")?;
/// counts.put(store, &1)?;
///
/// // Raw state: bytes to bytes, in a key group that the caller chooses.
/// let notes = store.state(&StateOptions::new("notes"))?;
/// let group = store.group_of(b"river");
/// store.put(notes, group, b"river/1", b"sand")?;
/// store.append(notes, group, b"river/2", b"silt")?;
/// assert_eq!(store.get(notes, group, b"river/2")?.as_deref(), Some(b"silt".as_slice()));
/// assert_eq!(store.scan_prefix(notes, group, b"river/")?.count(), 2);
/// # Ok(())
/// # }
/// ```
pub struct StateStore {
    subtask: SubtaskIndex,
    range: KeyGroupRange,
    max_parallelism: MaxParallelism,
    pub(super) registry: Registry,
    pub(super) current: CurrentKey,
    /// Of states that are read in order over all key groups, by the first byte of their keys.
    heads: BTreeMap<(StateId, u8), Heads>,
    refreshed: Refreshed,
    pub(super) lists: Lists,
    engine: Engine,
    table: Arc<Table>,
    shared: Arc<StoreShared>,
    events: EventSender,
    clock: Arc<dyn Clock>,
    /// The newest delta that was frozen (in native mode: the newest cut).
    seq: Cell<DeltaSeq>,
    last_cut: u64,
    /// Bytes of metadata that the last cut gave.
    metadata_len: usize,
    /// The last call to cut ahead of a barrier that was heeded.
    early: u64,
    restored_metadata: Option<Vec<u8>>,
    /// A buffer for encoded keys, so that no operation allocates one.
    scratch: Cell<Vec<u8>>,
    // Ahead of the hold: what ends with the last store is no operator that went missing.
    _watch: Watch,
    /// Keeps the job's background alive.
    _job: Hold,
    /// `Send`, but not `Sync`.
    _single: PhantomData<Cell<()>>,
}

/// Where writes go.
#[derive(Debug)]
enum Engine {
    Changelog(Box<Layers>),
    /// Straight into the table; snapshots are linked into numbered directories below this one.
    Native {
        dir: PathBuf,
    },
}

/// Keeps what a store works with alive: it is dropped with the last store.
pub(crate) type Hold = Arc<dyn Any + Send + Sync>;

/// What a store is made of.
pub(crate) struct StoreParts {
    pub(crate) subtask: SubtaskIndex,
    pub(crate) range: KeyGroupRange,
    pub(crate) max_parallelism: MaxParallelism,
    pub(crate) registry: Registry,
    pub(crate) table: Arc<Table>,
    pub(crate) shared: Arc<StoreShared>,
    pub(crate) events: EventSender,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) seq: DeltaSeq,
    pub(crate) restored_metadata: Option<Vec<u8>>,
    pub(crate) job: Hold,
}

/// What the mode adds to [`StoreParts`].
pub(crate) enum Mode {
    Changelog { applier: Applier, delta_bytes: usize, inline_limit: usize },
    Native { dir: PathBuf },
}

impl StateStore {
    pub(crate) fn new(parts: StoreParts, mode: Mode) -> Self {
        let portion = match &mode {
            Mode::Changelog { delta_bytes, .. } => REFRESHED_AT_ONCE.min(*delta_bytes as u64),
            Mode::Native { .. } => REFRESHED_AT_ONCE,
        };
        let engine = match mode {
            Mode::Changelog { applier, delta_bytes, inline_limit } => {
                let recycler = &parts.shared.recycler;
                Engine::Changelog(Box::new(Layers::new(applier, recycler, delta_bytes, inline_limit)))
            }
            Mode::Native { dir } => Engine::Native { dir },
        };
        let watch = Watch {
            subtask: parts.subtask,
            shared: Arc::clone(&parts.shared),
            clock: Arc::clone(&parts.clock),
        };
        Self {
            subtask: parts.subtask,
            range: parts.range,
            max_parallelism: parts.max_parallelism,
            registry: parts.registry,
            current: CurrentKey::default(),
            heads: BTreeMap::new(),
            refreshed: Refreshed::new(portion),
            lists: Lists::default(),
            engine,
            table: parts.table,
            shared: parts.shared,
            events: parts.events,
            clock: parts.clock,
            seq: Cell::new(parts.seq),
            last_cut: 0,
            metadata_len: 0,
            early: 0,
            restored_metadata: parts.restored_metadata,
            scratch: Cell::default(),
            _watch: watch,
            _job: parts.job,
            _single: PhantomData,
        }
    }

    /// The subtask that the store belongs to.
    pub fn subtask(&self) -> SubtaskIndex {
        self.subtask
    }

    /// The key groups that the store owns. Any other is refused.
    pub fn range(&self) -> KeyGroupRange {
        self.range
    }

    /// The job's number of key groups.
    pub fn max_parallelism(&self) -> MaxParallelism {
        self.max_parallelism
    }

    /// The key group of `key`, see [`MaxParallelism::group_of`].
    pub fn group_of(&self, key: &[u8]) -> KeyGroup {
        self.max_parallelism.group_of(key)
    }

    /// Now, in milliseconds since 1970, by the clock of the job's [`Env`](crate::Env): the time of
    /// [timers in processing time](crate::TimeDomain::Processing).
    pub fn processing_time(&self) -> i64 {
        i64::try_from(self.clock.unix_millis()).unwrap_or(i64::MAX)
    }

    /// What this subtask gave to [`StateStore::cut`] at the checkpoint that was restored, its source
    /// offset for example. None on a fresh start, and where no subtask of this number owned the same key
    /// groups: after a rescale use [`Opened::subtask_metadata`](crate::Opened::subtask_metadata), which has
    /// that of every old subtask.
    pub fn restored_metadata(&self) -> Option<&[u8]> {
        self.restored_metadata.as_deref()
    }

    /// Registers a named state, or finds it again.
    ///
    /// # Errors
    /// [`Incompatible`](ErrorKind::Incompatible) if the name was used for another kind of state, here
    /// or in the restored checkpoint.
    pub fn state(&mut self, options: &StateOptions) -> Result<State> {
        self.registry.register(options)
    }

    /// Registers a state exactly as a checkpoint describes it, of this job or of another
    /// ([`CheckpointReader::states`](crate::CheckpointReader::states)), or finds it again: for
    /// programs that move states about without knowing their types.
    ///
    /// # Errors
    /// [`Incompatible`](ErrorKind::Incompatible) if the name was used for a state that is described
    /// otherwise, here or in the restored checkpoint.
    pub fn described_state(&mut self, description: &StateDescription) -> Result<State> {
        self.registry.adopt(&description.0)
    }

    /// All states of the job, with what each takes up here. States that no program registers any
    /// more are among them; they stay in every checkpoint until they are dropped. Asks the table
    /// once for each state and key group.
    ///
    /// # Errors
    /// The attempt's failure.
    pub fn states(&mut self) -> Result<Vec<StateUsage>> {
        self.alive()?;
        let states = self.registry.list();
        let usage = states.iter().map(|info| {
            let ranges = self.range.groups().map(|group| {
                let start = key::prefix(group, info.id);
                end_of(&start).map(|end| (start.to_vec(), end))
            });
            Ok(StateUsage {
                state: StateDescription::from(info.clone()),
                registered: Some(self.registry.is_registered(info.id)),
                entries: None,
                bytes: self.table.bytes_within(&ranges.collect::<Result<Vec<_>>>()?),
            })
        });
        usage.collect()
    }

    /// Deletes everything that states of these ids have here. No tombstone is written for a key
    /// group where they have nothing.
    pub(crate) fn drop_states(&mut self, ids: &[StateId]) -> Result<()> {
        for id in ids {
            let state = State { id: *id, table: TableKind::Hash, raw: true };
            for group in self.range.groups() {
                if self.scan_prefix(state, group, b"")?.next().transpose()?.is_some() {
                    self.delete_prefix(state, group, b"")?;
                }
            }
        }
        Ok(())
    }

    // Reads.

    /// The value of `key`, or None.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if the store does not own `group`, and the
    /// attempt's failure, if it has failed.
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
        for (value, (_, at)) in self.table.multi_get(&encoded).into_iter().zip(&missing) {
            values[*at] = value?.map(Value::pinned);
        }
        Ok(values)
    }

    /// All keys of a state within `group` that start with `prefix`, with their values, ordered by the
    /// bytes of the key. Over several groups, scan them one after the other
    /// ([`KeyGroupRange::groups`]); there is no order across groups.
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

    /// The first keys of an ordered state within `group`, from `from` up to but without `end`: up to
    /// `limit`, without looking at many more.
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
        take_keys(&mut self.scan(&start, &last)?, batch)
    }

    /// As [`StateStore::first_keys`], of all key groups at once: those that have any. One search for each group,
    /// and none for groups that have no keys of any state.
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
            scan.restrict(&start, &last);
            let read = take_keys(&mut scan, Batch { bytes: left, ..batch })?;
            let ends = read.next.is_none();
            // Of those that come late it is enough to know about where they begin.
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
        // Of what the deltas may have, a quarter.
        let limit = usize::try_from(self.shared.budget.limit() / 4).unwrap_or(usize::MAX);
        let range = self.range;
        self.heads.entry((state.id, prefix)).or_insert_with(|| Heads::new(range, &[prefix]).limited(limit))
    }

    /// Milliseconds since 1970 by the job's clock.
    pub(crate) fn unix_millis(&self) -> u64 {
        self.clock.unix_millis()
    }

    /// From now on, values of the state vanish once they have expired.
    pub(crate) fn expire(&self, state: State, expiry: Expiry) -> Result<()> {
        self.table.expire(state.id, expiry)
    }

    /// Gives a value a new access time, because it was read. Reads see the new time at once. The
    /// next call that may write, at the latest [`StateStore::set_key`], writes it. If much has
    /// gathered for one key, this call hands it over, and waits for memory as a write does.
    pub(crate) fn refresh(&self, state: State, group: KeyGroup, key: &[u8], value: Vec<u8>) {
        let mut encoded = Vec::with_capacity(key::PREFIX_LEN + key.len());
        key::encode_into(&mut encoded, group, state.id, key);
        if self.refreshed.insert(encoded, state.table, value) {
            self.hand_over();
        }
    }

    fn hand_over(&self) {
        let Engine::Changelog(layers) = &self.engine else {
            for (key, (_, value)) in self.refreshed.take_values() {
                if let Err(error) = self.table.put(&key, &value) {
                    return self.shared.fail(error);
                }
            }
            return;
        };
        let unknown = |table: &Pooled, key: &[u8]| matches!(table.get(key), Lookup::Unknown);
        let touches = |key: &[u8]| layers.active.tables().any(|table| !unknown(table, key));
        let Some(delta) = self.refreshed.portion(touches) else { return };
        self.refreshed.handed(self.number(&layers.applier, delta));
        if !self.shared.has_room() {
            let start = self.clock.monotonic();
            // The next call reports a failure, because this one only reads.
            let _ = wait_for_room(&self.shared, &self.events, || self.refreshed.purge());
            self.shared.budget.count_blocked(self.clock.monotonic().saturating_sub(start));
        }
    }

    fn scan(&self, start: &[u8], end: &[u8]) -> Result<Scan> {
        self.scan_by(ScanBuilder::new(start, end))
    }

    fn scan_by(&self, mut builder: ScanBuilder) -> Result<Scan> {
        if !self.refreshed.is_empty() {
            self.refreshed.scan(&mut builder);
        }
        if let Engine::Changelog(layers) = &self.engine {
            builder.active(&layers.active);
            layers.frozen.iter().rev().for_each(|layer| builder.frozen(layer));
        }
        // The table's view is taken after the layers. A delta that is applied in between is in
        // both, and is recognised by its number.
        builder.build(&self.table)
    }

    // Writes.

    /// Sets the value of `key`.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if the store does not own `group`, or key
    /// (64 KiB; as a typed state stores it, 320 KiB) or value (256 MiB) are too long; the attempt's failure, if it has failed. Waits at the
    /// memory bound, see [`StateStore::try_reserve`].
    pub fn put(&mut self, state: State, group: KeyGroup, key: &[u8], value: &[u8]) -> Result<()> {
        check_value(value)?;
        self.write(state, group, key, |engine, table, key| match engine {
            Engine::Changelog(layers) => {
                layers.active.put(state.table, key, value);
                Ok(())
            }
            Engine::Native { .. } => table.put(key, value),
        })
    }

    /// Removes `key`. Removing an absent key is no error.
    ///
    /// # Errors
    /// As [`StateStore::put`].
    pub fn delete(&mut self, state: State, group: KeyGroup, key: &[u8]) -> Result<()> {
        self.write(state, group, key, |engine, table, key| match engine {
            Engine::Changelog(layers) => {
                layers.active.delete(state.table, key);
                Ok(())
            }
            Engine::Native { .. } => table.delete(key),
        })
    }

    /// Appends `bytes` to the value of `key`; an absent value counts as empty. Neither reads nor
    /// rewrites the value. The caller frames the elements of a list.
    ///
    /// The value may grow to 1 GiB. An append beyond that is refused where the length is known: for
    /// appends of 64 KiB and more, and for all appends once a read or compaction has met a list of
    /// 16 MiB.
    ///
    /// # Errors
    /// As [`StateStore::put`]; [`InvalidArgument`](ErrorKind::InvalidArgument), naming the key, if the list would become
    /// too long.
    pub fn append(&mut self, state: State, group: KeyGroup, key: &[u8], bytes: &[u8]) -> Result<()> {
        check_value(bytes)?;
        self.reserve_list(state, group, key, bytes.len())?;
        self.write(state, group, key, |engine, table, key| match engine {
            Engine::Changelog(layers) => {
                layers.active.merge(state.table, MergeOp::ListAppend, key, bytes);
                Ok(())
            }
            Engine::Native { .. } => table.merge(MergeOp::ListAppend, key, bytes),
        })
    }

    /// Removes all keys of a state within `group` that start with `prefix`, without reading them.
    /// States for which this is frequent should be [`Ordered`](crate::TableKind::Ordered).
    ///
    /// # Errors
    /// As [`StateStore::put`].
    pub fn delete_prefix(&mut self, state: State, group: KeyGroup, prefix: &[u8]) -> Result<()> {
        self.write(state, group, prefix, |engine, table, start| {
            let end = end_of(start)?;
            match engine {
                Engine::Changelog(layers) => {
                    layers.active.delete_range(start, &end);
                    Ok(())
                }
                Engine::Native { .. } => table.delete_range(start, &end),
            }
        })
    }

    /// As [`StateStore::delete_prefix`], but reads the first keys. If there are few keys, they are
    /// removed one by one, and if there are none, nothing is written. A deleted range costs all
    /// reads of the table a little until it is compacted, so it is meant for many keys.
    pub(crate) fn clear_prefix(&mut self, state: State, group: KeyGroup, prefix: &[u8]) -> Result<()> {
        let mut scan = self.scan_prefix(state, group, prefix)?;
        scan.without_values();
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

    /// Removes all keys of a state within `group` from `start` up to but without `end` (None: to the last),
    /// without reading them.
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
        self.write(state, group, start, |engine, table, from| match engine {
            Engine::Changelog(layers) => {
                layers.active.delete_range(from, &to);
                Ok(())
            }
            Engine::Native { .. } => table.delete_range(from, &to),
        })
    }

    /// Tells in advance whether the next write would have to wait at the memory bound.
    ///
    /// # Errors
    /// [`WouldBlock`](ErrorKind::WouldBlock) if it would; the attempt's failure, if it has failed.
    pub fn try_reserve(&mut self) -> Result<()> {
        self.alive()?;
        self.write_refreshed_at_once()?;
        if matches!(&self.engine, Engine::Changelog(layers) if layers.needs_room()) {
            self.freeze();
            if self.shared.budget.is_full() {
                self.events.tell(ToStore::Flush);
                return Err(Error::new(ErrorKind::WouldBlock, "the memory for deltas is full")
                    .object(format!("subtask {}", self.subtask))
                    .advise("try again once the object store or the disk has caught up"));
            }
        }
        Ok(())
    }

    // The barrier.

    /// The checkpoint that was triggered and that this store has not cut for yet. One load of an
    /// atomic, cheap enough to be called between any two records.
    ///
    /// Each store sees the checkpoint at its own place in the stream. That is right only if no
    /// records travel between subtasks and each reads its own input. Otherwise all cuts must lie at
    /// one place in the stream, so send the id with the records, as a barrier
    /// (`docs/embedding.md`).
    pub fn due(&self) -> Option<CheckpointId> {
        let number = self.shared.attempt.barrier();
        (number > self.last_cut).then_some(CheckpointId { epoch: self.shared.attempt.epoch, number })
    }

    /// The barrier of checkpoint `id`: it contains all writes so far and none that follow. All cuts
    /// of a checkpoint must lie at one place in the stream. [`StateStore::restored_metadata`]
    /// returns `metadata` after a restore. The metadata lies in the checkpoint's manifest: up to 1
    /// MiB, and 16 MiB for all subtasks together. A cut that is refused because of its metadata may
    /// be made again.
    ///
    /// In changelog mode this swaps the active delta for an empty one and returns. In native mode
    /// it flushes the memtable and hard-links RocksDB's files. In both modes the uploads continue
    /// in the background, and the job receives the receipt by itself. A committer elsewhere takes
    /// it from the returned [`Cut`].
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if `id` is of another attempt, or not greater than
    /// that of the last cut, or for metadata that is too long; [`Disk`](ErrorKind::Disk) in native mode; the attempt's failure, if it has failed.
    pub fn cut(&mut self, id: CheckpointId, metadata: impl Into<Vec<u8>>) -> Result<Cut> {
        let start = self.clock.monotonic();
        self.alive()?;
        if id.epoch != self.shared.attempt.epoch || id.number <= self.last_cut {
            return Err(Error::invalid(format!(
                "checkpoint {id} is not one that this store can still cut for; the last was {}-{}",
                self.shared.attempt.epoch, self.last_cut
            )));
        }
        let metadata = metadata.into();
        self.count_metadata(&metadata)?;
        // A barrier does not wait for memory.
        self.write_refreshed_at_once()?;
        let (reply, receipt) = oneshot::channel();
        self.last_cut = id.number;
        let native = match &self.engine {
            Engine::Changelog(_) => {
                self.freeze();
                None
            }
            Engine::Native { dir } => {
                let dir = dir.join(format!("cut-{}", id.number));
                Some(self.flush(&dir))
            }
        };
        let now = self.clock.monotonic();
        self.shared.presence.has_cut(id.number, now);
        let micros = now.saturating_sub(start).as_micros();
        let ticket = Box::new(Ticket {
            id,
            metadata,
            states: self.registry.list(),
            cost: ReceiptCost {
                cut_micros: u64::try_from(micros).unwrap_or(u64::MAX),
                ..ReceiptCost::default()
            },
            reply,
        });
        let seq = self.seq.get();
        match native {
            None => self.events.send(Event::Barrier { seq, ticket }),
            Some(Ok(files)) => self.events.send(Event::NativeCut { seq, files, ticket }),
            Some(Err(error)) => {
                // The job has to hear of it as well, or it would wait for the receipt.
                self.events.send(Event::NativeUploaded { seq, ticket, result: Err(error.clone()) });
                return Err(error);
            }
        }
        Ok(Cut { id, receipt })
    }

    /// Declares the end of this subtask's input. Its state stays as it is now and is part of all
    /// later checkpoints, which no longer wait for a cut of this store (as in Flink's FLIP-147).
    /// `metadata` takes the place of that of its cuts. A restore returns it as
    /// [`StateStore::restored_metadata`], to a store like any other, so it should say that the
    /// input has ended. For a checkpoint under way that the store has not cut for, this counts as
    /// its cut.
    ///
    /// A store that is dropped without it makes all later checkpoints impossible, see [`Job::health`](crate::Job::health).
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for metadata that [`StateStore::cut`] would refuse;
    /// [`Disk`](ErrorKind::Disk) in native mode; the attempt's failure, if it has failed.
    pub fn finish(mut self, metadata: impl Into<Vec<u8>>) -> Result<()> {
        self.alive()?;
        let metadata = metadata.into();
        self.count_metadata(&metadata)?;
        self.write_refreshed_at_once()?;
        match &self.engine {
            Engine::Changelog(_) => self.freeze(),
            Engine::Native { .. } => {
                let seq = self.seq.get().next();
                self.table.set_applied(seq)?;
                self.seq.set(seq);
            }
        }
        // Before the event, because a checkpoint that begins in between must not take the store for
        // dropped.
        self.shared.presence.finish();
        let (cut, states) = (self.last_cut, self.registry.list());
        let last = Last { seq: self.seq.get(), cut, metadata, states };
        self.events.send(Event::Finished(Box::new(last)));
        Ok(())
    }

    fn count_metadata(&mut self, metadata: &[u8]) -> Result<()> {
        let total = &self.shared.attempt.metadata;
        total
            .replace(self.metadata_len, metadata.len())
            .map_err(|error| error.object(format!("metadata of subtask {}", self.subtask)))?;
        self.metadata_len = metadata.len();
        Ok(())
    }

    /// Native mode: flushes everything into files, and links them into `dir`.
    fn flush(&mut self, dir: &Path) -> Result<TableFiles> {
        // One more file than level 0 takes would have RocksDB hold back all writes.
        self.table.wait_for_room(|| self.shared.attempt.health())?;
        let seq = self.seq.get().next();
        self.table.set_applied(seq)?;
        self.seq.set(seq);
        self.table.checkpoint(dir)
    }

    /// The failure that ended the attempt, if any: fenced, disk full, or a bug. Every other call
    /// returns it too. Also reports what the background cannot do at the moment although writes
    /// still go through, and since when: RocksDB on a full disk, and bases that the local disk
    /// lets fail. Both recover by themselves. Never blocks.
    ///
    /// # Errors
    /// That failure.
    pub fn health(&self) -> Result<()> {
        self.alive()?;
        let trouble = self.table.trouble();
        let trouble = trouble.or_else(|| self.shared.bases.of(self.subtask, self.clock.monotonic()));
        trouble.map_or(Ok(()), Err)
    }

    /// The failure that ended the attempt, if any.
    pub(crate) fn alive(&self) -> Result<()> {
        self.shared.attempt.health()
    }

    /// Numbers of this store as of now.
    pub fn stats(&self) -> StoreStats {
        let mut stats = StoreStats::gather(&self.shared, &self.table);
        if let Engine::Changelog(layers) = &self.engine {
            stats.active_entries = layers.active.len() as u64;
            stats.active_bytes = layers.active.bytes() as u64;
        }
        stats.refreshed_bytes = self.refreshed.bytes();
        stats.longest_list_bytes = self.longest_list();
        stats
    }

    /// Knows nothing of first keys, as after a restore.
    #[cfg(test)]
    pub(crate) fn forget_heads(&mut self) {
        self.heads.clear();
    }

    /// Ranges deleted in the active delta.
    #[cfg(test)]
    pub(crate) fn active_tombstones(&self) -> usize {
        match &self.engine {
            Engine::Changelog(layers) => layers.active.tables().map(|table| table.tombstones().len()).sum(),
            Engine::Native { .. } => 0,
        }
    }

    // Inside.

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// Bytes of the list at an encoded key.
    pub(super) fn read_list(&self, encoded: &[u8]) -> Result<u64> {
        Ok(self.read(encoded)?.map_or(0, |list| list.len() as u64))
    }

    fn check(&self, state: State, group: KeyGroup, key: &[u8]) -> Result<()> {
        let longest = if state.raw { key::MAX_USER_KEY_LEN } else { key::MAX_STORED_KEY_LEN };
        if key.len() > longest {
            return Err(key::too_long(key.len(), longest));
        }
        self.check_group(group)
    }

    pub(super) fn check_group(&self, group: KeyGroup) -> Result<()> {
        if !self.range.contains(group) {
            return Err(Error::invalid(format!(
                "subtask {} owns key groups {}, not {group}",
                self.subtask, self.range
            ))
            .advise("send each record to the subtask that owns its key's group"));
        }
        self.alive()
    }

    fn with_key<R>(&self, state: State, group: KeyGroup, key: &[u8], f: impl FnOnce(&[u8]) -> R) -> R {
        let mut encoded = self.scratch.take();
        key::encode_into(&mut encoded, group, state.id, key);
        let result = f(&encoded);
        self.scratch.set(encoded);
        result
    }

    fn write(
        &mut self,
        state: State,
        group: KeyGroup,
        key: &[u8],
        f: impl FnOnce(&mut Engine, &Table, &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.check(state, group, key)?;
        self.write_refreshed()?;
        self.make_room()?;
        let mut encoded = self.scratch.take();
        key::encode_into(&mut encoded, group, state.id, key);
        let result = f(&mut self.engine, &self.table, &encoded);
        self.scratch.set(encoded);
        result
    }

    /// Cuts a full active delta, and waits where memory is at its bound.
    fn make_room(&mut self) -> Result<()> {
        let Engine::Changelog(layers) = &mut self.engine else { return Ok(()) };
        if !layers.needs_room() {
            let early = self.shared.attempt.early();
            if early != self.early {
                self.early = early;
                if layers.is_large() {
                    self.freeze();
                    self.events.send(Event::Hurry);
                }
            }
            return Ok(());
        }
        self.freeze();
        if self.shared.has_room() {
            return Ok(());
        }
        let start = self.clock.monotonic();
        let Engine::Changelog(layers) = &mut self.engine else { return Ok(()) };
        let outcome = wait_for_room(&self.shared, &self.events, || layers.purge());
        self.shared.budget.count_blocked(self.clock.monotonic().saturating_sub(start));
        outcome
    }

    /// Swaps the active delta for an empty one and hands it to the background (I7: no flush, no copy,
    /// no I/O).
    fn freeze(&mut self) {
        let Engine::Changelog(layers) = &mut self.engine else { return };
        layers.purge();
        debug_assert!(self.refreshed.is_empty(), "what reads have handed over has an earlier number");
        let applier = layers.applier.clone();
        // Once, but where scans hold parts of it.
        while let Engine::Changelog(layers) = &mut self.engine
            && !layers.active.is_empty()
        {
            let delta = layers.active.cut();
            let layer = self.number(&applier, delta);
            if let Engine::Changelog(layers) = &mut self.engine {
                layers.frozen.push(layer);
            }
        }
    }

    /// Gives a delta its number, and hands it to the background.
    fn number(&self, applier: &Applier, delta: FrozenDelta) -> Arc<Layer> {
        let bytes = delta.bytes() as u64;
        let share = Arc::new(self.shared.budget.take(bytes));
        // For the sealed bytes to come, which are there before the layer is gone.
        let sealed_share = self.shared.budget.take(bytes);
        let seq = self.seq.get().next();
        self.seq.set(seq);
        let layer = Layer::new(seq, delta);
        self.shared.set_frozen(seq);
        let held = Held { layer: Arc::clone(&layer), _share: share };
        self.events.send(Event::Frozen { held: held.clone(), sealed_share });
        if applier.send(Work::Apply(held)).is_err() {
            self.shared.fail(Error::internal("the appliers' threads are gone"));
        }
        layer
    }

    fn read(&self, key: &[u8]) -> Result<Option<Value<'_>>> {
        match self.find(key) {
            Found::Settled(value) => Ok(value),
            Found::Nothing => Ok(self.table.get(key)?.map(Value::pinned)),
            Found::Operands(mut operands) => {
                let (base, applied) = self.table.get_at(key)?;
                // A layer may have been applied since it was read: its operands are in the base then.
                operands.drop_applied(applied);
                if operands.is_empty() {
                    return Ok(base.map(Value::pinned));
                }
                Ok(operands.fold_into(base.as_deref()))
            }
        }
    }

    /// Brings what reads have refreshed to where writes go, and waits for memory as they do.
    pub(super) fn write_refreshed(&mut self) -> Result<()> {
        self.put_refreshed(Self::make_room)
    }

    /// As [`StateStore::write_refreshed`], but never waits: what it writes is in memory already.
    fn write_refreshed_at_once(&mut self) -> Result<()> {
        self.put_refreshed(|store| {
            if matches!(&store.engine, Engine::Changelog(layers) if layers.needs_room()) {
                store.freeze();
            }
            Ok(())
        })
    }

    fn put_refreshed(&mut self, make_room: impl Fn(&mut Self) -> Result<()>) -> Result<()> {
        if self.refreshed.is_empty() {
            return Ok(());
        }
        let (handed, values) = self.refreshed.take();
        if let Engine::Changelog(layers) = &mut self.engine {
            layers.frozen.extend(handed);
        }
        for (key, (kind, value)) in values {
            make_room(self)?;
            match &mut self.engine {
                Engine::Changelog(layers) => layers.active.put(kind, &key, &value),
                Engine::Native { .. } => self.table.put(&key, &value)?,
            }
        }
        Ok(())
    }

    fn find(&self, key: &[u8]) -> Found<'_> {
        if !self.refreshed.is_empty()
            && let Some(value) = self.refreshed.get(key)
        {
            return Found::Settled(Some(Value::owned(value)));
        }
        match &self.engine {
            Engine::Changelog(layers) => layers.find(key),
            Engine::Native { .. } => Found::Nothing,
        }
    }
}

impl fmt::Debug for StateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateStore")
            .field("subtask", &self.subtask)
            .field("range", &self.range)
            .field("seq", &self.seq.get())
            .finish_non_exhaustive()
    }
}

/// As many keys as `batch` says, at least one, and where the next one is.
fn take_keys(scan: &mut Scan, batch: Batch) -> Result<FirstKeys> {
    scan.without_values();
    let (mut read, mut left) = (FirstKeys::default(), batch.bytes);
    for entry in scan {
        let (key, _) = entry?;
        if read.keys.len() == batch.keys || (left == 0 && !read.keys.is_empty()) {
            read.next = Some(key);
            break;
        }
        left = left.saturating_sub(key.len());
        read.keys.push(key);
    }
    Ok(read)
}

/// Waits until deltas that are held have become durable and applied.
fn wait_for_room(shared: &StoreShared, events: &EventSender, mut purge: impl FnMut()) -> Result<()> {
    // Small sealed deltas may be waiting for a checkpoint that comes only after this write.
    events.tell(ToStore::Flush);
    while !shared.has_room() {
        shared.attempt.health()?;
        shared.budget.wait(BLOCK_STEP);
        purge();
    }
    Ok(())
}

pub(crate) fn check_value(value: &[u8]) -> Result<()> {
    if value.len() > MAX_VALUE_LEN {
        return Err(Error::invalid(format!("a value of {} bytes is too long", value.len()))
            .advise(format!("values may have up to {MAX_VALUE_LEN} bytes")));
    }
    Ok(())
}

/// The end of the range of all keys that start with an encoded `prefix`.
fn end_of(prefix: &[u8]) -> Result<Vec<u8>> {
    // Key groups stay below 32,768, so the first byte of an encoded key is never 0xff.
    key::successor(prefix).ok_or_else(|| Error::internal("an encoded key has no successor"))
}
