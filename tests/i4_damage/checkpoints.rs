//! Damaged checkpoints: what is restored instead, and what is refused.

use super::*;

/// With the caller's permission the checkpoint before is restored, and what was skipped is
/// reported.
#[test]
fn i4_fallback_restores_the_newest_sound_checkpoint_and_reports_the_others() {
    let sample = Sample::changelog(true);
    let newest = sample.checkpoints.last().unwrap().0;
    let fallen_back = AtomicUsize::new(0);
    let mut cases = Vec::new();
    for (name, bytes) in &sample.objects {
        cases.extend(Damage::some(bytes.len() as u64).into_iter().map(|damage| (name, damage)));
    }
    on_two_threads(&cases, |(name, damage)| {
        let context = format!("{name}, {damage:?}");
        let damaged = damage.apply(&sample.objects, name);
        let (_strict_dir, strict) = open(&damaged, |options| options);
        let (_dir, result) = open(&damaged, |options| options.fallback(true));
        let mut opened = match (result, strict) {
            (Err(error), Ok(_)) => panic!("{context}: fallback fails where nothing is wrong: {error}"),
            (Err(error), Err(_)) => {
                assert_names(&error, "", &context);
                assert!(error.to_string().contains(name.as_str()), "{context}: {error}");
                return;
            }
            (Ok(opened), Ok(_)) => {
                assert!(opened.restored.skipped.is_empty(), "{context}: {:?}", opened.restored.skipped);
                opened
            }
            (Ok(opened), Err(_)) => opened,
        };
        let id = opened.restored.checkpoint.expect("a fallback never ends in an empty state");
        if id != newest && opened.restored.skipped.is_empty() {
            // The chain's end was deleted.
            assert_eq!(*name, sample.newest_manifest(), "{context}");
        }
        for (skipped, reason) in &opened.restored.skipped {
            assert!(*skipped > id, "{context}: {skipped} was skipped for {id}");
            assert!(reason.contains(name.as_str()), "{context}: {reason}");
        }
        if let Some((first, _)) = opened.restored.skipped.first() {
            fallen_back.fetch_add(1, Ordering::Relaxed);
            assert_eq!(*first, newest, "{context}");
            let restored = sample.checkpoints.iter().position(|(found, _)| *found == id).unwrap();
            let expected = sample.checkpoints.len() - 1 - restored;
            assert_eq!(opened.restored.skipped.len(), expected, "{context}: each is reported once");
        }
        let (_, expected) = sample.checkpoints.iter().find(|(found, _)| *found == id).unwrap();
        assert!(contents(&mut opened.stores, "words") == *expected, "{context}: wrong contents");
        // And the job goes on from there.
        checkpoint(&opened.job, &mut opened.stores, "goes on").unwrap();
    });
    assert!(fallen_back.into_inner() >= 4, "hardly any damage led to a fallback");
}

/// Without permission nothing else than what was asked for is restored.
#[test]
fn i4_a_given_checkpoint_is_restored_or_refused() {
    let sample = Sample::changelog(true);
    for (id, expected) in &sample.checkpoints {
        let (_dir, opened) =
            open(&sample.objects, |options| options.restore_from(RestoreFrom::Checkpoint(*id)));
        let mut opened = opened.unwrap();
        assert_eq!(opened.restored.checkpoint, Some(*id));
        assert!(contents(&mut opened.stores, "words") == *expected);
    }
    // The manifest of the one in the middle is gone: the others are not hurt, that one is refused.
    let manifests: Vec<_> = sample.objects.keys().filter(|name| name.starts_with("manifest/")).collect();
    let middle = manifests[manifests.len() - 3];
    let damaged = Damage::Flip { at: 30, mask: 1 }.apply(&sample.objects, middle);
    for (at, (id, expected)) in sample.checkpoints.iter().enumerate() {
        let (_dir, opened) = open(&damaged, |options| options.restore_from(RestoreFrom::Checkpoint(*id)));
        match opened {
            Ok(mut opened) => {
                assert_ne!(at, 1);
                assert!(contents(&mut opened.stores, "words") == *expected);
            }
            // The last one may lean on deltas that travelled in the damaged manifest.
            Err(error) => {
                assert_ne!(at, 0);
                assert_names(&error, middle, "a given checkpoint");
            }
        }
    }
}

/// A newer format is not damage: it is told apart, whether or not its checksums hold.
#[test]
fn i4_a_newer_format_is_refused_as_such() {
    for sample in [Sample::changelog(false), Sample::changelog(true)] {
        let name = sample.newest_manifest().to_owned();
        for checksum in [false, true] {
            let mut bytes = sample.objects[&name].to_vec();
            bytes[4..6].copy_from_slice(&99_u16.to_le_bytes());
            if checksum {
                let crc = crc32c::crc32c(&bytes[..24]);
                bytes[24..28].copy_from_slice(&crc.to_le_bytes());
            }
            let mut objects = sample.objects.clone();
            objects.insert(name.clone(), bytes.into());
            for fallback in [false, true] {
                let (_dir, result) = open(&objects, |options| options.fallback(fallback));
                let error = result.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::UnsupportedVersion, "{error}");
                assert!(error.object_name().unwrap().contains(&name), "{error}");
                assert!(error.to_string().contains("99"), "{error}");
            }
        }
    }
}

/// Objects that are sound in themselves, but not the ones that belong there.
#[test]
fn i4_objects_that_were_mixed_up_are_noticed() {
    let sample = Sample::changelog(false);
    let read: Vec<_> = sample.objects.keys().filter(|name| sample.needs(name, 0)).collect();
    let mut mixed = 0;
    for (at, one) in read.iter().enumerate() {
        for other in &read[at + 1..] {
            if sample.objects[*one] == sample.objects[*other] {
                continue;
            }
            let mut objects = sample.objects.clone();
            objects.insert((*one).clone(), sample.objects[*other].clone());
            objects.insert((*other).clone(), sample.objects[*one].clone());
            let (_dir, result) = open(&objects, |options| options);
            let error = result.expect_err("two objects were exchanged");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{one} and {other}: {error}");
            let named = error.object_name().unwrap_or_default();
            assert!(named.contains(one.as_str()) || named.contains(other.as_str()), "{error}");
            mixed += 1;
        }
    }
    assert!(mixed > 3, "only {mixed} pairs");
    // Another job's manifest, or an older one, under the newest name.
    let newest = sample.newest_manifest().to_owned();
    let older = sample.objects.keys().filter(|name| name.starts_with("manifest/")).nth_back(1).unwrap();
    let mut objects = sample.objects.clone();
    objects.insert(newest.clone(), sample.objects[older].clone());
    let (_dir, result) = open(&objects, |options| options);
    assert_names(&result.unwrap_err(), &newest, "an older manifest under a newer name");
}

/// What a broken file system or a careless copy leaves behind.
#[test]
fn i4_strange_objects_in_the_chain_are_named_and_not_touched() {
    let sample = Sample::changelog(false);
    for strange in [Vec::new(), vec![0; 4096], b"ALVM".to_vec(), noise(7, 500)] {
        let name = format!("manifest/{:020}", 900);
        let mut objects = sample.objects.clone();
        objects.insert(name.clone(), strange.into());
        let (_dir, result) = open(&objects, |options| options);
        assert_names(&result.unwrap_err(), &name, "a strange newest manifest");
        // With permission it is passed over, and the attempt's record lies above.
        let (_dir, result) = open(&objects, |options| options.fallback(true));
        let mut opened = result.unwrap();
        assert_eq!(opened.job.epoch().0, 901);
        assert!(opened.restored.damaged[0].1.contains(&name), "{:?}", opened.restored.damaged);
        assert!(contents(&mut opened.stores, "words") == *sample.newest());
    }
    // A name that is none of ours is left alone.
    let mut objects = sample.objects.clone();
    objects.insert("manifest/notes.txt".into(), Bytes::from_static(b"do not delete"));
    objects.insert("manifest/000".into(), Bytes::from_static(b"nor this"));
    let (_dir, result) = open(&objects, |options| options);
    match result {
        Ok(mut opened) => assert!(contents(&mut opened.stores, "words") == *sample.newest()),
        Err(error) => assert!(error.object_name().unwrap_or_default().contains("manifest/"), "{error}"),
    }
}

/// `inspect` looks at damaged jobs as well, and names what is wrong.
#[test]
fn i4_inspect_names_what_is_damaged_or_missing() {
    let sample = Sample::changelog(false);
    let write = |objects: &Objects| {
        let dir = tempfile::tempdir().unwrap();
        let files = objects.iter().map(|(name, bytes)| (name.clone(), bytes.to_vec())).collect();
        alluvium_testkit::objects::write_files(dir.path(), &files);
        dir
    };
    let dir = write(&sample.objects);
    let seen = alluvium::admin::inspect(dir.path().to_str().unwrap()).unwrap();
    assert_eq!(seen.missing, Vec::<String>::new());
    assert_eq!(seen.total_objects, sample.objects.len() as u64);
    for name in sample.objects.keys() {
        let deleted = Damage::Delete.apply(&sample.objects, name);
        let dir = write(&deleted);
        let seen = alluvium::admin::inspect(dir.path().to_str().unwrap()).unwrap();
        let live = sample.needs(name, 0) && name.starts_with("data/");
        assert!(!live || seen.missing == vec![name.clone()], "{name}: {:?}", seen.missing);
        assert_eq!(
            alluvium_testkit::objects::files_below(dir.path()).len(),
            deleted.len(),
            "inspect only looks"
        );
    }
    let newest = sample.newest_manifest();
    let dir = write(&Damage::Flip { at: 40, mask: 4 }.apply(&sample.objects, newest));
    let seen = alluvium::admin::inspect(dir.path().to_str().unwrap()).unwrap();
    assert_eq!(seen.damaged_versions.len(), 1);
    assert!(seen.damaged_versions[0].1.contains(newest), "{:?}", seen.damaged_versions);
    let intact = seen.records.last().unwrap();
    assert!(intact.version < seen.newest_version && intact.checkpoint.is_some(), "{intact:?}");
}
