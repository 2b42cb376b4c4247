//! Given histories at every parallelism, and restores that fail on the way.

use super::*;

/// What lies behind the checkpoint that is rescaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behind {
    /// No base at all.
    Deltas,
    /// Bases, and nothing after them.
    Bases,
    /// Bases, deltas after them, files in level 0 and a compacted level below.
    Both,
}

#[test]
fn i9_every_history_restores_at_every_parallelism_and_back() {
    let pairs = [(1, 2), (2, 1), (2, 3), (3, 2), (1, 8), (8, 1), (3, 7), (5, 4)];
    let histories = [Behind::Deltas, Behind::Bases, Behind::Both];
    let mut cases: Vec<_> = pairs
        .iter()
        .flat_map(|pair| histories.map(|behind| (*pair, behind, CheckpointMode::Changelog)))
        .collect();
    cases.extend(pairs.map(|pair| (pair, Behind::Both, CheckpointMode::NativeIncremental)));
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    println!("{case:?}");
                    there_and_back(case.0, case.1, case.2);
                }
            });
        }
    });
}

fn there_and_back((n, m): (u32, u32), behind: Behind, mode: CheckpointMode) {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let groups = MaxParallelism::new(20).unwrap();
    let mut expected = BTreeMap::new();
    // Twice there and back, so that foreign key groups and old markers lie in the files.
    for (generation, subtasks) in [n, m, n, m, n].into_iter().enumerate() {
        let options = quiet(dir.path(), OpenMode::CreateOrOpen).memory(40_000_000).max_parallelism(groups);
        let Opened { job, mut stores, .. } = open(&store, options.mode(mode).subtasks(subtasks)).unwrap();
        assert!(contents(&mut stores, "words") == expected, "generation {generation}");
        if generation % 2 == 1 {
            job.compact().unwrap();
            assert!(contents(&mut stores, "words") == expected, "generation {generation}, compacted");
        }
        let round = generation as u64 * 10;
        change(&mut stores, round);
        checkpoint(&job, &mut stores, "").unwrap();
        match (behind, mode) {
            (Behind::Bases, _) => {
                change(&mut stores, round + 1);
                checkpoint(&job, &mut stores, "").unwrap();
                materialize(&job);
                checkpoint(&job, &mut stores, "").unwrap();
            }
            (Behind::Both, CheckpointMode::Changelog) => {
                job.compact().unwrap();
                for next in 1..4 {
                    change(&mut stores, round + next);
                    // A file in level 0 each.
                    materialize(&job);
                    checkpoint(&job, &mut stores, "").unwrap();
                }
                change(&mut stores, round + 4);
                checkpoint(&job, &mut stores, "").unwrap();
            }
            (Behind::Both, CheckpointMode::NativeIncremental) => {
                job.compact().unwrap();
                for next in 1..4 {
                    change(&mut stores, round + next);
                    checkpoint(&job, &mut stores, "").unwrap();
                }
            }
            (Behind::Deltas, _) => {}
        }
        expected = contents(&mut stores, "words");
        assert!(expected.len() > 100);
    }
}

/// A crash between a rescale and its first commit loses nothing, and neither does another rescale then.
#[test]
fn i9_a_crash_before_the_first_commit_starts_from_the_same_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let options = |subtasks| quiet(dir.path(), OpenMode::CreateOrOpen).memory(40_000_000).subtasks(subtasks);
    let Opened { job, mut stores, .. } = open(&store, options(3)).unwrap();
    change(&mut stores, 1);
    checkpoint(&job, &mut stores, "").unwrap();
    materialize(&job);
    let id = checkpoint(&job, &mut stores, "").unwrap().id;
    let expected = contents(&mut stores, "words");
    drop((job, stores));
    for subtasks in [2, 5, 3] {
        let Opened { job, mut stores, restored, .. } = open(&store, options(subtasks)).unwrap();
        assert_eq!(restored.checkpoint, Some(id));
        assert!(contents(&mut stores, "words") == expected, "{subtasks} subtasks");
        // Uploaded, but never committed.
        change(&mut stores, 7);
        let pending = job.trigger("").unwrap();
        stores[0].cut(pending.id(), "").unwrap();
        pending.abort();
        pending.wait().unwrap_err();
        materialize(&job);
    }
}

/// The same when it ends half-way: the objects are untouched, and the directories are cleared.
#[test]
fn i9_a_restore_that_fails_on_the_way_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let store = FaultStore::new(InMemory::new());
    let options = |subtasks| quiet(dir.path(), OpenMode::CreateOrOpen).memory(40_000_000).subtasks(subtasks);
    let Opened { job, mut stores, .. } = open(&store, options(3)).unwrap();
    change(&mut stores, 1);
    checkpoint(&job, &mut stores, "").unwrap();
    materialize(&job);
    change(&mut stores, 2);
    checkpoint(&job, &mut stores, "").unwrap();
    let expected = contents(&mut stores, "words");
    drop((job, stores));
    // Nothing local to fall back on.
    std::fs::remove_dir_all(dir.path().join("instances")).unwrap();
    // Each start gets none or one of the files, and keeps it for the next one.
    let mut starts = 0;
    let Opened { job: _job, mut stores, .. } = loop {
        let mut left = i32::from(starts > 0);
        store.rule(move |call| {
            let sst = call.op == Op::Get && call.path.ends_with(".sst");
            left -= i32::from(sst);
            if sst && left < 0 { Fault::Denied } else { Fault::Pass }
        });
        match open(&store, options(2)) {
            Ok(opened) => break opened,
            Err(error) => assert_ne!(error.kind(), ErrorKind::Internal, "{error}"),
        }
        starts += 1;
        assert!(starts < 20, "what was fetched is not kept");
    };
    assert!(starts > 1, "nothing was refused");
    assert!(contents(&mut stores, "words") == expected);
    // What the others had fetched was kept for this one, and is gone by now.
    let instances = std::fs::read_dir(dir.path().join("instances")).unwrap().count();
    assert_eq!(instances, 2, "directories of starts that failed stay");
}
