//! Damaged and foreign objects, and the fallback to an older checkpoint.

use super::*;

#[tokio::test]
async fn i4_a_flip_or_a_loss_in_any_object_is_an_error_that_names_it() {
    let mut world = World::new(2);
    world.pack(3, 100).await;
    world.materialize().await;
    world.pack(2, 50).await;
    world.pack(1, 50).await;
    let found = [world.cut(1)];
    let base = world.base.clone().unwrap();
    let mut objects = base.files.clone();
    objects.push(base.object.clone());
    objects.extend(world.deltas.iter().map(|delta| delta.object.clone()));
    objects.dedup();
    assert!(objects.len() >= 4);
    for object in &objects {
        let good = world.bytes_of(object).await;
        // Deltas do not begin at the start of their objects; what lies between is nobody's.
        let used = world.deltas.iter().filter(|delta| delta.object == *object);
        let (from, to) = used.fold((good.len(), 0), |(from, to), delta| {
            (from.min(delta.offset as usize), to.max((delta.offset + delta.length) as usize))
        });
        let (from, to) = if from < to { (from, to) } else { (0, good.len()) };
        let mut places = vec![from, to - 1];
        places.extend((0..8).map(|_| world.rng.random_range(from..to)));
        for at in places {
            let mut bad = good.to_vec();
            bad[at] ^= 1 << world.rng.random_range(0..8);
            world.overwrite(object, bad).await;
            let error = world.restore(&found, false, &[]).await.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{object} at {at}: {error}");
            assert!(error.to_string().contains(object.to_string().as_str()), "{error}");
        }
        world.overwrite(object, good[..to - 1].to_vec()).await;
        let error = world.restore(&found, false, &[]).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{object} cut short: {error}");
        assert!(error.to_string().contains(object.to_string().as_str()), "{error}");

        world.remote.delete(vec![object.clone()]).await.unwrap();
        let error = world.restore(&found, false, &[]).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::MissingObject, "{object}: {error}");
        assert!(error.to_string().contains(object.to_string().as_str()), "{error}");
        world.overwrite(object, good.to_vec()).await;
    }
    let restored = world.restore(&found, false, &[]).await.unwrap();
    assert_eq!(contents(&restored.subtasks[0].table), world.model);
}

#[tokio::test]
async fn references_that_do_not_fit_their_objects_are_corrupt() {
    let mut world = World::new(3);
    world.pack(1, 50).await;
    world.materialize().await;
    world.pack(2, 50).await;
    let restore = async |change: fn(&mut SubtaskRecord)| {
        let found = world.cut(1);
        let mut manifest = Manifest::clone(found.manifest.as_ref().unwrap());
        let Record::Checkpoint(record) = &mut manifest.record else { unreachable!() };
        change(&mut record.subtasks[0]);
        let found = Found { manifest: Some(Arc::new(manifest)), ..found };
        world.restore(&[found], false, &[]).await.err().map(|error| error.kind())
    };
    assert_eq!(restore(|_| {}).await, None);
    let corrupt = Some(ErrorKind::Corrupt);
    assert_eq!(restore(|subtask| subtask.deltas[0].entries += 1).await, corrupt);
    assert_eq!(restore(|subtask| subtask.deltas[0].crc32c ^= 1).await, corrupt);
    assert_eq!(restore(|subtask| subtask.deltas[0].length = 0).await, corrupt);
    assert_eq!(restore(|subtask| subtask.deltas[0].offset = u64::MAX).await, corrupt);
    assert_eq!(restore(|subtask| subtask.deltas[1].last = DeltaSeq(9)).await, corrupt);
    assert_eq!(restore(|subtask| subtask.base.as_mut().unwrap().crc32c ^= 1).await, corrupt);
    assert_eq!(restore(|subtask| subtask.base.as_mut().unwrap().files.clear()).await, corrupt);
    assert_eq!(restore(|subtask| subtask.base.as_mut().unwrap().seq = DeltaSeq(0)).await, corrupt);
    // Both deltas are whole and in place, but the other way round.
    let swapped = restore(|subtask| {
        let [a, b] = &mut subtask.deltas[..] else { unreachable!() };
        (a.offset, b.offset) = (b.offset, a.offset);
        (a.length, b.length) = (b.length, a.length);
        (a.crc32c, b.crc32c) = (b.crc32c, a.crc32c);
        (a.entries, b.entries) = (b.entries, a.entries);
    });
    assert_eq!(swapped.await, corrupt);
}

#[tokio::test]
async fn i1_a_base_that_stands_elsewhere_than_it_says_is_corrupt() {
    let mut world = World::new(13);
    world.pack(2, 50).await;
    let dir = world.snapshot();
    // Index and manifest agree that the files stand at delta 1, but they contain 2: replaying 2 over
    // them would append twice.
    let uploader = &world.uploader;
    let uploaded = uploader.upload(&dir, RANGE, DeltaSeq(1), OPERATOR_NAME, &world.known).await.unwrap();
    world.base = Some(uploader.publish(&uploaded).await.unwrap());
    world.deltas.remove(0);
    let error = world.restore(&[world.cut(1)], false, &[]).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("stand at delta 2, not 1"), "{error}");
    assert_eq!(error.object_name(), Some(world.base.unwrap().object.to_string().as_str()));
}

#[tokio::test]
async fn a_base_of_another_merge_operator_is_incompatible() {
    let mut world = World::new(4);
    world.pack(1, 50).await;
    let dir = world.snapshot();
    let uploaded = world.uploader.upload(&dir, RANGE, world.seq, "other.merge", &world.known).await.unwrap();
    world.base = Some(world.uploader.publish(&uploaded).await.unwrap());
    world.deltas.clear();
    let error = world.restore(&[world.cut(1)], true, &[]).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("other.merge"), "{error}");
}

#[tokio::test]
async fn falls_back_only_with_permission_and_says_so() {
    let mut world = World::new(5);
    world.pack(1, 50).await;
    world.materialize().await;
    let first = world.cut(1);
    let state = world.model.clone();
    world.pack(1, 50).await;
    let second = world.cut(2);
    let lost = world.deltas[0].object.clone();
    world.remote.delete(vec![lost.clone()]).await.unwrap();
    let damaged = ObjectName::manifest(Version(3));
    world.remote.put_data(&damaged, bytes::Bytes::from_static(b"flipped")).await.unwrap();
    let unreadable = Found { manifest: None, ..world.cut(3) };
    let found = [first.clone(), second.clone(), unreadable];

    let error = world.restore(&found, false, &[]).await.err().unwrap();
    assert_eq!(error.object_name(), Some(damaged.to_string().as_str()));
    let restored = world.restore(&found, true, &[]).await.unwrap();
    assert_eq!(contents(&restored.subtasks[0].table), state);
    assert_eq!(restored.manifest.unwrap().version, Version(1));
    assert_eq!(restored.report.checkpoint.unwrap().number, 1);
    let skipped: Vec<_> = restored.report.skipped.iter().map(|(id, _)| id.number).collect();
    assert_eq!(skipped, [3, 2]);
    assert!(
        restored.report.skipped[1].1.contains(lost.to_string().as_str()),
        "{:?}",
        restored.report.skipped
    );
    drop(restored.subtasks);

    // Where nothing is left, the newest failure is told, and no empty state is made of it.
    let error = world.restore(&[second], true, &[]).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::MissingObject);
}
