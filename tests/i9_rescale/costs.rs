//! What a rescale uploads, fetches and leaves behind.

use super::*;

const KEYS: u64 = 20_000;
const VALUE: usize = 200;
const STATE: u64 = KEYS * VALUE as u64;

/// A state of some megabytes, compacted, with a checkpoint behind it.
fn large(store: &Arc<FaultStore>, options: JobOptions) -> (Job, Vec<StateStore>) {
    let native = CheckpointMode::NativeIncremental;
    let Opened { job, mut stores, .. } = open(store, options).unwrap();
    for key in 0..KEYS {
        put_any(&mut stores, &format!("key {key:08}"), &noise(key, VALUE));
    }
    if job.mode() == native {
        job.compact().unwrap();
        checkpoint(&job, &mut stores, "").unwrap();
    } else {
        checkpoint(&job, &mut stores, "").unwrap();
        job.settle(Duration::from_secs(60)).unwrap();
        job.compact().unwrap();
        materialize(&job);
        checkpoint(&job, &mut stores, "").unwrap();
    }
    (job, stores)
}

fn put_bytes(store: &FaultStore) -> u64 {
    store.take_calls().iter().filter(|call| call.writes()).map(|call| call.bytes).sum()
}

/// I5 holds across a rescale: the next checkpoint carries its delta, and the next base what is new.
#[test]
fn i5_what_a_split_takes_over_is_not_uploaded_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let options = |subtasks| {
        quiet(dir.path(), OpenMode::CreateOrOpen).memory(64_000_000).subtasks(subtasks).retained(1)
    };
    drop(large(&store, options(1)));
    let Opened { job, mut stores, restored, .. } = open(&store, options(2)).unwrap();
    assert_eq!(restored.bytes_rewritten, 0, "a split copies nothing");
    store.take_calls();
    put_any(&mut stores, "one more", b"x");
    checkpoint(&job, &mut stores, "").unwrap();
    let first = put_bytes(&store);
    assert!(first < STATE / 50, "{first} bytes for a delta of one key on a state of {STATE}");
    materialize(&job);
    checkpoint(&job, &mut stores, "").unwrap();
    let second = put_bytes(&store);
    assert!(second < STATE / 10, "{second} bytes for the first bases after the split");
    let expected = contents(&mut stores, "words");
    job.close().unwrap();
    drop(stores);
    // The bases stand on what the old subtask had uploaded.
    let Opened { mut stores, .. } = open(&store, options(2)).unwrap();
    assert!(contents(&mut stores, "words") == expected);
}

#[test]
fn i5_a_native_checkpoint_after_a_split_uploads_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let options = |subtasks| {
        let options = quiet(dir.path(), OpenMode::CreateOrOpen).memory(64_000_000).subtasks(subtasks);
        options.mode(CheckpointMode::NativeIncremental)
    };
    drop(large(&store, options(1)));
    let Opened { job, mut stores, .. } = open(&store, options(2)).unwrap();
    put_any(&mut stores, "one more", b"x");
    let report = checkpoint(&job, &mut stores, "").unwrap();
    assert!(report.sst_bytes < STATE / 10, "{report:?}");
}

/// A join takes over the files of all sources as they are, and what it spares is not uploaded again either.
#[test]
fn i5_what_a_join_takes_over_is_not_uploaded_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let options = |subtasks| quiet(dir.path(), OpenMode::CreateOrOpen).memory(64_000_000).subtasks(subtasks);
    drop(large(&store, options(2)));
    for subtasks in [1, 3] {
        let Opened { job, mut stores, restored, .. } = open(&store, options(subtasks)).unwrap();
        assert_eq!(restored.bytes_rewritten, 0);
        store.take_calls();
        materialize(&job);
        checkpoint(&job, &mut stores, "").unwrap();
        let uploaded = put_bytes(&store);
        assert!(uploaded < STATE / 10, "{uploaded} of {STATE} for {subtasks}");
        let expected = contents(&mut stores, "words");
        job.compact().unwrap();
        assert!(contents(&mut stores, "words") == expected);
        job.close().unwrap();
        drop(stores);
        // The bases stand on what the old subtasks had uploaded.
        let Opened { mut stores, .. } = open(&store, options(subtasks)).unwrap();
        assert!(contents(&mut stores, "words") == expected);
    }
}

/// Each object is fetched once, however many subtasks take over a part of it.
#[test]
fn i8_a_rescale_fetches_each_object_once() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = FaultStore::new(InMemory::new());
    let options = |dir: &tempfile::TempDir, subtasks| {
        quiet(dir.path(), OpenMode::CreateOrOpen).memory(64_000_000).subtasks(subtasks)
    };
    let (job, mut stores) = large(&store, options(&dir, 2));
    change(&mut stores, 3);
    checkpoint(&job, &mut stores, "").unwrap();
    drop((job, stores));
    store.take_calls();
    let opened = open(&store, options(&elsewhere, 5)).unwrap();
    let gets: Vec<_> =
        store.take_calls().into_iter().filter(|call| call.op == Op::Get && call.is_data()).collect();
    let mut paths: Vec<_> = gets.iter().map(|call| &call.path).collect();
    paths.sort();
    let all = paths.len();
    paths.dedup();
    assert_eq!(paths.len(), all, "{gets:?}");
    assert!(opened.restored.bytes_downloaded < STATE * 2);
    drop(opened);
    // And none at all where the files are still there.
    let opened = open(&store, options(&dir, 5)).unwrap();
    assert!(opened.restored.bytes_reused > STATE / 2, "{:?}", opened.restored);
    assert!(opened.restored.bytes_downloaded < STATE / 10, "{:?}", opened.restored);
}

/// By itself a rescaled subtask takes a base at once, whatever the interval, and its checkpoints name the
/// old subtasks no longer.
#[test]
fn a_rescaled_subtask_takes_a_base_of_its_own() {
    let (dir, objects) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = FaultStore::new(LocalFileSystem::new_with_prefix(objects.path()).unwrap());
    let options = |subtasks| {
        quiet(dir.path(), OpenMode::CreateOrOpen)
            .memory(64_000_000)
            .subtasks(subtasks)
            .materialization(MaterializationOptions::default())
    };
    let origins = || {
        let inspection = inspect(objects.path().join(PREFIX).to_str().unwrap()).unwrap();
        assert_eq!(inspection.missing, Vec::<String>::new());
        let newest = inspection.records.iter().rev().find_map(|record| record.checkpoint.clone()).unwrap();
        newest.subtasks.into_iter().map(|subtask| subtask.origins).collect::<Vec<_>>()
    };
    let Opened { job, mut stores, .. } = open(&store, options(2)).unwrap();
    change(&mut stores, 1);
    checkpoint(&job, &mut stores, "").unwrap();
    assert!(origins().iter().all(Vec::is_empty));
    drop((job, stores));
    // By hand, the origins stay.
    let Opened { job, mut stores, .. } = open(&store, options(3).materialization(by_hand())).unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    let found = origins();
    let ranges: Vec<_> = found
        .iter()
        .map(|origins| origins.iter().map(|origin| origin.range.as_str()).collect::<Vec<_>>())
        .collect();
    assert_eq!(ranges, [vec!["0..=42"], vec!["43..=63", "64..=85"], vec!["86..=127"]]);
    let expected = contents(&mut stores, "words");
    drop((job, stores));

    let Opened { job, mut stores, .. } = open(&store, options(3)).unwrap();
    assert!(contents(&mut stores, "words") == expected);
    alluvium_testkit::eventually("bases of their own", Duration::from_secs(20), || {
        checkpoint(&job, &mut stores, "").unwrap();
        origins().iter().all(Vec::is_empty)
    });
}

/// I3: what the old subtasks had lives exactly as long as something refers to it.
#[test]
fn i3_the_old_subtasks_objects_go_with_their_last_reference() {
    for mode in [CheckpointMode::Changelog, CheckpointMode::NativeIncremental] {
        let (dir, objects) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = FaultStore::new(LocalFileSystem::new_with_prefix(objects.path()).unwrap());
        let place = objects.path().join(PREFIX);
        let look = || {
            let inspection = inspect(place.to_str().unwrap()).unwrap();
            assert_eq!(inspection.missing, Vec::<String>::new());
            inspection
        };
        let options = |subtasks| {
            let options = quiet(dir.path(), OpenMode::CreateOrOpen).memory(64_000_000).subtasks(subtasks);
            options.mode(mode).retained(1).inline_limit(500)
        };
        let mut expected = BTreeMap::new();
        for (generation, subtasks) in [3, 2, 4, 1, 5].into_iter().enumerate() {
            let Opened { job, mut stores, .. } = open(&store, options(subtasks)).unwrap();
            assert!(contents(&mut stores, "words") == expected, "{mode:?}, generation {generation}");
            // The first checkpoint drops the one that was restored.
            for n in 0..3 {
                checkpoint(&job, &mut stores, "").unwrap();
                change(&mut stores, generation as u64 * 10 + n);
                checkpoint(&job, &mut stores, "").unwrap();
                look();
                if n == 1 && generation % 2 == 0 {
                    materialize(&job);
                }
            }
            expected = contents(&mut stores, "words");
            if generation == 2 {
                // In the middle of it a crash; the others end in order.
                drop((job, stores));
            } else {
                job.close().unwrap();
                drop(stores);
            }
            look();
        }
        // The last attempt compacts all, so nothing of the old files is left in any base.
        let Opened { job, mut stores, .. } = open(&store, options(2)).unwrap();
        assert!(contents(&mut stores, "words") == expected, "{mode:?}");
        let epoch = job.epoch().0;
        job.compact().unwrap();
        materialize(&job);
        checkpoint(&job, &mut stores, "").unwrap();
        checkpoint(&job, &mut stores, "").unwrap();
        job.settle(Duration::from_secs(30)).unwrap();
        job.close().unwrap();
        let seen = look();
        let garbage = seen.total_objects - seen.live_objects - seen.epochs.len() as u64;
        let names: Vec<PathBuf> = files_below(&place).into_keys().map(PathBuf::from).collect();
        assert_eq!(garbage, 0, "{mode:?}: {names:#?}");
        let older = names.iter().filter_map(|name| {
            let name = name.to_str().unwrap().strip_prefix("data/")?;
            Some(name.split('/').next().unwrap().parse::<u64>().unwrap())
        });
        assert!(older.clone().all(|of| of == epoch), "{mode:?}: {names:#?}");
    }
}

/// The job's max parallelism bounds what it can be rescaled to, and never changes.
#[test]
fn more_subtasks_than_key_groups_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let groups = |groups| MaxParallelism::new(groups).unwrap();
    let options = || quiet(dir.path(), OpenMode::CreateOrOpen).memory(40_000_000);
    let open = |options| Job::open((Arc::clone(&store), PREFIX), options);
    drop(open(options().subtasks(2).max_parallelism(groups(4))).unwrap());
    assert_eq!(open(options().subtasks(5)).unwrap_err().kind(), ErrorKind::InvalidArgument);
    let other = open(options().subtasks(4).max_parallelism(groups(8))).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Incompatible);
    assert_eq!(open(options().subtasks(4)).unwrap().stores.len(), 4);
}
