//! Many attempts at once, and one after the other.

use super::*;

#[test]
fn i2_sixteen_racing_opens_get_distinct_epochs_and_one_of_them_commits() {
    for round in 0..3 {
        let two = Two::new();
        if round > 0 {
            let mut before = two.open("before");
            put(&mut before.stores[0], "k", b"v").unwrap();
            checkpoint(&before.job, &mut before.stores, "before").unwrap();
        }
        let results: Mutex<Vec<Result<Opened, Error>>> = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for n in 0..16 {
                let (two, results) = (&two, &results);
                scope.spawn(move || {
                    let dir = two.dir.path().join(format!("racer {n}"));
                    let opened = open(&two.store, quiet(&dir, OpenMode::CreateOrOpen));
                    results.lock().unwrap().push(opened);
                });
            }
        });
        let mut opened = Vec::new();
        for result in results.into_inner().unwrap() {
            match result {
                Ok(one) => opened.push(one),
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::Fenced | ErrorKind::StoreUnavailable),
                    "{error}"
                ),
            }
        }
        opened.sort_by_key(|one| one.job.epoch());
        assert!(!opened.is_empty(), "nobody got in");
        let epochs: BTreeSet<_> = opened.iter().map(|one| one.job.epoch()).collect();
        assert_eq!(epochs.len(), opened.len(), "an epoch was given twice");
        for one in &mut opened {
            let expected = (round > 0).then(|| b"v".to_vec());
            assert_eq!(get(&mut one.stores[0], "k"), expected, "what a racer restored");
        }
        // The oldest tries first: whoever comes, only the newest may commit.
        let newest = opened.len() - 1;
        for (at, one) in opened.iter_mut().enumerate() {
            put(&mut one.stores[0], "racer", at.to_string().as_bytes()).unwrap();
            let result = checkpoint(&one.job, &mut one.stores, "race");
            match result {
                Ok(_) => assert_eq!(at, newest, "an attempt that was taken over has committed"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
                    // A later opener may have got its record in and failed in what followed.
                }
            }
        }
        drop(opened);
        let mut last = two.open("last");
        if last.metadata.as_deref() == Some(b"race".as_slice()) {
            assert_eq!(get(&mut last.stores[0], "racer"), Some(newest.to_string().into_bytes()));
        }
    }
}

/// Two that fight for hours: every attempt opens while the one before is in the middle of a commit.
#[test]
fn i2_a_relay_of_attempts_loses_no_reported_checkpoint() {
    let two = Two::new();
    let mut reported = 0_u64;
    let mut attempts = Vec::new();
    for round in 0..12_u64 {
        let mut opened = two.open(&format!("{round}"));
        let found = get(&mut opened.stores[0], "count")
            .map_or(0, |bytes| String::from_utf8(bytes).unwrap().parse::<u64>().unwrap());
        assert!(found >= reported, "round {round}: {found} was restored after {reported} had been reported");
        // What was in flight at the take-over may count as well, but nothing beyond it.
        assert!(found <= reported + 1, "round {round}: {found}, though only {reported} had been reported");
        reported = found;
        for _ in 0..3 {
            put(&mut opened.stores[0], "count", (reported + 1).to_string().as_bytes()).unwrap();
            checkpoint(&opened.job, &mut opened.stores, "").unwrap();
            reported += 1;
        }
        // One more is under way when the next attempt opens.
        two.store.rule(move |call| match call.is_manifest_put() && round % 2 == 0 {
            true => Fault::Delay(Duration::from_millis(20 * (round % 5))),
            false => Fault::Pass,
        });
        put(&mut opened.stores[0], "count", (reported + 1).to_string().as_bytes()).unwrap();
        let pending = opened.job.trigger("").unwrap();
        opened.stores[0].cut(pending.id(), "").unwrap();
        if round % 3 == 0 && pending.wait().is_ok() {
            reported += 1;
        }
        attempts.push(opened);
    }
    for opened in &mut attempts[..11] {
        let result = opened.job.trigger("").and_then(|pending| {
            opened.stores[0].cut(pending.id(), "")?;
            pending.wait()
        });
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Fenced);
    }
    let names = names_of(&(Arc::clone(&two.store) as Arc<dyn ObjectStore>), PREFIX);
    assert!(names.iter().all(|name| !name.starts_with("probe/")), "a probe was left: {names:?}");
}
