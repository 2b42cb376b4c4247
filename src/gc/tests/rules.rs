//! What a collection deletes, and what it leaves alone.

use super::*;

#[tokio::test]
async fn a_commit_that_drops_frees_what_it_alone_kept() {
    let remote = Scripted::new().remote(1);
    let mut job = Job::open(Arc::clone(&remote), |_| 0).await;
    for _ in 0..2 {
        job.cut();
        job.persist().await;
        assert!(job.commit(1).await);
    }
    // The first manifest is dropped; its delta is still part of the second.
    assert_eq!(job.collect().await, [ObjectName::manifest(Version(2)).to_string()]);
    job.pack().await;
    assert!(job.commit(1).await);
    let gone = job.collect().await;
    assert_eq!(gone[0], ObjectName::manifest(Version(3)).to_string(), "manifests first");
    assert_eq!(gone.len(), 3, "{gone:?}");
    check_live(&remote, &[]).await;
    assert!(job.sweep().await.is_empty());
}

#[tokio::test]
async fn i3_a_manifest_lives_as_long_as_states_are_described_in_it() {
    let store = Scripted::new();
    let remote = store.remote(1);
    let mut job = Job::open(Arc::clone(&remote), |_| 0).await;
    let there =
        async |version| objects(&remote).await.contains(&ObjectName::manifest(Version(version)).to_string());
    job.describe(1);
    for _ in 0..4 {
        job.commit(1).await;
        job.collect().await;
    }
    assert!(there(2).await && !there(3).await && !there(4).await, "all refer to the first");
    check_live(&remote, &[]).await;
    // The same again is nothing new; another one is carried anew.
    job.describe(1);
    job.commit(1).await;
    job.collect().await;
    assert!(there(2).await);
    job.describe(2);
    job.commit(1).await;
    job.collect().await;
    assert!(!there(2).await && there(7).await);

    // The next attempt describes them anew, and the last one's go.
    let mut next = Job::open(store.remote(2), |_| 0).await;
    next.describe(2);
    next.commit(1).await;
    next.collect().await;
    next.sweep().await;
    assert!(!there(7).await && there(9).await);
    check_live(&remote, &[]).await;
}

#[tokio::test]
async fn a_manifest_lives_as_long_as_it_carries() {
    let remote = Scripted::new().remote(1);
    let mut job = Job::open(Arc::clone(&remote), |_| 0).await;
    for _ in 0..3 {
        job.cut();
        assert!(job.commit(1).await);
        assert!(job.collect().await.is_empty(), "each manifest carries a delta that is needed");
        check_live(&remote, &[]).await;
    }
    job.pack().await;
    assert!(job.commit(1).await);
    assert_eq!(job.collect().await.len(), 3);
    check_live(&remote, &[]).await;
}

#[tokio::test]
async fn orphans_of_an_earlier_attempt_go_and_those_in_flight_stay() {
    let store = Scripted::new();
    let mut first = Job::open(store.remote(1), |_| 0).await;
    first.cut();
    assert!(first.commit(1).await);
    let orphan = first.put(DataKind::Sst).await;
    assert!(first.sweep().await.is_empty(), "it may be on its way into a checkpoint");

    let remote = store.remote(2);
    let mut second = Job::open(Arc::clone(&remote), |_| 0).await;
    let in_flight = second.put(DataKind::Sst).await;
    let roots = second.chain.roots();
    let dry = done(second.collector.sweep(&remote, &roots, true).await.unwrap());
    assert_eq!((dry.deleted, dry.in_flight), (vec![orphan.to_string()], 1));
    assert!(objects(&remote).await.contains(orphan.to_string().as_str()), "a dry run deletes nothing");
    assert_eq!(second.sweep().await, [orphan.to_string()]);
    assert!(objects(&remote).await.contains(in_flight.to_string().as_str()));
    check_live(&remote, &[]).await;
}

#[tokio::test]
async fn someone_from_outside_can_sweep() {
    let store = Scripted::new();
    let remote = store.remote(1);
    assert!(Roots::read(&remote).await.unwrap().is_none());
    let mut job = Job::open(Arc::clone(&remote), |_| 0).await;
    let orphan = job.put(DataKind::Delta).await;
    for _ in 0..3 {
        job.cut();
        job.persist().await;
        assert!(job.commit(1).await);
    }
    Job::open(store.remote(2), |_| 0).await;
    let outside = store.remote(3);
    let roots = Roots::read(&outside).await.unwrap().unwrap();
    assert_eq!(roots.epoch, Epoch(5));
    let report = done(Collector::new().sweep(&outside, &roots, false).await.unwrap());
    let gone = [ObjectName::manifest(Version(2)), ObjectName::manifest(Version(3)), orphan];
    assert_eq!(report.deleted, gone.map(|name| name.to_string()));
    let chain: Vec<_> = list_chain(&outside).await.unwrap().iter().map(|entry| entry.version.0).collect();
    assert_eq!(chain, [1, 4, 5]);
    check_live(&outside, &[]).await;
}

#[tokio::test]
async fn i3_nothing_goes_while_it_is_not_known_what_is_needed() {
    let store = Scripted::new();
    let remote = store.remote(1);
    let mut job = Job::open(Arc::clone(&remote), |_| 0).await;
    for _ in 0..3 {
        job.cut();
        job.persist().await;
        assert!(job.commit(2).await);
    }
    let damaged = ObjectName::manifest(Version(3));
    let whole = remote.get(&damaged).await.unwrap();
    remote.delete(vec![damaged.clone()]).await.unwrap();
    remote.put_data(&damaged, Bytes::from_static(b"?")).await.unwrap();
    let before = objects(&remote).await;
    let roots = Roots::read(&remote).await.unwrap().unwrap();
    let error = Collector::new().sweep(&remote, &roots, false).await.unwrap_err();
    assert_eq!((error.kind(), error.object_name()), (ErrorKind::Corrupt, Some(damaged.to_string().as_str())));
    assert_eq!(objects(&remote).await, before);

    remote.delete(vec![damaged.clone()]).await.unwrap();
    remote.put_data(&damaged, whole).await.unwrap();
    let pin = ObjectName::pin(nonce(1));
    remote.put_data(&pin, Bytes::from_static(b"mine")).await.unwrap();
    let roots = Roots::read(&remote).await.unwrap().unwrap();
    let error = Collector::new().sweep(&remote, &roots, false).await.unwrap_err();
    assert_eq!((error.kind(), error.object_name()), (ErrorKind::Corrupt, Some(pin.to_string().as_str())));
    remote.delete(vec![pin]).await.unwrap();
    assert_eq!(job.sweep().await.len(), 1);
}

#[tokio::test]
async fn a_damaged_manifest_that_nothing_needs_does_not_keep_the_others() {
    for damage in [&b"?"[..], &[0xff; 64]] {
        let store = Scripted::new();
        let mut first = Job::open(store.remote(1), |_| 0).await;
        for _ in 0..4 {
            first.cut();
            first.persist().await;
            first.pack().await;
            assert!(first.commit(1).await);
        }
        let damaged = ObjectName::manifest(Version(3));
        first.remote.delete(vec![damaged.clone()]).await.unwrap();
        first.remote.put_data(&damaged, Bytes::from_static(damage)).await.unwrap();

        let remote = store.remote(2);
        let mut second = Job::open(Arc::clone(&remote), |_| 0).await;
        let gone = second.sweep().await;
        let manifests = [2, 4].map(|version| ObjectName::manifest(Version(version)).to_string());
        assert!(gone.starts_with(&manifests) && gone.len() > 2, "{gone:?}");
        assert!(objects(&remote).await.contains(damaged.to_string().as_str()), "it may be an open record");
        check_live(&remote, &[]).await;
    }
}

/// Open records are for ever, but not every attempt reads them all.
#[tokio::test]
async fn a_sweep_costs_the_same_however_many_starts_there_were() {
    let store = Scripted::new();
    let gets = async |seed: u64, commit: bool| {
        let mut job = Job::open(store.remote(seed), |_| usize::MAX).await;
        if !commit {
            return 0;
        }
        job.cut();
        assert!(job.commit(1).await);
        let before = job.remote.counters().gets;
        job.sweep().await;
        job.remote.counters().gets - before
    };
    let mut most = 0;
    for seed in 0..200 {
        most = most.max(gets(seed, true).await);
    }
    assert!(most < 20, "{most} reads in a sweep after 200 starts");
    // Starts that come to nothing are looked at once.
    for seed in 200..400 {
        gets(seed, false).await;
    }
    assert!(gets(400, true).await > 200);
    let after = gets(401, true).await;
    assert!(after < 20, "{after} reads in a sweep after 400 starts");
    let memos = store.remote(402).list(ObjectName::OPENED).await.unwrap();
    assert!(memos.len() <= 2, "{memos:?}");

    // A damaged one costs time, and nothing else.
    let name = ObjectName::try_from(memos.last().unwrap().name.as_str()).unwrap();
    let remote = store.remote(403);
    remote.delete(vec![name.clone()]).await.unwrap();
    remote.put_data(&name, Bytes::from_static(b"ALVO?")).await.unwrap();
    assert!(gets(404, true).await > 400);
    assert!(gets(405, true).await < 20);
    let opens = async || {
        let chain = list_chain(&remote).await.unwrap();
        let mut opens = 0;
        for entry in chain {
            let (manifest, _) = read_manifest(&remote, entry.version).await.unwrap();
            opens += usize::from(manifest.checkpoint().is_none());
        }
        opens
    };
    assert_eq!(opens().await, 404, "I2: open records are never deleted");
}

#[tokio::test]
async fn what_openers_have_left_goes() {
    let store = Scripted::new();
    let mut first = Job::open(store.remote(1), |_| 0).await;
    first.cut();
    assert!(first.commit(1).await);
    let mut second = Job::open(store.remote(2), |_| 0).await;
    let remote = Arc::clone(&second.remote);
    // Of attempts that have opened or come to nothing; of one that is about to open; of an unknown one.
    for (wanted, byte) in [(1, 1), (2, 2), (3, 3), (4, 4), (0, 5)] {
        let name = ObjectName::probe(Version(wanted), nonce(byte));
        remote.put_data(&name, Bytes::from_static(b"x")).await.unwrap();
    }
    assert_eq!(second.sweep().await.len(), 3);
    let left: Vec<_> = remote.list(ObjectName::PROBES).await.unwrap();
    assert_eq!(left.len(), 2, "{left:?}");
}

/// A store that keeps what it has by its own rules is not asked for all of it again after each commit.
#[tokio::test]
async fn a_store_that_refuses_is_asked_for_one_object_until_it_gives_way() {
    let faulty = FaultStore::new(InMemory::new());
    let remote = Remote::new(Arc::clone(&faulty) as _, "job".into(), Env::default());
    let mut job = Job::open(Arc::new(remote), |_| 0).await;
    let mut asked = Vec::new();
    for round in 0..8 {
        job.cut();
        job.persist().await;
        job.pack().await;
        assert!(job.commit(1).await);
        let refuses = round < 7;
        faulty.rule(move |call| match call.op {
            Op::Delete if refuses => Fault::Denied,
            _ => Fault::Pass,
        });
        let (roots, dropped) = (job.chain.roots(), job.chain.take_dropped());
        let before = job.remote.counters().deletes;
        let report = done(job.collector.run(&job.remote, &roots, dropped).await.unwrap());
        let deletes = job.remote.counters().deletes - before;
        asked.push((deletes, report.refused as u64));
    }
    let (last, refused) = asked.split_last().unwrap();
    // The first rounds have nothing to delete, and then one asks for all there is.
    let all = refused.iter().position(|(_, refused)| *refused > 0).unwrap();
    assert!(refused[all..].iter().any(|(_, refused)| *refused > 3), "it becomes more: {asked:?}");
    assert!(refused[all + 1..].iter().all(|(deletes, _)| *deletes == 1), "{asked:?}");
    assert!(last.0 > 3 && last.1 == 0, "now all of it goes: {asked:?}");
}

/// What cannot be collected for long is not kept in mind without end.
#[tokio::test]
async fn i6_what_is_still_to_be_deleted_is_bounded() {
    let store = Scripted::new();
    let mut job = Job::open(store.remote(1), |_| 0).await;
    job.cut();
    assert!(job.commit(1).await);
    let pin = ObjectName::pin(nonce(1));
    job.remote.put_data(&pin, Bytes::from_static(b"mine")).await.unwrap();
    let mut most = 0;
    for round in 0..120_u64 {
        let object = |n| ObjectName::data(Epoch(1), SubtaskIndex(0), nonce(9), DataKind::Delta, n);
        job.collector.retire((round * 1_000..(round + 1) * 1_000).map(object).collect());
        let roots = job.chain.roots();
        let collected = job.collector.run(&job.remote, &roots, Vec::new()).await;
        assert_eq!(collected.unwrap_err().kind(), ErrorKind::Corrupt);
        most = most.max(job.collector.dead());
    }
    assert!((60_000..75_000).contains(&most), "{most} names");
}
