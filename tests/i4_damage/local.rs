//! Damaged local files.

use super::*;

/// Local files are a cache: whatever happened to them, the state is that of the checkpoint.
#[test]
fn i4_damaged_local_files_are_never_believed() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let dir = tempfile::tempdir().unwrap();
    let mut rng = StdRng::seed_from_u64(9);
    let mut expected = Contents::new();
    let mut reused = 0;
    for round in 0..12_u64 {
        let opened = Job::open((Arc::clone(&store), PREFIX), options(&dir)).unwrap();
        let Opened { job, mut stores, restored, .. } = opened;
        assert!(contents(&mut stores, "words") == expected, "round {round}");
        reused += restored.bytes_reused;
        for n in 0..50 {
            put_any(&mut stores, &format!("key {n}"), &noise(round * 1000 + n, 50));
        }
        materialize(&job);
        checkpoint(&job, &mut stores, "").unwrap();
        expected = contents(&mut stores, "words");
        drop((job, stores));
        if round % 3 == 2 {
            let local = dir.path().join("local").join("instances");
            for (name, mut bytes) in alluvium_testkit::objects::files_below(&local) {
                match rng.random_range(0..4) {
                    0 if !bytes.is_empty() => {
                        let at = rng.random_range(0..bytes.len());
                        bytes[at] ^= 0x40;
                        // A new file: hard links of it elsewhere keep their bytes.
                        std::fs::remove_file(local.join(&name)).unwrap();
                        std::fs::write(local.join(&name), bytes).unwrap();
                    }
                    1 => std::fs::remove_file(local.join(&name)).unwrap(),
                    2 => std::fs::File::options()
                        .write(true)
                        .open(local.join(&name))
                        .and_then(|file| file.set_len(bytes.len() as u64 / 2))
                        .unwrap(),
                    _ => {}
                }
            }
        }
    }
    assert!(reused > 0, "no local file was ever taken over");
}

/// A bit rots in a local file that no base has yet. Whatever is done then, every key is there after
/// a restart, also on the same directory: the base that would have been built from the file never
/// is, and what the store has is enough to build the state without it.
#[test]
fn i4_rot_on_the_local_disk_never_takes_the_place_of_what_can_repair_it() {
    for mode in [CheckpointMode::Changelog, CheckpointMode::NativeIncremental] {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let dir = tempfile::tempdir().unwrap();
        let open = || Job::open((Arc::clone(&store), PREFIX), options(&dir).subtasks(1).mode(mode)).unwrap();
        let Opened { job, mut stores, .. } = open();
        for n in 0..3000 {
            put_any(&mut stores, &format!("key {n}"), &noise(n, 60));
        }
        let expected = contents(&mut stores, "words");
        if mode == CheckpointMode::Changelog {
            checkpoint(&job, &mut stores, "before").unwrap();
            job.settle(Duration::from_secs(30)).unwrap();
            // Into a file that is in no base.
            job.compact().unwrap();
        } else {
            checkpoint(&job, &mut stores, "before").unwrap();
            // A file that is in no checkpoint, with other bytes than the one that is.
            put_any(&mut stores, "key 0", &noise(0, 60));
            job.compact().unwrap();
        }
        let rotten = rot_one(&dir.path().join("local/instances"));

        job.materialize();
        let _ = job.settle(Duration::from_secs(30));
        for _ in 0..3 {
            let _ = checkpoint(&job, &mut stores, "after");
        }
        let health = job.health().unwrap_err();
        assert_eq!(health.kind(), ErrorKind::Corrupt, "{mode:?}: {health}");
        assert!(health.object_name().unwrap().ends_with(&rotten), "{mode:?}: {health}");
        drop((job, stores));

        let Opened { job, mut stores, .. } = open();
        assert!(contents(&mut stores, "words") == expected, "{mode:?}: a key is lost");
        materialize(&job);
        checkpoint(&job, &mut stores, "repaired").unwrap();
        job.close().unwrap();
        drop(stores);
        let elsewhere = tempfile::tempdir().unwrap();
        let mut opened =
            Job::open((Arc::clone(&store), PREFIX), options(&elsewhere).subtasks(1).mode(mode)).unwrap();
        assert!(contents(&mut opened.stores, "words") == expected, "{mode:?}: a key is lost elsewhere");
    }
}

/// Flips a bit in the midst of the largest SST file of the one table below, and returns its name.
fn rot_one(instances: &std::path::Path) -> String {
    let files = alluvium_testkit::objects::files_below(instances);
    let sst = files.iter().filter(|(name, _)| name.ends_with(".sst") && name.contains("/table/"));
    let (name, bytes) = sst.max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let at = bytes.len() / 3;
    let mut file = std::fs::File::options().write(true).open(instances.join(name)).unwrap();
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.write_all(&[bytes[at] ^ 8]).unwrap();
    name.rsplit('/').next().unwrap().to_owned()
}
