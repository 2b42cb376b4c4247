//! The module as those above it see it, over stores in memory, on disk, and failing.

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

/// All uploads share the link.
fn carried_by(link: Link) -> impl FnMut(&Call) -> Fault {
    move |call| if matches!(call.op, Op::Put | Op::Part) { Fault::Carry(link.clone()) } else { Fault::Pass }
}

/// How many uploads in parts were given up.
fn aborted(store: &FaultStore) -> usize {
    store.calls().iter().filter(|call| call.op == Op::Abort).count()
}

/// Every test that does not inject faults runs on all of these. `ALLUVIUM_TEST_STORE` may name one more
/// by its URL; its settings come from the environment.
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
    let limiter = RateLimiter::new(NonZeroU64::MIN);
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
async fn i6_a_create_whose_connection_is_silent_is_sent_a_second_time() {
    // Whether the store has applied it or not; and if the second is silent as well, the first may still be answered.
    for fault in [Fault::Hang, Answer::Never.into()] {
        let (store, remote) = faulty();
        let once = RetryPolicy { attempts: 1, ..remote.retry_policy() };
        let remote = remote.with_timeout(Duration::from_secs(20)).with_retry(once);
        let remote = remote.with_hedge_after(Duration::from_millis(1));
        store.plan(Op::Put, fault.clone());
        remote.put_data(&data(1), noise(MIB)).await.unwrap();
        assert_eq!(store.planned(), 0);
        let cost = remote.counters();
        assert_eq!((cost.puts, cost.retries, cost.failures), (2, 1, 0), "{fault:?}");
        assert_eq!(remote.get(&data(1)).await.unwrap(), noise(MIB));
    }
    // Where one of the two fails the other counts, whichever comes first.
    for faults in [[Answer::Whole.into(), Fault::Fail], [Answer::Lost.into(), Answer::Whole.into()]] {
        let (store, remote) = faulty();
        let once = RetryPolicy { attempts: 1, ..remote.retry_policy() };
        let remote = remote.with_timeout(Duration::from_secs(20)).with_retry(once);
        let remote = remote.with_hedge_after(Duration::from_millis(1));
        // The first takes a quarter of a second, so that the second is sent.
        store.rule(carried_by(Link::new(4 * MIB as u32)));
        faults.iter().for_each(|fault| store.plan(Op::Put, fault.clone()));
        remote.put_data(&data(1), noise(MIB)).await.unwrap();
        assert_eq!((store.planned(), remote.counters().puts), (0, 2), "{faults:?}");
        assert_eq!(remote.get(&data(1)).await.unwrap(), noise(MIB));
    }
    // The chain's creates are never sent twice by themselves: a doubt is a doubt.
    let (store, remote) = faulty();
    let remote = remote.with_hedge_after(Duration::ZERO);
    store.plan(Op::Put, Fault::Hang);
    let name = ObjectName::manifest(Version(1));
    assert!(matches!(remote.create(&name, Bytes::from_static(b"x")).await, Created::Doubt(_)));
    assert_eq!(remote.counters().puts, 1);
}

#[test]
fn i6_a_create_of_the_chain_is_in_doubt_as_soon_as_others_show_that_it_hangs() {
    let remote = remote(Arc::new(InMemory::new())).with_timeout(Duration::from_secs(600));
    let limit = remote.limit(1000);
    (0..3).for_each(|_| remote.pace.came_through(1000, Duration::from_millis(30)));
    assert!(remote.limit_by_pace(1000, limit) < Duration::from_secs(11));
    let short = Duration::from_secs(2);
    assert_eq!(remote.limit_by_pace(1000, short), short, "never later than without them");
}

#[tokio::test]
async fn i6_a_body_that_stands_still_is_given_up_and_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (store, remote) = faulty();
    let content = noise(MIB);
    remote.put_data(&data(1), content.clone()).await.unwrap();
    // The whole body might take weeks; only that nothing comes tells that it hangs.
    let remote = remote.with_slowest(NonZeroU64::MIN).with_timeout(Duration::from_millis(50));
    let path = dir.path().join("f");
    (0..2).for_each(|_| store.plan(Op::Get, Answer::Stall));
    let before = remote.counters();
    let (length, hash) = remote.get_to_file(&data(1), None, &path).await.unwrap();
    assert_eq!((length, hash), (content.len() as u64, blake3::hash(&content)));
    let cost = remote.counters() - before;
    assert_eq!((cost.gets, cost.get_bytes), (3, content.len() as u64), "no byte comes twice");
    // However long a request may take.
    let patient = remote.with_timeout(Duration::from_secs(600));
    assert_eq!(patient.stall(), Duration::from_secs(10));
}

#[tokio::test]
async fn i6_a_slow_link_is_not_filled_with_second_copies() {
    let (store, remote) = faulty();
    let once = RetryPolicy { attempts: 1, ..remote.retry_policy() };
    let remote = remote.with_timeout(Duration::from_secs(2)).with_retry(once);
    let remote = remote.with_hedge_after(Duration::from_millis(1));
    // All of them hang, and so would all their second copies.
    (0..12).for_each(|_| store.plan(Op::Put, Fault::Hang));
    let names: Vec<_> = (0..6).map(data).collect();
    let puts = names.iter().map(|name| remote.put_data(name, noise(10)));
    assert!(futures::future::join_all(puts).await.iter().all(Result::is_err));
    assert!(remote.counters().puts <= 6 + 2, "{:?}", remote.counters());
}

#[tokio::test]
async fn i6_a_download_that_breaks_off_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (store, remote) = faulty();
    let content = noise(4 * MIB);
    remote.put_data(&data(1), content.clone()).await.unwrap();
    // More often than a request is repeated, and each time half of what is left comes through.
    for answer in [Answer::Cut, Answer::Short, Answer::Cut] {
        store.plan(Op::Get, answer);
    }
    store.plan(Op::Get, Fault::Fail);
    for answer in [Answer::Cut, Answer::Short, Answer::Cut] {
        store.plan(Op::Get, answer);
    }
    let before = remote.counters();
    let path = dir.path().join("f");
    let (length, hash) = remote.get_to_file(&data(1), None, &path).await.unwrap();
    assert_eq!((length, hash), (content.len() as u64, blake3::hash(&content)));
    assert!(std::fs::read(&path).unwrap() == content);
    let cost = remote.counters() - before;
    assert_eq!((cost.gets, cost.get_bytes), (8, content.len() as u64), "no byte comes twice");

    // The same for a part; and a body that is too long is no reason to believe any of it.
    store.plan(Op::Get, Answer::Cut);
    let (length, hash) = remote.get_to_file(&data(1), Some(100..1000), &path).await.unwrap();
    assert_eq!((length, hash), (900, blake3::hash(&content[100..1000])));
    store.plan(Op::Get, Answer::Long);
    let (length, hash) = remote.get_to_file(&data(1), None, &path).await.unwrap();
    assert_eq!((length, hash), (content.len() as u64, blake3::hash(&content)));
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
    let limiter = RateLimiter::new(NonZeroU64::new(80 * MIB as u64).unwrap());
    let start = tokio::time::Instant::now();
    remote.put_file(&data(1), &file, 24 * MIB as u64, Some(&limiter), 4, 1).await.unwrap();
    // The first part passes at once, the other two wait 100 ms each.
    assert!(start.elapsed() >= Duration::from_millis(195), "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_upload_that_is_dropped_half_way_is_aborted() {
    let (store, remote) = faulty();
    let remote = remote.with_timeout(Duration::from_secs(60));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    let length = 9 * MIB;
    std::fs::write(&file, vec![0; length]).unwrap();
    store.plan(Op::Part, Fault::Hang);
    let name = data(1);
    let put = remote.put_file(&name, &file, length as u64, None, 2, 1);
    tokio::time::timeout(Duration::from_millis(300), put).await.unwrap_err();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!((store.planned(), aborted(&store)), (0, 1));
    remote.put_file(&name, &file, length as u64, None, 2, 1).await.unwrap();
    assert_eq!(aborted(&store), 1, "one that ends well is not");
}

#[tokio::test]
async fn i6_files_that_share_a_slow_link_arrive_at_the_first_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, noise(32 * MIB)).unwrap();
    let rate = 20 * MIB as u32;
    let (store, remote) = faulty();
    store.rule(carried_by(Link::new(rate)));
    let remote = remote.with_slowest(NonZeroU64::new(rate.into()).unwrap());
    // Each takes 0.4 s; one that is alone has 150 ms, one of 16 has 900 ms.
    let names: Vec<_> = (0..8).map(data).collect();
    let puts = names.iter().map(|name| remote.put_file(name, &file, MIB as u64, None, 1, 16));
    futures::future::try_join_all(puts).await.unwrap();
    assert_eq!(remote.counters().failures, 0);
    // Four parts of 8 MiB, each takes 1.6 s; one that is alone has 0.5 s.
    remote.put_file(&data(100), &file, 32 * MIB as u64, None, 4, 16).await.unwrap();
    assert_eq!(remote.counters().failures, 0);
    // A connection that hangs is noticed all the same.
    store.plan(Op::Put, Fault::Hang);
    remote.put_file(&data(200), &file, MIB as u64, None, 1, 16).await.unwrap();
    assert_eq!((store.planned(), remote.counters().failures), (0, 1));
}

#[tokio::test]
async fn a_body_in_chunks_takes_no_more_memory_than_it_has_bytes_and_has_its_length() {
    let (store, remote) = faulty();
    let (name, content) = (data(1), noise(100_000));
    remote.put_data(&name, content.clone()).await.unwrap();
    store.plan(Op::Get, Answer::Chunks);
    let bytes = remote.get(&name).await.unwrap();
    assert_eq!(bytes, content);
    assert_eq!(bytes.try_into_mut().unwrap().capacity(), content.len());
    for fault in [Answer::Short, Answer::Long] {
        (0..3).for_each(|_| store.plan(Op::Get, fault.clone()));
        let error = remote.get(&name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{error}");
        assert_eq!(error.object_name(), Some(name.to_string().as_str()));
    }
    assert_eq!((store.planned(), remote.counters().failures), (0, 6));
}

#[tokio::test]
async fn i6_data_survives_every_single_fault() {
    let (dir, content) = (tempfile::tempdir().unwrap(), noise(17 * MIB));
    let (up, down) = (dir.path().join("up"), dir.path().join("down"));
    std::fs::write(&up, &content).unwrap();
    let faults = [Fault::Fail, Answer::Lost.into(), Fault::Hang, Answer::Never.into()];
    for fault in faults {
        let (store, remote) = faulty();
        store.plan(Op::Put, fault.clone());
        remote.put_data(&data(1), Bytes::from_static(b"small")).await.unwrap();
        for op in [Op::Begin, Op::Part, Op::Complete] {
            store.plan(op, fault.clone());
            remote.put_file(&data(2), &up, content.len() as u64, None, 2, 1).await.unwrap();
        }
        for fault in [fault.clone(), Answer::Cut.into(), Answer::Stall.into()] {
            store.plan(Op::List, fault.clone());
            let listed = remote.list(ObjectName::DATA).await.unwrap();
            assert_eq!(listed.len(), 2, "a broken listing is not a short one");
            store.plan(Op::List, fault);
            assert_eq!(remote.list_top().await.unwrap(), ["data"]);
        }
        let bodies = [Answer::Cut, Answer::Short, Answer::Long, Answer::Chunks].map(Fault::from);
        for fault in bodies.into_iter().chain([fault.clone()]) {
            store.plan(Op::Get, fault.clone());
            assert_eq!(remote.get(&data(1)).await.unwrap(), "small");
            store.plan(Op::Get, fault.clone());
            assert_eq!(remote.get_range(&data(1), 1..4).await.unwrap(), "mal");
            store.plan(Op::Get, fault);
            let (length, hash) = remote.get_to_file(&data(2), None, &down).await.unwrap();
            assert_eq!((length, hash), (content.len() as u64, blake3::hash(&content)));
        }
        store.plan(Op::Delete, fault);
        remote.delete(vec![data(1), data(2)]).await.unwrap();
        assert_eq!(remote.list("").await.unwrap(), []);
        assert_eq!(store.planned(), 0, "all faults have happened");
        let counted = remote.counters();
        assert!(counted.failures >= 10 && counted.retries >= 10, "{counted:?}");
    }
}

#[tokio::test]
async fn a_create_in_doubt_says_so_and_is_tried_once() {
    let never_applied = [Fault::Fail, Fault::Hang, Fault::Late, Fault::LateUnanswered, Fault::Denied];
    for fault in never_applied.into_iter().chain([Answer::Lost.into(), Answer::Never.into()]) {
        let (store, remote) = faulty();
        let name = ObjectName::manifest(Version(1));
        store.plan(Op::Put, fault.clone());
        let Created::Doubt(error) = remote.create(&name, Bytes::from_static(b"x")).await else {
            panic!("{fault:?}");
        };
        assert_eq!(
            (error.kind(), error.object_name()),
            (ErrorKind::StoreUnavailable, Some(name.to_string().as_str()))
        );
        assert_eq!((remote.counters().puts, remote.counters().retries), (1, 0));
        let applied = matches!(fault, Fault::Answer(_));
        assert_eq!(remote.get_optional(&name).await.unwrap().is_some(), applied, "{fault:?}");
        if matches!(fault, Fault::Late | Fault::LateUnanswered) {
            assert_eq!(store.deliver().await, 1);
            assert_eq!(remote.get(&name).await.unwrap(), "x");
        }
    }
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
async fn an_outage_ends_in_an_error_and_heals() {
    let (store, remote) = faulty();
    store.set_outage(true);
    let name = data(1);
    let errors = [
        remote.put_data(&name, noise(5)).await.unwrap_err(),
        remote.get(&name).await.unwrap_err(),
        remote.get_range(&name, 0..1).await.unwrap_err(),
        remote.list(ObjectName::DATA).await.unwrap_err(),
        remote.list_top().await.unwrap_err(),
        remote.delete(vec![name.clone()]).await.unwrap_err(),
        remote.probe(Version(1)).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::StoreUnavailable, "{error}");
    }
    store.set_outage(false);
    remote.put_data(&name, noise(5)).await.unwrap();
    assert_eq!(remote.get(&name).await.unwrap(), noise(5));
}

#[tokio::test]
async fn no_permission_is_not_tried_again() {
    let (store, remote) = faulty();
    for _ in 0..5 {
        store.plan(Op::Put, Fault::Denied);
        store.plan(Op::Get, Fault::Denied);
    }
    let error = remote.put_data(&data(1), noise(5)).await.unwrap_err();
    assert!(error.to_string().contains("credentials"), "{error}");
    assert_eq!(remote.get(&data(1)).await.unwrap_err().kind(), ErrorKind::StoreUnavailable);
    assert_eq!((remote.counters().puts, remote.counters().gets), (1, 1));
    assert_eq!(remote.probe(Version(1)).await.unwrap_err().kind(), ErrorKind::StoreUnavailable);
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
    // The folder for data is a file. (A full disk and missing permissions go the same way, but cannot be
    // had by a test that runs as root.)
    std::fs::create_dir_all(dir.path().join("jobs/one")).unwrap();
    std::fs::write(dir.path().join("jobs/one/data"), "in the way").unwrap();
    let remote = remote(Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap()));
    let error = remote.put_data(&data(1), noise(5)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disk, "{error}");
    assert_eq!(remote.counters().retries, 0);
}
