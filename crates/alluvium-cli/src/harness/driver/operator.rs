//! One subtask's thread: the records of each stage, when they are due, and the barriers among them.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::{Control, GROUP, Lane};
use crate::failure::Result;
use crate::harness::backend::{Operator, Time};
use crate::harness::recorder::Recorder;
use crate::harness::stage::Stage;
use crate::harness::workload::{Action, KeyBytes, Record, count_of, write_element, write_value};

/// How often a waiting operator looks for a barrier.
const POLL: Duration = Duration::from_micros(500);

/// How often an operator shows its latencies to the conductor.
const SHOW: Duration = Duration::from_millis(50);

pub(super) struct OperatorThread<'a, 'c, 'p, O, T> {
    pub(super) lane: Lane<'a, O>,
    pub(super) index: usize,
    pub(super) parallelism: f64,
    pub(super) control: &'c Control<'p>,
    pub(super) time: &'c T,
    pub(super) value: Vec<u8>,
    /// Each stage's measurements and the time of its last record.
    pub(super) recorded: Vec<(Recorder, Duration)>,
}

impl<O: Operator, T: Time> OperatorThread<'_, '_, '_, O, T> {
    /// All stages, then waits for the end.
    pub(super) fn run(&mut self) -> Result<()> {
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
