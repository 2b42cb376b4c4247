//! The module as those above it see it, over stores in memory, on disk, and failing.

mod faults;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use object_store::ObjectStoreExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;

use super::*;
use crate::env::SeededNonces;
use crate::error::ErrorKind;
use crate::fault_store::{Answer, Call, Conditions, Fault, FaultStore, Link, Op};
use crate::ids::{Epoch, Nonce, SubtaskIndex, Version};

const MIB: usize = 1024 * 1024;

fn remote(store: Arc<dyn ObjectStore>) -> Remote {
    let env = Env { nonces: Arc::new(SeededNonces::new(7)), ..Env::default() };
    let retry = RetryPolicy {
        attempts: 3,
        first_pause: Duration::from_millis(1),
        max_pause: Duration::from_millis(4),
    };
    Remote::new(store, Path::from("jobs/one"), env).with_timeout(Duration::from_millis(500)).with_retry(retry)
}

fn faulty() -> (Arc<FaultStore>, Remote) {
    let store = FaultStore::new(InMemory::new());
    // A test waits this long for each request that hangs.
    let slowest = NonZeroU64::new(100 * MIB as u64).unwrap();
    let remote =
        remote(Arc::clone(&store) as _).with_timeout(Duration::from_millis(100)).with_slowest(slowest);
    (store, remote)
}

/// Every test that does not inject faults runs on all of these. `ALLUVIUM_TEST_STORE` may name one
/// more by its URL; its settings come from the environment.
fn stores() -> Vec<(Arc<dyn ObjectStore>, Option<tempfile::TempDir>)> {
    let dir = tempfile::tempdir().unwrap();
    let (local, _) = open_url(dir.path().to_str().unwrap(), [], false).unwrap();
    let mut stores: Vec<(Arc<dyn ObjectStore>, _)> =
        vec![(Arc::new(InMemory::new()), None), (local, Some(dir))];
    if let Ok(url) = std::env::var("ALLUVIUM_TEST_STORE") {
        let (store, root) = open_url(&url, [], false).unwrap();
        let own = root.join(Env::default().nonces.nonce().to_string());
        stores.push((Arc::new(PrefixStore::new(store, own)), None));
    }
    stores
}

fn data(n: u64) -> ObjectName {
    ObjectName::data(Epoch(1), SubtaskIndex(0), Nonce([9; 16]), DataKind::Delta, n)
}

fn noise(length: usize) -> Bytes {
    (0..length as u64 / 8 + 1).flat_map(|n| crate::env::splitmix64(n).to_le_bytes()).take(length).collect()
}

fn created(created: &Created) -> bool {
    matches!(created, Created::Created)
}

#[tokio::test]
async fn an_object_is_created_once_and_reads_back() {
    for (store, _dir) in stores() {
        let remote = remote(store);
        let name = ObjectName::manifest(Version(1));
        assert!(remote.get_optional(&name).await.unwrap().is_none());
        let missing = remote.get(&name).await.unwrap_err();
        assert_eq!(
            (missing.kind(), missing.object_name()),
            (ErrorKind::MissingObject, Some(name.to_string().as_str()))
        );

        assert!(created(&remote.create(&name, Bytes::from_static(b"first")).await));
        assert!(matches!(remote.create(&name, Bytes::from_static(b"second")).await, Created::Exists));
        assert_eq!(remote.get(&name).await.unwrap(), "first");
        assert_eq!(remote.get_range(&name, 1..3).await.unwrap(), "ir");
        assert_eq!(remote.get_range(&name, 5..5).await.unwrap(), "");
    }
}

#[tokio::test]
async fn an_empty_object_is_an_object() {
    for (store, _dir) in stores() {
        let remote = remote(store);
        remote.put_data(&data(1), Bytes::new()).await.unwrap();
        remote.put_data(&data(1), Bytes::new()).await.unwrap();
        assert_eq!(remote.get(&data(1)).await.unwrap(), "");
    }
}

#[tokio::test]
async fn a_reference_behind_the_end_is_corrupt() {
    for (store, _dir) in stores() {
        let remote = remote(store);
        remote.put_data(&data(1), noise(100)).await.unwrap();
        for range in [90..101, 100..101, 5000..5001] {
            let error = remote.get_range(&data(1), range).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.to_string().contains("100 bytes"), "{error}");
            assert_eq!(error.object_name(), Some(data(1).to_string().as_str()));
        }
        let error = remote.get_range(&data(2), 0..1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MissingObject, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_16_racing_creators_one_wins() {
    for (store, _dir) in stores() {
        let remote = Arc::new(remote(store).with_timeout(Duration::from_secs(20)));
        for round in 1..=10 {
            let name = ObjectName::manifest(Version(round));
            let racers = (0..16).map(|who| {
                let (remote, name) = (Arc::clone(&remote), name.clone());
                tokio::spawn(async move { remote.create(&name, Bytes::from(format!("racer {who}"))).await })
            });
            let results: Vec<Created> = join_all(racers).await.into_iter().map(Result::unwrap).collect();
            let winners: Vec<usize> = (0..16).filter(|&who| created(&results[who])).collect();
            assert_eq!(winners.len(), 1, "{results:?}");
            assert_eq!(remote.get(&name).await.unwrap(), format!("racer {}", winners[0]));
        }
    }
}

#[tokio::test]
async fn listings_are_relative_sorted_and_within_the_prefix() {
    for (store, _dir) in stores() {
        let remote = remote(Arc::clone(&store));
        assert_eq!(remote.list("").await.unwrap(), []);
        assert_eq!(remote.list_top().await.unwrap(), Vec::<String>::new());
        for version in [10, 2, 1] {
            remote.create(&ObjectName::manifest(Version(version)), noise(version as usize)).await;
        }
        remote.put_data(&data(1), noise(3)).await.unwrap();
        // Neighbours whose names begin like ours.
        for other in ["jobs/one2/x", "jobs/on", "jobs/one/manifest2/x", "jobs/one/notes.txt"] {
            store.put(&Path::from(other), "other".into()).await.unwrap();
        }
        let manifests: Vec<(String, u64)> =
            remote.list(ObjectName::MANIFESTS).await.unwrap().into_iter().map(|l| (l.name, l.size)).collect();
        let expected = [1, 2, 10].map(|v| (ObjectName::manifest(Version(v)).to_string(), v));
        assert_eq!(manifests, expected);
        assert_eq!(remote.list("").await.unwrap().len(), 6);
        assert_eq!(remote.list(ObjectName::PINS).await.unwrap(), []);
        assert_eq!(remote.list_top().await.unwrap(), ["data", "manifest", "manifest2", "notes.txt"]);
    }
}

#[tokio::test]
async fn a_job_may_own_the_whole_store() {
    for (store, _dir) in stores() {
        let remote = Remote::new(store, Path::ROOT, Env::default());
        remote.put_data(&data(1), noise(3)).await.unwrap();
        assert_eq!(remote.list("").await.unwrap()[0].name, data(1).to_string().as_str());
        assert_eq!(remote.list_top().await.unwrap(), ["data"]);
    }
}

#[tokio::test]
async fn deleting_ignores_what_is_gone() {
    for (store, _dir) in stores() {
        let remote = remote(store);
        for n in 0..30 {
            remote.put_data(&data(n), noise(1)).await.unwrap();
        }
        let deleted = remote.delete((10..50).map(data).collect()).await.unwrap();
        // A store in memory, like S3, does not tell which of them existed.
        assert!(deleted == 20 || deleted == 40, "{deleted}");
        assert_eq!(remote.list(ObjectName::DATA).await.unwrap().len(), 10);
        assert_eq!(remote.delete(Vec::new()).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn files_go_up_and_come_down_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    for (store, _dir) in stores() {
        let remote = remote(store).with_timeout(Duration::from_secs(20));
        for (n, length) in [0, 1, 8 * MIB, 8 * MIB + 1, 27 * MIB + 5].into_iter().enumerate() {
            let (name, content) = (data(n as u64), noise(length));
            let (up, down) = (dir.path().join("up"), dir.path().join("down"));
            std::fs::write(&up, &content).unwrap();
            let before = remote.counters();
            remote.put_file(&name, &up, length as u64, None, 3, 1).await.unwrap();
            let put = remote.counters() - before;
            assert_eq!(put.put_bytes, length as u64);
            let parts = length.div_ceil(8 * MIB) as u64;
            assert_eq!(put.puts, if length <= 8 * MIB { 1 } else { parts + 2 });

            let (got, hash) = remote.get_to_file(&name, None, &down).await.unwrap();
            assert_eq!((got, hash), (length as u64, blake3::hash(&content)));
            assert!(std::fs::read(&down).unwrap() == content);

            if length > 100 {
                let (got, hash) = remote.get_to_file(&name, Some(17..99), &down).await.unwrap();
                assert_eq!((got, hash), (82, blake3::hash(&content[17..99])));
                assert!(std::fs::read(&down).unwrap() == content[17..99]);
            }
        }
        let error = remote.get_to_file(&data(99), None, &dir.path().join("none")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MissingObject);
        assert!(!dir.path().join("none").exists(), "a failed download leaves no file");
    }
}

#[test]
fn operations_can_be_spawned() {
    fn spawnable<T: Send>(_: T) {}
    let (remote, name) = (remote(Arc::new(InMemory::new())), data(1));
    let limiter = BaseTraffic::new(Some(NonZeroU64::MIN));
    let path = std::path::Path::new("f");
    spawnable(remote.probe(Version(1)));
    spawnable(remote.create(&name, Bytes::new()));
    spawnable(remote.put_data(&name, Bytes::new()));
    spawnable(remote.put_file(&name, path, 1, Some(&limiter), 1, 1));
    spawnable(remote.get(&name));
    spawnable(remote.get_range(&name, 0..1));
    spawnable(remote.get_to_file(&name, None, path));
    spawnable(remote.list(""));
    spawnable(remote.list_top());
    spawnable(remote.delete(Vec::new()));
}

#[tokio::test]
async fn a_download_never_writes_into_an_older_file() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    std::fs::write(&file, "old").unwrap();
    std::fs::hard_link(&file, &link).unwrap();
    let remote = remote(Arc::new(InMemory::new()));
    remote.put_data(&data(1), Bytes::from_static(b"new content")).await.unwrap();
    remote.get_to_file(&data(1), None, &file).await.unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), b"new content");
    assert_eq!(std::fs::read(&link).unwrap(), b"old");
}

#[tokio::test]
async fn a_file_shorter_than_said_is_not_uploaded() {
    let dir = tempfile::tempdir().unwrap();
    let remote = remote(Arc::new(InMemory::new()));
    let file = dir.path().join("f");
    std::fs::write(&file, noise(9 * MIB)).unwrap();
    for length in [9 * MIB as u64 + 1, 20 * MIB as u64] {
        let error = remote.put_file(&data(1), &file, length, None, 2, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Disk, "{error}");
    }
    let error = remote.put_file(&data(1), &dir.path().join("absent"), 1, None, 2, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disk, "{error}");
    assert_eq!(remote.list("").await.unwrap(), []);
}

#[tokio::test]
async fn an_upload_keeps_to_its_rate() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    std::fs::write(&file, noise(24 * MIB)).unwrap();
    let remote = remote(Arc::new(InMemory::new())).with_timeout(Duration::from_secs(20));
    let limiter = BaseTraffic::new(NonZeroU64::new(80 * MIB as u64));
    let start = tokio::time::Instant::now();
    remote.put_file(&data(1), &file, 24 * MIB as u64, Some(&limiter), 4, 1).await.unwrap();
    // The first part passes at once, the other two wait 100 ms each.
    assert!(start.elapsed() >= Duration::from_millis(195), "{:?}", start.elapsed());
}

#[tokio::test]
async fn data_under_our_name_with_other_content_is_corrupt() {
    let remote = remote(Arc::new(InMemory::new()));
    remote.put_data(&data(1), noise(10)).await.unwrap();
    for other in [noise(9), noise(11), Bytes::from_static(b"0123456789")] {
        let error = remote.put_data(&data(1), other).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.object_name()),
            (ErrorKind::Corrupt, Some(data(1).to_string().as_str())),
            "{error}"
        );
    }
    assert_eq!(remote.get(&data(1)).await.unwrap(), noise(10), "it was not overwritten");
}

#[tokio::test]
async fn the_probe_passes_honest_stores_and_leaves_nothing() {
    for (store, _dir) in stores() {
        let remote = remote(store);
        remote.probe(Version(1)).await.unwrap();
        assert_eq!(remote.list("").await.unwrap(), []);
    }
    let never_applied = [Fault::Fail, Fault::Hang, Fault::Late, Fault::LateUnanswered];
    for fault in never_applied.into_iter().chain([Answer::Lost.into(), Answer::Never.into()]) {
        // The last create of the probe is the one whose verdict counts.
        for skip in [0, 4] {
            let (store, remote) = faulty();
            for _ in 0..=skip {
                store.plan(Op::Put, fault.clone());
            }
            remote.probe(Version(1)).await.unwrap();
            assert_eq!(remote.list("").await.unwrap(), [], "{fault:?}");
        }
    }
}

#[tokio::test]
async fn the_probe_refuses_stores_that_lie() {
    for conditions in [Conditions::Ignored, Conditions::Racy, Conditions::Lying] {
        let (store, remote) = faulty();
        store.set_conditions(conditions);
        let error = remote.probe(Version(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsafeStore, "{conditions:?}: {error}");
        assert!(error.to_string().contains("conditional"), "{error}");
        assert_eq!(remote.list("").await.unwrap(), [], "nothing is left behind");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_disk_in_the_way_is_told_apart_from_an_outage() {
    let dir = tempfile::tempdir().unwrap();
    // The folder for data is a file. (A full disk and missing permissions go the same way, but
    // cannot be had by a test that runs as root.)
    std::fs::create_dir_all(dir.path().join("jobs/one")).unwrap();
    std::fs::write(dir.path().join("jobs/one/data"), "in the way").unwrap();
    let remote = remote(Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap()));
    let error = remote.put_data(&data(1), noise(5)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disk, "{error}");
    assert_eq!(remote.counters().retries, 0);
}
