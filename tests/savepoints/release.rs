//! What a savepoint keeps until it is released, and no longer.

use super::*;

#[test]
fn i3_gc_never_touches_a_savepoint_until_it_is_released() {
    for seed in 0..2 {
        println!("seed {seed}");
        let place = Place::new();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut expected = BTreeMap::new();
        for attempt in 0..4 {
            let mode = if rng.random_bool(0.3) {
                CheckpointMode::NativeIncremental
            } else {
                CheckpointMode::Changelog
            };
            let Opened { job, mut stores, .. } = place.open(place.options().mode(mode).delta_bytes(8_192));
            for n in 0..24 {
                churn(&mut rng, &mut stores, 40);
                match rng.random_range(0..8) {
                    0 | 1 => job.materialize(),
                    2 => job.compact().unwrap(),
                    _ => {}
                }
                if n % 9 == 4 {
                    let name = format!("s{attempt}.{n}");
                    savepoint(&job, &mut stores, &name).unwrap();
                    expected.insert(name, contents(&mut stores, "words"));
                } else {
                    checkpoint(&job, &mut stores, "").unwrap();
                }
            }
            job.close().unwrap();
            // One in between goes; all others stay.
            let (gone, _) = expected.pop_first().unwrap();
            place.savepoints().release(&gone).unwrap();
            let listed = place.savepoints().list().unwrap();
            assert!(listed.iter().map(|one| &one.name).eq(expected.keys()), "{listed:?}");
            assert!(listed.iter().all(|one| one.full_bytes > Some(0)), "{listed:?}");
            for (name, state) in &expected {
                assert!(place.read(name) == *state, "{name} as a reader sees it");
            }
        }
        for (name, state) in &expected {
            assert!(place.restored(name) == *state, "{name} restored");
            place.savepoints().release(name).unwrap();
        }
        let Opened { job, mut stores, .. } = place.open(place.options());
        checkpoint(&job, &mut stores, "").unwrap();
        job.settle(Duration::from_secs(30)).unwrap();
        checkpoint(&job, &mut stores, "").unwrap();
        job.close().unwrap();
        place.assert_nothing_but_live();
    }
}

/// In one and the same attempt, also for objects of earlier ones.
#[test]
fn a_release_lets_go_at_the_next_collection() {
    let place = Place::new();
    let Opened { job, mut stores, .. } = place.open(place.options().inline_limit(0));
    put_any(&mut stores, "a", &noise(1, 5_000));
    savepoint(&job, &mut stores, "old").unwrap();
    job.close().unwrap();
    drop(stores);
    let of_first = |names: Vec<String>| {
        names.into_iter().filter(|name| name.contains("data/00000000000000000001/")).count()
    };
    let Opened { job, mut stores, .. } = place.open(place.options());
    put_any(&mut stores, "a", b"new");
    materialize(&job);
    // A sweep sees the savepoint.
    checkpoint(&job, &mut stores, "").unwrap();
    job.close().unwrap();
    drop(stores);
    let Opened { job, mut stores, .. } = place.open(place.options());
    checkpoint(&job, &mut stores, "").unwrap();
    eventually("the first sweep", Duration::from_secs(20), || {
        place.store.calls().iter().filter(|call| call.op == Op::List && call.path == "data").count() >= 2
    });
    assert!(of_first(place.names()) > 0, "{:?}", place.names());
    place.savepoints().release("old").unwrap();
    // The next collection comes with a checkpoint some seconds later.
    eventually("what the savepoint kept is gone", Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(500));
        checkpoint(&job, &mut stores, "").unwrap();
        of_first(place.names()) == 0
    });
    job.close().unwrap();
    place.assert_nothing_but_live();
}

#[test]
fn i3_a_savepoint_may_be_released_while_an_attempt_goes_on_from_it() {
    let place = Place::new();
    let mut rng = StdRng::seed_from_u64(8);
    let Opened { job, mut stores, .. } = place.open(place.options().inline_limit(0));
    churn(&mut rng, &mut stores, 200);
    checkpoint(&job, &mut stores, "").unwrap();
    materialize(&job);
    churn(&mut rng, &mut stores, 100);
    savepoint(&job, &mut stores, "v1").unwrap();
    let at_v1 = contents(&mut stores, "words");
    for _ in 0..5 {
        churn(&mut rng, &mut stores, 200);
        materialize(&job);
        checkpoint(&job, &mut stores, "").unwrap();
    }
    let late = (job, stores);

    // As on another machine: the earlier attempt is still there.
    let elsewhere = place.options_in("elsewhere").restore_from(from("v1"));
    let Opened { job, mut stores, .. } = place.open(elsewhere);
    place.savepoints().release("v1").unwrap();
    // The fenced attempt still collects what it dropped.
    late.0.close().unwrap();
    drop(late.1);
    let pins = || place.names().iter().filter(|name| name.starts_with("pin/")).count();
    assert_eq!(pins(), 1);
    put_any(&mut stores, "new", b"x");
    checkpoint(&job, &mut stores, "").unwrap();
    eventually("the pin goes with the first commit", Duration::from_secs(20), || pins() == 0);
    let state = contents(&mut stores, "words");
    job.close().unwrap();
    drop(stores);
    assert_eq!(state.len(), at_v1.len() + 1);
    let Opened { job, mut stores, .. } = place.open(place.options());
    assert!(contents(&mut stores, "words") == state);
    checkpoint(&job, &mut stores, "").unwrap();
    job.settle(Duration::from_secs(30)).unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    job.close().unwrap();
    place.assert_nothing_but_live();
}

/// A release whose first request is still on its way when the name is given anew.
#[test]
fn i3_a_late_delete_does_not_hit_a_newer_savepoint_of_the_same_name() {
    let place = Place::new();
    let Opened { job, mut stores, .. } = place.open(place.options());
    put_any(&mut stores, "a", b"1");
    savepoint(&job, &mut stores, "daily").unwrap();
    let outside = FaultStore::around(Arc::clone(&place.store) as Arc<dyn ObjectStore>);
    let savepoints = Savepoints::open((Arc::clone(&outside) as Arc<dyn ObjectStore>, "")).unwrap();
    savepoints.release("daily").unwrap();
    put_any(&mut stores, "a", b"2");
    savepoint(&job, &mut stores, "daily").unwrap();
    let at_savepoint = contents(&mut stores, "words");
    // Every delete of the release once more.
    let deletes = outside.calls().into_iter().filter(|call| call.op == Op::Delete);
    let deletes: Vec<_> = deletes.map(|call| call.path).collect();
    assert!(!deletes.is_empty());
    for path in deletes {
        let _ = std::fs::remove_file(place.objects().join(path));
    }
    for n in 0..3 {
        put_any(&mut stores, "a", &noise(n, 900));
        checkpoint(&job, &mut stores, "").unwrap();
    }
    job.close().unwrap();
    assert_eq!(place.savepoints().list().unwrap().len(), 1);
    assert!(place.read("daily") == at_savepoint);
}

/// As the first version of this crate made them: the object of the name alone, which a release deletes.
#[test]
fn savepoints_of_the_first_version_are_read_and_released() {
    let place = Place::new();
    let Opened { job, mut stores, .. } = place.open(place.options());
    put_any(&mut stores, "a", b"1");
    savepoint(&job, &mut stores, "first").unwrap();
    assert!(place.names().contains(&"savepoint/first".to_owned()), "{:?}", place.names());
    place.savepoints().release("first").unwrap();
    assert!(!place.names().contains(&"savepoint/first".to_owned()), "{:?}", place.names());
    assert_eq!(place.savepoints().release("first").unwrap_err().kind(), ErrorKind::NotFound);
    for _ in 0..2 {
        savepoint(&job, &mut stores, "first").unwrap();
        place.savepoints().release("first").unwrap();
    }
    let names: Vec<_> = place.names().into_iter().filter(|name| name.starts_with("savepoint/")).collect();
    assert_eq!(names, ["savepoint/first!0000000005"], "one object says that the name was released");
}

/// Readers, savepoints, releases, and a job that retains few checkpoints, all at once.
#[test]
fn i3_readers_and_releases_race_a_job_that_collects() {
    let place = Place::new();
    let Opened { job, mut stores, .. } = place.open(place.options().retained(3));
    put_any(&mut stores, "n", b"0");
    put_any(&mut stores, "again", b"0");
    checkpoint(&job, &mut stores, "").unwrap();
    let (done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let reader =
                    CheckpointReader::open(place.url(), &RestoreFrom::Latest, place.reader_options())
                        .unwrap();
                // Both keys change together: a reader sees one checkpoint or another, nothing between.
                let (one, two) = (reader.get("words", b"n").unwrap(), reader.get("words", b"again").unwrap());
                assert!(one.is_some() && one == two, "{one:?} {two:?}");
                reader.close().unwrap();
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        let saver = scope.spawn(|| {
            let savepoints = place.savepoints();
            for n in 0.. {
                if done.load(Ordering::Relaxed) {
                    return;
                }
                let name = format!("s{}", n % 3);
                match savepoints.create(&name, None) {
                    Ok(_) => {
                        let reader =
                            CheckpointReader::open(place.url(), &from(&name), place.reader_options())
                                .unwrap();
                        savepoints.release(&name).unwrap();
                        let one = reader.get("words", b"n").unwrap();
                        assert!(one.is_some() && one == reader.get("words", b"again").unwrap());
                        reader.close().unwrap();
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let mut n = 0;
        while n < 120 || reads.load(Ordering::Relaxed) < 5 {
            n += 1;
            let value = noise(n, 800);
            put_any(&mut stores, "n", &value);
            put_any(&mut stores, "again", &value);
            if n % 5 == 0 {
                job.materialize();
            }
            checkpoint(&job, &mut stores, "").unwrap();
            // Pinning takes five requests; on a busy machine checkpoints would come faster.
            std::thread::sleep(Duration::from_millis(30));
            if saver.is_finished() || reader.is_finished() {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
        saver.join().unwrap();
        reader.join().unwrap();
    });
    job.settle(Duration::from_secs(30)).unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    job.close().unwrap();
    drop(stores);
    let Opened { job, mut stores, .. } = place.open(place.options());
    checkpoint(&job, &mut stores, "").unwrap();
    checkpoint(&job, &mut stores, "").unwrap();
    job.close().unwrap();
    place.assert_nothing_but_live();
}
