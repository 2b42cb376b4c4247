//! Alluvium as a [`Backend`]: the only module that opens jobs.

use std::sync::Arc;
use std::time::Duration;

use alluvium::{
    CheckpointId, CheckpointListener, CheckpointMode, CheckpointReport, Clock, Env, Error, ErrorKind, Job,
    JobOptions, JobStats, KeyGroup, MaterializationReport, MemoryStats, Opened, RestoreReport, State,
    StateOptions, StateStore, TableKind,
};

use crate::failure::{Failure, Result};
use crate::harness::backend::{
    Backend, Checkpoint, Events, Gauges, GoOn, Materialization, Operator, RecordCounters, Time,
};
use crate::harness::stage::StageKind;
use crate::harness::store::{PlannedOutage, RunStore};
use crate::harness::workload::{Operation, Workload};
use crate::result::{MemoryParts, Mode};

/// How long a look at deferred work waits before it asks whether to go on.
const SLICE: Duration = Duration::from_millis(500);

/// How often the end of a checkpoint is looked for.
const POLL: Duration = Duration::from_millis(1);

/// How `mode` is asked of the library. Without checkpoints the table is written to directly, as in native
/// mode.
pub(crate) fn checkpoint_mode(mode: Mode) -> CheckpointMode {
    match mode {
        Mode::Changelog => CheckpointMode::Changelog,
        Mode::Native | Mode::None => CheckpointMode::NativeIncremental,
    }
}

/// The mode that a checkpoint was taken in.
pub(crate) fn mode_of(mode: CheckpointMode) -> Mode {
    match mode {
        CheckpointMode::Changelog => Mode::Changelog,
        CheckpointMode::NativeIncremental => Mode::Native,
    }
}

/// A job and what it told.
#[derive(Debug)]
pub(crate) struct JobBackend {
    job: Job,
    mode: Mode,
    run_store: RunStore,
    outages: Vec<PlannedOutage>,
    events: Arc<Events>,
    metadata: Vec<u8>,
}

/// An opened job, taken apart for the driver.
#[derive(Debug)]
pub(crate) struct OpenedJob {
    pub(crate) backend: JobBackend,
    pub(crate) stores: Vec<StateStore>,
    pub(crate) restored: RestoreReport,
    /// How many records each subtask of that run had processed. Empty on a fresh start.
    pub(crate) positions: Vec<u64>,
}

impl JobBackend {
    /// Opens the job; its events are logged in the time of `env`. `outages` come in the measured stretch.
    pub(crate) fn open(
        run_store: &RunStore,
        mode: Mode,
        outages: &[PlannedOutage],
        options: JobOptions,
        env: &Env,
    ) -> Result<OpenedJob> {
        let events = Arc::new(Events::default());
        let listener = Listener { events: Arc::clone(&events), clock: Arc::clone(&env.clock) };
        let options = options.env(env.clone()).listener(Arc::new(listener)).mode(checkpoint_mode(mode));
        let opened = Job::open((run_store.object_store(), &run_store.prefix), options)?;
        let positions = positions(&opened)?;
        let Opened { job, stores, restored, .. } = opened;
        let backend = Self {
            job,
            mode,
            run_store: run_store.clone(),
            outages: outages.to_vec(),
            events,
            metadata: Vec::new(),
        };
        Ok(OpenedJob { backend, stores, restored, positions })
    }

    /// What every checkpoint from now on carries.
    pub(crate) fn set_metadata(&mut self, metadata: Vec<u8>) -> Result<()> {
        self.job.set_metadata(metadata.clone())?;
        self.metadata = metadata;
        Ok(())
    }

    pub(crate) fn events(&self) -> &Arc<Events> {
        &self.events
    }

    pub(crate) fn stats(&self) -> JobStats {
        self.job.stats()
    }

    pub(crate) fn close(self) -> Result<()> {
        Ok(self.job.close()?)
    }
}

/// How many records each subtask of the run that wrote the checkpoint had processed, whatever the number
/// of subtasks is now.
fn positions(opened: &Opened) -> Result<Vec<u64>> {
    let mut metadata: Vec<_> =
        opened.subtask_metadata.iter().map(|(subtask, _, bytes)| (*subtask, bytes.as_slice())).collect();
    metadata.sort_unstable_by_key(|(subtask, _)| *subtask);
    metadata
        .into_iter()
        .map(|(subtask, bytes)| {
            bytes.try_into().map(u64::from_le_bytes).map_err(|_| {
                Failure::new(format!(
                    "the checkpoint was not written by `alluvium load`: subtask {subtask} carries {} bytes of \
                     metadata instead of its position",
                    bytes.len()
                ))
            })
        })
        .collect()
}

impl Backend for JobBackend {
    fn begins(&self, stage: StageKind) {
        if stage == StageKind::Measured {
            for outage in &self.outages {
                self.run_store.store.plan_outage(outage.start, outage.length);
            }
        }
    }

    fn checkpoint(&self, go_on: GoOn<'_>) -> Result<()> {
        if !self.mode.takes_checkpoints() {
            return Ok(());
        }
        loop {
            match self.job.trigger(self.metadata.clone()).map(|pending| pending.id()) {
                Ok(id) => {
                    if self.wait_for(id, go_on)? {
                        return Ok(());
                    }
                }
                // A scheduled one is under way.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            go_on()?;
            std::thread::sleep(POLL);
        }
    }

    fn settle(&self, go_on: GoOn<'_>) -> Result<()> {
        loop {
            match self.job.settle(SLICE) {
                // Work is left.
                Err(error) if error.kind() == ErrorKind::Aborted => go_on()?,
                outcome => return Ok(outcome?),
            }
        }
    }

    fn level(&self, go_on: GoOn<'_>) -> Result<()> {
        self.job.compact()?;
        self.materialize();
        // The base first, so that the checkpoint needs no more than it.
        self.settle(go_on)?;
        self.checkpoint(go_on)?;
        self.settle(go_on)
    }

    fn materialize(&self) {
        if self.mode.materializes() {
            self.job.materialize();
        }
    }

    fn health(&self) -> Result<()> {
        Ok(self.job.health()?)
    }

    fn trouble(&self) -> Option<Error> {
        let status = self.job.status();
        self.events.read(|log| log.last_failure.clone()).or(status.trouble)
    }

    fn gauges(&self) -> Gauges {
        let stats = self.job.stats();
        let mut gauges = Gauges {
            remote: stats.remote,
            records: RecordCounters { limit_bytes: stats.memory.records_limit, ..RecordCounters::default() },
            memory: memory_parts(&stats.memory),
            stored_bytes: self.run_store.store.stored_bytes(),
            last_checkpoint: self.events.read(|log| log.checkpoints.last().copied()),
            ..Gauges::default()
        };
        for store in &stats.stores {
            gauges.pending_compaction_bytes += store.table.pending_compaction_bytes;
            gauges.l0_files += store.table.l0_files;
            gauges.live_sst_bytes += store.table.live_sst_bytes;
            gauges.running_compactions += store.table.running_compactions;
            gauges.held_bytes += store.held_bytes;
            gauges.blocked_writes += store.blocked_writes;
            gauges.blocked_ms += store.blocked_ms;
            gauges.records.hits += store.cache_hits;
            gauges.records.misses += store.cache_misses;
            gauges.records.evictions += store.cache_evictions;
            gauges.records.entries += store.cache_entries;
            gauges.records.bytes += store.cache_bytes;
        }
        gauges
    }

    fn abandon(&self) {
        // Whatever the store still answers: the run has failed already, and says why.
        let _ = self.job.clone().close();
    }
}

/// RocksDB charges memtables to the cache of blocks.
fn memory_parts(memory: &MemoryStats) -> MemoryParts {
    MemoryParts {
        records: memory.records,
        deltas: memory.deltas,
        recycled: memory.recycled,
        memtables: memory.memtables,
        blocks: memory.cache.saturating_sub(memory.memtables),
    }
}

impl JobBackend {
    /// Whether the checkpoint became durable; false if it was given up, which harms nothing.
    fn wait_for(&self, id: CheckpointId, go_on: GoOn<'_>) -> Result<bool> {
        loop {
            let verdict = self.events.read(|log| {
                let completed = log.checkpoints.iter().rev().any(|checkpoint| checkpoint.id == id);
                let failed = log.failed.iter().rev().any(|(failed, _)| *failed == id);
                completed.then_some(true).or(failed.then_some(false))
            });
            match verdict {
                Some(completed) => return Ok(completed),
                None => go_on()?,
            }
            std::thread::sleep(POLL);
        }
    }
}

/// One subtask of the job, with the one state that the workload uses.
#[derive(Debug)]
pub(crate) struct JobOperator {
    store: StateStore,
    state: State,
}

impl JobOperator {
    pub(crate) fn new(mut store: StateStore, workload: &Workload) -> Result<Self> {
        let table = match workload.operation {
            // Windows are deleted by their prefix.
            Operation::Window => TableKind::Ordered,
            _ => TableKind::Hash,
        };
        let state = store.state(&StateOptions::new("reference").table(table))?;
        Ok(Self { store, state })
    }
}

impl Operator for JobOperator {
    fn read<T>(&self, group: KeyGroup, key: &[u8], with: impl FnOnce(Option<&[u8]>) -> T) -> Result<T> {
        let value = self.store.get(self.state, group, key)?;
        Ok(with(value.as_deref()))
    }

    fn put(&mut self, group: KeyGroup, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.store.put(self.state, group, key, value)?)
    }

    fn append(&mut self, group: KeyGroup, key: &[u8], element: &[u8]) -> Result<()> {
        Ok(self.store.append(self.state, group, key, element)?)
    }

    fn delete(&mut self, group: KeyGroup, key: &[u8]) -> Result<()> {
        Ok(self.store.delete(self.state, group, key)?)
    }

    fn delete_prefix(&mut self, group: KeyGroup, prefix: &[u8]) -> Result<()> {
        Ok(self.store.delete_prefix(self.state, group, prefix)?)
    }

    fn groups(&self) -> Vec<KeyGroup> {
        self.store.range().groups().collect()
    }

    fn scan(&self, group: KeyGroup, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        for entry in self.store.scan_prefix(self.state, group, &[])? {
            let (key, value) = entry?;
            each(&key, &value);
        }
        Ok(())
    }

    fn due(&self) -> Option<CheckpointId> {
        self.store.due()
    }

    fn cut(&mut self, id: CheckpointId, position: u64) -> Result<()> {
        match self.store.cut(id, position.to_le_bytes()) {
            // The job hears of the cut by itself.
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Aborted => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Writes the job's events into the log, in the driver's time.
#[derive(Debug)]
struct Listener {
    events: Arc<Events>,
    clock: Arc<dyn Clock>,
}

impl Listener {
    /// The job counts milliseconds from its own start; what ends now began `duration_ms` ago.
    fn span(&self, duration_ms: f64) -> (Duration, Duration) {
        let end = self.clock.monotonic();
        let lasted = Duration::try_from_secs_f64(duration_ms / 1e3).unwrap_or_default();
        (end.saturating_sub(lasted), end)
    }
}

impl CheckpointListener for Listener {
    fn completed(&self, report: &CheckpointReport) {
        let (start, end) = self.span(report.duration_ms);
        let checkpoint = Checkpoint {
            id: report.id,
            start,
            end,
            bytes: report.bytes,
            puts: report.puts,
            bytes_after_trigger: report.bytes_after_trigger,
            largest_object: report.largest_object,
        };
        self.events.record(|log| {
            log.checkpoints.push(checkpoint);
            log.last_failure = None;
        });
    }

    fn failed(&self, id: CheckpointId, error: &Error) {
        self.events.record(|log| {
            log.failed.push((id, self.clock.monotonic()));
            log.last_failure = Some(error.clone());
        });
    }

    fn materialized(&self, report: &MaterializationReport) {
        let (start, end) = self.span(report.duration_ms);
        let materialization =
            Materialization { start, end, bytes: report.new_bytes, files: report.new_files };
        self.events.record(|log| log.materializations.push(materialization));
    }
}

/// The machine's time, from the environment that the job runs in.
#[derive(Debug, Clone)]
pub(crate) struct EnvTime(pub(crate) Env);

impl Time for EnvTime {
    fn now(&self) -> Duration {
        self.0.clock.monotonic()
    }

    fn sleep_until(&self, moment: Duration) {
        std::thread::sleep(moment.saturating_sub(self.now()));
    }
}
