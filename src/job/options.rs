//! Options of a job. Every setter's documentation ends in its default.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::CacheLimits;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::ids::SubtaskIndex;
use crate::key_group::MaxParallelism;
use crate::machine;
use crate::manifest::{CheckpointMode, OpenMode, RestoreFrom};
use crate::materialize::MaterializationOptions;
use crate::store::{Revision, validate_revisions};
use crate::table::Tuning;

use super::members::{self, elsewhere};
use super::operators::{OperatorSpec, Operators};
use super::{CheckpointListener, SourceJob};

/// Options of a job: where its local files live and how it checkpoints.
///
/// ```
/// use std::time::Duration;
///
/// use alluvium::{JobOptions, OpenMode};
///
/// let options = JobOptions::new("/var/cache/job", OpenMode::CreateOrOpen)
///     .subtasks(8) // may differ at every start
///     .memory(4_000_000_000) // of all subtasks together, in bytes
///     .checkpoint_interval(Duration::from_secs(10))
///     .retained(5);
/// ```
///
/// With an interval, the source must still send barriers where records travel between subtasks
/// ([`checkpoint_interval`](Self::checkpoint_interval)).
#[derive(Clone, Debug)]
pub struct JobOptions {
    pub(crate) dir: PathBuf,
    pub(crate) open_mode: OpenMode,
    /// Of all operators together.
    pub(crate) subtasks: u32,
    pub(crate) operators: Operators,
    /// Subtasks whose stores are in other processes.
    pub(crate) members: Vec<Range<u32>>,
    pub(crate) max_parallelism: Option<MaxParallelism>,
    pub(crate) mode: CheckpointMode,
    pub(crate) restore_from: RestoreFrom,
    pub(crate) revisions: Vec<Revision>,
    pub(crate) start_from: Option<SourceJob>,
    pub(crate) fallback: bool,
    pub(crate) memory: u64,
    pub(crate) record_cache: Option<CacheLimits>,
    pub(crate) delta_bytes: Option<u64>,
    pub(crate) background_jobs: Option<usize>,
    pub(crate) max_open_files: Option<u32>,
    pub(crate) tuning: Tuning,
    pub(crate) inline_limit: u64,
    pub(crate) retained: usize,
    pub(crate) checkpoint_interval: Option<Duration>,
    pub(crate) min_pause: Duration,
    pub(crate) checkpoint_timeout: Duration,
    pub(crate) tolerable_failed_checkpoints: Option<u32>,
    pub(crate) restore_patience: Duration,
    pub(crate) materialization: MaterializationOptions,
    pub(crate) listener: Option<Arc<dyn CheckpointListener>>,
    pub(crate) env: Env,
}

impl JobOptions {
    /// The defaults, for a job whose local files live in `dir` (created if absent; used by one
    /// process at a time). The directory is a cache: the truth is in the object store.
    pub fn new(dir: impl Into<PathBuf>, open_mode: OpenMode) -> Self {
        Self {
            dir: dir.into(),
            open_mode,
            subtasks: 1,
            operators: Operators::default(),
            members: Vec::new(),
            max_parallelism: None,
            mode: CheckpointMode::default(),
            restore_from: RestoreFrom::Latest,
            revisions: Vec::new(),
            start_from: None,
            fallback: false,
            memory: 512_000_000,
            record_cache: None,
            delta_bytes: None,
            background_jobs: None,
            max_open_files: None,
            tuning: Tuning::default(),
            inline_limit: 256 * 1024,
            retained: 3,
            checkpoint_interval: None,
            min_pause: Duration::from_millis(100),
            checkpoint_timeout: Duration::from_secs(600),
            tolerable_failed_checkpoints: None,
            restore_patience: Duration::from_secs(600),
            materialization: MaterializationOptions::default(),
            listener: None,
            env: Env::default(),
        }
    }

    /// Number of parallel subtasks, each with a [`StateStore`](crate::StateStore) of its own. It
    /// may differ at every start, up to the max parallelism: a restore gives each subtask the state
    /// of the key groups that it owns now. Default 1.
    #[must_use]
    pub fn subtasks(mut self, subtasks: u32) -> Self {
        self.subtasks = subtasks;
        self
    }

    /// The job's operators, each with a number of subtasks, states and key groups of its own, and
    /// all with the same checkpoints. They take the place of [`subtasks`](Self::subtasks).
    /// [`Opened::stores`](crate::Opened::stores) has the stores of the first operator, then those of
    /// the second, and so on; [`Opened::take_operator`](crate::Opened::take_operator) takes those of
    /// one.
    ///
    /// At the next start operators are found by their ids, whatever their order. Each may have
    /// another number of subtasks then. A new one starts empty. If one of the checkpoint is left
    /// out, opening fails with [`Incompatible`](crate::ErrorKind::Incompatible), unless
    /// [`allow_dropped_operator`](Self::allow_dropped_operator) names it. A job that has been
    /// without named operators goes on with [`OperatorSpec::was_unnamed`]. Default: one operator
    /// without a name.
    #[must_use]
    pub fn operators(mut self, operators: impl IntoIterator<Item = OperatorSpec>) -> Self {
        self.operators.set(operators.into_iter().collect());
        self.subtasks = self.operators.subtasks();
        self
    }

    /// Lets the state of an operator go that the checkpoint has and the job has no more. The empty
    /// id stands for a job that named no operators. Nothing happens if the checkpoint has no such
    /// operator, so this may stay in the program. Default none.
    #[must_use]
    pub fn allow_dropped_operator(mut self, id: impl Into<String>) -> Self {
        self.operators.may_drop(id.into());
        self
    }

    /// Subtasks that other processes hold: a range of them for each, by which it is the member
    /// number 0, 1, …. The process that opens the job is the *committer*, and holds the others, if
    /// any are left. Each member opens its part by [`Member::open`](crate::Member::open) with its
    /// [`Assignment`](crate::Assignment), of which [`Opened::assignments`](crate::Opened::assignments) has one
    /// for each. Members may differ at every start, as the number of subtasks may.
    ///
    /// [`memory`](Self::memory) is then that of the stores in this process. With
    /// [`fallback`](Self::fallback), damage is passed over where this process finds it: in manifests, and in what its
    /// own subtasks restore. A job that still needs [another job](Self::start_from) has no members. Default none.
    #[must_use]
    pub fn members(mut self, subtasks: impl IntoIterator<Item = Range<u32>>) -> Self {
        self.members = subtasks.into_iter().collect();
        self
    }

    /// Number of key groups of a new job; an existing job must have the same. Operators may have
    /// others ([`OperatorSpec::max_parallelism`]). Default 128.
    #[must_use]
    pub fn max_parallelism(mut self, groups: MaxParallelism) -> Self {
        self.max_parallelism = Some(groups);
        self
    }

    /// How checkpoints are taken. Default [`CheckpointMode::Changelog`].
    #[must_use]
    pub fn mode(mut self, mode: CheckpointMode) -> Self {
        self.mode = mode;
        self
    }

    /// Which checkpoint to continue from. Default [`RestoreFrom::Latest`].
    #[must_use]
    pub fn restore_from(mut self, from: RestoreFrom) -> Self {
        self.restore_from = from;
        self
    }

    /// Drops a state that the program no longer has. Its entries are deleted when the job opens,
    /// and its name is free from the first checkpoint on. Nothing happens if there is no such
    /// state, so the option may stay in the program; the attempt refuses to register the name.
    /// Files shrink as RocksDB compacts, or at once by [`Job::compact`](crate::Job::compact) and
    /// [`Job::materialize`](crate::Job::materialize). A state that is neither registered nor
    /// dropped stays in every checkpoint ([`StateStore::states`](crate::StateStore::states)).
    /// Default none.
    #[must_use]
    pub fn drop_state(mut self, name: impl Into<String>) -> Self {
        self.revisions.push(Revision::Drop(name.into()));
        self
    }

    /// Gives a state another name when the job opens; nothing is rewritten. Nothing happens if an
    /// earlier start has done it, so the option may stay in the program. Opening fails with
    /// [`NotFound`](crate::ErrorKind::NotFound) if the checkpoint has neither name, and with
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) if it has both. Unless
    /// [`fallback`](Self::fallback) is set, nothing was written then, and a running attempt goes
    /// on. Default none.
    #[must_use]
    pub fn rename_state(mut self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.revisions.push(Revision::Rename { from: from.into(), to: to.into() });
        self
    }

    /// Starts a new job from a checkpoint or savepoint of another job, which stays as it is
    /// (Flink's NO_CLAIM mode). The files that the new job needs are copied in the background,
    /// within the object store if both jobs live in the same one. The first checkpoint of the new
    /// job waits for that. From then on the new job needs nothing of the other job
    /// ([`Job::is_independent`](crate::Job::is_independent)), which may go on, or be deleted.
    ///
    /// The new job takes over the other job's max parallelism. A job that has a checkpoint of its
    /// own continues from that and ignores the option, so the option may stay in the program.
    /// Default none.
    #[must_use]
    pub fn start_from(mut self, source: SourceJob) -> Self {
        self.start_from = Some(source);
        self
    }

    /// Whether a restore may fall back to an earlier retained checkpoint if the newest manifests
    /// cannot be read, or an object of the wanted checkpoint is corrupt or missing. The
    /// [`RestoreReport`](crate::RestoreReport) says what was skipped and why. Default false.
    #[must_use]
    pub fn fallback(mut self, allowed: bool) -> Self {
        self.fallback = allowed;
        self
    }

    /// Bytes for block caches, memtables and deltas of all subtasks together: at least 1 MB for each, and at most
    /// what the machine or its control group has. Default 512 MB.
    ///
    /// A process takes at most that, and 128 MB, and 1 MB for each subtask. What the program itself holds comes on
    /// top.
    ///
    /// With the defaults of glibc's allocator a process takes up to half as much again: set `MALLOC_ARENA_MAX=2` in
    /// its environment. Or link another allocator that you have measured under your load. It must serve C++ as well,
    /// because most of the memory is RocksDB's (feature `override` of the crate `mimalloc`,
    /// `unprefixed_malloc_on_supported_platforms` of `tikv-jemallocator`).
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// For tests (cargo feature `test-util`): exact bytes for the cache of records of each subtask, and the number of
    /// operations on a state after which the cache decides anew whether the state is read often enough. Below
    /// 256 KiB there is no cache. Changelog mode only. Default: seven sixteenths of the subtask's share of the memory, and
    /// 1,024 operations.
    #[cfg(feature = "test-util")]
    #[must_use]
    pub fn record_cache(mut self, bytes: u64, window: u32) -> Self {
        self.record_cache = Some(CacheLimits { bytes, window, lent: false, reserved: false });
        self
    }

    /// Flushes and compactions of RocksDB that run at a time, of all subtasks together: 1 to 64, a quarter of
    /// them flushes. Their threads belong to the process: RocksDB shares them between all jobs, and a job that
    /// wants fewer than one before it ends none of them. Default: one for each core, 2 to 16, and at least 4 for
    /// three subtasks or more.
    #[must_use]
    pub fn background_jobs(mut self, jobs: usize) -> Self {
        self.background_jobs = Some(jobs);
        self
    }

    /// SST files that all subtasks together keep open, at least 10 for each. RocksDB opens others when they are
    /// read, which costs a read several times its time. Default: what an eighth of the memory has room for, at
    /// 8 KiB a file, and at least 64 for each subtask.
    ///
    /// Opening a job raises the process's soft limit of open files (`ulimit -Sn`) where it is too low for that, as
    /// far as the hard limit allows. Where the hard limit is too low as well, tables keep fewer files open, and
    /// a limit below 18 for each subtask and 64 is refused. A host that must keep its soft limit low, because it uses
    /// `select`, sets this option to less than three quarters of the limit less 8 for each subtask.
    #[must_use]
    pub fn max_open_files(mut self, files: u32) -> Self {
        self.max_open_files = Some(files);
        self
    }

    /// Sets an option of RocksDB by its name there, for all tables of the job: `compression`,
    /// `bottommost_compression`, `target_file_size_base` and the like. The last value of a name counts. Default none.
    ///
    /// Only options that break no invariant may be set. The error for any other says why, and lists those that may.
    /// Two names are the library's own: `partition_filters` (`true`: indexes and filters in parts, for state whose
    /// filters do not fit the memory), and `rate_limiter_bytes_per_second` (of flushes and compactions of all
    /// subtasks together, in equal shares).
    #[must_use]
    pub fn rocksdb_option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.tuning.set(name.into(), value.into());
        self
    }

    /// Size in bytes at which a subtask's active delta is cut between two barriers and uploaded
    /// early. A checkpoint has to upload at most that much at its barrier. Default: the subtask's
    /// share of the memory divided by 64, 1 to 4 MiB, but never more than a sixteenth of the share.
    #[must_use]
    pub fn delta_bytes(mut self, bytes: u64) -> Self {
        self.delta_bytes = Some(bytes);
        self
    }

    /// Deltas up to this many sealed bytes (a subtask's tail together) travel inside the manifest
    /// instead of as objects of their own. Default 256 KiB; never more than a sixteenth of the subtask's share of the
    /// memory, nor than 4 MiB divided by the number of subtasks.
    #[must_use]
    pub fn inline_limit(mut self, bytes: u64) -> Self {
        self.inline_limit = bytes;
        self
    }

    /// How many of the newest checkpoints are kept. At least 1. Default 3.
    #[must_use]
    pub fn retained(mut self, checkpoints: usize) -> Self {
        self.retained = checkpoints;
        self
    }

    /// Triggers a checkpoint every `interval`; operators find it by
    /// [`StateStore::due`](crate::StateStore::due). Default: only when
    /// [`Job::trigger`](crate::Job::trigger) is called.
    ///
    /// Each store finds the checkpoint at its own place in the stream. With a shared source, or
    /// records that travel between subtasks, the source asks [`Job::due`](crate::Job::due) between
    /// two records and sends the checkpoint's id to all operators as a barrier; the operators then
    /// do not ask `StateStore::due`.
    #[must_use]
    pub fn checkpoint_interval(mut self, interval: Duration) -> Self {
        self.checkpoint_interval = Some(interval);
        self
    }

    /// Least time between the end of a checkpoint and the next scheduled trigger. Default 100 ms.
    #[must_use]
    pub fn min_pause(mut self, pause: Duration) -> Self {
        self.min_pause = pause;
        self
    }

    /// A checkpoint that is not durable after this time is aborted. Its deltas are uploaded and
    /// belong to the next checkpoint. Default 10 minutes.
    #[must_use]
    pub fn checkpoint_timeout(mut self, timeout: Duration) -> Self {
        self.checkpoint_timeout = timeout;
        self
    }

    /// How many checkpoints in a row may fail (Flink's `execution.checkpointing.tolerable-failed-checkpoints`). One more
    /// ends the attempt with [`Overdue`](crate::ErrorKind::Overdue), so that whoever started the process can start it
    /// again. What a caller aborts does not count. A process that hangs needs this: its checkpoints are given up after
    /// their [timeout](Self::checkpoint_timeout), and [`CheckpointListener::ended`] can end the process, which its own
    /// threads can't. Default: any number, because an outage of the object store passes by itself.
    #[must_use]
    pub fn tolerable_failed_checkpoints(mut self, checkpoints: u32) -> Self {
        self.tolerable_failed_checkpoints = Some(checkpoints);
        self
    }

    /// How long a restore waits for an object store that fails or does not answer, counted for each
    /// request from its first failure or its last byte. Meanwhile it tries again, logs a warning,
    /// and calls [`CheckpointListener::restore_waits`]. After that time the job does not open; the
    /// next start continues with the files that are already on disk. A failure that does not pass
    /// by itself, such as missing permissions, ends the restore at once. So does any failure before
    /// the restore has begun, when it is not known yet that there is a store. Default 10 minutes.
    #[must_use]
    pub fn restore_patience(mut self, patience: Duration) -> Self {
        self.restore_patience = patience;
        self
    }

    /// When new bases are taken. Default: see [`MaterializationOptions`].
    #[must_use]
    pub fn materialization(mut self, options: MaterializationOptions) -> Self {
        self.materialization = options;
        self
    }

    /// Receives the outcome of every checkpoint, on a background thread. Default none.
    #[must_use]
    pub fn listener(mut self, listener: Arc<dyn CheckpointListener>) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Time and randomness. Default: the machine's.
    #[must_use]
    pub fn env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }

    /// The subtasks whose stores are in this process.
    pub(crate) fn held(&self) -> impl Iterator<Item = SubtaskIndex> {
        (0..self.subtasks).map(SubtaskIndex).filter(|subtask| !elsewhere(&self.members, *subtask))
    }

    /// How many subtasks' stores are in this process.
    pub(crate) fn held_here(&self) -> u32 {
        let elsewhere = self.members.iter().map(|range| range.end.saturating_sub(range.start));
        elsewhere.fold(self.subtasks, u32::saturating_sub)
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let refuse = |message: &str| Err(Error::invalid(message));
        self.operators.validate(&self.revisions)?;
        if self.subtasks == 0 {
            return refuse("a job has at least 1 subtask");
        }
        members::validate(&self.members, self.subtasks)?;
        if self.operators.are_named() && self.subtasks != self.operators.subtasks() {
            return Err(Error::invalid("the job has both a number of subtasks and operators with theirs")
                .advise("leave out JobOptions::subtasks"));
        }
        // For a new job this is known before anything is written.
        let new = (self.open_mode == OpenMode::Create).then(MaxParallelism::default);
        if let Some(max) = self.max_parallelism.or(new)
            && self.subtasks > u32::from(max.get())
            && !self.operators.are_named()
        {
            return Err(Error::invalid(format!(
                "{} subtasks are more than the max parallelism of {}",
                self.subtasks,
                max.get()
            ))
            .advise("choose a larger max parallelism when the job is created"));
        }
        if self.start_from.is_some() && self.open_mode == OpenMode::Existing {
            return Err(Error::invalid("a job that starts from another one is not an existing one")
                .advise("open it with OpenMode::Create or OpenMode::CreateOrOpen"));
        }
        validate_revisions(&self.revisions)?;
        if self.retained == 0 {
            return refuse("at least 1 checkpoint must be retained");
        }
        let held = self.held_here().max(1);
        if self.memory < u64::from(held) * MIN_MEMORY_PER_SUBTASK {
            return Err(Error::invalid(format!(
                "{} bytes of memory are too few for {held} subtasks",
                self.memory
            ))
            .advise(format!(
                "give at least {MIN_MEMORY_PER_SUBTASK} bytes for each subtask: a delta, a memtable and some \
                 blocks of files must fit at once"
            )));
        }
        machine::check_memory(self.memory)?;
        if self.background_jobs.is_some_and(|jobs| !(1..=64).contains(&jobs)) {
            return refuse("1 to 64 background jobs may run at a time");
        }
        if self.max_open_files.is_some_and(|files| files / held < LEAST_OPEN_FILES) {
            return Err(Error::invalid("the tables may keep too few files open")
                .advise(format!("let them have at least {LEAST_OPEN_FILES} for each subtask")));
        }
        self.tuning.validate()?;
        if self.checkpoint_interval.is_some_and(|interval| interval.is_zero()) {
            return refuse("the checkpoint interval must be longer than 0");
        }
        if self.checkpoint_timeout.is_zero() {
            return refuse("a timeout must be longer than 0");
        }
        if self.delta_bytes.is_some_and(|bytes| !DELTA_BYTES.contains(&bytes)) {
            return refuse("a delta's size limit must be 4096 bytes to 1 GiB");
        }
        if self.materialization.bytes_per_second == Some(0) {
            return refuse("an upload rate of 0 bytes per second would never end; None is unlimited");
        }
        if self.materialization.interval.is_some_and(|interval| interval.is_zero()) {
            return refuse("the materialization interval must be longer than 0");
        }
        Ok(())
    }
}

/// SST files that RocksDB keeps open at least, for each table.
pub(crate) const LEAST_OPEN_FILES: u32 = 10;
/// What a delta's size limit may be.
const DELTA_BYTES: std::ops::RangeInclusive<u64> = 4096..=1 << 30;
/// Below this a store has no room for a delta, a memtable and a block cache at once.
const MIN_MEMORY_PER_SUBTASK: u64 = 1_000_000;
