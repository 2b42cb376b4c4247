//! Requests that fail, hang, or are answered in part.

use super::*;

/// All uploads share the link.
fn carried_by(link: Link) -> impl FnMut(&Call) -> Fault {
    move |call| if matches!(call.op, Op::Put | Op::Part) { Fault::Carry(link.clone()) } else { Fault::Pass }
}

/// How many uploads in parts were given up.
fn aborted(store: &FaultStore) -> usize {
    store.calls().iter().filter(|call| call.op == Op::Abort).count()
}

#[tokio::test]
async fn i6_a_create_whose_connection_is_silent_is_sent_a_second_time() {
    // Whether the store has applied it or not; and if the second is silent as well, the first may
    // still be answered.
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
