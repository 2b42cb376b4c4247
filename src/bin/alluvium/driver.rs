//! Drives a workload: one operator thread per subtask, stage by stage, and a conductor that starts
//! the stages, watches, and stops the clock only when all deferred work is done.
//!
//! Open loop: a paced record is due at a time that does not depend on how fast the records before it
//! were, and its latency counts from there, so a stall shows in every record that it delayed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::backend::{Backend, Gauges, Operator, Time};
use crate::failure::{Failure, Result};
use crate::meter::Usage;
use crate::progress::{Progress, View};
use crate::recorder::Recorder;
use crate::workload::{Action, Record, Stream, count_of, write_element, write_value};

/// Records that are released together.
const GROUP: u64 = 32;

/// How often a waiting operator looks for a barrier.
const POLL: Duration = Duration::from_micros(500);

/// How often the conductor looks at the job: short enough to see a compaction of a few MB.
const WATCH: Duration = Duration::from_millis(20);

/// A part of a run with its own figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stage {
    pub(crate) kind: StageKind,
    /// Records per second of all subtasks together; None: as fast as it goes.
    pub(crate) rate: Option<f64>,
    /// None: until every key has been written once.
    pub(crate) duration: Option<Duration>,
    /// Whether the stage ends with a checkpoint and with all deferred work done.
    pub(crate) settle: bool,
    /// Whether a new base is asked for halfway.
    pub(crate) materialize: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StageKind {
    Load,
    WarmUp,
    Measured,
    /// Slow and steady, to see what a checkpoint costs apart from the load (I5).
    Steady,
}

impl StageKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::WarmUp => "warm-up",
            Self::Measured => "measured",
            Self::Steady => "steady",
        }
    }
}

/// One operator with the stream it works through, and how far it has come.
#[derive(Debug)]
pub(crate) struct Lane<'a, O> {
    pub(crate) operator: O,
    pub(crate) stream: &'a Stream,
    pub(crate) position: u64,
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
    pub(crate) watched: Vec<(Duration, u64, Gauges)>,
}

/// What the operators and the conductor share.
struct Control {
    /// Number of stages that have been released; one more than there are ends the threads.
    released: AtomicUsize,
    /// Start of the released stage, in nanoseconds of the driver's time.
    start: AtomicU64,
    /// Operators that are done with the released stage.
    done: AtomicUsize,
    records: Vec<AtomicU64>,
    stop: AtomicBool,
    failure: Mutex<Option<Failure>>,
    conductor: Thread,
}

impl Control {
    fn fail(&self, failure: Failure) {
        let mut first = self.failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        first.get_or_insert(failure);
        drop(first);
        self.stop.store(true, Ordering::Release);
        self.conductor.unpark();
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn into_failure(self) -> Option<Failure> {
        self.failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Runs the stages in order. The lanes come back with their positions, which are those of the last
/// checkpoint if the last stage settles.
pub(crate) fn run<'a, B: Backend, O: Operator>(
    backend: &B,
    lanes: Vec<Lane<'a, O>>,
    stages: &[Stage],
    time: &impl Time,
    progress: &mut Progress,
) -> Result<(Vec<StageRun>, Vec<Lane<'a, O>>)> {
    let control = Control {
        released: AtomicUsize::new(0),
        start: AtomicU64::new(0),
        done: AtomicUsize::new(0),
        records: lanes.iter().map(|_| AtomicU64::new(0)).collect(),
        stop: AtomicBool::new(false),
        failure: Mutex::new(None),
        conductor: thread::current(),
    };
    let threads = lanes.len();
    let loads: u64 = lanes.iter().map(|lane| lane.stream.own_keys().saturating_sub(lane.position)).sum();

    let (runs, ends) = thread::scope(|scope| {
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
                    };
                    let outcome = thread.run(stages);
                    match outcome {
                        Ok(recorded) => Some((thread.lane, recorded)),
                        Err(failure) => {
                            control.fail(failure);
                            None
                        }
                    }
                })
            })
            .collect();

        let mut runs = Vec::new();
        for stage in stages {
            match conduct(backend, &control, *stage, threads, loads, time, progress) {
                Ok(run) => runs.push(run),
                Err(failure) => {
                    control.fail(failure);
                    break;
                }
            }
        }
        control.released.store(stages.len() + 1, Ordering::Release);
        let ends: Vec<_> = handles.into_iter().map(thread::ScopedJoinHandle::join).collect();
        (runs, ends)
    });
    progress.finish();

    let mut lanes = Vec::new();
    let mut runs = runs;
    for end in ends {
        match end {
            Ok(Some((lane, recorded))) => {
                for (run, (recorder, worked)) in runs.iter_mut().zip(recorded) {
                    run.recorder.add(&recorder);
                    run.worked = run.worked.max(worked);
                    run.end = run.end.max(worked);
                }
                lanes.push(lane);
            }
            // The control has the failure.
            Ok(None) => {}
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    match control.into_failure() {
        None => Ok((runs, lanes)),
        Some(failure) => Err(failure),
    }
}

/// Releases a stage, watches until all operators are done with it, and lets the deferred work end.
fn conduct<B: Backend>(
    backend: &B,
    control: &Control,
    stage: Stage,
    threads: usize,
    loads: u64,
    time: &impl Time,
    progress: &mut Progress,
) -> Result<StageRun> {
    let records = || control.records.iter().map(|n| n.load(Ordering::Relaxed)).sum::<u64>();
    let records_before = records();
    progress.begin(stage, loads);
    let first = backend.gauges();
    let usage = Usage::now();
    let start = time.now();
    control.start.store(start.as_nanos() as u64, Ordering::Relaxed);
    control.done.store(0, Ordering::Relaxed);
    control.released.fetch_add(1, Ordering::Release);

    let mut watched = vec![(start, 0, first)];
    let mut materialize = stage.materialize;
    while control.done.load(Ordering::Acquire) < threads {
        thread::park_timeout(WATCH);
        if control.stopped() {
            return Err(Failure::new("an operator thread failed"));
        }
        backend.health()?;
        let (now, gauges) = (time.now(), backend.gauges());
        let done = records() - records_before;
        watched.push((now, done, gauges));
        progress.tick(&View { elapsed: now.saturating_sub(start), records: done, gauges: &gauges });
        if materialize && stage.duration.is_some_and(|duration| now >= start + duration / 2) {
            backend.materialize();
            materialize = false;
        }
    }
    if stage.settle {
        progress.note("waiting for deferred work");
        backend.checkpoint()?;
        backend.settle()?;
    }
    let last = backend.gauges();
    let end = time.now();
    watched.push((end, records() - records_before, last));
    let usage = Usage::now().since(usage);
    Ok(StageRun { stage, start, worked: start, end, recorder: Recorder::new(), usage, first, last, watched })
}

struct OperatorThread<'a, 'c, O, T> {
    lane: Lane<'a, O>,
    index: usize,
    parallelism: f64,
    control: &'c Control,
    time: &'c T,
    value: Vec<u8>,
}

impl<O: Operator, T: Time> OperatorThread<'_, '_, O, T> {
    /// All stages, then waits for the end. Each stage's measurements and the time of its last record.
    fn run(&mut self, stages: &[Stage]) -> Result<Vec<(Recorder, Duration)>> {
        let mut recorded: Vec<(Recorder, Duration)> = Vec::with_capacity(stages.len());
        for turn in 0..=stages.len() {
            // Barriers go on while the others are still at work: they belong to the stage before.
            while self.control.released.load(Ordering::Acquire) <= turn {
                if self.control.stopped() {
                    return Ok(recorded);
                }
                match recorded.last_mut() {
                    Some((recorder, _)) => self.cut_if_due(recorder)?,
                    None => self.cut_if_due(&mut Recorder::new())?,
                };
                thread::sleep(POLL);
            }
            let Some(stage) = stages.get(turn) else { break };
            if self.control.stopped() {
                return Ok(recorded);
            }
            let mut recorder = Recorder::new();
            let worked = self.stage(stage, &mut recorder)?;
            recorded.push((recorder, worked));
            self.control.done.fetch_add(1, Ordering::Release);
            self.control.conductor.unpark();
        }
        Ok(recorded)
    }

    /// The records of one stage. Returns when the last one was done.
    fn stage(&mut self, stage: &Stage, recorder: &mut Recorder) -> Result<Duration> {
        let start = Duration::from_nanos(self.control.start.load(Ordering::Relaxed));
        let keys = self.lane.stream.own_keys();
        if keys == 0 {
            return Ok(start);
        }
        // Seconds between two records of this subtask.
        let gap = stage.rate.map(|rate| self.parallelism / rate);
        let mut now = self.time.now();
        let mut release = None;
        for n in 0_u64.. {
            if n % GROUP == 0 {
                let counter = &self.control.records[self.index];
                counter.fetch_add(if n == 0 { 0 } else { GROUP }, Ordering::Relaxed);
                if self.control.stopped() {
                    break;
                }
                if let Some(gap) = gap {
                    // A group is released at its last record's due time.
                    let due = start + Duration::from_secs_f64((n + GROUP) as f64 * gap);
                    if stage.duration.is_some_and(|duration| due > start + duration) {
                        break;
                    }
                    self.wait_until(due, recorder)?;
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
            if self.cut_if_due(recorder)? {
                now = self.time.now();
            }
            let record = self.lane.stream.record(self.lane.position);
            self.perform(record)?;
            self.lane.position += 1;
            let end = self.time.now();
            let service = end.saturating_sub(now);
            recorder.record(service, release.map_or(service, |release| end.saturating_sub(release)));
            now = end;
        }
        Ok(now)
    }

    /// Sleeps, but not through a barrier.
    fn wait_until(&mut self, moment: Duration, recorder: &mut Recorder) -> Result<()> {
        loop {
            self.cut_if_due(recorder)?;
            let now = self.time.now();
            if now >= moment || self.control.stopped() {
                return Ok(());
            }
            self.time.sleep_until(moment.min(now + POLL));
        }
    }

    fn cut_if_due(&mut self, recorder: &mut Recorder) -> Result<bool> {
        let Some(id) = self.lane.operator.due() else { return Ok(false) };
        let start = self.time.now();
        self.lane.operator.cut(id, self.lane.position)?;
        recorder.cut(self.time.now().saturating_sub(start));
        Ok(true)
    }

    fn perform(&mut self, record: Record) -> Result<()> {
        let (stream, operator) = (self.lane.stream, &mut self.lane.operator);
        let key = stream.key(record.index).to_be_bytes();
        let group = stream.group_of(&key);
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
        }
    }
}
