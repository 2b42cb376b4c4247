//! A full disk below the local directory: what waits for space says so, and goes on when there is
//! some. On a small file system in memory; where none can be mounted, these tests say that they are
//! skipped.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use alluvium::{CheckpointMode, Error, ErrorKind, JobOptions, OpenMode, Opened, StateStore};
use object_store::memory::InMemory;

use alluvium_testkit::drive::{by_hand, checkpoint, contents, noise, open, put_any};
use alluvium_testkit::eventually;

/// Nothing here is a matter of time: this only ends a test that hangs.
const STUCK: Duration = Duration::from_secs(180);

/// A file system of a few MiB.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(mib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(dir.path());
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(Self(dir));
        }
        eprintln!("skipped: no file system can be mounted here");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills the disk with a file of this name, but for so many bytes.
    fn fill(&self, name: &str, but: usize) -> PathBuf {
        let path = self.path().join(name);
        let mut file = fs::File::create(&path).unwrap();
        let piece = vec![0; 64 << 10];
        while file.write_all(&piece).is_ok() {}
        let full = file.metadata().unwrap().len();
        file.set_len(full.saturating_sub(but as u64)).unwrap();
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

fn options(dir: &Path, mode: CheckpointMode) -> JobOptions {
    JobOptions::new(dir, OpenMode::CreateOrOpen).memory(16_000_000).mode(mode).materialization(by_hand())
}

/// Keys all over the range, so that every compaction has to rewrite all of it.
fn write(stores: &mut [StateStore], round: u64, keys: std::ops::Range<u64>) {
    for n in keys {
        put_any(stores, &format!("key {n}"), &noise(round * 1_000_000 + n, 1000));
    }
}

/// Runs `work`, which may block, on a thread of its own; panics if it does not end.
fn unless_stuck<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(work()));
    match receiver.recv_timeout(STUCK) {
        Ok(done) => done,
        Err(RecvTimeoutError::Timeout) => panic!("{what} hangs"),
        Err(RecvTimeoutError::Disconnected) => panic!("{what} has panicked"),
    }
}

fn assert_says_full(error: &Error, dir: &Path) {
    assert_eq!(error.kind(), ErrorKind::Disk, "{error}");
    let text = error.to_string();
    assert!(text.contains("No space left"), "{text}");
    assert!(text.contains("free disk space"), "{text}");
    assert!(text.contains(dir.to_str().unwrap()), "{text}");
}

/// A compaction needs more room than there is, while the small files of one cut after the other
/// still find some.
#[test]
fn i6_a_compaction_that_finds_no_space_hangs_nobody_and_is_told() {
    for mode in [CheckpointMode::NativeIncremental, CheckpointMode::Changelog] {
        let Some(disk) = SmallDisk::mount(48) else { return };
        let (store, dir) = (Arc::new(InMemory::new()), disk.path().join("local"));
        let Opened { job, mut stores, .. } = open(&store, options(&dir, mode)).unwrap();
        // Less than the first level holds, or it would be compacted in small pieces.
        write(&mut stores, 0, 0..4_000);
        checkpoint(&job, &mut stores, "all").unwrap();
        job.settle(STUCK).unwrap();
        job.compact().unwrap();
        job.settle(STUCK).unwrap();
        job.health().unwrap();
        // Room for what the cuts write, not for a second copy of all.
        let ballast = disk.fill("ballast", 5 << 19);

        let (job, mut stores, refused) = unless_stuck("a cut", move || {
            for round in 1..200 {
                // Enough that RocksDB does not merge the small files among themselves.
                write(&mut stores, round, 0..80);
                let cut = checkpoint(&job, &mut stores, "some");
                if mode == CheckpointMode::Changelog {
                    job.materialize();
                    cut.unwrap();
                    // The base waits for room that is not made, but nobody else waits for it. What
                    // more is written fills the disk, and then the attempt ends.
                    let settled = job.settle(Duration::from_millis(500));
                    if settled.is_err() && job.health().is_err() {
                        return (job, stores, None);
                    }
                } else if let Err(error) = cut {
                    return (job, stores, Some(error));
                }
            }
            panic!("the disk is not full");
        });
        if let Some(error) = refused {
            assert_says_full(&error, &dir);
        }
        // RocksDB tries again by itself, and would succeed in what room its failed compaction has given
        // back. Without any it fails until the ballast is gone.
        let rest = disk.fill("the rest", 0);
        eventually("health tells of the disk", STUCK, || job.health().is_err());
        let health = job.health().unwrap_err();
        assert_says_full(&health, &dir);
        assert!(health.to_string().contains("it has failed for"), "{health}");
        assert_says_full(&stores[0].health().unwrap_err(), &dir);

        // With space it goes on by itself.
        fs::remove_file(rest).unwrap();
        fs::remove_file(ballast).unwrap();
        let expected = contents(&mut stores, "words");
        if mode == CheckpointMode::NativeIncremental {
            // A checkpoint that has failed stays in the job's health until one goes well.
            eventually("a checkpoint", STUCK, || checkpoint(&job, &mut stores, "with space").is_ok());
        }
        eventually("compaction goes on", STUCK, || job.health().is_ok());
        checkpoint(&job, &mut stores, "after").unwrap();
        drop((job, stores));
        let mut opened = open(&store, options(&dir, mode)).unwrap();
        assert!(contents(&mut opened.stores, "words") == expected, "{mode:?}");
        drop(opened);
    }
}

/// The disk is full of what earlier instances have left; the checkpoint needs some of it, and room
/// for more.
#[test]
fn i6_a_restore_on_a_disk_full_of_old_files_makes_its_room() {
    let Some(disk) = SmallDisk::mount(48) else { return };
    let (store, dir) = (Arc::new(InMemory::new()), disk.path().join("local"));
    let elsewhere = tempfile::tempdir().unwrap();
    let mode = CheckpointMode::Changelog;
    let expected = {
        let Opened { job, mut stores, .. } = open(&store, options(elsewhere.path(), mode)).unwrap();
        write(&mut stores, 0, 0..12_000);
        alluvium_testkit::drive::materialize(&job);
        checkpoint(&job, &mut stores, "all").unwrap();
        write(&mut stores, 1, 0..12_000);
        checkpoint(&job, &mut stores, "again").unwrap();
        alluvium_testkit::drive::materialize(&job);
        job.compact().unwrap();
        write(&mut stores, 2, 0..10);
        alluvium_testkit::drive::materialize(&job);
        checkpoint(&job, &mut stores, "once more").unwrap();
        contents(&mut stores, "words")
    };
    let left = dir.join("instances/00000-00112233445566778899aabbccddeeff/table");
    fs::create_dir_all(&left).unwrap();
    let mut n = 0;
    while fs::write(left.join(format!("{n:06}.sst")), vec![7; (1 << 20) + n]).is_ok() {
        n += 1;
    }
    for _ in 0..2 {
        let opened = open(&store, options(&dir, mode));
        let Opened { job, mut stores, .. } = opened.unwrap();
        assert!(contents(&mut stores, "words") == expected);
        drop((job, stores));
    }
}
