//! I6: an outage, a slow store or a failed upload never kills the job nor loses data; memory stays
//! bounded, and all heals by itself.
#![allow(clippy::unwrap_used)]

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

/// Several checkpoints in a row fail; none of what they had cut is lost, and their ids are not reused.
#[test]
fn i6_checkpoints_given_up_in_a_row_lose_nothing() {
    #[derive(Debug, Default)]
    struct Log(Mutex<Vec<(CheckpointId, bool)>>);
    impl CheckpointListener for Log {
        fn completed(&self, report: &CheckpointReport) {
            self.0.lock().unwrap().push((report.id, true));
        }
        fn failed(&self, id: CheckpointId, _error: &Error) {
            self.0.lock().unwrap().push((id, false));
        }
    }
    for inline_limit in [0, 100_000] {
        let line = Line::new();
        let log = Arc::new(Log::default());
        let options = || {
            let listener = Arc::clone(&log) as Arc<dyn CheckpointListener>;
            line.options()
                .inline_limit(inline_limit)
                .checkpoint_timeout(Duration::from_millis(200))
                .listener(listener)
        };
        let Opened { job, mut stores, .. } = line.open(options().subtasks(2));
        let mut ids = Vec::new();
        checkpoint(&job, &mut stores, "").unwrap();
        line.cut();
        for n in 0..4 {
            put_any(&mut stores, &format!("key {n}"), &noise(n, 300));
            let pending = job.trigger("").unwrap();
            ids.push(pending.id());
            for store in &mut stores {
                store.cut(pending.id(), "").unwrap();
            }
            assert!(passing(&pending.wait().unwrap_err()));
        }
        line.mend();
        put_any(&mut stores, "last", b"x");
        checkpoint_at_last(&job, &mut stores, "last");
        let expected = contents(&mut stores, "words");
        assert_eq!(expected.len(), 5);
        drop((job, stores));
        let mut after = line.open(options().subtasks(2));
        assert!(contents(&mut after.stores, "words") == expected);
        let log = log.0.lock().unwrap();
        assert!(ids.iter().all(|id| log.contains(&(*id, false))), "the listener heard of each failure");
        let mut unique: Vec<_> = log.iter().map(|(id, _)| *id).collect();
        unique.dedup();
        assert_eq!(unique.len(), log.len(), "an id was given twice: {log:?}");
    }
}

/// An outage that falls into a materialization: it ends without harm, and a later one succeeds without
/// sending again what was sent.
#[test]
fn i6_a_materialization_survives_an_outage() {
    #[derive(Debug, Default)]
    struct Bases(Mutex<Vec<MaterializationReport>>);
    impl CheckpointListener for Bases {
        fn materialized(&self, report: &MaterializationReport) {
            self.0.lock().unwrap().push(report.clone());
        }
    }
    let line = Line::new();
    let bases = Arc::new(Bases::default());
    let listener = Arc::clone(&bases) as Arc<dyn CheckpointListener>;
    let Opened { job, mut stores, .. } = line.open(line.options().listener(listener));
    for n in 0..500 {
        put(&mut stores[0], &format!("key {n}"), &noise(n, 500)).unwrap();
    }
    checkpoint(&job, &mut stores, "").unwrap();
    let down = Arc::clone(&line.down);
    line.store.rule(move |call| {
        let lost = call.path.ends_with(".base") || down.load(Ordering::Relaxed);
        if lost && call.writes() { Fault::Fail } else { Fault::Pass }
    });
    job.materialize();
    job.settle(LONG).unwrap();
    job.health().unwrap();
    assert!(bases.0.lock().unwrap().is_empty(), "a base without its index");
    // Meanwhile the changelog carries on.
    put(&mut stores[0], "meanwhile", b"x").unwrap();
    checkpoint(&job, &mut stores, "").unwrap();

    line.store.heal();
    line.store.take_calls();
    job.materialize();
    let there = || !bases.0.lock().unwrap().is_empty();
    eventually("a base", LONG, there);
    checkpoint(&job, &mut stores, "with a base").unwrap();
    let expected = contents(&mut stores, "words");
    let sent: u64 = line.store.take_calls().iter().filter(|call| call.writes()).map(|call| call.bytes).sum();
    assert!(sent < 200_000, "{sent} bytes: what had been uploaded before was sent again");
    drop((job, stores));
    let mut after = line.open(line.options());
    assert!(contents(&mut after.stores, "words") == expected);
}

/// A store that fails every few requests, and is slow now and then, for as long as the job runs.
#[test]
fn i6_a_flaky_store_costs_time_only() {
    let line = Line::new();
    let options =
        || line.options().checkpoint_timeout(Duration::from_secs(20)).inline_limit(2_000).subtasks(2);
    let Opened { job, mut stores, .. } = line.open(options());
    let mut fates = StdRng::seed_from_u64(6);
    line.store.rule(move |_| match fates.random_range(0..20) {
        0..3 => Fault::Fail,
        3 => Fault::Answer(Answer::Lost),
        4 | 5 => Fault::Delay(Duration::from_millis(30)),
        _ => Fault::Pass,
    });
    for round in 0..25_u64 {
        for n in 0..40 {
            put_any(&mut stores, &format!("key {}", (round * 31 + n) % 300), &noise(round * 100 + n, 200));
        }
        if round % 8 == 7 {
            job.materialize();
        }
        checkpoint_at_last(&job, &mut stores, &round.to_string());
        job.health().unwrap();
    }
    let expected = contents(&mut stores, "words");
    assert!(job.stats().remote.retries > 5, "{:?}", job.stats().remote);
    drop((job, stores));
    line.store.heal();
    let mut after = line.open(options());
    assert_eq!(after.metadata.as_deref(), Some(b"24".as_slice()));
    assert!(contents(&mut after.stores, "words") == expected);
}

/// At the start there is nobody yet whose work must go on: an error in good time, and nothing is left
/// behind that would be in the way later.
#[test]
fn i6_an_outage_at_the_open_is_an_error_and_leaves_nothing() {
    let line = Line::new();
    line.cut();
    let error = open(&line.store, line.options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{error}");
    line.mend();
    let Opened { job, mut stores, .. } = line.open(line.options());
    put(&mut stores[0], "k", b"v").unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    drop((job, stores));

    // In the middle of an open: whichever request is the first to fail.
    for healthy in [1, 2, 4, 6, 9] {
        let mut left = healthy;
        line.store.rule(move |_| {
            left -= 1;
            if left >= 0 { Fault::Pass } else { Fault::Fail }
        });
        match open(&line.store, line.options()) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{healthy}: {error}"),
        }
        line.store.heal();
        let mut opened = line.open(line.options());
        assert_eq!(get(&mut opened.stores[0], "k"), Some(b"v".to_vec()));
    }

    // A refusal that will not pass is told at once.
    line.store.rule(|_| Fault::Denied);
    line.store.take_calls();
    let error = open(&line.store, line.options()).unwrap_err();
    assert!(error.to_string().contains("permission"), "{error}");
    // One look for the job, and one by the opening itself; neither is tried again.
    let calls = line.store.take_calls();
    assert!(calls.len() <= 2, "a permanent refusal was met {} times: {calls:?}", calls.len());
}

/// No answer at all is an outage too.
#[test]
fn i6_requests_without_an_answer_end_in_an_abort_by_the_checkpoints_timeout() {
    let line = Line::new();
    let Opened { job, mut stores, .. } = line.open(line.options().inline_limit(0));
    put(&mut stores[0], "k", b"1").unwrap();
    let gate = Gate::closed();
    let held = gate.clone();
    line.store.rule(move |call| match call.op {
        Op::Put => Fault::Hold(held.clone()),
        _ => Fault::Pass,
    });
    let start = now();
    let error = checkpoint(&job, &mut stores, "").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Aborted, "{error}");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
    job.health().unwrap();
    put(&mut stores[0], "k", b"2").unwrap();
    line.store.heal();
    gate.open();
    checkpoint_at_last(&job, &mut stores, "2");
    drop((job, stores));
    assert_eq!(get(&mut line.open(line.options()).stores[0], "k"), Some(b"2".to_vec()));
}

/// Nor do the files of a base, that go up side by side.
#[test]
fn i6_a_base_gets_through_a_slow_link() {
    let line = Line::new();
    let options = line.options().checkpoint_timeout(LONG);
    let Opened { job, mut stores, .. } = line.open_in_haste(options);
    for n in 0..4_000 {
        put(&mut stores[0], &format!("key {n}"), &noise(n, 1000)).unwrap();
    }
    checkpoint(&job, &mut stores, "").unwrap();
    job.settle(LONG).unwrap();
    // A few files of a megabyte or two share it: one alone would be through long before its deadline.
    let link = Link::new(500_000);
    line.store.rule(move |call| match call.op {
        Op::Put if call.path.ends_with(".sst") => Fault::Carry(link.clone()),
        _ => Fault::Pass,
    });
    line.store.take_calls();
    job.materialize();
    job.settle(LONG).unwrap();
    let calls = line.store.take_calls();
    let files: Vec<_> =
        calls.iter().filter(|call| call.op == Op::Put && call.path.ends_with(".sst")).collect();
    assert!(files.len() >= 2, "too few files to share a link: {files:?}");
    let sent: u64 = files.iter().map(|call| call.bytes).sum();
    assert!(sent < 5_000_000, "{sent} bytes were sent for 4 MB: transfers were in vain");
}

/// What reads have renewed goes into the delta at the barrier, however little memory there is.
#[test]
fn i6_a_cut_does_not_wait_for_the_memory_that_reads_take() {
    let line = Line::new();
    let Opened { job, mut stores, .. } = line.open(line.options().checkpoint_timeout(LONG));
    let ttl = Ttl::new(Duration::from_secs(3600)).update(TtlUpdate::OnReadAndWrite);
    let map = stores[0].register(MapState::<u64, Vec<u8>>::descriptor("map").ttl(ttl)).unwrap();
    stores[0].set_key(&1_u64).unwrap();
    for n in 0..2_000 {
        map.put(&mut stores[0], &n, &noise(n, 1000)).unwrap();
    }
    checkpoint_at_last(&job, &mut stores, "all");
    job.settle(LONG).unwrap();

    let gate = Gate::closed();
    let held = gate.clone();
    line.store.rule(move |call| match call.op {
        Op::Put => Fault::Hold(held.clone()),
        _ => Fault::Pass,
    });
    let mut n = 0;
    while stores[0].try_reserve().is_ok() {
        n += 1;
        put(&mut stores[0], &format!("key {n}"), &noise(n, 1000)).unwrap();
    }
    stores[0].set_key(&1_u64).unwrap();
    // Less than a delta: beyond that a read hands over what has gathered, and waits for memory as a write does.
    for n in 0..90 {
        assert_eq!(map.get(&stores[0], &n).unwrap(), Some(noise(n, 1000)));
    }
    let renewed = stores[0].stats().renewed_bytes;
    assert!(renewed > 80_000 && renewed < DELTA, "{renewed} bytes have gathered");
    let pending = job.trigger("").unwrap();
    let (told, cut) = mpsc::channel();
    std::thread::scope(|scope| {
        let (store, id) = (&mut stores[0], pending.id());
        scope.spawn(move || told.send(store.cut(id, "").map(drop)).unwrap());
        let outcome = cut.recv_timeout(LONG);
        line.store.heal();
        gate.open();
        outcome.expect("the cut waits for memory").unwrap();
    });
    assert_eq!(stores[0].stats().renewed_bytes, 0);
    pending.wait().unwrap();
    assert_eq!(map.get(&stores[0], &7).unwrap(), Some(noise(7, 1000)));
}

/// Reads hand over what they make young and wait for memory as writes do; cuts come in the midst of it.
#[test]
fn i6_reads_that_make_young_and_cuts_wait_for_no_more_than_memory_and_lose_nothing() {
    const ENTRIES: u64 = 4_000;
    let (line, clock) = (Line::new(), ManualClock::at(1_000));
    let options = || line.options().checkpoint_timeout(LONG).env(clock.env());
    let descriptor = || {
        let ttl = Ttl::new(Duration::from_millis(100)).update(TtlUpdate::OnReadAndWrite);
        MapState::<u64, Vec<u8>>::descriptor("map").ttl(ttl)
    };
    let Opened { job, mut stores, .. } = line.open(options());
    let map = stores[0].register(descriptor()).unwrap();
    stores[0].set_key(&1_u64).unwrap();
    for n in 0..ENTRIES {
        map.put(&mut stores[0], &n, &noise(n, 1000)).unwrap();
    }
    checkpoint_at_last(&job, &mut stores, "all");
    job.settle(LONG).unwrap();

    // All of them are read shortly before they expire, while no upload gets through.
    clock.set(1_090);
    let gate = Gate::closed();
    let held = gate.clone();
    line.store.rule(move |call| if call.op == Op::Put { Fault::Hold(held.clone()) } else { Fault::Pass });
    let waits = || job.stats().memory.deltas >= job.stats().memory.deltas_limit;
    let (job_there, (done, outcome)) = (job.clone(), mpsc::channel());
    std::thread::spawn(move || {
        let mut pending = None;
        for n in 0..ENTRIES {
            assert_eq!(map.get(&stores[0], &n).unwrap(), Some(noise(n, 1000)), "{n}");
            let held = stores[0].stats().held_bytes;
            assert!(held < MEMORY / 4 + 4 * DELTA, "{held} bytes are held after {n} reads");
            // One before memory is full, one after it was, each with what reads have gathered.
            if n == 450 || n == ENTRIES - 250 {
                pending.take().map(PendingCheckpoint::wait).transpose().unwrap();
                let next = job_there.trigger("").unwrap();
                stores[0].cut(next.id(), "").unwrap();
                pending = Some(next);
            }
        }
        pending.take().map(PendingCheckpoint::wait).transpose().unwrap();
        // It holds the local directory.
        drop(job_there);
        done.send(stores).unwrap();
    });
    // Long enough for reads that wait for nothing to go far beyond it.
    for _ in 0..100 {
        eventually("reads fill the memory", LONG, waits);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(outcome.try_recv().is_err(), "they wait");
    line.store.heal();
    gate.open();
    let mut stores = outcome.recv_timeout(LONG).expect("reads and cuts wait for each other");
    assert!(job.stats().stores[0].blocked_writes > 0);
    assert_bounded(&job);
    checkpoint_at_last(&job, &mut stores, "young");
    drop((job, stores));

    let Opened { mut stores, .. } = line.open(options());
    let map = stores[0].register(descriptor()).unwrap();
    stores[0].set_key(&1_u64).unwrap();
    clock.set(1_189);
    let found: Vec<_> = map.iter(&stores[0]).unwrap().map(Result::unwrap).collect();
    assert!(found.iter().map(|(n, _)| *n).eq(0..ENTRIES), "{} of them are young", found.len());
    assert!(found.iter().all(|(n, value)| *value == noise(*n, 1000)));
    clock.set(1_190);
    assert!(map.is_empty(&stores[0]).unwrap());
}

/// A link on which what is held takes many times longer than a request may: those under way must not
/// take the time from each other until none of them arrives.
#[test]
fn i6_a_slow_link_is_used_by_few_at_a_time() {
    let line = Line::new();
    let options = line.options().inline_limit(10_000);
    let Opened { job, mut stores, .. } = line.open_in_haste(options.checkpoint_timeout(LONG));
    // A quarter of the memory takes 4 s, eight times the timeout.
    let link = Link::new(500_000);
    line.store.rule(move |call| match call.op {
        Op::Put => Fault::Carry(link.clone()),
        _ => Fault::Pass,
    });
    let start = now();
    std::thread::scope(|scope| {
        let store = &mut stores[0];
        let writer = scope.spawn(move || {
            for n in 0..3_000 {
                put(store, &format!("key {n}"), &noise(n, 1000)).unwrap();
            }
        });
        while !writer.is_finished() {
            if start.elapsed() > LONG {
                line.store.heal();
                writer.join().unwrap();
                panic!("no upload has got through");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    assert!(job.stats().stores[0].blocked_writes > 0, "the link was not too slow");
    checkpoint(&job, &mut stores, "through").unwrap();
    let calls = line.store.take_calls();
    let puts: Vec<_> = calls.iter().filter(|call| call.op == Op::Put && call.is_data()).collect();
    let sent: u64 = puts.iter().map(|call| call.bytes).sum();
    let sizes: Vec<_> = puts.iter().map(|call| (&call.path[call.path.len() - 15..], call.bytes)).collect();
    assert!(sent < 6_000_000, "{sent} bytes were sent for 3 MB: most transfers were in vain: {sizes:?}");
    assert!(puts.iter().any(|call| call.bytes > 2 * DELTA), "what had to wait has not gathered: {puts:?}");
}

/// Work that the job has put off is waited for: a native upload, and garbage collection.
#[test]
fn settling_waits_for_uploads_and_deletions() {
    let short = Duration::from_millis(300);
    let line = Line::new();
    let native = line.options().mode(CheckpointMode::NativeIncremental).checkpoint_timeout(LONG);
    let Opened { job, mut stores, .. } = line.open(native);
    put(&mut stores[0], "k", b"v").unwrap();
    let gate = Gate::closed();
    let held = gate.clone();
    line.store.rule(move |call| match call.is_data() {
        true => Fault::Hold(held.clone()),
        false => Fault::Pass,
    });
    let pending = job.trigger("").unwrap();
    stores[0].cut(pending.id(), "").unwrap();
    assert_eq!(job.settle(short).unwrap_err().kind(), ErrorKind::Aborted, "files are on their way");
    gate.open();
    pending.wait().unwrap();
    job.settle(LONG).unwrap();
    drop((job, stores));

    line.store.heal();
    let Opened { job, mut stores, .. } = line.open(line.options().retained(1).inline_limit(0));
    checkpoint(&job, &mut stores, "").unwrap();
    job.settle(LONG).unwrap();
    let gate = Gate::closed();
    let held = gate.clone();
    line.store.rule(move |call| match call.op {
        Op::Delete => Fault::Hold(held.clone()),
        _ => Fault::Pass,
    });
    for n in 0..16 {
        put(&mut stores[0], "k", &noise(n, 10)).unwrap();
        checkpoint(&job, &mut stores, "").unwrap();
    }
    assert_eq!(job.settle(short).unwrap_err().kind(), ErrorKind::Aborted, "garbage is being collected");
    gate.open();
    job.settle(LONG).unwrap();
}
