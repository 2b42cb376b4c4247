//! Alluvium as a [`Backend`]: the only module that opens jobs.

use std::sync::Arc;
use std::time::Duration;

use alluvium::{
    CheckpointId, CheckpointListener, CheckpointReport, Clock, Env, Error, ErrorKind, Job, JobOptions,
    JobStats, KeyGroup, KeyGroupRange, MaterializationReport, RestoreReport, State, StateOptions, StateStore,
};
use object_store::memory::InMemory;

use crate::backend::{Backend, Checkpoint, Events, Gauges, Materialization, Operator, Time};
use crate::failure::{Failure, Result};

/// How long deferred work may take before the run is given up.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1800);

/// Where a job's objects lie.
#[derive(Debug, Clone)]
pub(crate) enum Location {
    Url {
        url: String,
        options: Vec<(String, String)>,
    },
    /// Memory of this process. Kept here, because a URL that is opened again begins with an empty one.
    Memory(Arc<InMemory>),
}

impl Location {
    pub(crate) fn new(url: &str, options: &[(String, String)]) -> Self {
        if url.starts_with("memory:") {
            return Self::Memory(Arc::new(InMemory::new()));
        }
        Self::Url { url: url.to_owned(), options: options.to_vec() }
    }

    pub(crate) fn open(&self, options: JobOptions) -> Result<alluvium::Opened> {
        Ok(match self {
            Self::Memory(store) => Job::open_on(Arc::clone(store) as _, "job", options)?,
            Self::Url { url, options: pairs } => {
                let options = pairs.iter().fold(options, |all, (key, value)| all.store_option(key, value));
                Job::open(url, options)?
            }
        })
    }

    /// Bytes that the retained checkpoints need, where the store can be asked.
    pub(crate) fn live_bytes(&self) -> Result<Option<u64>> {
        match self {
            Self::Memory(_) => Ok(None),
            Self::Url { url, options } => Ok(Some(alluvium::inspect(url, options)?.live_bytes)),
        }
    }

    /// `file`, `memory`, `s3` …
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Memory(_) => "memory".to_owned(),
            Self::Url { url, .. } => url.split_once("://").map_or("file", |(scheme, _)| scheme).to_owned(),
        }
    }
}

/// A job and what it told.
#[derive(Debug)]
pub(crate) struct JobBackend {
    job: Job,
    events: Arc<Events>,
    metadata: Vec<u8>,
}

/// An opened job, taken apart for the driver.
#[derive(Debug)]
pub(crate) struct OpenedJob {
    pub(crate) backend: JobBackend,
    pub(crate) operators: Vec<JobOperator>,
    pub(crate) restored: RestoreReport,
    pub(crate) metadata: Option<Vec<u8>>,
}

impl JobBackend {
    /// Opens the job; its events are logged in the time of `env`.
    pub(crate) fn open(location: &Location, options: JobOptions, env: &Env) -> Result<OpenedJob> {
        let events = Arc::new(Events::default());
        let listener = Listener { events: Arc::clone(&events), clock: Arc::clone(&env.clock) };
        let opened = location.open(options.env(env.clone()).listener(Arc::new(listener)))?;
        let operators = opened.stores.into_iter().map(JobOperator::new).collect::<Result<_>>()?;
        Ok(OpenedJob {
            backend: Self { job: opened.job, events, metadata: Vec::new() },
            operators,
            restored: opened.restored,
            metadata: opened.metadata,
        })
    }

    /// What every checkpoint from now on carries.
    pub(crate) fn set_metadata(&mut self, metadata: Vec<u8>) {
        self.job.set_metadata(metadata.clone());
        self.metadata = metadata;
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

impl Backend for JobBackend {
    fn checkpoint(&self) -> Result<()> {
        loop {
            let outcome =
                self.job.trigger(self.metadata.clone()).and_then(|pending| pending.wait().map(drop));
            match outcome {
                // One is under way already, or was given up; the state is unharmed.
                Err(error) if error.kind() == ErrorKind::Aborted => {
                    self.job.health()?;
                    std::thread::sleep(Duration::from_millis(5));
                }
                outcome => return Ok(outcome?),
            }
        }
    }

    fn settle(&self) -> Result<()> {
        Ok(self.job.settle(SETTLE_TIMEOUT)?)
    }

    fn materialize(&self) {
        self.job.materialize();
    }

    fn health(&self) -> Result<()> {
        Ok(self.job.health()?)
    }

    fn gauges(&self) -> Gauges {
        let stats = self.job.stats();
        let mut gauges = Gauges { remote: stats.remote, ..Gauges::default() };
        for store in &stats.stores {
            gauges.pending_compaction_bytes += store.table.pending_compaction_bytes;
            gauges.l0_files += store.table.l0_files;
            gauges.live_sst_bytes += store.table.live_sst_bytes;
            gauges.running_compactions += store.table.running_compactions;
            gauges.held_bytes += store.held_bytes;
            gauges.blocked_writes += store.blocked_writes;
            gauges.blocked_ms += store.blocked_ms;
        }
        gauges
    }
}

/// One subtask of the job, with the one state that the workload uses.
#[derive(Debug)]
pub(crate) struct JobOperator {
    store: StateStore,
    state: State,
}

impl JobOperator {
    fn new(mut store: StateStore) -> Result<Self> {
        let state = store.state(&StateOptions::new("reference"))?;
        Ok(Self { store, state })
    }

    pub(crate) fn range(&self) -> KeyGroupRange {
        self.store.range()
    }

    /// How many records this subtask had processed at the restored checkpoint; 0 on a fresh start.
    pub(crate) fn position(&self) -> Result<u64> {
        match self.store.restored_metadata() {
            None => Ok(0),
            Some(bytes) => bytes.try_into().map(u64::from_le_bytes).map_err(|_| {
                Failure::new(format!(
                    "the checkpoint was not written by `alluvium load`: subtask {} carries {} bytes of \
                     metadata instead of its position",
                    self.store.subtask(),
                    bytes.len()
                ))
            }),
        }
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
        let bytes = report.delta_bytes + report.sst_bytes + report.manifest_bytes;
        let checkpoint = Checkpoint { start, end, bytes, puts: report.puts };
        self.events.record(|log| log.checkpoints.push(checkpoint));
    }

    fn failed(&self, _: CheckpointId, _: &Error) {
        self.events.record(|log| log.failed.push(self.clock.monotonic()));
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
