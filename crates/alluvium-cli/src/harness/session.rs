//! One run of one mode from an opened job to its result: drive the stages, close, reopen with an empty
//! local directory, verify.

use std::path::{Path, PathBuf};
use std::time::Duration;

use alluvium::{CheckpointId, Env, JobOptions, MaterializationOptions, OpenMode, StateStore};

use crate::failure::{Exit, Failure, Result};
use crate::harness::backend::{Operator, Time};
use crate::harness::driver::{self, GROUP, Lane, Outcome, Plan};
use crate::harness::evaluate::{self, Facts, evaluate, millis};
use crate::harness::expected::{Expected, verify};
use crate::harness::job::{EnvTime, JobBackend, JobOperator, OpenedJob};
use crate::harness::meter;
use crate::harness::options::RunArgs;
use crate::harness::progress::Progress;
use crate::harness::stage::{Stage, StageKind};
use crate::harness::store::RunStore;
use crate::harness::workload::{KeyBytes, Stream, Workload};
use crate::result::{Machine, Mode, Prices, Restore, RunResult, Settings};
use crate::signals::{interrupt_flag, interrupted, waiting};
use crate::units;

/// Least time between two checkpoints, unless the interval is very short.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// A run, but for its workload, which a resumed run finds in the store.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) mode: Mode,
    pub(crate) run_store: RunStore,
    /// The job's local directory.
    pub(crate) dir: PathBuf,
    pub(crate) run: RunArgs,
    pub(crate) scenario: Option<String>,
    pub(crate) prices: Prices,
    pub(crate) materialization_interval: Option<Duration>,
    pub(crate) steady: Option<SteadyStage>,
    pub(crate) after: After,
}

/// The slow stretch after the measured one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SteadyStage {
    pub(crate) rate: u64,
    pub(crate) duration: Duration,
}

/// What is done once the job is closed.
#[derive(Debug, Clone)]
pub(crate) enum After {
    Nothing,
    /// Reopen in this empty directory; verify every key if asked to.
    Restore {
        dir: PathBuf,
        verify: bool,
    },
}

/// What a session came to: there is a result also where it failed.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) result: RunResult,
    pub(crate) failure: Option<Failure>,
}

impl Session {
    /// Opens the job, which begins to take checkpoints.
    pub(crate) fn open(&self, open: OpenMode, subtasks: u32, env: &Env) -> Result<OpenedJob> {
        meter::reset_rss_peak();
        let materialization = MaterializationOptions::new().interval(self.materialization_interval);
        let interval = self.run.checkpoint_interval;
        let options = job_options(&self.dir, open, subtasks, &self.run).materialization(materialization);
        let options = match self.mode {
            Mode::None => options,
            Mode::Changelog | Mode::Native => {
                options.checkpoint_interval(interval).min_pause(MIN_PAUSE.min(interval / 10))
            }
        };
        waiting(format!("the job at {}", self.run_store.name), || {
            JobBackend::open(&self.run_store, self.mode, &self.run.outage, options, env)
        })
    }

    fn stages(&self) -> Vec<Stage> {
        let rate = (self.run.rate > 0).then_some(self.run.rate as f64);
        let stage = |kind, rate, duration| Stage { kind, rate, duration, settle: true, materialize: false };
        let mut stages = vec![stage(StageKind::Load, None, None)];
        if !self.run.warm_up.is_zero() {
            // At full speed a warm-up would leave work behind that the measured stretch would pay for.
            let warm_up = stage(StageKind::WarmUp, rate, Some(self.run.warm_up));
            stages.push(Stage { settle: rate.is_none(), ..warm_up });
        }
        stages.push(stage(StageKind::Measured, rate, Some(self.run.duration)));
        if let Some(steady) = self.steady.filter(|_| self.mode.takes_checkpoints()) {
            let stage = stage(StageKind::Steady, Some(steady.rate as f64), Some(steady.duration));
            stages.push(Stage { materialize: true, ..stage });
        }
        stages
    }

    fn settings(&self) -> Settings {
        let checkpoints = self.mode.takes_checkpoints();
        Settings {
            rate: self.run.rate as f64,
            duration_s: self.run.duration.as_secs_f64(),
            warm_up_s: self.run.warm_up.as_secs_f64(),
            checkpoint_interval_ms: checkpoints.then(|| millis(self.run.checkpoint_interval)),
            materialization_interval_ms: self
                .materialization_interval
                .filter(|_| self.mode.materializes())
                .map(millis),
            memory_bytes: self.run.memory,
            read_cache_bytes: None,
            store: checkpoints.then(|| self.run_store.kind.clone()),
            scenario: self.scenario.clone(),
        }
    }

    /// Drives the workload on an opened job to the end. After a signal that end is near: the caller gives it
    /// [`Grace`](crate::signals::Grace) until the result is written.
    ///
    /// # Errors
    /// Only before anything was measured.
    pub(crate) fn drive(
        &self,
        opened: OpenedJob,
        workload: &Workload,
        env: &Env,
        progress: &mut Progress,
    ) -> Result<Finished> {
        let started = units::utc(env.clock.unix_millis()).replace(' ', "T") + "Z";
        let machine = meter::machine();
        let OpenedJob { mut backend, stores, positions, .. } = opened;
        let metadata = serde_json::to_vec(workload)
            .map_err(|error| Failure::new(format!("cannot write the workload as JSON: {error}")))?;
        backend.set_metadata(metadata)?;

        let streams = workload.streams().map_err(Failure::usage)?;
        let lanes = lanes(stores, &streams, &positions, workload)?;
        let stages = self.stages();
        let plan = Plan { stages: &stages, patience: self.run.patience, interrupt: interrupt_flag() };
        let outcome = driver::run(&backend, lanes, plan, &EnvTime(env.clone()), progress);
        let Outcome { runs, lanes, mut failure, interrupted: cut_short } = outcome;
        let positions: Vec<u64> = lanes.iter().map(|lane| lane.position).collect();
        drop(lanes);

        let mut result = evaluate(self.facts(workload, machine, &backend), &runs);
        result.label = self.run.label.clone().or_else(|| self.scenario.clone());
        result.started_at = Some(started);
        self.add_notes(&mut result);
        if failure.is_none() && !cut_short && result.records == 0 {
            failure = Some(nothing_measured(&self.run));
        }
        // What a failed job still says at its end is no news.
        let closed = waiting(self.run_store.name.clone(), || backend.close());
        if failure.is_none() {
            failure = closed.err();
        }
        if failure.is_none() && !interrupted() {
            match self.restore_after(workload, &streams, &positions, env, progress) {
                Ok(restored) => result.restore = restored,
                // The run itself is whole, and so is its result.
                Err(error) if error.exit == Exit::Interrupted => {}
                Err(error) => failure = Some(error),
            }
        }
        if interrupted()
            && result.restore.is_none()
            && matches!(&self.after, After::Restore { verify: true, .. })
        {
            const NOT_VERIFIED: &str = "Not verified: the run was interrupted.";
            result.notes.push(NOT_VERIFIED.to_owned());
            progress.say(NOT_VERIFIED);
        }
        result.ended_early = match &failure {
            Some(failure) => Some(failure.to_string()),
            None => cut_short.then(|| "interrupted by a signal".to_owned()),
        };
        if cut_short && failure.is_none() {
            progress.say("ended early; the figures are those up to then");
        }
        Ok(Finished { result, failure })
    }

    fn facts(&self, workload: &Workload, machine: Machine, backend: &JobBackend) -> Facts {
        Facts {
            mode: self.mode,
            workload: workload.clone(),
            settings: self.settings(),
            machine,
            store_model: self.run_store.spec(&self.run.outage).filter(|_| self.mode.takes_checkpoints()),
            prices: self.prices,
            log: backend.events().read(Clone::clone),
            stored_bytes_peak: self.run_store.store.stored_bytes_peak(),
            table_options: backend.stats().table_options,
        }
    }

    /// What a reader of the figures must know.
    fn add_notes(&self, result: &mut RunResult) {
        if !self.mode.takes_checkpoints() {
            result.notes.push(NONE_NOTE.to_owned());
        }
        if self.run_store.kind == "file" {
            result.notes.push(LOCAL_STORE_NOTE.to_owned());
        }
        if result.store_model.is_some() {
            result.notes.push(MODEL_NOTE.to_owned());
        }
    }

    /// Restores the job that was closed, if that was asked for and there is a checkpoint to restore.
    fn restore_after(
        &self,
        workload: &Workload,
        streams: &[Stream],
        positions: &[u64],
        env: &Env,
        progress: &Progress,
    ) -> Result<Option<Restore>> {
        let After::Restore { dir, verify } = &self.after else { return Ok(None) };
        if !self.mode.takes_checkpoints() {
            return Ok(None);
        }
        progress.say(if *verify { "restoring and verifying every key" } else { "restoring" });
        let options = job_options(dir, OpenMode::Existing, workload.subtasks, &self.run);
        let positions = Some(positions);
        let (restored, _) =
            restore(&self.run_store, self.mode, options, streams, workload, positions, *verify, env)?;
        Ok(Some(restored))
    }
}

/// An operator for each store, on its stream, at the position that the store was restored to.
fn lanes<'s>(
    stores: Vec<StateStore>,
    streams: &'s [Stream],
    positions: &[u64],
    workload: &Workload,
) -> Result<Vec<Lane<'s, JobOperator>>> {
    let mut lanes = Vec::new();
    for (index, (store, stream)) in stores.into_iter().zip(streams).enumerate() {
        let position = positions.get(index).copied().unwrap_or(0);
        lanes.push(Lane { operator: JobOperator::new(store, workload)?, stream, position });
    }
    Ok(lanes)
}

/// A paced run releases its records in groups; a slow and short one may not come to the first.
fn nothing_measured(run: &RunArgs) -> Failure {
    let failure =
        Failure::new(format!("nothing was measured: no record was processed within {:?}", run.duration));
    match run.rate {
        0 => failure.hint("choose a longer --duration"),
        rate => failure.hint(&format!(
            "at --rate {rate} each subtask releases {GROUP} records at a time: choose a longer --duration or a higher --rate"
        )),
    }
}

const NONE_NOTE: &str = "Mode none: RocksDB with the same options, and no checkpoints at all. Nothing is durable, so \
    its clock stops when compaction has settled.";
const LOCAL_STORE_NOTE: &str =
    "The object store is a local directory: the bytes written to local disks contain what was put into it.";
const MODEL_NOTE: &str = "The store's latency and bandwidth are modelled, without TLS, HTTP and signing: CPU figures \
    lack what these cost.";

fn job_options(dir: &Path, open: OpenMode, subtasks: u32, run: &RunArgs) -> JobOptions {
    run.tune(JobOptions::new(dir, open).subtasks(subtasks))
}

/// Opens the job with an empty local directory, processes one record in every subtask, and verifies if
/// asked to. Says which checkpoint it was. `positions` are those that the checkpoint must be at, where they are known.
#[expect(clippy::too_many_arguments, reason = "all of them are facts about one restore")]
pub(crate) fn restore(
    run_store: &RunStore,
    mode: Mode,
    options: JobOptions,
    streams: &[Stream],
    workload: &Workload,
    positions: Option<&[u64]>,
    verified: bool,
    env: &Env,
) -> Result<(Restore, Option<CheckpointId>)> {
    let time = EnvTime(env.clone());
    let disk = meter::disk_read_bytes();
    let start = time.now();
    let opened = waiting(format!("the restore from {}", run_store.name), || {
        JobBackend::open(run_store, mode, &[], options, env)
    })?;
    let total = time.now().saturating_sub(start);
    let stores = opened.stores;
    let mut operators: Vec<JobOperator> =
        stores.into_iter().map(|store| JobOperator::new(store, workload)).collect::<Result<_>>()?;
    let all: Vec<(&Stream, usize)> =
        streams.iter().flat_map(|s| (0..s.own_keys().min(1) as usize).map(move |index| (s, index))).collect();
    for operator in &operators {
        let groups = operator.groups();
        let mine = |stream: &Stream, index| groups.binary_search(&stream.group_of(stream.key(index))).is_ok();
        // Reading is what a record begins with; a write would not be the run's own.
        if let Some((stream, index)) = all.iter().find(|(stream, index)| mine(stream, *index)) {
            let key = stream.key(*index);
            operator.read(stream.group_of(key), &KeyBytes::new(key, None), |_| ())?;
        }
    }
    let first_record = time.now().saturating_sub(start);
    let fetched = meter::disk_read_bytes().zip(disk).map(|(after, before)| after.saturating_sub(before));

    if opened.positions.len() != streams.len() {
        return Err(Failure::new(format!(
            "the checkpoint has the positions of {} subtasks, but the workload has {}",
            opened.positions.len(),
            streams.len()
        )));
    }
    if let Some(wanted) = positions
        && wanted != opened.positions
    {
        return Err(Failure::new(format!(
            "the subtasks were restored at the records {:?}, but the last checkpoint was taken at {wanted:?}",
            opened.positions
        )));
    }
    let verdict = if verified {
        Some(verify(&mut operators, &Expected::after(streams, &opened.positions))?)
    } else {
        None
    };
    let subtasks = operators.len();
    drop(operators);
    opened.backend.close()?;
    let mut restored = evaluate::restore(total, first_record, &opened.restored, subtasks, verdict);
    if run_store.kind == "file" {
        // What was not fetched from a disk was in memory already.
        restored.page_cache_warm = fetched.map(|bytes| bytes < opened.restored.bytes_downloaded / 2);
    }
    Ok((restored, opened.restored.checkpoint))
}

/// What verification found, or the failure that it is.
pub(crate) fn judge(result: &RunResult) -> Result<Option<String>> {
    let Some(restore) = &result.restore else { return Ok(None) };
    let (Some(keys), Some(missing), Some(wrong), Some(extra)) =
        (restore.keys, restore.missing_keys, restore.wrong_keys, restore.extra_keys)
    else {
        return Ok(None);
    };
    let n = |n: u64| units::count(n as f64);
    let mode = result.mode.name();
    if missing == 0 && wrong == 0 && extra == 0 {
        return Ok(Some(format!("{mode}: all {} keys right after the restore", n(keys))));
    }
    Err(Failure::new(format!(
        "the restored state is not the one that was checkpointed ({mode} mode): {} keys missing, {} wrong, {} extra \
         of {}\n  {}",
        n(missing),
        n(wrong),
        n(extra),
        n(keys),
        restore.examples.join("\n  ")
    )))
}
