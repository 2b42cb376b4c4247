//! I5: a checkpoint's bytes depend on the delta, neither on the size of the state nor on compaction. In
//! native mode, for comparison, a full compaction makes the next checkpoint upload everything again.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use alluvium::{CheckpointListener, CheckpointMode, CheckpointReport, Job, OpenMode, Opened, StateStore};
use object_store::memory::InMemory;

use alluvium_testkit::drive::{checkpoint, get, materialize, noise, open, put, quiet};
use alluvium_testkit::faults::{Fault, FaultStore, Gate};

const KEYS: u64 = 40_000;
const VALUE: usize = 200;
const STATE: u64 = KEYS * VALUE as u64;
/// Keys changed between two checkpoints.
const CHANGED: u64 = 200;

struct Run {
    store: Arc<FaultStore>,
    _dir: tempfile::TempDir,
    job: Job,
    stores: Vec<StateStore>,
    round: u64,
    /// Bytes of packs.
    packed: u64,
}

impl Run {
    /// A job with the whole state in it, and a checkpoint behind it.
    fn new(mode: CheckpointMode) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = FaultStore::new(InMemory::new());
        let options = quiet(dir.path(), OpenMode::Create).mode(mode).memory(64_000_000);
        let Opened { job, mut stores, .. } = open(&store, options).unwrap();
        for key in 0..KEYS {
            put(&mut stores[0], &format!("key {key:08}"), &noise(key, VALUE)).unwrap();
        }
        if mode == CheckpointMode::Changelog {
            // Or else packing the deltas of the state would be counted below.
            materialize(&job);
        }
        checkpoint(&job, &mut stores, "").unwrap();
        job.settle(Duration::from_secs(60)).unwrap();
        let mut run = Self { store, _dir: dir, job, stores, round: 0, packed: 0 };
        // The ordinary case, once, so that what follows is compared with like.
        run.change_and_checkpoint();
        run
    }

    /// Changes a few keys; the bytes that were PUT until the checkpoint was durable, and its report.
    /// Packs are left out: what travelled inside manifests is copied together in the background, once
    /// for every 16 checkpoints.
    fn change_and_checkpoint(&mut self) -> (u64, CheckpointReport) {
        self.round += 1;
        for n in 0..CHANGED {
            let key = (self.round * 7919 + n * 197) % KEYS;
            put(&mut self.stores[0], &format!("key {key:08}"), &noise((self.round << 32) | n, VALUE))
                .unwrap();
        }
        self.store.take_calls();
        let report = checkpoint(&self.job, &mut self.stores, "").unwrap();
        let calls = self.store.take_calls();
        let (packs, own): (Vec<_>, Vec<_>) =
            calls.iter().filter(|call| call.writes()).partition(|call| call.path.ends_with(".pack"));
        self.packed += packs.iter().map(|call| call.bytes).sum::<u64>();
        (own.iter().map(|call| call.bytes).sum(), report)
    }
}

#[test]
fn i5_changelog_checkpoints_do_not_feel_a_full_compaction() {
    let mut run = Run::new(CheckpointMode::Changelog);
    let (before, report) = run.change_and_checkpoint();
    let delta = CHANGED * VALUE as u64;
    assert!(before > delta && before < delta * 3 / 2, "{before} bytes for a delta of {delta}: {report:?}");
    assert_eq!(report.sst_bytes, 0);
    assert_eq!(report.bytes, before, "what travels in the manifest counts once");
    assert!(report.bytes_after_trigger <= before);

    let job = run.job.clone();
    let compacted = std::thread::spawn(move || {
        for _ in 0..3 {
            job.compact().unwrap();
        }
    });
    let (mut during, mut total) = (0, 0);
    loop {
        let done = compacted.is_finished();
        let (bytes, report) = run.change_and_checkpoint();
        // The list of references in the manifest grows by one a checkpoint, until they are packed.
        assert!(bytes < before * 5 / 4, "{bytes} bytes while compacting, {before} before: {report:?}");
        assert_eq!(report.sst_bytes, 0);
        during += u32::from(!done);
        total += bytes;
        if done {
            break;
        }
    }
    compacted.join().unwrap();
    assert!(during > 0, "no checkpoint fell into the compaction");
    assert!(run.packed <= total * 2, "{} bytes of packs for {total} bytes of checkpoints", run.packed);
    // Not afterwards either.
    for _ in 0..3 {
        let (bytes, _) = run.change_and_checkpoint();
        assert!(bytes < before * 5 / 4);
    }
}

#[test]
fn i5_native_checkpoints_upload_the_state_again_after_a_full_compaction() {
    let mut run = Run::new(CheckpointMode::NativeIncremental);
    let (before, report) = run.change_and_checkpoint();
    assert!(before < STATE / 10, "{before} bytes for a small change: {report:?}");
    assert_eq!(report.bytes, before);
    run.job.compact().unwrap();
    let (after, report) = run.change_and_checkpoint();
    assert!(after > STATE * 8 / 10, "{after} bytes after a compaction of {STATE}: {report:?}");
    assert!(report.sst_bytes > STATE * 8 / 10, "{report:?}");
}

/// The same delta costs the same on a state a hundred times smaller.
#[test]
fn i5_bytes_do_not_depend_on_the_size_of_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let Opened { job, stores, .. } = open(&store, quiet(dir.path(), OpenMode::Create)).unwrap();
    let mut small = Run { store, _dir: dir, job, stores, round: 0, packed: 0 };
    small.change_and_checkpoint();
    let (of_small, _) = small.change_and_checkpoint();
    let (of_large, _) = Run::new(CheckpointMode::Changelog).change_and_checkpoint();
    assert!(of_large < of_small * 11 / 10, "{of_large} bytes on a large state, {of_small} on a small one");
}

/// Nor do they while a base is being uploaded: it never gets in the way of a checkpoint.
#[test]
fn i5_checkpoints_go_on_beside_a_materialization() {
    let mut run = Run::new(CheckpointMode::Changelog);
    let (_, ordinary) = run.change_and_checkpoint();
    let gate = Gate::closed();
    let held = gate.clone();
    run.store.rule(move |call| match call.path.ends_with(".sst") {
        true => Fault::Hold(held.clone()),
        false => Fault::Pass,
    });
    run.job.materialize();
    alluvium_testkit::eventually("a base is on its way", alluvium_testkit::PATIENCE, || gate.waiting() > 0);
    // One that waited for the base would never end.
    alluvium_testkit::unheld(
        "checkpoints beside a base",
        || gate.open(),
        || {
            for _ in 0..40 {
                let (_, report) = run.change_and_checkpoint();
                // However many there are: deltas that were packed are named by one reference.
                assert!(report.bytes_after_trigger < ordinary.bytes_after_trigger * 5 / 4, "{report:?}");
            }
        },
    );
    assert!(gate.waiting() > 0, "the base went up before");
    gate.open();
    run.job.settle(alluvium_testkit::PATIENCE).unwrap();
}

/// What a checkpoint says about those before it stays small however many there are since the base.
#[test]
fn i5_references_do_not_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let Opened { job, mut stores, .. } = open(&store, quiet(dir.path(), OpenMode::Create)).unwrap();
    let mut beside = Vec::new();
    for round in 0..1500 {
        put(&mut stores[0], &format!("key {}", round % 50), &noise(round, 100)).unwrap();
        let report = checkpoint(&job, &mut stores, "").unwrap();
        if round % 100 < 2 {
            // The packer works beside the checkpoints; here it catches up with them.
            job.settle(Duration::from_secs(30)).unwrap();
            beside.push(report.manifest_bytes - report.delta_bytes);
        }
    }
    let (first, most) = (beside[0], *beside.iter().skip(1).step_by(2).max().unwrap());
    assert!(most < first + 60 * 22, "{first} bytes beside the first delta, up to {most} later: {beside:?}");
    drop((job, stores));
    let Opened { mut stores, restored, .. } = open(&store, quiet(dir.path(), OpenMode::Existing)).unwrap();
    assert!(restored.deltas < 300, "{restored:?}");
    for key in 0..50 {
        assert_eq!(get(&mut stores[0], &format!("key {key}")), Some(noise(1450 + key, 100)));
    }
}

/// Keeps the reports of all checkpoints.
#[derive(Debug, Default)]
struct Reports(Mutex<Vec<CheckpointReport>>);

impl CheckpointListener for Reports {
    fn completed(&self, report: &CheckpointReport) {
        self.0.lock().unwrap().push(report.clone());
    }
}

/// Operators cut ahead of a scheduled barrier, so that what was written since then travels in the manifest.
#[test]
fn i5_a_scheduled_barrier_finds_most_of_the_delta_uploaded() {
    let dir = tempfile::tempdir().unwrap();
    let (store, reports) = (FaultStore::new(InMemory::new()), Arc::new(Reports::default()));
    store.rule(|call| match call.path.ends_with(".delta") {
        true => Fault::Delay(Duration::from_millis(50)),
        false => Fault::Pass,
    });
    let options = quiet(dir.path(), OpenMode::Create)
        .checkpoint_interval(Duration::from_millis(400))
        .inline_limit(40_000)
        .listener(Arc::clone(&reports) as Arc<dyn CheckpointListener>);
    let Opened { job, mut stores, .. } = open(&store, options).unwrap();
    let mut round = 0;
    alluvium_testkit::eventually(
        "checkpoints that found most of it uploaded",
        Duration::from_secs(60),
        || {
            // Some 100 kB between two barriers.
            for _ in 0..6 {
                round += 1;
                put(&mut stores[0], &format!("key {round}"), &noise(round, 200)).unwrap();
            }
            if let Some(id) = stores[0].due() {
                stores[0].cut(id, "").unwrap();
            }
            let reports = reports.0.lock().unwrap();
            let early = |report: &&CheckpointReport| {
                // Not those of a machine that hardly wrote anything.
                report.delta_bytes > 60_000
                    && report.puts == 1
                    && report.bytes_after_trigger < report.bytes / 2
            };
            reports.iter().filter(early).count() >= 4
        },
    );
    drop((job, stores));
}
