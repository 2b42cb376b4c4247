//! I7: the operator's thread never does I/O to the object store, nor waits for one but at the memory
//! bound; and all calls may be made, and everything dropped, inside an async runtime.
#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ThreadId;
use std::time::Duration;

use alluvium::{
    CheckpointMode, Error, Job, JobLocation, JobOptions, KeyGroup, OpenMode, Opened, StateOptions,
    StateStore, TableKind, ValueState,
};
use object_store::ObjectStore;
use object_store::memory::InMemory;

use alluvium_testkit::drive::{PREFIX, checkpoint, get, materialize, noise, put, quiet};
use alluvium_testkit::faults::{Fault, FaultStore, Gate};
use alluvium_testkit::{PATIENCE, eventually, unheld};

/// A deadline that no test lives to see: who waits for the store hangs.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// No request is given up, however long it takes.
fn open(store: &Arc<FaultStore>, options: JobOptions) -> Result<Opened, Error> {
    let location = JobLocation::store(Arc::clone(store) as Arc<dyn ObjectStore>, PREFIX);
    Job::open(location.request_timeout(NEVER), options)
}

/// Every call that a store has, many times over, with deltas that overflow.
fn use_everything(store: &mut StateStore, round: u64) {
    let hash = store.state(&StateOptions::new("hash")).unwrap();
    let ordered = store.state(&StateOptions::new("ordered").table(TableKind::Ordered)).unwrap();
    let value = store.register(ValueState::<u64>::descriptor("value")).unwrap();
    for n in 0..300_u64 {
        let key = (n % 90).to_string();
        let groups = store.range();
        let group = KeyGroup(groups.first.0 + (n % 64) as u16 % (groups.last.0 - groups.first.0 + 1));
        for state in [hash, ordered] {
            store.put(state, group, key.as_bytes(), &noise(round * 1000 + n, 100)).unwrap();
            store.append(state, group, b"list", b"element").unwrap();
            store.delete(state, group, b"gone").unwrap();
            assert!(store.get(state, group, key.as_bytes()).unwrap().is_some());
        }
        if groups.contains(store.group_of(key.as_bytes())) {
            store.set_key(&key).unwrap();
            value.put(store, &n).unwrap();
            assert_eq!(value.get(store).unwrap(), Some(n));
        }
        if n % 20 == 0 {
            let keys = [(group, key.as_bytes()), (group, b"absent".as_slice())];
            assert_eq!(store.multi_get(hash, &keys).unwrap().len(), 2);
            assert!(store.scan_prefix(ordered, group, b"").unwrap().count() > 0);
            assert!(store.scan_range(hash, group, b"", None).unwrap().count() > 0);
            store.delete_prefix(ordered, group, b"9").unwrap();
            let _ = store.try_reserve();
            store.health().unwrap();
            let _ = (store.stats(), store.due(), store.restored_metadata().map(<[u8]>::len));
        }
    }
}

#[test]
fn i7_no_call_of_a_store_or_job_reaches_the_object_store_on_its_own_thread() {
    for mode in [CheckpointMode::Changelog, CheckpointMode::NativeIncremental] {
        let dir = tempfile::tempdir().unwrap();
        let store = FaultStore::new(InMemory::new());
        let options = || {
            quiet(dir.path(), OpenMode::CreateOrOpen)
                .subtasks(2)
                .mode(mode)
                .delta_bytes(8_192)
                .inline_limit(1_000)
                .retained(1)
        };
        let mut threads: Vec<ThreadId> = vec![std::thread::current().id()];
        for attempt in 0..2 {
            let Opened { job, stores, .. } = open(&store, options()).unwrap();
            let operators: Vec<_> = stores
                .into_iter()
                .map(|mut store| {
                    let job = job.clone();
                    std::thread::spawn(move || {
                        for round in 0..12 {
                            use_everything(&mut store, round);
                            if store.subtask().0 == 0 {
                                match round % 3 {
                                    0 => job.materialize(),
                                    1 => drop(job.trigger("aborted or not").map(|pending| pending.abort())),
                                    _ => drop(job.trigger("by an operator")),
                                }
                                let _ = (job.stats(), job.checkpoints(), job.health());
                            }
                            if let Some(id) = store.due() {
                                let cut = store.cut(id, "").unwrap();
                                if round % 2 == 0 {
                                    // Whether it comes to a receipt is decided elsewhere.
                                    drop(cut);
                                }
                            }
                        }
                        (std::thread::current().id(), store)
                    })
                })
                .collect();
            let mut stores = Vec::new();
            for operator in operators {
                let (thread, store) = operator.join().unwrap();
                threads.push(thread);
                stores.push(store);
            }
            // Until none is under way any more, by this thread.
            let mut done = false;
            while !done {
                done = job.trigger("last").is_ok_and(|pending| {
                    stores.iter_mut().for_each(|store| drop(store.cut(pending.id(), "").unwrap()));
                    pending.wait().is_ok()
                });
                for store in &mut stores {
                    if let Some(id) = store.due() {
                        drop(store.cut(id, "").unwrap());
                    }
                }
            }
            job.settle(Duration::from_secs(30)).unwrap();
            job.compact().unwrap();
            if attempt == 0 {
                drop((job, stores));
            } else {
                job.close().unwrap();
            }
        }
        let calls = store.take_calls();
        assert!(calls.len() > 20, "{} requests: the test has shown nothing", calls.len());
        for call in &calls {
            assert!(!threads.contains(&call.thread), "{mode:?}: a caller's thread was sent to: {call:?}");
            assert!(call.thread_name.starts_with("alluvium"), "{mode:?}: {call:?}");
        }
    }
}

#[test]
fn i7_cuts_writes_and_reads_go_on_while_no_put_gets_through() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let options =
        quiet(dir.path(), OpenMode::Create).memory(256_000_000).inline_limit(0).checkpoint_timeout(NEVER);
    let Opened { job, mut stores, .. } = open(&store, options).unwrap();
    for round in 0..5_u64 {
        let gate = Gate::closed();
        let held = gate.clone();
        store.rule(move |call| match call.writes() {
            true => Fault::Hold(held.clone()),
            false => Fault::Pass,
        });
        let pending = unheld(
            "an operator",
            || gate.open(),
            || {
                for n in 0..3_000 {
                    put(&mut stores[0], &format!("key {n}"), &noise(round + n, 300)).unwrap();
                }
                let pending = job.trigger("").unwrap();
                stores[0].cut(pending.id(), "").unwrap();
                // The stream goes on while the checkpoint is on its way.
                for n in 0..3_000 {
                    put(&mut stores[0], "meanwhile", &noise(n, 10)).unwrap();
                    assert_eq!(get(&mut stores[0], "meanwhile"), Some(noise(n, 10)));
                }
                pending
            },
        );
        eventually("a delta is on its way", PATIENCE, || gate.waiting() > 0);
        gate.open();
        pending.wait().unwrap();
    }
    assert_eq!(job.stats().stores[0].blocked_writes, 0);
}

/// Triggers, waiting receipts and every read stay answers of this machine while the store hangs.
#[test]
fn i7_a_hanging_store_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let options = quiet(dir.path(), OpenMode::Create).checkpoint_timeout(NEVER);
    let Opened { job, mut stores, .. } = open(&store, options).unwrap();
    let gate = Gate::closed();
    let held = gate.clone();
    store.rule(move |_| Fault::Hold(held.clone()));
    let (pending, cut) = unheld(
        "an operator",
        || gate.open(),
        || {
            use_everything(&mut stores[0], 0);
            job.materialize();
            let pending = job.trigger("").unwrap();
            let cut = stores[0].cut(pending.id(), "").unwrap();
            use_everything(&mut stores[0], 1);
            let _ = (job.stats(), job.checkpoints(), job.health(), stores[0].stats());
            (pending, cut)
        },
    );
    gate.open();
    cut.wait().unwrap();
    pending.wait().unwrap();

    // A drop does not wait either.
    let gate = Gate::closed();
    let held = gate.clone();
    store.rule(move |_| Fault::Hold(held.clone()));
    let pending = job.trigger("").unwrap();
    let cut = stores[0].cut(pending.id(), "").unwrap();
    unheld("a drop", || gate.open(), || drop((job, stores)));
    assert!(cut.wait().is_ok() || pending.wait().is_err());
}

fn runtimes() -> Vec<(&'static str, tokio::runtime::Runtime)> {
    vec![
        ("current_thread", tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()),
        (
            "multi_thread",
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
        ),
    ]
}

/// Runs `work` as a program's async main and, on runtimes of several threads, as a task.
fn in_all_runtimes<F: Future<Output = ()> + Send + 'static>(work: impl Fn(tempfile::TempDir) -> F) {
    for (name, runtime) in runtimes() {
        println!("{name}");
        runtime.block_on(work(tempfile::tempdir().unwrap()));
        runtime.block_on(async { tokio::spawn(work(tempfile::tempdir().unwrap())).await.unwrap() });
    }
}

#[test]
fn i7_everything_works_inside_an_async_runtime() {
    in_all_runtimes(|dir| async move {
        let store = FaultStore::new(InMemory::new());
        let options = || quiet(dir.path(), OpenMode::CreateOrOpen).delta_bytes(8_192).inline_limit(1_000);
        let Opened { job, mut stores, .. } = open(&store, options()).unwrap();
        use_everything(&mut stores[0], 0);
        // Awaited, as async programs do.
        let pending = job.trigger("awaited").unwrap();
        let cut = stores[0].cut(pending.id(), "").unwrap();
        let receipt = cut.receipt().await.unwrap();
        assert_eq!(receipt.checkpoint(), pending.id());
        pending.await.unwrap();
        // Blocking, as everybody does once.
        use_everything(&mut stores[0], 1);
        materialize(&job);
        checkpoint(&job, &mut stores, "waited for").unwrap();
        let pending = job.trigger("in the middle").unwrap();
        let cut = stores[0].cut(pending.id(), "").unwrap();
        use_everything(&mut stores[0], 2);
        drop(stores);
        drop(cut);
        drop(pending);
        drop(job);

        let Opened { job, mut stores, metadata, .. } = open(&store, options()).unwrap();
        assert!(metadata.is_some());
        put(&mut stores[0], "k", b"v").unwrap();
        checkpoint(&job, &mut stores, "").unwrap();
        job.close().unwrap();
        let error = put(&mut stores[0], "k", b"v").unwrap_err();
        assert_eq!(error.kind(), alluvium::ErrorKind::Closed, "{error}");
        drop(stores);
        // An open that fails leaves a runtime of its own behind as well.
        open(&store, quiet(dir.path(), OpenMode::Create)).unwrap_err();
        let seen = tokio::task::spawn_blocking(|| alluvium::admin::inspect("memory:///nothing"));
        seen.await.unwrap().unwrap_err();
        alluvium::admin::inspect("memory:///nothing").unwrap_err();
    });
}

/// Dropping everything in the middle of all kinds of work, in every order.
#[test]
fn i7_drops_inside_an_async_runtime_never_panic_or_wait() {
    for order in 0..6 {
        in_all_runtimes(|dir| async move {
            let store = FaultStore::new(InMemory::new());
            let options = quiet(dir.path(), OpenMode::CreateOrOpen)
                .delta_bytes(8_192)
                .inline_limit(0)
                .checkpoint_interval(Duration::from_millis(1))
                .min_pause(Duration::ZERO)
                .checkpoint_timeout(NEVER)
                .subtasks(2);
            let Opened { job, mut stores, .. } = open(&store, options).unwrap();
            // Nothing gets through any more: whoever waited for it would hang.
            store.rule(|call| match call.writes() {
                true => Fault::Hold(Gate::closed()),
                false => Fault::Pass,
            });
            let mut cuts = Vec::new();
            for round in 0..3 {
                use_everything(&mut stores[0], round);
                job.materialize();
                tokio::time::sleep(Duration::from_millis(3)).await;
                for store in &mut stores {
                    if let Some(id) = store.due() {
                        cuts.push(store.cut(id, "").unwrap());
                    }
                }
            }
            let hash = stores[0].state(&StateOptions::new("hash")).unwrap();
            let group = stores[0].range().first;
            let scan = stores[0].scan_prefix(hash, group, b"").unwrap();
            let entries = stores[0].scan_prefix(hash, group, b"").unwrap().count();
            match order {
                0 => drop((job, stores, cuts)),
                1 => drop((cuts, stores, job)),
                2 => drop((stores, job, cuts)),
                3 => {
                    // The last piece goes on another thread.
                    drop((job, cuts));
                    std::thread::spawn(move || drop(stores)).join().unwrap();
                }
                4 => {
                    drop(stores);
                    drop(cuts);
                    tokio::task::spawn_blocking(move || drop(job)).await.unwrap();
                }
                _ => {
                    let second = job.clone();
                    job.close().unwrap();
                    drop((stores, cuts, second));
                }
            }
            // A scan borrows nothing: it outlives all of them.
            assert_eq!(scan.map(Result::unwrap).count(), entries);
        });
    }
}

/// A store is sent to the thread that uses it, and its job ends when both are gone.
#[test]
fn i7_the_background_ends_with_the_last_holder() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let options = || JobOptions::new(dir.path(), OpenMode::CreateOrOpen).memory(16_000_000);
    let Opened { job, mut stores, .. } = open(&store, options()).unwrap();
    let mut kept = stores.remove(0);
    drop(job);
    // The store alone keeps the background alive.
    let ended = Arc::new(AtomicBool::new(false));
    let operator = std::thread::spawn({
        let ended = Arc::clone(&ended);
        move || {
            put(&mut kept, "k", b"v").unwrap();
            assert_eq!(get(&mut kept, "k"), Some(b"v".to_vec()));
            drop(kept);
            ended.store(true, Ordering::Relaxed);
        }
    });
    operator.join().unwrap();
    assert!(ended.load(Ordering::Relaxed));
    // The directory is free again.
    let before = store.take_calls().len();
    assert!(before > 0);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(store.take_calls().len(), 0, "someone still talks to the store");
    open(&store, options()).unwrap();
}
