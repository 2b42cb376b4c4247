//! What is not right is refused with an error that says what, where, and what to do; and nothing is
//! lost, overwritten, or begun by it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use alluvium::{
    CheckpointMode, Error, ErrorKind, Job, JobLocation, JobOptions, KeyGroup, MaxParallelism, OpenMode,
    Opened, Receipt, RestoreFrom, State, StateOptions, StateStore, TableKind, ValueState,
};
use object_store::ObjectStore;
use object_store::memory::InMemory;

use alluvium_testkit::drive::{PREFIX, by_hand, checkpoint, contents, get, noise, open, put, quiet, state};
use alluvium_testkit::faults::{Conditions, FaultStore, Op};
use alluvium_testkit::objects::{files_below, names_of, objects_of};

const LIMIT: Duration = Duration::from_secs(30);

fn options(dir: &Path, mode: OpenMode) -> JobOptions {
    quiet(&dir.join("local"), mode)
}

/// The error's kind, and words that its text must have: what failed, on what, and what to do.
#[track_caller]
fn assert_error(error: &Error, kind: ErrorKind, words: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
    assert!(!text.contains('\n') && text.len() < 600, "{text}");
}

// Places.

#[test]
fn wrong_urls_are_refused_and_create_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a file");
    std::fs::write(&file, "x").unwrap();
    let file = file.display().to_string();
    let cases = [
        "",
        "~/job",
        "ftp://host/job",
        "http://host/job",
        "nonsense://x",
        "file://host/path",
        "file:relative",
        "C:\\job",
        "s3:bucket",
        "memory:///job?x=1",
        "file:///tmp/job#part",
        "s3://user:secret@bucket/job",
        &file,
        &format!("file://{}", file.replace(' ', "%20")),
    ];
    for url in cases {
        for mode in [OpenMode::Create, OpenMode::Existing, OpenMode::CreateOrOpen] {
            let error = Job::open(url, options(dir.path(), mode)).unwrap_err();
            assert_error(&error, ErrorKind::InvalidArgument, &[]);
            assert!(!error.to_string().contains("secret"), "{error}");
            assert!(alluvium::admin::inspect(url).is_err());
        }
    }
    assert!(!dir.path().join("local").exists(), "a refused call has made a local directory");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let prefix = Job::open((Arc::new(InMemory::new()), "a//b"), options(dir.path(), OpenMode::Create));
    assert_error(&prefix.unwrap_err(), ErrorKind::InvalidArgument, &["prefix"]);
    let location = JobLocation::url(dir.path().join("job").display().to_string()).store_option("region", "x");
    let error = Job::open(location, options(dir.path(), OpenMode::Create)).unwrap_err();
    assert_error(&error, ErrorKind::InvalidArgument, &["region"]);
    assert!(!dir.path().join("job").exists());
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let somebodys: [&[(&str, &[u8])]; 5] = [
        &[("thesis.tex", b"all of it")],
        &[("photos/2019/a.jpg", b"jpeg"), ("photos/2020/b.jpg", b"jpeg")],
        &[("manifest/notes.txt", b"not a version")],
        // Another system's names are near ours.
        &[("data/part-0.parquet", b"PAR1"), ("manifest/MANIFEST-1", b"x")],
        &[("data/00000000000000000001/00000/aa/0000000001.sst", b"sst")],
    ];
    for files in somebodys {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("place");
        let files: BTreeMap<_, _> =
            files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        alluvium_testkit::objects::write_files(&place, &files);
        for mode in [OpenMode::Create, OpenMode::Existing, OpenMode::CreateOrOpen] {
            let url = place.display().to_string();
            let error = Job::open(&url, options(dir.path(), mode)).unwrap_err();
            assert_error(&error, ErrorKind::ForeignData, &["alluvium"]);
            let object = error.object_name().unwrap();
            assert!(files.keys().any(|name| name.starts_with(object)), "{object} is not one of {files:?}");
            assert_eq!(files_below(&place), files, "something was touched");
        }
    }
}

#[test]
fn a_job_that_must_exist_is_not_created() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("not/there");
    let error = Job::open(absent.display().to_string(), options(dir.path(), OpenMode::Existing)).unwrap_err();
    assert_error(&error, ErrorKind::NotFound, &["check the path"]);
    assert!(!dir.path().join("not").exists());

    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let error = Job::open(empty.display().to_string(), options(dir.path(), OpenMode::Existing)).unwrap_err();
    assert_error(&error, ErrorKind::NotFound, &["must", "check the URL"]);
    assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0, "something was left in an empty place");

    let store = FaultStore::new(InMemory::new());
    let error = open(&store, options(dir.path(), OpenMode::Existing)).unwrap_err();
    assert_error(&error, ErrorKind::NotFound, &[]);
    assert!(store.calls().iter().all(|call| matches!(call.op, Op::List | Op::Get)), "only looked");
    let error = alluvium::admin::inspect(empty.display().to_string()).unwrap_err();
    assert_error(&error, ErrorKind::NotFound, &[]);
}

#[test]
fn a_job_that_must_not_exist_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let Opened { job, mut stores, .. } = open(&store, options(dir.path(), OpenMode::Create)).unwrap();
    put(&mut stores[0], "k", b"v").unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    let as_dyn = Arc::clone(&store) as Arc<dyn ObjectStore>;
    let before = objects_of(&as_dyn, PREFIX);
    let other = tempfile::tempdir().unwrap();
    let error = open(&store, options(other.path(), OpenMode::Create)).unwrap_err();
    assert_error(&error, ErrorKind::AlreadyExists, &["must not", "choose another place"]);
    assert_eq!(objects_of(&as_dyn, PREFIX), before);
    // The one that runs is not fenced by it.
    checkpoint(&job, &mut stores, "").unwrap();
}

#[test]
fn a_store_that_ignores_conditions_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    store.set_conditions(Conditions::Ignored);
    for mode in [OpenMode::Create, OpenMode::CreateOrOpen] {
        let error = open(&store, options(dir.path(), mode)).unwrap_err();
        assert_error(&error, ErrorKind::UnsafeStore, &["conditional creates"]);
    }
    let names = names_of(&(Arc::clone(&store) as Arc<dyn ObjectStore>), PREFIX);
    assert_eq!(names, Vec::<String>::new(), "something was begun on an unsafe store");

    // A job that was moved there is not touched either.
    let honest = FaultStore::new(InMemory::new());
    let Opened { job, mut stores, .. } = open(&honest, options(dir.path(), OpenMode::Create)).unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    drop((job, stores));
    honest.set_conditions(Conditions::Ignored);
    let as_dyn = Arc::clone(&honest) as Arc<dyn ObjectStore>;
    let before = objects_of(&as_dyn, PREFIX);
    let error = open(&honest, options(dir.path(), OpenMode::Existing)).unwrap_err();
    assert_error(&error, ErrorKind::UnsafeStore, &[]);
    assert_eq!(objects_of(&as_dyn, PREFIX), before);
}

#[test]
fn two_jobs_may_live_side_by_side_but_not_one_within_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let open = |prefix: &str, name: &str| {
        Job::open((Arc::clone(&store), prefix), quiet(&dir.path().join(name), OpenMode::Create))
    };
    let mut one = open("jobs/a", "1").unwrap();
    let mut two = open("jobs/ab", "2").unwrap();
    put(&mut one.stores[0], "k", b"one").unwrap();
    put(&mut two.stores[0], "k", b"two").unwrap();
    checkpoint(&one.job, &mut one.stores, "").unwrap();
    checkpoint(&two.job, &mut two.stores, "").unwrap();
    assert_error(&open("jobs", "3").unwrap_err(), ErrorKind::ForeignData, &["(a)"]);
    drop((one, two));
    for (prefix, value) in [("jobs/a", "one"), ("jobs/ab", "two")] {
        let options = quiet(&dir.path().join("4"), OpenMode::Existing);
        let mut opened = Job::open((Arc::clone(&store), prefix), options).unwrap();
        assert_eq!(get(&mut opened.stores[0], "k"), Some(value.into()));
    }
}

// Options.

#[test]
fn a_local_directory_serves_one_attempt_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let Opened { job, mut stores, .. } = open(&store, options(dir.path(), OpenMode::Create)).unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    let opens = |store: &FaultStore| {
        store.calls().iter().filter(|call| call.path.contains("probe/") || call.is_manifest_put()).count()
    };
    let before = opens(&store);
    for store in [Arc::clone(&store), FaultStore::new(InMemory::new())] {
        let error = open(&store, options(dir.path(), OpenMode::CreateOrOpen)).unwrap_err();
        assert_error(&error, ErrorKind::Locked, &["local", "directory of its own"]);
    }
    // Before anything else was asked: the attempt that runs is not fenced by it.
    assert_eq!(opens(&store), before);
    put(&mut stores[0], "k", b"v").unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    drop((job, stores));
    open(&store, options(dir.path(), OpenMode::Existing)).unwrap();
}

#[test]
fn options_that_make_no_sense_are_refused_before_anything_happens() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let new = || options(dir.path(), OpenMode::CreateOrOpen);
    let cases: Vec<(JobOptions, &str)> = vec![
        (new().subtasks(0), "subtask"),
        (new().subtasks(9).max_parallelism(MaxParallelism::new(8).unwrap()).memory(1 << 30), "9 subtasks"),
        (new().subtasks(200).memory(1 << 30), "200 subtasks"),
        (new().retained(0), "retained"),
        (new().memory(1000), "memory"),
        (new().memory(0), "memory"),
        (new().memory(u64::MAX), "memory"),
        (new().background_jobs(0), "background jobs"),
        (new().background_jobs(65), "background jobs"),
        (new().max_open_files(9), "open"),
        (new().rocksdb_option("comparator", "x"), "order of keys"),
        (new().rocksdb_option("compression", "kSnappyCompression"), "kZSTD"),
        (new().checkpoint_timeout(Duration::ZERO), "timeout"),
        (new().checkpoint_interval(Duration::ZERO), "interval"),
        (new().delta_bytes(1), "delta"),
    ];
    for (options, word) in cases {
        let error = open(&store, options).unwrap_err();
        assert_error(&error, ErrorKind::InvalidArgument, &[word]);
        let names = names_of(&(Arc::clone(&store) as Arc<dyn ObjectStore>), PREFIX);
        assert_eq!(names, Vec::<String>::new(), "{word}: something was begun");
    }
}

/// A job is not fenced, and its checkpoints stay, when somebody tries to open it the wrong way.
#[test]
fn what_does_not_fit_the_job_is_incompatible_and_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let eight = MaxParallelism::new(8).unwrap();
    let two = || options(dir.path(), OpenMode::CreateOrOpen).subtasks(2).max_parallelism(eight);
    let Opened { job, mut stores, .. } = open(&store, two()).unwrap();
    for store in &mut stores {
        let (state, group) = (state(store), store.range().first);
        store.put(state, group, b"k", b"v").unwrap();
    }
    checkpoint(&job, &mut stores, "").unwrap();
    let expected = contents(&mut stores, "words");
    let as_dyn = Arc::clone(&store) as Arc<dyn ObjectStore>;

    let other = tempfile::tempdir().unwrap();
    let sixteen = options(other.path(), OpenMode::Existing).subtasks(2);
    let before = objects_of(&as_dyn, PREFIX);
    let error = open(&store, sixteen.max_parallelism(MaxParallelism::new(16).unwrap())).unwrap_err();
    assert_error(&error, ErrorKind::Incompatible, &["8", "16"]);
    assert_eq!(objects_of(&as_dyn, PREFIX), before, "nothing is written");
    checkpoint(&job, &mut stores, "").unwrap();
    drop((job, stores));

    // Any number of subtasks that has a key group for each.
    let nine = options(other.path(), OpenMode::Existing).subtasks(9).memory(64_000_000);
    assert_error(&open(&store, nine).unwrap_err(), ErrorKind::InvalidArgument, &["9 subtasks", "8"]);
    let mut opened = open(&store, two()).unwrap();
    assert_eq!(opened.job.checkpoints().len(), 2, "a refused open has cost a checkpoint");
    assert!(contents(&mut opened.stores, "words") == expected);
}

#[test]
fn an_unknown_checkpoint_is_not_found_and_the_known_ones_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let Opened { job, mut stores, .. } = open(&store, options(dir.path(), OpenMode::Create)).unwrap();
    let first = checkpoint(&job, &mut stores, "").unwrap().id;
    for _ in 0..3 {
        checkpoint(&job, &mut stores, "").unwrap();
    }
    let last = job.checkpoints().last().unwrap().id;
    drop((job, stores));
    for unknown in [first, "1-99".parse().unwrap(), "99-1".parse().unwrap()] {
        let options = options(dir.path(), OpenMode::Existing).restore_from(RestoreFrom::Checkpoint(unknown));
        let error = open(&store, options.fallback(true)).unwrap_err();
        assert_error(&error, ErrorKind::NotFound, &[&unknown.to_string(), &last.to_string()]);
    }
    // A new job has no checkpoint to ask for.
    let fresh = FaultStore::new(InMemory::new());
    let options = options(dir.path(), OpenMode::Create).restore_from(RestoreFrom::Checkpoint(last));
    assert_error(&open(&fresh, options).unwrap_err(), ErrorKind::NotFound, &[&last.to_string()]);
}

// Calls.

/// The first of two. The other one is kept as well, since no checkpoint could do without it.
fn one_store() -> ((tempfile::TempDir, Vec<StateStore>), Job, StateStore, State) {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let options = options(dir.path(), OpenMode::Create).subtasks(2);
    let Opened { job, mut stores, .. } = open(&store, options).unwrap();
    let mut first = stores.remove(0);
    let state = state(&mut first);
    ((dir, stores), job, first, state)
}

#[test]
fn key_groups_outside_the_range_are_refused() {
    let (_dir, _job, mut store, state) = one_store();
    assert_eq!((store.range().first.0, store.range().last.0), (0, 63));
    for group in [64, 127, 128, u16::MAX] {
        let group = KeyGroup(group);
        let refused = |result: Result<(), Error>| {
            let error = result.unwrap_err();
            assert_error(&error, ErrorKind::InvalidArgument, &["0..=63", &group.to_string(), "subtask 0"]);
        };
        refused(store.put(state, group, b"k", b"v"));
        refused(store.append(state, group, b"k", b"v"));
        refused(store.delete(state, group, b"k"));
        refused(store.delete_prefix(state, group, b""));
        refused(store.get(state, group, b"k").map(|_| ()));
        refused(store.multi_get(state, &[(KeyGroup(0), b"k"), (group, b"k")]).map(|_| ()));
        refused(store.scan_prefix(state, group, b"").map(|_| ()));
        refused(store.scan_range(state, group, b"", None).map(|_| ()));
    }
    // A refused call ends nothing.
    store.put(state, KeyGroup(63), b"k", b"v").unwrap();
    assert_eq!(store.get(state, KeyGroup(63), b"k").unwrap().unwrap(), b"v");
}

#[test]
fn keys_and_values_have_limits_and_keep_to_them() {
    let (_dir, job, mut store, state) = one_store();
    let group = KeyGroup(0);
    let longest = vec![b'k'; 64 * 1024];
    let too_long = vec![b'k'; 64 * 1024 + 1];
    store.put(state, group, &longest, b"v").unwrap();
    store.put(state, group, b"", b"").unwrap();
    assert_eq!(store.get(state, group, &longest).unwrap().unwrap(), b"v");
    assert_eq!(store.get(state, group, b"").unwrap().unwrap(), b"");
    for result in [
        store.put(state, group, &too_long, b"v"),
        store.append(state, group, &too_long, b"v"),
        store.delete(state, group, &too_long),
        store.delete_prefix(state, group, &too_long),
    ] {
        assert_error(&result.unwrap_err(), ErrorKind::InvalidArgument, &["65537", "65536"]);
    }
    assert!(store.get(state, group, &too_long).is_err());
    assert!(store.scan_prefix(state, group, &too_long).is_err());
    let huge = vec![0; (256 << 20) + 1];
    let error = store.put(state, group, b"k", &huge).unwrap_err();
    assert_error(&error, ErrorKind::InvalidArgument, &["268435457", "268435456"]);
    assert!(store.append(state, group, b"k", &huge).is_err());
    drop(huge);
    // What was accepted comes through a table and a checkpoint as well.
    job.settle(LIMIT).unwrap();
    let pending = job.trigger("").unwrap();
    store.cut(pending.id(), "").unwrap();
    job.settle(LIMIT).unwrap();
    let found: Vec<_> = store.scan_prefix(state, group, b"").unwrap().map(Result::unwrap).collect();
    assert_eq!(found, vec![(Vec::new(), Vec::new()), (longest, b"v".to_vec())]);
}

#[test]
fn scans_of_ranges_that_are_empty_or_turned_round_are_empty() {
    let (_dir, _job, mut store, state) = one_store();
    for key in [b"a".as_slice(), b"b", b"c"] {
        store.put(state, KeyGroup(0), key, b"v").unwrap();
    }
    for (start, end) in [("b", "b"), ("c", "a"), ("x", "z"), ("b", "")] {
        let scan = store.scan_range(state, KeyGroup(0), start.as_bytes(), Some(end.as_bytes())).unwrap();
        assert_eq!(scan.count(), 0, "{start}..{end}");
    }
}

#[test]
fn a_state_stays_of_its_kind_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let Opened { job, mut stores, .. } = open(&store, options(dir.path(), OpenMode::Create)).unwrap();
    let clash = |store: &mut StateStore| {
        let error = store.register(ValueState::<u64>::descriptor("words")).unwrap_err();
        assert_error(&error, ErrorKind::Incompatible, &["\"words\"", "raw"]);
        let error = store.state(&StateOptions::new("count")).unwrap_err();
        assert_error(&error, ErrorKind::Incompatible, &["\"count\"", "value"]);
        let error = store.register(ValueState::<u64>::descriptor("count").schema(2)).unwrap_err();
        assert_error(&error, ErrorKind::Incompatible, &["\"count\"", "schema"]);
        let error = store.state(&StateOptions::new("")).unwrap_err();
        assert_error(&error, ErrorKind::InvalidArgument, &["name"]);
    };
    put(&mut stores[0], "k", b"v").unwrap();
    let count = stores[0].register(ValueState::<u64>::descriptor("count")).unwrap();
    stores[0].set_key("k").unwrap();
    count.put(&mut stores[0], &7).unwrap();
    clash(&mut stores[0]);
    checkpoint(&job, &mut stores, "").unwrap();
    drop((job, stores));
    let mut opened = open(&store, options(dir.path(), OpenMode::Existing)).unwrap();
    clash(&mut opened.stores[0]);
    let count = opened.stores[0].register(ValueState::<u64>::descriptor("count")).unwrap();
    opened.stores[0].set_key("k").unwrap();
    assert_eq!(count.get(&opened.stores[0]).unwrap(), Some(7));

    // A value that is not of the type that it would be read as.
    let text = opened.stores[0].register(ValueState::<String>::descriptor("count"));
    assert_error(&text.unwrap_err(), ErrorKind::Incompatible, &["count", "u64", "str"]);
}

/// The kind of table is how changes are kept, not what they are: registering a state a second time with
/// the other kind is refused or makes no difference, but reads never miss a write.
#[test]
fn one_state_with_two_kinds_of_table_reads_its_own_writes() {
    let (_dir, job, mut store, hash) = one_store();
    let group = KeyGroup(5);
    let ordered = match store.state(&StateOptions::new("words").table(TableKind::Ordered)) {
        Ok(ordered) => ordered,
        Err(error) => {
            assert_error(&error, ErrorKind::Incompatible, &["words"]);
            return;
        }
    };
    let check = |store: &StateStore, expected: Option<&[u8]>| {
        for state in [hash, ordered] {
            assert_eq!(store.get(state, group, b"k").unwrap().as_deref(), expected);
            let many = store.multi_get(state, &[(group, b"k")]).unwrap();
            assert_eq!(many[0].as_deref(), expected);
            let found: Vec<_> = store.scan_prefix(state, group, b"").unwrap().map(Result::unwrap).collect();
            let expected: Vec<_> =
                expected.map(|value| (b"k".to_vec(), value.to_vec())).into_iter().collect();
            assert_eq!(found, expected);
        }
    };
    store.put(hash, group, b"k", b"1").unwrap();
    check(&store, Some(b"1"));
    store.put(ordered, group, b"k", b"2").unwrap();
    check(&store, Some(b"2"));
    store.append(hash, group, b"k", b"3").unwrap();
    check(&store, Some(b"23"));
    store.delete(ordered, group, b"k").unwrap();
    check(&store, None);
    store.put(hash, group, b"k", b"4").unwrap();
    check(&store, Some(b"4"));
    store.delete_prefix(ordered, group, b"").unwrap();
    check(&store, None);
    store.append(ordered, group, b"k", b"5").unwrap();
    check(&store, Some(b"5"));
    let pending = job.trigger("").unwrap();
    store.cut(pending.id(), "").unwrap();
    job.settle(LIMIT).unwrap();
    check(&store, Some(b"5"));
}

#[test]
fn cuts_for_checkpoints_that_are_none_are_refused() {
    let (_dir, job, mut store, _state) = one_store();
    assert_eq!(store.due(), None);
    let pending = job.trigger("").unwrap();
    assert_eq!(store.due(), Some(pending.id()));
    assert_error(&job.trigger("").unwrap_err(), ErrorKind::WouldBlock, &[&pending.id().to_string()]);
    store.cut(pending.id(), "").unwrap();
    let again = store.cut(pending.id(), "").unwrap_err();
    assert_error(&again, ErrorKind::InvalidArgument, &[&pending.id().to_string()]);
    let mut foreign = pending.id();
    foreign.epoch.0 += 1;
    assert_error(&store.cut(foreign, "").unwrap_err(), ErrorKind::InvalidArgument, &[&foreign.to_string()]);
    pending.abort();
    assert_error(&pending.wait().unwrap_err(), ErrorKind::Aborted, &["checkpoint"]);
    job.health().unwrap();
}

#[test]
fn receipts_of_another_attempt_or_of_damaged_bytes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let Opened { job, mut stores, .. } = open(&store, options(dir.path(), OpenMode::Create)).unwrap();
    put(&mut stores[0], "k", &noise(1, 300)).unwrap();
    let pending = job.trigger("").unwrap();
    let receipt = stores[0].cut(pending.id(), "offset 5").unwrap().wait().unwrap();
    pending.wait().unwrap();
    let bytes = receipt.to_bytes().unwrap();
    assert_eq!(Receipt::from_bytes(&bytes).unwrap(), receipt);
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x11;
        let error = Receipt::from_bytes(&damaged).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::UnsupportedVersion), "{at}: {error}");
        assert!(Receipt::from_bytes(&bytes[..at]).is_err(), "cut off after {at} bytes");
    }
    // Twice, or too late: counts once.
    job.submit(receipt.clone()).unwrap();
    job.submit(receipt.clone()).unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    assert_eq!(job.checkpoints().len(), 2);
    drop((job, stores));
    let Opened { job, .. } = open(&store, options(dir.path(), OpenMode::Existing)).unwrap();
    assert_error(&job.submit(receipt).unwrap_err(), ErrorKind::InvalidArgument, &["attempt"]);
}

// Disks.

/// A file system of a few megabytes, unmounted at the end.
struct Tiny(tempfile::TempDir);

impl Tiny {
    /// None where mounting is not permitted.
    fn mount(megabytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(dir.path())
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            println!("skipped: mounting a tmpfs is not permitted here");
        }
        mounted.then_some(Self(dir))
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        // Lazily: a background thread may still close a file.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_local_disk_is_one_sticky_error_and_no_checkpoint_lies() {
    for mode in [CheckpointMode::Changelog, CheckpointMode::NativeIncremental] {
        let Some(disk) = Tiny::mount(12) else { return };
        let store = FaultStore::new(InMemory::new());
        let options = |dir: &Path| {
            JobOptions::new(dir.join("local"), OpenMode::CreateOrOpen)
                .memory(8_000_000)
                .mode(mode)
                .materialization(by_hand())
        };
        let Opened { job, mut stores, .. } = open(&store, options(disk.0.path())).unwrap();
        let mut written = 0_u64;
        let mut checkpointed = 0;
        let error = loop {
            let result = (0..200).try_for_each(|n| {
                put(&mut stores[0], &format!("key {:08}", written + n), &noise(written + n, 1000))
            });
            let result = result.and_then(|()| checkpoint(&job, &mut stores, &written.to_string()));
            match result {
                Ok(_) => {
                    written += 200;
                    checkpointed = written;
                }
                Err(error) => break error,
            }
            assert!(written < 100_000, "{mode:?}: the disk never filled up");
        };
        if mode == CheckpointMode::NativeIncremental && job.health().is_ok() {
            // A snapshot that finds no room is told to whoever asked for it, and is gone again: the
            // attempt goes on. Nobody waits for the checkpoint any more.
            assert_error(&error, ErrorKind::Disk, &["free disk space"]);
            alluvium_testkit::eventually("the checkpoint ends with its cut", LIMIT / 6, || {
                match job.trigger("") {
                    Ok(pending) => {
                        pending.abort();
                        true
                    }
                    Err(error) => error.kind() != ErrorKind::WouldBlock,
                }
            });
        } else {
            let mut more = 0;
            alluvium_testkit::eventually(&format!("{mode:?}: a failure shows after {error}"), LIMIT, || {
                more += 1;
                put(&mut stores[0], &format!("more {more}"), &noise(more, 1000)).is_err()
            });
            let sticky = job.health().unwrap_err();
            assert_error(&sticky, ErrorKind::Disk, &["free disk space"]);
            for _ in 0..2 {
                let again = put(&mut stores[0], "more", b"x").unwrap_err();
                let health = stores[0].health().unwrap_err();
                if mode == CheckpointMode::NativeIncremental {
                    // RocksDB refuses writes until it has got space; the attempt goes on then.
                    assert_error(&again, ErrorKind::Disk, &["free disk space"]);
                    assert_error(&health, ErrorKind::Disk, &["free disk space"]);
                    continue;
                }
                assert_eq!(again.to_string(), sticky.to_string());
                assert_eq!(health.to_string(), sticky.to_string());
                assert!(job.trigger("").is_err());
            }
        }
        drop((job, stores));

        // On a larger disk, all that was reported durable is there.
        let large = tempfile::tempdir().unwrap();
        let mut opened = open(&store, options(large.path())).unwrap();
        let found = contents(&mut opened.stores, "words");
        assert!(found.len() as u64 >= checkpointed, "{mode:?}: {} of {checkpointed}", found.len());
        for n in 0..checkpointed {
            let key = format!("key {n:08}").into_bytes();
            let group = opened.stores[0].group_of(&key);
            assert!(found[&(group, key)] == noise(n, 1000), "{mode:?}: key {n}");
        }
    }
}

#[test]
fn a_full_object_store_costs_checkpoints_but_not_the_job() {
    let Some(disk) = Tiny::mount(6) else { return };
    let dir = tempfile::tempdir().unwrap();
    let url = disk.0.path().join("store").display().to_string();
    let options = || {
        options(dir.path(), OpenMode::CreateOrOpen).checkpoint_timeout(Duration::from_secs(2)).inline_limit(0)
    };
    let Opened { job, mut stores, .. } = Job::open(&url, options()).unwrap();
    put(&mut stores[0], "first", b"1").unwrap();
    checkpoint(&job, &mut stores, "first").unwrap();
    let ballast = disk.0.path().join("ballast");
    // As much as there is room for.
    let _ = std::fs::write(&ballast, vec![1; 16 << 20]);
    put(&mut stores[0], "second", &noise(2, 200_000)).unwrap();
    let error = checkpoint(&job, &mut stores, "second").unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Aborted | ErrorKind::StoreUnavailable | ErrorKind::Disk),
        "{error}"
    );
    assert_eq!(get(&mut stores[0], "first"), Some(b"1".to_vec()));
    job.health().unwrap();
    std::fs::remove_file(&ballast).unwrap();
    alluvium_testkit::eventually("a checkpoint once there is room", LIMIT, || {
        checkpoint(&job, &mut stores, "third").is_ok()
    });
    drop((job, stores));
    let mut opened = Job::open(&url, options()).unwrap();
    assert_eq!(opened.metadata.as_deref(), Some(b"third".as_slice()));
    assert_eq!(get(&mut opened.stores[0], "second"), Some(noise(2, 200_000)));
}

#[test]
fn a_local_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let store = FaultStore::new(InMemory::new());
    let error = open(&store, quiet(&file.join("local"), OpenMode::Create)).unwrap_err();
    assert_error(&error, ErrorKind::Disk, &["file/local"]);
    assert_eq!(store.calls().len(), 0, "the object store was asked before the directory was there");
}
