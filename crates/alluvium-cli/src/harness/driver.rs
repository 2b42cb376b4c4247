//! Drives a workload: one operator thread per subtask, stage by stage, and a conductor that starts
//! the stages, watches, and stops the clock only when all deferred work is done.
//!
//! Open loop: a paced record is due at a time that does not depend on how fast the records before it
//! were, and its latency counts from there, so a stall shows in every record that it delayed.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::failure::{Failure, Result};
use crate::harness::backend::{Backend, Gauges, Operator, Time};
use crate::harness::meter::Usage;
use crate::harness::progress::{Progress, View};
use crate::harness::recorder::{Recorder, Times};
use crate::harness::stage::{Stage, StageKind};
use crate::harness::workload::{Action, KeyBytes, Record, Stream, count_of, write_element, write_value};

/// Records that are released together.
pub(crate) const GROUP: u64 = 32;

/// How often a waiting operator looks for a barrier.
const POLL: Duration = Duration::from_micros(500);

/// How often the conductor looks at the job: short enough to see a compaction of a few MB.
const WATCH: Duration = Duration::from_millis(20);

/// How often an operator shows its latencies to the conductor.
const SHOW: Duration = Duration::from_millis(50);

/// Least time between two samples of the result.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);

/// Patience with a run that is to end.
const PATIENCE_INTERRUPTED: Duration = Duration::from_secs(10);

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

impl Control<'_> {
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
    let control = Control {
        plan,
        released: AtomicUsize::new(0),
        start: AtomicU64::new(0),
        done: AtomicUsize::new(0),
        records: lanes.iter().map(|_| AtomicU64::new(0)).collect(),
        recent: Mutex::new(Times::new()),
        stop: AtomicBool::new(false),
        failure: Mutex::new(None),
        conductor: thread::current(),
    };
    let threads = lanes.len();
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
        let mut runs = Vec::new();
        for stage in plan.stages {
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
        control.released.store(plan.stages.len() + 1, Ordering::Release);
        let ends: Vec<_> = handles.into_iter().map(thread::ScopedJoinHandle::join).collect();
        (runs, ends)
    });
    progress.finish();

    let mut lanes = Vec::new();
    for end in ends {
        match end {
            Ok((lane, recorded)) => {
                for (run, (recorder, worked)) in runs.iter_mut().zip(recorded) {
                    run.recorder.add(&recorder);
                    run.worked = run.worked.max(worked);
                    run.end = run.end.max(worked);
                }
                lanes.push(lane);
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    let interrupted = control.interrupted();
    let failure = control.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    Outcome { runs, lanes, failure, interrupted }
}

/// How far a run has got.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    /// Records, bytes in the store, checkpoints.
    done: (u64, u64, Option<Duration>),
    /// Requests to the store that had failed when the above last changed.
    failures: u64,
    /// Files and bytes of work that is left. They move as well when checkpoint after checkpoint fails.
    left: (u64, u64, u64),
}

/// Releases the stages, watches, and lets the deferred work end.
struct Conductor<'c, 'p, B, T> {
    backend: &'c B,
    control: &'c Control<'p>,
    time: &'c T,
    progress: &'c mut Progress,
    threads: usize,
    loads: u64,
    /// Records before the stage, and its start.
    before: (u64, Duration),
    looks: Vec<Look>,
    next_sample: Duration,
    /// When something last got on, and what it was.
    moved: (Duration, Mark),
}

impl<'c, 'p, B: Backend, T: Time> Conductor<'c, 'p, B, T> {
    fn new(
        backend: &'c B,
        control: &'c Control<'p>,
        time: &'c T,
        progress: &'c mut Progress,
        threads: usize,
        loads: u64,
    ) -> Self {
        let now = time.now();
        Self {
            backend,
            control,
            time,
            progress,
            threads,
            loads,
            before: (0, now),
            looks: Vec::new(),
            next_sample: now,
            moved: (now, Mark::default()),
        }
    }

    /// One stage: what was seen of it, and the failure that ended it.
    fn conduct(&mut self, stage: Stage) -> (StageRun, Result<()>) {
        let control = self.control;
        self.progress.begin(stage, self.loads);
        self.backend.begins(stage.kind);
        let first = self.backend.gauges();
        control.recent().take_p99();
        let usage = Usage::now();
        let start = self.time.now();
        self.before = (control.records(), start);
        self.looks = vec![Look { at: start, records: 0, gauges: first, latency_p99_ms: None }];
        self.next_sample = start + sample_every(stage.duration);
        self.moved.0 = start;
        control.start.store(start.as_nanos() as u64, Ordering::Relaxed);
        control.done.store(0, Ordering::Release);
        control.released.fetch_add(1, Ordering::Release);

        let outcome = self.attend(&stage);
        let usage = Usage::now().since(usage);
        let last = self.backend.gauges();
        let end = self.time.now();
        let mut looks = std::mem::take(&mut self.looks);
        looks.push(Look {
            at: end,
            records: control.records() - self.before.0,
            gauges: last,
            latency_p99_ms: control.recent().take_p99(),
        });
        let recorder = Recorder::new();
        (StageRun { stage, start, worked: start, end, recorder, usage, first, last, looks }, outcome)
    }

    /// Until all operators are done with the stage, and all work that they left behind.
    fn attend(&mut self, stage: &Stage) -> Result<()> {
        let (backend, start) = (self.backend, self.before.1);
        let mut halfway = stage.duration.filter(|_| stage.materialize).map(|duration| start + duration / 2);
        while self.control.done.load(Ordering::Acquire) < self.threads {
            thread::park_timeout(WATCH);
            self.look(stage.duration)?;
            if halfway.is_some_and(|halfway| self.time.now() >= halfway) {
                backend.materialize();
                halfway = None;
            }
        }
        if stage.settle {
            self.progress.note("waiting for deferred work");
            backend.checkpoint(&mut || self.look(stage.duration))?;
            backend.settle(&mut || self.look(stage.duration))?;
        }
        Ok(())
    }

    fn level(&mut self) -> Result<()> {
        self.progress.note("rewriting all files, so that every mode begins alike");
        let backend = self.backend;
        self.moved.0 = self.time.now();
        backend.level(&mut || self.look(None))
    }

    /// Looks at the job. An error ends the run.
    fn look(&mut self, duration: Option<Duration>) -> Result<()> {
        if self.control.stopped() {
            return Err(Failure::new("an operator thread failed"));
        }
        self.backend.health()?;
        let now = self.time.now();
        // Whoever waits asks more often than is worth a look.
        if self.looks.last().is_some_and(|last| now < last.at + WATCH / 2) {
            return Ok(());
        }
        let gauges = self.backend.gauges();
        let records = self.control.records() - self.before.0;
        let mut latency_p99_ms = None;
        if now >= self.next_sample {
            self.next_sample = now + sample_every(duration);
            latency_p99_ms = self.control.recent().take_p99();
        }
        self.looks.push(Look { at: now, records, gauges, latency_p99_ms });
        let backend = self.backend;
        let (elapsed, trouble) = (now.saturating_sub(self.before.1), &|| backend.trouble());
        self.progress.tick(&View { now, elapsed, records, gauges: &gauges, trouble });
        self.be_patient(now, records, &gauges)
    }

    /// An error if nothing has got on for too long.
    fn be_patient(&mut self, now: Duration, records: u64, gauges: &Gauges) -> Result<()> {
        let done = (records, gauges.stored_bytes, gauges.last_checkpoint.map(|checkpoint| checkpoint.end));
        let left = (gauges.l0_files, gauges.pending_compaction_bytes, gauges.held_bytes);
        let failures = gauges.remote.failures;
        let (since, before) = &mut self.moved;
        if done != before.done {
            self.moved = (now, Mark { done, failures, left });
            return Ok(());
        }
        if failures == before.failures && (left != before.left || gauges.running_compactions > 0) {
            *since = now;
            before.left = left;
            return Ok(());
        }
        let patience = if self.control.interrupted() {
            self.control.plan.patience.min(PATIENCE_INTERRUPTED)
        } else {
            self.control.plan.patience
        };
        if now.saturating_sub(self.moved.0) < patience {
            return Ok(());
        }
        let failure = Failure::new(format!(
            "nothing has got on for {patience:?}: {} requests to the object store have failed so far, and {} bytes \
             of deltas are held in memory",
            gauges.remote.failures, gauges.held_bytes
        ));
        // The reason says what to do, where it is known.
        Err(match self.backend.trouble() {
            Some(reason) => failure.hint(&format!("the last reason: {reason}")),
            None => failure.hint("see whether the object store can be reached"),
        }
        .hint("--patience waits for longer"))
    }
}

/// Time between two samples of the result: not more of them than a chart can show.
pub(crate) fn sample_every(duration: Option<Duration>) -> Duration {
    duration.map_or(SAMPLE_EVERY, |duration| (duration / 2000).max(SAMPLE_EVERY))
}

struct OperatorThread<'a, 'c, 'p, O, T> {
    lane: Lane<'a, O>,
    index: usize,
    parallelism: f64,
    control: &'c Control<'p>,
    time: &'c T,
    value: Vec<u8>,
    /// Each stage's measurements and the time of its last record.
    recorded: Vec<(Recorder, Duration)>,
}

impl<O: Operator, T: Time> OperatorThread<'_, '_, '_, O, T> {
    /// All stages, then waits for the end.
    fn run(&mut self) -> Result<()> {
        let stages = self.control.plan.stages;
        for turn in 0..=stages.len() {
            // Barriers go on while the others are still at work: they belong to the stage before.
            while self.control.released.load(Ordering::Acquire) <= turn {
                if self.control.stopped() {
                    return Ok(());
                }
                self.cut_if_due()?;
                thread::sleep(POLL);
            }
            let Some(stage) = stages.get(turn) else { break };
            if self.control.stopped() || self.control.released.load(Ordering::Acquire) > stages.len() {
                return Ok(());
            }
            self.recorded.push((Recorder::new(), Duration::ZERO));
            let done = self.stage(stage);
            if let Some((recorder, worked)) = self.recorded.last_mut() {
                recorder.recent.move_to(&mut self.control.recent());
                *worked = self.time.now();
            }
            done?;
            self.control.done.fetch_add(1, Ordering::Release);
            self.control.conductor.unpark();
        }
        Ok(())
    }

    fn recorder(&mut self) -> Option<&mut Recorder> {
        self.recorded.last_mut().map(|(recorder, _)| recorder)
    }

    /// The records of one stage.
    fn stage(&mut self, stage: &Stage) -> Result<()> {
        let start = Duration::from_nanos(self.control.start.load(Ordering::Relaxed));
        let keys = self.lane.stream.own_keys();
        if keys == 0 {
            return Ok(());
        }
        // Seconds between two records of this subtask.
        let gap = stage.rate.map(|rate| self.parallelism / rate);
        let mut now = self.time.now();
        let mut shown = now;
        let mut release = None;
        for n in 0_u64.. {
            if n % GROUP == 0 {
                let counter = &self.control.records[self.index];
                counter.fetch_add(if n == 0 { 0 } else { GROUP }, Ordering::Relaxed);
                if self.control.ending() {
                    break;
                }
                if now >= shown + SHOW {
                    shown = now;
                    let control = self.control;
                    if let Some(recorder) = self.recorder() {
                        recorder.recent.move_to(&mut control.recent());
                    }
                }
                if let Some(gap) = gap {
                    // A group is released at its last record's due time.
                    let due = start + Duration::from_secs_f64((n + GROUP) as f64 * gap);
                    if stage.duration.is_some_and(|duration| due > start + duration) {
                        break;
                    }
                    self.wait_until(due)?;
                    if self.control.ending() {
                        break;
                    }
                    now = self.time.now();
                    release = Some(due);
                }
            }
            let over = match stage.duration {
                None => self.lane.position >= keys,
                // Paced records end with the last group that is due.
                Some(duration) => gap.is_none() && now >= start + duration,
            };
            if over {
                self.control.records[self.index].fetch_add(n % GROUP, Ordering::Relaxed);
                break;
            }
            if self.cut_if_due()? {
                now = self.time.now();
            }
            let record = self.lane.stream.record(self.lane.position);
            self.perform(record)?;
            self.lane.position += 1;
            let end = self.time.now();
            let service = end.saturating_sub(now);
            if let Some(recorder) = self.recorder() {
                recorder.record(service, release.map_or(service, |release| end.saturating_sub(release)));
            }
            now = end;
        }
        Ok(())
    }

    /// Sleeps, but not through a barrier.
    fn wait_until(&mut self, moment: Duration) -> Result<()> {
        loop {
            self.cut_if_due()?;
            let now = self.time.now();
            if now >= moment || self.control.ending() {
                return Ok(());
            }
            self.time.sleep_until(moment.min(now + POLL));
        }
    }

    fn cut_if_due(&mut self) -> Result<bool> {
        let Some(id) = self.lane.operator.due() else { return Ok(false) };
        let start = self.time.now();
        self.lane.operator.cut(id, self.lane.position)?;
        let took = self.time.now().saturating_sub(start);
        if let Some(recorder) = self.recorder() {
            recorder.cut(took);
        }
        Ok(true)
    }

    fn perform(&mut self, record: Record) -> Result<()> {
        let (stream, operator) = (self.lane.stream, &mut self.lane.operator);
        let number = stream.key(record.index);
        let group = stream.group_of(number);
        let key = KeyBytes::new(number, None);
        match record.action {
            Action::Read => operator.read(group, &key, |value| {
                std::hint::black_box(count_of(value));
            }),
            Action::Increment => {
                let count = operator.read(group, &key, count_of)?;
                write_value(count + 1, record.number, stream.value_bytes(), &mut self.value);
                operator.put(group, &key, &self.value)
            }
            Action::Put => {
                write_value(1, record.number, stream.value_bytes(), &mut self.value);
                operator.put(group, &key, &self.value)
            }
            Action::Append => {
                self.value.clear();
                write_element(record.number, &mut self.value);
                operator.append(group, &key, &self.value)
            }
            Action::Delete => operator.delete(group, &key),
            Action::PutInWindow { window, first } => {
                if let Some(ended) = window.checked_sub(1).filter(|_| first) {
                    for group in stream.groups() {
                        operator.delete_prefix(*group, &ended.to_be_bytes())?;
                    }
                }
                write_value(1, record.number, stream.value_bytes(), &mut self.value);
                operator.put(group, &KeyBytes::new(number, Some(window)), &self.value)
            }
        }
    }
}
