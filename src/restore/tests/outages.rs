//! Restores over a store that fails, and onto a disk that is full.

use super::*;
use crate::restore::run::BATCHES;

/// A world with so many files in its base, and a remote that gives up at once.
async fn of_files(files: usize, seed: u64) -> (Arc<FaultStore>, World) {
    let faulty = FaultStore::new(InMemory::new());
    let mut world = World::on(Arc::clone(&faulty) as Arc<dyn ObjectStore>, seed);
    for _ in 0..files {
        world.pack(1, 50).await;
        world.materialize().await;
    }
    let retry = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
    let remote = Remote::new(Arc::clone(&world.store), "job".into(), Env::default()).with_retry(retry);
    world.remote = Arc::new(remote);
    (faulty, world)
}

#[tokio::test]
async fn i6_a_restore_that_the_store_fails_keeps_what_it_has_fetched() {
    let (faulty, world) = of_files(5, 31).await;
    let (found, restorer) = ([world.cut(1)], Restorer { parallel: 1, ..world.restorer() });
    let restore = async |target: &str, local: &[PathBuf]| {
        restorer.restore(&found, false, &[world.target(target)], local).await
    };
    // The index and two files come through.
    for fault in [Fault::Pass, Fault::Pass, Fault::Pass, Fault::Fail] {
        faulty.plan(Op::Get, fault);
    }
    let error = restore("first-try/table", &[]).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable);
    let kept = world.dir.path().join("first-try");
    let before = world.remote.counters();
    let restored = restore("second-try/table", &[kept]).await.unwrap();
    assert_eq!((world.remote.counters() - before).gets, 1 + 3, "the index and the other three files");
    assert!(restored.report.bytes_reused > 0);
    assert_eq!(contents(&restored.subtasks[0].table), world.model);
}

#[tokio::test]
async fn i6_what_is_not_needed_makes_room_before_anything_is_fetched() {
    let (faulty, world) = of_files(3, 32).await;
    let old = world.dir.path().join("00000-old");
    fs::create_dir_all(old.join("table")).unwrap();
    fs::write(old.join("table/000003.sst"), vec![0; 100_000]).unwrap();
    let needed = world.base.as_ref().unwrap().files[0].clone();
    let needed = world.bytes_of(&needed).await;
    fs::write(old.join("table/000004.sst"), &needed).unwrap();
    for fault in [Fault::Pass, Fault::Fail] {
        faulty.plan(Op::Get, fault);
    }
    let found = [world.cut(1)];
    let targets = [world.target("new/table")];
    let restorer = Restorer { parallel: 1, ..world.restorer() };
    let error = restorer.restore(&found, false, &targets, std::slice::from_ref(&old)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "no file was fetched: {error}");
    assert!(!old.join("table/000003.sst").exists(), "nobody needs it");
    assert!(old.join("table/000004.sst").exists());
    let restored = restorer.restore(&found, false, &targets, &[old]).await.unwrap();
    assert_eq!(restored.report.bytes_reused, needed.len() as u64);
    assert_eq!(contents(&restored.subtasks[0].table), world.model);
}

/// A clock that goes on by a second whenever somebody looks.
#[derive(Debug, Default)]
struct Impatient(AtomicU64);

impl Clock for Impatient {
    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn unix_millis(&self) -> u64 {
        0
    }
}

#[tokio::test]
async fn i6_a_restore_waits_out_an_outage_of_minutes_and_says_so() {
    let (faulty, mut world) = of_files(2, 33).await;
    let env = Env { clock: Arc::new(Impatient::default()), ..Env::default() };
    let retry = RetryPolicy { attempts: 2, first_pause: Duration::ZERO, max_pause: Duration::ZERO };
    let remote = Remote::new(Arc::clone(&world.store), "job".into(), env).with_retry(retry);
    let told = Arc::new(Mutex::new(Vec::new()));
    let notice: Notice = {
        let (told, faulty) = (Arc::clone(&told), Arc::clone(&faulty));
        Arc::new(move |error: &crate::Error, waited| {
            let mut told = told.lock().unwrap();
            told.push((error.kind(), waited));
            // The outage is over when this has been said so often.
            faulty.set_outage(told.len() < 30);
        })
    };
    let patient = |seconds| {
        let patience = Patience::new(Duration::from_secs(seconds), Some(Arc::clone(&notice)));
        Arc::new(remote.patient(patience))
    };
    let found = [world.cut(1)];
    world.remote = patient(600);
    faulty.set_outage(true);
    let restored = world.restore(&found, false, &[]).await.unwrap();
    assert_eq!(contents(&restored.subtasks[0].table), world.model);
    // The next restore empties the same directory, in which an open table would go on writing.
    drop(restored);
    let told = std::mem::take(&mut *told.lock().unwrap());
    assert_eq!(told.len(), 30);
    assert!(told.iter().all(|(kind, _)| *kind == ErrorKind::StoreUnavailable));
    assert!(told.last().unwrap().1 >= Duration::from_secs(290), "every 10 s: {told:?}");

    // Not for ever, ...
    world.remote = patient(60);
    faulty.set_outage(true);
    let before = world.remote.counters();
    let error = world.restore(&found, false, &[]).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{error}");
    let tries = (world.remote.counters() - before).failures;
    assert!((20..=60).contains(&tries), "{tries}");
    // ... and not for what will not pass.
    faulty.set_outage(false);
    faulty.plan(Op::Get, Fault::Denied);
    let before = world.remote.counters();
    assert!(world.restore(&found, false, &[]).await.is_err());
    assert_eq!((world.remote.counters() - before).retries, 0);
}

#[tokio::test]
async fn a_full_disk_directory_is_an_error_and_not_a_fallback() {
    let mut world = World::new(12);
    world.pack(1, 10).await;
    let found = [world.cut(1), world.cut(2)];
    fs::write(world.dir.path().join("file"), b"").unwrap();
    let target = world.target("file/table");
    let error = world.restorer().restore(&found, true, &[target], &[]).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Disk, "{error}");
    assert!(Path::new(error.object_name().unwrap()).ends_with("file/table"));
}

/// While a batch is on its way, the next is asked for as soon as there is room, or the link would
/// idle for a round trip between any two.
#[tokio::test]
async fn i8_a_batch_is_asked_for_while_the_one_before_is_still_on_its_way() {
    let faulty = FaultStore::new(InMemory::new());
    let mut world = World::on(Arc::clone(&faulty) as Arc<dyn ObjectStore>, 34);
    for _ in 0..BATCHES + 3 {
        world.pack(1, 50).await;
    }
    // Each delta is a batch of its own.
    world.memory = 1;
    let gate = Gate::closed();
    let (held, mut deltas) = (gate.clone(), 0);
    faulty.rule(move |call| {
        deltas += u32::from(call.op == Op::Get);
        if deltas > 1 { Fault::Hold(held.clone()) } else { Fault::Pass }
    });
    let (found, target) = ([world.cut(1)], [world.target("new/table")]);
    let restorer = world.restorer();
    let restore = restorer.restore(&found, false, &target, &[]);
    let both = async {
        // Never reached if they wait for each other; the limit ends the test then.
        let waiting = async {
            while gate.waiting() < BATCHES {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();
        assert_eq!(gate.waiting(), BATCHES, "no more than there is room for");
        gate.open();
    };
    let (restored, ()) = futures::join!(restore, both);
    assert_eq!(contents(&restored.unwrap().subtasks[0].table), world.model);
}
