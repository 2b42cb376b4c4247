//! [`StateStore`]: what an operator's thread holds.

mod cuts;
mod reads;
mod renewals;
mod writes;

use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::delta::TableKind;
use crate::env::Clock;
use crate::error::{Error, Result};
use crate::ids::{DeltaSeq, OperatorId, StateId, SubtaskIndex};
use crate::key;
use crate::key_group::{KeyGroup, KeyGroupRange, MaxParallelism};
use crate::table::{Expiry, Table};

use super::current::CurrentKey;
use super::description::StateDescription;
use super::elements::HeldElements;
use super::engine::{Engine, EngineParts, Mode};
use super::event::EventSender;
use super::heads::Heads;
use super::lists::Lists;
use super::presence::Watch;
use super::registry::Registry;
use super::renewals::Renewals;
use super::shared::StoreShared;
use super::state_options::{State, StateOptions};
use super::stats::StoreStats;
use super::usage::StateUsage;

use renewals::RENEWED_AT_ONCE;
pub(crate) use writes::check_value;

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
    operator: OperatorPlace,
    range: KeyGroupRange,
    max_parallelism: MaxParallelism,
    pub(super) registry: Registry,
    pub(super) current: CurrentKey,
    /// Caches of states that are read in order over all key groups, by the first byte of their
    /// keys.
    heads: BTreeMap<(StateId, u8), Heads>,
    renewals: Renewals,
    pub(super) lists: Lists,
    engine: Engine,
    table: Arc<Table>,
    shared: Arc<StoreShared>,
    events: EventSender,
    clock: Arc<dyn Clock>,
    last_cut: u64,
    /// Bytes of metadata that the last cut gave.
    metadata_len: usize,
    /// State that is not keyed, and its bytes as of the last cut.
    elements: HeldElements,
    elements_len: u64,
    restored_metadata: Option<Vec<u8>>,
    /// A buffer for encoded keys, so that no operation allocates one.
    scratch: Cell<Vec<u8>>,
    // Dropped before the hold, which may end the job: an operator that goes with the job is not
    // missing.
    _watch: Watch,
    /// Keeps the job's background alive.
    _job: Hold,
    /// `Send`, but not `Sync`.
    _single: PhantomData<Cell<()>>,
}

/// Keeps what a store works with alive: it is dropped with the last store.
pub(crate) type Hold = Arc<dyn Any + Send + Sync>;

/// Which subtask of which operator a store belongs to.
#[derive(Debug, Clone)]
pub(crate) struct OperatorPlace {
    pub(crate) id: OperatorId,
    pub(crate) number: u32,
    pub(crate) parallelism: u32,
}

/// Everything that a store is made from.
pub(crate) struct StoreParts {
    pub(crate) subtask: SubtaskIndex,
    pub(crate) operator: OperatorPlace,
    pub(crate) range: KeyGroupRange,
    pub(crate) max_parallelism: MaxParallelism,
    pub(crate) registry: Registry,
    pub(crate) table: Arc<Table>,
    pub(crate) shared: Arc<StoreShared>,
    pub(crate) events: EventSender,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) seq: DeltaSeq,
    pub(crate) restored_metadata: Option<Vec<u8>>,
    pub(crate) elements: HeldElements,
    pub(crate) job: Hold,
}

impl StateStore {
    pub(crate) fn new(parts: StoreParts, mode: Mode) -> Self {
        let portion = match &mode {
            Mode::Changelog { delta_bytes, .. } => RENEWED_AT_ONCE.min(*delta_bytes as u64),
            Mode::Native { .. } => RENEWED_AT_ONCE,
        };
        let engine = Engine::new(
            mode,
            EngineParts {
                table: Arc::clone(&parts.table),
                shared: Arc::clone(&parts.shared),
                events: parts.events.clone(),
                clock: Arc::clone(&parts.clock),
                seq: parts.seq,
            },
        );
        let watch = Watch {
            subtask: parts.subtask,
            shared: Arc::clone(&parts.shared),
            clock: Arc::clone(&parts.clock),
        };
        Self {
            subtask: parts.subtask,
            operator: parts.operator,
            range: parts.range,
            max_parallelism: parts.max_parallelism,
            registry: parts.registry,
            current: CurrentKey::default(),
            heads: BTreeMap::new(),
            renewals: Renewals::new(portion),
            lists: Lists::default(),
            engine,
            table: parts.table,
            shared: parts.shared,
            events: parts.events,
            clock: parts.clock,
            last_cut: 0,
            metadata_len: 0,
            elements: parts.elements,
            elements_len: 0,
            restored_metadata: parts.restored_metadata,
            scratch: Cell::default(),
            _watch: watch,
            _job: parts.job,
            _single: PhantomData,
        }
    }

    /// The subtask that the store belongs to. Subtasks are counted over all operators of the job.
    pub fn subtask(&self) -> SubtaskIndex {
        self.subtask
    }

    /// The id of the operator that the store belongs to; None in a job that names no operators.
    pub fn operator(&self) -> Option<&str> {
        Some(self.operator.id.as_str()).filter(|id| !id.is_empty())
    }

    /// The store's number among those of its operator, as
    /// [`MaxParallelism::subtask_of`](crate::MaxParallelism::subtask_of) counts, and how many they
    /// are.
    pub fn place(&self) -> (SubtaskIndex, u32) {
        (SubtaskIndex(self.operator.number), self.operator.parallelism)
    }

    /// The key groups that the store owns. Any other is refused.
    pub fn range(&self) -> KeyGroupRange {
        self.range
    }

    /// The operator's number of key groups.
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

    /// What this subtask gave to [`StateStore::cut`] at the checkpoint that was restored, its
    /// source offset for example. None on a fresh start, and where no subtask of this number owned
    /// the same key groups: after a rescale use
    /// [`Opened::subtask_metadata`](crate::Opened::subtask_metadata), which has that of every old
    /// subtask.
    pub fn restored_metadata(&self) -> Option<&[u8]> {
        self.restored_metadata.as_deref()
    }

    /// Registers a named state, or finds it again.
    ///
    /// # Errors
    /// [`Incompatible`](crate::ErrorKind::Incompatible) if the name was used for another kind of
    /// state, here or in the restored checkpoint.
    pub fn state(&mut self, options: &StateOptions) -> Result<State> {
        self.registry.register(options)
    }

    /// Registers a state exactly as a checkpoint describes it, of this job or of another
    /// ([`CheckpointReader::states`](crate::CheckpointReader::states)), or finds it again: for
    /// programs that move states about without knowing their types.
    ///
    /// # Errors
    /// [`Incompatible`](crate::ErrorKind::Incompatible) if the name was used for a state that is
    /// described otherwise, here or in the restored checkpoint.
    pub fn described_state(&mut self, description: &StateDescription) -> Result<State> {
        self.registry.adopt(&description.0)
    }

    /// All states of the operator, with what each takes up here. States that no program registers any
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
                entries: self.elements.usage(info.id).map(|(entries, _)| entries),
                bytes: self.elements.usage(info.id).map_or(0, |(_, bytes)| bytes)
                    + self.table.bytes_within(&ranges.collect::<Result<Vec<_>>>()?),
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

    /// State that is not keyed.
    pub(crate) fn elements(&self) -> &HeldElements {
        &self.elements
    }

    pub(crate) fn elements_mut(&mut self) -> &mut HeldElements {
        &mut self.elements
    }

    /// Milliseconds since 1970 by the job's clock.
    pub(crate) fn unix_millis(&self) -> u64 {
        self.clock.unix_millis()
    }

    /// From now on, values of the state vanish once they have expired.
    pub(crate) fn expire(&self, state: State, expiry: Expiry) -> Result<()> {
        self.table.expire(state.id, expiry)
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
    #[inline]
    pub(crate) fn alive(&self) -> Result<()> {
        self.shared.attempt.health()
    }

    /// Numbers of this store as of now.
    pub fn stats(&self) -> StoreStats {
        let mut stats = StoreStats::gather(&self.shared, &self.table);
        (stats.active_entries, stats.active_bytes) = self.engine.active_size();
        stats.renewed_bytes = self.renewals.bytes();
        stats.longest_list_bytes = self.longest_list();
        stats
    }

    // Inside.

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    #[inline]
    fn check(&self, state: State, group: KeyGroup, key: &[u8]) -> Result<()> {
        let longest = if state.raw { key::MAX_USER_KEY_LEN } else { key::MAX_STORED_KEY_LEN };
        if key.len() > longest {
            return Err(key::too_long(key.len(), longest));
        }
        self.check_group(group)
    }

    #[inline]
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

    #[inline]
    fn with_key<R>(&self, state: State, group: KeyGroup, key: &[u8], f: impl FnOnce(&[u8]) -> R) -> R {
        let mut encoded = self.scratch.take();
        key::encode_into(&mut encoded, group, state.id, key);
        let result = f(&encoded);
        self.scratch.set(encoded);
        result
    }
}

impl fmt::Debug for StateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateStore")
            .field("subtask", &self.subtask)
            .field("range", &self.range)
            .field("seq", &self.engine.seq())
            .finish_non_exhaustive()
    }
}

/// The end of the range of all keys that start with an encoded `prefix`.
fn end_of(prefix: &[u8]) -> Result<Vec<u8>> {
    // Key groups stay below 32,768, so the first byte of an encoded key is never 0xff.
    key::successor(prefix).ok_or_else(|| Error::internal("an encoded key has no successor"))
}
