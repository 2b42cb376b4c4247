//! Releases the stages, watches the job, and lets the deferred work end.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::{Control, Look, StageRun};
use crate::failure::{Failure, Result};
use crate::harness::backend::{Backend, Gauges, Time};
use crate::harness::meter::Usage;
use crate::harness::progress::{Progress, View};
use crate::harness::recorder::Recorder;
use crate::harness::stage::Stage;

/// How often the conductor looks at the job: short enough to see a compaction of a few MB.
const WATCH: Duration = Duration::from_millis(20);

/// Least time between two samples of the result.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);

/// Patience with a run that is to end.
const PATIENCE_INTERRUPTED: Duration = Duration::from_secs(10);

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
pub(super) struct Conductor<'c, 'p, B, T> {
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
    pub(super) fn new(
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
    pub(super) fn conduct(&mut self, stage: Stage) -> (StageRun, Result<()>) {
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

    pub(super) fn level(&mut self) -> Result<()> {
        self.progress.note("rewriting all files, so that every mode begins alike");
        let backend = self.backend;
        self.moved.0 = self.time.now();
        let control = self.control;
        let leveled = backend.level(&mut || {
            // A stage that will not begin needs no level ground.
            if control.interrupted() { Err(Failure::interrupted("")) } else { self.look(None) }
        });
        leveled.or_else(|failure| if control.interrupted() { Ok(()) } else { Err(failure) })
    }

    /// Looks at the job. An error ends the run.
    fn look(&mut self, duration: Option<Duration>) -> Result<()> {
        if self.control.stopped() {
            return Err(Failure::new("an operator thread failed"));
        }
        self.backend.health()?;
        let now = self.time.now();
        // A wait asks more often than is worth a look.
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
