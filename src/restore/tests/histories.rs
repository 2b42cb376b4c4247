//! Any history restores to the state at its cut, with as few requests and bytes as possible.

use super::*;

#[tokio::test]
async fn i1_any_history_restores_to_the_state_at_its_cut() {
    for seed in 0..12 {
        println!("seed {seed}");
        let mut world = World::new(seed);
        let mut number = 0;
        for _ in 0..6 {
            // From a batch for each delta, that goes in block by block, to one for all of them.
            world.memory = 1 << world.rng.random_range(0..24);
            let (deltas, changes) = (world.rng.random_range(0..5), world.rng.random_range(0..80));
            world.pack(deltas, changes).await;
            if world.rng.random_bool(0.4) && world.seq > DeltaSeq(0) {
                world.materialize().await;
            }
            let (deltas, changes) = (world.rng.random_range(0..3), world.rng.random_range(0..80));
            world.pack(deltas, changes).await;
            if world.rng.random_bool(0.5) {
                world.table.compact_all().unwrap();
            }
            number += 1;
            let found = world.cut(number);
            let (cut, seq) = (world.model.clone(), world.seq);
            // What comes after the cut must not be seen (the last delta is lost with the crash).
            world.change(10);
            let name = format!("table-{number}");
            let target = world.target(&name);
            let restored = world.restorer().restore(&[found], false, &[target], &[]).await.unwrap();
            let report = restored.report;
            assert_eq!(report.checkpoint, Some(CheckpointId { epoch: Epoch(1), number }));
            assert_eq!(report.deltas, world.deltas.len() as u64);
            let restored = restored.subtasks.into_iter().next().unwrap();
            assert_eq!(restored.seq, seq);
            assert_eq!(restored.metadata.as_deref(), Some(format!("offset {number}").as_bytes()));
            assert_eq!(contents(&restored.table), cut);
            restored.table.compact_all().unwrap();
            assert_eq!(contents(&restored.table), cut, "after a full compaction");
            world.model = cut;
            world.go_on(restored);
        }
    }
}

#[tokio::test]
async fn without_checkpoint_the_state_is_empty() {
    let world = World::new(0);
    let target = world.target("restored");
    fs::create_dir_all(&target.dir).unwrap();
    fs::write(target.dir.join("leftover"), b"x").unwrap();
    let restored = world.restore(&[], true, &[]).await.unwrap();
    assert!(restored.manifest.is_none());
    assert_eq!(restored.report, RestoreReport::default());
    assert!(contents(&restored.subtasks[0].table).is_empty());
    assert_eq!(restored.subtasks[0].seq, DeltaSeq(0));
    assert_eq!(restored.subtasks[0].metadata, None);
    assert!(!target.dir.join("leftover").exists());
}

#[tokio::test]
async fn local_files_are_reused_by_content() {
    let mut world = World::new(1);
    world.pack(4, 200).await;
    world.materialize().await;
    world.pack(1, 20).await;
    let found = [world.cut(1)];
    let all = world.restore(&found, false, &[]).await.unwrap();
    assert_eq!(all.report.bytes_reused, 0);
    drop(all);

    let old = world.snapshot().dir;
    let reused = world.restore(&found, false, std::slice::from_ref(&old)).await.unwrap();
    assert!(reused.report.bytes_reused > 0);
    assert_eq!(contents(&reused.subtasks[0].table), world.model);
    // What goes on in the restored table does not reach the old one's files.
    reused.subtasks[0].table.compact_all().unwrap();
    drop(reused);
    assert_eq!(contents(&world.table), world.model);

    // Files of the right name and size, but with other content, are not believed.
    let wrong = world.dir.path().join("wrong");
    fs::create_dir(&wrong).unwrap();
    for entry in fs::read_dir(&old).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "sst") {
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            // The table is open: a file that RocksDB has just begun is empty.
            bytes.get_mut(middle).into_iter().for_each(|byte| *byte ^= 1);
            fs::write(wrong.join(path.file_name().unwrap()), bytes).unwrap();
        }
    }
    let doubted = world.restore(&found, false, &[wrong]).await.unwrap();
    assert_eq!(doubted.report.bytes_reused, 0);
    assert_eq!(contents(&doubted.subtasks[0].table), world.model);
}

#[tokio::test]
async fn i8_a_restore_asks_once_for_each_object() {
    let mut world = World::new(6);
    world.pack(1, 100).await;
    world.materialize().await;
    world.pack(20, 20).await;
    world.pack(20, 20).await;
    let files = world.base.as_ref().unwrap().files.len() as u64;
    let before = world.remote.counters();
    let restored = world.restore(&[world.cut(1)], false, &[]).await.unwrap();
    let spent = world.remote.counters() - before;
    assert_eq!(spent.gets, files + 1 + 2);
    assert_eq!(restored.report.objects, files + 1 + 2);
    assert_eq!(restored.report.bytes_downloaded, spent.get_bytes);
    assert_eq!(restored.report.deltas, 40);
    // Merged: no more than there are keys, however many deltas touched them.
    assert!(restored.report.entries_replayed <= 4 * 60, "{}", restored.report.entries_replayed);
}

#[tokio::test]
async fn key_groups_that_nobody_had_are_refused_and_nothing_is_touched() {
    let mut world = World::new(7);
    world.pack(1, 10).await;
    let range = KeyGroupRange { first: KeyGroup(4), last: KeyGroup(9) };
    let target = Target { range, ..world.target("first") };
    let error = world.restorer().restore(&[world.cut(1)], true, &[target], &[]).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert_eq!(contents(&world.table), world.model, "the directory is as it was");
}

#[tokio::test]
async fn i8_subtasks_share_requests() {
    let mut world = World::new(11);
    world.pack(2, 50).await;
    let found = world.cut(1);
    // Twice the same subtask: two parts of a job that lie in one object.
    let targets = [world.target("a"), world.target("b")];
    let before = world.remote.counters();
    let restored = world.restorer().restore(&[found], false, &targets, &[]).await.unwrap();
    assert_eq!((world.remote.counters() - before).gets, 1);
    assert_eq!(restored.subtasks.len(), 2);
    for restored in &restored.subtasks {
        assert_eq!(contents(&restored.table), world.model);
    }
}
