//! Health that tells the truth: which subtask a checkpoint waits for, what became of its store, and since when.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alluvium::{
    CheckpointId, CheckpointListener, CheckpointMode, Error, ErrorKind, Health, Job, JobOptions, OpenMode,
    Opened, Owes, StateOptions, StateStore, StoreState, ValueState,
};
use alluvium_testkit::clock::MODES;
use alluvium_testkit::drive::{checkpoint, materialize, open, put, quiet, state};
use alluvium_testkit::eventually;
use object_store::memory::InMemory;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(60);

/// What the job tells its listener of checkpoints that come to nothing, and of its end.
#[derive(Debug, Default)]
struct Failed(Mutex<Vec<String>>, Mutex<Vec<Error>>);

impl CheckpointListener for Failed {
    fn failed(&self, id: CheckpointId, error: &Error) {
        self.0.lock().unwrap().push(format!("{id}: {error}"));
    }

    fn ended(&self, error: &Error) {
        self.1.lock().unwrap().push(error.clone());
    }
}

struct Home {
    remote: Arc<InMemory>,
    dir: TempDir,
    failed: Arc<Failed>,
}

impl Home {
    fn new() -> Self {
        let failed = Arc::<Failed>::default();
        Self { remote: Arc::new(InMemory::new()), dir: tempfile::tempdir().unwrap(), failed }
    }

    fn options(&self, subtasks: u32) -> JobOptions {
        let failed = Arc::<Failed>::clone(&self.failed);
        quiet(self.dir.path(), OpenMode::CreateOrOpen)
            .subtasks(subtasks)
            .memory(u64::from(subtasks) * 16_000_000)
            .listener(failed)
    }

    fn open(&self, options: JobOptions) -> (Job, Vec<StateStore>) {
        let Opened { job, stores, .. } = open(&self.remote, options).unwrap();
        (job, stores)
    }
}

fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

/// A key of a group that the store owns.
fn own_key(store: &StateStore) -> String {
    (0..)
        .map(|n| format!("key {n}"))
        .find(|key| store.range().contains(store.group_of(key.as_bytes())))
        .unwrap()
}

#[test]
fn a_store_that_a_panic_drops_is_named_at_once_and_ends_the_attempt_at_the_next_checkpoint() {
    for mode in MODES {
        let home = Home::new();
        let (job, mut stores) = home.open(home.options(3).mode(mode));
        checkpoint(&job, &mut stores, "one").unwrap();
        let lost = stores.remove(1);
        let operator = std::thread::spawn(move || {
            let _lost = lost;
            std::panic::resume_unwind(Box::new("the operator's bug"));
        });
        operator.join().unwrap_err();
        let error = job.health().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        let last = format!("for checkpoint {}-1", job.epoch());
        assert_says(&error.to_string(), &["subtask 1", "panic", "after its last cut", &last, "finish"]);
        let status = job.status();
        assert_eq!(status.subtasks[1].store, StoreState::Dropped);
        assert!(matches!(status.health(), Health::Failed(_)));
        // The others go on until a checkpoint is wanted, which could never be complete.
        let key = own_key(&stores[0]);
        put(&mut stores[0], &key, b"1").unwrap();
        assert_says(&job.trigger("two").unwrap_err().to_string(), &["subtask 1"]);
        assert_says(&stores[0].health().unwrap_err().to_string(), &["subtask 1"]);
        put(&mut stores[0], &key, b"2").unwrap_err();
    }
}

#[test]
fn a_checkpoint_that_waits_for_a_dropped_store_ends_before_its_timeout() {
    let home = Home::new();
    // Ten minutes, by default.
    let (job, mut stores) = home.open(home.options(2));
    let pending = job.trigger("").unwrap();
    stores[0].cut(pending.id(), "").unwrap();
    drop(stores.remove(1));
    let error = pending.wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_says(&error.to_string(), &["subtask 1", "before it cut for any checkpoint"]);
    assert!(stores[0].health().is_err());
}

#[test]
fn a_scheduled_checkpoint_notices_as_well() {
    let home = Home::new();
    let (job, mut stores) = home.open(home.options(2).checkpoint_interval(Duration::from_millis(5)));
    drop(stores.remove(0));
    eventually("the attempt has ended", SOON, || stores[0].health().is_err());
    assert_says(&job.health().unwrap_err().to_string(), &["subtask 0"]);
    eventually("the listener was told", SOON, || !home.failed.0.lock().unwrap().is_empty());
    assert_says(&home.failed.0.lock().unwrap()[0], &["subtask 0"]);
}

#[test]
fn a_store_that_goes_after_its_cut_does_not_harm_that_checkpoint() {
    for mode in MODES {
        let home = Home::new();
        let (job, mut stores) = home.open(home.options(2).mode(mode));
        let pending = job.trigger("").unwrap();
        let mut left = stores.remove(1);
        left.cut(pending.id(), "its last").unwrap();
        drop(left);
        stores[0].cut(pending.id(), "").unwrap();
        pending.wait().unwrap();
        assert!(job.health().is_err());
        job.trigger("").unwrap_err();
    }
}

#[test]
fn stores_and_job_may_be_dropped_in_any_order_and_nobody_is_told() {
    for mode in MODES {
        let home = Home::new();
        for order in 0..3 {
            let (job, mut stores) = home.open(home.options(2).mode(mode));
            checkpoint(&job, &mut stores, "").unwrap();
            match order {
                0 => drop((stores, job)),
                1 => drop((job, stores)),
                _ => {
                    drop(stores);
                    job.close().unwrap();
                }
            }
        }
        assert_eq!(*home.failed.0.lock().unwrap(), Vec::<String>::new());
        assert!(home.failed.1.lock().unwrap().is_empty(), "an intended end is no failure");
    }
}

#[test]
fn i1_a_finished_subtask_stays_in_all_later_checkpoints_that_wait_for_it_no_longer() {
    for mode in MODES {
        let home = Home::new();
        let (job, mut stores) = home.open(home.options(3).mode(mode));
        checkpoint(&job, &mut stores, "all").unwrap();
        let mut last = stores.remove(2);
        let ended = own_key(&last);
        put(&mut last, &ended, b"the end").unwrap();
        last.finish("no more input").unwrap();
        job.health().unwrap();
        assert_eq!(job.status().subtasks[2].store, StoreState::Finished);
        let going = own_key(&stores[0]);
        for round in 0..30_u8 {
            put(&mut stores[0], &going, &[round]).unwrap();
            checkpoint(&job, &mut stores, "two of three").unwrap();
            if round == 20 {
                materialize(&job);
                job.compact().unwrap();
            }
        }
        // Then nobody is left.
        for store in stores.drain(..) {
            store.finish("as well").unwrap();
        }
        let id = job.trigger("nobody cuts").unwrap().wait().unwrap().id;
        job.settle(SOON).unwrap();
        assert_eq!(job.checkpoints().last().unwrap().id, id);
        job.close().unwrap();

        let (job, mut stores) = home.open(home.options(3).mode(mode));
        assert_eq!(stores[2].restored_metadata(), Some("no more input".as_bytes()));
        assert_eq!(stores[0].restored_metadata(), Some("as well".as_bytes()));
        for (store, key, value) in [(2, &ended, "the end".as_bytes()), (0, &going, &[29])] {
            let store = &mut stores[store];
            let (state, group) = (state(store), store.group_of(key.as_bytes()));
            assert_eq!(store.get(state, group, key.as_bytes()).unwrap().as_deref(), Some(value));
        }
        // A store of the next attempt is like any other.
        checkpoint(&job, &mut stores, "again").unwrap();
    }
}

#[test]
fn finishing_counts_as_the_cut_that_is_due() {
    for mode in MODES {
        let home = Home::new();
        let (job, mut stores) = home.open(home.options(2).mode(mode));
        let pending = job.trigger("").unwrap();
        let mut last = stores.remove(1);
        let key = own_key(&last);
        put(&mut last, &key, b"before the end").unwrap();
        last.finish("ended").unwrap();
        stores[0].cut(pending.id(), "").unwrap();
        pending.wait().unwrap();
        // One that is given up does not use the state up.
        let pending = job.trigger("").unwrap();
        pending.abort();
        assert_eq!(pending.wait().unwrap_err().kind(), ErrorKind::Aborted);
        checkpoint(&job, &mut stores, "").unwrap();
        drop((stores, job));
        let (_job, mut stores) = home.open(home.options(2).mode(mode));
        assert_eq!(stores[1].restored_metadata(), Some("ended".as_bytes()));
        let (state, group) = (state(&mut stores[1]), stores[1].group_of(key.as_bytes()));
        let value = stores[1].get(state, group, key.as_bytes()).unwrap();
        assert_eq!(value.as_deref(), Some("before the end".as_bytes()));
    }
}

#[test]
fn a_timeout_names_the_subtasks_that_never_cut_and_when_they_last_did() {
    let home = Home::new();
    let (job, mut stores) = home.open(home.options(3).checkpoint_timeout(Duration::from_millis(300)));
    // On a busy machine it may be late itself; it is cut for all the same.
    let _ = checkpoint(&job, &mut stores, "");
    let pending = job.trigger("").unwrap();
    // May come too late as well.
    let _ = stores[0].cut(pending.id(), "");
    let error = pending.wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Aborted);
    let last = format!("1 (last for {}-1, ", job.epoch());
    assert_says(&error.to_string(), &["not durable within 300ms", " of 3 subtasks have not cut: ", &last]);
    job.health().unwrap();
}

#[test]
fn the_status_says_what_each_subtask_owes() {
    let home = Home::new();
    let (job, mut stores) = home.open(home.options(2));
    let owes = || job.status().subtasks.iter().map(|subtask| subtask.owes).collect::<Vec<_>>();
    assert_eq!(owes(), [Owes::Nothing; 2]);
    let pending = job.trigger("").unwrap();
    eventually("both are waited for", SOON, || owes() == [Owes::Cut; 2]);
    stores[0].cut(pending.id(), "").unwrap();
    eventually("its receipt is in", SOON, || owes() == [Owes::Nothing, Owes::Cut]);
    assert_eq!(job.status().under_way.unwrap().id, pending.id());
    stores[1].cut(pending.id(), "").unwrap();
    pending.wait().unwrap();
    assert_eq!(owes(), [Owes::Nothing; 2]);
    assert_eq!(job.status().subtasks[0].last_cut.unwrap().0.number, 1);
    assert!(job.status().under_way.is_none());
}

#[test]
fn checkpoints_that_fail_in_a_row_are_a_warning_until_one_succeeds() {
    let home = Home::new();
    let (job, mut stores) = home.open(home.options(2));
    for failed in 1..=3 {
        assert!(matches!(job.status().health(), Health::Well));
        let pending = job.trigger("").unwrap();
        pending.abort();
        pending.wait().unwrap_err();
        assert_eq!(job.status().failed_in_a_row, failed);
    }
    let Health::Warning(text) = job.status().health() else { panic!("{}", job.status().health()) };
    assert_says(&text, &["3 checkpoints in a row", "aborted by the caller"]);
    job.health().unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    assert!(matches!(job.status().health(), Health::Well));
}

/// An operator hangs: its store cuts for nothing any more, and its thread would never ask.
#[test]
fn an_operator_that_hangs_ends_the_attempt_after_the_failures_that_are_tolerated() {
    let home = Home::new();
    let hasty = home.options(2).checkpoint_timeout(Duration::from_millis(1)).tolerable_failed_checkpoints(1);
    let (job, _hanging) = home.open(hasty);
    job.trigger("").unwrap().wait().unwrap_err();
    job.health().unwrap();
    job.trigger("").unwrap().wait().unwrap_err();
    let error = job.health().unwrap_err();
    assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Overdue, 5));
    assert_says(&error.to_string(), &["2 checkpoints in a row", "2 of 2 subtasks have not cut"]);
    assert_eq!(job.trigger("").unwrap_err().kind(), ErrorKind::Overdue);
    eventually("the listener was told", SOON, || !home.failed.1.lock().unwrap().is_empty());
    job.close().unwrap();
    let told = home.failed.1.lock().unwrap();
    assert_eq!(told.iter().map(Error::kind).collect::<Vec<_>>(), [ErrorKind::Overdue], "once");
}

#[test]
fn only_failures_in_a_row_count_and_none_that_the_caller_wants() {
    let home = Home::new();
    let native = home.options(1).mode(CheckpointMode::NativeIncremental).tolerable_failed_checkpoints(1);
    let (job, mut stores) = home.open(native);
    for _ in 0..3 {
        let pending = job.trigger("").unwrap();
        pending.abort();
        pending.wait().unwrap_err();
    }
    let instances = std::fs::read_dir(home.dir.path().join("instances")).unwrap();
    let instance = instances.map(|entry| entry.unwrap().path()).next().unwrap();
    // A file lies where the cut is to be made.
    let fail = |stores: &mut [StateStore]| {
        let pending = job.trigger("").unwrap();
        let in_the_way = instance.join(format!("cut-{}", pending.id().number));
        std::fs::write(&in_the_way, "x").unwrap();
        stores[0].cut(pending.id(), "").unwrap_err();
        pending.wait().unwrap_err();
        std::fs::remove_file(in_the_way).unwrap();
        job.status().failure.map(|error| error.kind())
    };
    for round in 0..3_u8 {
        put(&mut stores[0], "key", &[round]).unwrap();
        assert_eq!(fail(&mut stores), None);
        checkpoint(&job, &mut stores, "").unwrap();
    }
    assert_eq!((fail(&mut stores), fail(&mut stores)), (None, Some(ErrorKind::Overdue)));
    assert_eq!(put(&mut stores[0], "key", b"x").unwrap_err().kind(), ErrorKind::Overdue);
}

/// The local disk lets no base come about. Checkpoints go on without one, and the changelog grows.
#[test]
fn i6_bases_that_the_local_disk_lets_fail_are_told_with_the_subtask_and_since_when() {
    let home = Home::new();
    let (job, mut stores) = home.open(home.options(3));
    let key = own_key(&stores[1]);
    put(&mut stores[1], &key, b"1").unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    // Files lie where the snapshots of subtask 1 are to be made.
    let instances = std::fs::read_dir(home.dir.path().join("instances")).unwrap();
    let mut instances = instances.map(|entry| entry.unwrap().path());
    let instance = instances.find(|path| path.to_str().unwrap().contains("/00001-")).unwrap();
    let in_the_way: Vec<_> = (1..=64).map(|n| instance.join(format!("base-{n}"))).collect();
    in_the_way.iter().for_each(|path| std::fs::write(path, "x").unwrap());

    job.health().unwrap();
    job.materialize();
    eventually("it is told", SOON, || job.health().is_err());
    let error = job.health().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disk);
    let words = ["base of subtask 1", "it has failed for", "time(s) in a row", "base-", "local disk"];
    assert_says(&error.to_string(), &words);
    assert_says(&stores[1].health().unwrap_err().to_string(), &words);
    stores[0].health().unwrap();
    assert!(matches!(job.status().health(), Health::Warning(text) if text.contains("subtask 1")));
    eventually("it is tried again", SOON, || {
        job.health().unwrap_err().to_string().contains("2 time(s) in a row")
    });
    put(&mut stores[1], &key, b"2").unwrap();
    checkpoint(&job, &mut stores, "").unwrap();

    in_the_way.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    eventually("it recovers by itself", SOON, || job.health().is_ok());
    assert!(matches!(job.status().health(), Health::Well));
    stores[1].health().unwrap();
}

#[test]
fn subtasks_that_mean_different_things_by_a_state_end_the_attempt() {
    let home = Home::new();
    let (job, mut stores) = home.open(home.options(3));
    stores[0].state(&StateOptions::new("clicks")).unwrap();
    stores[2].register(ValueState::<u64>::descriptor("clicks")).unwrap();
    let error = checkpoint(&job, &mut stores, "").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert_says(&error.to_string(), &["subtasks 0 and 2", "\"clicks\""]);
    let health = job.health().unwrap_err();
    assert_eq!(health.kind(), ErrorKind::Incompatible, "it would be the same at every checkpoint to come");
    assert_says(&health.to_string(), &["subtasks 0 and 2", "\"clicks\""]);
    stores[1].state(&StateOptions::new("words")).unwrap();
    let key = own_key(&stores[1]);
    put(&mut stores[1], &key, b"1").unwrap_err();
}

#[test]
fn metadata_beyond_its_limit_is_refused_where_it_enters() {
    const MIB: usize = 1 << 20;
    let home = Home::new();
    let (job, mut stores) = home.open(home.options(17));
    let refused = |result: Result<(), Error>, words: &[&str]| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_says(&error.to_string(), words);
    };
    refused(job.trigger(vec![0; MIB + 1]).map(|_| ()), &["1048577", "coordinator"]);
    refused(job.set_metadata(vec![0; MIB + 1]), &["1048577", "coordinator"]);
    let pending = job.trigger(vec![1; MIB]).unwrap();
    refused(stores[3].cut(pending.id(), vec![0; MIB + 1]).map(|_| ()), &["1048577", "subtask 3"]);
    for store in &mut stores[..16] {
        store.cut(pending.id(), vec![2; MIB]).unwrap();
    }
    refused(stores[16].cut(pending.id(), "x").map(|_| ()), &["together", "subtask 16"]);
    // A cut that was refused can be made again.
    stores[16].cut(pending.id(), "").unwrap();
    pending.wait().unwrap();
    assert_eq!(stores.iter().map(StateStore::subtask).collect::<BTreeSet<_>>().len(), 17);
}
