//! Disks that are full or in the way.

use std::fs::File;
use std::io::Write;

use super::*;

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

    /// Leaves no room at all.
    fn fill(&self) {
        let mut ballast = File::create(self.0.path().join("ballast")).unwrap();
        while ballast.write_all(&[0; 4096]).is_ok() {}
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
        assert_error(&error, ErrorKind::Disk, &["free disk space"]);
        // RocksDB tries again by itself, and would succeed in what room its failed flush or compaction
        // has given back.
        disk.fill();
        let mut more = 0;
        alluvium_testkit::eventually(&format!("{mode:?}: a failure shows after {error}"), LIMIT, || {
            more += 1;
            put(&mut stores[0], &format!("more {more}"), &noise(more, 10_000)).is_err()
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
