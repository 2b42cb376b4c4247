//! What materializations send, as far as only a real table shows it.

use super::*;

#[tokio::test]
async fn materialization_sends_only_what_is_new() {
    let mut world = World::new(8);
    world.pack(1, 300).await;
    let first = world.materialize().await;
    assert!(first.new_files > 0 && first.reused_files == 0);
    world.pack(1, 5).await;
    let second = world.materialize().await;
    assert_eq!(second.reused_bytes, first.new_bytes);
    assert_eq!(second.reused_files, first.new_files);
    assert!(second.new_bytes < first.new_bytes && second.new_files > 0);

    // A restored table goes on from the base it was restored from, without reading the files again.
    let found = world.cut(1);
    let restored = world.restore(&[found], false, &[]).await.unwrap().subtasks.into_iter().next().unwrap();
    world.go_on(restored);
    let third = world.materialize().await;
    assert_eq!((third.new_files, third.reused_files), (0, 2));
    assert_eq!(third.index.objects(), second.index.objects());
}

#[tokio::test]
async fn a_file_is_known_by_its_content_and_not_by_its_name() {
    let world = World::new(9);
    let dir = world.dir.path().join("fake");
    fs::create_dir(&dir).unwrap();
    let upload = async |content: &[u8], known: &Known| {
        fs::write(dir.join("000007.sst"), content).unwrap();
        world.uploader.upload(&TableFiles::of_dir(&dir), RANGE, DeltaSeq(1), "", known).await.unwrap()
    };
    let known = Known::default();
    let one = upload(b"one", &known).await;
    // Same name, same size, other content, as after a failover to an older checkpoint: a new database
    // starts with what the base it was restored from lists, and with no memo.
    let known = Known::from_base(&one.index);
    let two = upload(b"two", &known).await;
    assert_eq!((two.new_files, two.reused_files), (1, 0));
    assert_ne!(one.index.objects(), two.index.objects());
    let objects = two.index.objects();
    assert_eq!(world.bytes_of(&objects[0]).await, &b"two"[..]);
}

#[tokio::test]
async fn i6_a_failed_run_is_resumed_without_sending_anything_twice() {
    let faulty = FaultStore::new(InMemory::new());
    let mut world = World::on(Arc::clone(&faulty) as Arc<dyn ObjectStore>, 10);
    let root = object_store::path::Path::from("job");
    let retry = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
    let remote = Remote::new(Arc::clone(&world.store), root, Env::default()).with_retry(retry);
    world.uploader.remote = Arc::new(remote);
    world.uploader.parallel = 3;
    let dir = world.dir.path().join("fake");
    fs::create_dir(&dir).unwrap();
    for n in 0..5 {
        fs::write(dir.join(format!("{n:06}.sst")), vec![n; 1000 + usize::from(n)]).unwrap();
    }
    faulty.plan(Op::Put, Fault::Fail);
    let files = TableFiles::of_dir(&dir);
    let upload = async || world.uploader.upload(&files, RANGE, DeltaSeq(1), "", &world.known).await;
    let error = upload().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreUnavailable);
    let through = world.known.len();
    assert_eq!(through, 2, "what was under way beside the failure is known");
    let before = world.uploader.remote.counters();
    let done = upload().await.unwrap();
    assert_eq!((done.new_files, done.reused_files), (3, 2));
    assert_eq!((world.uploader.remote.counters() - before).puts, 3);
    for file in &done.index.files {
        let crate::materialize::FileLocation::Object(object) = &file.location else { panic!("{file:?}") };
        assert_eq!(FileId::of_bytes(&world.bytes_of(object).await), file.id);
    }
}
