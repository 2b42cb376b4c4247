//! A backend whose pauses, bytes and durations are known, in a time that only its own costs move: the
//! figures that the driver and the report come to must be those that were put in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alluvium::{CheckpointId, Epoch, KeyGroup};

use crate::backend::{Backend, Checkpoint, Events, Gauges, Materialization, Operator, Time};
use crate::failure::{Failure, Result};

/// What everything costs.
#[derive(Debug, Clone)]
pub(crate) struct Costs {
    pub(crate) put: Duration,
    /// This put (counted from 0) takes so much longer.
    pub(crate) stall: Option<(u64, Duration)>,
    pub(crate) cut: Duration,
    pub(crate) settle: Duration,
    pub(crate) interval: Duration,
    pub(crate) checkpoint: Duration,
    /// Bytes of the n-th checkpoint.
    pub(crate) bytes: fn(u64) -> u64,
    /// While these checkpoints are taken a compaction runs.
    pub(crate) compacting: fn(u64) -> bool,
    /// Puts that are lost: every so manieth.
    pub(crate) lose_every: Option<u64>,
    /// Fails at this put.
    pub(crate) fail_at: Option<u64>,
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            put: Duration::from_micros(10),
            stall: None,
            cut: Duration::from_millis(5),
            settle: Duration::from_millis(500),
            interval: Duration::from_millis(100),
            checkpoint: Duration::from_millis(20),
            bytes: |_| 1000,
            compacting: |_| false,
            lose_every: None,
            fail_at: None,
        }
    }
}

/// Time that stands still unless it is moved.
#[derive(Debug, Default)]
pub(crate) struct SimTime(AtomicU64);

impl SimTime {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
    }
}

impl Time for SimTime {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }

    fn sleep_until(&self, moment: Duration) {
        self.0.fetch_max(moment.as_nanos() as u64, Ordering::SeqCst);
    }
}

/// A job of one subtask.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) costs: Costs,
    pub(crate) time: SimTime,
    pub(crate) events: Events,
    next_trigger: AtomicU64,
    cuts: AtomicU64,
    puts: AtomicU64,
}

impl Fake {
    pub(crate) fn new(costs: Costs) -> (Arc<Self>, FakeOperator) {
        let next_trigger = AtomicU64::new(costs.interval.as_nanos() as u64);
        let fake = Arc::new(Self {
            costs,
            time: SimTime::default(),
            events: Events::default(),
            next_trigger,
            cuts: AtomicU64::new(0),
            puts: AtomicU64::new(0),
        });
        (Arc::clone(&fake), FakeOperator { fake, values: BTreeMap::new() })
    }
}

impl Backend for Fake {
    fn checkpoint(&self) -> Result<()> {
        let before = self.cuts.load(Ordering::SeqCst);
        self.next_trigger.store(self.time.now().as_nanos() as u64, Ordering::SeqCst);
        while self.cuts.load(Ordering::SeqCst) == before {
            std::thread::yield_now();
        }
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        // No barrier falls into it, so that the number of checkpoints does not hang on the threads' timing.
        self.next_trigger.store(u64::MAX, Ordering::SeqCst);
        self.time.advance(self.costs.settle);
        let next = self.time.now() + self.costs.interval;
        self.next_trigger.store(next.as_nanos() as u64, Ordering::SeqCst);
        Ok(())
    }

    fn materialize(&self) {
        let start = self.time.now();
        let materialization =
            Materialization { start, end: start + Duration::from_millis(30), bytes: 500_000, files: 3 };
        self.events.record(|log| log.materializations.push(materialization));
    }

    fn health(&self) -> Result<()> {
        Ok(())
    }

    fn gauges(&self) -> Gauges {
        let cuts = self.cuts.load(Ordering::SeqCst);
        Gauges { running_compactions: u64::from((self.costs.compacting)(cuts)), ..Gauges::default() }
    }
}

/// Its only operator.
#[derive(Debug)]
pub(crate) struct FakeOperator {
    fake: Arc<Fake>,
    pub(crate) values: BTreeMap<(KeyGroup, Vec<u8>), Vec<u8>>,
}

impl FakeOperator {
    /// Takes the cost of a write; false where the write is to be lost.
    fn write(&self) -> Result<bool> {
        let costs = &self.fake.costs;
        let n = self.fake.puts.fetch_add(1, Ordering::SeqCst);
        self.fake.time.advance(costs.put);
        if let Some((at, stall)) = costs.stall
            && at == n
        {
            self.fake.time.advance(stall);
        }
        if costs.fail_at == Some(n) {
            return Err(Failure::new("the fake fails"));
        }
        Ok(costs.lose_every.is_none_or(|every| n % every != every - 1))
    }
}

impl Operator for FakeOperator {
    fn read<T>(&self, group: KeyGroup, key: &[u8], with: impl FnOnce(Option<&[u8]>) -> T) -> Result<T> {
        Ok(with(self.values.get(&(group, key.to_vec())).map(Vec::as_slice)))
    }

    fn put(&mut self, group: KeyGroup, key: &[u8], value: &[u8]) -> Result<()> {
        if self.write()? {
            self.values.insert((group, key.to_vec()), value.to_vec());
        }
        Ok(())
    }

    fn append(&mut self, group: KeyGroup, key: &[u8], element: &[u8]) -> Result<()> {
        if self.write()? {
            self.values.entry((group, key.to_vec())).or_default().extend_from_slice(element);
        }
        Ok(())
    }

    fn delete(&mut self, group: KeyGroup, key: &[u8]) -> Result<()> {
        if self.write()? {
            self.values.remove(&(group, key.to_vec()));
        }
        Ok(())
    }

    fn scan(&self, group: KeyGroup, each: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let range = (group, Vec::new())..;
        for ((_, key), value) in self.values.range(range).take_while(|((g, _), _)| *g == group) {
            each(key, value);
        }
        Ok(())
    }

    fn due(&self) -> Option<CheckpointId> {
        // The time first: `settle` puts the trigger off before it moves the time.
        let now = self.fake.time.now().as_nanos() as u64;
        let trigger = self.fake.next_trigger.load(Ordering::SeqCst);
        let number = self.fake.cuts.load(Ordering::SeqCst) + 1;
        (now >= trigger).then_some(CheckpointId { epoch: Epoch(1), number })
    }

    fn cut(&mut self, id: CheckpointId, _: u64) -> Result<()> {
        let fake = &self.fake;
        let start = fake.time.now();
        fake.time.advance(fake.costs.cut);
        fake.next_trigger.store((start + fake.costs.interval).as_nanos() as u64, Ordering::SeqCst);
        let end = start + fake.costs.checkpoint;
        let bytes = (fake.costs.bytes)(id.number);
        fake.events.record(|log| log.checkpoints.push(Checkpoint { start, end, bytes, puts: 2 }));
        fake.cuts.store(id.number, Ordering::SeqCst);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alluvium::CheckpointMode;

    use super::*;
    use crate::driver::{Lane, Stage, StageKind, run};
    use crate::expected::verify;
    use crate::progress::Progress;
    use crate::report::{Facts, RunReport, Settings, build};
    use crate::workload::tests::small;
    use crate::workload::{Operation, Stream, Workload};

    const LOAD: Stage =
        Stage { kind: StageKind::Load, rate: None, duration: None, settle: true, materialize: false };

    fn stage(kind: StageKind, rate: Option<f64>, seconds: u64) -> Stage {
        Stage { kind, rate, duration: Some(Duration::from_secs(seconds)), settle: true, materialize: false }
    }

    fn workload(operation: Operation) -> Workload {
        Workload { subtasks: 1, ..small(operation) }
    }

    fn stream(operation: Operation) -> Stream {
        workload(operation).streams().unwrap().remove(0)
    }

    fn drive(costs: Costs, stages: &[Stage]) -> RunReport {
        let (fake, operator) = Fake::new(costs);
        let stream = stream(Operation::Put);
        let lane = Lane { operator, stream: &stream, position: 0 };
        let mut progress = Progress::new("test", true);
        let (runs, lanes) = run(&*fake, vec![lane], stages, &fake.time, &mut progress).unwrap();
        let records: u64 = runs.iter().map(|run| run.recorder.records).sum();
        assert_eq!(lanes[0].position, records);
        let settings = Settings {
            rate: 0.0,
            duration_s: 0.0,
            warm_up_s: 0.0,
            checkpoint_interval_ms: 0.0,
            materialization_interval_ms: None,
            memory: 0,
            store: "fake".to_owned(),
        };
        let facts = Facts {
            mode: CheckpointMode::Changelog,
            workload: workload(Operation::Put),
            settings,
            log: fake.events.read(Clone::clone),
            live_bytes: None,
            restore: None,
            table_options: Vec::new(),
        };
        build(facts, &runs).unwrap()
    }

    /// To 2 %.
    #[track_caller]
    fn near(figure: f64, truth: f64) {
        assert!((figure - truth).abs() <= 0.02 * truth, "{figure} instead of {truth}");
    }

    #[test]
    fn figures_at_full_speed_are_those_that_were_put_in() {
        let costs = Costs {
            stall: Some((100_000, Duration::from_millis(50))),
            // No barrier at the very end, where the schedule and the last checkpoint would race.
            interval: Duration::from_millis(97),
            bytes: |n| if n == 10 { 70_000 } else { 1000 },
            ..Costs::default()
        };
        let report = drive(costs, &[LOAD, stage(StageKind::Measured, None, 4)]);
        // 40 barriers of 5 ms and the stall; the rest in steps of 10 µs.
        near(report.records as f64, (4.0 - 40.0 * 0.005 - 0.05) / 10e-6);
        // The clock runs on through the last checkpoint's cut and the deferred work.
        near(report.measured_s, 4.505);
        near(report.drain_s, 0.505);
        near(report.records_per_s, 375_000.0 / 4.505);
        let pause = report.operator_pause_ms.unwrap();
        near(pause.p50, 5.0);
        near(pause.max, 50.01);
        near(report.checkpoints.cut_ms.unwrap().max, 5.0);
        near(report.record_latency_ms.unwrap().p50, 0.01);
        // 40 that the schedule triggers, and the one that ends the stretch.
        assert_eq!((report.checkpoints.n, report.checkpoints.failed), (41, 0));
        near(report.checkpoints.duration_ms.unwrap().p99, 20.0);
        let bytes = report.checkpoints.bytes.unwrap();
        assert_eq!((bytes.p50, bytes.max), (1000.0, 70_000.0));
        assert_eq!(report.checkpoints.puts_per_checkpoint, Some(2.0));
        assert_eq!(report.load.unwrap().records, 1000);
    }

    #[test]
    fn a_stall_shows_in_every_record_that_it_delayed() {
        // 10,000 records a second, each 10 µs: after a stall of 1 s the backlog shrinks by 0.9 s a second,
        // so 1/0.9 s worth of records are late, by 1 s to 0.
        let costs =
            Costs { stall: Some((21_000, Duration::from_secs(1))), cut: Duration::ZERO, ..Costs::default() };
        let report = drive(costs, &[LOAD, stage(StageKind::Measured, Some(10_000.0), 5)]);
        near(report.records as f64, 50_000.0);
        let latency = report.record_latency_ms.unwrap();
        near(latency.max, 1000.0);
        near(latency.p90, 1000.0 * (1.0 - 5000.0 / 11_111.0));
        near(latency.p99, 1000.0 * (1.0 - 500.0 / 11_111.0));
        // A group of 32 is released together, so the median of all is the 21st of 32 in the 78 % that were
        // not delayed.
        near(latency.p50, 0.21);
    }

    #[test]
    fn the_steady_stretch_tells_checkpoints_beside_compaction_apart() {
        // Checkpoints 20 to 29 of the steady stretch's 50 carry rewritten files.
        let costs = Costs {
            cut: Duration::ZERO,
            bytes: |n| if (30..40).contains(&n) { 90_000 } else { 1000 },
            compacting: |n| (29..39).contains(&n),
            ..Costs::default()
        };
        let stages = [LOAD, stage(StageKind::Measured, None, 1), stage(StageKind::Steady, Some(10_000.0), 5)];
        let report = drive(costs, &stages);
        let steady = report.steady.unwrap();
        assert!(steady.all.n >= 50);
        assert_eq!(steady.all.bytes.unwrap().p50, 1000.0);
        assert_eq!(steady.bytes_max_over_median, Some(90.0));
        near(steady.records_per_s, 10_000.0);
    }

    #[test]
    fn a_failing_operator_ends_the_run() {
        let (fake, operator) = Fake::new(Costs { fail_at: Some(5000), ..Costs::default() });
        let stream = stream(Operation::Put);
        let lane = Lane { operator, stream: &stream, position: 0 };
        let stages = [LOAD, stage(StageKind::Measured, None, 4)];
        let failure =
            run(&*fake, vec![lane], &stages, &fake.time, &mut Progress::new("test", true)).unwrap_err();
        assert_eq!(failure.to_string(), "the fake fails");
    }

    #[test]
    fn two_runs_are_shown_and_explained_side_by_side() {
        let stages = [LOAD, stage(StageKind::Measured, None, 1), stage(StageKind::Steady, Some(10_000.0), 2)];
        let quick = drive(Costs { cut: Duration::from_micros(50), ..Costs::default() }, &stages);
        let rewriting = Costs {
            put: Duration::from_micros(20),
            bytes: |n| if n % 5 == 0 { 3_000_000 } else { 20_000 },
            compacting: |n| n % 5 == 4,
            ..Costs::default()
        };
        let slow = drive(rewriting, &stages);
        let table = crate::table::side_by_side(&quick, &slow);
        assert!(table.contains("records/s") && table.contains("20.0 kB") && table.contains("✓"), "{table}");
        let ratios = crate::table::ratios(&quick, &slow);
        let bytes = ratios.iter().find(|ratio| ratio.figure == "checkpoint: bytes max").unwrap();
        assert_eq!((bytes.changelog, bytes.native), (1000.0, 3_000_000.0));

        let text = crate::explain::explain(&quick, &slow).join("\n");
        assert!(text.contains("native checkpoint uploads whole SST files"), "{text}");
        assert!(text.contains("3.00 MB at most") && text.contains("× native's; the delta"), "{text}");
        // Where the figures speak against the changelog, so does the text.
        let text = crate::explain::explain(&slow, &quick).join("\n");
        assert!(text.contains("costs more here than is saved"), "{text}");
        assert!(text.contains("Here the changes were more than the new SST files"), "{text}");
    }

    fn driven(operation: Operation, costs: Costs) -> (FakeOperator, Stream, u64) {
        let (fake, operator) = Fake::new(costs);
        let stream = stream(operation);
        let lane = Lane { operator, stream: &stream, position: 0 };
        let stages = [LOAD, stage(StageKind::Measured, Some(20_000.0), 1)];
        let (_, mut lanes) =
            run(&*fake, vec![lane], &stages, &fake.time, &mut Progress::new("test", true)).unwrap();
        let lane = lanes.remove(0);
        (lane.operator, stream.clone(), lane.position)
    }

    #[test]
    fn every_operation_leads_to_the_state_that_is_computed() {
        for operation in [Operation::ReadModifyWrite, Operation::Put, Operation::Append, Operation::Mixed] {
            let (operator, stream, position) = driven(operation, Costs::default());
            assert!(position > 10_000);
            let groups = || (0..128).map(KeyGroup);
            let verdict = verify(&operator, groups(), &stream, position).unwrap();
            assert!(verdict.is_right() && verdict.keys > 500, "{operation}: {verdict:?}");
            // One record more or less is another state.
            let later = (position + 1..)
                .find(|later| stream.record(later - 1).action != crate::workload::Action::Read);
            let verdict = verify(&operator, groups(), &stream, later.unwrap()).unwrap();
            assert!(!verdict.is_right(), "{operation}");
        }
    }

    #[test]
    fn a_lossy_backend_is_caught() {
        let lossy = Costs { lose_every: Some(1000), ..Costs::default() };
        let (operator, stream, position) = driven(Operation::ReadModifyWrite, lossy);
        let verdict = verify(&operator, (0..128).map(KeyGroup), &stream, position).unwrap();
        assert!(verdict.wrong_keys >= 15, "{verdict:?}");
        assert!(!verdict.examples.is_empty());
    }

    #[test]
    fn missing_wrong_and_extra_keys_are_counted_apart() {
        let (mut operator, stream, position) = driven(Operation::Put, Costs::default());
        let mut keys: Vec<_> = operator.values.keys().cloned().collect();
        let (gone, bad) = (keys.remove(7), keys.remove(9));
        operator.values.remove(&gone);
        operator.values.get_mut(&bad).unwrap()[9] ^= 1;
        operator.values.insert((KeyGroup(3), b"stranger".to_vec()), vec![1]);
        operator.values.insert((KeyGroup(3), b"x".to_vec()), vec![1]);
        // A key that is owned, but lies in a group that is not its own as well.
        let stray = (KeyGroup((keys[0].0.0 + 1) % 128), keys[0].1.clone());
        operator.values.insert(stray, vec![1]);
        let verdict = verify(&operator, (0..128).map(KeyGroup), &stream, position).unwrap();
        assert_eq!(
            (verdict.keys, verdict.missing_keys, verdict.wrong_keys, verdict.extra_keys),
            (1000, 1, 1, 3),
            "{verdict:?}"
        );
    }
}
