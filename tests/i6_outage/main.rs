//! I6: an outage, a slow store or a failed upload never kills the job nor loses data; memory stays
//! bounded, and all heals by itself.
#![allow(clippy::unwrap_used)]

mod outages;
mod reads;
mod slow;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use alluvium::{
    CheckpointId, CheckpointListener, CheckpointMode, CheckpointReport, Error, ErrorKind, Job, JobLocation,
    JobOptions, MapState, MaterializationReport, OpenMode, Opened, PendingCheckpoint, StateStore, Ttl,
    TtlUpdate,
};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use alluvium_testkit::clock::ManualClock;
use alluvium_testkit::drive::{PREFIX, checkpoint, contents, get, noise, open, put, put_any, quiet};
use alluvium_testkit::faults::{Answer, Fault, FaultStore, Gate, Link, Op};
use alluvium_testkit::{eventually, now};

const LONG: Duration = alluvium_testkit::PATIENCE;
const MEMORY: u64 = 8_000_000;
const DELTA: u64 = 100_000;

/// A store that can be switched off, with a job on it.
struct Line {
    store: Arc<FaultStore>,
    down: Arc<AtomicBool>,
    dir: tempfile::TempDir,
}

impl Line {
    fn new() -> Self {
        let store = FaultStore::new(InMemory::new());
        let down = Arc::new(AtomicBool::new(false));
        let switch = Arc::clone(&down);
        store.rule(move |_| if switch.load(Ordering::Relaxed) { Fault::Fail } else { Fault::Pass });
        Self { store, down, dir: tempfile::tempdir().unwrap() }
    }

    fn cut(&self) {
        self.down.store(true, Ordering::Relaxed);
    }

    fn mend(&self) {
        self.down.store(false, Ordering::Relaxed);
    }

    fn options(&self) -> JobOptions {
        quiet(self.dir.path(), OpenMode::CreateOrOpen)
            .memory(MEMORY)
            .delta_bytes(DELTA)
            .checkpoint_timeout(Duration::from_secs(1))
    }

    fn open(&self, options: JobOptions) -> Opened {
        open(&self.store, options).unwrap()
    }

    /// Requests may take half a second, beside the time that their bytes need.
    fn open_in_haste(&self, options: JobOptions) -> Opened {
        let location = JobLocation::store(Arc::clone(&self.store) as Arc<dyn ObjectStore>, PREFIX);
        Job::open(location.request_timeout(Duration::from_millis(500)), options).unwrap()
    }
}

/// Ends an outage after a while, so that a test that is stuck in it fails.
struct Watchdog {
    called_off: mpsc::Sender<()>,
    thread: JoinHandle<bool>,
}

impl Watchdog {
    fn new(down: &Arc<AtomicBool>) -> Self {
        let (called_off, wait) = mpsc::channel();
        let down = Arc::clone(down);
        let thread = std::thread::spawn(move || {
            let bitten = wait.recv_timeout(LONG) == Err(RecvTimeoutError::Timeout);
            if bitten {
                down.store(false, Ordering::Relaxed);
            }
            bitten
        });
        Self { called_off, thread }
    }

    #[track_caller]
    fn call_off(self) {
        drop(self.called_off);
        assert!(!self.thread.join().unwrap(), "a call was stuck until the outage was ended");
    }
}

/// A quarter of the memory is for deltas. What is frozen and sealed, but not yet applied, is there
/// twice for a while.
fn assert_bounded(job: &Job) {
    let held = || job.stats().stores[0].held_bytes;
    let now = held();
    assert!(now < MEMORY / 2 + 4 * DELTA, "{now} bytes are held, of {MEMORY} in all");
    eventually("deltas are in memory once only", LONG, || held() < MEMORY / 4 + 4 * DELTA);
}

/// A checkpoint that succeeds at last; the store may still be waiting for its next try.
fn checkpoint_at_last(job: &Job, stores: &mut [StateStore], metadata: &str) -> CheckpointReport {
    let start = now();
    loop {
        match checkpoint(job, stores, metadata) {
            Ok(report) => return report,
            Err(error) => assert!(start.elapsed() < LONG, "no checkpoint after the outage: {error}"),
        }
    }
}

fn passing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Aborted | ErrorKind::StoreUnavailable)
}

#[test]
fn i6_the_job_goes_on_through_an_outage_with_bounded_memory_and_heals() {
    let line = Line::new();
    let Opened { job, mut stores, .. } = line.open(line.options());
    put(&mut stores[0], "before", b"1").unwrap();
    checkpoint(&job, &mut stores, "before").unwrap();

    line.cut();
    put(&mut stores[0], "during", b"2").unwrap();
    let error = checkpoint(&job, &mut stores, "during").unwrap_err();
    assert!(passing(&error), "{error}");
    job.health().unwrap();
    assert_eq!(get(&mut stores[0], "during"), Some(b"2".to_vec()));
    assert_eq!(job.stats().checkpoints_failed, 1);

    // Should a write block in spite of all, the test fails instead of hanging.
    let stuck = Watchdog::new(&line.down);

    // Writes go on until the memory for deltas is full, which shows before it blocks.
    let mut written = 0_u64;
    loop {
        match stores[0].try_reserve() {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                // What is on its way through sealing may be counted twice for a moment.
                std::thread::sleep(Duration::from_millis(300));
                if stores[0].try_reserve().is_err() {
                    break;
                }
            }
        }
        put(&mut stores[0], &format!("key {written}"), &noise(written, 1000)).unwrap();
        written += 1;
        assert!(written * 1000 < MEMORY, "memory is not bounded: {:?}", stores[0].stats());
    }
    assert!(written > 500, "blocked after {written} writes already");
    assert_bounded(&job);
    stuck.call_off();
    // Reads are not concerned.
    assert_eq!(get(&mut stores[0], "key 0"), Some(noise(0, 1000)));
    assert_eq!(get(&mut stores[0], "before"), Some(b"1".to_vec()));

    // A write that has to wait does so until the store is back, and no longer.
    let through = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (through, store) = (&through, &mut stores[0]);
        let writer = scope.spawn(move || {
            for n in 0..200 {
                put(store, &format!("waiting {n}"), &noise(n, 1000)).unwrap();
            }
            through.store(true, Ordering::Relaxed);
        });
        // Long enough for all of it, if nothing held it back.
        std::thread::sleep(Duration::from_millis(700));
        assert!(!through.load(Ordering::Relaxed), "nothing held the writer back");
        assert_bounded(&job);
        job.health().unwrap();
        line.mend();
        let start = now();
        while !writer.is_finished() {
            assert!(start.elapsed() < LONG, "the writer still waits");
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let stats = job.stats();
    assert!(stats.stores[0].blocked_writes > 0 && stats.stores[0].blocked_ms > 0.0, "{stats:?}");
    checkpoint_at_last(&job, &mut stores, "after");
    job.settle(LONG).unwrap();
    let tries = job.stats().remote.retries;
    checkpoint(&job, &mut stores, "after").unwrap();
    assert_eq!(job.stats().remote.retries, tries, "healed, and yet something is tried again");
    let expected = contents(&mut stores, "words");
    drop((job, stores));

    let mut after = line.open(line.options());
    assert_eq!(after.metadata.as_deref(), Some(b"after".as_slice()));
    assert!(contents(&mut after.stores, "words") == expected);
    assert_eq!(expected.len() as u64, 2 + written + 200);
}
