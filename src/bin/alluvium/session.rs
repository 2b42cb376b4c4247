//! One run of one mode from an opened job to its report: drive the stages, close, reopen with an
//! empty local directory, verify.

use std::path::{Path, PathBuf};
use std::time::Duration;

use alluvium::{CheckpointMode, Env, JobOptions, MaterializationOptions, OpenMode};

use crate::backend::{Operator, Time};
use crate::driver::{self, Lane, Stage, StageKind};
use crate::expected::{Verdict, verify};
use crate::failure::{Failure, Result};
use crate::job::{EnvTime, JobBackend, JobOperator, Location, OpenedJob};
use crate::meter;
use crate::options::RunArgs;
use crate::progress::Progress;
use crate::report::{self, Facts, Restore, RunReport, Settings, millis};
use crate::units;
use crate::workload::{Stream, Workload};

/// A run, but for its workload, which a resumed run finds in the store.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) mode: CheckpointMode,
    pub(crate) location: Location,
    /// The job's local directory.
    pub(crate) dir: PathBuf,
    pub(crate) run: RunArgs,
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

pub(crate) fn mode_name(mode: CheckpointMode) -> &'static str {
    match mode {
        CheckpointMode::Changelog => "changelog",
        CheckpointMode::NativeIncremental => "native",
    }
}

impl Session {
    fn options(&self, dir: &Path, open: OpenMode, subtasks: u32) -> JobOptions {
        JobOptions::new(dir, open).mode(self.mode).subtasks(subtasks).memory(self.run.memory)
    }

    /// Opens the job, which begins to take checkpoints.
    pub(crate) fn open(&self, open: OpenMode, subtasks: u32, env: &Env) -> Result<OpenedJob> {
        meter::reset_rss_peak();
        let materialization = MaterializationOptions {
            interval: self.materialization_interval,
            ..MaterializationOptions::default()
        };
        let options = self
            .options(&self.dir, open, subtasks)
            .checkpoint_interval(self.run.checkpoint_interval)
            .materialization(materialization);
        JobBackend::open(&self.location, options, env)
    }

    fn stages(&self) -> Vec<Stage> {
        let rate = (self.run.rate > 0).then_some(self.run.rate as f64);
        let stage = |kind, rate, duration| Stage { kind, rate, duration, settle: true, materialize: false };
        let mut stages = vec![stage(StageKind::Load, None, None)];
        if !self.run.warm_up.is_zero() {
            let warm_up = stage(StageKind::WarmUp, rate, Some(self.run.warm_up));
            stages.push(Stage { settle: false, ..warm_up });
        }
        stages.push(stage(StageKind::Measured, rate, Some(self.run.duration)));
        if let Some(steady) = self.steady {
            let stage = stage(StageKind::Steady, Some(steady.rate as f64), Some(steady.duration));
            stages.push(Stage { materialize: true, ..stage });
        }
        stages
    }

    fn settings(&self) -> Settings {
        Settings {
            rate: self.run.rate as f64,
            duration_s: self.run.duration.as_secs_f64(),
            warm_up_s: self.run.warm_up.as_secs_f64(),
            checkpoint_interval_ms: millis(self.run.checkpoint_interval),
            materialization_interval_ms: self.materialization_interval.map(millis),
            memory: self.run.memory,
            store: self.location.kind(),
        }
    }

    /// Drives the workload on an opened job to the end.
    pub(crate) fn drive(
        &self,
        opened: OpenedJob,
        workload: &Workload,
        env: &Env,
        progress: &mut Progress,
    ) -> Result<RunReport> {
        let OpenedJob { mut backend, operators, .. } = opened;
        let metadata = serde_json::to_vec(workload)
            .map_err(|error| Failure::new(format!("cannot write the workload as JSON: {error}")))?;
        backend.set_metadata(metadata);

        let streams = workload.streams().map_err(Failure::usage)?;
        let lanes = lanes(operators, &streams)?;
        let (stages, lanes) = driver::run(&backend, lanes, &self.stages(), &EnvTime(env.clone()), progress)?;
        let positions: Vec<u64> = lanes.iter().map(|lane| lane.position).collect();
        drop(lanes);

        let live_bytes = self.location.live_bytes()?;
        let table_options = backend.stats().table_options;
        let log = backend.events().read(Clone::clone);
        backend.close()?;
        let restore = match &self.after {
            After::Nothing => None,
            After::Restore { dir, verify } => {
                progress.say(if *verify { "restoring and verifying every key" } else { "restoring" });
                Some(self.restore(dir, &streams, &positions, *verify, env)?)
            }
        };
        let facts = Facts {
            mode: self.mode,
            workload: workload.clone(),
            settings: self.settings(),
            log,
            live_bytes,
            restore,
            table_options,
        };
        report::build(facts, &stages).ok_or_else(|| Failure::new("the run has no measured stage"))
    }

    /// Opens the job again with an empty local directory, in the same process.
    fn restore(
        &self,
        dir: &Path,
        streams: &[Stream],
        positions: &[u64],
        verified: bool,
        env: &Env,
    ) -> Result<Restore> {
        let time = EnvTime(env.clone());
        let start = time.now();
        let options = self.options(dir, OpenMode::Existing, streams.len() as u32);
        let OpenedJob { backend, operators, restored, .. } = JobBackend::open(&self.location, options, env)?;
        let total = time.now().saturating_sub(start);
        let lanes = lanes(operators, streams)?;
        for lane in lanes.iter().filter(|lane| lane.stream.own_keys() > 0) {
            let key = lane.stream.key(0).to_be_bytes();
            lane.operator.read(lane.stream.group_of(&key), &key, |_| ())?;
        }
        let first_record = time.now().saturating_sub(start);

        for (lane, position) in lanes.iter().zip(positions) {
            if lane.position != *position {
                return Err(Failure::new(format!(
                    "subtask {} was restored at record {}, but its last checkpoint was taken at {}",
                    lane.stream.subtask(),
                    lane.position,
                    position
                )));
            }
        }
        let verdict = if verified { Some(verify_all(&lanes)?) } else { None };
        drop(lanes);
        backend.close()?;
        Ok(Restore::new(total, first_record, &restored, verdict))
    }
}

/// Each operator with its stream, at the position that its checkpoint says.
fn lanes(operators: Vec<JobOperator>, streams: &[Stream]) -> Result<Vec<Lane<'_, JobOperator>>> {
    operators
        .into_iter()
        .zip(streams)
        .map(|(operator, stream)| {
            let position = operator.position()?;
            Ok(Lane { operator, stream, position })
        })
        .collect()
}

/// Every key of every subtask, one thread each.
fn verify_all(lanes: &[Lane<'_, JobOperator>]) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    for lane in lanes {
        let groups = lane.operator.range().groups();
        verdict.add(verify(&lane.operator, groups, lane.stream, lane.position)?);
    }
    Ok(verdict)
}

/// What verification found, or the failure that it is.
pub(crate) fn judge(report: &RunReport) -> Result<Option<String>> {
    let Some(verdict) = report.restore.as_ref().and_then(|restore| restore.verdict.as_ref()) else {
        return Ok(None);
    };
    let n = |n: u64| units::count(n as f64);
    if verdict.is_right() {
        let keys = n(verdict.keys);
        return Ok(Some(format!("{}: all {keys} keys right after the restore", mode_name(report.mode))));
    }
    Err(Failure::new(format!(
        "the restored state is not the one that was checkpointed ({} mode): {} keys missing, {} wrong, {} extra \
         of {}\n  {}",
        mode_name(report.mode),
        n(verdict.missing_keys),
        n(verdict.wrong_keys),
        n(verdict.extra_keys),
        n(verdict.keys),
        verdict.examples.join("\n  ")
    )))
}
