//! Rows from results that are made up.

use super::*;
use crate::result::tests::minimal;
use crate::result::{
    Checkpoints, CompactionDebt, Debt, Percentiles, Restore, StoreModelSpec, StoreUse, percentiles_of,
};

/// `p50` and `p99` of 200 samples.
fn percentiles(p50: f64, p99: f64) -> Option<Percentiles> {
    Some(Percentiles { p50, p99, ..percentiles_of((0..200).map(f64::from)).unwrap() })
}

/// A result from which every row of its load can be computed.
fn full(records_per_s: f64) -> RunResult {
    let mut run = minimal();
    (run.records_per_s, run.records, run.measured_s) = (records_per_s, 1_000_000, 30.0);
    run.cpu_s_per_million_records = Some(4.0);
    run.rss_peak_bytes = Some(500_000_000);
    run.operator_pause_ms = percentiles(0.4, 4.0);
    run.record_latency_ms = percentiles(0.1, 2.0);
    run.checkpoints = Some(Checkpoints {
        n: 30,
        duration_ms: percentiles(60.0, 90.0),
        floor_ms: percentiles(40.0, 70.0),
        cut_ms: percentiles(0.05, 0.2),
        puts_per_checkpoint: Some(1.4),
        ..Checkpoints::default()
    });
    run.store = Some(StoreUse {
        put_bytes: 190_000_000,
        gets: 3,
        live_bytes_peak: Some(1_000_000_000),
        ..StoreUse::default()
    });
    let debt = Debt { pending_bytes: 0, l0_files: 0, live_sst_bytes: Some(200_000_000) };
    run.compaction_debt = Some(CompactionDebt { start: debt, last_record: None, end: debt });
    run.store_model = Some(StoreModelSpec {
        latency_ms: 30.0,
        latency_p99_ms: None,
        stream_bytes_per_s: Some(50e6),
        shared_bytes_per_s: Some(100e6),
        error_rate: None,
        outages: Vec::new(),
    });
    run.restore = Some(restore(5500.0, 500_000_000));
    run
}

fn restore(total_ms: f64, bytes: u64) -> Restore {
    Restore { total_ms, bytes: Some(bytes), ..Restore::default() }
}

/// Every load with every side, our own `faster` times as fast as the others.
fn turn(faster: f64) -> Turn {
    let mut turn = Turn::default();
    for run in super::super::runs(&[], true) {
        let ours = run.side == Side::Changelog;
        turn.add(run, full(if ours { faster * 100_000.0 } else { 100_000.0 }));
    }
    turn
}

fn change(turn: &mut Turn, load: Load, side: Side, change: impl FnOnce(&mut RunResult)) {
    change(turn.0.get_mut(&Run { load, side }).unwrap());
}

/// The row whose name begins so, without its name and spaces.
fn line(turns: &[Turn], name: &str) -> String {
    let text = sheet(turns);
    let line = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(name))
        .unwrap_or_else(|| panic!("no {name} in\n{text}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_row_is_computed_from_the_figures_that_it_names() {
    let mut turn = turn(3.0);
    change(&mut turn, Load::Paced, Side::Before, |run| run.cpu_s_per_million_records = Some(16.0));
    change(&mut turn, Load::FullSpeed, Side::Before, |run| run.cpu_s_per_million_records = Some(5.0));
    change(&mut turn, Load::Paced, Side::Native, |run| {
        run.cpu_s_per_million_records = Some(8.0);
        run.restore = Some(restore(5000.0, 1));
    });
    change(&mut turn, Load::FullSpeed, Side::Native, |run| run.restore = Some(restore(2000.0, 1)));
    change(&mut turn, Load::FullSpeed, Side::Plain, |run| run.records_per_s = 200_000.0);
    change(&mut turn, Load::Puts, Side::Native, |run| {
        run.store.as_mut().unwrap().live_bytes_peak = Some(800_000_000);
    });
    change(&mut turn, Load::Paced, Side::Changelog, |run| run.rss_peak_bytes = Some(601_000_000));
    let turns = [turn];
    for (name, rest) in [
        ("checkpoint p50 ÷ floor, 50,000/s", "≤ 1.30× 1.50× short"),
        ("checkpoint p99 ÷ floor's median, 50,000/s", "≤ 2.00× 2.25× short"),
        ("checkpoint p50 ÷ floor, full speed", "≤ 1.50× 1.50× pass"),
        ("checkpoint p99 ÷ floor's median, full speed", "≤ 2.50× 2.25× pass"),
        ("longest pause per checkpoint p50, 50,000/s", "≤ 500 µs 400 µs pass"),
        ("longest pause per checkpoint p99, 50,000/s", "≤ 3.00 ms 4.00 ms short"),
        // Of 200 cuts the longest one.
        ("cut p99.9 (below 1,000: longest), 50,000/s", "≤ 500 µs 199 ms short"),
        ("record latency p99, 50,000/s", "≤ 2.00 ms 2.00 ms pass"),
        ("record latency p99.9, 50,000/s", "≤ 6.00 ms – not measured"),
        ("read-modify-write ÷ native", "≥ 2.50× 3.00× pass"),
        ("read-modify-write ÷ no checkpoints", "≥ 2.00× 1.50× short"),
        ("read-modify-write ÷ Flink ²", "≥ 4.00× 2.71× short"),
        ("zipf 0.99 ÷ native", "≥ 3.00× 3.00× pass"),
        ("blind puts ÷ native", "≥ 3.50× 3.00× short"),
        ("windows ÷ native", "≥ 2.50× 3.00× pass"),
        ("ten times the keys ÷ native", "≥ 1.30× 3.00× pass"),
        ("ten times the keys, zipf 0.99 ÷ native", "≥ 2.00× 3.00× pass"),
        ("CPU of a record ÷ before ¹, 50,000/s", "≤ 0.50× 0.25× pass"),
        ("CPU of a record ÷ native, 50,000/s", "– 0.50×"),
        ("CPU of a record ÷ before ¹, full speed", "≤ 0.50× 0.80× short"),
        ("CPU of a record ÷ native, full speed", "– 1.00×"),
        ("bytes PUT per record, 50,000/s", "≤ 185 B 190 B short"),
        ("bytes held at most ÷ state, puts", "≤ 2.50× 5.00× short"),
        ("bytes held at most ÷ native, puts", "≤ 1.00× 1.25× short"),
        ("PUTs of a checkpoint, 50,000/s", "≤ 1.50 1.40 pass"),
        ("GETs a minute, 50,000/s", "≤ 0 6.00 short"),
        ("restore ÷ download, after 50,000/s", "≤ 1.15× 1.10× pass"),
        ("restore ÷ native, after 50,000/s", "≤ 1.50× 1.10× pass"),
        ("restore ÷ download, after full speed", "≤ 1.15× 1.10× pass"),
        ("restore ÷ native, after full speed", "≤ 1.50× 2.75× short"),
        ("peak memory of the process at 512 MB", "≤ 600 MB 601 MB short"),
    ] {
        assert_eq!(line(&turns, name), rest, "{name}");
    }
    let text = sheet(&turns);
    assert!(text.contains("14 of 28 pass; 1 turn(s)"), "{text}");
    assert_eq!(ROWS.len(), 31, "a row that is not above");
}

#[test]
fn the_median_of_the_turns_decides_and_each_turn_is_compared_in_itself() {
    let mut turns = [turn(2.0), turn(4.0), turn(3.0)];
    // Both sides of a turn on a slow machine: its ratio stays.
    for side in [Side::Changelog, Side::Native] {
        change(&mut turns[1], Load::Zipf, side, |run| run.records_per_s /= 10.0);
    }
    assert_eq!(line(&turns, "zipf 0.99 ÷ native"), "≥ 3.00× 3.00× 2.00× to 4.00× pass");
    let text = sheet(&turns[..2]);
    assert!(text.contains("; 2 turn(s)"), "{text}");
    assert_eq!(line(&turns[..1], "zipf 0.99 ÷ native"), "≥ 3.00× 2.00× short");
}

#[test]
fn what_was_not_run_is_not_judged() {
    let mut turn = turn(3.0);
    turn.0.retain(|run, _| run.side != Side::Before && run.load != Load::Zipf);
    let turns = [turn];
    assert_eq!(line(&turns, "zipf 0.99 ÷ native"), "≥ 3.00× – not measured");
    // Without the earlier build, its figure of another day: 15.6 s.
    assert_eq!(line(&turns, "CPU of a record ÷ before ¹, 50,000/s"), "≤ 0.50× 0.26× pass");
    let none = sheet(&[]);
    assert!(none.contains("0 of 0 pass; 0 turn(s)."), "{none}");
}

#[test]
fn the_machine_and_its_load_are_said() {
    let mut turn = turn(1.0);
    for (load, before) in [(Load::Paced, 0.5), (Load::Puts, 6.25)] {
        change(&mut turn, load, Side::Changelog, |run| {
            run.machine.cores = Some(2);
            run.machine.memory = Some(24_000_000_000);
            run.machine.load_average_before = Some(before);
        });
    }
    let text = sheet(&[turn]);
    assert!(text.contains("2 cores, 24.0 GB, load average before a run 0.50 to 6.25."), "{text}");
}
