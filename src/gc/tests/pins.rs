//! Savepoints and pins, and what they keep.

use super::*;

#[tokio::test]
async fn i3_a_pin_keeps_a_checkpoint_until_it_is_released() {
    let store = Scripted::new();
    let remote = store.remote(1);
    let mut job = Job::open(Arc::clone(&remote), |_| 0).await;
    job.cut();
    job.persist().await;
    assert!(job.commit(1).await);
    let (pin, manifest) = pin(&store.remote(2), &the_checkpoint(1, 1)).await.unwrap();
    for _ in 0..2 {
        job.cut();
        job.persist().await;
        job.pack().await;
        assert!(job.commit(1).await);
        job.collect().await;
        check_live(&remote, std::slice::from_ref(&manifest)).await;
    }
    let error = pin_error(&store.remote(3), &the_checkpoint(1, 2)).await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("choose one of [1-3]"), "{error}");
    assert_eq!(remote.list(ObjectName::PINS).await.unwrap().len(), 1, "the pin in vain is withdrawn");
    pin.release().await.unwrap();
    // Kept in mind: the next collection finds it, though no commit dropped anything since.
    let gone = job.collect().await;
    assert!(gone.contains(&ObjectName::manifest(Version(2)).to_string()), "{gone:?}");
    assert!(job.sweep().await.is_empty());
    check_live(&remote, &[]).await;
}

#[tokio::test]
async fn i3_a_savepoint_outlives_checkpoints_and_attempts_and_goes_when_it_is_released() {
    let store = Scripted::new();
    let remote = store.remote(1);
    let name = "kept".parse().unwrap();
    let mut job = Job::open(Arc::clone(&remote), |_| 0).await;
    job.cut();
    job.persist().await;
    job.cut();
    assert!(job.commit(1).await);
    let newest = read_newest(&remote).await.unwrap().unwrap();
    let record =
        savepoint::create(&store.remote(2), &name, &RestoreFrom::Latest, Holder::Reader).await.unwrap();
    assert_eq!(savepoint::list(&remote).await.unwrap(), [(name.clone(), record)]);
    let error =
        savepoint::create(&store.remote(2), &name, &RestoreFrom::Latest, Holder::Reader).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);

    for attempt in 3..6 {
        for _ in 0..3 {
            job.cut();
            job.persist().await;
            job.pack().await;
            assert!(job.commit(1).await);
            job.collect().await;
            job.sweep().await;
            check_live(&remote, std::slice::from_ref(&newest)).await;
        }
        job = Job::open(store.remote(attempt), |_| 0).await;
    }
    // What is dropped already can no longer be made a savepoint of.
    let other = "late".parse().unwrap();
    let error =
        savepoint::create(&store.remote(7), &other, &the_checkpoint(1, 1), Holder::Reader).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(savepoint::list(&remote).await.unwrap().len(), 1, "the one in vain is withdrawn");

    job.cut();
    assert!(job.commit(1).await);
    job.sweep().await;
    assert!(!job.collector.sweep_is_due(&job.chain.roots()));
    savepoint::release(&store.remote(8), &name).await.unwrap();
    assert_eq!(savepoint::release(&remote, &name).await.unwrap_err().kind(), ErrorKind::NotFound);
    job.cut();
    job.persist().await;
    assert!(job.commit(1).await);
    job.collect().await;
    assert!(job.collector.sweep_is_due(&job.chain.roots()), "it may have kept objects of earlier attempts");
    let gone = job.sweep().await;
    assert!(gone.contains(&ObjectName::manifest(newest.version).to_string()), "{gone:?}");
    check_live(&remote, &[]).await;
}

#[tokio::test]
async fn i3_what_an_attempt_goes_on_from_stays_until_it_commits_though_the_savepoint_is_released() {
    let store = Scripted::new();
    let name = "old".parse().unwrap();
    let mut first = Job::open(store.remote(1), |_| 0).await;
    first.cut();
    first.persist().await;
    assert!(first.commit(1).await);
    let newest = read_newest(&first.remote).await.unwrap().unwrap();
    savepoint::create(&first.remote, &name, &RestoreFrom::Latest, Holder::Reader).await.unwrap();
    first.pack().await;
    first.cut();
    first.persist().await;
    first.pack().await;
    assert!(first.commit(1).await);

    let mut second = Job::open_savepoint(store.remote(2), "old").await;
    savepoint::release(&store.remote(3), &name).await.unwrap();
    // Fenced collectors, outside ones and its own: none takes it.
    first.collect_in_vain().await;
    second.sweep().await;
    let roots = Roots::read(&store.remote(4)).await.unwrap().unwrap();
    done(Collector::new().sweep(&store.remote(4), &roots, false).await.unwrap());
    check_live(&second.remote, std::slice::from_ref(&newest)).await;
    second.cut();
    assert!(second.commit(1).await);
    assert!(second.remote.list(ObjectName::PINS).await.unwrap().is_empty(), "the commit takes over");
    second.collect().await;
    second.sweep().await;
    check_live(&second.remote, &[]).await;

    // One that never commits leaves its pin, which the next attempt takes away.
    savepoint::create(&second.remote, &name, &RestoreFrom::Latest, Holder::Reader).await.unwrap();
    let third = Job::open_savepoint(store.remote(5), "old").await;
    drop(third);
    let mut fourth = Job::open(store.remote(6), |_| 0).await;
    assert_eq!(fourth.remote.list(ObjectName::PINS).await.unwrap().len(), 1);
    fourth.sweep().await;
    assert!(fourth.remote.list(ObjectName::PINS).await.unwrap().is_empty());
}

#[tokio::test]
async fn i3_the_pin_of_another_job_stays_until_its_next_attempt_removes_it() {
    let store = Scripted::new();
    let mut job = Job::open(store.remote(1), |_| 0).await;
    job.cut();
    job.persist().await;
    assert!(job.commit(1).await);
    let newest = read_newest(&job.remote).await.unwrap().unwrap();
    let (other, another) = (nonce(1), nonce(2));
    for (seed, who, epoch) in [(2, other, 1), (3, other, 4), (4, another, 1)] {
        let holder = Holder::Other(who, Epoch(epoch));
        Pin::take(&store.remote(seed), &RestoreFrom::Latest, holder).await.unwrap();
    }
    // Epochs of other jobs say nothing here.
    let mut job = Job::open(store.remote(9), |_| 0).await;
    for _ in 0..2 {
        job.cut();
        job.persist().await;
        job.pack().await;
        assert!(job.commit(1).await);
        job.collect().await;
        job.sweep().await;
    }
    check_live(&job.remote, std::slice::from_ref(&newest)).await;
    let pins = async || job.remote.list(ObjectName::PINS).await.unwrap().len();
    assert_eq!(pins().await, 3);
    release_earlier(&job.remote, other, Epoch(4)).await.unwrap();
    assert_eq!(pins().await, 2);
    release_earlier(&job.remote, other, Epoch(5)).await.unwrap();
    release_earlier(&job.remote, another, Epoch(5)).await.unwrap();
    assert_eq!(pins().await, 0);
}

#[tokio::test]
async fn i3_a_damaged_savepoint_stops_the_collection_and_can_be_released() {
    let store = Scripted::new();
    let remote = store.remote(1);
    let mut job = Job::open(Arc::clone(&remote), |_| 0).await;
    for _ in 0..2 {
        job.cut();
        job.persist().await;
        assert!(job.commit(1).await);
    }
    let name = "hurt".parse().unwrap();
    let object = ObjectName::savepoint(&name, Generation(0));
    remote.put_data(&object, Bytes::from_static(b"ALVS?")).await.unwrap();
    let (roots, dropped) = (job.chain.roots(), job.chain.take_dropped());
    let error = job.collector.collect(&remote, &roots, dropped).await.unwrap_err();
    assert_eq!((error.kind(), error.object_name()), (ErrorKind::Corrupt, Some(object.to_string().as_str())));
    let error = pin_error(&remote, &the_savepoint("hurt")).await;
    assert_eq!((error.kind(), error.object_name()), (ErrorKind::Corrupt, Some(object.to_string().as_str())));
    savepoint::release(&remote, &name).await.unwrap();
    assert_eq!(job.sweep().await.len(), 1);
}

#[tokio::test]
async fn what_is_not_there_is_said_with_what_is() {
    let store = Scripted::new();
    let remote = store.remote(1);
    for from in [RestoreFrom::Latest, the_checkpoint(1, 1), the_savepoint("x")] {
        assert_eq!(pin_error(&remote, &from).await.kind(), ErrorKind::NotFound);
    }
    let mut job = Job::open(Arc::clone(&remote), |_| 0).await;
    assert!(pin_error(&remote, &RestoreFrom::Latest).await.to_string().contains("no checkpoint yet"));
    job.cut();
    assert!(job.commit(1).await);
    for name in ["b", "a"] {
        savepoint::create(&remote, &name.parse().unwrap(), &RestoreFrom::Latest, Holder::Reader)
            .await
            .unwrap();
    }
    let error = pin_error(&remote, &the_savepoint("c")).await;
    assert!(error.to_string().contains("choose one of [a, b]"), "{error}");
    let error = pin_error(&remote, &the_savepoint("../c")).await;
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(remote.list(ObjectName::PINS).await.unwrap().is_empty(), "no pin stays behind");
}

async fn pin_error(remote: &Arc<Remote>, from: &RestoreFrom) -> crate::Error {
    match Pin::take(remote, from, Holder::Reader).await {
        Ok(_) => panic!("{from:?} was pinned"),
        Err(error) => error,
    }
}

/// An attempt that dies, or is fenced, while it makes a savepoint leaves a pin. It keeps what it names until nothing can come
/// of the savepoint any more.
#[tokio::test]
async fn i3_the_pin_of_a_savepoint_that_was_not_finished_goes_once_the_savepoint_is_decided() {
    let store = Scripted::new();
    let name: SavepointName = "daily".parse().unwrap();
    let mut first = Job::open(store.remote(1), |_| 0).await;
    first.cut();
    first.persist().await;
    assert!(first.commit(1).await);
    let newest = read_newest(&first.remote).await.unwrap().unwrap();
    let saving = Holder::Saving(first.chain.epoch(), name.clone());
    // It has pinned, and found out which object to create.
    let (_pin, _) = Pin::take(&first.remote, &RestoreFrom::Latest, saving.clone()).await.unwrap();
    let late = ObjectName::savepoint(&name, Generation(0));

    let mut second = Job::open(store.remote(2), |_| 0).await;
    for _ in 0..2 {
        second.cut();
        second.persist().await;
        second.pack().await;
        assert!(second.commit(1).await);
    }
    let (remote, collector) = (Arc::clone(&second.remote), &mut second.collector);
    let roots = second.chain.roots();
    assert_eq!(remote.list(ObjectName::PINS).await.unwrap().len(), 1);
    done(collector.run(&remote, &roots, second.chain.take_dropped()).await.unwrap());
    check_live(&remote, std::slice::from_ref(&newest)).await;
    assert_eq!(remote.list(ObjectName::PINS).await.unwrap().len(), 0, "it is decided");
    // Too late.
    let record = Bytes::from_static(b"a savepoint");
    let _ = remote.put_data(&late, record).await;
    assert_eq!(savepoint::find(&remote, &name).await.unwrap(), None);
    let error = savepoint::create(&first.remote, &name, &RestoreFrom::Latest, saving).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    assert_eq!(remote.list(ObjectName::PINS).await.unwrap().len(), 0);
    // What it kept goes, and the name can be given.
    done(collector.run(&remote, &roots, Vec::new()).await.unwrap());
    assert!(!objects(&remote).await.contains(&ObjectName::manifest(newest.version).to_string()));
    let saving = Holder::Saving(second.chain.epoch(), name.clone());
    savepoint::create(&remote, &name, &RestoreFrom::Latest, saving.clone()).await.unwrap();

    // One that was made in time stays.
    let (_pin, _) = Pin::take(&remote, &RestoreFrom::Latest, saving).await.unwrap();
    let kept = read_newest(&remote).await.unwrap().unwrap();
    let mut third = Job::open(store.remote(3), |_| 0).await;
    for _ in 0..2 {
        third.cut();
        third.persist().await;
        third.pack().await;
        assert!(third.commit(1).await);
        let (roots, dropped) = (third.chain.roots(), third.chain.take_dropped());
        done(third.collector.run(&remote, &roots, dropped).await.unwrap());
        check_live(&remote, std::slice::from_ref(&kept)).await;
    }
    assert_eq!(remote.list(ObjectName::PINS).await.unwrap().len(), 0);
    assert_eq!(savepoint::names(&remote).await.unwrap(), [name]);
}
