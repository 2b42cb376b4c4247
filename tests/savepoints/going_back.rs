//! Going back to a savepoint, in the same mode and the other.

use super::*;

#[test]
fn i1_a_job_goes_back_to_a_savepoint_and_on_from_it() {
    let place = Place::new();
    let mut rng = StdRng::seed_from_u64(7);
    let Opened { job, mut stores, .. } = place.open(place.options());
    churn(&mut rng, &mut stores, 300);
    checkpoint(&job, &mut stores, "").unwrap();
    materialize(&job);
    churn(&mut rng, &mut stores, 100);
    let report = savepoint(&job, &mut stores, "v1").unwrap();
    let at_v1 = contents(&mut stores, "words");
    for _ in 0..20 {
        churn(&mut rng, &mut stores, 50);
        checkpoint(&job, &mut stores, "").unwrap();
    }
    drop((job, stores));

    let Opened { job, mut stores, restored, metadata, .. } =
        place.open(place.options().restore_from(from("v1")));
    assert_eq!(restored.checkpoint, Some(report.id));
    assert_eq!(metadata.as_deref(), Some(b"metadata of v1".as_slice()));
    assert_eq!(stores[0].restored_metadata(), Some(b"offset at v1".as_slice()));
    assert!(contents(&mut stores, "words") == at_v1);
    churn(&mut rng, &mut stores, 20);
    // Until this is committed, the retained checkpoint is the one from before.
    let next = checkpoint(&job, &mut stores, "").unwrap();
    let state = contents(&mut stores, "words");
    assert_eq!(job.checkpoints().iter().map(|one| one.id).collect::<Vec<_>>(), [next.id]);
    drop((job, stores));
    let Opened { mut stores, restored, .. } = place.open(place.options());
    assert_eq!(restored.checkpoint, Some(next.id));
    assert!(contents(&mut stores, "words") == state);
    assert!(place.read("v1") == at_v1, "the savepoint is still what it was");
}

/// One deployment takes over from another by a savepoint, which is released as soon as the new one has committed. The
/// old one does not know yet that it is fenced.
fn switch(mode: CheckpointMode, inline_limit: u64, in_flight: bool) {
    println!("{mode:?}, inline {inline_limit}, {}", if in_flight { "in flight" } else { "close" });
    let place = Place::new();
    let options = |dir| place.options_in(dir).mode(mode).inline_limit(inline_limit);
    let sleepy = FaultStore::around(Arc::clone(&place.store) as Arc<dyn ObjectStore>);
    let mut old = Job::open((Arc::clone(&sleepy) as Arc<dyn ObjectStore>, ""), options("blue")).unwrap();
    put_any(&mut old.stores, "a", &noise(1, 900));
    savepoint(&old.job, &mut old.stores, "switch").unwrap();
    let at_savepoint = contents(&mut old.stores, "words");
    old.job.settle(Duration::from_secs(30)).unwrap();
    let gate = Gate::closed();
    if in_flight {
        let held = gate.clone();
        sleepy.rule(move |call| match call.op {
            Op::List if call.path == "pin" => Fault::Hold(held.clone()),
            _ => Fault::Pass,
        });
    }
    for n in 0..20_u64 {
        put_any(&mut old.stores, "b", &noise(n, 900));
        if n == 10 {
            materialize(&old.job);
        }
        checkpoint(&old.job, &mut old.stores, "").unwrap();
    }
    if in_flight {
        eventually("a collection begins", Duration::from_secs(20), || gate.waiting() == 1);
    }

    let new = options("green").restore_from(from("switch"));
    let Opened { job, mut stores, .. } = place.open(new);
    put_any(&mut stores, "c", b"new");
    let committed = checkpoint(&job, &mut stores, "").unwrap();
    let state = contents(&mut stores, "words");
    assert_eq!(state.len(), at_savepoint.len() + 1);
    let pins = || std::fs::read_dir(place.objects().join("pin")).map_or(0, Iterator::count);
    eventually("the pin goes with the first commit", Duration::from_secs(20), || pins() == 0);
    place.savepoints().release("switch").unwrap();
    if in_flight {
        gate.open();
        eventually("the old one finds out", Duration::from_secs(20), || {
            old.job.health().is_err_and(|error| error.kind() == ErrorKind::Fenced)
        });
    } else {
        old.job.close().unwrap();
    }
    drop((old.stores, job, stores));
    assert_eq!(inspect(place.url()).unwrap().missing, Vec::<String>::new());
    let Opened { mut stores, restored, .. } = place.open(options("green"));
    assert_eq!(restored.checkpoint, Some(committed.id));
    assert!(contents(&mut stores, "words") == state);
}

#[test]
fn i3_what_a_fenced_attempt_collects_is_not_what_a_later_one_has_gone_back_to() {
    for (mode, inline_limit) in [
        (CheckpointMode::Changelog, 2_000),
        (CheckpointMode::Changelog, 0),
        (CheckpointMode::NativeIncremental, 2_000),
    ] {
        for in_flight in [false, true] {
            switch(mode, inline_limit, in_flight);
        }
    }
}

/// Six switches of the mode, with a savepoint before each; each attempt goes on from the savepoint.
#[test]
fn i1_modes_switch_any_number_of_times_and_old_savepoints_of_both_stay_readable() {
    let place = Place::new();
    let mut rng = StdRng::seed_from_u64(11);
    let mut expected = BTreeMap::new();
    let mut last: Option<String> = None;
    for n in 0..7 {
        let mode = [CheckpointMode::Changelog, CheckpointMode::NativeIncremental][usize::from(n % 2 == 1)];
        let options = place.options().mode(mode);
        let options = match &last {
            Some(name) => options.restore_from(from(name)),
            None => options,
        };
        let Opened { job, mut stores, .. } = place.open(options);
        if let Some(name) = &last {
            assert!(contents(&mut stores, "words") == expected[name], "{name} opened in the other mode");
        }
        for _ in 0..4 {
            churn(&mut rng, &mut stores, 60);
            if rng.random_bool(0.5) {
                materialize(&job);
            }
            checkpoint(&job, &mut stores, "").unwrap();
        }
        let name = format!("switch-{n}");
        savepoint(&job, &mut stores, &name).unwrap();
        expected.insert(name.clone(), contents(&mut stores, "words"));
        last = Some(name);
        // Lost again: the next attempt goes on from the savepoint.
        churn(&mut rng, &mut stores, 60);
        checkpoint(&job, &mut stores, "").unwrap();
        job.close().unwrap();
    }
    for (n, (name, state)) in expected.iter().enumerate() {
        assert!(place.read(name) == *state, "{name}");
        let reader = CheckpointReader::open(place.url(), &from(name), place.reader_options()).unwrap();
        let native = reader.mode() == CheckpointMode::NativeIncremental;
        assert_eq!(native, n % 2 == 1, "{name}");
        reader.close().unwrap();
    }
}
