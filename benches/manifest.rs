//! What manifests cost: by subtasks, files, deltas, states and retained checkpoints.
//!
//! `cargo bench --profile dev --all-features --bench manifest -- [--retained N]`. The first table
//! is of made-up records; the others of a job that commits N checkpoints (10,000) and retains all of
//! them, or 3, on an object store in memory.

#![allow(clippy::unwrap_used, reason = "a benchmark may stop")]
#![allow(missing_docs, reason = "a program")]

use std::sync::Arc;

use alluvium::test_util::{ManifestShape, manifest_costs};
use alluvium::{Job, JobOptions, MaterializationOptions, OpenMode, Opened, StateOptions};
use object_store::memory::InMemory;

fn main() {
    let mut args = std::env::args().skip_while(|arg| arg != "--retained").skip(1);
    let count = args.next().map_or(10_000, |count| count.parse().unwrap());
    records();
    for retained in [count, 3] {
        commits(count, retained);
    }
}

fn records() {
    println!("subtasks  files  deltas  states  retained      bytes  encode ms  decode ms");
    for (subtasks, files, deltas, states, retained) in [
        (1, 16, 16, 1, 1),
        (1, 16, 16, 1, 10_000),
        (1, 16, 16, 1_000, 1),
        (1_000, 160, 4, 10, 10),
        (1_000, 160, 20, 10, 10),
        (1_000, 160, 20, 1_000, 10_000),
        (1_000, 160, 600, 10, 10),
    ] {
        let costs = manifest_costs(&ManifestShape { subtasks, files, deltas, states, retained }).unwrap();
        let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
        println!(
            "{subtasks:>8}  {files:>5}  {deltas:>6}  {states:>6}  {retained:>8}  {:>9}  {:>9.3}  {:>9.3}",
            costs.bytes,
            ms(costs.encode),
            ms(costs.decode)
        );
    }
}

/// CPU time of this process so far, in milliseconds.
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let main: f64 = stat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0.0);
    // All threads: /proc/self/task has one schedstat each.
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let all: f64 = tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|stat| stat.split(' ').next()?.parse::<f64>().ok())
        .sum();
    all.max(main) / 1e6
}

fn commits(count: usize, retained: usize) {
    let dir = tempfile::tempdir().unwrap();
    let by_hand = MaterializationOptions::on_demand();
    let options = JobOptions::new(dir.path(), OpenMode::Create)
        .memory(16_000_000)
        .retained(retained)
        .materialization(by_hand);
    let Opened { job, mut stores, .. } = Job::open((Arc::new(InMemory::new()), "job"), options).unwrap();
    println!("\n{retained} retained");
    println!("   so far  manifest bytes  CPU ms a checkpoint (whole process)");
    let step = (count / 5).max(1);
    let mut before = cpu_ms();
    for number in 1..=count {
        let store = &mut stores[0];
        let state = store.state(&StateOptions::new("words")).unwrap();
        let group = store.group_of(b"key");
        store.put(state, group, b"key", &number.to_le_bytes()).unwrap();
        let pending = job.trigger("").unwrap();
        store.cut(pending.id(), "").unwrap();
        let report = pending.wait().unwrap();
        if number % step == 0 {
            let now = cpu_ms();
            println!("{number:>8}  {:>14}  {:>8.3}", report.manifest_bytes, (now - before) / step as f64);
            before = now;
        }
    }
}
