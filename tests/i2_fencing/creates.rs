//! Creates that arrive late, or whose answers say nothing.

use super::*;

/// A create that was given up on may be applied much later, when its version was collected long ago.
#[test]
fn i2_a_late_create_into_a_hole_changes_nothing() {
    let two = Two::new();
    let Opened { job, mut stores, .. } = two.open_with("a", |options| options.retained(1));
    put(&mut stores[0], "k", b"old").unwrap();
    let mut first = true;
    two.store.rule(move |call| match call.is_manifest_put() && std::mem::take(&mut first) {
        true => Fault::Late,
        false => Fault::Pass,
    });
    let report = checkpoint(&job, &mut stores, "old").unwrap();
    let hole = format!("manifest/{:020}", report.version);
    for n in 0..20 {
        put(&mut stores[0], "k", format!("{n}").as_bytes()).unwrap();
        materialize(&job);
        checkpoint(&job, &mut stores, &format!("{n}")).unwrap();
    }
    eventually("the old manifest is collected", LONG, || !two.objects().contains_key(&hole));
    assert_eq!(block_on(two.store.deliver()), 1, "the late create fills the hole");
    assert!(two.objects().contains_key(&hole));

    // Neither the running attempt nor the next one minds.
    put(&mut stores[0], "k", b"20").unwrap();
    checkpoint(&job, &mut stores, "20").unwrap();
    drop((job, stores));
    let Opened { job, mut stores, metadata, .. } = two.open_with("a", |options| options.retained(1));
    assert_eq!(metadata.as_deref(), Some(b"20".as_slice()));
    assert_eq!(get(&mut stores[0], "k"), Some(b"20".to_vec()));
    assert_eq!(job.checkpoints().len(), 1);
    checkpoint(&job, &mut stores, "21").unwrap();
    job.close().unwrap();
    drop(stores);
    assert!(!two.objects().contains_key(&hole), "the next attempt collects it");
}

/// A create that was given up on fills the very version that the next attempt wants.
#[test]
fn i2_a_late_create_before_the_next_open_counts_as_a_whole_or_not_at_all() {
    for deliver_first in [true, false] {
        let two = Two::new();
        let Opened { job: old, stores: mut old_stores, .. } =
            two.open_with("a", |options| options.checkpoint_timeout(Duration::from_millis(400)));
        put(&mut old_stores[0], "k", b"first").unwrap();
        checkpoint(&old, &mut old_stores, "first").unwrap();
        two.store.rule(|call| match call.is_manifest_put() {
            true => Fault::Late,
            false => Fault::Pass,
        });
        put(&mut old_stores[0], "k", b"late").unwrap();
        let error = checkpoint(&old, &mut old_stores, "late").unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Aborted | ErrorKind::StoreUnavailable), "{error}");
        old.health().unwrap();
        two.store.heal();
        drop((old, old_stores));

        if deliver_first {
            assert_eq!(block_on(two.store.deliver()), 1);
        }
        let mut new = two.open("b");
        if !deliver_first {
            assert_eq!(block_on(two.store.deliver()), 0, "the open record is in the way");
        }
        let expected = if deliver_first { "late" } else { "first" };
        assert_eq!(new.metadata.as_deref(), Some(expected.as_bytes()));
        assert_eq!(get(&mut new.stores[0], "k"), Some(expected.into()));
        checkpoint(&new.job, &mut new.stores, "next").unwrap();
    }
}

/// A commit that got no verdict, and turns out at the next one to have been applied, is one of the
/// job's checkpoints; its id is not given again.
#[test]
fn i2_a_commit_given_up_that_was_applied_is_adopted() {
    let two = Two::new();
    let Opened { job, mut stores, .. } =
        two.open_with("a", |options| options.checkpoint_timeout(Duration::from_millis(300)).retained(5));
    put(&mut stores[0], "k", b"1").unwrap();
    let first = checkpoint(&job, &mut stores, "1").unwrap();
    // Applied, but no answer arrives, and none to the questions that follow.
    two.store.rule(|call| match call.is_manifest_put() {
        true => Fault::Answer(Answer::Lost),
        false => Fault::Fail,
    });
    put(&mut stores[0], "k", b"2").unwrap();
    let pending = job.trigger("2").unwrap();
    let second = pending.id();
    stores[0].cut(second, "2").unwrap();
    pending.wait().unwrap_err();
    job.health().unwrap();
    two.store.heal();
    put(&mut stores[0], "k", b"3").unwrap();
    let third = checkpoint(&job, &mut stores, "3").unwrap();
    let ids: Vec<_> = job.checkpoints().iter().map(|summary| summary.id).collect();
    assert_eq!(ids, vec![first.id, second, third.id], "none lost, none twice");
    drop((job, stores));

    for (id, value) in [(first.id, "1"), (second, "2"), (third.id, "3")] {
        let mut opened = two.open_with("a", |options| {
            options.retained(5).restore_from(alluvium::RestoreFrom::Checkpoint(id))
        });
        assert_eq!(opened.restored.checkpoint, Some(id));
        assert_eq!(opened.metadata.as_deref(), Some(value.as_bytes()));
        assert_eq!(get(&mut opened.stores[0], "k"), Some(value.into()));
    }
}

/// Failures of every kind at random requests: each checkpoint that was reported is there, those that
/// were given up are there as a whole or not at all, and no id comes twice.
#[test]
fn i2_ambiguous_answers_neither_lose_nor_double_a_checkpoint() {
    for seed in 0..8 {
        let place = tempfile::tempdir().unwrap();
        let url = place.path().join("store");
        std::fs::create_dir(&url).unwrap();
        let store = FaultStore::new(LocalFileSystem::new_with_prefix(&url).unwrap());
        let mut rng = StdRng::seed_from_u64(seed);
        let local = place.path().join("local");
        let options = || {
            JobOptions::new(&local, OpenMode::CreateOrOpen)
                .memory(16_000_000)
                .retained(100)
                .inline_limit(if seed % 2 == 0 { 0 } else { 100_000 })
                .checkpoint_timeout(Duration::from_secs(3))
                .materialization(by_hand())
        };
        let open = || Job::open((Arc::clone(&store) as Arc<dyn ObjectStore>, ""), options());
        let Opened { job, mut stores, .. } = open().unwrap();
        let mut fates = StdRng::seed_from_u64(seed);
        store.rule(move |call| match (fates.random_range(0..10), call.op) {
            (0, _) => Fault::Fail,
            (1 | 2, alluvium_testkit::faults::Op::Put) => Fault::Answer(Answer::Lost),
            (3, alluvium_testkit::faults::Op::Put) if call.create => Fault::Conflict,
            _ => Fault::Pass,
        });
        let mut reported = Vec::new();
        let mut triggered = Vec::new();
        for n in 0..20 {
            put(&mut stores[0], "n", n.to_string().as_bytes()).unwrap();
            put(&mut stores[0], &format!("key {n}"), &noise(n, 100)).unwrap();
            if rng.random_ratio(1, 5) {
                job.materialize();
            }
            let pending = job.trigger(n.to_string()).unwrap();
            triggered.push((pending.id(), n));
            stores[0].cut(pending.id(), n.to_string()).unwrap();
            let id = pending.id();
            match pending.wait() {
                Ok(report) => reported.push((report.id, n)),
                Err(error) => {
                    let passing = matches!(error.kind(), ErrorKind::Aborted | ErrorKind::StoreUnavailable);
                    assert!(passing, "seed {seed}, checkpoint {id}: {error}");
                }
            }
            job.health().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        store.heal();
        put(&mut stores[0], "n", b"last").unwrap();
        checkpoint(&job, &mut stores, "last").unwrap();
        assert!(reported.len() >= 10, "seed {seed}: only {} of 20 came through", reported.len());
        drop((job, stores));

        let seen = alluvium::admin::inspect(url.to_str().unwrap()).unwrap();
        assert_eq!(seen.missing, Vec::<String>::new(), "seed {seed}");
        let ids: Vec<_> =
            seen.records.iter().filter_map(|record| Some(record.checkpoint.as_ref()?.id)).collect();
        assert_eq!(
            ids.iter().collect::<BTreeSet<_>>().len(),
            ids.len(),
            "seed {seed}: an id twice in {ids:?}"
        );
        for (id, _) in &reported {
            assert!(ids.contains(id), "seed {seed}: {id} was reported and is lost");
        }
        let sample = [ids[rng.random_range(0..ids.len())], ids[rng.random_range(0..ids.len())]];
        for id in sample {
            let from = alluvium::RestoreFrom::Checkpoint(id);
            let mut opened =
                Job::open((Arc::clone(&store) as Arc<dyn ObjectStore>, ""), options().restore_from(from))
                    .unwrap();
            let Some((_, n)) = triggered.iter().find(|(triggered, _)| *triggered == id) else { continue };
            assert_eq!(
                get(&mut opened.stores[0], "n"),
                Some(n.to_string().into_bytes()),
                "seed {seed}, {id}"
            );
            assert_eq!(contents(&mut opened.stores, "words").len() as u64, n + 2, "seed {seed}, {id}");
        }
    }
}
