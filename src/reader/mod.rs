//! Reads a checkpoint from outside. The job may be running, and is not disturbed.
//!
//! The reader pins the checkpoint (I3), restores the needed subtasks into a directory of its own,
//! and releases the pin at the end. It cannot write.

mod by_group;
mod map;
mod options;
mod scan;
mod scratch;
mod single_entry;
mod state;
mod unkeyed;
mod usage;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::admin::Outside;
use crate::env::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::gc::{Pin, find_to_read};
use crate::ids::{CheckpointId, StateId, SubtaskIndex};
use crate::job::OperatorSpec;
use crate::key;
use crate::key_group::{KeyGroup, KeyGroupRange, MaxParallelism};
use crate::manifest::{
    CheckpointMode, CheckpointRecord, Found, Manifest, OperatorRecord, RestoreFrom, StateInfo, StateLists,
};
use crate::remote::JobLocation;
use crate::restore::{Restorer, Target};
use crate::store::StateDescription;
use crate::table::{Table, TableResources};

pub use options::ReaderOptions;
pub use scan::CheckpointScan;
use scratch::Scratch;
pub use state::StateReader;

/// RocksDB's background jobs of all subtasks together.
const BACKGROUND_JOBS: usize = 2;
/// Objects fetched at the same time.
const PARALLEL_DOWNLOADS: usize = 16;
/// How long a reader that was dropped goes on trying to release its pin.
const LAST_RELEASE: Duration = Duration::from_secs(10);

/// One checkpoint or savepoint of a job, to be read key by key and by scans: typed state by its
/// descriptor ([`CheckpointReader::state`], [`CheckpointReader::timers`]), and any state as the
/// bytes that are stored. The job may be running: no attempt begins, nothing is fenced, and the job
/// does not notice but for one small object, the reader's pin, which keeps the checkpoint alive for
/// as long as the reader lives.
///
/// A subtask's state is fetched from the object store when something in it is first asked for: a
/// point read fetches one subtask, a scan of all groups all of them. All calls block.
///
/// Close it with [`CheckpointReader::close`]; a reader that is dropped tries to release its pin in
/// the background. Of a process that is killed the pin stays, and keeps the checkpoint's objects
/// until someone releases it, see [`Pins`](crate::admin::Pins).
///
/// ```
/// use alluvium::{CheckpointReader, Job, JobOptions, OpenMode, ReaderOptions, RestoreFrom, StateOptions};
/// use alluvium::MapState;
///
/// # fn main() -> alluvium::Result<()> {
/// # let place = tempfile::tempdir().unwrap();
/// # let (url, dir) = (place.path().join("job").display().to_string(), place.path().join("local"));
/// let mut opened = Job::open(&url, JobOptions::new(dir, OpenMode::Create))?;
/// let store = &mut opened.stores[0];
/// let words = store.state(&StateOptions::new("words"))?;
/// let group = store.group_of(b"alluvium");
/// store.put(words, group, b"alluvium", b"what a stream leaves behind")?;
/// let descriptor = MapState::<String, u32>::descriptor("routes");
/// let routes = store.register(descriptor.clone())?;
/// store.set_key("JFK")?;
/// routes.put(store, "LAX", &11_262)?;
/// let checkpoint = opened.job.trigger("")?;
/// store.cut(checkpoint.id(), "")?;
/// checkpoint.wait()?;
///
/// let reader = CheckpointReader::open(&url, &RestoreFrom::Latest, ReaderOptions::new())?;
/// assert_eq!(reader.get("words", b"alluvium")?.unwrap(), b"what a stream leaves behind");
/// assert_eq!(reader.scan("words", b"all")?.count(), 1);
/// let routes = reader.state(descriptor)?;
/// assert_eq!(routes.get("JFK", "LAX")?, Some(11_262));
/// reader.close()?;
/// # Ok(())
/// # }
/// ```
pub struct CheckpointReader {
    manifest: Arc<Manifest>,
    found: Found,
    clock: Arc<dyn Clock>,
    resources: TableResources,
    /// Bytes for the changelog on its way into a table.
    replay_memory: u64,
    /// The operator whose state is read: None if there are several and none was chosen.
    selected: Option<Selected>,
    // Tables close before their files are removed.
    tables: Vec<SubtaskTable>,
    dir: Scratch,
    /// None only while closing. The pin may be none by the caller's wish.
    hold: Option<(Outside, Option<Pin>)>,
}

/// An operator of the checkpoint.
#[derive(Clone, Copy)]
struct Selected {
    operator: usize,
    max_parallelism: MaxParallelism,
}

/// One subtask of the checkpoint.
struct SubtaskTable {
    operator: usize,
    index: SubtaskIndex,
    range: KeyGroupRange,
    table: Mutex<Option<Arc<Table>>>,
}

impl CheckpointReader {
    /// Opens a checkpoint or savepoint of a job.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such job, checkpoint or savepoint, naming
    /// those that there are; [`InvalidArgument`](ErrorKind::InvalidArgument) for a wrong URL,
    /// option or name; [`Corrupt`](ErrorKind::Corrupt), [`MissingObject`](ErrorKind::MissingObject)
    /// and [`UnsupportedVersion`](ErrorKind::UnsupportedVersion) if its manifest cannot be read;
    /// [`Disk`](ErrorKind::Disk), [`StoreUnavailable`](ErrorKind::StoreUnavailable).
    pub fn open(
        location: impl Into<JobLocation>,
        from: &RestoreFrom,
        options: ReaderOptions,
    ) -> Result<Self> {
        Self::start(&location.into(), from, options)
    }

    fn start(location: &JobLocation, from: &RestoreFrom, options: ReaderOptions) -> Result<Self> {
        let ReaderOptions { dir, memory, env, pin, operator } = options;
        crate::machine::check_memory(memory)?;
        let dir = dir.join(format!("alluvium-reader-{}", env.nonces.nonce()));
        let clock = Arc::clone(&env.clock);
        let outside = Outside::new(location, env)?;
        // Before the pin, so that a disk that cannot be written leaves no pin behind.
        std::fs::create_dir_all(&dir)
            .map_err(|error| Error::disk("create a directory for the checkpoint", &dir, error))?;
        let dir = Scratch(dir);
        let (remote, from) = (Arc::clone(&outside.remote), from.clone());
        let (pin, found) = outside.run(async move {
            if pin {
                let (pin, found) = Pin::take_to_read(&remote, &from).await?;
                return Ok((Some(pin), found));
            }
            Ok((None, find_to_read(&remote, &from).await?))
        })?;
        let manifest = found.manifest.clone();
        let manifest = manifest.ok_or_else(|| Error::internal("a checkpoint was pinned and not read"))?;
        if manifest.checkpoint().is_none() {
            return Err(Error::internal("a pinned version is not a checkpoint"));
        }
        let tables = tables_of(&manifest);
        // As in a job, a quarter is for deltas.
        let replay_memory = memory / 4;
        let resources =
            TableResources::new(memory - replay_memory, BACKGROUND_JOBS).with_clock(Arc::clone(&clock));
        let (selected, hold) = (None, Some((outside, pin)));
        let mut reader =
            Self { manifest, found, clock, resources, replay_memory, selected, tables, dir, hold };
        match (operator, reader.manifest.operators().as_slice()) {
            (Some(operator), _) => reader.select(&operator)?,
            (None, [only]) => {
                reader.selected = Some(Selected { operator: 0, max_parallelism: only.max_parallelism });
            }
            (None, _) => {}
        }
        Ok(reader)
    }

    // What it is.

    /// The checkpoint's id.
    pub fn checkpoint(&self) -> CheckpointId {
        self.found.retained.id
    }

    /// When the checkpoint was committed, in milliseconds since 1970 UTC.
    pub fn unix_millis(&self) -> u64 {
        self.record().map_or(0, |record| record.unix_millis)
    }

    /// How the checkpoint was taken.
    pub fn mode(&self) -> CheckpointMode {
        self.record().map_or_else(CheckpointMode::default, |record| record.mode)
    }

    /// What was given to [`Job::trigger`](crate::Job::trigger).
    pub fn metadata(&self) -> &[u8] {
        self.record().map_or(&[], |record| &record.metadata)
    }

    /// The job's operators, in the order of their subtasks, as
    /// [`JobOptions::operators`](crate::JobOptions::operators) takes them. Empty if they have no
    /// names: then there is one.
    pub fn operators(&self) -> Vec<OperatorSpec> {
        let operators = self.record().into_iter().flat_map(|record| &record.operators);
        let spec = |operator: &OperatorRecord| {
            OperatorSpec::new(operator.id.as_str(), operator.subtasks)
                .max_parallelism(operator.max_parallelism)
        };
        operators.map(spec).collect()
    }

    /// Chooses the operator whose state is read from here on. A job with one operator needs no
    /// choice.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the checkpoint has no such operator, naming those that
    /// it has.
    pub fn select(&mut self, operator: &str) -> Result<()> {
        let parts = self.manifest.operators();
        let at = parts.iter().position(|part| part.id.is_named() && part.id.as_str() == operator);
        let selected = at.and_then(|at| Some((at, parts.get(at)?)));
        let Some((at, part)) = selected else {
            let message = format!("checkpoint {} has no such operator", self.checkpoint());
            let error = Error::new(ErrorKind::NotFound, message).object(format!("operator {operator:?}"));
            return Err(error.advise(self.choices()));
        };
        self.selected = Some(Selected { operator: at, max_parallelism: part.max_parallelism });
        Ok(())
    }

    /// The subtasks with their key groups and what each gave to
    /// [`StateStore::cut`](crate::StateStore::cut), ascending by subtask. Those of all operators,
    /// unless one was chosen.
    pub fn subtasks(&self) -> impl Iterator<Item = (SubtaskIndex, KeyGroupRange, &[u8])> {
        let all = self.record().into_iter().flat_map(|record| &record.subtasks);
        let is_wanted = |subtask| {
            let of = |table: &&SubtaskTable| table.index == subtask;
            let operator = self.tables.iter().find(of).map(|table| table.operator);
            self.selected.is_none_or(|selected| Some(selected.operator) == operator)
        };
        let subtasks = all.filter(move |one| is_wanted(one.subtask));
        subtasks.map(|one| (one.subtask, one.range, one.metadata.as_slice()))
    }

    /// The states that the operator has in the checkpoint, ascending by name. Those of all
    /// operators, if there are several and none was chosen.
    pub fn states(&self) -> Vec<StateDescription> {
        let lists = self.record().and_then(|record| record.states.known());
        let lists = lists.into_iter().flat_map(StateLists::iter).enumerate();
        let wanted = lists.filter(|(at, _)| self.selected.is_none_or(|selected| selected.operator == *at));
        let states = wanted.flat_map(|(_, list)| list.iter());
        let mut states: Vec<_> = states.cloned().map(StateDescription::from).collect();
        states.sort_by(|a, b| a.name().cmp(b.name()));
        states
    }

    /// The operator's number of key groups. If there are several operators and none was chosen: that
    /// of operators to come.
    pub fn max_parallelism(&self) -> MaxParallelism {
        self.selected.map_or(self.manifest.max_parallelism, |selected| selected.max_parallelism)
    }

    // What is in it.

    /// The value of `key` in the key's own group ([`MaxParallelism::group_of`]).
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such state, naming those that there are;
    /// what a restore of the subtask may fail with, see [`Job::open`](crate::Job::open).
    pub fn get(&self, state: &str, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.get_in(state, self.max_parallelism().group_of(key), key)
    }

    /// The value of `key` in `group`, for keys that do not lie in their own group.
    ///
    /// # Errors
    /// As [`CheckpointReader::get`]; [`InvalidArgument`](ErrorKind::InvalidArgument) if the job has
    /// no such group.
    pub fn get_in(&self, state: &str, group: KeyGroup, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.stored(self.keyed(state)?.id, group, key)
    }

    /// The values of several keys, each in its own group, in their order.
    ///
    /// # Errors
    /// As [`CheckpointReader::get`].
    pub fn multi_get(&self, state: &str, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>> {
        let state = self.keyed(state)?.id;
        let mut wanted = Vec::with_capacity(keys.len());
        for (at, key) in keys.iter().enumerate() {
            let mut encoded = Vec::new();
            let group = self.max_parallelism().group_of(key);
            key::encode_into(&mut encoded, group, state, key);
            wanted.push((encoded, group, at));
        }
        // RocksDB reads ascending keys together; groups of one subtask lie side by side.
        wanted.sort_unstable();
        let mut values = vec![None; keys.len()];
        let mut left = wanted.as_slice();
        while let [(_, group, _), ..] = left {
            let range = self.table_of(*group)?.range;
            let (here, rest) = left.split_at(left.partition_point(|(_, group, _)| range.contains(*group)));
            left = rest;
            let table = self.table(*group)?;
            let encoded: Vec<_> = here.iter().map(|(key, ..)| key.as_slice()).collect();
            for (value, (.., at)) in table.multi_get(&encoded).into_iter().zip(here) {
                if let Some(slot) = values.get_mut(*at) {
                    *slot = value?.map(|value| value.to_vec());
                }
            }
        }
        Ok(values)
    }

    /// All keys of a state that start with `prefix`, over all key groups: ascending by group, and
    /// within a group by the bytes of the key. There is no order across groups.
    ///
    /// # Errors
    /// As [`CheckpointReader::get`]; the iterator yields what fails on the way, and then ends.
    pub fn scan(&self, state: &str, prefix: &[u8]) -> Result<CheckpointScan<'_>> {
        self.scan_groups(state, self.groups(), prefix)
    }

    /// As [`CheckpointReader::scan`], over some key groups.
    ///
    /// # Errors
    /// As [`CheckpointReader::scan`]; [`InvalidArgument`](ErrorKind::InvalidArgument) if the job
    /// has no such groups.
    pub fn scan_groups(
        &self,
        state: &str,
        groups: KeyGroupRange,
        prefix: &[u8],
    ) -> Result<CheckpointScan<'_>> {
        let state = self.keyed(state)?.id;
        self.table_of(groups.last)?;
        Ok(CheckpointScan::new(self, state, groups, prefix))
    }

    /// The id of the reader's pin, for [`Pins::release`](crate::admin::Pins::release) where the reader itself can't be
    /// closed any more. None where it has no pin.
    pub fn pin_id(&self) -> Option<String> {
        self.hold.as_ref().and_then(|(_, pin)| pin.as_ref()).map(Pin::id)
    }

    /// Releases the pin, and removes the local files.
    ///
    /// # Errors
    /// What the object store answers; the pin stays behind then, and the error names it.
    pub fn close(mut self) -> Result<()> {
        let Some((outside, pin)) = self.hold.take() else { return Ok(()) };
        match pin {
            Some(pin) => outside.run(async move { pin.release().await }),
            None => Ok(()),
        }
    }

    // Inside.

    fn record(&self) -> Option<&CheckpointRecord> {
        self.manifest.checkpoint()
    }

    fn selected(&self) -> Result<Selected> {
        self.selected.ok_or_else(|| {
            Error::invalid("the job has several operators, and none was chosen to be read")
                .advise(self.choices())
        })
    }

    /// For messages.
    fn choices(&self) -> String {
        let operators = self.record().map_or(&[][..], |record| &record.operators);
        let ids: Vec<_> = operators.iter().map(|operator| operator.id.as_str()).collect();
        match ids.as_slice() {
            [] => "the job names no operators: leave the operator out".to_owned(),
            ids => format!("choose one of [{}]: ReaderOptions::operator, or --operator", ids.join(", ")),
        }
    }

    /// The operator's states; they were read with the manifest.
    fn described(&self) -> Result<&[StateInfo]> {
        let operator = self.selected()?.operator;
        Ok(self.record().and_then(|record| record.states.known()).map_or(&[], |lists| lists.get(operator)))
    }

    /// All key groups.
    fn groups(&self) -> KeyGroupRange {
        KeyGroupRange { first: KeyGroup(0), last: KeyGroup(self.max_parallelism().get() - 1) }
    }

    fn stored(&self, state: StateId, group: KeyGroup, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut encoded = Vec::new();
        key::encode_into(&mut encoded, group, state, key);
        Ok(self.table(group)?.get(&encoded)?.map(|value| value.to_vec()))
    }

    fn info(&self, name: &str) -> Result<&StateInfo> {
        let known = self.described()?;
        let known = || known.iter();
        known().find(|info| info.name == name).ok_or_else(|| {
            let mut names: Vec<_> = known().map(|info| info.name.as_str()).collect();
            names.sort_unstable();
            let error = Error::new(
                ErrorKind::NotFound,
                format!("checkpoint {} has no such state", self.checkpoint()),
            )
            .object(format!("state {name:?}"));
            match names.as_slice() {
                [] => error.advise("the checkpoint has no states"),
                names => error.advise(format!("choose one of [{}]", names.join(", "))),
            }
        })
    }

    /// A state that can be read by keys.
    fn keyed(&self, name: &str) -> Result<&StateInfo> {
        let info = self.info(name)?;
        if StateDescription::from(info.clone()).is_keyed() {
            return Ok(info);
        }
        Err(Error::invalid("the state is not keyed")
            .object(format!("state {name:?}"))
            .advise("read it by CheckpointReader::operator_list or CheckpointReader::broadcast"))
    }

    fn table_of(&self, group: KeyGroup) -> Result<&SubtaskTable> {
        let operator = self.selected()?.operator;
        let mut tables = self.tables.iter().filter(|subtask| subtask.operator == operator);
        tables.find(|subtask| subtask.range.contains(group)).ok_or_else(|| {
            let groups = self.max_parallelism().get();
            Error::invalid(format!("the checkpoint has no key group {group}"))
                .advise(format!("groups are 0 to {}", groups - 1))
        })
    }

    /// The table that holds `group`, fetched if this is the first time.
    fn table(&self, group: KeyGroup) -> Result<Arc<Table>> {
        let subtask = self.table_of(group)?;
        // Locked while the subtask is fetched. A second caller waits for this table instead of fetching
        // another.
        let mut slot = subtask.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = &*slot {
            return Ok(Arc::clone(table));
        }
        let table = Arc::new(self.fetch(subtask)?);
        *slot = Some(Arc::clone(&table));
        Ok(table)
    }

    fn fetch(&self, subtask: &SubtaskTable) -> Result<Table> {
        let Some((outside, pin)) = &self.hold else { return Err(Error::internal("the reader is closed")) };
        let unpinned = pin.is_none();
        let restorer = Restorer {
            remote: Arc::clone(&outside.remote),
            resources: self.resources.clone(),
            parallel: PARALLEL_DOWNLOADS,
            memory: self.replay_memory,
        };
        let found = [self.found.clone()];
        let dir = self.dir.0.join(format!("{:05}", subtask.index.0));
        let (from, max_parallelism) = (Some(subtask.operator), self.max_parallelism());
        let SubtaskTable { index: subtask, range, .. } = *subtask;
        let (operator, number, parallelism) = (0, 0, 1);
        let target = Target { subtask, operator, number, parallelism, from, max_parallelism, range, dir };
        let restored = outside.run(async move { restorer.restore(&found, false, &[target], &[]).await });
        let restored = restored.map_err(|error| match error.kind() {
            ErrorKind::MissingObject if unpinned => error.more_advice(
                "the checkpoint was read without a pin, and the job may have collected it meanwhile: read the newest \
                 one, a savepoint, or with a pin",
            ),
            _ => error,
        })?;
        let restored = restored.subtasks.into_iter().next();
        restored.map(|restored| restored.table).ok_or_else(|| Error::internal("a restore without a result"))
    }
}

/// The subtasks of all operators. Nothing is fetched yet.
fn tables_of(manifest: &Manifest) -> Vec<SubtaskTable> {
    let parts = manifest.operators();
    let tables = parts.iter().enumerate().flat_map(|(operator, part)| {
        part.subtasks.iter().map(move |one| {
            let (index, range, table) = (one.subtask, one.range, Mutex::new(None));
            SubtaskTable { operator, index, range, table }
        })
    });
    tables.collect()
}

impl Drop for CheckpointReader {
    fn drop(&mut self) {
        if let Some((outside, Some(pin))) = self.hold.take() {
            // It would have to wait for the store, which a drop must not.
            outside.run_behind(LAST_RELEASE, pin.release());
        }
    }
}

impl fmt::Debug for CheckpointReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckpointReader").field("checkpoint", &self.checkpoint()).finish_non_exhaustive()
    }
}
