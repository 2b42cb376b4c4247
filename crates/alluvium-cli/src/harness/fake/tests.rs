//! The driver, the evaluation and the verification against costs that are known.

use super::*;
use crate::display::table::{self, Column};
use crate::harness::driver::{Lane, Outcome, Plan, run};
use crate::harness::evaluate::{Facts, evaluate};
use crate::harness::expected::{Expected, Verdict, verify};
use crate::harness::progress::Progress;
use crate::harness::stage::Stage;
use crate::harness::workload::tests::small;
use crate::harness::workload::{Operation, Stream, Workload};
use crate::result::{Machine, Mode, Prices, RunResult, Settings, StoreModelSpec};

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

fn go<'a>(
    fake: &Fake,
    lane: Lane<'a, FakeOperator>,
    stages: &[Stage],
    patience: Duration,
    interrupt: &AtomicBool,
) -> Outcome<'a, FakeOperator> {
    let plan = Plan { stages, patience, interrupt };
    run(fake, vec![lane], plan, &fake.time, &mut Progress::new("test", true))
}

fn result(fake: &Fake, outcome: &Outcome<'_, FakeOperator>) -> RunResult {
    let settings = Settings {
        rate: 0.0,
        duration_s: 0.0,
        warm_up_s: 0.0,
        checkpoint_interval_ms: None,
        materialization_interval_ms: None,
        memory_bytes: 0,
        read_cache_bytes: None,
        store: Some("fake".to_owned()),
        scenario: None,
    };
    let facts = Facts {
        mode: Mode::Changelog,
        workload: workload(Operation::Put),
        settings,
        machine: Machine::default(),
        store_model: Some(StoreModelSpec {
            latency_ms: 3.0,
            latency_p99_ms: None,
            stream_bytes_per_s: Some(500_000.0),
            shared_bytes_per_s: Some(1_250_000.0),
            error_rate: None,
            outages: Vec::new(),
        }),
        prices: Prices::default(),
        log: fake.events.read(Clone::clone),
        stored_bytes_peak: 1 << 30,
        table_options: Vec::new(),
    };
    evaluate(facts, &outcome.runs)
}

const HOUR: Duration = Duration::from_secs(3600);

fn drive(costs: Costs, stages: &[Stage]) -> RunResult {
    let (fake, operator) = Fake::new(costs);
    let stream = stream(Operation::Put);
    let lane = Lane { operator, stream: &stream, position: 0 };
    let outcome = go(&fake, lane, stages, HOUR, &AtomicBool::new(false));
    assert!(outcome.failure.is_none() && !outcome.interrupted, "{:?}", outcome.failure);
    let records: u64 = outcome.runs.iter().map(|run| run.recorder.records).sum();
    assert_eq!(outcome.lanes[0].position, records);
    assert_eq!(fake.leveled.load(Ordering::SeqCst), 1);
    let kinds: Vec<_> = stages.iter().map(|stage| stage.kind).collect();
    assert_eq!(*fake.begun.lock().unwrap(), kinds);
    result(&fake, &outcome)
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
    near(report.drain_s.unwrap(), 0.505);
    near(report.records_per_s, 375_000.0 / 4.505);
    let checkpoints = report.checkpoints.as_ref().unwrap();
    let pause = report.operator_pause_ms.unwrap();
    near(pause.p50, 5.0);
    near(pause.max, 50.01);
    near(checkpoints.cut_ms.unwrap().max, 5.0);
    near(report.record_latency_ms.unwrap().p50, 0.01);
    // 40 that the schedule triggers, and the one that ends the stretch.
    assert_eq!((checkpoints.n, checkpoints.failed), (41, 0));
    near(checkpoints.duration_ms.unwrap().p99, 20.0);
    let bytes = checkpoints.bytes.unwrap();
    assert_eq!((bytes.p50, bytes.max), (1000.0, 70_000.0));
    assert_eq!(checkpoints.puts_per_checkpoint, Some(2.0));
    assert_eq!(report.load.unwrap().records, 1000);
    // 3 ms and 1000 B at 500 kB/s, rather than 2000 B at 1.25 MB/s.
    let floor = checkpoints.floor_ms.unwrap();
    near(floor.p50, 5.0);
    near(floor.max, 3.0 + 140.0);
    near(report.checkpoint_series[3].floor_ms.unwrap(), 5.0);
    // A record waits for a checkpoint of 20 ms, and ages until the next one is done 97 ms later. The stall of
    // 50 ms holds up one barrier; whether one of the few looks falls there is up to the machine.
    let lag = report.durable_lag_ms.unwrap();
    assert!(lag.p50 > 20.0 && lag.max < 20.0 + 97.0 + 50.0 + 8.0, "{lag:?}");
    let store = report.store.as_ref().unwrap();
    // The bytes in the store are those of its 42 cuts.
    assert_eq!(store.live_bytes_end, Some(42_000));
    near(store.usd_per_month.unwrap(), 42_000.0 / f64::from(1 << 30) * 0.023);
    let cache = report.record_cache.unwrap();
    // The 1000 of the load are not counted.
    assert_eq!((cache.hits, cache.misses), (3 * report.records, report.records));
    assert_eq!((cache.hit_rate, cache.evictions), (Some(0.75), Some(2 * report.records)));
    assert_eq!((cache.entries, cache.bytes, cache.limit_bytes), (Some(900), Some(90_000), Some(100_000)));
    let end = report.memory.unwrap().end;
    assert_eq!((end.records, end.deltas), (90_000, 1000 + report.records));
    near(report.samples.last().unwrap().t_s, report.measured_s);
    assert_eq!(report.samples.last().unwrap().memory, Some(end));
    assert_eq!(report.samples.last().unwrap().records, report.records);
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
fn a_failing_operator_ends_the_run_with_the_figures_so_far() {
    let (fake, operator) = Fake::new(Costs { fail_at: Some(50_000), ..Costs::default() });
    let stream = stream(Operation::Put);
    let lane = Lane { operator, stream: &stream, position: 0 };
    let stages = [LOAD, stage(StageKind::Measured, None, 4), stage(StageKind::Steady, Some(1.0), 4)];
    let outcome = go(&fake, lane, &stages, HOUR, &AtomicBool::new(false));
    assert_eq!(outcome.failure.as_ref().unwrap().to_string(), "the fake fails");
    let result = result(&fake, &outcome);
    assert_eq!((result.records, result.load.unwrap().records), (49_000, 1000));
    near(result.record_latency_ms.unwrap().p50, 0.01);
    assert!(result.steady.is_none(), "no later stage is begun");
    assert!(fake.abandoned.load(Ordering::SeqCst));
}

#[test]
fn a_run_that_does_not_get_on_is_given_up_with_the_figures_so_far() {
    let (fake, operator) = Fake::new(Costs { stuck_at: Some(50_000), ..Costs::default() });
    let stream = stream(Operation::Put);
    let lane = Lane { operator, stream: &stream, position: 0 };
    let stages = [LOAD, stage(StageKind::Measured, None, 4)];
    let outcome = go(&fake, lane, &stages, Duration::from_millis(100), &AtomicBool::new(false));
    let failure = outcome.failure.as_ref().unwrap().to_string();
    assert!(failure.contains("nothing has got on for 100ms"), "{failure}");
    let result = result(&fake, &outcome);
    assert_eq!(result.records, 49_000);
}

#[test]
fn an_interrupt_ends_the_stage_and_settles() {
    let (fake, operator) = Fake::new(Costs::default());
    let stream = stream(Operation::Put);
    let lane = Lane { operator, stream: &stream, position: 0 };
    let interrupt = AtomicBool::new(true);
    let outcome = go(&fake, lane, &[LOAD, stage(StageKind::Measured, None, 4)], HOUR, &interrupt);
    assert!(outcome.interrupted && outcome.failure.is_none());
    assert_eq!(outcome.runs.len(), 1);
    assert_eq!(fake.events.read(|log| log.checkpoints.len()), 1, "what was done is durable");
    let result = result(&fake, &outcome);
    assert_eq!((result.records, result.measured_s), (0, 0.0));
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
    let slow = RunResult { mode: Mode::Native, ..slow };
    let columns = Column::of([&quick, &slow].into_iter());
    let table = table::side_by_side(&columns);
    assert!(table.contains("records/s") && table.contains("20.0 kB") && table.contains("✓"), "{table}");
    assert!(table.contains("changelog is") && table.contains("3.00 MB"), "{table}");
    assert!(table.contains("hit rate of the cache of records") && table.contains("75.0 %"), "{table}");
    assert_eq!(table::differing_options(&columns), "");
    // Two runs each make two columns still, with a ratio for each pair.
    let columns = Column::of([&quick, &slow, &quick, &slow].into_iter());
    assert_eq!(columns.len(), 2);
    let table = table::side_by_side(&columns);
    assert!(table.contains("2.00× 2.00× lower ✓"), "{table}");
    let mut other = quick.clone();
    other.options.insert("block_size".to_owned(), "4 KiB".to_owned());
    let mut slow_too = slow.clone();
    slow_too.options.insert("block_size".to_owned(), "8 KiB".to_owned());
    let table = table::differing_options(&Column::of([&other, &slow_too].into_iter()));
    assert!(table.contains("block_size") && table.contains("4 KiB") && table.contains("8 KiB"), "{table}");

    let text = crate::display::explain::explain(&quick, &slow).join("\n");
    assert!(text.contains("native checkpoint uploads whole SST files"), "{text}");
    assert!(text.contains("3.00 MB at most") && text.contains("× native's; the delta"), "{text}");
    // Where the figures speak against the changelog, so does the text.
    let text = crate::display::explain::explain(&slow, &quick).join("\n");
    assert!(text.contains("costs more here than is saved"), "{text}");
    assert!(text.contains("Here the changes were more than the new SST files"), "{text}");
}

fn driven(operation: Operation, costs: Costs) -> (FakeOperator, Stream, u64) {
    let (fake, operator) = Fake::new(costs);
    let stream = stream(operation);
    let lane = Lane { operator, stream: &stream, position: 0 };
    let stages = [LOAD, stage(StageKind::Measured, Some(20_000.0), 1)];
    let lane = go(&fake, lane, &stages, HOUR, &AtomicBool::new(false)).lanes.remove(0);
    (lane.operator, stream.clone(), lane.position)
}

fn check(operator: FakeOperator, stream: &Stream, position: u64) -> (Verdict, FakeOperator) {
    let mut operators = [operator];
    let expected = Expected::after(std::slice::from_ref(stream), &[position]);
    let verdict = verify(&mut operators, &expected).unwrap();
    let [operator] = operators;
    (verdict, operator)
}

#[test]
fn every_operation_leads_to_the_state_that_is_computed() {
    for operation in
        [Operation::ReadModifyWrite, Operation::Put, Operation::Append, Operation::Window, Operation::Mixed]
    {
        let (operator, stream, position) = driven(operation, Costs::default());
        assert!(position > 10_000);
        let (verdict, operator) = check(operator, &stream, position);
        assert!(verdict.is_right() && verdict.keys > 300, "{operation}: {verdict:?}");
        // One record more or less is another state.
        let later = (position + 1..)
            .find(|later| stream.record(later - 1).action != crate::harness::workload::Action::Read);
        let (verdict, _) = check(operator, &stream, later.unwrap());
        assert!(!verdict.is_right(), "{operation}");
    }
}

#[test]
fn a_window_that_was_not_deleted_is_extra() {
    let (mut operator, stream, position) = driven(Operation::Window, Costs::default());
    let window = stream.window_after(position).unwrap();
    let key = crate::harness::workload::KeyBytes::new(stream.key(3), Some(window - 1)).to_vec();
    operator.values.insert((stream.group_of(stream.key(3)), key), vec![1]);
    let (verdict, _) = check(operator, &stream, position);
    assert_eq!((verdict.extra_keys, verdict.missing_keys, verdict.wrong_keys), (1, 0, 0), "{verdict:?}");
}

#[test]
fn a_lossy_backend_is_caught() {
    for operation in [Operation::ReadModifyWrite, Operation::Append, Operation::Mixed] {
        let lossy = Costs { lose_every: Some(1000), ..Costs::default() };
        let (operator, stream, position) = driven(operation, lossy);
        let (verdict, _) = check(operator, &stream, position);
        assert!(
            verdict.wrong_keys + verdict.missing_keys + verdict.extra_keys >= 5,
            "{operation}: {verdict:?}"
        );
        assert!(!verdict.examples.is_empty());
    }
}

#[test]
fn the_state_of_several_subtasks_is_verified_at_another_parallelism() {
    let streams = small(Operation::Put).streams().unwrap();
    let positions: Vec<u64> = streams.iter().map(|stream| stream.own_keys() + 100).collect();
    let mut values = BTreeMap::new();
    for (stream, position) in streams.iter().zip(&positions) {
        for record in (0..*position).map(|position| stream.record(position)) {
            let key = stream.key(record.index);
            let mut value = Vec::new();
            crate::harness::workload::write_value(1, record.number, 20, &mut value);
            values.insert((stream.group_of(key), key.to_be_bytes().to_vec()), value);
        }
    }
    // Two stores hold what three subtasks have written.
    let store = |groups: std::ops::Range<u16>| {
        let (_, mut operator) = Fake::new(Costs::default());
        operator.groups = groups.map(KeyGroup).collect();
        let own = values.iter().filter(|((group, _), _)| operator.groups.contains(group));
        operator.values = own.map(|(key, value)| (key.clone(), value.clone())).collect();
        operator
    };
    let expected = Expected::after(&streams, &positions);
    let verdict = verify(&mut [store(0..50), store(50..128)], &expected).unwrap();
    assert!(verdict.is_right() && verdict.keys == 1000, "{verdict:?}");
    // Groups that nobody holds are missing whole.
    let verdict = verify(&mut [store(0..50), store(60..128)], &expected).unwrap();
    assert!(verdict.missing_keys > 50 && verdict.keys == 1000, "{verdict:?}");
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
    let (verdict, _) = check(operator, &stream, position);
    assert_eq!(
        (verdict.keys, verdict.missing_keys, verdict.wrong_keys, verdict.extra_keys),
        (1000, 1, 1, 3),
        "{verdict:?}"
    );
}
