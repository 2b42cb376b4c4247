//! Drives a workload: one operator thread per subtask, stage by stage, and a conductor that starts
//! the stages, watches, and stops the clock only when all deferred work is done.
//!
//! Open loop: a paced record is due at a time that does not depend on how fast the records before it
//! were, and its latency counts from there, so a stall shows in every record that it delayed.

mod conductor;
mod operator;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use self::conductor::Conductor;
pub(crate) use self::conductor::sample_every;
use self::operator::OperatorThread;
use crate::failure::Failure;
use crate::harness::backend::{Backend, Gauges, Operator, Time};
use crate::harness::meter::Usage;
use crate::harness::progress::Progress;
use crate::harness::recorder::{Recorder, Times};
use crate::harness::stage::{Stage, StageKind};
use crate::harness::workload::Stream;

/// Records that are released together.
pub(crate) const GROUP: u64 = 32;

/// One operator with the stream it works through, and how far it has come.
#[derive(Debug)]
pub(crate) struct Lane<'a, O> {
    pub(crate) operator: O,
    pub(crate) stream: &'a Stream,
    pub(crate) position: u64,
}

/// What is done, and when it is given up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan<'p> {
    pub(crate) stages: &'p [Stage],
    /// The run ends when nothing has got on for so long.
    pub(crate) patience: Duration,
    /// Set from outside to end the run early.
    pub(crate) interrupt: &'p AtomicBool,
}

/// What a run came to, also one that ended early.
#[derive(Debug)]
pub(crate) struct Outcome<'a, O> {
    /// The stages that were begun.
    pub(crate) runs: Vec<StageRun>,
    /// With their positions, which are those of the last checkpoint if the last stage settled.
    pub(crate) lanes: Vec<Lane<'a, O>>,
    /// Why the run did not come to its end, if it was not interrupted.
    pub(crate) failure: Option<Failure>,
    pub(crate) interrupted: bool,
}

/// What a stage came to.
#[derive(Debug)]
pub(crate) struct StageRun {
    pub(crate) stage: Stage,
    pub(crate) start: Duration,
    /// When the last record was done.
    pub(crate) worked: Duration,
    /// When all deferred work was done, if the stage settles.
    pub(crate) end: Duration,
    pub(crate) recorder: Recorder,
    pub(crate) usage: Usage,
    pub(crate) first: Gauges,
    pub(crate) last: Gauges,
    pub(crate) looks: Vec<Look>,
}

impl StageRun {
    /// Adds what one operator has measured, and when its last record was done.
    fn add(&mut self, (recorder, worked): &(Recorder, Duration)) {
        self.recorder.add(recorder);
        self.worked = self.worked.max(*worked);
        self.end = self.end.max(*worked);
    }
}

/// One look at the running job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) at: Duration,
    /// Records of the stage so far.
    pub(crate) records: u64,
    pub(crate) gauges: Gauges,
    /// Latencies since the last look that had any; only some looks ask.
    pub(crate) latency_p99_ms: Option<f64>,
}

/// What the operators and the conductor share.
struct Control<'p> {
    plan: Plan<'p>,
    /// Number of stages that have been released; one more than there are ends the threads.
    released: AtomicUsize,
    /// Start of the released stage, in nanoseconds of the driver's time.
    start: AtomicU64,
    /// Operators that are done with the released stage.
    done: AtomicUsize,
    records: Vec<AtomicU64>,
    /// Latencies since the conductor last looked.
    recent: Mutex<Times>,
    stop: AtomicBool,
    failure: Mutex<Option<Failure>>,
    conductor: Thread,
}

impl<'p> Control<'p> {
    /// Of a run that has not begun; the thread that calls is its conductor.
    fn new(plan: Plan<'p>, subtasks: usize) -> Self {
        Self {
            plan,
            released: AtomicUsize::new(0),
            start: AtomicU64::new(0),
            done: AtomicUsize::new(0),
            records: (0..subtasks).map(|_| AtomicU64::new(0)).collect(),
            recent: Mutex::new(Times::new()),
            stop: AtomicBool::new(false),
            failure: Mutex::new(None),
            conductor: thread::current(),
        }
    }

    fn fail(&self, failure: Failure) {
        let mut first = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(failure);
        drop(first);
        self.stop.store(true, Ordering::Release);
        self.conductor.unpark();
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn interrupted(&self) -> bool {
        self.plan.interrupt.load(Ordering::Acquire)
    }

    /// Whether operators are to end the stage now.
    fn ending(&self) -> bool {
        self.stopped() || self.interrupted()
    }

    fn records(&self) -> u64 {
        self.records.iter().map(|n| n.load(Ordering::Relaxed)).sum()
    }

    fn recent(&self) -> MutexGuard<'_, Times> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the stages in order.
pub(crate) fn run<'a, B: Backend, O: Operator>(
    backend: &B,
    lanes: Vec<Lane<'a, O>>,
    plan: Plan<'_>,
    time: &impl Time,
    progress: &mut Progress,
) -> Outcome<'a, O> {
    let threads = lanes.len();
    let control = Control::new(plan, threads);
    let loads = lanes.iter().map(|lane| lane.stream.own_keys().saturating_sub(lane.position)).sum();

    let (mut runs, ends) = thread::scope(|scope| {
        let handles: Vec<_> = lanes
            .into_iter()
            .enumerate()
            .map(|(index, lane)| {
                let control = &control;
                scope.spawn(move || {
                    let mut thread = OperatorThread {
                        lane,
                        index,
                        parallelism: threads as f64,
                        control,
                        time,
                        value: Vec::new(),
                        recorded: Vec::new(),
                    };
                    if let Err(failure) = thread.run() {
                        control.fail(failure);
                    }
                    (thread.lane, thread.recorded)
                })
            })
            .collect();

        let mut conductor = Conductor::new(backend, &control, time, progress, threads, loads);
        let runs = conduct(&mut conductor, backend, &control);
        control.released.store(plan.stages.len() + 1, Ordering::Release);
        let ends: Vec<_> = handles.into_iter().map(thread::ScopedJoinHandle::join).collect();
        (runs, ends)
    });
    progress.finish();

    let mut lanes = Vec::new();
    for end in ends {
        match end {
            Ok((lane, recorded)) => {
                runs.iter_mut().zip(recorded).for_each(|(run, recorded)| run.add(&recorded));
                lanes.push(lane);
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    let interrupted = control.interrupted();
    let failure = control.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    Outcome { runs, lanes, failure, interrupted }
}

/// The stages up to the last one that was begun. The first failure ends them.
fn conduct<B: Backend, T: Time>(
    conductor: &mut Conductor<'_, '_, B, T>,
    backend: &B,
    control: &Control<'_>,
) -> Vec<StageRun> {
    let mut runs = Vec::new();
    for stage in control.plan.stages {
        let (run, outcome) = conductor.conduct(*stage);
        runs.push(run);
        let outcome = match outcome {
            // Not part of the stage: every mode is to begin the next one alike.
            Ok(()) if stage.kind == StageKind::Load && !control.interrupted() => conductor.level(),
            outcome => outcome,
        };
        if let Err(failure) = outcome {
            control.fail(failure);
            backend.abandon();
        }
        if control.ending() {
            break;
        }
    }
    runs
}
